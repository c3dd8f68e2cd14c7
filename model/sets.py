"""Samples with their objective, and how good a network is on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hotloop import metrics as merit
from hotloop.engine import infer
from hotloop.inputs import Rows
from hotloop.kernels import inference, losses
from hotloop.kernels.plan import Network
from hotloop.objectives import Objective


@dataclass(frozen=True)
class Set:
    """Samples with their objective."""

    rows: Rows
    objective: Objective


def columns(training: Set, validation: Set | None) -> list[str]:
    """The history's columns."""
    validated = [f"val_{name}" for name in ("loss", *training.objective.figures)] if validation else []
    return ["loss", "lr", "seconds", *validated]


def figures(network: Network, data: Set, threads: int, breathe: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Mean loss, and the figures of merit, of a network on checked data."""
    objective = data.objective
    outputs = infer(network, data.rows, objective.activation, threads, breathe)
    delta, weights = np.empty(outputs.shape[1], outputs.dtype), objective.weights
    code = losses.ready(objective.code, outputs.dtype)
    total = inference.total_loss(code, outputs, objective.targets, objective.labels, weights, delta)
    loss = total / (float(weights.sum(dtype=np.float64)) if len(weights) else len(outputs))
    return {"loss": loss, **merit.figures(objective.figures, objective, outputs)}
