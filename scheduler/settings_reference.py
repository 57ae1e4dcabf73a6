"""Writes docs/configuration.md from the settings: `python -m scheduler.settings_reference`.

With `--check` nothing is written: the exit code is 1 when the page is not what the settings say.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from scheduler.generated import keep_fresh
from scheduler.policy import HOUR_MS, MINUTE_MS
from scheduler.settings import (
    COMMENT_JITTER,
    ENV_PREFIX,
    FILE_SUFFIX,
    LIKE_JITTER,
    Settings,
)

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
COMMAND = "python -m scheduler.settings_reference"

# A setting goes where its name begins so, else to the last section: a new one is never left out.
_SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Servers and names", ("kafka_", "redis_", "postgres_", "partitions", "topic_")),
    ("Pacing", ("like_", "comment_", "catch_up", "paced_", "expire_")),
    ("Engagements", ("queue_", "backoff_", "result_", "batch_size_", "sweep_")),
    ("Retention", ("completed_", "failed_", "audit_", "retention_")),
    ("Processes", ()),
)

_ABOUT = f"""\
# Configuration

<!-- Generated from scheduler/settings.py by `{COMMAND}`. Change it there. -->

Every setting is an environment variable. All are read once, at the start, and checked; a wrong
value ends the command with exit code 2 and a line that names the variable. Values are not
repeated, as an address may carry a password. A variable that is not in these tables is ignored,
so a misspelt name changes nothing: `pod-automation` does not warn of it.

With `{FILE_SUFFIX}` behind its name a variable names a file that holds the value, as for secrets:
`{ENV_PREFIX}POSTGRES_DSN{FILE_SUFFIX}=/run/secrets/dsn`. No other file is read: `docker compose`
passes on what is in `.env`, but for the three addresses, which `docker-compose.yml` sets itself;
`pod-automation stack` writes `stack.env` to load into your shell.

All processes of one engine need the same servers, names and pacing.
"""

_FIXED = f"""\
## What is not a setting

- Jitter: ± {LIKE_JITTER:.0%} of the delay for likes, ± {COMMENT_JITTER:.0%} for comments, always
  within the window.
- Brokers refuse a session shorter than their `group.min.session.timeout.ms`, which is 6 s by
  default. What takes a dispatcher longest has bounds of its own, below the default grace.
- Redis and PostgreSQL take a login and TLS in their addresses: `rediss://user:password@host:6379/0`,
  `postgresql://user:password@host/name?sslmode=verify-full`.
- Each engine needs a database of its own in PostgreSQL: the prefix does not part the tables.
- Exit codes are in [cli.md](cli.md).
"""


def page() -> str:
    """The whole page."""
    left = dict(Settings.model_fields)
    parts = [_ABOUT]
    for title, beginnings in _SECTIONS:
        # No beginnings at all: the section takes what is left.
        names = [name for name in left if not beginnings or name.startswith(beginnings)]
        rows = [_row(name, left.pop(name)) for name in names]
        parts.append("\n".join((f"## {title}", "", *_HEAD, *rows, "")))
    return "\n".join((*parts, _FIXED))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return keep_fresh(PAGE, page().encode(), COMMAND, __doc__ or "", arguments)


_HEAD = ("| variable | default | allowed | meaning |", "|---|---|---|---|")


def _row(name: str, field: FieldInfo) -> str:
    cells = (
        f"`{ENV_PREFIX}{name.upper()}`",
        _default(name, field.default),
        ", ".join(_bounds(field)),
        field.description or "",
    )
    # A bar ends a cell, even within a code span.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(name: str, value: object) -> str:
    if value == "":
        return "empty"
    if name.endswith("_ms") and isinstance(value, int):
        return f"`{value}` ({_duration(value)})"
    return f"`{value}`"


def _duration(ms: int) -> str:
    for unit_ms, unit in ((HOUR_MS, "h"), (MINUTE_MS, "min"), (1000, "s")):
        if ms >= unit_ms and not ms % unit_ms:
            return f"{ms // unit_ms} {unit}"
    return f"{ms} ms"


def _bounds(field: FieldInfo) -> Iterator[str]:
    if get_origin(field.annotation) is Literal:
        yield ", ".join(f"`{value}`" for value in get_args(field.annotation))
    low = high = above = None
    for rule in field.metadata:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
        above = getattr(rule, "gt", above)
        if (pattern := getattr(rule, "pattern", None)) is not None:
            yield f"`{pattern}`"
        if getattr(rule, "min_length", None):
            yield "not empty"
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"{low} or more"
    elif above is not None and high is not None:
        yield f"above {above}, to {high}"
    elif high is not None:
        yield f"{high} or less"


if __name__ == "__main__":
    sys.exit(main())
