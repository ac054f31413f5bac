"""`python -m tests.docs.runbook docs/runbook.md`: the runbook, from the alert rules that Prometheus is given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "monitoring" / "alerts.yaml"
_HEAD = """# Runbook

Each alert of [`deploy/monitoring/alerts.yaml`](../deploy/monitoring/alerts.yaml), what it means and what to do. A
`page` cannot wait for the morning, a `ticket` can. This page is made from the rules by `make docs`.

| alert | severity | |
|---|---|---|
"""


def alerts() -> list[dict[str, Any]]:
    """The rules, in the order of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def page() -> str:
    """The page in Markdown."""
    rows = [_row(rule) for rule in alerts()]
    return _HEAD + "".join(rows) + "".join(map(_section, alerts()))


def _row(rule: dict[str, Any]) -> str:
    name, notes = rule["alert"], rule["annotations"]
    return f"| [{name}](#{name.lower()}) | {rule['labels']['severity']} | {notes['summary']} |\n"


def _section(rule: dict[str, Any]) -> str:
    notes = rule["annotations"]
    return (
        f"\n## {rule['alert']}\n\n{notes['summary']}\n\n```promql\n{rule['expr']}\n```\n\n"
        f"**What it means.** {notes['meaning']}\n\n**What to do.** {notes['action']}\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
