"""Theorems as functions: each checks its assumptions on a net and its data and returns constants and a verdict.

``memorization``  an exact zero-loss net is near the given one (Newton–Kantorovich)
``nice_region``   the radius in which every stationary point is a global minimum (Theorem 1)
``kkt``           how far from a KKT point of problem (7), and whether KKT points have loss 0 (Theorem 2)
``LossBound``     what the loss can be at most by how far that is, along training, as a monitor for ``fit``
``gradient_descent``  gradient descent from here reaches loss 0: up to which step, at which rate, within which ball
``GradientDescentBound``  the same along training, as a monitor for ``fit``
``gradient_bound``    what the gradient at a point proves of the loss there
``assumptions``   what the theorems ask of data, width and activation
``pyramidal``             Theorem 3.2 of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal
                          Topology": whether, and how fast, gradient descent reaches a global minimum
``PyramidalInvariants``   what its proof keeps along training, as a monitor for ``fit``
``lambda_star``           λ_* of its section 3.2, with ``hermite_coefficients`` and ``khatri_rao_sigma_min``
``width_requirements``    Table 1 for given N and L, and ``lecun_width``, the scaling (12); with d and k, how many
                          neurons fitting n samples takes by counting, by Theorem 1 and by others
``stationary_value``      the loss that a deep net must have at every differentiable stationary point
``basis_function_bound``  local minima against regression on the net's own features
``regression_value``, ``linear_units``, ``separated_params``  what that bound speaks of
``white_noise_loss``      the loss of local minima on Gaussian data, predicted and simulated
``THEOREMS``              every numbered statement of the three papers, and where its code is; print it
"""

from narrow_jax.certificates.depth_width.definitions1_2_linear_units import (
    LinearUnits,
    linear_units,
    separated_params,
)
from narrow_jax.certificates.depth_width.factorizations import CUTOFFS as CUTOFFS
from narrow_jax.certificates.depth_width.proposition2_white_noise import WhiteNoiseLoss, white_noise_loss
from narrow_jax.certificates.depth_width.theorem1_stationary_value import METHODS as METHODS
from narrow_jax.certificates.depth_width.theorem1_stationary_value import StationaryValue, stationary_value
from narrow_jax.certificates.depth_width.theorem2_basis_functions import (
    BasisFunctionBound,
    basis_function_bound,
    regression_value,
)
from narrow_jax.certificates.narrow_nets.assumptions import Assumptions, Check, assumptions
from narrow_jax.certificates.narrow_nets.convergence_of_gradient_descent import (
    GradientDescent,
    gradient_descent,
)
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import (
    DistinctSamples as DistinctSamples,
)
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import (
    distinct_samples as distinct_samples,
)
from narrow_jax.certificates.narrow_nets.descent_along_training import GradientDescentBound
from narrow_jax.certificates.narrow_nets.gradient_bound import GradientBound, gradient_bound
from narrow_jax.certificates.narrow_nets.loss_bound_along_training import LossBound
from narrow_jax.certificates.narrow_nets.problem7 import Constrained as Constrained
from narrow_jax.certificates.narrow_nets.problem7 import Point as Point
from narrow_jax.certificates.narrow_nets.problem7 import constrained as constrained
from narrow_jax.certificates.narrow_nets.problem7 import measure as measure
from narrow_jax.certificates.narrow_nets.problem7 import natural as natural
from narrow_jax.certificates.narrow_nets.problem7 import start_gradient as start_gradient
from narrow_jax.certificates.narrow_nets.theorem1_memorization import Memorization, memorization
from narrow_jax.certificates.narrow_nets.theorem1_nice_region import NiceRegion, nice_region
from narrow_jax.certificates.narrow_nets.theorem2_kkt import KKT, kkt, natural_residual
from narrow_jax.certificates.narrow_nets.widths_beside_theorem1 import NarrowWidth
from narrow_jax.certificates.pyramidal_nets.constants import Constants as Constants
from narrow_jax.certificates.pyramidal_nets.equation13_lambda_star import LambdaStar, lambda_star
from narrow_jax.certificates.pyramidal_nets.equation21_invariants import Broken, PyramidalInvariants
from narrow_jax.certificates.pyramidal_nets.guarantee import Guarantee
from narrow_jax.certificates.pyramidal_nets.lemma3_4_khatri_rao_powers import (
    hermite_coefficients,
    hermite_tail,
    khatri_rao_sigma_min,
)
from narrow_jax.certificates.pyramidal_nets.measured_norms import StartNorms as StartNorms
from narrow_jax.certificates.pyramidal_nets.measured_norms import check_start as check_start
from narrow_jax.certificates.pyramidal_nets.table1_widths import (
    LecunWidth,
    WidthRequirement,
    lecun_width,
    width_requirements,
)
from narrow_jax.certificates.pyramidal_nets.theorem3_2_convergence import PyramidalCertificate, pyramidal
from narrow_jax.certificates.theorems import THEOREMS

__all__ = [
    "KKT",
    "THEOREMS",
    "Assumptions",
    "BasisFunctionBound",
    "Broken",
    "Check",
    "GradientBound",
    "GradientDescent",
    "GradientDescentBound",
    "Guarantee",
    "LambdaStar",
    "LecunWidth",
    "LinearUnits",
    "LossBound",
    "Memorization",
    "NarrowWidth",
    "NiceRegion",
    "PyramidalCertificate",
    "PyramidalInvariants",
    "StationaryValue",
    "WhiteNoiseLoss",
    "WidthRequirement",
    "assumptions",
    "basis_function_bound",
    "gradient_bound",
    "gradient_descent",
    "hermite_coefficients",
    "hermite_tail",
    "khatri_rao_sigma_min",
    "kkt",
    "lambda_star",
    "lecun_width",
    "linear_units",
    "memorization",
    "natural_residual",
    "nice_region",
    "pyramidal",
    "regression_value",
    "separated_params",
    "stationary_value",
    "white_noise_loss",
    "width_requirements",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
