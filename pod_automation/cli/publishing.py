"""From checked lines to confirmed events, with progress and a result."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pod_automation.cli.event_lines import Checked, Event, check, read, rereadable
from pod_automation.cli.event_sender import EventSender
from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.loop import run
from pod_automation.cli.terminal import console, error, json_result, note, quiet_logs, result
from scheduler.errors import PermanentError
from scheduler.settings import Settings, load_settings

SHOWN_PROBLEMS = 20
"""Bad lines told one by one; the JSON result holds more."""

STEP = 1000
"""Events between two moves of the progress bar."""


def publish_lines(file: BinaryIO, *, skip_invalid: bool, dry_run: bool, as_json: bool) -> ExitCode:
    """Publish the events of `file`; nothing of it when a line is bad, unless `skip_invalid`."""
    with rereadable(file) as source:
        return _publish(source, skip_invalid, dry_run, as_json)


def _publish(source: BinaryIO, skip_invalid: bool, dry_run: bool, as_json: bool) -> ExitCode:
    with _progress("checking", None) as advance:
        found = check(source, advance)
    _report(found)
    if found.invalid and not skip_invalid:
        error(
            f"{_lines(found.invalid)} no event; nothing was sent (--skip-invalid sends the others)"
        )
        if as_json:
            json_result(_result(found, 0, 0.0))
        return ExitCode.USAGE
    publish_checked(found, source, dry_run=dry_run, as_json=as_json)
    return ExitCode.OK


def publish_checked(found: Checked, source: BinaryIO, *, dry_run: bool, as_json: bool) -> None:
    """Publish the valid events of `source` and print the result."""
    quiet_logs()
    published, seconds = 0, 0.0
    if not dry_run and found.valid:
        settings = load_settings()
        began = time.monotonic()
        published = run(_send(settings, source, found.valid))
        seconds = time.monotonic() - began
    if as_json:
        json_result(_result(found, published, seconds))
        return
    skipped = f"; {_lines(found.invalid)} no event and skipped" if found.invalid else ""
    if dry_run:
        verb = "are" if found.valid != 1 else "is"
        result(f"{found.valid:,} {_events(found.valid)} {verb} valid, none was sent{skipped}")
    else:
        result(f"published {published:,} {_events(published)} in {seconds:.2f} s{skipped}")


async def _send(settings: Settings, source: BinaryIO, count: int) -> int:
    sender = EventSender(settings)
    try:
        with _progress("publishing", count) as advance:
            async with sender:
                left = count
                for each in read(source):
                    if not isinstance(each, Event):
                        continue
                    left -= 1
                    if left < 0:
                        break
                    await sender.send(each.value, each.fields)
                    advance()
                await sender.flush()
    except BaseException:
        if sender.confirmed:
            note(
                f"{sender.confirmed:,} of {count:,} events are published for certain;"
                " to publish all of them again does no harm"
            )
        raise
    if sender.confirmed < count:
        raise PermanentError(
            f"the file has changed while it was read: of {count} events {sender.confirmed} were"
            " published"
        )
    return sender.confirmed


def _result(found: Checked, published: int, seconds: float) -> dict[str, object]:
    return {
        "published": published,
        "valid": found.valid,
        "invalid": found.invalid,
        "seconds": round(seconds, 3),
        "problems": [{"line": each.line, "reason": each.reason} for each in found.problems],
    }


def _report(found: Checked) -> None:
    for each in found.problems[:SHOWN_PROBLEMS]:
        note(f"line {each.line}: {each.reason}")
    if found.invalid > SHOWN_PROBLEMS:
        note(f"... and {found.invalid - SHOWN_PROBLEMS:,} more")


def _lines(count: int) -> str:
    return f"{count:,} lines are" if count != 1 else "1 line is"


def _events(count: int) -> str:
    return "events" if count != 1 else "event"


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on standard error, when that is a terminal; yields what moves it by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if not done % STEP:
                bar.update(task, completed=done)

        yield advance
        bar.update(task, completed=done)
