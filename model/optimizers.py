"""Optimisers: what a step does with a gradient, as plain constants that the kernels read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import check
from hotloop.kernels.epochs import MOMENTUM, NESTEROV, Rule
from hotloop.kernels.epochs import SGD as PLAIN


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: params -= lr velocity, velocity = momentum velocity + grad.

    With nesterov, params -= lr (grad + momentum velocity). momentum 0 is plain gradient descent, the fastest path.
    Definitions are PyTorch's. Polyak 1964; Sutskever, Martens, Dahl and Hinton 2013.
    """

    lr: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check.number("lr", self.lr, 0.0, open_below=True)
        if check.number("momentum", self.momentum, 0.0, 1.0) == 1.0:
            raise ValueError("momentum: got 1, expected at least 0 and less than 1: the velocity would never fade.")
        if check.boolean("nesterov", self.nesterov) and self.momentum == 0.0:
            raise ValueError("nesterov: got True with momentum 0, expected momentum more than 0.")

    def init(self, params: NDArray[Any]) -> NDArray[Any]:
        """The optimiser's state before the first step: the velocity, or nothing."""
        return np.zeros(params.size if self.momentum else 0, params.dtype)

    def rule(self, lr: float, grad: NDArray[Any], state: NDArray[Any]) -> Rule:
        """The update as the kernels take it."""
        code = (NESTEROV if self.nesterov else MOMENTUM) if self.momentum else PLAIN
        return Rule(code, float(lr), float(self.momentum), grad, state)
