"""The projection reads the engine's own topic, in which anybody may have written."""

import orjson
import pytest

from scheduler.ports import StatusPage
from scheduler.project import _dispatched
from schemas.codec import InvalidEvent, decode
from schemas.events import MAX_SEQ, WheelCursor

STATUS = {
    "activity_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "status": "dispatched",
    "attempt": 2,
    "at": "2026-11-24T08:00:00.000Z",
}


def test_a_dispatch_is_read() -> None:
    (change,) = _dispatched(StatusPage(0, 0, (orjson.dumps(STATUS),)))
    assert (change.activity_id, change.attempt) == (STATUS["activity_id"], 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": 0},
        {"attempt": 256},
        {"attempt": 2**40},
        {"at": "9999-12-31T23:59:59Z"},
        {"at": "0001-01-01T00:00:00Z"},
        {"status": "lost"},
    ],
    ids=str,
)
def test_what_postgresql_would_refuse_is_passed_over(wrong: dict[str, object]) -> None:
    """It would refuse the whole page, each time it is read."""
    good, bad = orjson.dumps(STATUS), orjson.dumps(STATUS | wrong)
    assert len(_dispatched(StatusPage(0, 1, (bad, good)))) == 1


@pytest.mark.parametrize("value", [None, b"", b"\xff", b'{"activity_id":"\xff"}', b"[" * 100_000])
def test_what_is_no_status_is_passed_over(value: bytes | None) -> None:
    assert _dispatched(StatusPage(0, 0, (value,))) == []


def test_a_cursor_beyond_what_lua_can_count_is_none() -> None:
    """A wheel that was rebuilt on top of it would hand out the same batch for ever."""
    text = '{"seq":%d,"nonce":"n","gen":"g"}'
    assert decode(WheelCursor, (text % MAX_SEQ).encode()).seq == MAX_SEQ
    with pytest.raises(InvalidEvent):
        decode(WheelCursor, (text % (MAX_SEQ + 1)).encode())
