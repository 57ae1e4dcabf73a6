"""The judge: what was promised, held against what the stores have. Shares no code with the engine.

Pure: evidence in, violations out, so that the judge itself is tested (`test_verdict.py`): it must
notice a violation of each kind.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Any, Literal

from tests.torture.evidence import INPUTS, Evidence, Record

Kind = Literal[
    "lost", "unasked", "twice", "early", "window", "cap", "attempts",
    "status", "end", "count", "wheel", "cursor", "letter", "watermark", "row", "process", "stores",
]  # fmt: skip
FINAL = ("executed", "failed", "cancelled", "expired")
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Policy:
    """What the site was told about pacing, in milliseconds."""

    like: tuple[int, int]
    comment: tuple[int, int]
    cap: int
    window_ms: int
    attempts: int
    result_timeout_ms: int


@dataclass(frozen=True)
class Expected:
    """What only those know who have run the site."""

    policy: Policy
    confirmed: Sequence[tuple[str, int, int]] = ()
    """Event id, partition, offset of each event that Kafka has confirmed."""
    broken: frozenset[str] = frozenset()
    cancelled_pods: frozenset[str] = frozenset()
    set_back_ms: float = inf
    """When Redis first went back in time. From then on it may send what it has forgotten to be
    cancelled (guarantees, 11)."""
    partitions: int = 4
    answer: Callable[[str, int], str] = field(default=lambda activity, attempt: "executed")
    """What the handler says to an activity's attempt: `executed`, `never`, or anything else."""


@dataclass(frozen=True)
class Violation:
    """One promise that was broken; `activity` where it is about one."""

    kind: Kind
    what: str
    activity: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (
            f" (activity {self.activity})" if self.activity else ""
        )


@dataclass(frozen=True)
class _Asked:
    detected_ms: int
    partition: int


def judge(found: Evidence, expected: Expected) -> list[Violation]:
    """All that is wrong."""
    return list(_judge(found, expected))


def _judge(found: Evidence, expected: Expected) -> Iterator[Violation]:
    asked = _asked(found)
    rows = {row["id"]: row for row in found.rows}
    fired = _by_activity(found.executes)
    yield from _events(found, expected)
    yield from _rows(found, asked)
    yield from _firing(found, expected, asked, rows, fired)
    yield from _pacing(found, expected, asked)
    yield from _ends(found, expected, rows, fired)
    yield from _statuses(found, expected, rows, fired)
    yield from _timeouts(found, expected, fired)
    yield from _counts(found)
    yield from _letters(found, expected, rows)
    yield from _watermarks(found, expected)
    yield from _wheels(found, expected)
    yield from _cursors(found)


def _asked(found: Evidence) -> dict[Key, _Asked]:
    """What the events ask for; where several do, the first in its partition counts."""
    asked: dict[Key, _Asked] = {}
    for record in sorted(found.posts, key=lambda each: (each.partition, each.offset)):
        event = record.value
        if event is None or not _is_event(record):
            continue
        for member in event["member_ids"]:
            if member == event.get("author_id"):
                continue
            for kind in event.get("engagement_types", ("like", "comment")):
                asked.setdefault(
                    (event["pod_id"], event["post_id"], member, kind),
                    _Asked(_ms(event["detected_at"]), record.partition),
                )
    return asked


def _events(found: Evidence, expected: Expected) -> Iterator[Violation]:
    there = {(record.partition, record.offset) for record in found.posts}
    for event, partition, offset in expected.confirmed:
        if (partition, offset) not in there:
            yield Violation("lost", f"Kafka has lost {event} at {partition}/{offset}")


def _rows(found: Evidence, asked: Mapping[Key, _Asked]) -> Iterator[Violation]:
    keys = Counter(_key(row) for row in found.rows)
    for key, times in keys.items():
        if times > 1:
            yield Violation("twice", f"{times} rows for {key}")
    for key in asked.keys() - keys.keys():
        yield Violation("lost", f"no row for {key}")
    for key in keys.keys() - asked.keys():
        yield Violation("unasked", f"a row for {key}, which no event asks for")
    for row in found.rows:
        key = _key(row)
        if key in asked and row["source_partition"] != asked[key].partition:
            yield Violation("row", f"{key} is in shard {row['source_partition']}", row["id"])


