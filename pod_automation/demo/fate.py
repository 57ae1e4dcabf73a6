"""What is to become of each activity of the demo, known from its id alone."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID

ATTEMPTS = 3
"""As many as the engine makes, by its default."""


class Answer(StrEnum):
    """How the pretended executor takes one attempt."""

    DONE = "done"
    ERROR = "error"
    """An exception: the engine may try again."""
    LATER = "later"
    """Likewise, and it says when."""
    NEVER = "never"
    """No other attempt would help."""
    HANG = "hang"
    """No answer, until long after the engine has given the attempt up."""


@dataclass(frozen=True, slots=True)
class End:
    """How an activity ends, unless its attempts are lost on the way."""

    executed: bool
    attempts: int
    timed_out: int

    @property
    def status(self) -> Literal["executed", "failed"]:
        """The final status."""
        return "executed" if self.executed else "failed"


def chance(activity_id: str) -> int:
    """From 0 to 99, the same for every process: these ids are hashes."""
    return UUID(activity_id).int % 100


def answer(activity_id: str, attempt: int) -> Answer:
    """Of a hundred activities six are refused once, two each time, two for good, and two hang."""
    number = chance(activity_id)
    if number < 2:
        return Answer.ERROR
    if number < 4:
        return Answer.NEVER
    if attempt == 1:
        if number < 7:
            return Answer.ERROR
        if number < 10:
            return Answer.LATER
        if number < 12:
            return Answer.HANG
    return Answer.DONE


def end(activity_id: str) -> End:
    """What these answers lead to."""
    timed_out = 0
    for attempt in range(1, ATTEMPTS + 1):
        given = answer(activity_id, attempt)
        if given is Answer.DONE or given is Answer.NEVER:
            return End(given is Answer.DONE, attempt, timed_out)
        timed_out += given is Answer.HANG
    return End(False, ATTEMPTS, timed_out)
