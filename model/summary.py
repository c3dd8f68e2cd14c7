"""A model as a table of plain text: what it is made of, and what is kept with it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotloop.mlp import MLP


def table(model: "MLP") -> str:
    """Layers with shapes, activations, parameters and bytes; then loss, decision, preparation and classes."""
    rows = [("layer", "shape", "activation", "parameters", "bytes"), ("input", f"{model.sizes[0]:,}", "", "", "")]
    names = [*(f"hidden {i + 1}" for i in range(len(model.sizes) - 2)), "output"]
    size = model.dtype.itemsize
    layers = zip(names, pairwise(model.sizes), (*model.activations, model.output), strict=True)
    for name, (fan_in, fan_out), activation in layers:
        count = (fan_in + model.bias) * fan_out
        rows.append((name, f"{fan_in:,} x {fan_out:,}", str(activation), f"{count:,}", f"{count * size:,}"))
    rows.append(("total", "", "", f"{model.n_params:,}", f"{model.n_params * size:,}"))
    lines = _aligned(rows)
    rule = "-" * max(map(len, lines))
    lines[1:1], lines[-1:] = [rule], [rule, lines[-1]]
    return "\n".join([*lines, *_kept(model)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, the first and third to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (0, 2)
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _kept(model: "MLP") -> list[str]:
    """What is not in the layers."""
    facts = {"dtype": f"{model.dtype}{'' if model.bias else ', without biases'}", "loss": model.loss or "not trained"}
    if model.prepare is not None:
        facts["prepare"] = repr(model.prepare)
    if model.classes is not None:
        shown = ", ".join(map(str, model.classes[:6])) + (", ..." if len(model.classes) > 6 else "")
        facts["classes"] = f"{len(model.classes)}: {shown}"
    width = max(map(len, facts))
    return [f"{name:<{width}}  {value}" for name, value in facts.items()]
