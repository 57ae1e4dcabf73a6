"""`pod-automation dead-letters`: what could not be applied, and the way back for it."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import Actor, AsJson

if TYPE_CHECKING:
    from pod_automation.dead_letters import Choice

ABOUT = """Look at records that could not be applied, and send them through the normal door again.

\b
Examples:
  pod-automation dead-letters list --since 2h
  pod-automation dead-letters show post-detected/3/17
  pod-automation dead-letters replay post-detected/3/17"""

DEFAULT_LIMIT = 50

_Reason = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Letters with TEXT in their reason, in any case; * is any text."
    ),
]
_Source = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC[/PARTITION]", help="Letters that came from there; with prefix or without."
    ),
]
_Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From then on: RFC 3339, or a duration (90s, 2h, 3d) ago."),
]
_Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Before then: RFC 3339, or a duration ago.")
]


def list_letters(
    reason: _Reason = None,
    source: _Source = None,
    since: _Since = None,
    until: _Until = None,
    not_replayed: Annotated[
        bool, typer.Option("--not-replayed", help="Only letters that were never replayed.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show the newest N.")
    ] = DEFAULT_LIMIT,
    everything: Annotated[bool, typer.Option("--all", help="Show them all.")] = False,
    json_output: AsJson = False,
) -> None:
    """List dead letters, the newest first.

    A letter that stands in the topic several times is one line. Whether it was replayed is in
    PostgreSQL; while that is away, the column shows a question mark.

    \b
    Examples:
      pod-automation dead-letters list --reason "missing required field" --since 1d
      pod-automation dead-letters list --source engagement-executed/3 --not-replayed
      pod-automation dead-letters list --all --json | jq -r '.letters[].id'
    """
    from pod_automation.cli.dead_letters_run import print_list
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import quiet_logs
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    choice = _choice(settings.topic_prefix, reason, source, since, until)
    run(
        print_list(
            settings,
            choice,
            limit=None if everything else limit,
            not_replayed=not_replayed,
            as_json=json_output,
        )
    )


def show(
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.")
    ],
    full: Annotated[
        bool, typer.Option("--full", help="All of the value, however long it is.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Show all of one dead letter: where it came from, why it died, its headers and its value.

    What cannot be printed is escaped, and a value that is no text is shown as bytes. The JSON
    always has all of the value.

    \b
    Example:
      pod-automation dead-letters show post-detected/3/17
    """
    from pod_automation.cli.dead_letters_run import print_letter
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import quiet_logs
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    raise typer.Exit(run(print_letter(settings, letter_id, full=full, as_json=json_output)))


def replay(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Letters to replay.")
    ] = None,
    reason: _Reason = None,
    source: _Source = None,
    since: _Since = None,
    until: _Until = None,
    not_replayed: Annotated[
        bool,
        typer.Option("--not-replayed", help="Letters that were never replayed, and no others."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every letter there is.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were replayed before.")
    ] = False,
    because: Annotated[
        str | None, typer.Option("--because", metavar="TEXT", help="Why: kept on record.")
    ] = None,
    actor: Actor = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Send dead letters to where they came from, as they were, and mark them as replayed.

    Either letters by their ids, and then all of them can be replayed or nothing is sent; or all
    that pass the same filters as of `list`, after a question unless --yes says so. A record that is
    still what it was dies again: mend the engine or the data first. A letter that was cut cannot be
    replayed. A failed engagement gets one more attempt.

    \b
    Examples:
      pod-automation dead-letters replay post-detected/3/17 --because "the table is mended"
      pod-automation dead-letters replay --reason "refused by PostgreSQL" --since 1d --dry-run
      pod-automation dead-letters replay --source engagement-executed --not-replayed --yes
    """
    from pod_automation.cli.asking import agreed, who_asks
    from pod_automation.cli.dead_letters_run import Wish, replay_letters
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import quiet_logs
    from scheduler.settings import load_settings

    filters = {
        "--reason": reason,
        "--source": source,
        "--since": since,
        "--until": until,
        "--not-replayed": not_replayed,
        "--all": everything,
    }
    given = [name for name, value in filters.items() if value]
    if ids and given:
        raise typer.BadParameter(f"ids and {given[0]} exclude each other")
    if not ids and not given:
        raise typer.BadParameter("name letters by their ids or by a filter; --all is every letter")
    if not_replayed and again:
        raise typer.BadParameter("--not-replayed and --again exclude each other")
    ask: Callable[[str], bool] | None = None
    if not ids and not yes and not dry_run:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is here to be asked: give --yes, or --dry-run")
        ask = agreed
    settings = load_settings()
    quiet_logs()
    choice = _choice(settings.topic_prefix, reason, source, since, until, ids or ())
    wish = Wish(
        choice,
        again=again,
        dry_run=dry_run,
        ask=ask,
        as_json=json_output,
        actor=actor or who_asks(),
        because=because,
    )
    raise typer.Exit(run(replay_letters(settings, wish)))


COMMANDS: dict[str, Callable[..., None]] = {"list": list_letters, "show": show, "replay": replay}


def _choice(
    prefix: str,
    reason: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    ids: "tuple[()] | list[str]" = (),
) -> "Choice":
    import time

    from pod_automation.dead_letters.choice import Choice, moment_of, source_of

    now_ms = time.time_ns() // 1_000_000
    option = "--source"
    try:
        topic, partition = source_of(source) if source is not None else (None, None)
        option = "--since"
        since_ms = None if since is None else moment_of(since, now_ms)
        option = "--until"
        until_ms = None if until is None else moment_of(until, now_ms)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise typer.BadParameter("--since must be before --until")
    return Choice(
        ids=frozenset(ids),
        reason=reason,
        topic=topic,
        partition=partition,
        since_ms=since_ms,
        until_ms=until_ms,
        prefix=prefix,
    )
