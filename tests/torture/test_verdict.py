"""The judge must notice a violation of each kind, and none where there is none."""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.torture.evidence import INPUTS, Evidence, Record, Shard
from tests.torture.history import history, tell
from tests.torture.schedule import KILLS_A_ROUND, schedule
from tests.torture.verdict import Expected, Policy, Violation, judge

POLICY = Policy(
    like=(300, 2500),
    comment=(1000, 8000),
    cap=3,
    window_ms=1000,
    attempts=3,
    result_timeout_ms=4000,
)
DETECTED_MS = 1_800_000_000_000
MEMBERS = [f"member-{number}" for number in range(6)]


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def answer(activity: str, attempt: int) -> str:
    """The comment of member 2 succeeds at its second attempt, that of member 3 never."""
    if activity == "post/member-2/comment" and attempt == 1:
        return "again"
    return "never" if activity == "post/member-3/comment" else "executed"


class Story:
    """A site at which all went well, to be damaged: one post of one pod, in partition 0."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}
        self.rows: list[dict[str, Any]] = []
        self.cursors = 0
        event = {
            "event_id": "event-0",
            "pod_id": "pod",
            "post_id": "post",
            "member_ids": MEMBERS,
            "detected_at": moment(DETECTED_MS),
        }
        self.put("post-detected", DETECTED_MS, event)
        self.put("post-detected", DETECTED_MS, None)  # broken
        self.put("dead-letter", DETECTED_MS, None, ce_id=b"post-detected/0/1", reason=b"no event")
        self.put("wheel-cursor", DETECTED_MS, {"seq": 0, "nonce": "n0", "gen": "g1"})
        self.put("wheel-cursor", DETECTED_MS, {"seq": 0, "nonce": "n0", "gen": "g2"})
        for number, member in enumerate(MEMBERS):
            # Three at once, and three when the first of them are a window away.
            self.live("like", member, DETECTED_MS + 400 + 1000 * (number // 3))
            self.live("comment", member, DETECTED_MS + 2000 + number)

    def put(self, topic: str, at_ms: int, value: dict[str, Any] | None, **headers: bytes) -> int:
        records = self.records.setdefault(topic, [])
        records.append(Record(topic, 0, len(records), at_ms, value, headers))
        return len(records) - 1

    def live(self, kind: str, member: str, due_ms: int) -> None:
        ids = {
            "activity_id": f"post/{member}/{kind}",
            "pod_id": "pod",
            "post_id": "post",
            "member_id": member,
            "engagement_type": kind,
        }
        self.status(ids, "scheduled", 1, DETECTED_MS)
        attempt, said = 1, ""
        while True:
            said = answer(ids["activity_id"], attempt)
            at_ms = due_ms + 5
            times = {"scheduled_for": moment(due_ms), "dispatched_at": moment(at_ms)}
            self.put("execute-engagement", at_ms, ids | {"attempt": attempt} | times)
            self.status(ids, "dispatched", attempt, at_ms)
            self.cursors += 1
            cursor = {"seq": self.cursors, "nonce": f"n{self.cursors}", "gen": "g2"}
            self.put("wheel-cursor", at_ms, cursor)
            outcome = "executed" if said == "executed" else "failed"
            offset = self.put(
                "engagement-executed",
                at_ms,
                ids
                | {"event_id": f"{ids['activity_id']}:{outcome}:{attempt}", "attempt": attempt}
                | {"outcome": outcome, "executed_at": moment(at_ms + 10)},
            )
            if said != "again":
                break
            attempt, due_ms = attempt + 1, at_ms + 200
            self.status(ids, "retrying", attempt, at_ms)
        self.status(ids, outcome, attempt, at_ms)
        if outcome == "failed":
            name = f"engagement-executed/0/{offset}".encode()
            self.put("dead-letter", at_ms, ids, ce_id=name, reason=b"failed, not retryable")
        row = {name: value for name, value in ids.items() if name != "activity_id"}
        self.rows.append(
            row
            | {"id": ids["activity_id"], "status": outcome, "attempt": attempt}
            | {"source_partition": 0, "source_offset": 0, "result_offset": offset}
            | dict.fromkeys(
                ("scheduled_for", "dispatched_at", "executed_at", "created_at", "updated_at"),
                datetime.fromtimestamp(due_ms / 1000, UTC),
            )
            | {"command_offset": None, "last_error": None}
        )

    def status(self, ids: dict[str, str], status: str, attempt: int, at_ms: int) -> None:
        self.put(
            "engagement-status", at_ms, ids | {"status": status, "attempt": attempt, "at": at_ms}
        )

    def evidence(self) -> Evidence:
        last = {
            (topic, 0): len(self.records[topic]) - 1 for topic in INPUTS if topic in self.records
        }
        counts: dict[str, int] = {}
        for row in self.rows:
            if row["status"] == "executed":
                counts[row["member_id"]] = counts.get(row["member_id"], 0) + 1
        meta = {f"at:{topic}": str(at) for (topic, _), at in last.items()}
        meta |= {"gen": "g2", "seq": str(self.cursors), "nonce": f"n{self.cursors}", "pending": "0"}
        statuses = self.records["engagement-status"]
        return Evidence(
            posts=self.records["post-detected"],
            executes=self.records["execute-engagement"],
            statuses=statuses,
            results=self.records["engagement-executed"],
            letters=self.records["dead-letter"],
            cursors=self.records["wheel-cursor"],
            last=last,
            acked={where: at + 1 for where, at in last.items()},
            rows=self.rows,
            counts=counts,
            watermarks={**last, ("engagement-status", 0): len(statuses) - 1},
            shards={0: Shard(meta, {})},
        )


EXPECTED = Expected(
    policy=POLICY,
    confirmed=[("event-0", 0, 0)],
    broken=frozenset({"post-detected/0/1"}),
    partitions=1,
    answer=answer,
)


def found(
    expected: Expected = EXPECTED, damage: Callable[[Evidence], object] | None = None
) -> set[str]:
    evidence = copy.deepcopy(Story().evidence())
    if damage is not None:
        damage(evidence)
    return {violation.kind for violation in judge(evidence, expected)}


def test_where_all_went_well_nothing_is_found() -> None:
    assert judge(Story().evidence(), EXPECTED) == []


def _drop(records: Any, **fields: Any) -> None:
    """Remove the first record, or row, that has these fields."""
    for at, each in enumerate(records):
        value = each if isinstance(each, dict) else each.value or {}
        if all(value.get(name) == wanted for name, wanted in fields.items()):
            del records[at]
            return
    raise AssertionError("nothing to damage")


def _copy(records: Any, offset: Any = None, **fields: Any) -> None:
    """Add a copy of the last record with other fields."""
    last = records[-1]
    at = len(records) if offset is None else offset
    records.append(replace(last, offset=at, value={**(last.value or {}), **fields}))


def _edit(records: Any, at: int, **fields: Any) -> None:
    records[at] = replace(records[at], value={**records[at].value, **fields})


def _likes_at_once(executes: Any) -> None:
    for at, each in enumerate(executes):
        if each.value["engagement_type"] == "like":
            _edit(executes, at, scheduled_for=moment(DETECTED_MS + 400))


def _row(evidence: Any, member: int, kind: str) -> dict[str, Any]:
    name = f"post/member-{member}/{kind}"
    return next(row for row in evidence.rows if row["id"] == name)


def _set(mapping: Any, **fields: Any) -> None:
    mapping.update(fields)


LIKE_2 = "post/member-2/like"
COMMENT_2 = {"activity_id": "post/member-2/comment"}
STATUS_END = ("engagement-status", 0)
POSTS = ("post-detected", 0)

DAMAGES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "Kafka has lost a confirmed event": ("lost", lambda e: e.posts.pop(0)),
    "Kafka has lost a broken record": ("lost", lambda e: (e.posts.pop(1), e.letters.pop(0))),
    "a row is missing": ("lost", lambda e: _drop(e.rows, id=LIKE_2)),
    "an attempt was never sent": ("lost", lambda e: _drop(e.executes, activity_id=LIKE_2)),
    "the last of two attempts was never sent": (
        "lost",
        lambda e: _drop(e.executes, activity_id="post/member-2/comment", attempt=2),
    ),
    "a row nobody asked for": (
        "unasked",
        lambda e: e.rows.append(e.rows[0] | {"member_id": "stranger"}),
    ),
    "sent, and nobody asked for it": (
        "unasked",
        lambda e: _copy(e.executes, member_id="stranger", activity_id="x"),
    ),
    "sent in another partition": (
        "unasked",
        lambda e: e.executes.append(replace(e.executes.pop(), partition=1)),
    ),
    "given up, and never sent": (
        "unasked",
        lambda e: _copy(e.results, event_id="x:timeout:2", attempt=2),
    ),
    "two rows": ("twice", lambda e: e.rows.append(e.rows[0] | {"id": "another"})),
    "sent twice": ("twice", lambda e: _copy(e.executes)),
    "sent early, by Redis's clock": (
        "early",
        lambda e: _edit(e.executes, 0, dispatched_at=moment(DETECTED_MS)),
    ),
    "sent early, by Kafka's clock": (
        "early",
        lambda e: e.executes.append(replace(e.executes.pop(), timestamp_ms=DETECTED_MS)),
    ),
    "given up early": ("early", lambda e: _copy(e.results, event_id="x:timeout:1")),
    "planned before the window": (
        "window",
        lambda e: _edit(e.executes, 0, scheduled_for=moment(DETECTED_MS + 299)),
    ),
    "a comment planned behind its window": (
        "window",
        lambda e: _edit(e.executes, -1, scheduled_for=moment(DETECTED_MS + 8001)),
    ),
    "four likes within the window": (
        "cap",
        lambda e: _likes_at_once(e.executes),
    ),
    "an attempt was left out": (
        "attempts",
        lambda e: _drop(e.executes, activity_id="post/member-2/comment", attempt=1),
    ),
    "an attempt too many": ("attempts", lambda e: _set(_row(e, 3, "comment"), attempt=0)),
    "not at its end": ("end", lambda e: _set(_row(e, 0, "like"), status="dispatched")),
    "executed, as nobody reported": ("end", lambda e: _drop(e.results, activity_id=LIKE_2)),
    "executed, as the handler never said": (
        "end",
        lambda e: _set(_row(e, 3, "comment"), status="executed"),
    ),
    "failed too soon": ("end", lambda e: _set(_row(e, 2, "comment"), status="failed", attempt=1)),
    "cancelled by nobody": ("end", lambda e: _set(_row(e, 0, "like"), status="cancelled")),
    "expired by no policy": ("end", lambda e: _set(_row(e, 0, "like"), status="expired")),
    "no status was told": (
        "status",
        lambda e: e.__dict__.update(
            statuses=[s for s in e.statuses if s.value["activity_id"] != LIKE_2]
        ),
    ),
    "a status of nobody": ("status", lambda e: _copy(e.statuses, activity_id="x")),
    "dispatched was told twice": (
        "status",
        lambda e: _copy(e.statuses, activity_id=LIKE_2, status="dispatched", attempt=1),
    ),
    "another end was told": (
        "status",
        lambda e: _copy(e.statuses, activity_id=LIKE_2, status="failed", attempt=1),
    ),
    "no end was told": (
        "status",
        lambda e: _drop(e.statuses, activity_id=LIKE_2, status="executed"),
    ),
    "the end was told before it was sent": (
        "status",
        lambda e: _copy(e.statuses, -1, activity_id=LIKE_2, status="executed", attempt=1),
    ),
    "retrying at the first attempt": (
        "status",
        lambda e: _copy(e.statuses, activity_id=LIKE_2, status="retrying", attempt=1),
    ),
    "scheduled at a later attempt": (
        "status",
        lambda e: _copy(e.statuses, activity_id=LIKE_2, status="scheduled", attempt=2),
    ),
    "a member counted once too often": ("count", lambda e: _set(e.counts, **{"member-1": 3})),
    "a member not counted": ("count", lambda e: e.counts.pop("member-1")),
    "a member counted for nothing": ("count", lambda e: _set(e.counts, stranger=1)),
    "timers left in a slot": ("wheel", lambda e: _set(e.shards[0].left, **{"s:17": 2})),
    "a count of pending ones left": ("wheel", lambda e: _set(e.shards[0].meta, pending="2")),
    "no wheel": ("wheel", lambda e: e.shards.pop(0)),
    "a wheel without a generation": ("wheel", lambda e: e.shards[0].meta.pop("gen")),
    "a batch left out": ("cursor", lambda e: _drop(e.cursors, seq=5)),
    "a batch twice": ("cursor", lambda e: _copy(e.cursors)),
    "the wheel at another batch": ("cursor", lambda e: _set(e.shards[0].meta, seq="1")),
    "the wheel of another generation": ("cursor", lambda e: _set(e.shards[0].meta, gen="g1")),
    "a broken record not on dead-letter": ("letter", lambda e: e.letters.pop(0)),
    "a failed activity not on dead-letter": ("letter", lambda e: e.letters.pop()),
    "something else on dead-letter": (
        "letter",
        lambda e: e.letters.append(
            Record("dead-letter", 0, 99, DETECTED_MS, {}, {"ce_id": b"post-detected/0/0"})
        ),
    ),
    "PostgreSQL behind": ("watermark", lambda e: e.watermarks.update({POSTS: 0})),
    "PostgreSQL ahead": ("watermark", lambda e: e.watermarks.update({POSTS: 2})),
    "Redis behind": ("watermark", lambda e: _set(e.shards[0].meta, **{"at:post-detected": "0"})),
    "Redis has no watermark": ("watermark", lambda e: e.shards[0].meta.pop("at:post-detected")),
    "not acked": ("watermark", lambda e: e.acked.update({POSTS: 1})),
    "not projected": ("watermark", lambda e: e.watermarks.update({STATUS_END: 3})),
    "in another shard": ("row", lambda e: _set(_row(e, 0, "like"), source_partition=1)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_is_noticed(name: str) -> None:
    kind, damage = DAMAGES[name]
    assert kind in found(damage=damage)


def test_what_a_late_result_takes_back_is_no_violation() -> None:
    def late(evidence: Any) -> None:
        # Its next attempt was on its way when the result came.
        _copy(evidence.executes, **(ids := _ids(LIKE_2)), attempt=2)
        _copy(evidence.statuses, **ids, status="dispatched", attempt=2)
        evidence.watermarks[STATUS_END] += 1

    assert found(damage=late) == set()


CANCELLED = replace(EXPECTED, cancelled_pods=frozenset({"pod"}))


def _cancel(evidence: Any, *, sent: bool = False) -> None:
    """Before its first attempt; `sent`, and yet it was."""
    row = _row(evidence, 0, "like")
    row["status"] = "cancelled"
    evidence.counts["member-0"] -= 1
    mine = {"activity_id": row["id"]}
    _drop(evidence.statuses, **mine, status="executed")
    if not sent:
        _drop(evidence.executes, **mine)
        _drop(evidence.results, **mine)
        _drop(evidence.statuses, **mine, status="dispatched")
    _copy(evidence.statuses, **_ids(row["id"]), status="cancelled", attempt=1)


def test_what_was_cancelled_is_not_sent() -> None:
    assert found(CANCELLED, _cancel) == set()


def test_what_was_sent_and_is_called_cancelled_is_noticed() -> None:
    assert found(CANCELLED, lambda e: _cancel(e, sent=True)) == {"attempts"}


def test_what_was_cancelled_as_a_retry_was_sent_before() -> None:
    def cancelled(evidence: Any) -> None:
        """The comment of member 2, whose first attempt has failed."""
        _set(_row(evidence, 2, "comment"), status="cancelled")
        evidence.counts["member-2"] -= 1
        _drop(evidence.executes, **COMMENT_2, attempt=2)
        _drop(evidence.results, **COMMENT_2, attempt=2)
        _drop(evidence.statuses, **COMMENT_2, attempt=2, status="dispatched")
        _drop(evidence.statuses, **COMMENT_2, status="executed")
        ids = _ids(COMMENT_2["activity_id"])
        _copy(evidence.statuses, **ids, status="cancelled", attempt=2)

    def and_lost(evidence: Any) -> None:
        cancelled(evidence)
        _drop(evidence.executes, **COMMENT_2, attempt=1)

    assert found(CANCELLED, cancelled) == set()
    assert "lost" in found(CANCELLED, and_lost)


SENT_MS = DETECTED_MS + 3000


@pytest.mark.parametrize(("set_back_ms", "noticed"), [(SENT_MS + 1, True), (SENT_MS, False)])
def test_what_is_sent_behind_cancelled_is_noticed_unless_redis_went_back_before(
    set_back_ms: int, noticed: bool
) -> None:
    def sent_behind(evidence: Any) -> None:
        _cancel(evidence, sent=True)
        sent = evidence.executes[0]
        assert sent.value["activity_id"] == "post/member-0/like"
        evidence.executes[0] = replace(sent, timestamp_ms=SENT_MS)
        _drop(evidence.statuses, activity_id=sent.value["activity_id"], status="dispatched")
        _copy(evidence.statuses, **_ids(sent.value["activity_id"]), status="dispatched", attempt=1)
        evidence.statuses.append(replace(evidence.statuses.pop(), timestamp_ms=SENT_MS))
        evidence.watermarks[STATUS_END] = evidence.statuses[-1].offset

    expected = replace(CANCELLED, set_back_ms=set_back_ms)
    assert found(expected, sent_behind) == ({"attempts", "status"} if noticed else set())


def _ids(activity: str) -> dict[str, str]:
    _, member, kind = activity.split("/")
    return {"activity_id": activity, "member_id": member, "engagement_type": kind}


def test_the_story_of_an_activity_has_all_stores_in_it() -> None:
    told = "\n".join(history(Story().evidence(), "post/member-2/comment"))
    for part in (
        "post-detected/0/0 event-0",
        "attempt 1",
        "attempt 2",
        "retrying",
        ":failed:1",
        ":executed:2",
        "batch",
        "PostgreSQL: status=executed",
        "Redis, shard 0",
    ):
        assert part in told
    violations = [Violation("twice", "x", "post/member-2/comment")] * 7
    assert len([line for line in tell(Story().evidence(), violations) if "twice" in line]) == 7


def test_a_schedule_follows_from_its_seed_and_has_every_fault() -> None:
    plans = schedule(14, 5, 15.0, 3)
    assert plans == schedule(14, 5, 15.0, 3)
    assert plans != schedule(14, 6, 15.0, 3)
    names = [planned.fault for plan in plans for planned in plan]
    from tests.torture import faults

    assert set(names) == set(faults.ALL)
    assert sum(name in faults.KILLS for name in names) == 14 * KILLS_A_ROUND
    assert min(names.count(name) for name in faults.OTHERS) >= 2
    assert all(0 < planned.at_s < 17 for plan in plans for planned in plan)
