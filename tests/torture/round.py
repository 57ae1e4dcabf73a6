"""One round: a site is fed and tortured, left alone until all has come to its end, and judged."""

import asyncio
import json
import os
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from scheduler.settings import ENV_PREFIX
from tests.integration import life_handler
from tests.torture import faults
from tests.torture.evidence import Evidence
from tests.torture.feeder import Fed, Feeder
from tests.torture.history import tell
from tests.torture.processes import EXPECTED
from tests.torture.schedule import Planned
from tests.torture.servers import Servers
from tests.torture.site import PARTITIONS, POLICY, Site, calm, ready, site
from tests.torture.verdict import Expected, Violation, judge

POSTS_A_SECOND = 11.0

_OURS = re.compile(r'File "(?!.*site-packages).*/(schemas|scheduler|streams|pod_automation)/')


@dataclass
class Outcome:
    """What came of a round."""

    name: str
    done: Counter[str] = field(default_factory=Counter)
    """Faults that were done, by kind."""
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that found no occasion."""
    violations: list[Violation] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """The violations, with the stories of their activities."""


async def torture(
    servers: Servers,
    plan: Sequence[Planned],
    *,
    name: str,
    seed: int,
    seconds: float,
    folder: Path,
    bug: str | None = None,
) -> Outcome:
    """Play the round `plan` at a site called `name`; its log and its processes' are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(name)
    with (folder / "round.jsonl").open("w", encoding="utf-8") as log:
        began = time.monotonic()

        def note(what: str, **details: Any) -> None:
            _write(log, time.monotonic() - began, what, details)

        note("seed", seed=seed, seconds=seconds, plan=[vars(each) for each in plan])
        async with site(servers, folder, name, note, bug) as torn:
            await ready(torn)
            note("ready")
            fed = await _turbulence(torn, plan, seed, seconds, outcome, note)
            note("calm", broken=sorted(fed.broken), cancelled=sorted(fed.cancelled))
            found, settle_s = await calm(torn, random.Random(seed))
            expected = Expected(
                policy=POLICY,
                confirmed=fed.events,
                broken=frozenset(fed.broken),
                cancelled_pods=frozenset(fed.cancelled),
                set_back_ms=torn.set_back_ms,
                partitions=PARTITIONS,
                answer=life_handler.answer,
            )
            outcome.violations = [
                *judge(found, expected),
                *_of_processes(torn),
                *await _reconciled(torn),
            ]
            outcome.figures = _figures(found, torn, settle_s)
            outcome.told = tell(found, outcome.violations)
        note("verdict", violations=[str(each) for each in outcome.violations], **outcome.figures)
        for line in outcome.told:
            log.write(json.dumps({"told": line}) + "\n")
    return outcome


async def _turbulence(
    torn: Site,
    plan: Sequence[Planned],
    seed: int,
    seconds: float,
    outcome: Outcome,
    note: Any,
) -> Fed:
    feeder = Feeder(torn.current_settings(), random.Random(seed), rate=POSTS_A_SECOND)
    enough = asyncio.Event()
    feeding = asyncio.create_task(feeder.run(seconds, enough), name="feeder")
    doing = [asyncio.create_task(_do(torn, each, outcome, note), name=each.fault) for each in plan]
    try:
        # A fault that hangs would be one of ours; none takes that long.
        async with asyncio.timeout(seconds + 60):
            await asyncio.gather(*doing)
            enough.set()
            return await feeding
    finally:
        for task in (feeding, *doing):
            task.cancel()
        await asyncio.gather(feeding, *doing, return_exceptions=True)


async def _do(torn: Site, planned: Planned, outcome: Outcome, note: Any) -> None:
    await asyncio.sleep(planned.at_s)
    try:
        done = await faults.ALL[planned.fault](torn, random.Random(planned.seed))
    except Exception as error:
        # The torture itself has failed, which must not pass for a clean round.
        note("fault failed", fault=planned.fault, error=traceback.format_exc())
        outcome.missed[planned.fault] += 1
        raise RuntimeError(f"the fault {planned.fault} could not be done: {error!r}") from error
    (outcome.done if done else outcome.missed)[planned.fault] += 1


async def _reconciled(torn: Site) -> list[Violation]:
    """What the engine's own reconciler finds where the judge has found nothing: another proof of
    the stores, and of the reconciler."""
    settings = torn.current_settings()
    names = {"KAFKA_BOOTSTRAP", "REDIS_URL", "POSTGRES_DSN", "TOPIC_PREFIX", "PARTITIONS"}
    environment = {ENV_PREFIX + name: str(getattr(settings, name.lower())) for name in names} | {
        ENV_PREFIX + "RESULT_TIMEOUT_MS": str(settings.result_timeout_ms)
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pod_automation", "reconcile", "--json"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode == 0:
        return []
    told = (out.decode(errors="replace") + err.decode(errors="replace"))[:2000]
    return [Violation("stores", f"reconcile ends with {process.returncode}: {told}")]


def _of_processes(torn: Site) -> list[Violation]:
    found = []
    for process in torn.processes.values():
        codes = Counter(code for _, code in process.exits if code not in EXPECTED)
        for code, times in codes.items():
            found.append(
                Violation("process", f"{process.slot} has ended with {code}, {times} times")
            )
        if process.log.exists() and (traces := _traces(process.log.read_text("utf-8", "replace"))):
            last = traces[0].strip().splitlines()[-1]
            found.append(Violation("process", f"{process.slot} has logged a traceback: {last}"))
    return found


# A log line goes on with its time, a line of a traceback does not.
_PREFIX = r"\[POD_AUTOMATION\] "


def _traces(log: str) -> list[str]:
    """The tracebacks in which code of ours takes part. What libraries log of a broker that has gone
    away, from tasks of their own, is theirs."""
    _, *traces = re.split(
        rf"^{_PREFIX}Traceback \(most recent call last\):$", log, flags=re.MULTILINE
    )
    ends = (re.split(rf"^{_PREFIX}[0-9]", trace, flags=re.MULTILINE)[0] for trace in traces)
    return [trace for trace in ends if _OURS.search(trace)]


def _figures(found: Evidence, torn: Site, settle_s: float) -> dict[str, Any]:
    codes = Counter(code for process in torn.processes.values() for _, code in process.exits)
    return {
        "activities": len(found.rows),
        "fired": len(found.executes),
        "ends": dict(Counter(row["status"] for row in found.rows)),
        "timeouts": sum(
            ":timeout:" in (each.value or {}).get("event_id", "") for each in found.results
        ),
        "generations": len({(each.value or {}).get("gen") for each in found.cursors}),
        "settle_s": round(settle_s, 1),
        "exits": {str(code): count for code, count in codes.items()},
    }


def _write(log: TextIO, at_s: float, what: str, details: dict[str, Any]) -> None:
    log.write(json.dumps({"at_s": round(at_s, 3), "what": what, **details}) + "\n")
    log.flush()
