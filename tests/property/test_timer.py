"""A packed timer comes back as it was, whatever its ids."""

from typing import get_args
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from scheduler.stagger import seed_of
from scheduler.timer import Timer, pack, pack_derived, unpack
from schemas.events import EngagementType
from schemas.ids import activity_id, ids_of_post, uuid_text
from schemas.times import LATEST_MS

uuids = st.uuids().map(str)
# Forms that uuid.UUID reads as well: packed as 16 bytes they would come back as another text.
near_uuids = st.one_of(
    uuids.map(str.upper),
    uuids.map(str.title),
    uuids.map("{{{}}}".format),
    uuids.map("urn:uuid:{}".format),
    uuids.map(lambda text: text.replace("-", "")),
    uuids.map(lambda text: text[:-1] + " "),
    uuids.map(lambda text: text[:-1] + "g"),
    uuids.map(lambda text: text.replace("-", "_")),
    uuids.map(lambda text: text.replace("-", "")[:32] + "-" * 4),
    uuids.map(lambda text: text.replace("0", "\N{FULLWIDTH DIGIT ZERO}")),
)
anything = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)
ids = uuids | near_uuids | anything
types = st.sampled_from(get_args(EngagementType))
attempts = st.integers(1, 255)
due_times = st.integers(0, LATEST_MS)

Parts = tuple[str, str, str, EngagementType, int]


@given(ids, ids, ids, types, attempts, due_times)
def test_a_timer_with_a_derived_id_comes_back(
    pod: str, post: str, member: str, kind: EngagementType, attempt: int, due_ms: int
) -> None:
    timer = Timer(activity_id(pod, post, member, kind), pod, post, member, kind, attempt, due_ms)

    assert unpack(pack(timer), due_ms) == timer


@given(ids, ids, st.lists(st.tuples(ids, types, attempts), max_size=4))
def test_the_timers_of_one_post_are_named_and_packed_as_each_is_by_itself(
    pod: str, post: str, activities: list[tuple[str, EngagementType, int]]
) -> None:
    identified = ids_of_post(pod, post)

    for member, kind, attempt in activities:
        own_id, seed = identified(member, kind)
        assert own_id == activity_id(pod, post, member, kind)
        assert seed == seed_of(own_id)
        timer = Timer(own_id, pod, post, member, kind, attempt, 0)
        assert pack_derived(timer) == pack(timer)


@given(ids, ids, ids, ids, types, attempts, due_times)
def test_a_timer_with_an_id_of_its_own_comes_back(
    own: str, pod: str, post: str, member: str, kind: EngagementType, attempt: int, due_ms: int
) -> None:
    timer = Timer(own, pod, post, member, kind, attempt, due_ms)

    assert unpack(pack(timer), due_ms) == timer


@given(uuids, uuids, uuids, types, attempts)
def test_a_timer_of_uuids_takes_fifty_bytes(
    pod: str, post: str, member: str, kind: EngagementType, attempt: int
) -> None:
    # zset-max-listpack-value is 64 by default: above it a slot takes several times the memory.
    timer = Timer(activity_id(pod, post, member, kind), pod, post, member, kind, attempt, 0)

    assert len(pack(timer)) == 50


@given(st.tuples(ids, ids, ids, types, attempts), st.tuples(ids, ids, ids, types, attempts))
def test_different_timers_are_different_members_of_the_set(one: Parts, other: Parts) -> None:
    def packed(parts: Parts) -> bytes:
        return pack(Timer(activity_id(*parts[:4]), *parts, due_ms=0))

    assert (packed(one) == packed(other)) == (one == other)


@given(ids, ids, ids, types)
def test_a_derived_id_is_a_uuid_of_version_5(
    pod: str, post: str, member: str, kind: EngagementType
) -> None:
    own = activity_id(pod, post, member, kind)

    assert UUID(own).version == 5
    assert uuid_text(UUID(own).bytes) == own
