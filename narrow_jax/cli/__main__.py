"""``python -m narrow_jax.cli``."""

import sys

from narrow_jax.cli import main

sys.exit(main())
