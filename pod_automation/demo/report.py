"""What closes the demo."""

from dataclasses import asdict, dataclass
from typing import Any

from pod_automation.demo.verdict import (
    Evidence,
    Faults,
    Figures,
    expected,
    faults,
    in_kafka,
    in_postgresql,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures. Lateness in milliseconds."""

    published: int
    published_twice: int
    asked_for: int
    planned: int
    dispatched: int
    """Activities, by their `execute-engagement` events."""
    recorded: int
    """Rows that PostgreSQL has as dispatched."""
    expected: Figures
    kafka: Figures
    postgresql: Figures
    members: int
    """Engagements carried out, as the members' counts sum up to."""
    broken: int
    dead_letters: int
    faults: Faults
    late_p50_ms: int
    late_p99_ms: int
    late_max_ms: int
    killed: int
    seconds: float

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        *,
        published: list[str],
        cap: int,
        window_ms: int,
        seconds: float,
    ) -> "Report":
        """`published`: the ids of all `post-detected` events; `cap` likes in `window_ms`."""
        tally, letters, rows = evidence.tally, evidence.letters, evidence.rows
        return cls(
            published=len(published),
            published_twice=len(published) - len(set(published)),
            asked_for=len(evidence.asked_for),
            planned=len(rows),
            dispatched=len(tally.attempts()),
            recorded=sum(row.dispatched for row in rows.values()),
            expected=expected(evidence.asked_for),
            kafka=in_kafka(evidence),
            postgresql=in_postgresql(evidence),
            members=sum(evidence.members.values()),
            broken=len(letters.broken),
            dead_letters=len(letters.buried) + sum(map(len, letters.failed.values())),
            faults=faults(evidence, cap, window_ms),
            late_p50_ms=tally.late_ms(0.5),
            late_p99_ms=tally.late_ms(0.99),
            late_max_ms=tally.late_ms(1.0),
            killed=evidence.killed,
            seconds=round(seconds, 1),
        )

    def sources_agree(self, name: str) -> bool:
        """Whether all sources have the same for one of the figures.

        An executor that was killed may answer late: then the row goes back to the attempt that was
        done, and a deadline may have come for nothing. Each row is checked by itself in `faults`.
        """
        kafka, rows = getattr(self.kafka, name), getattr(self.postgresql, name)
        if name == "executed" and self.members != rows:
            return False
        if self.killed and name in ("retried", "timed_out"):
            return bool(rows <= kafka)
        return bool(rows == kafka)

    def as_expected(self, name: str) -> bool:
        """Whether Kafka has what the handler's answers lead to.

        Where processes were killed, attempts were lost: there may be more retries and time-outs,
        and activities that have used up their attempts.
        """
        wanted, found = getattr(self.expected, name), getattr(self.kafka, name)
        if self.killed:
            return bool(found <= wanted if name == "executed" else found >= wanted)
        return bool(found == wanted)

    @property
    def agree(self) -> bool:
        """Whether Kafka, PostgreSQL and the members' counts say the same."""
        return all(map(self.sources_agree, asdict(self.expected)))

    @property
    def ok(self) -> bool:
        """Whether the engine has kept what it promises."""
        counts = (self.planned, self.dispatched, self.recorded)
        return (
            not self.faults.any
            and self.agree
            and all(map(self.as_expected, asdict(self.expected)))
            and all(count == self.asked_for for count in counts)
        )

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; what became of the activities as Kafka has it."""
        made = asdict(self)
        sources = {name: made.pop(name) for name in ("expected", "kafka", "postgresql")}
        sources["members"] = {"executed": made.pop("members")}
        found = made.pop("faults")
        return {
            **made,
            **sources["kafka"],
            **found,
            "sources": sources,
            "agree": self.agree,
            "ok": self.ok,
        }
