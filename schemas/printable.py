"""Text that comes from outside, for logs and terminals: nothing in it may disturb them."""


def printable(text: str) -> str:
    """`text` with everything escaped that is not printable: controls, line ends, marks that turn
    the direction of writing, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
