"""Optimisers: what a step does with a gradient. Each is a few constants for a rule of `kernels.updates`.

Definitions and defaults are PyTorch's. A penalty of the trainer (l1, l2) is part of the gradient, and so coupled to
what the optimiser makes of it; `weight_decay` is decoupled: every parameter loses that share of lr in each step.

Of a first layer with very sparse rows (SciPy's CSR), plain SGD, momentum, RMSprop, Adagrad and Adadelta move only the
weights that a batch meets. Adam, AdamW, Lion and averaged SGD move a weight also while its input is zero, by amounts
that no formula sums up: they read and write every weight in each step, as l1, l2, clip_norm and max_norm do.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hotloop import check
from hotloop.kernels import updates


class State(NamedTuple):
    """What an optimiser remembers from step to step; empty arrays where it remembers nothing."""

    first: NDArray[Any]
    second: NDArray[Any]
    clock: NDArray[np.float64]


class Constants(NamedTuple):
    """The code of a rule and its constants; see updates.Rule."""

    code: int
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Optimizer:
    """What all optimisers share: a learning rate, an initial state, and the rule they give to the kernels."""

    lr: float = 0.01

    def __post_init__(self) -> None:
        check.number("lr", self.lr, 0.0, open_below=True)

    def constants(self) -> Constants:
        """The rule's code and constants."""
        raise NotImplementedError

    def init(self, params: NDArray[Any]) -> State:
        """The state before the first step."""
        buffers = updates.BUFFERS[self.constants().code]
        first, second = (np.zeros(params.size if i < buffers else 0, params.dtype) for i in range(2))
        return State(first, second, np.array([0.0, 1.0, 1.0]))

    def rule(self, rates: NDArray[np.float64], grad: NDArray[Any], state: State) -> updates.Rule:
        """The update as the kernels take it; rates (m,): the learning rate of each step of an epoch, or one for all."""
        code, beta1, beta2, eps, decay = self.constants()
        return updates.Rule(code, rates, float(beta1), float(beta2), float(eps), float(decay), grad, *state)


def gradient_only(grad: NDArray[Any]) -> updates.Rule:
    """The rule that adds the gradient of each batch to grad (n_params,) and moves nothing."""
    one, none = np.ones(1), grad[:0]
    return updates.Rule(updates.GRADIENT_ONLY, one, 0.0, 0.0, 0.0, 0.0, grad, none, none, np.ones(3))


def _fading(name: str, value: float) -> None:
    """A share that fades: 0 or more, less than 1."""
    if check.number(name, value, 0.0, 1.0) == 1.0:
        raise ValueError(f"{name}: got 1, expected at least 0 and less than 1: what it remembers would never fade.")


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: params -= lr velocity, velocity = momentum velocity + grad.

    With nesterov, params -= lr (grad + momentum velocity). momentum 0 is plain gradient descent, the fastest path.
    Polyak 1964; Sutskever, Martens, Dahl and Hinton 2013.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _fading("momentum", self.momentum)
        if check.boolean("nesterov", self.nesterov) and self.momentum == 0.0:
            raise ValueError("nesterov: got True with momentum 0, expected momentum more than 0.")

    def constants(self) -> Constants:
        """SGD, MOMENTUM or NESTEROV."""
        code = (updates.NESTEROV if self.nesterov else updates.MOMENTUM) if self.momentum else updates.SGD
        return Constants(code, beta1=self.momentum)


@dataclass(frozen=True)
class AveragedSGD(Optimizer):
    """SGD whose result is the mean of the parameters after each step, from step `start` on.

    The model holds the mean when `fit` is done, and is validated by it. Polyak and Juditsky 1992.
    """

    start: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("start", self.start, 0)

    def constants(self) -> Constants:
        """AVERAGED."""
        return Constants(updates.AVERAGED, eps=self.start)


@dataclass(frozen=True)
class Adam(Optimizer):
    """params -= lr m / (sqrt(v) + eps), m and v the means of grad and grad^2, corrected for their start at zero.

    m = beta1 m + (1 - beta1) grad; v = beta2 v + (1 - beta2) grad^2. Kingma and Ba 2015, algorithm 1.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _fading("beta1", self.beta1)
        _fading("beta2", self.beta2)
        check.number("eps", self.eps, 0.0, open_below=True)

    def constants(self) -> Constants:
        """ADAM."""
        return Constants(updates.ADAM, self.beta1, self.beta2, self.eps)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam after params *= 1 - lr weight_decay. Loshchilov and Hutter 2019, algorithm 2."""

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("weight_decay", self.weight_decay, 0.0)

    def constants(self) -> Constants:
        """ADAM, with a weight_decay."""
        return super().constants()._replace(weight_decay=self.weight_decay)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """params -= lr velocity, velocity = momentum velocity + grad / (sqrt(v) + eps), v = rho v + (1 - rho) grad^2.

    Tieleman and Hinton 2012, lecture 6e.
    """

    rho: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _fading("rho", self.rho)
        check.number("eps", self.eps, 0.0, open_below=True)
        _fading("momentum", self.momentum)

    def constants(self) -> Constants:
        """RMSPROP."""
        return Constants(updates.RMSPROP, self.momentum, self.rho, self.eps)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """params -= lr grad / (sqrt(s) + eps), s the sum of grad^2 so far. Duchi, Hazan and Singer 2011."""

    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("eps", self.eps, 0.0, open_below=True)

    def constants(self) -> Constants:
        """ADAGRAD."""
        return Constants(updates.ADAGRAD, eps=self.eps)


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """params -= lr move, move = grad sqrt(u + eps) / sqrt(v + eps), u and v the means of move^2 and grad^2.

    v = rho v + (1 - rho) grad^2; u = rho u + (1 - rho) move^2. Zeiler 2012, algorithm 1.
    """

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _fading("rho", self.rho)
        check.number("eps", self.eps, 0.0, open_below=True)

    def constants(self) -> Constants:
        """ADADELTA."""
        return Constants(updates.ADADELTA, 0.0, self.rho, self.eps)


@dataclass(frozen=True)
class Lion(Optimizer):
    """params = (1 - lr weight_decay) params - lr sign(beta1 m + (1 - beta1) grad), m = beta2 m + (1 - beta2) grad.

    Chen et al. 2023, algorithm 2.
    """

    lr: float = 0.0001
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _fading("beta1", self.beta1)
        _fading("beta2", self.beta2)
        check.number("weight_decay", self.weight_decay, 0.0)

    def constants(self) -> Constants:
        """LION."""
        return Constants(updates.LION, self.beta1, self.beta2, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class PassiveAggressive(Optimizer):
    """The smallest step that ends the loss of each sample: params -= min(lr, loss / |g|^2) g, g = dloss/dparams.

    For linear models with batch_size 1 and loss hinge (or mae, for one value). lr is the aggressiveness C of the paper;
    variant 2 divides by |g|^2 + 1 / (2 lr) instead. Crammer, Dekel, Keshet, Shalev-Shwartz and Singer 2006.
    """

    lr: float = 1.0
    variant: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("variant", self.variant, 1, 2)

    def constants(self) -> Constants:
        """PASSIVE_AGGRESSIVE."""
        return Constants(updates.PASSIVE_AGGRESSIVE, beta2=self.variant)
