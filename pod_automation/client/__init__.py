"""The client: what a program can ask of the engine. See docs/client.md."""

from pod_automation.client.api import PodAutomation
from pod_automation.client.errors import (
    InvalidArgumentError,
    NotAppliedError,
    NotFoundError,
    NotReadyError,
    PodAutomationError,
    StoreAwayError,
    WrongSettingError,
)
from pod_automation.client.preview import PlannedEngagement, PlanPreview
from pod_automation.client.results import (
    ActivityAnswer,
    ActivityEntry,
    ActivityHistory,
    ActivityPage,
    ActivityState,
    AuditEntry,
    CommandAnswer,
    ControlState,
    EngagementDelay,
    EngagementStats,
    ForgottenMember,
    PodAutomationStats,
    PodPage,
    PublishedEvent,
    QueueStatus,
    ScheduledJob,
    Step,
)
from scheduler.adapters.postgres_client import PendingActivity

__all__ = [
    "ActivityAnswer",
    "ActivityEntry",
    "ActivityHistory",
    "ActivityPage",
    "ActivityState",
    "AuditEntry",
    "CommandAnswer",
    "ControlState",
    "EngagementDelay",
    "EngagementStats",
    "ForgottenMember",
    "InvalidArgumentError",
    "NotAppliedError",
    "NotFoundError",
    "NotReadyError",
    "PendingActivity",
    "PlanPreview",
    "PlannedEngagement",
    "PodAutomation",
    "PodAutomationError",
    "PodAutomationStats",
    "PodPage",
    "PublishedEvent",
    "QueueStatus",
    "ScheduledJob",
    "Step",
    "StoreAwayError",
    "WrongSettingError",
]
