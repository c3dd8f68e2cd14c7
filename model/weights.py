"""How much each sample counts: weights given, and weights by class."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop.objectives import Objective

ClassWeight = Mapping[Any, float] | str


def weigh(objective: Objective, sample_weight: ArrayLike | None, class_weight: ClassWeight | None) -> Objective:
    """The objective with each sample's loss multiplied by its weight and by that of its class."""
    weights = np.ones(len(objective))
    if sample_weight is not None:
        weights = weights * _given(sample_weight, len(objective))
    if class_weight is not None:
        weights = weights * _by_class(objective, class_weight)
    if not weights.any():
        raise ValueError("class_weight: got weights that are all 0 for these samples, expected some more than 0.")
    check.finite("sample_weight", check.for_kernels(weights, objective.targets.dtype), weights)
    return objective.weighted(weights)


def _given(value: ArrayLike, n: int) -> NDArray[Any]:
    weights = check.numeric("sample_weight", value)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight: got shape {weights.shape}, expected ({n},), one for each sample.")
    check.finite("sample_weight", check.for_kernels(weights, np.float64), weights)
    if (weights < 0).any() or not weights.any():
        raise ValueError("sample_weight: got a negative weight or only zeros, expected 0 or more, not all 0.")
    return weights


def _by_class(objective: Objective, class_weight: ClassWeight) -> NDArray[Any]:
    """The weight of each sample's class."""
    numbers, names = _classes(objective)
    if isinstance(class_weight, str):
        check.choice("class_weight", class_weight, ["balanced"])
        counts = np.bincount(numbers, minlength=len(names))
        shares = len(numbers) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.asarray(shares[numbers])
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight: got {class_weight!r}, expected 'balanced' or a dict of class: weight.")
    if unknown := [name for name in class_weight if name not in names]:
        raise ValueError(f"class_weight: got class {unknown[0]!r}, expected some of {', '.join(map(str, names))}.")
    table = [check.number(f"class_weight[{name!r}]", class_weight.get(name, 1.0), 0.0) for name in names]
    return np.array(table)[numbers]


def _classes(objective: Objective) -> tuple[NDArray[Any], list[Any]]:
    """The class of each sample, as a place in the list of classes."""
    targets, k = objective.targets, objective.targets.shape[1]
    named = None if objective.classes is None else objective.classes.tolist()
    if objective.decision == "argmax":
        return (objective.labels if len(objective.labels) else targets.argmax(axis=1)), named or list(range(k))
    if objective.decision in ("sign", "threshold") and k == 1:
        signed = objective.decision == "sign"
        return (targets[:, 0] > (0.0 if signed else 0.5)).astype(np.int64), named or ([-1, 1] if signed else [0, 1])
    raise ValueError(f"class_weight: loss {objective.loss!r} with {k} outputs has no classes to weigh.")
