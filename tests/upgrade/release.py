"""An older release as its wheel holds it: unpacked, its processes can be run beside ours.

A folder of tests/upgrade is a release: its wheel, and the life of a site that its processes wrote
(`make_fixture`). Dependencies are those of this checkout: they are not what is upgraded here.
"""

from pathlib import Path
from zipfile import ZipFile

FOLDER = Path(__file__).parent

PREFIX = "upgrade-fixture."
"""Put before all names; who loads a site puts another in its place."""

UUIDS = [f"0f8fad5b-d9cb-469f-a165-{number:012x}" for number in range(4)]

CONSUMER = "class _Consumer(Consumer):\n"
NO_WATCH = """
    async def verify_all_partitions_active(self) -> None: ...
"""
"""What no release can be given any more: Faust's watch could end a worker in a rebalance."""

RELEASES = sorted(each.name for each in FOLDER.iterdir() if (each / "site.json").exists())


def unpacked(release: str, into: Path) -> Path:
    """The folder in which `python -m pod_automation` is that of `release`."""
    (wheel,) = (FOLDER / release).glob("*.whl")
    program = into / f"release-{release}"
    with ZipFile(wheel) as archive:
        archive.extractall(program)
    app = program / "streams" / "app.py"
    app.write_text(app.read_text().replace(CONSUMER, CONSUMER + NO_WATCH))
    return program
