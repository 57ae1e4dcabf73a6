"""Dead letters: read, choose, show, and send through the normal door again."""

from pod_automation.dead_letters.choice import Choice, moment_of
from pod_automation.dead_letters.letter import Failure, Letter, not_replayable
from pod_automation.dead_letters.reading import DeadLetters
from pod_automation.dead_letters.replaying import Replayer

__all__ = [
    "Choice",
    "DeadLetters",
    "Failure",
    "Letter",
    "Replayer",
    "moment_of",
    "not_replayable",
]
