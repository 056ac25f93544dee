"""Numbers and matrices: everything proven rests here, and nothing here knows a net."""

from narrow_jax.linalg import context as context
from narrow_jax.linalg import elementary as elementary
from narrow_jax.linalg import lanczos as lanczos
from narrow_jax.linalg import rounding as rounding
from narrow_jax.linalg.algebra import Algebra as Algebra
from narrow_jax.linalg.algebra import Products as Products
from narrow_jax.linalg.algebra import Scalar as Scalar
from narrow_jax.linalg.algebra import Truth as Truth
from narrow_jax.linalg.context import isolated as isolated
from narrow_jax.linalg.extreme_values import Extremes as Extremes
from narrow_jax.linalg.extreme_values import eigenvalue_bound as eigenvalue_bound
from narrow_jax.linalg.extreme_values import extremes as extremes
from narrow_jax.linalg.jacobian import Jacobian as Jacobian
from narrow_jax.linalg.lanczos import Ritz as Ritz
from narrow_jax.linalg.on_device import DEVICE as DEVICE
from narrow_jax.linalg.on_host import HOST as HOST
from narrow_jax.linalg.on_host import householder as householder
from narrow_jax.linalg.operators import Bounds as Bounds
from narrow_jax.linalg.operators import EvaluatedJacobian as EvaluatedJacobian
from narrow_jax.linalg.operators import Gram as Gram
from narrow_jax.linalg.operators import Stored as Stored
from narrow_jax.linalg.operators import block as block
from narrow_jax.linalg.operators import gram_by_blocks as gram_by_blocks
from narrow_jax.linalg.operators import indices as indices
from narrow_jax.linalg.rank import MARGIN as MARGIN
from narrow_jax.linalg.rank import column_exponents as column_exponents
from narrow_jax.linalg.rank import equilibrated as equilibrated
from narrow_jax.linalg.rank import has_gap as has_gap
from narrow_jax.linalg.rank import numerical_rank as numerical_rank
from narrow_jax.linalg.rounding import UNIT as UNIT
from narrow_jax.linalg.rounding import collatz_wielandt as collatz_wielandt
from narrow_jax.linalg.rounding import symmetric as symmetric

host = HOST
