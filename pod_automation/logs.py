"""Logs: structured, on standard error, every line behind one prefix.

structlog's events and those of libraries (stdlib logging) take the same way out. No member data at
info level; addresses that may carry a password are never logged.
"""

import logging
import sys

import structlog

from schemas.printable import printable

PREFIX = "[POD_AUTOMATION]"

# Libraries that tell of every reconnection while a broker is away: a thousand lines a minute.
_CHATTY = ("aiokafka", "faust", "mode", "kafka", "asyncio")


def configure(level: str = "info") -> None:
    """Send all logs of this process to standard error, from `level` on."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _line,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR if level != "debug" else logging.DEBUG)


def _line(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> str:
    at, level, text = event.pop("timestamp"), event.pop("level"), event.pop("event")
    trace = event.pop("exception", None)
    fields = "".join(f" {key}={_value(value)}" for key, value in event.items())
    # A library's words may quote anything.
    line = f"{PREFIX} {at} {level:<7} {printable(str(text))}{fields}"
    # Likewise what it has raised.
    rows = str(trace).split("\n") if trace else []
    return "\n".join([line, *(f"{PREFIX} {printable(row)}" for row in rows)])


def _value(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not any(c in " \"='" for c in text)
    return text if text and plain else repr(text)
