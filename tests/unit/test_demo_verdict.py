"""The count that closes the demo: each kind of violation is noticed, what is allowed is not."""

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from pod_automation.demo import fate
from pod_automation.demo.count import Ends, Letters, Results, Tally
from pod_automation.demo.fate import Answer
from pod_automation.demo.record import Row
from pod_automation.demo.report import Report
from pod_automation.demo.verdict import Evidence, Figures
from schemas import codec
from schemas.codec import encode
from schemas.events import EngagementExecuted, StatusName
from schemas.ids import activity_id, result_event_id
from schemas.times import moment

NOW_MS = 1_800_000_000_000
PODS = ["pod"]
BROKEN = (b"broken-1", b"broken-2")
CAP, WINDOW_MS = 3, 1000
TIMEOUT = "no result within 3 s"
TOTAL = 300


def member(number: int) -> str:
    return f"member-{number % 7}"


def post(number: int) -> str:
    return f"post-{number}"


IDS = [activity_id("pod", post(n), member(n), "like") for n in range(TOTAL)]
NUMBER = {each: number for number, each in enumerate(IDS)}


def first(*answers: Answer, attempt: int = 1) -> str:
    """An activity that is answered so."""
    return next(each for each in IDS if fate.answer(each, attempt) in answers)


DONE = first(Answer.DONE)
HANGS = first(Answer.HANG)
NEVER = first(Answer.NEVER)
ALWAYS = first(Answer.ERROR, attempt=2)


class World:
    """All that can be seen after a run: without faults, until one is put in."""

    def __init__(self) -> None:
        self.tally, self.results, self.ends = Tally(PODS), Results(PODS), Ends(PODS)
        self.letters = Letters(PODS, BROKEN)
        self.rows: dict[str, Row] = {}
        self.members: dict[str, int] = {}
        self.left_in_wheel = 0
        self.killed = 0
        for each in BROKEN:
            self.letters.add(each, f"post-detected/0/{each!r}")
        for activity in IDS:
            self.live(activity)

    def live(self, activity: str) -> None:
        end = fate.end(activity)
        failures = []
        for attempt in range(1, end.attempts + 1):
            self.fire(activity, attempt)
            answer = fate.answer(activity, attempt)
            if answer is Answer.HANG:
                self.time_out(activity, attempt)
                failures.append((attempt, TIMEOUT))
            elif answer is not Answer.DONE:
                failures.append((attempt, "hiccups"))
                self.report(activity, "failed", attempt)
            else:
                self.report(activity, "executed", attempt)
        self.finish(activity, end.status, end.attempts, tuple(failures))

    def fire(self, activity: str, attempt: int, *, late: int = 5) -> None:
        due = NOW_MS + 10_000 * attempt
        number = NUMBER.get(activity, 0)
        value = codec.fired(
            *(activity, "pod", post(number), member(number), "like", attempt, due, due + late)
        )[0]
        self.tally.add(value, due + 9)

    def report(self, activity: str, outcome: str, attempt: int) -> None:
        self.results.add(self.result(activity, outcome, attempt))

    def result(self, activity: str, outcome: str, attempt: int) -> bytes:
        return encode(
            EngagementExecuted(
                event_id=result_event_id(activity, outcome, attempt),
                activity_id=activity,
                pod_id="pod",
                post_id="post",
                member_id="ann",
                engagement_type="like",
                attempt=attempt,
                outcome="executed" if outcome == "executed" else "failed",
                executed_at=moment(NOW_MS),
            )
        )

    def time_out(self, activity: str, attempt: int) -> None:
        self.results.add(
            codec.result_timeout(activity, "pod", "post", "ann", "like", attempt, NOW_MS, TIMEOUT)
        )

    def finish(
        self,
        activity: str,
        status: StatusName,
        attempt: int,
        failures: tuple[tuple[int, str], ...] = (),
    ) -> None:
        name = member(NUMBER.get(activity, 0))
        self.rows[activity] = Row(name, status, attempt, True, failures)
        self.announce(activity, status, attempt)
        if status == "executed":
            self.members[name] = self.members.get(name, 0) + 1
        elif status == "failed":
            self.bury(activity, attempt)

    def announce(self, activity: str, status: StatusName, attempt: int) -> None:
        self.ends.add(
            codec.engagement_status(
                activity,
                "pod",
                "post",
                "ann",
                "like",
                status,
                attempt,
                NOW_MS,
            )
        )

    def bury(self, activity: str, offset: int) -> None:
        value = self.result(activity, "failed", 1)
        self.letters.add(value, f"engagement-executed/0/{activity}-{offset}")

    def forget(self, activity: str) -> None:
        """As if it had never been, but for being asked for."""
        for attempt in range(1, 10):
            self.tally.fired.pop((activity, attempt), None)
        row = self.rows.pop(activity)
        self.ends.found.pop(activity)
        self.members[row.member_id] -= row.status == "executed"

    def count_again(self, activity: str, by: int) -> None:
        self.members[self.rows[activity].member_id] += by

    def judged(self) -> Report:
        evidence = Evidence(
            asked_for=frozenset(IDS),
            tally=self.tally,
            results=self.results,
            ends=self.ends,
            letters=self.letters,
            rows=self.rows,
            members=self.members,
            left_in_wheel=self.left_in_wheel,
            killed=self.killed,
        )
        return Report.of(
            evidence, published=["a", "a", "b"], cap=CAP, window_ms=WINDOW_MS, seconds=1.0
        )


