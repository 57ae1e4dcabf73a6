"""What the exit codes mean. Part of the contract: scripts and supervisors act on them.

| code | name | meaning | what to do |
|---|---|---|---|
| 0 | OK | done | |
| 1 | NO | it ran, and the answer is "no": a shard was not rebuilt in time, the demo lost a timer | read the result |
| 2 | USAGE | wrong usage, setting or input; nothing was done | correct what the message names |
| 3 | STORE_AWAY | Kafka, Redis or PostgreSQL is not reachable | start it, then try again |
| 4 | NOT_READY | the stores answer, but are not set up for these settings, or refuse the login | `pod-automation init`, or correct what the message names |
| 5 | DIFFERENT | the stores differ, and not for a moment | read the result; runbook |
| 7 | STACK | a server or process that the command started did not come up, or has ended | read its log |
| 70 | BUG | an error of ours, with a traceback | report it |
| 74 | GRACE_OVER | an orderly stop took longer than the grace; nothing is lost | |
| 75 | STALLED | the process made no progress, and ended so that its supervisor restarts it | |
| 78 | REPLACED | another process has started under the same POD_AUTOMATION_INSTANCE_ID | one id a process |
| 130 | INTERRUPTED | Ctrl-C | |
"""  # noqa: E501 - a table

from enum import IntEnum


class ExitCode(IntEnum):
    """See the table above."""

    OK = 0
    NO = 1
    USAGE = 2
    STORE_AWAY = 3
    NOT_READY = 4
    DIFFERENT = 5
    STACK = 7
    # From here on the numbers are sysexits.h's, and the shell's 128 + signal.
    BUG = 70
    GRACE_OVER = 74
    STALLED = 75
    REPLACED = 78
    INTERRUPTED = 130


IN_HELP = """\b
Exit codes:
    0  done
    1  it ran, and the answer is no (not rebuilt in time, a timer lost)
    2  wrong usage, setting or input; nothing was done
    3  a store (Kafka, Redis, PostgreSQL) is not reachable
    4  the stores are not set up for these settings (run `init`), or refuse the login
    5  the stores differ
    7  a server or process that it started did not come up, or has ended
   70  a bug, with its traceback; please report it
   74  an orderly stop took too long and was cut off (nothing is lost)
   75  the process made no progress and ended, to be restarted
   78  another process has started under the same POD_AUTOMATION_INSTANCE_ID
  130  interrupted by Ctrl-C
"""
