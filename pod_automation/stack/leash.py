"""A tiny process between the owner of the embedded servers and one server.

It holds the read end of a pipe whose write end only the owner has, so that the end of the owner,
however it came, is the end of the pipe, and it then stops the server. On Linux the kernel kills the
server should the leash itself be killed. It is run by path in an isolated interpreter and therefore
imports the standard library only, and little of it: it starts in some 20 ms.

Command line: leash.py HOLD REPORT LOCK SIGNAL GRACE_S UID GID PROGRAM [ARGUMENT ...]

HOLD    descriptor to wait on: at its end the server is stopped
REPORT  descriptor to which the server's process id is written, as one line
LOCK    descriptor that the server keeps open and that holds an flock. It is released when the last
        process of the server is gone, so the next start can tell, whoever was killed in between.
UID, GID  whom the server runs as, or -1 for the one who runs the leash

Exits with the server's code, or with 128 + the number of the signal that ended the server.
"""

import contextlib
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _kernel() -> object:
    """The C library where the kernel can tie a child to its parent, else None."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _become_server(library: object, leash: int, uid: int, gid: int, argv: list[str]) -> None:
    """In the child: never returns."""
    try:
        # A session of its own: Ctrl-C in the terminal must reach the owner alone, who stops the
        # servers in order; and the group can be killed as a whole.
        os.setsid()
        for number in (*_STOPPING, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if library is not None:
            # After setuid, which clears it.
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # type: ignore[attr-defined]
        if os.getppid() != leash:  # the leash died before the line above
            os._exit(1)
        os.execv(argv[0], argv)  # noqa: S606 (there is no shell on purpose)
    except BaseException as raised:
        os.write(2, f"cannot start {argv[0]}: {raised}\n".encode())
    os._exit(127)


def _kill_group(server: int) -> None:
    # Gone, or (on macOS) nothing but zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run one server to its end; see the module for the arguments."""
    hold, report, lock, number, grace_s, uid, gid = (int(each) for each in arguments[:7])
    for descriptor in (hold, report):
        os.set_inheritable(descriptor, False)
    os.umask(0o077)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for each in (*_STOPPING, signal.SIGCHLD):
        signal.signal(each, lambda *_: None)
    library = _kernel()
    leash = os.getpid()
    server = os.fork()
    if server == 0:
        _become_server(library, leash, uid, gid, arguments[7:])
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % server, 0)
    os.close(lock)
    with contextlib.suppress(BrokenPipeError):  # the owner is gone already; `hold` says so too
        os.write(report, b"%d\n" % server)
    os.close(report)

    watched = [hold, awake]
    kill_at: float | None = None
    while True:
        wait_s = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready = select.select(watched, [], [], wait_s)[0]
        stop = awake in ready and any(each in _STOPPING for each in os.read(awake, 4096))
        ended, status = os.waitpid(server, os.WNOHANG)
        if ended:
            _kill_group(server)  # what the server started and left behind
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if hold in ready:
            watched.remove(hold)
            stop = True
        if stop and kill_at is None:
            # The server alone, not its group: what SIGINT means to PostgreSQL's postmaster it does
            # not mean to its children, which the postmaster stops in the right order.
            os.kill(server, number)
            kill_at = time.monotonic() + grace_s
        if kill_at is not None and time.monotonic() >= kill_at:
            _kill_group(server)
            kill_at = time.monotonic() + 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
