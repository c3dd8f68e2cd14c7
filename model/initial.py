"""Initial weights, drawn from the counter-based generator: the same numbers on every machine.

He et al. 2015 (variance 2 / fan_in, for units that are zero half of the time), Glorot and Bengio 2010 (2 / (fan_in +
fan_out)), LeCun et al. 1998 (1 / fan_in).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.kernels import random

RECTIFIERS = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
VARIANCES = {
    "he": lambda fan_in, fan_out: 2.0 / fan_in,
    "glorot": lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1.0 / fan_in,
}
NAMES = ("auto", "zeros", *(f"{family}_{shape}" for family in VARIANCES for shape in ("uniform", "normal")))


def fill(weight: NDArray[Any], init: str, activation: object, seed: int, layer: int) -> None:
    """Fill weight (fan_in, fan_out) in place; "auto" is He's before a rectifier and Glorot's otherwise, uniform."""
    if init == "auto":
        init = "he_uniform" if activation in RECTIFIERS else "glorot_uniform"
    if init == "zeros":
        weight[:] = 0
        return
    family, shape = init.split("_")
    deviation = math.sqrt(VARIANCES[family](*weight.shape))
    draws = np.empty(weight.shape, weight.dtype)  # whole rows: for views with padding the kernels would compile anew
    if shape == "uniform":
        random.fill_uniform(seed, layer, deviation * math.sqrt(3.0), draws)
    else:
        random.fill_normal(seed, layer, deviation, draws)
    weight[:] = draws
