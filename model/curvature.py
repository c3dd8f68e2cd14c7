"""The largest learning rate that does not diverge, from the curvature of the loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.engine import Engine
from hotloop.inputs import Rows
from hotloop.kernels.plan import Network
from hotloop.objectives import Objective
from hotloop.optimizers import gradient_only
from hotloop.regularization import Regularization

BATCHES, ROUNDS, MOST_ROWS = 8, 30, 4096


def gradient(
    network: Network, rows: Rows, objective: Objective, penalties: Regularization | None = None
) -> tuple[float, NDArray[Any]]:
    """Mean loss over the rows, and its gradient in the layout of the parameters, that of the penalties included."""
    engine = Engine(network, rows, objective, len(rows), 1, regularization=penalties)
    grad = np.zeros_like(network.params)
    total = engine.run(0, len(rows), gradient_only(grad))
    return total / len(rows), grad


def largest_stable_lr(
    network: Network, rows: Rows, objective: Objective, batch_size: int, momentum: float
) -> float | None:
    """2 (1 + momentum) / largest eigenvalue of the loss's Hessian, the largest over some batches of this size.

    The eigenvalue comes from power iteration on differences of gradients. None where the loss does not curve upwards.
    LeCun, Simard and Pearlmutter 1992; the factor for momentum as in Goodfellow et al., Deep Learning, 2016, ch. 8.
    """
    size = min(batch_size, MOST_ROWS, len(rows))
    curvature = 0.0
    for start in range(0, min(len(rows), BATCHES * size), size):
        chosen = np.arange(start, min(start + size, len(rows)))
        with np.errstate(over="ignore", invalid="ignore"):  # where gradients overflow there is no figure to give
            curvature = max(curvature, _largest_eigenvalue(network, rows.take(chosen).host(), objective.take(chosen)))
    return 2.0 * (1.0 + momentum) / curvature if curvature > 0 and np.isfinite(curvature) else None


def _largest_eigenvalue(network: Network, rows: Rows, objective: Objective) -> float:
    start = network.params
    reach = 1e-2 * max(1.0, float(np.abs(start).max()))
    direction = gradient(network, rows, objective)[1].astype(np.float64)
    value = 0.0
    for _ in range(ROUNDS):
        length = float(np.linalg.norm(direction))
        if length == 0.0 or not np.isfinite(length):
            break
        shift = (direction * (reach / length)).astype(start.dtype)
        ahead = gradient(Network(network.plan, start + shift), rows, objective)[1].astype(np.float64)
        behind = gradient(Network(network.plan, start - shift), rows, objective)[1].astype(np.float64)
        product = (ahead - behind) / (2.0 * reach)
        value = float(product @ direction) / length
        direction = product
    return value
