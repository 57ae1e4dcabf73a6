"""`pod-automation publish`: post-detected events, from options or NDJSON."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pod_automation.cli.options import AsJson, opened


class Type(StrEnum):
    """What a member can do for a post."""

    LIKE = "like"
    COMMENT = "comment"


def publish(
    pod: Annotated[str | None, typer.Option(metavar="ID", help="The pod's id.")] = None,
    post: Annotated[str | None, typer.Option(metavar="ID", help="The post's id.")] = None,
    member: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A member's id; repeat it for more.")
    ] = None,
    members: Annotated[
        str | None, typer.Option(help="Ids of members, comma separated.", metavar="A,B,C")
    ] = None,
    author: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The member who posted: nothing is planned for them."),
    ] = None,
    types: Annotated[
        list[Type] | None,
        typer.Option("--type", help="like or comment; repeat it for both, which is the default."),
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where the post is.")] = None,
    event_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The event's id. Default: derived from the other options."),
    ] = None,
    detected_at: Annotated[
        str | None, typer.Option(help="RFC 3339 with an offset. Default: now.", metavar="TIME")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="NDJSON, one event a line; - is standard input."),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Send the valid lines, report the others.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the events, send none.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Publish post-detected events: one by options, or many as NDJSON.

    Every event is checked before the first is sent. A line that is no event is reported with its
    number and the reason, and then nothing at all is sent, unless --skip-invalid says so. The
    command ends once Kafka has confirmed every event. To publish an event again does no harm: the
    engine plans each (pod, post, member, type) once.

    Without any options, events are read from standard input.

    \b
    Examples:
      pod-automation publish --pod p1 --post 42 --members ann,bob,cyd --author ann
      pod-automation publish --file events.ndjson
      cat events.ndjson | pod-automation publish --skip-invalid --json
    """
    options = {
        "--pod": pod,
        "--post": post,
        "--member": member,
        "--members": members,
        "--author": author,
        "--type": types,
        "--url": url,
        "--event-id": event_id,
        "--detected-at": detected_at,
    }
    given = [name for name, value in options.items() if value is not None and value != []]
    if given and file is not None:
        raise typer.BadParameter(f"--file and {given[0]} exclude each other")
    if not given:
        _from_file(file, skip_invalid=skip_invalid, dry_run=dry_run, as_json=json_output)
        return
    for name in ("--pod", "--post"):
        if name not in given:
            raise typer.BadParameter(f"{name} is missing")
    listed = (each.strip() for each in (members or "").split(","))
    everyone = [*(member or ()), *(each for each in listed if each)]
    if not everyone:
        raise typer.BadParameter("--member or --members is missing")
    _from_options(
        {
            "event_id": event_id,
            "pod_id": pod,
            "post_id": post,
            "member_ids": everyone,
            "author_id": author,
            "engagement_types": [each.value for each in types] if types else None,
            "post_url": url,
            "detected_at": detected_at,
        },
        dry_run=dry_run,
        as_json=json_output,
    )


def _from_options(fields: dict[str, object], *, dry_run: bool, as_json: bool) -> None:
    from io import BytesIO

    import orjson

    from pod_automation.cli.event_lines import check
    from pod_automation.cli.publishing import publish_checked

    given = {name: value for name, value in fields.items() if value is not None}
    try:
        given.setdefault("event_id", _derived_id(given))
        given.setdefault("detected_at", _now())
        line = orjson.dumps(given)
    except (UnicodeError, orjson.JSONEncodeError):
        # Bytes on the command line that are not UTF-8 arrive as lone surrogates.
        raise typer.BadParameter("an option is not UTF-8") from None
    source = BytesIO(line)
    found = check(source)
    if found.invalid:
        raise typer.BadParameter(f"this is no event: {found.problems[0].reason}")
    publish_checked(found, source, dry_run=dry_run, as_json=as_json)


def _from_file(file: Path | None, *, skip_invalid: bool, dry_run: bool, as_json: bool) -> None:
    from pod_automation.cli.publishing import publish_lines

    if file is None and sys.stdin.isatty():
        raise typer.BadParameter(
            "give an event by options (--pod, --post, --members), or --file, or pipe NDJSON in"
        )
    with opened(file) as source:
        code = publish_lines(source, skip_invalid=skip_invalid, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(code)


def _derived_id(fields: dict[str, object]) -> str:
    # The same options give the same id, as everywhere in the engine.
    from uuid import UUID, uuid5

    import orjson

    from schemas.ids import NAMESPACE

    return str(
        uuid5(UUID(bytes=NAMESPACE), orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode())
    )


def _now() -> str:
    import time

    from schemas.times import rfc3339

    return rfc3339(time.time_ns() // 1_000_000)
