"""What is shipped for deploying is read by what it is for, and names what there is."""

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavant.server.settings import Settings

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"
MANIFESTS = ("kubernetes/lavant.yaml", "kubernetes/nats.yaml")


def manifests(name: str) -> dict[str, Any]:
    """The documents of a file, by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / name).read_text())}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


async def test_nats_takes_its_configuration() -> None:
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
    process = await asyncio.create_subprocess_exec(
        program, "-t", "-c", str(DEPLOY / "nats.conf"), env={"NAME": "nats-0"}
    )
    assert await process.wait() == 0


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes/lavant.yaml"])
def test_every_variable_is_a_setting(name: str) -> None:
    found = {variable.lower() for variable in re.findall(r"LAVANT_([A-Z_]+)", (DEPLOY / name).read_text())}
    assert found
    assert found <= Settings.model_fields.keys()


def test_the_proxies_know_the_services_of_compose() -> None:
    replicas = {f"lavant-{number}" for number in range(2)}
    assert replicas < compose()["services"].keys()
    for name in ("envoy.yaml", "nginx.conf"):
        assert set(re.findall(r"lavant-\d", (DEPLOY / name).read_text())) == replicas


def test_all_name_the_same_servers_of_nats() -> None:
    found = manifests("kubernetes/lavant.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    in_kubernetes = next(one["value"] for one in found if one["name"] == "LAVANT_STORE")
    assert compose()["x-lavant"]["environment"]["LAVANT_STORE"] == in_kubernetes
    assert manifests("kubernetes/nats.yaml")["StatefulSet"]["spec"]["replicas"] == in_kubernetes.count("nats-")


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_is_selected_is_there(name: str) -> None:
    found = manifests(name)
    workload = found.get("Deployment") or found["StatefulSet"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    for selector in (
        workload["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()


def test_lists_can_spill_to_disk_where_nothing_else_can_be_written() -> None:
    """SQLite looks for a place in /tmp."""
    replica = compose()["x-lavant"]
    assert (replica["read_only"], replica["tmpfs"]) == (True, ["/tmp"])
    pod = manifests("kubernetes/lavant.yaml")["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def test_a_replica_has_the_time_that_it_needs_to_drain() -> None:
    pod = manifests("kubernetes/lavant.yaml")["Deployment"]["spec"]["template"]["spec"]
    before = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + Settings.model_fields["drain_timeout"].default
