"""W3C trace contexts in the headers of records. Nothing here needs OpenTelemetry."""

import re
import sys
from collections.abc import Iterable

from schemas.headers import Headers

TRACEPARENT = "traceparent"

_VALID = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def carried(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The first `traceparent` among `headers` that is one. Whatever else stands there is passed
    over: it comes from outside, and no trace is worth an error."""
    for name, value in headers:
        if name == TRACEPARENT and value is not None and _VALID.fullmatch(value):
            return value.decode()
    return None


def header_of(context: str | None) -> Headers:
    """`context` as headers of a record; none where there is none."""
    return [] if context is None else [(TRACEPARENT, context.encode())]


def current_headers() -> Headers:
    """The context of the caller's span, where the caller uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return []
    from opentelemetry.trace import get_current_span

    from pod_automation.tracing.spans import context_of

    return header_of(context_of(get_current_span()))
