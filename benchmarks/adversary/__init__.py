"""A standing campaign against everything that the library proves, with references by formulas of its own.

``exact``     linear algebra and activations in 150 digits, ranks and projections in integers
``sigma``     random and hill-climbed intervals of σ_min, hard by ``tricks``
``memorized`` ``memorization``: Newton's method in 150 digits, labels that no net can have
``regions``   ``nice_region`` and ``kkt``: singular and KKT points that are known in closed form
``pyramids``  ``pyramidal``: the constants of Theorem 3.2, and the descent that it promises
``ranks``     ``stationary_value``, ``basis_function_bound``, ``regression_value``, ``assumptions``,
              ``admissible_width``: the same function in other units
``campaign``  all of them, in processes side by side
"""