def _firing(
    found: Evidence,
    expected: Expected,
    asked: Mapping[Key, _Asked],
    rows: Mapping[str, Mapping[str, Any]],
    fired: Mapping[str, Sequence[Record]],
) -> Iterator[Violation]:
    times = Counter((each["activity_id"], each["attempt"]) for each in _values(found.executes))
    for (activity, attempt), count in times.items():
        if count > 1:
            yield Violation("twice", f"attempt {attempt} was sent {count} times", activity)
    for record in found.executes:
        event = record.value or {}
        activity = event["activity_id"]
        if _key(event) not in asked:
            yield Violation("unasked", f"sent, and no event asks for it: {_key(event)}", activity)
        elif asked[_key(event)].partition != record.partition:
            yield Violation("unasked", f"sent in partition {record.partition}", activity)
        due, at = _ms(event["scheduled_for"]), _ms(event["dispatched_at"])
        if at < due or record.timestamp_ms < due:
            yield Violation(
                "early",
                f"attempt {event['attempt']} by {due - min(at, record.timestamp_ms)} ms",
                activity,
            )
    for activity, row in rows.items():
        made = sorted({(each.value or {})["attempt"] for each in fired.get(activity, ())})
        cancelled = row["status"] == "cancelled"
        # What is cancelled waited for this attempt, and is not sent.
        fewest = row["attempt"] - cancelled
        # A late `executed` takes back the next attempt, which may just have been sent.
        most = row["attempt"] + (row["status"] == "executed")
        sent_ms = max((each.timestamp_ms for each in fired.get(activity, ())), default=0)
        if cancelled and sent_ms < expected.set_back_ms:
            most -= 1
        if not made and fewest > 0:
            yield Violation("lost", f"never sent: {_key(row)}, {row['status']}", activity)
            continue
        if made != list(range(1, len(made) + 1)):
            yield Violation("attempts", f"sent were attempts {made}", activity)
        if not fewest <= len(made) <= most:
            what = f"{row['status']} at attempt {row['attempt']}, but sent were {made}"
            yield Violation("lost" if len(made) < fewest else "attempts", what, activity)


def _pacing(
    found: Evidence, expected: Expected, asked: Mapping[Key, _Asked]
) -> Iterator[Violation]:
    policy = expected.policy
    first = [each for each in _values(found.executes) if each["attempt"] == 1]
    likes: dict[str, list[int]] = defaultdict(list)
    for event in first:
        due = _ms(event["scheduled_for"])
        key = _key(event)
        if event["engagement_type"] == "like":
            insort(likes[event["post_id"]], due)
        if key not in asked:
            continue
        low, high = policy.like if event["engagement_type"] == "like" else policy.comment
        delay = due - asked[key].detected_ms
        # The cap moves likes later, comments have no cap.
        if delay < low or (event["engagement_type"] == "comment" and delay > high):
            yield Violation("window", f"planned {delay} ms after the post", event["activity_id"])
    for post, times in likes.items():
        for at, beyond in zip(times, times[policy.cap :], strict=False):
            if beyond - at < policy.window_ms:
                yield Violation("cap", f"{policy.cap + 1} likes of {post} within {beyond - at} ms")


def _ends(
    found: Evidence,
    expected: Expected,
    rows: Mapping[str, Mapping[str, Any]],
    fired: Mapping[str, Sequence[Record]],
) -> Iterator[Violation]:
    reported: dict[tuple[str, int], set[str]] = defaultdict(set)
    for result in _values(found.results):
        reported[result["activity_id"], result["attempt"]].add(result["outcome"])
    for activity, row in rows.items():
        status, attempt = row["status"], row["attempt"]
        said = reported[activity, attempt]
        if status not in FINAL:
            yield Violation("end", f"still {status} at attempt {attempt}", activity)
        elif status == "executed" and (
            "executed" not in said or expected.answer(activity, attempt) != "executed"
        ):
            yield Violation(
                "end", f"executed at attempt {attempt}, which nobody reported", activity
            )
        elif status == "failed" and (
            "failed" not in said
            or (
                attempt < expected.policy.attempts and expected.answer(activity, attempt) != "never"
            )
        ):
            yield Violation("end", f"failed at attempt {attempt}, too soon", activity)
        elif status == "cancelled" and row["pod_id"] not in expected.cancelled_pods:
            yield Violation("end", "cancelled, and nobody asked for it", activity)
        elif status == "expired":
            yield Violation("end", "expired, and no policy says so", activity)


