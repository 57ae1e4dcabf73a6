"""The wheel's scripts, one file an operation, loaded as package resources."""

import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\w+\.lua)$", re.MULTILINE)


@cache
def script(name: str) -> str:
    """The text of `name`.lua; a line `--@include other.lua` stands for that file's text."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: script(found.group(1).removesuffix(".lua")), text)
