"""What the engine calls aiokafka's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)

from scheduler.errors import EngineError, FencedError, StoreUnavailableError
from scheduler.transports import is_closed

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""What becomes of a record that its topic does not take."""

# What is refused, and what a principal lacks then.
_REFUSED: dict[type[KafkaError], tuple[str, str]] = {
    TopicAuthorizationFailedError: ("a topic", "Read or Write, and Describe, of that topic"),
    GroupAuthorizationFailedError: ("a consumer group", "Read of that group"),
    TransactionalIdAuthorizationFailed: (
        "a transactional id",
        "Write and Describe of the transactional ids `dispatcher-*`, behind the topic prefix",
    ),
    ClusterAuthorizationFailedError: (
        "the cluster",
        "IdempotentWrite of the cluster, or Create for `pod-automation init`",
    ),
}


@contextmanager
def translated(shard: int | None = None) -> Iterator[None]:
    """Raises `FencedError` for a producer that lost shard `shard`, `StoreUnavailableError` for
    all else that may pass, `EngineError` for what an operator must mend."""
    try:
        yield
    except (ProducerFenced, InvalidProducerEpoch) as error:
        raise FencedError(-1 if shard is None else shard, type(error).__name__) from error
    except tuple(_REFUSED) as error:
        what, lacking = _REFUSED[type(error)]
        raise EngineError(
            f"Kafka refuses access to {what} ({str(error) or type(error).__name__}): the user of"
            f' this process lacks an ACL for {lacking} (docs/runbook.md, "Least privilege")'
        ) from error
    except UnknownTopicOrPartitionError as error:
        raise StoreUnavailableError(
            "Kafka", "a topic or partition is missing; run `pod-automation init`"
        ) from error
    except (KafkaError, TimeoutError, OSError) as error:
        raise StoreUnavailableError("Kafka", str(error) or type(error).__name__) from error
    except RuntimeError as error:
        if not is_closed(error):
            raise
        raise StoreUnavailableError("Kafka", str(error)) from error
