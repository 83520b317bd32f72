"""Three NATS servers, two replicas of lavant and Envoy on this machine, with the demo at work on them.

Run it with `make cluster`; it serves until Ctrl-C, or with --once until the demo ends. A replica is killed, to which
the agent may be connected: the claims of the demo hold for the cluster as for one server.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from examples.demo import TIMEOUT, Demo, View, report
from lavant.client import AsyncClient
from support.cluster import running_cluster


async def main(*, once: bool) -> int:
    """Start the cluster and run the demo on it; return the exit status."""
    view = View()
    with tempfile.TemporaryDirectory(prefix="lavant-cluster-") as folder:
        async with running_cluster(Path(folder)) as cluster, AsyncClient(cluster.target) as client:
            view.note(f"Envoy on {cluster.target}, the dashboard on http://{cluster.http}")
            view.note(f"replicas on {', '.join(replica.target for replica in cluster.replicas)}")
            view.note(f"NATS on {', '.join(server.address for server in cluster.nats)}")
            async with asyncio.timeout(TIMEOUT):
                evidence = await Demo(cluster.replicas[0], client, view).play()
            status = report(evidence, view)
            if not once:
                view.note(f"try: lavant runs --target {cluster.target}; Ctrl-C stops all")
                await asyncio.Event().wait()
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make cluster")
    parser.add_argument("--once", action="store_true", help="stop after the demo")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main(once=arguments.once)))
