"""The manifests and the Helm chart: what they render is safe, complete, and fits the server's settings."""

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import CliApp

from lavant.server.app.settings import Settings
from server.deploy.kubernetes import faults

DEPLOY = Path(__file__).parents[3] / "server" / "deploy"
CHART = DEPLOY / "helm" / "lavant"
MANIFESTS = ("lavant.yaml", "nats.yaml", "envoy.yaml")
SQLITE = ("store=sqlite:////var/lib/lavant/lavant.db", "replicas=1")
needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None, reason="needs helm: go install helm.sh/helm/v3/cmd/helm@latest"
)


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


async def helm(*arguments: str) -> tuple[int, str]:
    """Run helm; return its exit status and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        "helm", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def render(*values: str) -> list[dict[str, Any]]:
    """Render the chart with some values set."""
    status, out = await helm(
        "template", "lavant", str(CHART), "--kube-version=1.30", *(f"--set={value}" for value in values)
    )
    assert status == 0, out
    return documents(out)


def by_kind(found: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    (one,) = (document for document in found if document["kind"] == kind)
    return one


def environment(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    container = by_kind(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_have_no_critical_faults(name: str) -> None:
    assert faults(documents((DEPLOY / "kubernetes" / name).read_text())) == []


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("containers/0/securityContext/readOnlyRootFilesystem", "may write to its root file system"),
        ("containers/0/securityContext/capabilities", "keeps capabilities"),
        ("containers/0/resources/limits/cpu", "limits lack cpu"),
        ("containers/0/livenessProbe", "lacks a probe"),
        ("containers/0/imagePullPolicy", "imagePullPolicy is not Always"),
        ("securityContext/runAsGroup", "low user or group ID"),
        ("affinity", "all of its pods on one node"),
    ],
)
def test_a_fault_is_found(path: str, fault: str) -> None:
    found = deepcopy(documents((DEPLOY / "kubernetes" / "lavant.yaml").read_text()))
    *parents, last = path.split("/")
    place: Any = by_kind(found, "Deployment")["spec"]["template"]["spec"]
    for part in parents:
        place = place[int(part)] if part.isdecimal() else place[part]
    del place[last]
    assert fault in "".join(faults(found))


def test_chart_settings_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    variables = set(re.findall(r"LAVANT_([A-Z][A-Z_]+)", (CHART / "templates" / "deployment.yaml").read_text()))
    assert {*values["settings"], *(name.lower() for name in variables)} <= Settings.model_fields.keys()


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', (DEPLOY.parents[1] / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


@needs_helm
async def test_chart_passes_lint() -> None:
    status, out = await helm("lint", "--strict", str(CHART))
    assert status == 0, out


@needs_helm
@pytest.mark.parametrize("values", [(), SQLITE, ("ingress.enabled=true", "replicas=5", "service.headless=false")])
async def test_rendered_chart_has_no_critical_faults(values: tuple[str, ...]) -> None:
    assert faults(await render(*values)) == []


@needs_helm
async def test_rendered_environment_is_valid_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = environment(
        await render("settings.max_streams=50000", "settings.webhooks={https://a.example/,https://b.example/}")
    )
    for name, value in found.items():
        if value.startswith("/etc/lavant/"):
            path = tmp_path / value.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"first={'0123456789abcdef' * 2}")
            value = str(path)
        monkeypatch.setenv(name, value)
    settings = CliApp.run(Settings, cli_args=[])
    assert (settings.auth, settings.insecure, settings.nats_user) == (["keys"], False, "lavant")
    assert list(settings.token_keys) == ["first"]
    assert settings.max_streams == 50_000
    assert settings.webhooks == ["https://a.example/", "https://b.example/"]
    assert settings.store_is_shared
    assert settings.log_format == "json"


@needs_helm
async def test_sqlite_store_has_one_replica_and_a_volume() -> None:
    found = await render(*SQLITE)
    pod = by_kind(found, "Deployment")["spec"]["template"]["spec"]
    assert by_kind(found, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"/tmp", "/var/lib/lavant", "/etc/lavant/tls", "/etc/lavant/token-keys"}
    assert by_kind(found, "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    status, out = await helm("template", "lavant", str(CHART), "--kube-version=1.30", f"--set={SQLITE[0]}")
    assert status != 0
    assert "replicas must be 1 with a SQLite store" in out


@needs_helm
async def test_chart_is_the_manifests_with_other_names() -> None:
    shipped = documents((DEPLOY / "kubernetes" / "lavant.yaml").read_text())
    for found in (rendered := await render(), shipped):
        pod = by_kind(found, "Deployment")["spec"]["template"]["spec"]
        for name in ("affinity", "automountServiceAccountToken"):
            pod.pop(name, None)
    chart, manifest = (by_kind(found, "Deployment")["spec"]["template"]["spec"] for found in (rendered, shipped))
    for one in (chart, manifest):
        one["containers"][0]["env"].sort(key=json.dumps)
    assert chart == manifest