def set_row(world: World, activity: str, **changes: object) -> None:
    row = world.rows[activity]
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    world.rows[activity] = Row(**(fields | changes))


@pytest.fixture
def world() -> World:
    return World()


def test_without_a_fault_all_is_well(world: World) -> None:
    report = world.judged()
    assert not any(asdict(report.faults).values())
    assert report.agree
    assert report.ok
    assert report.kafka == report.postgresql == report.expected
    assert report.members == report.kafka.executed < TOTAL
    assert min(asdict(report.expected).values()) > 0
    assert (report.published, report.published_twice) == (3, 1)
    assert report.dead_letters == 2 + report.kafka.failed


def wrong_end(world: World) -> None:
    """It never succeeds, and yet it has."""
    world.forget(NEVER)
    world.letters.failed.pop(NEVER)
    world.fire(NEVER, 1)
    world.report(NEVER, "executed", 1)
    world.finish(NEVER, "executed", 1)


def unproven(world: World) -> None:
    """Executed, and no executor has said so."""
    world.results.executed.remove((DONE, 1))


def gave_up_early(world: World) -> None:
    """Failed after two attempts of three."""
    world.forget(ALWAYS)
    world.letters.failed.pop(ALWAYS)
    world.fire(ALWAYS, 1)
    world.fire(ALWAYS, 2)
    world.finish(ALWAYS, "failed", 2)


def cap_broken(world: World) -> None:
    world.tally.likes_ms["post-0"] = [0, 1, 2, 3]


VIOLATIONS: dict[str, tuple[Callable[[World], object], set[str]]] = {
    "lost altogether": (lambda w: w.forget(DONE), {"lost", "unfinished"}),
    "planned, never dispatched": (
        lambda w: w.tally.fired.pop((DONE, 1)),
        {"lost", "wrong_attempts"},
    ),
    "an attempt twice": (lambda w: w.fire(DONE, 1), {"duplicates"}),
    "a retry twice": (lambda w: w.fire(HANGS, 2), {"duplicates"}),
    "an attempt left out": (
        lambda w: w.tally.fired.pop((ALWAYS, 2)),
        {"left_out", "wrong_attempts"},
    ),
    "an attempt too many": (lambda w: w.fire(DONE, 2), {"wrong_attempts"}),
    "early": (lambda w: w.fire(DONE, 1, late=-1), {"early", "duplicates"}),
    "over the cap": (cap_broken, {"over_the_cap"}),
    "nobody asked for it": (
        lambda w: w.fire(activity_id("pod", "another", "ann", "like"), 1),
        {"not_asked_for"},
    ),
    "a row nobody asked for": (
        lambda w: w.finish("unknown", "cancelled", 1),
        {"not_asked_for", "wrong_attempts"},
    ),
    "not at its end": (
        lambda w: set_row(w, NEVER, status="dispatched"),
        {"unfinished", "two_ends", "letters_unasked"},
    ),
    "its end was not told": (lambda w: w.ends.found.pop(DONE), {"unfinished"}),
    "two ends": (lambda w: w.announce(DONE, "failed", 1), {"two_ends"}),
    "two ends of one kind": (lambda w: w.announce(HANGS, "executed", 1), {"two_ends"}),
    "another end than was told": (
        lambda w: set_row(w, NEVER, status="cancelled"),
        {"two_ends", "wrong_ends", "letters_unasked"},
    ),
    "an end that it cannot have": (wrong_end, {"wrong_ends"}),
    "executed, says nobody": (unproven, {"wrong_ends"}),
    "given up early": (gave_up_early, {"wrong_ends"}),
    "a row at another attempt": (
        lambda w: set_row(w, ALWAYS, attempt=2),
        {"two_ends", "wrong_attempts"},
    ),
    "a member counted twice": (lambda w: w.count_again(DONE, 1), {"wrong_members"}),
    "a member not counted": (lambda w: w.count_again(DONE, -1), {"wrong_members"}),
    "counts of two members mixed up": (
        lambda w: w.members.update(
            {"member-0": w.members["member-0"] + 1, "member-1": w.members["member-1"] - 1}
        ),
        {"wrong_members"},
    ),
    "no dead letter": (lambda w: w.letters.failed.pop(NEVER), {"letters_missing"}),
    "a broken record that is nowhere": (
        lambda w: w.letters.buried.discard(BROKEN[0]),
        {"letters_missing"},
    ),
    "two dead letters": (lambda w: w.bury(NEVER, 99), {"letters_unasked"}),
    "a dead letter of what was done": (lambda w: w.bury(DONE, 1), {"letters_unasked"}),
    "the wheel is not empty": (
        lambda w: setattr(w, "left_in_wheel", 1),
        {"left_in_wheel"},
    ),
}


