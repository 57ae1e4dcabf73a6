"""A complete executor: copy it, and put your platform's client in the place of `Platform`.

`Platform` keeps its posts in a file and talks to nobody, so that this runs anywhere.
"""

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path

from pod_automation.executor import Engagement, Permanent, Retry, serve

FILE = Path(os.environ.get("EXAMPLE_PLATFORM", "platform.ndjson"))


class BusyError(Exception):
    """The platform asks for some patience (an HTTP API would answer 429)."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests")
        self.seconds = seconds


class GoneError(Exception):
    """The post is no longer there (404)."""


class Platform:
    """Stands for a client of a social platform, with the three things that matter: it is slow, it
    says no in different ways, and it does what has the same key only once: this one in one process,
    with what stood in the file when that began."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        # The last line may be half of one, where a process was killed while it wrote.
        self._keys = {json.loads(line)["key"] for line in lines if line.endswith("}")}
        self._refused: set[str] = set()

    async def engage(self, kind: str, post: str, member: str, key: str) -> None:
        """Like or comment. Raises `BusyError` or `GoneError`."""
        await asyncio.sleep(0.02)
        if post.startswith("gone"):
            raise GoneError(post)
        if post.startswith("busy") and key not in self._refused:
            self._refused.add(key)
            raise BusyError(seconds=0.5)
        if key in self._keys:
            return
        line = json.dumps({"key": key, "kind": kind, "post": post, "member": member})
        # In one write, behind a line end: what a killed process has left is closed by it.
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
        # Not before: what could not be written is not done, and is tried again.
        self._keys.add(key)


platform = Platform(FILE)


async def handle(engagement: Engagement) -> None:
    """Do one engagement. Returning means that it is done."""
    try:
        await platform.engage(
            engagement.engagement_type,
            engagement.post_id,
            engagement.member_id,
            # The same in every attempt: what an attempt has done is not done again by the next one.
            key=engagement.idempotency_key,
        )
    except BusyError as busy:
        # The engine tries again after this time, instead of after its own back-off.
        raise Retry(after=timedelta(seconds=busy.seconds), reason=str(busy)) from busy
    except GoneError as gone:
        # No further attempt: it goes to `dead-letter`, with this reason.
        raise Permanent(f"the post is gone: {gone}") from gone
    # Every other exception counts as a failure that another attempt may mend.


if __name__ == "__main__":
    serve(handle)
