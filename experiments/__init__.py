"""One module a figure; each runs as ``python -m experiments.NAME``."""
