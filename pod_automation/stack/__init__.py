"""The embedded stack: real Apache Kafka, Valkey or Redis, and PostgreSQL from pip alone.

For trying things out, for developing and for tests; the engine itself never imports it.
"""

from pod_automation.stack.errors import StackError
from pod_automation.stack.foreground import run_stack
from pod_automation.stack.stack import EmbeddedStack

__all__ = ["EmbeddedStack", "StackError", "run_stack"]
