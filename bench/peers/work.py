"""The work, the same for all: so many timers of pod, post and member, spread over a time.

The drivers that are Python programs import this file by itself; the others do as it does.
"""

import uuid


def timers(count: int, from_ms: int, to_ms: int) -> list[tuple[int, dict[str, str]]]:
    """When each is due (ms), in order, and whose it is."""
    pods = [str(uuid.uuid4()) for _ in range(100)]
    members = [str(uuid.uuid4()) for _ in range(2000)]
    made = []
    post = ""
    for n in range(count):
        if n % 20 == 0:
            post = str(uuid.uuid4())
        fields = {
            "pod_id": pods[n % 100],
            "post_id": post,
            "member_id": members[n * 7919 % 2000],
            "engagement_type": "like" if n % 2 else "comment",
        }
        made.append((from_ms + (to_ms - from_ms) * n // count, fields))
    return made
