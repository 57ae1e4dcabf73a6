"""Finds the handler that `--handler package.module:function` names."""

import functools
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any, cast

from pod_automation.executor.engagement import Handler


class HandlerError(Exception):
    """This is no handler; the message is one line that says why, and what to do."""


def load_handler(name: str) -> Handler:
    """The handler `name`, "package.module:function"; modules are also looked for in the current
    directory. Raises `HandlerError`."""
    module_name, colon, path = name.partition(":")
    if not (colon and module_name and path):
        raise HandlerError(f"{name!r} is no handler: write package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = _imported(module_name, here)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise HandlerError(
                f"there is no {path!r} in {module_name}{_alike(found)}: write"
                " package.module:function"
            ) from None
        except Exception as error:
            raise HandlerError(f"looking for {name} failed: {_told(error)}") from error
    try:
        _check(found, name)
    except HandlerError:
        raise
    except Exception as error:
        # An object that answers for itself what it is, and fails at it.
        raise HandlerError(f"{name} is no function: {_told(error)}") from error
    return cast(Handler, found)


def _imported(name: str, here: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise HandlerError(
                f"there is no module {error.name!r}, neither in {here} nor among what is installed"
            ) from error
        raise _failed(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit too, and whatever else a module may end itself with.
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> HandlerError:
    # Where in the user's own code, which is the last frame outside of the import machinery.
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return HandlerError(f"importing {name} failed: {_told(error)}{where}")


def _told(error: BaseException) -> str:
    # It is a user's class, and may do anything.
    try:
        detail = " ".join(str(error).split())
    except Exception:
        detail = "(it cannot say why)"
    return f"{type(error).__name__}: {detail}"


def _alike(module: object) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value)
        and getattr(value, "__module__", None) == getattr(module, "__name__", "")
    ]
    return f" (it has {', '.join(names[:5])})" if names else ""


def _check(found: object, name: str) -> None:
    bare: Any = found.func if isinstance(found, functools.partial) else found
    if isinstance(bare, type) or not callable(bare):
        raise HandlerError(f"{name} is no function: write `async def handle(engagement)`")
    if not inspect.iscoroutinefunction(bare if inspect.isroutine(bare) else bare.__call__):
        raise HandlerError(f"{name} is not async: write `async def handle(engagement)`")
    try:
        inspect.signature(cast(Handler, found)).bind(object())
    except TypeError:
        raise HandlerError(
            f"{name} must take one argument, the engagement; it takes"
            f" {inspect.signature(cast(Handler, found))}"
        ) from None
