"""How far may be committed."""

from hypothesis import given
from hypothesis import strategies as st

from pod_automation.executor.offsets import Offsets


def upto(offsets: Offsets) -> int | None:
    """A call, for mypy does not know that `done` changes the attribute."""
    return offsets.upto


def test_only_up_to_what_is_done_without_a_gap() -> None:
    offsets = Offsets()
    assert [offsets.take(each) for each in (3, 4, 7)] == [True] * 3  # 5 and 6 are markers
    assert upto(offsets) is None
    offsets.done(4)
    assert (upto(offsets), offsets.ahead) == (None, 1)
    offsets.done(3)
    assert (upto(offsets), offsets.ahead) == (5, 0)
    assert offsets.waits()
    offsets.done(7)
    assert upto(offsets) == 8
    assert not offsets.waits()


def test_what_is_read_twice_is_taken_once() -> None:
    offsets = Offsets()
    assert offsets.take(3)
    assert not offsets.take(3)
    offsets.done(3)
    assert not offsets.take(3)
    assert upto(offsets) == 4


def test_what_is_done_stays_known_over_a_rebalance() -> None:
    offsets = Offsets()
    for each in range(4):
        offsets.take(each)
    offsets.done(1)
    offsets.done(3)
    offsets.restart()
    assert upto(offsets) is None
    assert [offsets.take(each) for each in range(5)] == [True, False, True, False, True]
    assert upto(offsets) is None
    offsets.done(0)
    assert upto(offsets) == 2
    offsets.done(2)
    assert upto(offsets) == 4


def test_what_another_owner_has_committed_is_forgotten() -> None:
    offsets = Offsets()
    for each in range(4):
        offsets.take(each)
    offsets.done(1)
    offsets.restart()
    offsets.take(3)
    assert offsets.ahead == 0
    offsets.done(2)  # late, from before
    assert (offsets.ahead, upto(offsets)) == (0, None)


def half_done() -> Offsets:
    """5 to 8 are taken; 5 and 6 are done, and nothing is committed."""
    offsets = Offsets()
    for each in range(5, 9):
        offsets.take(each)
    offsets.done(5)
    offsets.done(6)
    return offsets


def test_what_was_done_and_not_committed_stays_known() -> None:
    offsets = half_done()
    offsets.committed(6)
    offsets.restart()
    assert [offsets.take(each) for each in (6, 7)] == [False, True]
    assert upto(offsets) == 7
    # Taken away again before it had come to the end of that.
    offsets.restart()
    offsets.take(6)
    offsets.restart()
    assert [offsets.take(each) for each in (6, 7)] == [False, True]


def test_what_another_has_done_meanwhile_is_not_ours() -> None:
    offsets = half_done()
    offsets.restart()
    assert offsets.take(8)
    offsets.done(8)
    offsets.committed(9)
    offsets.restart()
    # Of a topic that was made anew: other records at the same places.
    assert all(offsets.take(each) for each in range(9))


def test_records_of_a_topic_made_anew_are_others() -> None:
    offsets = half_done()
    offsets.restart()
    assert all(offsets.take(each) for each in range(9))


@given(st.data())
def test_what_is_done_is_never_lost_nor_made_up(data: st.DataObject) -> None:
    """Whatever is committed and however often it is read anew: what is taken for done was done."""
    offsets, done, committed = Offsets(), set[int](), 0
    for _ in range(data.draw(st.integers(1, 5))):
        taken = list(range(committed, committed + data.draw(st.integers(0, 8))))
        for each in taken:
            assert offsets.take(each) == (each not in done)
        for each in data.draw(st.permutations(taken)):
            if data.draw(st.booleans()):
                offsets.done(each)
                done.add(each)
        at = offsets.upto
        if at is not None and data.draw(st.booleans()):
            committed = at
            offsets.committed(at)
        offsets.restart()


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.randoms())
def test_never_beyond_an_open_one(gaps: list[int], rng: object) -> None:
    offsets, taken, at = Offsets(), [], 0
    for gap in gaps:
        at += gap
        taken.append(at)
        offsets.take(at)
    order = taken[:]
    rng.shuffle(order)  # type: ignore[attr-defined]
    left = set(taken)
    for each in order:
        offsets.done(each)
        left.discard(each)
        first_open = min(left, default=at + 1)
        before = [one for one in taken if one < first_open]
        assert upto(offsets) == (before[-1] + 1 if before else None)
