"""The alert rules and the dashboard ask for what the service tells, and the runbook is that of the rules."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import promql_parser
import pytest
import yaml

from deploy.dashboard import PANELS, dashboard
from tests.docs.runbook import ROOT, RULES, alerts, page

FOLDER = RULES.parent
QUERIES = [rule["expr"] for rule in alerts()] + [
    query for row in PANELS.values() for panel in row for query, _ in panel.lines
]


@cache
def metrics_told() -> set[str]:
    """The names of all metrics in the code, with what Prometheus appends to them."""
    sources = [path for folder in ("api", "core", "worker") for path in (ROOT / folder).rglob("*.py")]
    nodes = (node for path in sources for node in ast.walk(ast.parse(path.read_text())))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    names = {text for text in texts if re.fullmatch(r"hdb_[a-z_]+", text)}
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    return {name + suffix for name in names for suffix in suffixes} | {"process_resident_memory_bytes"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_promql_about_metrics_that_are_told(query: str) -> None:
    promql_parser.parse(query)
    named = set(re.findall(r"\b(?:hdb|process)_[a-z_]+", query))
    assert named
    assert named <= metrics_told()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert set(rule["annotations"]) == {"summary", "meaning", "action"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"alert", "expr", "for"} <= set(rule)


def test_settings_and_events_that_the_runbook_names_exist() -> None:
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", RULES.read_text()))
    sources = "".join(
        path.read_text() for folder in ("api", "core", "worker") for path in (ROOT / folder).rglob("*.py")
    )
    assert {event for event in named if f'"{event}"' not in sources} == set()


def test_the_runbook_and_the_dashboard_are_current() -> None:
    assert (ROOT / "docs" / "runbook.md").read_text() == page(), "make docs"
    assert json.loads((FOLDER / "dashboard.json").read_text()) == dashboard(), "make generate"


def test_each_alert_is_tried_on_a_good_day() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    assert {each["alertname"] for each in tests[0]["alert_rule_test"]} == {rule["alert"] for rule in alerts()}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (of Prometheus) is not installed")
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_prometheus_own_tool_finds_no_fault(arguments: list[str]) -> None:
    subprocess.run(["promtool", *arguments], cwd=Path(FOLDER), check=True)
