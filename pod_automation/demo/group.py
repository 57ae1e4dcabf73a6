"""Whether a consumer group is at work."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from scheduler.adapters.kafka_errors import translated
from scheduler.kafka_servers import Kafka, client_options


async def at_work(kafka: Kafka, group: str) -> bool:
    """Whether `group` has members, and each of them has its partitions."""
    admin = AIOKafkaAdminClient(**client_options(kafka))
    with translated():
        try:
            await admin.start()
            (response,) = await admin.describe_consumer_groups([group])
        except GroupCoordinatorNotAvailableError:
            # A new cluster, in which no group has ever been.
            return False
        finally:
            await admin.close()
    return any(state == "Stable" and members for _, _, state, _, _, members, *_ in response.groups)
