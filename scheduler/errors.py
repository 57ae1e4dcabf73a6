"""The engine's errors: transient ones are retried until they pass, permanent ones never."""


class EngineError(Exception):
    """Root of every error the engine raises on purpose; the message says what to do."""


class TransientError(EngineError):
    """It may pass: try again, with back-off."""


class PermanentError(EngineError):
    """Trying again changes nothing."""


class StoreUnavailableError(TransientError):
    """A store is away, or answers that it cannot serve at present."""

    def __init__(self, store: str, cause: BaseException | str) -> None:
        self.store = store
        super().__init__(f"{store} is not available: {cause}")


class WheelLostError(TransientError):
    """The shard's wheel is missing or belongs to another life; its dispatcher will rebuild it."""

    def __init__(self, shard: int, detail: str = "no generation") -> None:
        self.shard = shard
        super().__init__(f"the wheel of shard {shard} is lost ({detail}); it must be rebuilt")


class WheelBehindError(TransientError):
    """The wheel has not got yet what this call follows from; whoever applies it is about to."""

    def __init__(self, shard: int, topic: str) -> None:
        self.shard = shard
        super().__init__(f"the wheel of shard {shard} is behind on {topic}")


class FencedError(PermanentError):
    """Another owner has taken the shard: drop it at once, quietly."""

    def __init__(self, shard: int, by: str) -> None:
        self.shard = shard
        super().__init__(f"shard {shard} has been taken over ({by})")


class BadRecordError(PermanentError):
    """A record that can never be applied. It belongs on `dead-letter`, with this reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class CulpritError(PermanentError):
    """One record of a batch, at least, can never be applied: find it by bisection."""

    why = "cannot be applied"


class DataRefusedError(CulpritError):
    """PostgreSQL refuses the data of a batch (SQLSTATE 22 or 23)."""

    why = "refused by PostgreSQL"


class InstanceReplacedError(PermanentError):
    """Another process has joined the group under this one's instance id; the newer one stays."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        super().__init__(
            f"another process has started as {instance_id}: give each process of a kind a"
            " POD_AUTOMATION_INSTANCE_ID of its own, or none"
        )


class SettingsError(PermanentError):
    """A setting is wrong; the message names it."""