def _statuses(
    found: Evidence,
    expected: Expected,
    rows: Mapping[str, Mapping[str, Any]],
    fired: Mapping[str, Sequence[Record]],
) -> Iterator[Violation]:
    for activity, records in _by_activity(found.statuses).items():
        row = rows.get(activity)
        if row is None:
            yield Violation("status", "of an activity that has no row", activity)
            continue
        records = sorted(records, key=lambda each: each.offset)
        told = [record.value or {} for record in records]
        dispatched = Counter(each["attempt"] for each in told if each["status"] == "dispatched")
        made = Counter((each.value or {})["attempt"] for each in fired.get(activity, ()))
        if dispatched != made:
            yield Violation("status", f"dispatched {dict(dispatched)}, sent {dict(made)}", activity)
        ends = {(each["status"], each["attempt"]) for each in told if each["status"] in FINAL}
        if ends != {(row["status"], row["attempt"])}:
            yield Violation(
                "status",
                f"ends told: {sorted(ends)}; the row is {row['status']}, attempt {row['attempt']}",
                activity,
            )
        yield from _order(activity, records, expected)
    for activity in rows.keys() - _by_activity(found.statuses).keys():
        yield Violation("status", "none was told", activity)


def _order(activity: str, records: Sequence[Record], expected: Expected) -> Iterator[Violation]:
    """`dispatched` of an attempt comes before any end of that attempt; of whichever attempt, before
    the activity was called cancelled."""
    ended: set[int] = set()
    cancelled = False
    for record in records:
        each = record.value or {}
        if each["status"] == "cancelled":
            cancelled = True
        elif each["status"] == "dispatched" and cancelled:
            if record.timestamp_ms < expected.set_back_ms:
                yield Violation("status", f"cancelled, then attempt {each['attempt']}", activity)
        elif each["status"] in ("executed", "failed"):
            ended.add(each["attempt"])
        elif each["status"] == "dispatched" and each["attempt"] in ended:
            yield Violation(
                "status", f"dispatched after the end of attempt {each['attempt']}", activity
            )
        elif each["status"] == "scheduled" and each["attempt"] != 1:
            yield Violation("status", f"scheduled at attempt {each['attempt']}", activity)
        elif each["status"] == "retrying" and each["attempt"] == 1:
            yield Violation("status", "retrying at the first attempt", activity)


def _timeouts(
    found: Evidence, expected: Expected, fired: Mapping[str, Sequence[Record]]
) -> Iterator[Violation]:
    for result in _values(found.results):
        if ":timeout:" not in result["event_id"]:
            continue
        activity = result["activity_id"]
        sent = [
            _ms(event["dispatched_at"])
            for record in fired.get(activity, ())
            if (event := record.value or {})["attempt"] == result["attempt"]
        ]
        if not sent:
            yield Violation(
                "unasked", f"attempt {result['attempt']} given up, never sent", activity
            )
        elif _ms(result["executed_at"]) < min(sent) + expected.policy.result_timeout_ms:
            yield Violation("early", f"attempt {result['attempt']} was given up early", activity)


def _counts(found: Evidence) -> Iterator[Violation]:
    done = Counter(row["member_id"] for row in found.rows if row["status"] == "executed")
    for member in done.keys() | found.counts.keys():
        if done[member] != found.counts.get(member, 0):
            yield Violation(
                "count",
                f"{member} has {done[member]} executed, counted are {found.counts.get(member, 0)}",
            )


