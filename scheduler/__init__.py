"""The engine: a pure core, the ports it speaks through, and the use cases that join them."""
