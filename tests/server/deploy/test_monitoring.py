"""The Grafana dashboard and the alert rules: they load, and name metrics that the server has."""

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavant.server.app.settings import Settings
from lavant.server.observability.prometheus import METRICS
from server.observability.scraping import Scrape
from support.server import Server

DEPLOY = Path(__file__).parents[3] / "server" / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "lavant.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
METRIC = re.compile(r"\b(?:lavant|process)_[a-z_]+")
LABELS = {name for metric in METRICS for name in metric.labels} | {"instance", "job", "le"}
PARTS = {"histogram": ("_bucket", "_sum", "_count")}
SAMPLES = {f"{one.name}{part}" for one in METRICS for part in PARTS.get(one.kind, ("",))}


def expressions() -> dict[str, str]:
    """Return all PromQL expressions by where they stand."""
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    targets = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]
    return {**dict(targets), **{rule["alert"]: rule["expr"] for rule in RULES}}


@pytest.mark.parametrize(("name", "expression"), expressions().items(), ids=expressions())
def test_expression_names_existing_metrics_and_labels(name: str, expression: str) -> None:
    process = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    assert set(METRIC.findall(expression)) <= SAMPLES | process
    labels = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels += [label.strip() for label in group.split(",")]
    assert set(labels) <= LABELS
    assert expression.count("(") == expression.count(")")


def test_dashboard_shows_every_metric() -> None:
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for one in panel.get("targets", ())
        for name in METRIC.findall(one["expr"])
    }
    assert {metric.name for metric in METRICS} <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}


def test_dashboard_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)


async def test_table_of_metrics_is_what_a_server_exposes(server: Server) -> None:
    exposed = {family.name: family for family in Scrape(server.app.metrics).families}
    for metric in METRICS:
        family = exposed.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        assert all(set(sample.labels) - {"le"} == set(metric.labels) for sample in family.samples)
    assert not [name for name in exposed if not name.startswith("process_")]


def test_alerts_are_complete() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "description"} == rule["annotations"].keys()
        settings = re.findall(r"\b(?:write_timeout|drain_timeout|max_streams)\b", rule["annotations"]["description"])
        assert set(settings) <= Settings.model_fields.keys()


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool: go install github.com/prometheus/prometheus/cmd/promtool@latest",
)
async def test_promtool_accepts_the_alerts() -> None:
    process = await asyncio.create_subprocess_exec(
        "promtool", "check", "rules", "--lint=all", "--lint-fatal", str(DEPLOY / "prometheus" / "alerts.yaml")
    )
    assert await process.wait() == 0
