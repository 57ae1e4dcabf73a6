"""Sends spans to a collector; says in one line when nobody takes them, and in one when again."""

import logging
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = structlog.get_logger(__name__)

# A line for each try, with the words of a library.
logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)


class Exporter(SpanExporter):
    """OTLP over HTTP, as the variables of OpenTelemetry say. What is not taken is dropped."""

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`; called by a thread of its own."""
        reason = "no answer, or a refusal"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # an address that is none, say
            result, reason = SpanExportResult.FAILURE, str(error)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning(
                "spans are dropped: nobody takes them; OTEL_EXPORTER_OTLP_ENDPOINT names the"
                " collector",
                reason=reason,
            )
        elif self._away and not away:
            log.info("spans are taken again")
        self._away = away
        return result

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter.force_flush`."""
        return self._exporter.force_flush(timeout_millis)
