"""The client's errors: a small tree, so that a caller catches as much of it as it wants.

```
PodAutomationError
├── StoreAwayError          a store cannot be reached, or gives no answer in time: try again
├── NotAppliedError         Kafka has it, and no worker has applied it in time: it will be
├── NotReadyError           the stores answer, but `pod-automation init` has not been run
├── NotFoundError           no such activity
├── InvalidArgumentError    the call makes no sense as it is; also a ValueError
└── WrongSettingError       a setting is wrong; the message names it
```
"""

from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.errors import (
    DataRefusedError,
    EngineError,
    PermanentError,
    SettingsError,
    StoreUnavailableError,
    TransientError,
)


class PodAutomationError(EngineError):
    """Root of all errors that `PodAutomation` raises on purpose."""


class StoreAwayError(PodAutomationError, StoreUnavailableError):
    """`store` (Kafka, Redis or PostgreSQL) is away. What the call was to do may have been done."""

    def __init__(self, store: str, cause: BaseException | str) -> None:
        self.cause = str(cause)
        super().__init__(store, cause)


class NotAppliedError(PodAutomationError, TransientError):
    """It is in Kafka for certain, but no worker has applied it in time; one will."""


class NotReadyError(PodAutomationError, PermanentError):
    """The stores are not set up for these settings; the message says what to do."""


class NotFoundError(PodAutomationError, PermanentError):
    """There is no such activity."""


class InvalidArgumentError(PodAutomationError, PermanentError, ValueError):
    """An argument that cannot be meant; nothing was done."""


class WrongSettingError(PodAutomationError, SettingsError):
    """A setting is wrong; nothing was done."""


@contextmanager
def translated() -> Iterator[None]:
    """Raises the engine's errors as the client's. What is none of them is a bug, and passes."""
    try:
        yield
    except PodAutomationError:
        raise
    except StoreUnavailableError as error:
        cause = str(error).removeprefix(str(StoreUnavailableError(error.store, "")))
        raise StoreAwayError(error.store, cause) from error
    except SettingsError as error:
        raise WrongSettingError(str(error)) from error
    except DataRefusedError as error:
        raise InvalidArgumentError(str(error)) from error
    except EngineError as error:
        raise NotReadyError(str(error)) from error
