"""Each way in which a row and its timers can be at odds, and each in which they only seem so."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler.activity import FINAL, STANDING, Standing, Status
from scheduler.compare import NOWHERE, Known, agrees, row_side, timer_for, timer_side, told
from scheduler.difference import MEANINGS, Kind
from scheduler.ports import Placed, Sight
from schemas.ids import activity_id

SHARD, DUE_MS, SENT_MS, AWAIT_MS = 3, 1_900_000_000_000, 1_800_000_000_000, 60_000
NAME = activity_id("pod", "post", "member", "like")
WAITS = Sight(waits=True, in_flight=False)
CLAIMED = Sight(waits=False, in_flight=True)
AWAITED = Sight(waits=False, in_flight=False, deadline_ms=SENT_MS + AWAIT_MS)
KNOWN = Known(shard=SHARD, await_ms=AWAIT_MS, now_ms=SENT_MS + 100)


def row(status: Status = Status.SCHEDULED, **changes: Any) -> Standing:
    fields: dict[str, Any] = {
        "activity_id": NAME,
        "pod_id": "pod",
        "post_id": "post",
        "member_id": "member",
        "engagement_type": "like",
        "status": status,
        "attempt": 1,
        "scheduled_for_ms": DUE_MS,
        "shard": SHARD,
    }
    if status is Status.DISPATCHED:
        fields["dispatched_at_ms"] = SENT_MS
    return Standing(**(fields | changes))


SENT = row(Status.DISPATCHED)


@pytest.mark.parametrize(
    ("of", "own", "known", "expected"),
    [
        (row(), WAITS, KNOWN, None),
        (row(), CLAIMED, KNOWN, None),
        (row(), NOWHERE, KNOWN, Kind.MISSING_TIMER),
        (row(), NOWHERE, replace(KNOWN, sent={(NAME, 1)}), None),
        (row(), NOWHERE, replace(KNOWN, sent={(NAME, 2)}), Kind.MISSING_TIMER),
        (row(), AWAITED, KNOWN, Kind.SENT_BEFORE),
        (row(), AWAITED, replace(KNOWN, sent={(NAME, 1)}), None),
        (row(Status.RETRYING, attempt=2), NOWHERE, KNOWN, Kind.MISSING_TIMER),
        (row(scheduled_for_ms=None), WAITS, KNOWN, Kind.ROW_WITHOUT_TIME),
        (row(shard=SHARD + 1), NOWHERE, KNOWN, None),
        (SENT, AWAITED, KNOWN, None),
        (SENT, CLAIMED, KNOWN, None),
        (SENT, WAITS, KNOWN, Kind.TIMER_OF_SENT_ROW),
        (SENT, NOWHERE, KNOWN, Kind.MISSING_DEADLINE),
        (SENT, NOWHERE, replace(KNOWN, reported={(NAME, 1)}), None),
        (row(Status.DISPATCHED, dispatched_at_ms=None), AWAITED, KNOWN, Kind.ROW_WITHOUT_TIME),
        (SENT, replace(AWAITED, deadline_ms=SENT_MS + AWAIT_MS + 100), KNOWN, None),
        (
            SENT,
            replace(AWAITED, deadline_ms=SENT_MS + AWAIT_MS + 101),
            KNOWN,
            Kind.DEADLINE_ELSEWHERE,
        ),
        (
            SENT,
            replace(AWAITED, deadline_ms=SENT_MS + AWAIT_MS - 1),
            KNOWN,
            Kind.DEADLINE_ELSEWHERE,
        ),
        *((row(status), NOWHERE, KNOWN, None) for status in (*FINAL, Status.PENDING)),
    ],
)
def test_seen_from_the_row(of: Standing, own: Sight, known: Known, expected: Kind | None) -> None:
    assert row_side(of, own, known) is expected


TIMER = timer_for(row())
LATER = replace(TIMER, due_ms=DUE_MS + 1)
NEXT = replace(TIMER, attempt=2)
DEADLINE = replace(TIMER, due_ms=SENT_MS + AWAIT_MS)


@pytest.mark.parametrize(
    ("placed", "of", "own", "known", "expected"),
    [
        (Placed(TIMER, fired=False), row(), WAITS, KNOWN, None),
        (Placed(TIMER, fired=False), None, NOWHERE, KNOWN, Kind.TIMER_WITHOUT_ROW),
        (Placed(TIMER, fired=False), row(shard=1), NOWHERE, KNOWN, Kind.TIMER_WITHOUT_ROW),
        (Placed(LATER, fired=False), row(), NOWHERE, KNOWN, Kind.TIMER_ELSEWHERE),
        (Placed(LATER, fired=False), row(), WAITS, KNOWN, Kind.TIMER_TWICE),
        (Placed(LATER, fired=False), row(), CLAIMED, KNOWN, None),
        (Placed(NEXT, fired=False), row(), NOWHERE, KNOWN, Kind.OTHER_ATTEMPT),
        (Placed(NEXT, fired=False), row(), WAITS, KNOWN, Kind.TIMER_TWICE),
        (Placed(NEXT, fired=False), SENT, AWAITED, KNOWN, Kind.OTHER_ATTEMPT),
        (Placed(TIMER, fired=False), SENT, WAITS, KNOWN, None),  # the row's matter
        *(
            (Placed(TIMER, fired=False), row(status), WAITS, KNOWN, Kind.TIMER_OF_ENDED_ROW)
            for status in (*FINAL, Status.PENDING)
        ),
        *(
            (Placed(DEADLINE, fired=True), row(status), AWAITED, KNOWN, Kind.DEADLINE_OF_OTHER_ROW)
            for status in (*FINAL, Status.PENDING)
        ),
        (
            Placed(TIMER, fired=False),
            row(Status.CANCELLED, command_offset=8),
            WAITS,
            replace(KNOWN, commands_at=7),
            None,
        ),
        (
            Placed(TIMER, fired=False),
            row(Status.CANCELLED, command_offset=8),
            WAITS,
            replace(KNOWN, commands_at=8),
            Kind.TIMER_OF_ENDED_ROW,
        ),
        (Placed(DEADLINE, fired=True), SENT, AWAITED, KNOWN, None),
        (Placed(DEADLINE, fired=True), None, NOWHERE, KNOWN, Kind.DEADLINE_WITHOUT_ROW),
        (Placed(DEADLINE, fired=True), row(), AWAITED, KNOWN, None),  # the row's matter
        (Placed(DEADLINE, fired=True), row(), WAITS, KNOWN, Kind.DEADLINE_OF_OTHER_ROW),
        (
            Placed(DEADLINE, fired=True),
            row(Status.RETRYING, attempt=2),
            WAITS,
            KNOWN,
            Kind.DEADLINE_OF_OTHER_ROW,
        ),
        (
            Placed(replace(DEADLINE, attempt=2), fired=True),
            row(),
            NOWHERE,
            KNOWN,
            Kind.SENT_BEFORE,
        ),
        (
            Placed(replace(DEADLINE, attempt=2), fired=True),
            row(),
            NOWHERE,
            replace(KNOWN, sent={(NAME, 2)}),
            None,
        ),
    ],
)
def test_seen_from_the_timer(
    placed: Placed, of: Standing | None, own: Sight, known: Known, expected: Kind | None
) -> None:
    seen = AWAITED if placed.fired else WAITS
    assert timer_side(placed, of, own, seen, known) is expected
    # What is no longer where it was is no difference.
    assert timer_side(placed, of, own, NOWHERE, known) is None


rows = st.builds(
    row,
    st.sampled_from(Status),
    attempt=st.integers(1, 3),
    scheduled_for_ms=st.sampled_from((None, DUE_MS, DUE_MS + 1)),
    dispatched_at_ms=st.sampled_from((None, SENT_MS)),
    shard=st.sampled_from((None, SHARD, 1)),
)
sights = st.sampled_from((WAITS, CLAIMED, AWAITED, NOWHERE))


@given(of=rows, own=sights)
def test_what_agrees_at_first_sight_agrees_at_the_second(of: Standing, own: Sight) -> None:
    for fired in (False, True):
        timer = replace(timer_for(of), due_ms=of.scheduled_for_ms or 0)
        placed = Placed(timer, fired=fired)
        if agrees(placed, of, SHARD):
            seen = AWAITED if fired else WAITS
            assert timer_side(placed, of, seen, seen, KNOWN) is None
            assert row_side(of, seen, KNOWN) is None
    kind = row_side(of, own, KNOWN)
    if kind is not None:
        assert of.shard == SHARD
        assert of.status in STANDING
        assert told(kind, of.activity_id, of, own, None).cause


def test_every_kind_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Kind)
    for meaning in MEANINGS.values():
        assert meaning.cause
        assert meaning.todo
        assert not (meaning.heals and meaning.blocks)
