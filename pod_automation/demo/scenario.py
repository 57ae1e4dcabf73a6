"""What the demo publishes, and what must come of it: values alone, the same for the same seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pod_automation.demo import fate
from schemas.codec import encode
from schemas.events import EngagementType, PostDetected
from schemas.ids import activity_id
from schemas.times import moment

LIKES_PER_WINDOW = 3

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS

FEWEST, MOST = 6, 14
"""Members of a pod. The cap lets each three members more of a post take one window longer."""

TWICE_SHARE = 0.1
"""Events that are published a second time, as an at-least-once upstream system does."""

LEAST_TIMEOUT_MS = 5_000
"""However fast time runs: a busy machine should not lose an attempt because it is slow."""
LEAST_CHAOS_TIMEOUT_MS = 6_000
"""Three attempts last longer than Kafka takes to notice that their executor is dead."""
LEAST_BACKOFF_MS = 20

FREE_HANDLERS = 20
"""How many engagements are handled at once, beside those that hang."""
MOST_HANDLERS = 1000
"""As the settings have it."""

_BROKEN = (
    '{"event_id": "%s-cut-off", "pod_id": "nowhere", "member_ids": ["ann",',
    '{"event_id": "%s-incomplete", "pod_id": "nowhere", "detected_at": "yesterday"}',
)


@dataclass(frozen=True, slots=True)
class Pacing:
    """The default policy with every time divided by `speed`; clocks stay true."""

    speed: float
    chaos: bool = False

    @property
    def like_max_ms(self) -> int:
        """Latest like, but for the cap."""
        return self._compressed(30 * _MINUTE_MS)

    @property
    def comment_max_ms(self) -> int:
        """Latest comment."""
        return self._compressed(6 * _HOUR_MS)

    @property
    def window_ms(self) -> int:
        """What "an hour" is for the cap on likes."""
        return self._compressed(_HOUR_MS)

    @property
    def result_timeout_ms(self) -> int:
        """When the engine gives up an attempt without a result."""
        least_ms = LEAST_CHAOS_TIMEOUT_MS if self.chaos else LEAST_TIMEOUT_MS
        return max(least_ms, self._compressed(15 * _MINUTE_MS))

    @property
    def handler_limit_s(self) -> float:
        """When the executor gives up a handler that hangs: late enough for the engine to have been
        first, and in time for the next attempt, which an executor does not begin before."""
        return 1.5 * self.result_timeout_ms / 1000

    @property
    def backoff_ms(self) -> int:
        """How long the second attempt waits, about; the third twice as long."""
        return max(LEAST_BACKOFF_MS, self._compressed(30_000))

    @property
    def environment(self) -> dict[str, str]:
        """As settings of all processes."""
        settings = {
            "LIKE_MIN_DELAY_MS": self._compressed(5 * _MINUTE_MS),
            "LIKE_MAX_DELAY_MS": self.like_max_ms,
            "LIKE_MAX_MEMBERS_PER_HOUR": LIKES_PER_WINDOW,
            "LIKE_CAP_WINDOW_MS": self.window_ms,
            "COMMENT_MIN_DELAY_MS": self._compressed(1 * _HOUR_MS),
            "COMMENT_MAX_DELAY_MS": self.comment_max_ms,
            "RESULT_TIMEOUT_MS": self.result_timeout_ms,
            "QUEUE_ATTEMPTS": fate.ATTEMPTS,
            "BACKOFF_INITIAL_DELAY_MS": self.backoff_ms,
            # Everything is still there when it is counted.
            "RETENTION_INTERVAL_MS": 0,
        }
        return {f"POD_AUTOMATION_{name}": str(value) for name, value in settings.items()}

    def longest_ms(self, members: int) -> int:
        """How long after its post the last engagement of `members` falls due, at most."""
        windows = -(-members // LIKES_PER_WINDOW)
        return max(self.comment_max_ms, self.like_max_ms + windows * self.window_ms)

    @property
    def retries_ms(self) -> int:
        """How long after that its last attempt ends, at most."""
        waits_ms = sum(2 * self.backoff_ms << retry for retry in range(fate.ATTEMPTS - 1))
        return fate.ATTEMPTS * self.result_timeout_ms + waits_ms

    def _compressed(self, real_ms: int) -> int:
        return max(1, round(real_ms / self.speed))


@dataclass(frozen=True, slots=True)
class Post:
    """A post that will be detected `at_s` seconds after the stream begins."""

    at_s: float
    pod_id: str
    post_id: str
    author_id: str
    member_ids: tuple[str, ...]
    engagement_types: tuple[EngagementType, ...]
    again_at_s: float | None
    """When its event is published a second time."""

    def event(self, now_ms: int) -> tuple[bytes, PostDetected]:
        """Its event, detected at `now_ms`."""
        event = PostDetected(
            event_id=f"{self.post_id}:detected",
            pod_id=self.pod_id,
            post_id=self.post_id,
            member_ids=self.member_ids,
            detected_at=moment(now_ms),
            author_id=self.author_id,
            engagement_types=self.engagement_types,
            post_url=f"https://example.org/{self.post_id}",
        )
        return encode(event), event

    def asked_for(self) -> Iterator[str]:
        """The ids of the activities that its event asks for: each member once, the author never."""
        for member in set(self.member_ids) - {self.author_id}:
            for engagement_type in set(self.engagement_types):
                yield activity_id(self.pod_id, self.post_id, member, engagement_type)


@dataclass(frozen=True, slots=True)
class Scenario:
    """All posts of one demo, in order of time."""

    pods: tuple[str, ...]
    posts: tuple[Post, ...]
    broken: tuple[bytes, ...]
    """Records that are no events, and belong on dead-letter."""

    @classmethod
    def of(cls, run: str, *, pods: int, posts: int, stream_s: float, seed: int = 1) -> "Scenario":
        """`posts` posts over `pods` pods within `stream_s` seconds. `run` goes into every id, so
        that two demos on the same data never share a pod."""
        chance = random.Random(seed)  # noqa: S311 - the same scenario each time is what is wanted
        names = tuple(f"{run}-pod-{number + 1}" for number in range(pods))
        crews = {
            pod: [f"{pod}-member-{i + 1}" for i in range(chance.randint(FEWEST, MOST))]
            for pod in names
        }
        made = []
        for number in range(posts):
            pod = names[number % pods]
            at_s = stream_s * number / posts
            members = list(crews[pod])
            if number % 7 == 3:
                # A careless upstream system: one member named twice.
                members.append(members[0])
            twice = chance.random() < TWICE_SHARE or number == 1
            made.append(
                Post(
                    at_s=at_s,
                    pod_id=pod,
                    post_id=f"{run}-post-{number + 1}",
                    author_id=chance.choice(crews[pod]),
                    member_ids=tuple(members),
                    engagement_types=("like",) if number % 9 == 5 else ("like", "comment"),
                    again_at_s=at_s + chance.uniform(0.0, 2.0) if twice else None,
                )
            )
        return cls(names, tuple(made), tuple((each % run).encode() for each in _BROKEN))

    @property
    def asked_for(self) -> frozenset[str]:
        """Ids of all activities that must be planned and fired, each once."""
        return frozenset(each for post in self.posts for each in post.asked_for())

    @property
    def members(self) -> list[str]:
        """All members of all pods, in order."""
        return sorted({member for post in self.posts for member in post.member_ids})

    @property
    def handlers(self) -> int:
        """How many engagements must be handled at once, even if all that hang do so together."""
        hanging = sum(fate.end(activity).timed_out for activity in self.asked_for)
        return min(MOST_HANDLERS, FREE_HANDLERS + hanging)

    @property
    def most_members(self) -> int:
        """Members of the largest post."""
        return max(len(post.member_ids) for post in self.posts)

    def deliveries(self) -> list[tuple[float, Post | bytes]]:
        """What is published when (seconds after the begin), in order: posts, some of them twice,
        and the broken records."""
        made: list[tuple[float, Post | bytes]] = [(post.at_s, post) for post in self.posts]
        made += [(post.again_at_s, post) for post in self.posts if post.again_at_s is not None]
        middle_s = self.posts[len(self.posts) // 2].at_s
        made += [(middle_s, broken) for broken in self.broken]
        return sorted(made, key=lambda each: each[0])
