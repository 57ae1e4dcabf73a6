"""What operators and members ask for, and that lasts: who is paused, and who has opted out."""

from typing import Literal

from msgspec import Struct

Scope = Literal["all", "pod", "member"]
Kind = Literal["paused", "opted_out"]


class Subject(Struct, frozen=True):
    """Whom a control is about: everybody, a pod or a member (`name` is its id)."""

    scope: Scope
    name: str = ""

    def __str__(self) -> str:
        return "everybody" if self.scope == "all" else f"{self.scope} {self.name}"


EVERYBODY = Subject("all")
