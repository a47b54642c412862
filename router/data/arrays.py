"""Array types that signatures of the router name; shapes stand in docstrings."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
"""The width in which torch computes."""
Ints = NDArray[np.int64]
