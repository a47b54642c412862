"""Array types that signatures of the router name; shapes stand in docstrings."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
"""As torch computes."""
Ints = NDArray[np.int64]
