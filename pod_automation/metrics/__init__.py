"""Metrics for Prometheus. No label has a value that grows with members, posts or pods."""

from pod_automation.metrics.answering import Answering
from pod_automation.metrics.applying import Applying
from pod_automation.metrics.differences import Differences
from pod_automation.metrics.firing import Firing
from pod_automation.metrics.serving import served

__all__ = ["Answering", "Applying", "Differences", "Firing", "served"]
