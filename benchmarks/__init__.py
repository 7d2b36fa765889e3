"""Benchmarks: what the warehouse is measured against, each a command `python -m benchmarks.NAME`."""
