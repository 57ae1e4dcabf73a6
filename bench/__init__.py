"""Benchmarks on real servers: `python -m bench --help`."""
