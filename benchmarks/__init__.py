"""Benchmarks by subject, each run as ``python -m benchmarks.SUBJECT``; see ``benchmarks/README.md``."""
