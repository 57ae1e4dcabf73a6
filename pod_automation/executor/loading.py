"""Finds the handler that `--handler package.module:function` names."""

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import cast

from pod_automation.executor.checks import HandlerError, check_handler, told
from pod_automation.executor.engagement import Handler


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
            raise HandlerError(f"looking for {name} failed: {told(error)}") from error
    check_handler(found, name)
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
    return HandlerError(f"importing {name} failed: {told(error)}{where}")


def _alike(module: object) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value)
        and getattr(value, "__module__", None) == getattr(module, "__name__", "")
    ]
    return f" (it has {', '.join(names[:5])})" if names else ""
