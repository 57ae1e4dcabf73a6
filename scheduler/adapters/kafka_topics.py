"""Creates the engine's topics, and checks those that are there."""

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

import scheduler.adapters.kafka_connection  # noqa: F401 - for all clients
from scheduler.adapters.kafka_access import check_access
from scheduler.errors import PermanentError, StoreUnavailableError
from scheduler.kafka_servers import Kafka, client_options
from scheduler.settings import ENV_PREFIX, Settings

MAX_REPLICAS = 3

DEAD_LETTER_BYTES = 16 * 1024 * 1024
"""A dead letter is its original and some headers more, so its topic must take larger ones."""

VISIBLE_S = 30.0
"""How long a new topic may take until every broker shows it."""

_LOOK_AGAIN_S = 0.1
_UNKNOWN_TOPIC = 3


async def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics of `settings.topics` that are missing; returns their names.

    Each gets `settings.partitions` partitions and up to three replicas. May be called as often as
    wanted, by several at once. Returns when the topics are there for everyone to see. Raises
    `PermanentError` when a topic has another number of partitions, `StoreUnavailableError` when
    Kafka is away or does not show a new topic in time.
    """
    async with _Admin(settings.kafka) as admin:
        missing = [
            name
            for name, partitions in (await _partitions(admin, settings)).items()
            if not partitions
        ]
        if missing:
            cluster = await admin.describe_cluster()
            replicas = min(MAX_REPLICAS, len(cluster["brokers"]))
            new = [
                NewTopic(
                    name,
                    num_partitions=settings.partitions,
                    replication_factor=replicas,
                    topic_configs=_configuration(name, settings),
                )
                for name in missing
            ]
            _raise_errors(await admin.create_topics(new))
            await _until_visible(admin, settings)
        return missing


async def check_topics(settings: Settings) -> None:
    """Raises `PermanentError` when a topic is missing or has another number of partitions,
    `StoreUnavailableError` when Kafka is away.
    """
    async with _Admin(settings.kafka) as admin:
        found = await _partitions(admin, settings)
    missing = sorted(name for name, partitions in found.items() if not partitions)
    if missing:
        raise PermanentError(f"no topic {', '.join(missing)}: run `pod-automation init`")


class _Admin:
    """An admin client, with aiokafka's errors as the engine's."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._client = AIOKafkaAdminClient(**client_options(kafka))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await self._client.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._client.close()
            await check_access(self._kafka)
            raise StoreUnavailableError("Kafka", error) from error
        return self._client

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self._client.close()
        if isinstance(error, KafkaError | OSError | TimeoutError):
            raise StoreUnavailableError("Kafka", str(error) or type(error).__name__) from error


async def _partitions(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    """Partitions of each of our topics, 0 for one that is not there. Checks the others."""
    # All topics, and not ours by name: to ask for one by name creates it, on brokers with
    # auto.create.topics.enable, and with one partition.
    described = {topic["topic"]: topic for topic in await admin.describe_topics()}
    found: dict[str, int] = {}
    for name in settings.topics:
        topic = described.get(name)
        if topic is None or topic["error_code"] == _UNKNOWN_TOPIC:
            found[name] = 0
            continue
        found[name] = len(topic["partitions"])
        if found[name] != settings.partitions and found[name]:
            raise PermanentError(
                f"topic {name} has {found[name]} partitions, and {ENV_PREFIX}PARTITIONS says"
                f" {settings.partitions}: all topics need the same number, for the engine's life"
            )
    return found


async def _until_visible(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    try:
        async with asyncio.timeout(VISIBLE_S):
            while not all((await _partitions(admin, settings)).values()):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError as error:
        raise StoreUnavailableError("Kafka", "new topics do not show; try again") from error


def _configuration(name: str, settings: Settings) -> dict[str, str]:
    if name == settings.topics.wheel_cursor:
        return {"cleanup.policy": "compact"}
    if name == settings.topics.dead_letter:
        return {"max.message.bytes": str(DEAD_LETTER_BYTES)}
    return {}


def _raise_errors(response: Any) -> None:
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        # Another `init` was faster.
        if code and error is not TopicAlreadyExistsError:
            detail = " ".join(str(part) for part in message if part)
            raise PermanentError(f"topic {name} cannot be created: {error.__name__} {detail}")
