"""Celery's part of the benchmark: see ../protocol.py for what is asked on standard input.

Run by itself it answers lines; imported by `celery worker` it has the one task. That worker's
processes note each start in a file, which costs them a microsecond.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery

sys.path.append(str(Path(__file__).parents[1]))
from work import timers

CONFIG = json.loads(os.environ.get("BENCH_CONFIG") or sys.argv[1])
STARTS = Path(CONFIG["folder"]) / "starts"
app = Celery("bench", broker=CONFIG["url"])
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 12 * 3600},
    **CONFIG["settings"],
)
_file = os.open(STARTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@app.task(name="engage", bind=True)
def engage(self, **_fields: str) -> None:
    """A task that does nothing."""
    due = datetime.fromisoformat(self.request.eta)
    os.write(_file, b"%d %d\n" % (time.time_ns() // 1_000_000, round(due.timestamp() * 1000)))


def schedule(asked: dict) -> dict:
    """There is no call for many tasks; from as many threads as help."""
    all_of_them = timers(asked["count"], asked["from_ms"], asked["to_ms"])
    threads = CONFIG["enqueuers"]

    def some(first: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for due_ms, fields in all_of_them[first::threads]:
                at = datetime.fromtimestamp(due_ms / 1000, UTC)
                engage.apply_async(kwargs=fields, eta=at, producer=producer)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))
    return {"seconds": time.perf_counter() - began}


def fired(count: int) -> dict:
    """Wait for so many starts."""
    while (found := STARTS.read_bytes()).count(b"\n") < count:
        time.sleep(0.05)
    starts = sorted(tuple(map(int, line.split())) for line in found.splitlines())
    os.truncate(STARTS, 0)
    return {
        "first_ms": starts[0][0],
        "last_ms": starts[-1][0],
        "lateness_ms": [at - due for at, due in starts],
    }


def main() -> None:
    """Answer line by line."""
    worker = None
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict = {}
        if asked["do"] == "schedule":
            answer = schedule(asked)
        elif asked["do"] == "work":
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "driver", "worker", *CONFIG["worker"]],
                cwd=Path(__file__).parent,
                env=os.environ | {"BENCH_CONFIG": json.dumps(CONFIG)},
                stdout=sys.stderr,
            )
        elif asked["do"] == "fired":
            answer = fired(asked["count"])
        print(json.dumps(answer), flush=True)
        if asked["do"] == "stop":
            break
    if worker is not None:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
