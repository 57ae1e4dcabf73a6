"""A short round in every test run; the long ones are `make torture`."""

import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pod_automation.stack.errors import StackError
from tests.torture import points
from tests.torture.bugs import BUGS
from tests.torture.round import torture
from tests.torture.schedule import Planned
from tests.torture.servers import Servers, running

# One of each family; what they do to one another is the long run's matter.
PLAN = [
    Planned(1.0, "kill@claimed", 11),
    Planned(1.5, "redis-flush", 1),
    Planned(2.0, "freeze@planned-in-postgres", 5),
    Planned(3.0, "kill@cursor-read", 4),
    Planned(4.0, "postgres-cut", 1),
    Planned(5.0, "cut", 3),
    Planned(6.0, "redis-snapshot", 2),
    Planned(6.5, "kill", 9),
]


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    with TemporaryDirectory(prefix="torture-") as home:
        Path(home).chmod(0o755)  # PostgreSQL runs as another user, who must be able to enter
        async with running(Path(home), brokers=1) as started:
            yield started


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_short_round(servers: Servers, tmp_path: Path) -> None:
    outcome = await torture(
        servers, PLAN, name="short", seed=1, seconds=8, folder=tmp_path / "short"
    )
    assert outcome.violations == [], "\n".join(outcome.told)
    assert outcome.figures["activities"] > 500
    assert sum(outcome.done.values()) >= 6, outcome.missed


@pytest.mark.parametrize(
    ("error", "tries"),
    [("Kafka: it has ended. | java.net.BindException: Address already in use", 2), ("other", 1)],
)
async def test_servers_whose_port_was_taken_are_started_on_others(
    error: str, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Servers] = []
    stopped: list[Servers] = []

    async def start(self: Servers) -> None:
        started.append(self)
        if len(started) == 1:
            raise StackError(error)

    async def stop(self: Servers) -> None:
        stopped.append(self)

    monkeypatch.setattr(Servers, "start", start)
    monkeypatch.setattr(Servers, "stop", stop)
    with suppress(StackError):
        async with running(tmp_path, brokers=1) as servers:
            assert servers is started[-1]
    assert len(started) == tries
    assert started == stopped
    assert len({each.bootstrap for each in started}) == tries


@pytest.mark.parametrize("name", points.ALL)
def test_each_point_is_where_it_says(name: str) -> None:
    point = points.ALL[name]
    owner = getattr(import_module(point.module), point.owner)
    assert inspect.iscoroutinefunction(inspect.unwrap(getattr(owner, point.method)))


@pytest.mark.parametrize("name", BUGS)
def test_each_bug_finds_what_it_breaks(name: str) -> None:
    program = (
        f"from tests.torture.bugs import BUGS; BUGS[{name!r}]()\n"
        "from scheduler.adapters.redis_wheel import RedisWheel\n"
        "RedisWheel('redis://127.0.0.1:1')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
