"""Theorems of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work", on one-hidden-layer nets."""

from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import (
    distinct_samples as distinct_samples,
)
