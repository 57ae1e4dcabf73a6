"""arq's part of the benchmark: see ../protocol.py for what is asked on standard input."""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

sys.path.append(str(Path(__file__).parents[1]))
from work import timers

CONFIG = json.loads(sys.argv[1])
STARTS: list[tuple[int, int]] = []


async def engage(ctx: dict, **_fields: str) -> None:
    """A job that does nothing."""
    STARTS.append((time.time_ns() // 1_000_000, ctx["score"]))


async def schedule(pool, asked: dict) -> dict:
    """There is no call for many jobs; as many calls at once as help."""
    left = iter(timers(asked["count"], asked["from_ms"], asked["to_ms"]))

    async def some() -> None:
        for due_ms, fields in left:
            at = datetime.fromtimestamp(due_ms / 1000, UTC)
            await pool.enqueue_job("engage", _defer_until=at, **fields)

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(CONFIG["enqueuers"])))
    return {"seconds": time.perf_counter() - began}


async def fired(count: int) -> dict:
    """Wait for so many starts."""
    while len(STARTS) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    found = {
        "first_ms": STARTS[0][0],
        "last_ms": STARTS[-1][0],
        "lateness_ms": [at - due for at, due in STARTS],
    }
    STARTS.clear()
    return found


async def main() -> None:
    """Answer line by line."""
    settings = RedisSettings.from_dsn(CONFIG["url"])
    pool = await create_pool(settings)
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    working = None
    while line := await lines.readline():
        asked = json.loads(line)
        answer: dict = {}
        if asked["do"] == "schedule":
            answer = await schedule(pool, asked)
        elif asked["do"] == "work":
            worker = Worker(
                [engage],
                redis_settings=settings,
                handle_signals=False,
                keep_result=0,
                **CONFIG["worker"],
            )
            working = asyncio.create_task(worker.async_run())
        elif asked["do"] == "fired":
            answer = await fired(asked["count"])
        print(json.dumps(answer), flush=True)
        if asked["do"] == "stop":
            break
    if working is not None:
        working.cancel()


asyncio.run(main())
