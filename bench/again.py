"""What others are measured at too, once more: a machine is not the same an hour later.

A whole run has it behind the peers, and its values join those from before them; so how the machine
changed in between tells neither for us nor against us, and shows in the range.
"""

from collections.abc import Sequence

from bench import drain, ingest, lateness, limits, wheel
from bench.harness import Bench
from bench.results import Figure


async def run(bench: Bench) -> Sequence[Figure]:
    """The limits, the wheel at the peers' size, ingest, drain and lateness."""
    return [
        figure
        for part in (limits.run, wheel.compared, ingest.run, drain.run, lateness.run)
        for figure in await part(bench)
    ]
