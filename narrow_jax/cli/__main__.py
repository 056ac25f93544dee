"""``python -m narrow_jax.cli``."""

from narrow_jax.cli import script

script()
