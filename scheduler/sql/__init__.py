"""The record's queries, one file each, loaded as package resources."""

import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\w+)\.sql$", re.MULTILINE)


@cache
def query(name: str) -> str:
    """The text of `name`.sql; a line `--@include other.sql` stands for that file's text."""
    text = files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: query(found.group(1)), text)
