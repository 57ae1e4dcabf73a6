"""Descriptors that must not live on in a forked child of their owner.

Every descriptor of Python is closed on exec, but a child made by `os.fork` or by multiprocessing
goes on without exec. Were it to keep the write end of a leash's pipe, the servers would outlive
their owner; were it to keep the lock of the folder, the next start would be refused.
"""

import os

_owned: set[int] = set()


def own(descriptor: int) -> int:
    """Take `descriptor` into care and give it back; end with `disown`."""
    _owned.add(descriptor)
    return descriptor


def disown(descriptor: int) -> None:
    """Close `descriptor`, in the owner; does nothing in a forked child or the second time."""
    if descriptor in _owned:
        _owned.discard(descriptor)
        os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in tuple(_owned):
        disown(descriptor)


os.register_at_fork(after_in_child=_close_in_child)
