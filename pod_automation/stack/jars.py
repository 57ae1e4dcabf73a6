"""Find Kafka's jars, downloading them from Maven Central the first time.

Run by path as a program of its own, so that Ctrl-C can end a download at once, and so that nothing
which the resolver prints or imports reaches the owner. Writes JSON lines to standard output:
`{"downloading": FILE}` for each file, and at last `{"jars": [PATH, ...]}` or `{"error": TEXT}`.

Command line: jars.py CACHE
CACHE   a folder for a lock and a note, made when it does not exist
"""

import contextlib
import fcntl
import json
import logging
import signal
import sys
import time
import zipfile
from pathlib import Path

KAFKA = "org.apache.kafka:kafka_2.13:4.1.0"
# Kafka's own dependencies hold Log4j but nothing that leads SLF4J to it: Kafka would be mute. In
# one request with Kafka it would impose older versions of Kafka's jars on Kafka.
LOG_BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
_ATTEMPTS = 3


def _tell(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _find(note: Path) -> list[str]:
    import jgo
    import requests  # the resolver's
    from jgo.maven import Artifact, PythonResolver

    class Resolver(PythonResolver):
        """Leaves no half a file: jgo takes every file that exists for a whole one."""

        def download(self, artifact: Artifact) -> Path | None:
            _tell(downloading=artifact.filename)
            target = artifact.cached_path
            for left in reversed(range(_ATTEMPTS)):
                note.write_text(str(target or ""), "utf-8")
                try:
                    return super().download(artifact)
                except Exception:
                    if not left:
                        raise
                    time.sleep(1)
                finally:
                    if sys.exc_info()[0] is not None:
                        _drop_half(note)
                    note.unlink(missing_ok=True)
            return None

    jars = jgo.build(KAFKA, resolver=Resolver()).all_jars
    # Better a Kafka that says little than none, where its jars are there and the network is not.
    with contextlib.suppress(requests.RequestException):
        bridge = jgo.build(LOG_BRIDGE, resolver=Resolver()).all_jars
        jars += [jar for jar in bridge if jar.name.startswith("log4j-slf4j-impl-")]
    for jar in jars:
        if not zipfile.is_zipfile(jar):
            raise RuntimeError(f"{jar} is not a whole jar; delete it and {note.parent}, try again")
    return [str(jar) for jar in jars]


def _drop_half(note: Path) -> None:
    """Delete the file that a killed or failed download was writing."""
    if note.exists() and (half := note.read_text("utf-8")):
        Path(half).unlink(missing_ok=True)


def main(cache: Path) -> int:
    """See the module."""
    # As an exception, so that half a file is deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    logging.disable()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "jars.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two stacks that start for the first time
            note = cache / "downloading"
            _drop_half(note)
            _tell(jars=_find(note))
    except ImportError as raised:
        _tell(missing=raised.name or str(raised))
    except Exception as raised:
        _tell(error=f"{type(raised).__name__}: {raised}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
