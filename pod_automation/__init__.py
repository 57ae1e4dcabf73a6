"""The face of the engine: command line, client, executor SDK, embedded stack and demo.

The client's names can be imported from here: `from pod_automation import PodAutomation`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pod_automation.client import (
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
        HistoryPage,
        InvalidArgumentError,
        NotAppliedError,
        NotFoundError,
        NotReadyError,
        PendingActivity,
        PlannedEngagement,
        PlanPreview,
        PodAutomation,
        PodAutomationError,
        PodAutomationStats,
        PodPage,
        PublishedEvent,
        QueueStatus,
        ScheduledJob,
        Step,
        StoreAwayError,
        WrongSettingError,
    )

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
    "HistoryPage",
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


def __getattr__(name: str) -> Any:
    # When it is asked for: the command line's help needs no drivers, and neither does the stack.
    if name in __all__:
        from pod_automation import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
