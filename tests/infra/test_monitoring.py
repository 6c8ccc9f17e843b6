"""Prometheus rules and the Grafana dashboard speak of metrics that the code counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.factory.metrics import METRICS
from tests.infra.conftest import INFRA, Tool, documents

DASHBOARD = json.loads((INFRA / "grafana" / "dashboards" / "factory.json").read_text())
PROMETHEUS = INFRA / "prometheus"
EXPORTED = {name: spec for spec in METRICS for name in spec.exported_names}
RAY_TAGS = {"NodeAddress", "WorkerId", "Component", "le"}


def expressions() -> list[str]:
    rules = [rule["expr"] for group in documents(PROMETHEUS / "alerts.yml")[0]["groups"] for rule in group["rules"]]
    return rules + [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def selectors(node: Any, parser: Any) -> list[tuple[str, set[str]]]:
    """(metric, tags it is filtered by) of every selector below an expression."""
    if isinstance(node, parser.VectorSelector):
        return [(node.name, {matcher.name for matcher in node.matchers.matchers})]
    children = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "vs")]
    found = [pair for child in children if child is not None for pair in selectors(child, parser)]
    return found + [pair for child in getattr(node, "args", None) or [] for pair in selectors(child, parser)]


@pytest.mark.parametrize("expression", expressions())
def test_expressions_parse_and_name_metrics_and_tags_of_the_code(expression: str) -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    found = selectors(parser.parse(expression), parser)
    names = set(re.findall(r"ray_ctmr_\w+", expression))
    assert {name for name, _ in found} == names
    assert names
    for name, tags in found:
        assert name in EXPORTED, f"no metric of the code is scraped as {name}"
        assert tags <= {"dataset", *EXPORTED[name].tags}


@pytest.mark.parametrize("expression", expressions())
def test_expressions_group_by_tags_their_metrics_have(expression: str) -> None:
    known = set().union(*({"dataset", *EXPORTED[name].tags} for name in re.findall(r"ray_ctmr_\w+", expression))) | RAY_TAGS
    grouped = {tag.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for tag in group.split(",")}
    assert grouped <= known


def test_every_metric_of_the_code_is_on_the_dashboard() -> None:
    shown = " ".join(expressions())
    assert not [spec.name for spec in METRICS if not any(name in shown for name in spec.exported_names)]


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    (source,) = documents(INFRA / "grafana" / "provisioning" / "datasources" / "prometheus.yml")[0]["datasources"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
    (variable,) = DASHBOARD["templating"]["list"]
    assert re.search(r"label_values\((\w+),", variable["query"]["query"])[1] in EXPORTED


def test_promtool_accepts_configuration_and_rules(tool: Tool, tmp_path: Path) -> None:
    rules = tool("promtool", "check", "rules", PROMETHEUS / "alerts.yml")
    assert rules.returncode == 0, rules.stderr
    text = (PROMETHEUS / "prometheus.yml").read_text().replace("/etc/prometheus", str(PROMETHEUS))
    (tmp_path / "prometheus.yml").write_text(text)
    checked = tool("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_yaml_of_infra_is_in_the_house_style(tool: Tool) -> None:
    found = tool("yamllint", "-c", INFRA.parent / ".yamllint", INFRA)
    assert found.returncode == 0, found.stdout
