"""The wheel holds the whole program, runs away from the checkout, and its parts are locked."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "scheduler", "streams", "pod_automation")
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def run(*command: str | Path, cwd: Path) -> str:
    """The program's output; fails with all it said."""
    # Neither the checkout nor a developer's servers may help the installed program along.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith("POD_AUTOMATION_")
    }
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
    run(sys.executable, *build, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what it needs, without the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = ("-m", "pip", "--disable-pip-version-check", "--python", str(python))
    run(sys.executable, *pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    # Last, so that pip did not see the dependencies. A folder named in a .pth file is put on the
    # path without reading its own .pth files, and it is one of those that adds the checkout.
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    dependencies = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(own.strip(), "dependencies.pth").write_text("\n".join(dependencies), "utf-8")
    return python.parent


def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    in_wheel = set(ZipFile(wheel).namelist())
    assert in_tree - in_wheel == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= in_wheel


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_packages_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(*(p.__file__ for p in ({', '.join(PACKAGES)})))"
    for file in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(file).is_relative_to(installed.parent)


def test_command_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert "dispatcher" in run(installed / "pod-automation", "--help", cwd=tmp_path)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert version in run(installed / "pod-automation", "--version", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_names_no_host_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert not re.search(r"://|^\s*-(i|f|e)\b|^\s*--(?!hash=sha256:)|trusted|/opt/", text, re.M)
    pins = re.findall(r"^[a-z0-9].*", text, re.M)
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+==\S+ (; .+ )?\\$", pin), pin


def test_each_lock_holds_the_one_before() -> None:
    """One environment serves the demo, the tests and the linters only if the locks agree."""
    pins = {
        lock.stem: set(re.findall(r"^\S+==\S+", lock.read_text("utf-8"), re.M)) for lock in LOCKS
    }
    assert pins["runtime"] < pins["embedded"] < pins["test"] < pins["dev"]
    assert pins["build"] <= pins["dev"]


def test_build_requirement_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (backend,) = project["build-system"]["requires"]
    assert backend in project["project"]["optional-dependencies"]["test"]
    assert backend in (ROOT / "requirements" / "build.in").read_text("utf-8").splitlines()


def test_every_dependency_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for lock, wanted in {
        "runtime": [*project["dependencies"], *extras["api"], *extras["traces"]],
        "embedded": extras["embedded"],
        "test": extras["test"],
        "dev": [*extras["lint"], *extras["docs"], *extras["bench"]],
    }.items():
        text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
        names = set(re.findall(r"^([a-z0-9._-]+)==", text, re.M))
        asked = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in wanted}
        assert asked <= names, (
            f"run make lock: {asked - names} missing from requirements/{lock}.txt"
        )


def test_compose_pins_images_and_stays_on_this_machine() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert {"kafka", "redis", "postgres", "init", "worker", "dispatcher"} <= services.keys()
    for name, service in services.items():
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: {service['image']}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
    # Another image than the last release's, which is on a machine already.
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    ours = f"pod-automation-engine:{version}"
    assert {services[name]["image"] for name in ("init", "worker", "executor")} == {ours}
    assert f"FROM {ours}\n" in (ROOT / "docs" / "executor.md").read_text("utf-8")
    # A service with settings of its own has those of all others as well.
    shared = services["worker"]["environment"].items()
    for name in ("dispatcher", "executor", "api"):
        assert shared <= services[name]["environment"].items(), name
