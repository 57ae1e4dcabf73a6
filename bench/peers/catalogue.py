"""The peers: where each comes from, and how each is set up, by default and at its best."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

HERE = Path(__file__).parent

MILLION = 1_000_000


class Setup(Struct, frozen=True):
    """One configuration of a peer: what its driver gets, beside the address of its store.

    `fires` is about how many timers it fires a second, where that is so few that it fires fewer.
    """

    name: Literal["default", "best"]
    config: Mapping[str, Any]
    fires: int | None = None


class Peer(Struct, frozen=True):
    """One peer. `a_second` is about how many timers it schedules: it says how many it is given."""

    title: str
    folder: str
    pinned: str
    """Where its version stands, as a pattern for its file of requirements."""
    requirements: str
    store: Literal["Redis", "PostgreSQL"]
    a_second: int
    setups: Sequence[Setup]

    @property
    def source(self) -> Path:
        """Its driver's folder."""
        return HERE / self.folder

    @property
    def version(self) -> str:
        """As it is pinned."""
        found = re.search(self.pinned, (self.source / self.requirements).read_text())
        assert found is not None, f"{self.requirements} of {self.title} pins no version"
        return found[1]


PEERS = (
    Peer(
        title="BullMQ",
        folder="bullmq",
        pinned=r'"bullmq": "([\d.]+)"',
        requirements="package.json",
        store="Redis",
        a_second=10_000,
        setups=(
            # Finished jobs are kept by default, and one job runs at a time.
            Setup("default", {"enqueuers": 1, "chunk": 1000, "keep_jobs": True}, fires=2000),
            Setup("best", {"enqueuers": 4, "chunk": 250, "concurrency": 200}),
        ),
    ),
    Peer(
        title="River",
        folder="river",
        pinned=r"riverqueue/river v([\d.]+)",
        requirements="go.mod",
        store="PostgreSQL",
        a_second=30_000,
        setups=(
            Setup("default", {"enqueuers": 1, "chunk": 10_000, "concurrency": 100}, fires=1000),
            Setup("best", {"enqueuers": 4, "chunk": 10_000, "concurrency": 1000, "poll_ms": 1}),
        ),
    ),
    Peer(
        title="Asynq",
        folder="asynq",
        pinned=r"hibiken/asynq v([\d.]+)",
        requirements="go.mod",
        store="Redis",
        a_second=20_000,
        setups=(
            # By default it runs as many tasks at a time as there are cores.
            Setup("default", {"enqueuers": 1}),
            Setup("best", {"enqueuers": 50, "concurrency": 100, "check_ms": 1}),
        ),
    ),
    Peer(
        title="arq",
        folder="arq",
        pinned=r"arq==([\d.]+)",
        requirements="requirements.txt",
        store="Redis",
        a_second=1_500,
        setups=(
            Setup("default", {"enqueuers": 1, "worker": {}}, fires=200),
            Setup("best", {"enqueuers": 20, "worker": {"max_jobs": 1000, "poll_delay": 0.01}}),
        ),
    ),
    Peer(
        title="Celery",
        folder="celery",
        pinned=r"celery\[redis\]==([\d.]+)",
        requirements="requirements.txt",
        store="Redis",
        a_second=800,
        setups=(
            Setup("default", {"enqueuers": 1, "settings": {}, "worker": []}),
            Setup(
                "best",
                {
                    "enqueuers": 4,
                    # In processes, as by default: threads of one interpreter fire no more.
                    "settings": {"worker_prefetch_multiplier": 0},
                    "worker": ["--without-gossip", "--without-mingle", "--without-heartbeat"],
                },
            ),
        ),
    ),
)
