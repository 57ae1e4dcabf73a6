"""Who may do what: bearer tokens with a role, and how often."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from scheduler.errors import SettingsError
from scheduler.settings import ENV_PREFIX

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

SHORTEST_TOKEN = 16
"""Characters. A token is not typed in by hand, and may be long."""

_ENTRY = re.compile(r"(?P<role>[a-z]+):(?P<name>[A-Za-z0-9._@-]{1,100}):(?P<token>[!-~]+)")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by the token that was shown."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the caller may do what asks for `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Tokens:
    """The tokens that are known. Kept as digests, compared in constant time."""

    def __init__(self, tokens: Sequence[tuple[Caller, str]]) -> None:
        self._callers = [(_digest(token), caller) for caller, token in tokens]

    @classmethod
    def parsed(cls, text: str) -> "Tokens":
        """From the setting. Raises `SettingsError`, in which no token stands."""
        found: list[tuple[Caller, str]] = []
        for place, entry in enumerate(re.split(r"[,\s]+", text.strip()), 1):
            if not entry:
                continue
            match = _ENTRY.fullmatch(entry)
            where = f"{ENV_PREFIX}API_TOKENS: entry {place}"
            if match is None:
                raise SettingsError(f"{where} is not role:name:token, in ASCII")
            role, name, token = match["role"], match["name"], match["token"]
            if role not in ROLES:
                raise SettingsError(f"{where} has the role {role}: viewer or operator is meant")
            if len(token) < SHORTEST_TOKEN:
                raise SettingsError(
                    f"{where} has a token of less than {SHORTEST_TOKEN} characters; a good one is"
                    " made by `openssl rand -hex 32`"
                )
            if cls(found).caller(token) is not None:
                raise SettingsError(f"{where} has a token that another entry has too")
            found.append((Caller(name, role), token))
        return cls(found)

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, token: str) -> Caller | None:
        """Whose `token` is; None for nobody's."""
        shown = _digest(token)
        found = None
        for digest, caller in self._callers:
            if hmac.compare_digest(shown, digest):
                found = caller
        return found


class Limiter:
    """So many requests a minute for each name. In memory: each process counts by itself."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def wait_s(self, name: str) -> int:
        """0 when `name` may go on; else the seconds after which it may."""
        if self._limiter.hit(self._item, name):
            return 0
        reset_at, _ = self._limiter.get_window_stats(self._item, name)
        import time

        return max(1, round(reset_at - time.time()))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
