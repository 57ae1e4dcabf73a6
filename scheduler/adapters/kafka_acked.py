"""How far a consumer group has committed: what is before that has been applied to its end."""

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.commit import OffsetFetchRequest

from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_member import offsets_error
from scheduler.kafka_servers import Kafka, client_options

REQUEST_MS = 10_000
"""A broker that does not answer within this time counts as away."""


class _Admin(AIOKafkaAdminClient):  # type: ignore[misc] # aiokafka is untyped here
    async def _send_request(self, request: Any, *arguments: Any, **options: Any) -> Any:
        response = await super()._send_request(request, *arguments, **options)
        if isinstance(request, OffsetFetchRequest) and (error := offsets_error(response)):
            # aiokafka would take it for a group that has committed nothing.
            raise error
        return response


async def acked(
    kafka: Kafka, group: str, topics: Collection[str]
) -> Mapping[str, Mapping[int, int]]:
    """By topic and partition: the offset of the last record that `group` has acked, -1 or no entry
    where it has acked none. Raises `StoreUnavailableError`."""
    found: dict[str, dict[int, int]] = {topic: {} for topic in topics}
    with translated():
        admin = _Admin(**client_options(kafka), request_timeout_ms=REQUEST_MS)
        try:
            await admin.start()
            try:
                coordinator = await admin.find_coordinator(group)
            except GroupCoordinatorNotAvailableError:
                # A new cluster, in which no group has ever been.
                return found
            offsets = await admin.list_consumer_group_offsets(group, coordinator)
        finally:
            await admin.close()
    for place, at in offsets.items():
        if place.topic in found:
            found[place.topic][place.partition] = at.offset - 1
    return found
