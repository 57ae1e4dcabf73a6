"""Looking at dead letters by HTTP: bounded, however many do, and without PostgreSQL too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import pytest

from pod_automation.api import letters
from pod_automation.api.problems import ProblemError
from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.index import Index
from pod_automation.dead_letters.letter import Letter
from scheduler.settings import Settings, load_settings

PLACES = range(1200)


class Topic:
    """Stands in for the topic, and counts who reads it."""

    reading = most = readings = 0
    go_on = asyncio.Event()

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topics.post_detected

    async def __aenter__(self) -> Self:
        Topic.readings += 1
        Topic.reading += 1
        Topic.most = max(Topic.most, Topic.reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        Topic.reading -= 1

    async def chosen(self, choice: Choice) -> AsyncIterator[Sequence[Letter]]:
        """All that match, in two pages."""
        await Topic.go_on.wait()
        found = [
            Letter(
                id=f"{self._topic}/1/{place}",
                partition=0,
                offset=place,
                at_ms=place,
                key=b"key",
                value=b"{}",
                headers=(),
                source=(self._topic, 1, place),
            )
            for place in PLACES
        ]
        for page in (found[:500], found[500:]):
            if some := [each for each in page if choice.matches(each)]:
                yield some


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> letters.Letters:
    monkeypatch.setattr(letters, "DeadLetters", Topic)
    Topic.reading = Topic.most = Topic.readings = 0
    Topic.go_on = asyncio.Event()
    # Nobody is there: what was replayed is not known.
    return letters.Letters(load_settings(postgres_dsn="postgresql://nobody@127.0.0.1:1/nothing"))


async def test_many_who_want_the_list_read_the_topic_once(dead: letters.Letters) -> None:
    Topic.go_on.set()
    answers = await asyncio.gather(*(dead.listed(limit) for limit in (1, 2, letters.MOST_LISTED)))
    assert Topic.readings == 1
    assert {each["total"] for each in answers} == {len(PLACES)}
    assert [len(each["dead_letters"]) for each in answers] == [1, 2, letters.MOST_LISTED]
    assert answers[0]["dead_letters"][0]["offset"] == PLACES[-1]


async def test_only_so_many_read_the_topic_at_once(dead: letters.Letters) -> None:
    wanted = [f"post-detected/1/{place}" for place in range(8)]
    asking = asyncio.gather(*map(dead.shown, wanted), dead.listed(1))
    for _ in range(20):  # turns of the loop, for as many as may to come to the topic
        await asyncio.sleep(0)
    Topic.go_on.set()
    answers = await asking
    assert [each["id"] for each in answers[:-1] if each] == wanted
    assert (Topic.readings, Topic.most) == (len(wanted) + 1, letters.AT_ONCE)


async def test_what_takes_too_long_is_a_problem(
    dead: letters.Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "READ_S", 0.05)
    for asking in (dead.listed(1), dead.shown("post-detected/1/1")):
        with pytest.raises(ProblemError) as told:
            await asking
        assert (told.value.status, told.value.kind) == (503, "busy")
    assert Topic.reading == 0


async def test_letters_are_shown_without_postgresql(dead: letters.Letters) -> None:
    Topic.go_on.set()
    (listed,) = (await dead.listed(1))["dead_letters"]
    shown = await dead.shown("post-detected/1/1")
    assert shown is not None
    assert listed["replayed"] is shown["replayed"] is None


async def test_the_loop_goes_on_meanwhile(
    dead: letters.Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    add = Index.add

    def noted(index: Index, *arguments: Any) -> None:
        threads.add(threading.get_ident())
        add(index, *arguments)

    monkeypatch.setattr(Index, "add", noted)
    Topic.go_on.set()
    await dead.listed(1)
    assert threads
    assert threading.get_ident() not in threads
