"""What keeps a network from learning its samples by heart, checked and in the form of the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop import check
from hotloop.kernels import regularize


@dataclass(frozen=True)
class Regularization:
    """Penalties, bounds, dropout and noise; zero or None is none of it. The fields are explained in `Trainer`."""

    l1: float = 0.0
    l2: float = 0.0
    clip_value: float | None = None
    clip_norm: float | None = None
    max_norm: float | None = None
    dropout: float | Sequence[float] = 0.0
    input_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "input_noise"):
            check.number(name, getattr(self, name), 0.0)
        for name in ("clip_value", "clip_norm", "max_norm"):
            if getattr(self, name) is not None:
                check.number(name, getattr(self, name), 0.0, open_below=True)
        several = isinstance(self.dropout, list | tuple)
        for i, share in enumerate(self.dropout if several else [self.dropout]):  # type: ignore[arg-type]
            name = f"dropout[{i}]" if several else "dropout"
            if check.number(name, share, 0.0, 1.0) == 1.0:
                raise ValueError(f"{name}: got 1, expected at least 0 and less than 1: nothing would be left.")

    @property
    def direct(self) -> bool:
        """Whether plain SGD may move the weights without a gradient buffer."""
        return not (self.l1 or self.l2 or self.clip_value or self.clip_norm or self.max_norm)

    def penalty(self, weights: Sequence[NDArray[Any]]) -> float:
        """l1 sum |w| + l2/2 sum w^2 over the weights of all layers."""
        sizes = [np.abs(weight, dtype=np.float64) for weight in weights]
        return sum(self.l1 * float(size.sum()) + 0.5 * self.l2 * float(np.square(size).sum()) for size in sizes)

    def shares(self, layers: int) -> list[float]:
        """The share of units dropped of the input and of each hidden layer, for a network of so many weight layers."""
        if not isinstance(self.dropout, list | tuple):
            return [0.0] + [float(self.dropout)] * (layers - 1)  # type: ignore[arg-type]
        if len(self.dropout) != layers:
            raise ValueError(
                f"dropout: got {len(self.dropout)} shares, expected {layers}: the input's, then each hidden layer's."
            )
        return [float(share) for share in self.dropout]

    def changes_inputs(self, layers: int) -> bool:
        """Whether the rows a network sees are not the rows given."""
        return self.input_noise > 0.0 or self.shares(layers)[0] > 0.0

    def for_kernels(self, layers: int, dtype: DTypeLike, seed: int, epoch: int = 0) -> regularize.Regular:
        """The same for the processor's kernels, for a network of so many weight layers of this dtype, in one epoch."""
        return regularize.ready(self.numbers(layers, seed, epoch), dtype)

    def numbers(self, layers: int, seed: int, epoch: int = 0) -> regularize.Regular:
        """The same without the addresses of what is compiled for it."""
        shares = np.array(self.shares(layers))
        return regularize.Regular(
            float(self.l1),
            float(self.l2),
            float(self.clip_value or 0.0),
            float(self.clip_norm or 0.0),
            float(self.max_norm or 0.0),
            shares if shares.any() else shares[:0],
            float(self.input_noise),
            seed,
            np.array([epoch]),
        )
