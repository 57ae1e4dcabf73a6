"""What a command is about, and why one can never be applied."""

from collections.abc import Mapping, Sequence
from typing import cast

from scheduler import quiet_hours
from scheduler.controls import (
    EVERYBODY,
    AppliedCommand,
    Control,
    Kind,
    Selection,
    SelectionScope,
    Subject,
)
from scheduler.policy import POLICY_FIELDS, PacingPolicy, with_fields
from schemas.events import PodCommand
from schemas.times import millis

MAX_ACTOR_CHARS = 200

PROCESSES = 0
"""The shard that applies what is about a process, and so about no shard."""


def is_sweep(command: PodCommand) -> bool:
    """Whether `command` goes through timers that wait (`scheduler.sweep`), by itself; one that is
    at fault does not."""
    sweeps = command.command in ("cancel", "reschedule", "opt_out") or (
        command.command == "quiet_hours" and command.quiet_from is not None
    )
    return sweeps and fault(command) is None


def fault(command: PodCommand) -> str | None:
    """Why `command` can never be applied; None where it can."""
    named = [
        name
        for name in ("activity_ids", "post_id", "member_id", "pod_id")
        if getattr(command, name)
    ]
    if (command.command in ("drain", "undrain")) != (command.instance_id is not None):
        return "instance_id is for drain and undrain, which need it"
    match command.command:
        case "postpone" | "expire":
            if len(command.due_at or ()) != len(command.activity_ids):
                return "as many due_at as activity_ids are needed"
        case "reschedule" if command.activity_ids:
            if len(command.due_at or ()) != len(command.activity_ids):
                return "as many due_at as activity_ids are needed"
        case "reschedule":
            if command.post_id is None or command.shift_ms is None:
                return "activity_ids and due_at, or post_id and shift_ms, are needed"
        case "cancel":
            # The post of activities is their key.
            others = [name for name in named if name != "post_id" or not command.activity_ids]
            if len(others) > 1:
                return f"it is about {' and '.join(others)}: one of them is allowed"
        case "pause" | "resume":
            if {"activity_ids", "post_id"} & set(named) or len(named) > 1:
                return "pod_id, or member_id, or neither is allowed"
        case "opt_out" | "opt_in" | "daily_cap":
            if named != ["member_id"]:
                return "member_id is needed, and nothing else allowed"
        case "drain" | "undrain":
            if named:
                return "instance_id is needed, and nothing else allowed"
        case "quiet_hours":
            return _quiet_fault(command, named)
        case "policy":
            return _policy_fault(command, named)
    return None


def _quiet_fault(command: PodCommand, named: Sequence[str]) -> str | None:
    if named not in (["pod_id"], ["member_id"]):
        return "pod_id, or member_id, is needed, and nothing else allowed"
    given = (command.quiet_from, command.quiet_until, command.time_zone)
    if all(each is None for each in given):
        return None
    start, end, zone = given
    if start is None or end is None or zone is None:
        return "quiet_from, quiet_until and time_zone are needed, or none of them"
    return quiet_hours.fault(start, end, zone)


def _policy_fault(command: PodCommand, named: Sequence[str]) -> str | None:
    if named != ["pod_id"]:
        return "pod_id is needed, and nothing else allowed"
    fields = _policy_of(command)
    for kind in ("like", "comment"):
        # Whole windows, so that no setting can turn one around.
        if (f"{kind}_min_delay_ms" in fields) != (f"{kind}_max_delay_ms" in fields):
            return f"{kind}_min_delay_ms and {kind}_max_delay_ms are needed, or neither"
    try:
        with_fields(PacingPolicy(), fields)
    except ValueError as error:
        return str(error)
    return None


def _policy_of(command: PodCommand) -> dict[str, float]:
    found = ((name, getattr(command, name)) for name in POLICY_FIELDS)
    return {name: value for name, value in found if value is not None}


def about(command: PodCommand) -> tuple[str, str]:
    """What `command` is about, for the audit: scope and id."""
    if command.activity_ids:
        return "activities", ""
    if command.post_id is not None:
        return "post", command.post_id
    if command.member_id is not None:
        return "member", command.member_id
    if command.pod_id is not None:
        return "pod", command.pod_id
    if command.instance_id is not None:
        return "dispatcher", command.instance_id
    return "all", ""


def selection(command: PodCommand) -> Selection:
    """The activities that a `command` without `activity_ids` is about."""
    scope, name = about(command)
    return Selection(cast("SelectionScope", scope), name)


def subject(command: PodCommand) -> Subject:
    """Whom a control is about."""
    if command.member_id is not None:
        return Subject("member", command.member_id)
    if command.instance_id is not None:
        return Subject("dispatcher", command.instance_id)
    return EVERYBODY if command.pod_id is None else Subject("pod", command.pod_id)


def control(command: PodCommand, offset: int) -> Control:
    """What lasts of `command`, which stands at `offset`."""
    kind: Kind = "opted_out"
    active = command.command in ("pause", "opt_out", "drain")
    value = _value_of(command)
    if command.command in ("pause", "resume"):
        kind = "paused"
    elif command.command in ("drain", "undrain"):
        kind = "drained"
    elif command.command == "quiet_hours":
        kind, active = "quiet_hours", value is not None
    elif command.command in ("policy", "daily_cap"):
        kind, active = command.command, value is not None
    return Control(
        kind=kind,
        subject=subject(command),
        active=active,
        value=value,
        command_offset=offset,
        issued_at_ms=millis(command.issued_at),
        actor=_plain(command.actor),
        reason=_plain(command.reason),
    )


def applied(command: PodCommand, offset: int, outcome: Mapping[str, int]) -> AppliedCommand:
    """The note of `command`, which stands at `offset`."""
    scope, name = about(command)
    reported = command.command in ("postpone", "expire")
    return AppliedCommand(
        command_offset=offset,
        event_id=command.event_id,
        command=command.command,
        scope=scope,
        name=name,
        issued_at_ms=millis(command.issued_at),
        actor=_plain(command.actor) or ("dispatcher" if reported else None),
        reason=_plain(command.reason),
        value=_value_of(command),
        outcome=outcome,
    )


def _value_of(command: PodCommand) -> Mapping[str, str | float] | None:
    if command.command == "quiet_hours" and command.quiet_from is not None:
        return {
            "from": command.quiet_from,
            "until": command.quiet_until or "",
            "zone": command.time_zone or "",
        }
    if command.command == "policy":
        return _policy_of(command) or None
    if command.command == "daily_cap" and command.daily_cap is not None:
        return {"cap": command.daily_cap}
    return None


def _plain(text: str | None) -> str | None:
    """In one printable line: PostgreSQL has no NUL."""
    if not text:
        return None
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_ACTOR_CHARS]
