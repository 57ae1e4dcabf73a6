"""Topic names, in one place; `TOPIC_PREFIX` lets several engines share a cluster."""

from typing import NamedTuple

POST_DETECTED = "post-detected"
EXECUTE_ENGAGEMENT = "execute-engagement"
ENGAGEMENT_EXECUTED = "engagement-executed"
ENGAGEMENT_STATUS = "engagement-status"
POD_COMMANDS = "pod-commands"
WHEEL_CURSOR = "wheel-cursor"
DEAD_LETTER = "dead-letter"

WORKER_GROUP = "pod-automation-worker"
DISPATCHER_GROUP = "pod-automation-dispatcher"
EXECUTOR_GROUP = "pod-automation-executor"


class Topics(NamedTuple):
    """The names as they are on the cluster, prefix included."""

    post_detected: str
    execute_engagement: str
    engagement_executed: str
    engagement_status: str
    pod_commands: str
    wheel_cursor: str
    dead_letter: str

    @property
    def inputs(self) -> tuple[str, str, str]:
        """What workers apply: each has a watermark of its own, in the record and in the wheel."""
        return self.post_detected, self.engagement_executed, self.pod_commands

    @classmethod
    def prefixed(cls, prefix: str = "") -> "Topics":
        """All names with `prefix` before them."""
        return cls(
            post_detected=prefix + POST_DETECTED,
            execute_engagement=prefix + EXECUTE_ENGAGEMENT,
            engagement_executed=prefix + ENGAGEMENT_EXECUTED,
            engagement_status=prefix + ENGAGEMENT_STATUS,
            pod_commands=prefix + POD_COMMANDS,
            wheel_cursor=prefix + WHEEL_CURSOR,
            dead_letter=prefix + DEAD_LETTER,
        )
