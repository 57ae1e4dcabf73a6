"""The example's stand-in for a platform: what it could not do is not done."""

from pathlib import Path

import pytest

from examples.executor import Platform

pytestmark = pytest.mark.timeout(30)


async def test_a_write_that_failed_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    platform = Platform(folder / "platform.ndjson")
    with pytest.raises(FileNotFoundError):
        await platform.engage("like", "post", "ann", "key")
    folder.mkdir()
    for _ in range(2):
        await platform.engage("like", "post", "ann", "key")
    assert (folder / "platform.ndjson").read_text().count('"key": "key"') == 1
