"""Theorems of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work", on nets and pairs of any depth."""

from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import (
    DistinctSamples as DistinctSamples,
)
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import (
    distinct_samples as distinct_samples,
)
from narrow_jax.certificates.narrow_nets.widths_beside_theorem1 import NarrowWidth as NarrowWidth
from narrow_jax.certificates.narrow_nets.widths_beside_theorem1 import narrow_widths as narrow_widths
