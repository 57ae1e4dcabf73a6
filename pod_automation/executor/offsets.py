"""How far one partition may be committed: up to the first record that is not done."""

from collections import deque


class Offsets:
    """The offsets of one partition that were taken, and those that are done.

    What is done stays known over `restart`, so that what a rebalance hands out again to its former
    owner need not be done again.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._committed = 0
        self._uncommitted = range(0)
        """What was done without a gap, and not committed, when the partition was read anew."""
        self._first: int | None = None
        self._last = -1
        self.upto: int | None = None
        """The offset to commit: all before it is done. None where nothing has been taken, or the
        first that was is not done."""

    def take(self, offset: int) -> bool:
        """A record was read; returns whether there is anything to do about it."""
        if offset <= self._last:
            return False
        if self._first is None:
            self._first = self._committed = offset
            self._done = {each for each in self._done if each >= offset}
            if offset < self._uncommitted.start:
                # Nobody uncommits anything: these are other records, of a topic made anew.
                self._uncommitted = range(0)
        self._last = offset
        self._open.append(offset)
        if offset in self._uncommitted:
            self._done.add(offset)
        elif offset >= self._uncommitted.stop:
            self._uncommitted = range(0)
        if offset in self._done:
            self._advance()
            return False
        return True

    def done(self, offset: int) -> None:
        """What the record asked for is done, and its result confirmed."""
        if self._first is None or offset >= self._first:
            self._done.add(offset)
            self._advance()

    def committed(self, upto: int) -> None:
        """All before `upto` will not be read again."""
        self._committed = upto

    def restart(self) -> None:
        """The partition is read anew, from what is committed."""
        if self.upto is not None:
            before = self._uncommitted
            start, stop = self._committed, max(self._committed, self.upto)
            if before.start <= stop and start <= before.stop:
                start, stop = min(start, before.start), max(stop, before.stop)
            self._uncommitted = range(start, stop)
        self._open.clear()
        self._first, self._last, self.upto = None, -1, None

    def waits(self) -> bool:
        """Whether anything that was taken is not done."""
        return bool(self._open)

    @property
    def ahead(self) -> int:
        """How many are done behind one that is not: what would be done again after a crash."""
        return len(self._done)

    def _advance(self) -> None:
        while self._open and self._open[0] in self._done:
            offset = self._open.popleft()
            self._done.discard(offset)
            self.upto = offset + 1
