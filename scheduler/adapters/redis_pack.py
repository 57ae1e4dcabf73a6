"""MessagePack as the Lua of Redis reads it: byte strings as `str`, since it knows no `bin`.

Not msgspec's: that writes bytes as `bin`, and as `str` only what is Unicode.
"""

from collections.abc import Sequence

# The head of a string, by its length.
_SHORT = tuple(
    bytes([0xA0 | length]) if length < 32 else bytes([0xD9, length]) for length in range(256)
)


def text(data: bytes) -> bytes:
    """A string; at most 65,535 bytes."""
    length = len(data)
    return (_SHORT[length] if length < 256 else b"\xda" + length.to_bytes(2, "big")) + data


def array(items: Sequence[bytes]) -> bytes:
    """An array of items that are encoded already."""
    count = len(items)
    if count < 1 << 16:
        return b"".join((b"\xdc", count.to_bytes(2, "big"), *items))
    return b"".join((b"\xdd", count.to_bytes(4, "big"), *items))
