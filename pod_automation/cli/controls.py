"""`pod-automation cancel`, `reschedule`, `pause`, `resume`, and what else operators ask for."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pod_automation.cli.asking import confirm
from pod_automation.cli.options import Actor, AsJson, Member, Pod, Post, Reason, a_time

if TYPE_CHECKING:
    from pod_automation.client import CommandAnswer, PodAutomation

Everybody = Annotated[bool, typer.Option("--all", help="Everything.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

TIMEOUT_S = 60.0


def cancel(
    activity: Annotated[
        list[str] | None,
        typer.Option("--activity", metavar="ID", help="This activity; repeatable."),
    ] = None,
    post: Post = None,
    member: Member = None,
    pod: Pod = None,
    reason: Reason = None,
    actor: Actor = None,
    yes: Yes = False,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Cancel activities, or all that wait of a post, a member or a pod.

    Says of how many it came in time. What is cancelled does not fire, and is not planned again;
    what had been sent, or was being sent, is too late. It costs what matches, whatever else waits.
    `clear` cancels everything.

    \b
    Examples:
      pod-automation cancel --pod p1 --reason "the campaign is over"
      pod-automation cancel --activity 3f0e6f0a-6d3a-5f7e-9d54-1f6a1e0e5b0a --yes --json
    """
    what = _one(activity=activity, post=post, member=member, pod=pod)
    confirm(f"Cancel all that waits of {what}?" if not activity else f"Cancel {what}?", yes)
    answer = _ask(
        actor,
        lambda pods: pods.cancel(
            activity or None,
            post_id=post,
            member_id=member,
            pod_id=pod,
            reason=reason,
            wait_s=timeout_s,
        ),
    )
    _show(answer, json_output, f"cancelled {_activities(answer.cancelled)} of {what}")


def reschedule(
    activity: Annotated[
        str | None, typer.Option("--activity", metavar="ID", help="This activity.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="When it is to fall due: RFC 3339, or now."),
    ] = None,
    post: Post = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="DURATION", help="How much later: 90s, 45m, 2h, 1d."),
    ] = None,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Move an activity that waits to another time, or all that waits of a post to a later one.

    The cap on likes of a post is kept: a like that would break it comes later than was asked for.

    \b
    Examples:
      pod-automation reschedule --activity 3f0e6f0a-6d3a-5f7e-9d54-1f6a1e0e5b0a --at now
      pod-automation reschedule --post q7 --by 2h
    """
    from datetime import timedelta

    if (activity is None) == (post is None):
        raise typer.BadParameter("give --activity and --at, or --post and --by")
    if activity is not None:
        if at is None or by is not None:
            raise typer.BadParameter("--activity needs --at, and no --by")
        when = a_time(at)
        answer = _ask(
            actor,
            lambda pods: pods.reschedule(activity, when, reason=reason, wait_s=timeout_s),
        )
        _show(answer, json_output, f"rescheduled {_activities(answer.rescheduled)}")
    elif post is not None:
        if by is None or at is not None:
            raise typer.BadParameter("--post needs --by, and no --at")
        later = timedelta(seconds=_seconds(by))
        answer = _ask(
            actor,
            lambda pods: pods.shift_post(post, later, reason=reason, wait_s=timeout_s),
        )
        _show(answer, json_output, f"rescheduled {_activities(answer.rescheduled)} of post {post}")


def pause(
    pod: Pod = None,
    member: Member = None,
    everybody: Everybody = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Let nothing of a pod or a member fire, or with --all nothing at all, until `resume`.

    What waits keeps its place, and what comes is planned. It takes the same, whatever waits.

    \b
    Examples:
      pod-automation pause --pod p1 --reason "under review"
      pod-automation pause --all
    """
    what = _one(member=member, pod=pod, everything=everybody)
    answer = _ask(
        actor,
        lambda pods: pods.pause(pod_id=pod, member_id=member, reason=reason, wait_s=timeout_s),
    )
    _show(answer, json_output, f"paused {what}")


