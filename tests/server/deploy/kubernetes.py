"""Rules for workloads on Kubernetes: those that kube-score calls critical."""

from collections.abc import Iterator, Sequence
from typing import Any

LOWEST_ID = 10_000


def faults(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with a set of manifests; no faults means a score without criticals."""
    pods = [one for one in documents if one["kind"] in ("Deployment", "StatefulSet")]
    return [f"{pod['metadata']['name']}: {fault}" for pod in pods for fault in _faults(pod, documents)]


def _faults(workload: dict[str, Any], documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    spec = workload["spec"]
    template = spec["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    for container in pod["containers"]:
        yield from _container_faults(container, pod["securityContext"])
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield "selects none of its own pods"
    if "podAntiAffinity" not in pod.get("affinity", {}):
        yield "may have all of its pods on one node"
    services = [one for one in documents if one["kind"] == "Service"]
    if not any(one["spec"]["selector"].items() <= labels.items() for one in services):
        yield "no service targets it"
    if any(one["spec"].get("type", "ClusterIP") != "ClusterIP" for one in services):
        yield "a service has a port on every node"
    if workload["kind"] == "StatefulSet" and spec["serviceName"] not in {one["metadata"]["name"] for one in services}:
        yield "its service does not exist"
    policies = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]
    for kind in ("Ingress", "Egress"):
        if not any(kind in one["policyTypes"] and _selects(one["podSelector"], labels) for one in policies):
            yield f"no network policy restricts {kind}"
    if spec["replicas"] > 1:
        budgets = [one["spec"] for one in documents if one["kind"] == "PodDisruptionBudget"]
        if not any(
            _selects(one["selector"], labels) and {"maxUnavailable", "minAvailable"} & one.keys() for one in budgets
        ):
            yield "has no disruption budget"
        if spec.get("strategy", {}).get("type", "RollingUpdate") != "RollingUpdate":
            yield "does not update by rolling"


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def _container_faults(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    security = {**of_pod, **container.get("securityContext", {})}
    if container["image"].partition(":")[2] in ("", "latest"):
        yield "the image has no fixed tag"
    if container.get("imagePullPolicy") != "Always":
        yield "imagePullPolicy is not Always"
    for kind in ("requests", "limits"):
        missing = {"cpu", "memory", "ephemeral-storage"} - container["resources"].get(kind, {}).keys()
        if missing:
            yield f"{kind} lack {', '.join(sorted(missing))}"
    if min(security.get("runAsUser", 0), security.get("runAsGroup", 0)) <= LOWEST_ID:
        yield "runs with a low user or group ID"
    if not security.get("runAsNonRoot") or security.get("allowPrivilegeEscalation", True) or security.get("privileged"):
        yield "may become privileged"
    if not security.get("readOnlyRootFilesystem"):
        yield "may write to its root file system"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "keeps capabilities"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    probes = container.get("readinessProbe"), container.get("livenessProbe")
    if None in probes or probes[0] == probes[1]:
        yield "lacks a probe, or readiness and liveness are the same"
    names = [one["name"] for one in container.get("env", [])]
    if len(names) != len(set(names)):
        yield "sets a variable twice"
