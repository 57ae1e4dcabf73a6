"""Commands and results as records for the shards they concern."""

from collections.abc import Sequence
from typing import Any

from pod_automation.client.arguments import now
from pod_automation.client.sender import Outgoing
from scheduler.command import fault
from schemas.codec import InvalidEvent, decode, encode
from schemas.events import MAX_EVENT_ID_CHARS, CommandName, EngagementExecuted, PodCommand
from schemas.headers import event_headers
from schemas.times import millis


def event_id(job_id: str, what: str, number: int) -> str:
    """`<job>:<what>:<number>`, cut to the contract's length before the number, which is what tells
    the events of a job apart."""
    tail = f":{number}"
    return f"{job_id}:{what}"[: MAX_EVENT_ID_CHARS - len(tail)] + tail


def schedule(
    shard: int,
    post_id: str,
    activity_ids: Sequence[str],
    like_cap: int | None,
    name: str,
    actor: str,
) -> Outgoing:
    """Plan these activities of `post_id`. Raises `InvalidEvent` for ids that no event may carry."""
    return _command(
        shard,
        PodCommand(
            event_id=name,
            command="schedule",
            issued_at=now(),
            actor=actor,
            post_id=post_id,
            activity_ids=tuple(activity_ids),
            like_cap=like_cap,
        ),
    )


def dispatch(shard: int, post_id: str, activity_id: str, name: str, actor: str) -> Outgoing:
    """Fire this activity now. Raises `InvalidEvent`."""
    return _command(
        shard,
        PodCommand(
            event_id=name,
            command="dispatch",
            issued_at=now(),
            actor=actor,
            post_id=post_id,
            activity_ids=(activity_id,),
        ),
    )


def cancel(shard: int, pod_id: str | None, name: str, actor: str, reason: str) -> Outgoing:
    """Cancel what waits in this shard. Raises `InvalidEvent`."""
    return _command(
        shard,
        PodCommand(
            event_id=name,
            command="cancel",
            issued_at=now(),
            pod_id=pod_id,
            actor=actor,
            reason=reason,
        ),
    )


def control(shard: int, name: str, command: CommandName, **fields: Any) -> Outgoing:
    """Whatever an operator asks for, for this shard. Raises `InvalidEvent`, also for what a worker
    would refuse."""
    event = PodCommand(event_id=name, command=command, issued_at=now(), **fields)
    if (reason := fault(event)) is not None:
        raise InvalidEvent(reason)
    return _command(shard, event)


def result(shard: int, event: EngagementExecuted) -> Outgoing:
    """Report what became of an engagement. Raises `InvalidEvent`."""
    value = encode(event)
    decode(EngagementExecuted, value)
    return Outgoing(
        shard,
        event.post_id.encode(),
        value,
        event_headers(EngagementExecuted, event.event_id, millis(event.executed_at)),
    )


def _command(shard: int, command: PodCommand) -> Outgoing:
    value = encode(command)
    # As the worker will read it: a row of an upstream system may have ids that no event may carry.
    decode(PodCommand, value)
    return Outgoing(
        shard,
        command.post_id.encode() if command.post_id is not None else None,
        value,
        event_headers(PodCommand, command.event_id, millis(command.issued_at)),
    )