@pytest.mark.parametrize("killed", [0, 3])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_is_noticed(world: World, name: str, killed: int) -> None:
    violate, noticed = VIOLATIONS[name]
    violate(world)
    world.killed = killed
    report = world.judged()
    found = {each for each, times in asdict(report.faults).items() if times}
    assert found == noticed
    assert not report.ok
    assert not report.as_json()["ok"]


def test_copies_are_no_violation(world: World) -> None:
    world.report(DONE, "executed", 1)
    world.time_out(HANGS, 1)
    world.announce(NEVER, "failed", 1)
    world.bury(NEVER, 1)
    assert world.judged().ok


def time_out_first(world: World) -> None:
    """The executor was killed: its attempt ended by the deadline, and the next one did it."""
    world.forget(DONE)
    world.results.executed.remove((DONE, 1))
    world.results = replace(world.results, _told=world.results._told - {(DONE, 1)})
    world.fire(DONE, 1)
    world.time_out(DONE, 1)
    world.fire(DONE, 2)
    world.report(DONE, "executed", 2)
    world.finish(DONE, "executed", 2, ((1, TIMEOUT),))


def late_executed(world: World) -> None:
    """A result that came after the deadline has won, while the retry was on its way out."""
    world.forget(DONE)
    world.results = replace(world.results, _told=world.results._told - {(DONE, 1)})
    world.fire(DONE, 1)
    world.time_out(DONE, 1)
    world.report(DONE, "executed", 1)
    world.fire(DONE, 2)
    world.finish(DONE, "executed", 1, ((1, TIMEOUT),))


def all_lost(world: World) -> None:
    """The executor was away for all three attempts."""
    world.forget(DONE)
    world.results.executed.remove((DONE, 1))
    world.results = replace(world.results, _told=world.results._told - {(DONE, 1)})
    failures = []
    for attempt in (1, 2, 3):
        world.fire(DONE, attempt)
        world.time_out(DONE, attempt)
        failures.append((attempt, TIMEOUT))
    world.finish(DONE, "failed", 3, tuple(failures))


def test_who_was_not_killed_does_not_use_up_attempts(world: World) -> None:
    all_lost(world)
    assert world.judged().faults.wrong_ends == 1


@pytest.mark.parametrize("story", [time_out_first, late_executed, all_lost])
def test_what_a_kill_may_cost_is_allowed_after_a_kill_alone(
    world: World, story: Callable[[World], None]
) -> None:
    story(world)
    assert not world.judged().ok
    world.killed = 3
    report = world.judged()
    assert not any(asdict(report.faults).values())
    assert report.ok


def test_fewer_retries_than_the_answers_need_are_no_cost_of_a_kill(world: World) -> None:
    world.killed = 3
    report = world.judged()
    less = replace(report.kafka, retried=report.kafka.retried - 1)
    assert report.ok
    assert not replace(report, kafka=less, postgresql=less).ok


@pytest.mark.parametrize("killed", [0, 3])
@pytest.mark.parametrize("name", ["executed", "failed", "retried", "timed_out"])
def test_a_row_more_than_kafka_has_is_noticed(world: World, name: str, killed: int) -> None:
    world.killed = killed
    report = world.judged()
    more: Figures = replace(report.postgresql, **{name: getattr(report.postgresql, name) + 1})
    report = replace(report, postgresql=more)
    assert not report.sources_agree(name)
    assert not report.ok


def test_the_members_have_a_voice(world: World) -> None:
    report = world.judged()
    assert not replace(report, members=report.members - 1).agree


@pytest.mark.parametrize("count", ["planned", "dispatched", "recorded"])
def test_all_that_is_asked_for_passes_all_stations(world: World, count: str) -> None:
    assert not replace(world.judged(), **{count: TOTAL - 1}).ok  # type: ignore[arg-type]


def test_other_pods_are_not_counted(world: World) -> None:
    others = World()
    for each in (others.results, others.ends, others.letters):
        each.pods = ["another"]
    before = len(others.results.executed), len(others.ends.found), len(others.letters.failed)
    others.live(IDS[0])
    others.bury(NEVER, 7)
    assert before == (
        len(others.results.executed),
        len(others.ends.found),
        len(others.letters.failed),
    )


def test_as_json_it_has_all_figures(world: World) -> None:
    report = world.judged()
    made = report.as_json()
    for name in ("executed", "failed", "retried", "timed_out"):
        assert made[name] == getattr(report.kafka, name)
        for source in ("expected", "kafka", "postgresql"):
            assert made["sources"][source][name] == made[name]
    assert made["sources"]["members"] == {"executed": report.members}
    assert made.keys() > asdict(report.faults).keys()
    assert made["agree"]
    assert made["ok"]
