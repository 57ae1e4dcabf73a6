"""Alert rules and the dashboard speak of metrics that exist, and the runbook of each alert."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pod_automation.metrics import reference

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NAME = re.compile(r"pod_automation_\w+")
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def known() -> set[str]:
    """All names that a process shows."""
    return {
        name
        for _, _, collectors in reference.sections()
        for collector in collectors
        for metric in collector.collect()
        for name in reference.names(metric)
    }


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in alerts():
        yield rule["expr"]
    for panel in json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_name_exists(known: set[str]) -> None:
    used = {name for expression in expressions() for name in NAME.findall(expression)}
    assert used - known == set()
    # And what is measured is shown somewhere: what nobody looks at need not be measured.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in known} == shown


def test_every_alert_is_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    headings = re.findall(r"^### (PodAutomation\w+)$", runbook, re.M)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")


def test_the_page_of_metrics_is_what_the_code_says(
    known: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference.main(["--check"]) == 0, f"run {reference.COMMAND}"
    table = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    assert {name for name in table if reference.page().count(f"| `{name}` |") != 1} == set()
    monkeypatch.setattr(reference, "PAGE", tmp_path / "page.md")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


def test_labels_are_few() -> None:
    allowed = {"type", "shard", "state", "status", "topic", "partition", "reason", "kind"}
    allowed |= {"le", "method", "route", "why"}
    for _, _, collectors in reference.sections():
        for metric in (metric for each in collectors for metric in each.collect()):
            assert {label for sample in metric.samples for label in sample.labels} <= allowed


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on this machine")
def test_promtool_takes_the_rules() -> None:
    assert PROMTOOL is not None
    for command, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [PROMTOOL, "check", command, name], cwd=DEPLOY, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
