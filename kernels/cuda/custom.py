"""Activations and losses of a user's own in the GPU's kernels, which are compiled anew for each set of them."""

from functools import cache
from typing import Any, NamedTuple

from hotloop.kernels.cuda import activations, losses
from hotloop.kernels.cuda.shim import cast, device, shared
from hotloop.kernels.custom import LEAST_CODE


class Activation(NamedTuple):
    """Two functions of one number; `code`, `hotloop.kernels.custom.LEAST_CODE` or more, stands for them in a plan."""

    code: int
    value: Any
    slope: Any


class Loss(NamedTuple):
    """Either value and slope by (prediction, target), or row by (prediction, target or class, k, delta)."""

    value: Any = None
    slope: Any = None
    row: Any = None
    classes: bool = False  # row takes a class


class Own(NamedTuple):
    """All that a training or an inference has of them."""

    activations: tuple[Activation, ...] = ()
    loss: Loss | None = None

    @property
    def apart(self) -> bool:
        """Whether the loss must not write its delta over the prediction, as the library's may."""
        return self.loss is not None and self.loss.row is not None

    @property
    def numbered(self) -> tuple[Activation, ...]:
        """The activations with codes of 32 bits: LEAST_CODE and following."""
        return tuple(each._replace(code=LEAST_CODE + i) for i, each in enumerate(self.activations))


NOTHING = Own()


@cache
def make_activate(own: tuple[Activation, ...]) -> Any:
    """`activations.activate` that knows these too."""
    if not own:
        return activations.activate
    others, code = make_activate(own[:-1]), own[-1].code
    value, slope = shared(own[-1].value), shared(own[-1].slope)

    @device
    def activate(chosen, z):
        if chosen == code:
            return cast(value(z), z), cast(slope(z), z)
        return others(chosen, z)

    return activate


@cache
def make_row(own: Loss | None) -> Any:
    """`losses.row`, or the user's own loss with the same arguments."""
    if own is None:
        return losses.row
    if own.row is not None:
        function = shared(own.row)

        @device
        def by_class(code, prediction, target, label, k, delta):
            return cast(function(prediction, label, k, delta), prediction[0])

        @device
        def by_row(code, prediction, target, label, k, delta):
            return cast(function(prediction, target, k, delta), prediction[0])

        return by_class if own.classes else by_row
    value, slope = shared(own.value), shared(own.slope)

    @device
    def mean(code, prediction, target, label, k, delta):
        """The mean over the outputs."""
        total, share = prediction.dtype.type(0), prediction.dtype.type(1) / prediction.dtype.type(k)
        for j in range(k):
            p, t = prediction[j], target[j]
            total += cast(value(p, t), p)
            delta[j] = cast(slope(p, t), p) * share
        return total * share

    return mean
