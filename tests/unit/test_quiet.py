"""What libraries log while a server is away."""

import asyncio
import logging
import threading

import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from streams.quiet import REPEATS, WINDOW_S, RepeatLimit, quiet_libraries


def record(name: str, text: str = "away", error: Exception | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord(name, logging.ERROR, "file", 1, text, (), info)


def test_a_few_lines_of_a_kind_pass_in_each_window() -> None:
    now = [0.0]
    limit = RepeatLimit(clock=lambda: now[0])
    passed = [limit.filter(record("aiokafka.client")) for _ in range(REPEATS + 5)]
    assert passed.count(True) == REPEATS
    assert limit.filter(record("aiokafka.client", "another kind"))
    assert limit.filter(record("scheduler"))
    now[0] += WINDOW_S
    first = record("aiokafka.client")
    assert limit.filter(first)
    assert "5 more of these" in first.msg


def test_lines_are_of_one_kind_whatever_partition_they_name() -> None:
    limit = RepeatLimit()
    texts = [f"bad TP(topic='t', partition={number})" for number in range(REPEATS + 5)]
    assert sum(limit.filter(record("faust.transport", text)) for text in texts) == REPEATS


@pytest.mark.parametrize("error", [KafkaConnectionError("closed"), ConnectionResetError("reset")])
def test_a_broker_that_is_away_leaves_no_traceback(error: Exception) -> None:
    line = record("aiokafka.producer.sender", "Unexpected error", error)
    assert RepeatLimit().filter(line)
    assert line.exc_info is None
    assert line.getMessage() == f"Unexpected error: {error}"


def test_a_bug_keeps_its_traceback() -> None:
    line = record("faust.worker", "Crashed", ValueError("a bug"))
    assert RepeatLimit().filter(line)
    assert line.exc_info is not None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncio.CancelledError(), "a thread was cut off in its stop"),
        (ValueError("a bug"), "a thread has failed"),
    ],
)
def test_what_ends_a_thread_is_logged(error: BaseException, told: str) -> None:
    def fail() -> None:
        raise error

    with capture_logs() as logs, quiet_libraries():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert [line["event"] for line in logs] == [told]
