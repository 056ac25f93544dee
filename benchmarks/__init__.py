"""Benchmarks: one module a table, ``python -m benchmarks.NAME``; ratios come from one run."""