def _letters(
    found: Evidence, expected: Expected, rows: Mapping[str, Mapping[str, Any]]
) -> Iterator[Violation]:
    # Also those of which the feeder has no confirmation, and does not know that they are there.
    broken = {(each.partition, each.offset) for each in found.posts if not _is_event(each)}
    buried: set[tuple[int, int]] = set()
    failed: set[str] = set()
    for letter in found.letters:
        name = letter.headers.get("ce_id", b"").decode()
        topic, partition, offset = name.rsplit("/", 2)
        at = int(partition), int(offset)
        activity = str((letter.value or {}).get("activity_id", ""))
        if topic.endswith("post-detected") and at in broken:
            buried.add(at)
        elif activity in rows and rows[activity]["status"] == "failed":
            failed.add(activity)
        else:
            reason = letter.headers.get("reason", b"").decode(errors="replace")
            yield Violation(
                "letter", f"{name} does not belong on dead-letter: {reason}", activity or None
            )
    for at in sorted(broken - buried):
        yield Violation("letter", f"{at} of post-detected is broken, and not on dead-letter")
    for name in expected.broken:
        _, partition, offset = name.rsplit("/", 2)
        if (int(partition), int(offset)) not in broken:
            yield Violation("lost", f"Kafka has lost {name}")
    for activity, row in rows.items():
        if row["status"] == "failed" and activity not in failed:
            yield Violation("letter", "failed, and not on dead-letter", activity)


def _watermarks(found: Evidence, expected: Expected) -> Iterator[Violation]:
    for topic in INPUTS:
        for partition in range(expected.partitions):
            where = topic, partition
            end = found.last.get(where, -1)
            record = found.watermarks.get(where, -1)
            shard = found.shards.get(partition)
            names = {} if shard is None else shard.meta
            wheel = next(
                (
                    int(at)
                    for name, at in names.items()
                    if name.startswith("at:") and name.endswith(topic)
                ),
                -1,
            )
            acked = found.acked.get(where, 0)
            if record != end:
                yield Violation(
                    "watermark", f"{where}: PostgreSQL at {record}, the topic ends at {end}"
                )
            if wheel != end:
                yield Violation("watermark", f"{where}: Redis at {wheel}, the topic ends at {end}")
            if acked < end + 1 and end >= 0:
                yield Violation(
                    "watermark", f"{where}: acked up to {acked}, the topic ends at {end}"
                )
    projected: dict[int, int] = defaultdict(lambda: -1)
    for status in found.statuses:
        if (status.value or {}).get("status") == "dispatched":
            projected[status.partition] = max(projected[status.partition], status.offset)
    for partition, end in projected.items():
        at = found.watermarks.get(("engagement-status", partition), -1)
        if at < end:
            yield Violation("watermark", f"projected to {at} in {partition}, fired to {end}")


def _wheels(found: Evidence, expected: Expected) -> Iterator[Violation]:
    for number in range(expected.partitions):
        shard = found.shards.get(number)
        if shard is None or "gen" not in shard.meta:
            yield Violation("wheel", f"shard {number} has no wheel")
            continue
        if shard.left:
            yield Violation("wheel", f"shard {number} still holds {shard.left}")
        if int(shard.meta.get("pending", 0)):
            yield Violation("wheel", f"shard {number} counts {shard.meta['pending']} pending")


def _cursors(found: Evidence) -> Iterator[Violation]:
    last: dict[int, Mapping[str, Any]] = {}
    for record in sorted(found.cursors, key=lambda each: (each.partition, each.offset)):
        cursor = record.value or {}
        before = last.get(record.partition)
        # A new generation goes on with the number that it found.
        step = 1 if before and before["gen"] == cursor["gen"] else 0
        if before is not None and cursor["seq"] != before["seq"] + step:
            what = f"shard {record.partition}: batch {cursor['seq']} follows {before['seq']}"
            yield Violation("cursor", what)
        last[record.partition] = cursor
    for number, committed in last.items():
        meta = found.shards[number].meta if number in found.shards else {}
        if any(str(committed[name]) != meta.get(name) for name in ("gen", "seq", "nonce")):
            yield Violation(
                "cursor", f"shard {number}: committed is {committed}, the wheel has {meta}"
            )


def _is_event(record: Record) -> bool:
    """Whether a record of post-detected is one; the feeder breaks them in plain ways alone."""
    event = record.value or {}
    return isinstance(event.get("post_id"), str) and "pod_id" in event


def _by_activity(records: Iterable[Record]) -> dict[str, list[Record]]:
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.value is not None:
            grouped[record.value["activity_id"]].append(record)
    return grouped


def _values(records: Iterable[Record]) -> Iterator[Mapping[str, Any]]:
    return (record.value for record in records if record.value is not None)


def _key(event: Mapping[str, Any]) -> Key:
    return event["pod_id"], event["post_id"], event["member_id"], event["engagement_type"]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