def resume(
    pod: Pod = None,
    member: Member = None,
    everybody: Everybody = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Take a pause back.

    What has fallen due meanwhile follows the policy for what is overdue
    (POD_AUTOMATION_CATCH_UP); by default it fires at once. What is paused for another reason
    as well, a pod and its member, goes on waiting.

    \b
    Example:
      pod-automation resume --pod p1
    """
    what = _one(member=member, pod=pod, everything=everybody)
    answer = _ask(
        actor,
        lambda pods: pods.resume(pod_id=pod, member_id=member, reason=reason, wait_s=timeout_s),
    )
    _show(answer, json_output, f"resumed {what}")


def opt_out(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's id.")],
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Have a member do nothing any more.

    What waits of the member is cancelled at once; what later posts would ask for is skipped, and on
    record as cancelled. What is being sent at that moment is sent.

    \b
    Example:
      pod-automation opt-out ann --reason "asked by mail"
    """
    answer = _ask(actor, lambda pods: pods.opt_out(member, reason=reason, wait_s=timeout_s))
    _show(
        answer,
        json_output,
        f"member {member} has opted out; cancelled {_activities(answer.cancelled)}",
    )


def opt_in(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's id.")],
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Take an opt-out back, for posts that come from now on. What was cancelled stays so.

    \b
    Example:
      pod-automation opt-in ann
    """
    answer = _ask(actor, lambda pods: pods.opt_in(member, reason=reason, wait_s=timeout_s))
    _show(answer, json_output, f"member {member} takes part again")


def quiet_hours(
    pod: Pod = None,
    member: Member = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="HH:MM", help="When they begin.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--until", metavar="HH:MM", help="When they end.")
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", metavar="ZONE", help="By whose clocks, as Europe/Berlin."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Have none any more.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Set hours in which nothing of a pod or a member falls due, every day, in a time zone.

    What waits is moved at once, what comes is planned so. Quiet hours do not count as delay: all of
    a pod keeps its order and its distances, and the cap on likes is kept. Retries wait as well.

    \b
    Examples:
      pod-automation quiet-hours --pod p1 --from 22:00 --until 07:00 --zone Europe/Berlin
      pod-automation quiet-hours --pod p1 --off
    """
    what = _one(member=member, pod=pod)
    if off:
        if start or end or zone:
            raise typer.BadParameter("--off goes without --from, --until and --zone")
        answer = _ask(
            actor,
            lambda pods: pods.clear_quiet_hours(
                pod_id=pod, member_id=member, reason=reason, wait_s=timeout_s
            ),
        )
        _show(answer, json_output, f"{what} has no quiet hours")
        return
    if start is None or end is None or zone is None:
        raise typer.BadParameter("give --from, --until and --zone, or --off")
    answer = _ask(
        actor,
        lambda pods: pods.set_quiet_hours(
            start, end, zone, pod_id=pod, member_id=member, reason=reason, wait_s=timeout_s
        ),
    )
    moved = f"; moved {_activities(answer.rescheduled)}" if answer.rescheduled else ""
    _show(answer, json_output, f"quiet hours of {what}: {start} to {end}, {zone}{moved}")


def policy(
    pod: Annotated[str, typer.Option("--pod", metavar="ID", help="This pod.")],
    like_delay: Annotated[
        str | None, typer.Option("--like-delay", metavar="MIN-MAX", help="As 5m-30m.")
    ] = None,
    comment_delay: Annotated[
        str | None, typer.Option("--comment-delay", metavar="MIN-MAX", help="As 1h-6h.")
    ] = None,
    like_cap: Annotated[
        int | None, typer.Option("--like-cap", min=1, help="Likes of a post in a window, at most.")
    ] = None,
    cap_window: Annotated[
        str | None, typer.Option("--cap-window", metavar="DURATION", help="That window, as 1h.")
    ] = None,
    like_jitter: Annotated[
        float | None, typer.Option("--like-jitter", min=0, max=0.99, help="A share of the delay.")
    ] = None,
    comment_jitter: Annotated[
        float | None, typer.Option("--comment-jitter", min=0, max=0.99, help="Likewise.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Plan it by the settings again.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Give a pod a pacing policy of its own, for posts that come from now on.

    What is not given is as the settings have it; it takes the place of what the pod had before.
    `controls` shows it, and `plan` shows what comes of it.

    \b
    Examples:
      pod-automation policy --pod p1 --like-delay 10m-2h --like-cap 2
      pod-automation policy --pod p1 --off
    """
    fields: dict[str, Any] = {
        "like_cap": like_cap,
        "like_jitter": like_jitter,
        "comment_jitter": comment_jitter,
        **_window("like", like_delay),
        **_window("comment", comment_delay),
    }
    if cap_window is not None:
        fields["like_cap_window_ms"] = round(_seconds(cap_window) * 1000)
    given = {name: value for name, value in fields.items() if value is not None}
    if off == bool(given):
        raise typer.BadParameter("give something of a policy, or --off")
    if off:
        answer = _ask(actor, lambda pods: pods.clear_policy(pod, reason=reason, wait_s=timeout_s))
        _show(answer, json_output, f"pod {pod} is planned by the settings")
        return
    answer = _ask(
        actor, lambda pods: pods.set_policy(pod, reason=reason, wait_s=timeout_s, **given)
    )
    _show(answer, json_output, f"pod {pod} has a policy of its own")


def daily_cap(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's id.")],
    cap: Annotated[
        int | None, typer.Option("--cap", min=1, max=100_000, help="How many, at most.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Have none any more.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Plan at most so many engagements of a member for any 24 hours, over all pods.

    What would be one too many comes later. What is planned stays, and counts.

    \b
    Examples:
      pod-automation daily-cap ann --cap 10
      pod-automation daily-cap ann --off
    """
    if off == (cap is not None):
        raise typer.BadParameter("give --cap or --off")
    if cap is None:
        answer = _ask(
            actor, lambda pods: pods.clear_daily_cap(member, reason=reason, wait_s=timeout_s)
        )
        _show(answer, json_output, f"member {member} has no daily cap")
        return
    answer = _ask(
        actor, lambda pods: pods.set_daily_cap(member, cap, reason=reason, wait_s=timeout_s)
    )
    _show(answer, json_output, f"member {member} has at most {cap:,} in any 24 hours")


def forget_member(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's id.")],
    opt_out_too: Annotated[
        bool,
        typer.Option(
            "--opt-out-too", help="Also the opt-out: the next event that names the member counts."
        ),
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason", metavar="TEXT", help="Why: kept on record, so not to name the member."
        ),
    ] = None,
    actor: Actor = None,
    yes: Yes = False,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Erase a member from the record, and keep the counts.

    The member is opted out, which cancels what waits. Then a name of chance takes the place of the
    id in all rows, and what was written about them is removed. The opt-out alone keeps the id, or
    the next event would have it planned again. While anything of the member is being carried out
    nothing is erased: it ends with 1, and is to be run again. Kafka forgets by its retention. That
    it was done is on record, under that name.

    \b
    Example:
      pod-automation forget-member ann --reason "asked by mail" --yes
    """
    from pod_automation.cli.asking import ask
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import error, json_result, result
    from pod_automation.client import NotAppliedError

    confirm(f"Erase member {member} from the record, for good?", yes)
    try:
        done = ask(
            lambda pods: pods.forget_member(
                member, opt_out_too=opt_out_too, reason=reason, wait_s=timeout_s
            ),
            actor=actor,
        )
    except NotAppliedError as late:
        error(f"{late}: is a worker running?")
        raise typer.Exit(ExitCode.NO) from None
    if json_output:
        json_result(done.as_dict())
    elif not done.unfinished:
        result(f"member {member} is forgotten; {_activities(done.activities)} are nobody's now")
    if done.unfinished:
        error(
            f"{_activities(done.unfinished)} of member {member} are being carried out: nothing is"
            " erased yet, run it again when they have come to their end"
        )
        raise typer.Exit(ExitCode.NO)


def drain(
    instance: Annotated[
        str,
        typer.Argument(metavar="INSTANCE", help="POD_AUTOMATION_INSTANCE_ID of the dispatcher."),
    ],
    off: Annotated[bool, typer.Option("--off", help="Let it have shards again.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    timeout_s: Timeout = TIMEOUT_S,
    json_output: AsJson = False,
) -> None:
    """Have a dispatcher give its shards to the others and take none, for maintenance of its host.

    It hears of it within a second, hands over in order, and goes on to run without shards, also
    after a restart, until --off. Others must run, or nothing is sent.

    \b
    Examples:
      pod-automation drain host-7 --reason "new kernel"
      pod-automation drain host-7 --off
    """
    if off:
        answer = _ask(
            actor, lambda pods: pods.undrain_dispatcher(instance, reason=reason, wait_s=timeout_s)
        )
        _show(answer, json_output, f"dispatcher {instance} may have shards again")
        return
    answer = _ask(
        actor, lambda pods: pods.drain_dispatcher(instance, reason=reason, wait_s=timeout_s)
    )
    _show(
        answer,
        json_output,
        f"dispatcher {instance} gives up its shards; `status` shows when it has none",
    )


def _window(kind: str, text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    low, dash, high = text.partition("-")
    if not dash:
        raise typer.BadParameter(f"{text!r} is no window of delays: write it like 5m-30m")
    return {
        f"{kind}_min_delay_ms": round(_seconds(low) * 1000),
        f"{kind}_max_delay_ms": round(_seconds(high) * 1000),
    }


COMMANDS: tuple[Callable[..., None], ...] = (
    cancel,
    reschedule,
    pause,
    resume,
    opt_out,
    opt_in,
    quiet_hours,
    policy,
    daily_cap,
    forget_member,
    drain,
)


def _one(
    *,
    activity: list[str] | None = None,
    post: str | None = None,
    member: str | None = None,
    pod: str | None = None,
    everything: bool | None = None,
) -> str:
    """What is given, in words; exactly one may be."""
    given = []
    if activity:
        given.append(f"activity {activity[0]}" if len(activity) == 1 else "the activities")
    given += [
        f"{name} {value}"
        for name, value in (("post", post), ("member", member), ("pod", pod))
        if value is not None
    ]
    if everything:
        given.append("everything")
    if len(given) != 1:
        names = ["--member", "--pod"]
        names = ["--activity", "--post", *names] if everything is None else [*names, "--all"]
        raise typer.BadParameter(f"give one of {', '.join(names)}")
    return given[0]


def _ask(
    actor: str | None,
    call: "Callable[[PodAutomation], Coroutine[Any, Any, CommandAnswer]]",
) -> "CommandAnswer":
    from pod_automation.cli.asking import ask
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import error
    from pod_automation.client import NotAppliedError, NotFoundError

    try:
        return ask(call, actor=actor)
    except NotAppliedError as late:
        error(f"{late}: is a worker running?")
    except NotFoundError as missing:
        error(str(missing))
    raise typer.Exit(ExitCode.NO)


def _show(answer: "CommandAnswer", json_output: bool, words: str) -> None:
    from pod_automation.cli.terminal import json_result, result

    if json_output:
        json_result(answer.as_dict())
        return
    if answer.too_late:
        words += f"; {answer.too_late:,} too late, since they had been sent"
    if answer.final:
        words += f"; {answer.final:,} had come to their end before"
    result(words)
    if len(answer.activities) > 1:
        for each in answer.activities:
            result(f"  {each.activity_id}  {each.answer.replace('_', ' ')} ({each.status})")


def _activities(count: int) -> str:
    return f"{count:,} {'activity' if count == 1 else 'activities'}"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds <= 366 * 86_400:
        raise typer.BadParameter(
            f"{text!r} is no duration up to 366 days: write it like 90s, 45m, 2h, 1d"
        )
    return seconds
