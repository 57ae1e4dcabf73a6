"""`plan` shows what the planner would do, and does nothing."""

import json
from pathlib import Path

import pytest

from pod_automation import InvalidArgumentError, PodAutomation
from pod_automation.cli.event_lines import MAX_LINE_BYTES
from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.plan import COLUMNS, LEAST_COLUMNS, MEMBERS, duration, timeline
from pod_automation.client.preview import preview
from scheduler.activity import PostPlan
from scheduler.planner import extended, plan
from scheduler.policy import PacingPolicy
from schemas.codec import decode
from schemas.events import PostDetected
from schemas.times import millis
from tests.unit.program import call

EVENT = {
    "event_id": "e1",
    "pod_id": "p1",
    "post_id": "42",
    "member_ids": ["ann", "bob", "cyd"],
    "author_id": "cyd",
    "detected_at": "2026-11-24T08:00:00Z",
}
OFFLINE = ("plan", "--offline")


def event(**changes: object) -> PostDetected:
    return decode(PostDetected, json.dumps(EVENT | changes).encode())


def file(folder: Path, text: str) -> str:
    path = folder / "event.json"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_preview_is_what_the_planner_plans() -> None:
    policy = PacingPolicy()
    members = [f"m{number}" for number in range(8)]
    found = preview(event(member_ids=members), policy, PostPlan())
    planned = plan(event(member_ids=members), policy, PostPlan(), 7)
    assert {(each.activity_id, millis(each.scheduled_for)) for each in found.engagements} == {
        (each.activity_id, each.scheduled_for_ms) for each in planned
    }
    due = [each.scheduled_for for each in found.engagements]
    assert due == sorted(due)
    base_ms = millis(found.detected_at)
    assert all(millis(each.scheduled_for) == base_ms + each.delay_ms for each in found.engagements)


def test_what_the_post_has_counts() -> None:
    policy = PacingPolicy()
    had = extended(PostPlan(), plan(event(), policy, PostPlan(), 0))
    more = preview(event(member_ids=["ann", "dan", "eve"]), policy, had)
    assert more.already_planned == 2
    assert {each.member_id for each in more.engagements} == {"dan", "eve"}
    likes = [each for each in more.engagements if each.engagement_type == "like"]
    # Two of the three likes of an hour are taken.
    assert likes[-1].delay_ms >= policy.like_cap_window_ms


async def test_the_client_takes_an_event_in_each_form_and_asks_no_store_offline() -> None:
    async with PodAutomation() as pods:
        found = await pods.preview_plan(event(), offline=True)
        assert found == await pods.preview_plan(EVENT, offline=True)
        assert found == await pods.preview_plan(json.dumps(EVENT).encode(), offline=True)
        assert found["already_planned"] == 0
        for wrong in ({}, b"", b"[]", {"pod_id": object()}):
            with pytest.raises(InvalidArgumentError, match="no post-detected event"):
                await pods.preview_plan(wrong, offline=True)


def test_a_table_and_a_timeline(tmp_path: Path) -> None:
    outcome = call(*OFFLINE, "--file", file(tmp_path, json.dumps(EVENT, indent=2)))
    assert (outcome.code, outcome.err) == (0, "")
    title, head, *rows = outcome.out.splitlines()
    assert title.strip() == "Post 42 of pod p1, detected 2026-11-24T08:00:00.000Z"
    assert head.split() == ["after", "due", "what", "member"]
    table, lines = rows[: rows.index("")], rows[rows.index("") + 1 :]
    assert [(row.split()[-2], row.split()[-1]) for row in table] == [
        ("like", "ann"),
        ("like", "bob"),
        ("comment", "ann"),
        ("comment", "bob"),
    ]
    axis, ann, bob = lines
    assert axis.split()[0] == "0"
    for line, name in ((ann, "ann"), (bob, "bob")):
        assert line.startswith(name)
        assert line.count("L") == line.count("C") == 1
    assert bob.endswith("C")


def test_json_from_standard_input() -> None:
    for arguments in ((), ("--file", "-")):
        outcome = call(*OFFLINE, "--json", *arguments, stdin=json.dumps(EVENT).encode())
        assert (outcome.code, outcome.err) == (0, "")
        found = json.loads(outcome.out)
        assert found["post_id"] == "42"
        assert [each["member_id"] for each in found["engagements"]] == ["ann", "bob"] * 2


def test_nobody_to_plan_for() -> None:
    alone = EVENT | {"member_ids": ["cyd"]}
    outcome = call(*OFFLINE, stdin=json.dumps(alone).encode())
    assert (outcome.code, outcome.out) == (0, "Post 42 of pod p1: nothing to plan\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        (json.dumps({**EVENT, "pod_id": 7}), "pod_id"),
        (json.dumps(EVENT) + " " * MAX_LINE_BYTES, "longer than"),
    ],
)
def test_what_is_no_event_is_wrong_usage(tmp_path: Path, text: str, named: str) -> None:
    outcome = call(*OFFLINE, "--file", file(tmp_path, text))
    assert outcome.code == ExitCode.USAGE
    assert outcome.shows_no_traceback()
    assert named in " ".join(outcome.err.split())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        outcome = call(*OFFLINE, "--file", str(path))
        assert outcome.code == ExitCode.USAGE
        assert "cannot be read" in " ".join(outcome.err.replace("│", " ").split())


def test_without_postgresql_it_says_so() -> None:
    outcome = call("plan", stdin=json.dumps(EVENT).encode())
    assert outcome.code == ExitCode.STORE_AWAY
    assert outcome.shows_no_traceback()


def test_what_an_id_holds_does_not_disturb_the_terminal() -> None:
    odd = EVENT | {"member_ids": ["[bold]x[/]", "\u202e\u200b"], "pod_id": "[red]"}
    outcome = call(*OFFLINE, stdin=json.dumps(odd).encode())
    assert outcome.code == 0
    assert "[bold]x[/]" in outcome.out
    assert "\u202e" not in outcome.out


def test_the_timeline_has_an_end() -> None:
    many = [f"member {number}" for number in range(MEMBERS + 3)]
    plan = preview(event(member_ids=many), PacingPolicy(), PostPlan())
    lines = timeline(plan, 200)
    assert len(lines) == 1 + MEMBERS + 1
    assert lines[-1] == "and 3 members more"
    assert {len(line.split()[-1]) for line in lines[1:-1]} == {COLUMNS}


@pytest.mark.parametrize(("width", "drawn"), [(50, 50), (10, 9 + 2 + LEAST_COLUMNS)])
def test_the_timeline_is_as_narrow_as_the_terminal(width: int, drawn: int) -> None:
    plan = preview(event(member_ids=["member 10"]), PacingPolicy(), PostPlan())
    assert {len(line) for line in timeline(plan, width)} == {drawn}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 s"),
        (59_999, "59 s"),
        (300_000, "5 min 00 s"),
        (3_600_000, "1 h 00 min"),
        (7_530_000, "2 h 05 min"),
        (-61_000, "-1 min 01 s"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text
