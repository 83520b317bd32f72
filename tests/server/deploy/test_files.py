"""What is shipped for deploying is read by what it is for, and names what there is."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavant.server.app.settings import Settings
from support.shipped_nats import make_secrets

DEPLOY = Path(__file__).parents[3] / "server" / "deploy"
MANIFESTS = ("kubernetes/lavant.yaml", "kubernetes/nats.yaml", "kubernetes/envoy.yaml")


def manifests(name: str) -> dict[str, Any]:
    """The documents of a file, by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / name).read_text())}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes/lavant.yaml"])
def test_every_variable_is_a_setting(name: str) -> None:
    found = {variable.lower() for variable in re.findall(r"LAVANT_([A-Z_]+)", (DEPLOY / name).read_text())}
    assert found
    assert found <= Settings.model_fields.keys()


def test_the_proxies_know_the_services_of_compose() -> None:
    replicas = {f"lavant-{number}" for number in range(2)}
    assert replicas < compose()["services"].keys()
    assert set(re.findall(r"lavant-\d", (DEPLOY / "nginx.conf").read_text())) == replicas
    # Envoy finds all of them by one name, in compose and in Kubernetes.
    name = manifests("kubernetes/lavant.yaml")["Service"]["metadata"]["name"]
    assert all(compose()["services"][one]["networks"]["inside"]["aliases"] == [name] for one in replicas)
    addresses = re.findall(r"address: (\S+), port_value", (DEPLOY / "envoy.yaml").read_text())
    assert set(addresses) == {name, "0.0.0.0"}


def test_callers_behind_a_proxy_share_its_address() -> None:
    in_kubernetes = manifests("kubernetes/lavant.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert compose()["x-lavant"]["environment"]["LAVANT_PEER_SHARE"] == "1"
    assert {"name": "LAVANT_PEER_SHARE", "value": "1"} in in_kubernetes
    assert yaml.safe_load((DEPLOY / "helm/lavant/values.yaml").read_text())["settings"]["peer_share"] == 1


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
    assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]


def test_a_replica_has_the_time_that_it_needs_to_drain() -> None:
    pod = manifests("kubernetes/lavant.yaml")["Deployment"]["spec"]["template"]["spec"]
    before = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + Settings.model_fields["drain_timeout"].default


def test_secrets_of_compose_are_made(tmp_path: Path) -> None:
    made = make_secrets(tmp_path)
    assert all((made.parent / secret["file"]).is_file() for secret in compose()["secrets"].values())
    folders = re.findall(r"\./(secrets/[a-z-]+):", (DEPLOY / "compose.yaml").read_text())
    assert folders
    assert all((made.parent / folder / "tls.crt").is_file() for folder in folders)
    assert made.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", MANIFESTS)
def test_secrets_of_kubernetes_are_described(name: str) -> None:
    described = "".join((DEPLOY / each).read_text() for each in MANIFESTS)
    found = manifests(name)
    volumes = (found.get("Deployment") or found["StatefulSet"])["spec"]["template"]["spec"]["volumes"]
    secrets = [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
    assert secrets
    for secret in secrets:
        assert f"secret generic {secret} " in described or f"Secret {secret} " in described
