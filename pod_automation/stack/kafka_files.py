"""Where Kafka's own files come from."""

import asyncio
import json
import os
import sys
from pathlib import Path

from pod_automation.stack import jars
from pod_automation.stack.errors import MissingPackageError, StackError
from pod_automation.stack.part import Progress, package_folder

# Two files a second would still do.
_LIMIT_S = 900
_TELL_EVERY = 20


async def kafka_class_path(progress: Progress) -> str:
    """The class path of Kafka; needs the network the first time only.

    Raises:
        StackError: the download failed.
        MissingPackageError: jgo is not installed.
    """
    package_folder("jgo", "what downloads Kafka")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pod-automation"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # beside it lie modules whose names others have too
        jars.__file__,
        cache,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await _read(process, progress)
    except TimeoutError:
        raise _failed(f"not done after {_LIMIT_S // 60} minutes") from None
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _read(process: asyncio.subprocess.Process, progress: Progress) -> str:
    if process.stdout is None:
        raise _failed("no output")
    downloaded = 0
    async for text in process.stdout:
        line = json.loads(text)
        if "downloading" in line:
            if not downloaded:
                progress("downloading Kafka 4.1 from Maven Central (45 MB, this once) ...")
            downloaded += 1
            if downloaded % _TELL_EVERY == 0:
                progress(f"  {downloaded} files, now {line['downloading']}")
        elif "jars" in line:
            return os.pathsep.join(line["jars"])
        elif "missing" in line:
            raise MissingPackageError(f"what downloads Kafka (the package {line['missing']})")
        else:
            raise _failed(line["error"])
    await process.wait()
    raise _failed(f"its process ended with code {process.returncode}")


def _failed(reason: str) -> StackError:
    return StackError(
        "Kafka could not be downloaded from Maven Central; is there a network, or a proxy to name"
        f" in HTTPS_PROXY? What was downloaded is kept: try again. Reason: {reason}"
    )
