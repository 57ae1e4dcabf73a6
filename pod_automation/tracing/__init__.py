"""Traces from `post-detected` to `engagement-executed`, by OpenTelemetry; off by default."""

from pod_automation.tracing.carried import TRACEPARENT, carried, current_headers, header_of
from pod_automation.tracing.opening import opened

__all__ = ["TRACEPARENT", "carried", "current_headers", "header_of", "opened"]
