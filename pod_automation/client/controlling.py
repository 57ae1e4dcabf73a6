"""What operators ask for: a command to each shard that it concerns, and what came of it."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pod_automation.client import commands
from pod_automation.client.activities import find
from pod_automation.client.errors import InvalidArgumentError, NotAppliedError, NotFoundError
from pod_automation.client.results import ActivityAnswer, Answer, CommandAnswer
from pod_automation.client.scheduling import new_job_id
from pod_automation.client.sender import Outgoing, default_shard
from pod_automation.client.stores import Stores
from scheduler.activity import FINAL, ActivityRow, Status
from scheduler.adapters.postgres_client import PostgresClient, summed
from schemas.codec import InvalidEvent
from schemas.events import MAX_COMMAND_ACTIVITIES, CommandName


async def to_shards(
    stores: Stores, command: CommandName, shards: Iterable[int], wait_s: float, **fields: Any
) -> CommandAnswer:
    """A command to each of `shards`. Raises `NotAppliedError`."""
    # First: without a record there would be no answer to give.
    await stores.record(PostgresClient.ping)
    name = _name(command)
    records = [_made(shard, name, shard, command, fields) for shard in shards]
    return await _answer(stores, command, name, records, wait_s)


async def to_post(
    stores: Stores, command: CommandName, post_id: str, wait_s: float, **fields: Any
) -> CommandAnswer:
    """A command about a post. Raises `NotFoundError` where nothing of it is planned, and
    `NotAppliedError`."""
    shards = await stores.record(lambda record: record.shards_of_posts([post_id]))
    if (shard := shards.get(post_id)) is None:
        raise NotFoundError(f"nothing is planned for post {post_id}")
    name = _name(command)
    record = _made(shard, name, shard, command, {"post_id": post_id, **fields})
    return await _answer(stores, command, name, [record], wait_s)


async def to_activities(
    stores: Stores,
    command: CommandName,
    activity_ids: Sequence[str],
    wait_s: float,
    times: Mapping[str, Any] | None = None,
    **fields: Any,
) -> CommandAnswer:
    """A command about these activities. Raises `NotFoundError` and `NotAppliedError`."""
    rows = await find(stores, activity_ids)
    name = _name(command)
    shards: dict[int, list[ActivityRow]] = {}
    for row in rows:
        shards.setdefault(await _shard(stores, row), []).append(row)
    records: list[Outgoing] = []
    for shard, some in shards.items():
        for start in range(0, len(some), MAX_COMMAND_ACTIVITIES):
            part = some[start : start + MAX_COMMAND_ACTIVITIES]
            ids = tuple(row.activity_id for row in part)
            more = dict(fields)
            if times is not None:
                more["due_at"] = tuple(times[each] for each in ids)
            # The key; the post of a command for several posts is anybody's.
            more |= {"post_id": part[0].post_id, "activity_ids": ids}
            records.append(_made(shard, name, len(records), command, more))
    answer, places = await _applied(stores, command, name, records, wait_s)
    return await _with_activities(stores, answer, places, [row.activity_id for row in rows])


async def _with_activities(
    stores: Stores,
    answer: CommandAnswer,
    places: Sequence[tuple[int, int]],
    activity_ids: Sequence[str],
) -> CommandAnswer:
    """With an answer for each. A row that waits by the record, and was not changed, is on its
    way."""
    changed = await stores.record(lambda record: record.changed_by(places, activity_ids))
    rows = await stores.record(lambda record: record.rows(activity_ids))
    became: Answer = "rescheduled" if answer.command == "reschedule" else "cancelled"

    def answered(row: ActivityRow) -> Answer:
        if row.activity_id in changed:
            return became
        if row.status in FINAL:
            return "final"
        return "pending" if row.status is Status.PENDING else "too_late"

    return answer.with_activities(
        ActivityAnswer(activity_id=name, answer=answered(rows[name]), status=rows[name].status)
        for name in activity_ids
        if name in rows
    )


async def _answer(
    stores: Stores,
    command: CommandName,
    name: str,
    records: Sequence[Outgoing],
    wait_s: float,
) -> CommandAnswer:
    answer, _ = await _applied(stores, command, name, records, wait_s)
    return answer


async def _applied(
    stores: Stores,
    command: CommandName,
    name: str,
    records: Sequence[Outgoing],
    wait_s: float,
) -> tuple[CommandAnswer, Sequence[tuple[int, int]]]:
    topic = stores.settings.topics.pod_commands
    sent = await stores.send(topic, records)
    places = list(zip((record.partition for record in records), sent, strict=True))
    last: dict[int, int] = {}
    for shard, offset in places:
        last[shard] = max(offset, last.get(shard, -1))
    behind = await stores.behind(topic, last, wait_s)
    outcome = summed(await stores.record(lambda record: record.outcomes(places)))
    if behind:
        raise NotAppliedError(
            f"{command} is applied in {len(last) - len(behind)} of {len(last)}"
            f" shard{'' if len(last) == 1 else 's'} after {wait_s:g} s; the others follow once a"
            " worker has them"
        )
    return CommandAnswer.of(name, command, outcome, len(last)), places


async def _shard(stores: Stores, row: ActivityRow) -> int:
    if row.shard is not None:
        return row.shard
    shards = await stores.record(lambda record: record.shards_of_posts([row.post_id]))
    return shards.get(row.post_id, default_shard(row.post_id, stores.settings.partitions))


def _name(command: CommandName) -> str:
    # Two operators may ask within one millisecond.
    return f"{new_job_id(command)}-{secrets.token_hex(4)}"


def _made(
    shard: int, name: str, number: int, command: CommandName, fields: Mapping[str, Any]
) -> Outgoing:
    try:
        return commands.control(shard, f"{name}:{number}", command, **fields)
    except InvalidEvent as error:
        raise InvalidArgumentError(f"{command} cannot be sent: {error.reason}") from None
