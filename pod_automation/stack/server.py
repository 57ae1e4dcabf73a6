"""One server process under a leash, seen from its owner."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pod_automation.stack import leash
from pod_automation.stack.descriptors import disown, own
from pod_automation.stack.log import ServerLog

_POLL_S = 0.02
# How long the leash itself may take beyond the server's grace, on a machine that is busy.
_LEASH_SLACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Command:
    """How to run a server.

    `argv[0]` is an absolute path. `environment` is the whole environment. `user` is a (uid, gid) to
    become first. After `stop_signal` the server has `grace_s` seconds before it is killed.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    user: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: int = 5


class Server:
    """A running server. It does not outlive this process, whatever ends either of them.

    Bound to no event loop: any may await its methods.
    """

    def __init__(
        self, leash_process: subprocess.Popen[bytes], hold: int, pid: int, grace_s: int
    ) -> None:
        self._leash = leash_process
        self._hold = hold
        self._grace_s = grace_s
        self.pid = pid  # 0: the leash could not even start it

    @classmethod
    def start(cls, command: Command, log: ServerLog, lock: int) -> "Server":
        """Start `command` with its output in `log`.

        `lock` is a descriptor with an flock, which the server keeps until its last process is gone;
        the caller still has to close its own copy.

        Raises:
            OSError: no process or pipe can be had.
        """
        hold_read, hold = os.pipe()
        own(hold)
        report, report_write = os.pipe()
        output = log.begin(f"starting {Path(command.argv[0]).name}")
        uid, gid = command.user or (-1, -1)
        numbers = (hold_read, report_write, lock, command.stop_signal, command.grace_s, uid, gid)
        try:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                # -I and -S: nothing of the user's Python set-up is read, and the start is quick.
                [
                    sys.executable, "-I", "-S", leash.__file__,
                    *(str(int(number)) for number in numbers), *command.argv,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=command.directory,
                env=dict(command.environment),
                pass_fds=(hold_read, report_write, lock),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            disown(hold)
            os.close(report)
            raise
        finally:
            for descriptor in (hold_read, report_write, output):
                os.close(descriptor)
        # Blocks for the 20 ms that an interpreter needs to start. Were this awaited, a cancellation
        # in between would leave a server that nobody knows of.
        with os.fdopen(report, "rb") as reader:
            pid = int(reader.readline() or 0)
        return cls(process, hold, pid, command.grace_s)

    @property
    def leash_pid(self) -> int:
        """Process id of the leash."""
        return self._leash.pid

    @property
    def code(self) -> int | None:
        """How the server ended: its exit code, 128 + n for signal n; None while it runs."""
        code = self._leash.poll()
        return code if code is None or code >= 0 else 128 - code

    async def wait(self) -> int:
        """Wait until the server has ended; gives its `code`."""
        # Polled: a process is no loop's, and two polls take less than a thread would.
        while (code := self.code) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        disown(self._hold)
        return code

    async def stop(self) -> None:
        """Ask the server to stop, and kill it when it does not within its grace."""
        disown(self._hold)
        end = time.monotonic() + self._grace_s + _LEASH_SLACK_S
        while self.code is None:
            if time.monotonic() >= end:
                self._leash.kill()  # and with it, by the kernel, the server
                end += _LEASH_SLACK_S
            await asyncio.sleep(_POLL_S)

    def kill_now(self) -> None:
        """Kill the server and what it started, without waiting for the end."""
        if self.code is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send the server's main process a signal; nothing happens when it has ended."""
        if self.code is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
