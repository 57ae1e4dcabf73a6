"""Whatever stands in a record: it is read, or refused with a reason, and nothing else happens."""

import time
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pod_automation.dead_letters import text
from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.index import Index
from pod_automation.dead_letters.letter import (
    Header,
    Letter,
    letter_of,
    not_replayable,
    replayed_headers,
)
from pod_automation.dead_letters.showing import letter_json, letter_lines
from pod_automation.executor import Engagement
from pod_automation.executor.attempt import Outcome
from scheduler.activity import PostPlan
from scheduler.batch import read
from scheduler.planner import plan
from scheduler.policy import PacingPolicy
from scheduler.ports import SourceRecord, StatusPage
from scheduler.project import _dispatched
from scheduler.settings import Settings, load_settings
from scheduler.timer import Timer, pack, unpack
from schemas.codec import MAX_REASON_CHARS, InvalidEvent, decode, encode
from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
)
from schemas.headers import dead_letter_headers
from schemas.times import EARLIEST_MS, LATEST_MS, moment
from tests.fuzz.events import EVENT_TYPES
from tests.fuzz.octets import headers, record, value
from tests.fuzz.size import RECORDS, randomness, told

# A night's records take their time.
pytestmark = pytest.mark.timeout(120 + RECORDS // 200)

# Of the processor's time, for one record of up to 1 MB: what takes longer holds up its partition.
# Generous, as it must not fail on a busy machine; 1 MB takes some milliseconds.
LIMIT_S = 2.0

POLICY: PacingPolicy = load_settings().policy


def refused_or_read(event_type: type[Event], data: bytes | None) -> Event | None:
    """What the engine makes of a record's value."""
    began = time.process_time()
    try:
        event = decode(event_type, data)
    except InvalidEvent as error:
        assert 0 < len(error.reason) <= MAX_REASON_CHARS  # noqa: PT017 - it may also be read
        assert error.reason.isprintable()  # noqa: PT017
        event = None
    assert time.process_time() - began < LIMIT_S
    if event is not None:
        # What was read can be written, and is the same then.
        assert decode(event_type, encode(event)) == event
        used(event)
    return event


def used(event: Event) -> None:
    """The first thing that each reader does with an event."""
    if isinstance(event, PostDetected):
        for planned in plan(event, POLICY, PostPlan(), 0)[:5]:
            due_ms = planned.scheduled_for_ms
            timer = Timer(
                planned.activity_id,
                planned.pod_id,
                planned.post_id,
                planned.member_id,
                planned.engagement_type,
                1,
                due_ms,
            )
            assert unpack(pack(timer), due_ms) == timer
    elif isinstance(event, ExecuteEngagement):
        try:
            engagement = Engagement.of(event)
        except InvalidEvent:
            return
        # What its executor answers must be readable again, and be no burden to Kafka.
        result = encode(Outcome(True).result(engagement, event.dispatched_at))
        assert len(result) < 10_000
        decode(EngagementExecuted, result)


def test_every_event_is_read_or_refused() -> None:
    valid = 0
    for number in range(RECORDS):
        rng = randomness("read", number)
        event_type = EVENT_TYPES[number % len(EVENT_TYPES)]
        data = value(rng, event_type)
        with told("read", number, data):
            valid += refused_or_read(event_type, data) is not None
    # Else the generator has become too good at being bad, and tests nothing behind the door.
    assert 0.03 < valid / RECORDS < 0.6


@settings(max_examples=50, database=None)
@given(st.randoms(use_true_random=False), st.sampled_from(EVENT_TYPES))
def test_the_same_with_examples_that_shrink(rng: Random, event_type: type[Event]) -> None:
    refused_or_read(event_type, value(rng, event_type))


def test_a_batch_keeps_every_record() -> None:
    for number in range(RECORDS // 10):
        rng = randomness("batch", number)
        made = record(rng, PodCommand)
        source = SourceRecord("pod-commands", 0, number, made.key, made.value, tuple(made.headers))
        with told("batch", number, made.value):
            item = read(source, PodCommand)
            assert (item.event is None) == bool(item.reason)
            assert item.record is source
            # What would stand on dead-letter.
            last = dead_letter_headers(made.headers, "pod-commands", 0, number, item.reason)
            assert last[-1] == ("reason", item.reason.encode())


def test_the_projection_passes_over_what_is_no_status() -> None:
    """`engagement-status` is the engine's own, so it is read with fewer checks; not with none."""
    for number in range(RECORDS // 2):
        rng = randomness("status", number)
        data = value(rng, EngagementStatus)
        with told("status", number, data):
            for change in _dispatched(StatusPage(0, number, (data,))):
                # What PostgreSQL can take: a smallint, and a time that it has.
                assert 1 <= change.attempt <= 255
                assert EARLIEST_MS <= change.at_ms <= LATEST_MS


def test_every_dead_letter_is_read_and_shown() -> None:
    forged = 0
    made = load_settings()
    with Index() as index:
        for number in range(RECORDS // 2):
            rng = randomness("letter", number)
            data = value(rng, PostDetected)
            with told("letter", number, data):
                letter = letter_of("dead-letter", 1, number, 0, b"key", data, _forged(rng))
                forged += letter.source is not None
                read_by_people(letter, index, made)
        assert len(index) > RECORDS // 5
        assert sum(len(page) for page in index.newest()) == len(index)
    assert forged > RECORDS // 50


def read_by_people(letter: Letter, index: Index, made: Settings) -> None:
    why_not = not_replayable(letter, made)
    letter.reason.encode()  # it is text that any terminal takes
    replayed = replayed_headers(letter)
    assert replayed[-1] == ("replayed_from", letter.id.encode())
    index.add(letter, why_not)
    shown = letter_json(letter, 1, why_not, {})
    assert orjson.loads(text.as_json(shown))
    for line in letter_lines(letter, 1, why_not, {}, full=False):
        assert line.isprintable()
    Choice(reason="x*y", topic="post-detected", partition=3).matches(letter)


def _forged(rng: Random) -> list[Header]:
    """Headers as the engine adds them, and then hurt."""
    if rng.random() < 0.3:
        return headers(rng)
    topic = rng.choice(("post-detected", "engagement-executed", "x", "\N{SNOWMAN}"))
    found: list[Header] = list(
        dead_letter_headers(
            headers(rng),
            topic,
            rng.choice((0, 3, 2**31, 10**18)),
            rng.choice((0, 7, 10**17, 10**30)),
            "\ud800\x1b[31m" * rng.randrange(50),
        )
    )
    if rng.random() < 0.3:
        found.append(("history", rng.choice((b"[]", b"[" * 9999, b'[{"attempt":1e999,"at":"x"}]'))))
    if rng.random() < 0.3:
        found.append(("truncated_from", rng.choice((b"0", b"9" * 18, b"9" * 40, b"-1"))))
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(found))
        name, data = found[at]
        found[at] = rng.choice(((name, None), (name, b""), ("", data), (name, (data or b"")[1:])))
    if rng.random() < 0.2:
        rng.shuffle(found)
    return found


def test_times_at_the_edges_stay_what_they_are() -> None:
    for at_ms in (EARLIEST_MS, LATEST_MS):
        event = PostDetected(
            event_id="e", pod_id="p", post_id="x", member_ids=("m",), detected_at=moment(at_ms)
        )
        assert refused_or_read(PostDetected, encode(event)) == event
        planned = plan(event, POLICY, PostPlan(), 0)
        assert all(min(at_ms + 1, LATEST_MS) <= each.scheduled_for_ms for each in planned)
