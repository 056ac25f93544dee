"""Where each definition, theorem, lemma and equation of the three papers has its code."""

from __future__ import annotations

from typing import Any, NamedTuple

from narrow_jax import _checks

NARROW = "When Expressivity Meets Trainability"
PYRAMIDAL = "Global Convergence of Deep Networks"
DEPTH_WIDTH = "Effect of Depth and Width on Local Minima"


class Statement(NamedTuple):
    """A statement of a paper, and the dotted name below ``narrow_jax`` of what computes or checks it."""

    paper: str
    statement: str
    code: str


class Theorems(tuple[Statement, ...]):
    """The statements in the order of the papers; printed, a table. By name, ``["Theorem 1"]``, those of all papers."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """Return what stands there, or the statements whose name begins like that, such as "Theorem 1 (i)".

        Raises:
            ValueError: a statement that no paper has.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        rows = Theorems(row for row in self if f"{row.statement} ".startswith((key + " ", key + ",")))
        if not rows:
            _checks.choice("statement", key, dict.fromkeys(row.statement for row in self))
        return rows

    def __str__(self) -> str:
        """Return a row a statement, under the titles of the papers."""
        lines, paper = [], ""
        for row in self:
            lines += [row.paper] if row.paper != paper else []
            lines.append(f"  {row.statement:<24} narrow_jax.{row.code}")
            paper = row.paper
        return "\n".join(lines)


_NARROW_NETS = "certificates.narrow_nets."
_PYRAMIDAL_NETS = "certificates.pyramidal_nets."
_DEPTH_WIDTH = "certificates.depth_width."

THEOREMS = Theorems(
    Statement(*row)
    for row in (
        (NARROW, "Equation (1)", "models.standard_apply"),
        (NARROW, "Equation (2)", "losses.squared"),
        (NARROW, "Equation (3)", "jacobian.standard"),
        (NARROW, "Definition 1", _NARROW_NETS + "definition1_distinct_samples.distinct_samples"),
        (NARROW, "Algorithm 1", "initializers.mirrored_lecun"),
        (NARROW, "Assumption 1", "certificates.assumptions"),
        (NARROW, "Assumption 2", "certificates.assumptions"),
        (NARROW, "Assumption 3", "certificates.assumptions"),
        (NARROW, "Theorem 1 (i)", "certificates.memorization"),
        (NARROW, "Appendix C", "certificates.width_requirements"),
        (NARROW, "Theorem 1 (ii)", "certificates.nice_region"),
        (NARROW, "Equation (5)", "solvers.memorize"),
        (NARROW, "Equation (6)", "models.pairwise_apply"),
        (NARROW, "Problem (7)", "solvers.solve_kkt"),
        (NARROW, "Problem (7), w", "projections.l2_ball"),
        (NARROW, "Problem (7), v", "projections.ratio_cone"),
        (NARROW, "Problem (7), KKT", "certificates.natural_residual"),
        (NARROW, "Theorem 2", "certificates.kkt"),
        (NARROW, "Equation (8)", "certificates.kkt"),
        (NARROW, "Algorithm 2", "constraints.regime"),
        (PYRAMIDAL, "Equation (1)", "models.mlp_apply"),
        (PYRAMIDAL, "Assumption 2.1", _PYRAMIDAL_NETS + "assumptions.topology_defects"),
        (PYRAMIDAL, "Assumption 2.2", _PYRAMIDAL_NETS + "assumptions.activation_defects"),
        (PYRAMIDAL, "Equation (2)", "activations.smooth_leaky_relu"),
        (PYRAMIDAL, "Equation (3)", _PYRAMIDAL_NETS + "constants.Constants"),
        (PYRAMIDAL, "Assumption 3.1", _PYRAMIDAL_NETS + "assumptions.data_defects"),
        (PYRAMIDAL, "Equation (4)", _PYRAMIDAL_NETS + "constants.Constants"),
        (PYRAMIDAL, "Equation (5)", _PYRAMIDAL_NETS + "constants.Constants"),
        (PYRAMIDAL, "Theorem 3.2", "certificates.pyramidal"),
        (PYRAMIDAL, "Equation (6)", _PYRAMIDAL_NETS + "constants.Constants"),
        (PYRAMIDAL, "Equation (7)", "certificates.Guarantee.loss_bound"),
        (PYRAMIDAL, "Equation (8)", _PYRAMIDAL_NETS + "constants.Constants"),
        (PYRAMIDAL, "Equation (9)", "certificates.Guarantee.distance_bound"),
        (PYRAMIDAL, "Section 3.1", "solvers.pyramidal_start"),
        (PYRAMIDAL, "Equation (12)", "certificates.lecun_width"),
        (PYRAMIDAL, "Equation (13)", "certificates.lambda_star"),
        (PYRAMIDAL, "Theorem 3.3", "certificates.lambda_star"),
        (PYRAMIDAL, "Equation (16)", "certificates.hermite_coefficients"),
        (PYRAMIDAL, "Lemma 3.4", "certificates.khatri_rao_sigma_min"),
        (PYRAMIDAL, "Lemma 4.1", _PYRAMIDAL_NETS + "sharper_constants.envelope"),
        (PYRAMIDAL, "Lemma 4.2", _PYRAMIDAL_NETS + "sharper_constants.envelope"),
        (PYRAMIDAL, "Equation (21)", "certificates.PyramidalInvariants"),
        (PYRAMIDAL, "Table 1", "certificates.width_requirements"),
        (DEPTH_WIDTH, "Equation (2.1)", "losses.squared"),
        (DEPTH_WIDTH, "Proposition 1", "certificates.stationary_value"),
        (DEPTH_WIDTH, "Equation (3.2)", "certificates.stationary_value"),
        (DEPTH_WIDTH, "Proposition 2", "certificates.white_noise_loss"),
        (DEPTH_WIDTH, "Equation (4.1)", "models.mlp_apply"),
        (DEPTH_WIDTH, "Theorem 1", "certificates.stationary_value"),
        (DEPTH_WIDTH, "Equation (4.2)", "certificates.stationary_value"),
        (DEPTH_WIDTH, "Definition 1", "certificates.linear_units"),
        (DEPTH_WIDTH, "Theorem 2", "certificates.basis_function_bound"),
        (DEPTH_WIDTH, "Equation (5.1)", "certificates.basis_function_bound"),
        (DEPTH_WIDTH, "Corollary 1", "certificates.basis_function_bound"),
        (DEPTH_WIDTH, "Equation (5.2)", "certificates.basis_function_bound"),
        (DEPTH_WIDTH, "Definition 2", "certificates.linear_units"),
        (DEPTH_WIDTH, "Corollary 2", "certificates.basis_function_bound"),
        (DEPTH_WIDTH, "Lemma 1", _DEPTH_WIDTH + "tangent.tangent"),
        (DEPTH_WIDTH, "Lemma 3", _DEPTH_WIDTH + "theorem1_stationary_value.improvements"),
        (DEPTH_WIDTH, "Lemma 5", _DEPTH_WIDTH + "proposition2_white_noise.loss_and_rank"),
        (DEPTH_WIDTH, "Lemma 6", "certificates.white_noise_loss"),
        (DEPTH_WIDTH, "Appendix C", _DEPTH_WIDTH + "factorizations.Cutoffs"),
    )
)
"""Print it for the table: ``print(nj.certificates.THEOREMS)``."""
