"""What operators and members ask for, and that lasts: who is paused, who has opted out, when it is
quiet, and by what policy a pod is planned."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from scheduler.policy import PacingPolicy, with_fields
from scheduler.quiet_hours import QuietHours

Scope = Literal["all", "pod", "member", "opted_out", "dispatcher"]
SelectionScope = Literal["all", "post", "pod", "member"]
Kind = Literal["paused", "opted_out", "quiet_hours", "policy", "daily_cap", "drained"]

OPTED_OUT = "the member has opted out"
"""The reason of what is cancelled for it."""


class Subject(Struct, frozen=True):
    """Whom a control is about: everybody, a pod or a member (`name` is its id).

    The wheel knows one more: a member who has `opted_out`, as long as anything of theirs is left.
    """

    scope: Scope
    name: str = ""

    def __str__(self) -> str:
        return "everybody" if self.scope == "all" else f"{self.scope} {self.name}"


EVERYBODY = Subject("all")


class Control(Struct, frozen=True, kw_only=True):
    """A control as one command has set it or taken it back (`active`); times in milliseconds UTC.

    `command_offset` is where that command stands in its partition.
    """

    kind: Kind
    subject: Subject
    active: bool
    command_offset: int
    issued_at_ms: int
    actor: str | None = None
    reason: str | None = None
    value: Mapping[str, str | int | float] | None = None
    """Of quiet hours: `from`, `until`, `zone`; of a policy the fields that differ; of a daily cap
    `cap`."""


class Orders(Struct, frozen=True):
    """What a decision about some members of some pods must know.

    `version` is the offset of the last command that such decisions depend on, -1 without any: a
    decision that was made by an older one is refused (`Record.apply_plan`, `Record.change`).
    """

    version: int = -1
    opted_out: frozenset[str] = frozenset()
    quiet: Mapping[Subject, QuietHours] = MappingProxyType({})
    policies: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """By pod, the fields of its policy that differ from the settings."""
    caps: Mapping[str, int] = MappingProxyType({})
    """By member, how many may fall due in any 24 hours."""
    plans: Mapping[str, int] = MappingProxyType({})
    """By member with a cap, how many plans there were: one that knows of fewer is refused."""
    times: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """By member with a cap, when what is planned falls due, or fell due not long ago (ms)."""

    def quiet_for(self, pod_id: str, member_id: str) -> tuple[QuietHours, ...]:
        """When nothing of theirs is to fall due."""
        if not self.quiet:
            return ()
        found = (Subject("pod", pod_id), Subject("member", member_id))
        return tuple(hours for each in found if (hours := self.quiet.get(each)))

    def with_quiet(self, subject: Subject, hours: QuietHours | None) -> "Orders":
        """The same, but for the quiet hours of one of them."""
        others = {each: own for each, own in self.quiet.items() if each != subject}
        return replace(self, quiet=others if hours is None else {**others, subject: hours})

    def policy(self, pod_id: str, settings: PacingPolicy) -> PacingPolicy:
        """By what the posts of a pod are planned."""
        own = self.policies.get(pod_id)
        return settings if own is None else with_fields(settings, own)

    @classmethod
    def of(
        cls,
        version: int,
        found: Iterable[tuple[str, Subject, Any]],
        plans: Mapping[str, int] = MappingProxyType({}),
    ) -> "Orders":
        """From controls that hold: kind, whom they are about, and value; and from `plans`."""
        caps: dict[str, int] = {}
        opted_out: set[str] = set()
        quiet: dict[Subject, QuietHours] = {}
        policies: dict[str, Mapping[str, float]] = {}
        for kind, subject, value in found:
            if kind == "opted_out":
                opted_out.add(subject.name)
            elif kind == "quiet_hours":
                quiet[subject] = QuietHours.of(value)
            elif kind == "policy":
                policies[subject.name] = value
            elif kind == "daily_cap":
                caps[subject.name] = int(value["cap"])
        counted = {name: plans.get(name, 0) for name in caps}
        return cls(version, frozenset(opted_out), quiet, policies, caps, counted)


class Selection(Struct, frozen=True):
    """Which activities a command is about: all of a post, pod or member, or all of the shard."""

    scope: SelectionScope
    name: str = ""


class AppliedCommand(Struct, frozen=True, kw_only=True):
    """A command that a shard has applied, for the audit; times in milliseconds UTC.

    `scope` and `name` say what it was about; `value` is that of a control; `outcome` counts
    activities by what became of them.
    """

    command_offset: int
    event_id: str
    command: str
    scope: str
    issued_at_ms: int
    name: str = ""
    actor: str | None = None
    reason: str | None = None
    value: Mapping[str, str | int | float] | None = None
    outcome: Mapping[str, int] = MappingProxyType({})


class Verdict(Struct, frozen=True, kw_only=True):
    """What commands change beside rows.

    `controls` are those that change, `applied` the commands that are done with. `binding` are the
    topics whose inputs must be decided by these controls from now on.
    """

    controls: tuple[Control, ...] = ()
    applied: tuple[AppliedCommand, ...] = ()
    binding: tuple[str, ...] = ()


NO_VERDICT = Verdict()
