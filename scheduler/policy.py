"""The pacing policy: how the engagements of one post are spread over time."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class DelayWindow:
    """Delays between `min_ms` and `max_ms`, moved by up to `jitter` (a share of the delay)."""

    min_ms: int
    max_ms: int
    jitter: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_ms <= self.max_ms:
            raise ValueError(
                f"a delay window needs 0 <= min <= max, not {self.min_ms} to {self.max_ms} ms"
            )
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a share from 0 up to 1, not {self.jitter}")


@dataclass(frozen=True, slots=True)
class PacingPolicy:
    """Windows for likes and comments, and the cap on likes.

    `like_cap` likes of one post at most in any half-open stretch of `like_cap_window_ms`.
    The defaults are the numbers of the engine that this one replaces.
    """

    like: DelayWindow = DelayWindow(5 * MINUTE_MS, 30 * MINUTE_MS, 0.10)
    comment: DelayWindow = DelayWindow(1 * HOUR_MS, 6 * HOUR_MS, 0.15)
    like_cap: int = 3
    like_cap_window_ms: int = HOUR_MS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} must be at least 1, not {value}")


POLICY_FIELDS = (
    "like_min_delay_ms",
    "like_max_delay_ms",
    "like_jitter",
    "comment_min_delay_ms",
    "comment_max_delay_ms",
    "comment_jitter",
    "like_cap",
    "like_cap_window_ms",
)
"""What of a policy a pod may have of its own."""


def with_fields(policy: PacingPolicy, own: Mapping[str, float]) -> PacingPolicy:
    """`policy` with these of `POLICY_FIELDS`. Raises `ValueError` where that makes none."""

    def window(kind: str, given: DelayWindow) -> DelayWindow:
        return DelayWindow(
            int(own.get(f"{kind}_min_delay_ms", given.min_ms)),
            int(own.get(f"{kind}_max_delay_ms", given.max_ms)),
            float(own.get(f"{kind}_jitter", given.jitter)),
        )

    return PacingPolicy(
        like=window("like", policy.like),
        comment=window("comment", policy.comment),
        like_cap=int(own.get("like_cap", policy.like_cap)),
        like_cap_window_ms=int(own.get("like_cap_window_ms", policy.like_cap_window_ms)),
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts of one engagement at most, and the waits between them.

    Before attempt n + 1: `first_delay_ms` x 2^(n-1), moved by up to `jitter` (a share of it).
    """

    attempts: int = 3
    first_delay_ms: int = 30_000
    jitter: float = 0.10

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.first_delay_ms < 0:
            raise ValueError(f"first_delay_ms must not be negative, but is {self.first_delay_ms}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a share from 0 up to 1, not {self.jitter}")


@dataclass(frozen=True, slots=True)
class OverduePolicy:
    """What becomes of timers that are found more than `after_ms` late, as after an outage.

    `postpone`: they are laid out anew, as they were spaced. `expire`: they are given up. Without
    a policy they fire at once, as do those that are less late.
    """

    verdict: Literal["postpone", "expire"]
    after_ms: int

    def __post_init__(self) -> None:
        if self.after_ms < 1:
            raise ValueError(f"after_ms must be at least 1, not {self.after_ms}")
