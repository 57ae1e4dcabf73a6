"""What was counted against what was promised: values in, values out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pod_automation.demo import fate
from pod_automation.demo.count import FINAL, Ends, Letters, Results, Tally
from pod_automation.demo.record import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that anyone can see once the demo has ended."""

    asked_for: frozenset[str]
    """Activities, by id."""
    tally: Tally
    results: Results
    ends: Ends
    letters: Letters
    rows: Mapping[str, Row]
    """By activity."""
    members: Mapping[str, int]
    """How many engagements each member is said to have carried out."""
    left_in_wheel: int
    """Timers that wait, that are in flight, and results that are awaited."""
    killed: int = 0
    """Processes that were killed: then attempts may be lost on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each promise was broken."""

    lost: int
    """Activities that are not planned, or not dispatched."""
    duplicates: int
    """`execute-engagement` events beyond the one of each attempt."""
    left_out: int
    """Attempts that were not dispatched though a later one was."""
    early: int
    not_asked_for: int
    """Activities that are planned or dispatched, and should not be."""
    over_the_cap: int
    """Posts."""
    unfinished: int
    """Activities without a final status, in PostgreSQL or in Kafka."""
    two_ends: int
    """Activities with several final statuses in Kafka, or another than in PostgreSQL."""
    wrong_ends: int
    """Activities that end otherwise than the answers of their executor say."""
    wrong_attempts: int
    """Rows whose attempt is not that of their last event."""
    wrong_members: int
    """Members whose count is not the number of their executed activities."""
    letters_missing: int
    """Broken records and failed activities without a dead letter."""
    letters_unasked: int
    """Dead letters of activities that have not failed, or have one already."""
    left_in_wheel: int

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(asdict(self).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What became of all activities, as one source has it."""

    executed: int
    failed: int
    retried: int
    """Attempts beyond the first."""
    timed_out: int
    """Attempts that the engine has given up, since no result came."""


def faults(evidence: Evidence, cap: int, window_ms: int) -> Faults:
    """Each kind counted by itself; a single thing that goes wrong may well be several."""
    asked, rows, tally = evidence.asked_for, evidence.rows, evidence.tally
    attempts = tally.attempts()
    executed = Counter(row.member_id for row in rows.values() if row.status == "executed")
    members = executed.keys() | evidence.members.keys()
    letters, buried = evidence.letters.failed, evidence.letters.buried
    failed = {activity for activity, row in rows.items() if row.status == "failed"}
    return Faults(
        lost=len(asked - (rows.keys() & attempts.keys())),
        duplicates=sum(times - 1 for times in tally.fired.values()),
        left_out=sum(max(made) - len(made) for made in attempts.values()),
        early=tally.early,
        not_asked_for=len((rows.keys() | attempts.keys()) - asked),
        over_the_cap=tally.over_the_cap(cap, window_ms),
        unfinished=sum(not _finished(evidence, activity) for activity in asked),
        two_ends=sum(_two_ends(evidence, activity) for activity in rows),
        wrong_ends=sum(_wrong_end(evidence, each, attempts.get(each, set())) for each in rows),
        wrong_attempts=sum(
            _wrong_attempt(evidence, each, attempts.get(each, set())) for each in rows
        ),
        wrong_members=sum(executed[each] != evidence.members.get(each, 0) for each in members),
        letters_missing=len(failed - letters.keys()) + len(set(evidence.letters.broken) - buried),
        letters_unasked=sum(len(ids) - (activity in failed) for activity, ids in letters.items()),
        left_in_wheel=evidence.left_in_wheel,
    )


def expected(asked_for: frozenset[str]) -> Figures:
    """What the handler's answers lead to."""
    ends = [fate.end(activity) for activity in asked_for]
    return Figures(
        executed=sum(end.executed for end in ends),
        failed=sum(not end.executed for end in ends),
        retried=sum(end.attempts - 1 for end in ends),
        timed_out=sum(end.timed_out for end in ends),
    )


def in_kafka(evidence: Evidence) -> Figures:
    """By the topics alone, copies counted once."""
    return Figures(
        executed=evidence.ends.ended("executed"),
        failed=evidence.ends.ended("failed"),
        retried=sum(attempt > 1 for _, attempt in evidence.tally.fired),
        timed_out=len(evidence.results.timed_out),
    )


def in_postgresql(evidence: Evidence) -> Figures:
    """By the rows alone, but for the words by which a time-out is known."""
    rows = evidence.rows
    return Figures(
        executed=sum(row.status == "executed" for row in rows.values()),
        failed=sum(row.status == "failed" for row in rows.values()),
        retried=sum(row.attempt - 1 for row in rows.values()),
        timed_out=sum(
            error == evidence.results.timed_out.get((activity, attempt))
            for activity, row in rows.items()
            for attempt, error in row.failures
        ),
    )


def _finished(evidence: Evidence, activity: str) -> bool:
    row = evidence.rows.get(activity)
    return row is not None and row.status in FINAL and activity in evidence.ends.found


def _two_ends(evidence: Evidence, activity: str) -> bool:
    row, found = evidence.rows[activity], evidence.ends.found.get(activity)
    return bool(found) and found != {(row.status, row.attempt)}


def _wrong_end(evidence: Evidence, activity: str, made: set[int]) -> bool:
    row = evidence.rows[activity]
    if row.status not in FINAL or activity not in evidence.asked_for:
        return False
    if row.status == "executed" and (activity, row.attempt) not in evidence.results.executed:
        return True
    end = fate.end(activity)
    if made and max(made) < end.attempts:
        return True
    if row.status == end.status:
        return False
    # Who was killed too often at the wrong moment has used up all attempts.
    used_up = row.status == "failed" and len(made) >= fate.ATTEMPTS
    return not (evidence.killed and used_up)


def _wrong_attempt(evidence: Evidence, activity: str, made: set[int]) -> bool:
    row = evidence.rows[activity]
    if row.attempt == len(made):
        return False
    # A result that came after its deadline has won while the retry was on its way out.
    tried = (activity, row.attempt)
    results = evidence.results
    late = row.status == "executed" and tried in results.executed and tried in results.timed_out
    return not (late and row.attempt == len(made) - 1)
