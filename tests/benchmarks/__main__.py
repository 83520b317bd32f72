"""`make bench`: every figure beside what it compares with. `--quick` checks that the benchmarks work."""

import argparse
import tempfile
from pathlib import Path

import uvloop

from benchmarks import cluster, idle, live, producer, publish, reader, replay, sampling, scores, sse, streams

ALL = {
    "replay": replay.run,
    "publish": publish.run,
    "live": live.run,
    "idle": idle.run,
    "reader": reader.run,
    "producer": producer.run,
    "streams": streams.run,
    "sampling": sampling.run,
    "sse": sse.kept,
    "sse-first": sse.first,
    "sse-readers": sse.fan_out,
    "scores": scores.query,
    "scores-history": scores.history,
    "scores-intake": scores.intake,
    "cluster-publish": cluster.publishing,
    "cluster-replay": cluster.replaying,
    "cluster-live": cluster.latency,
    "cluster-cpu": cluster.cpu,
}


async def _main(names: list[str], *, quick: bool) -> None:
    for name in names or ALL:
        with tempfile.TemporaryDirectory(prefix="lavant-bench-") as folder:
            print((await ALL[name](Path(folder), quick=quick)).line(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("names", nargs="*", metavar="|".join(ALL))
    parser.add_argument("--quick", action="store_true", help="small loads: the figures mean little")
    arguments = parser.parse_args()
    uvloop.run(_main(arguments.names, quick=arguments.quick))
