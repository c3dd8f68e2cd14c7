"""What a short epoch takes in calls of many, and with Python between any two: python bench/short.py [--rounds N]

Whole fits in turn in one process, everything compiled, what comes before the first epoch included.
"""

import time
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from hotloop import MLP, SGD, Adam, EarlyStopping, Trainer, together, warmup
from hotloop.data import load

console = Console(width=110)
XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])


def random(rows: int, features: int, classes: int) -> tuple[Any, Any]:
    """Rows of the shape of a well-known set."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, features)).astype(np.float32), rng.integers(0, classes, rows)


DIGITS = load("digits")
WORKS: dict[str, tuple[list[int], Any, int, dict[str, Any]]] = {  # sizes, data, epochs, options
    "XOR, 2-3-2, batch 1": ([2, 3, 2], XOR, 5000, {"batch_size": 1}),
    "like iris, 4-10-3, batch 32, Adam": ([4, 10, 3], random(150, 4, 3), 1000, {"optimizer": Adam()}),
    "the same, validated": ([4, 10, 3], random(150, 4, 3), 1000, {"optimizer": Adam(), "validation_split": 0.1}),
    "digits, 64-32-10, batch 32": ([64, 32, 10], (DIGITS.X_train, DIGITS.y_train), 100, {"batch_size": 32}),
    "the same, early stopping": (
        [64, 32, 10],
        (DIGITS.X_train, DIGITS.y_train),
        100,
        {"validation_split": 0.1, "early_stopping": EarlyStopping(100)},
    ),
    "digits, 64-32-10, batch 1": ([64, 32, 10], (DIGITS.X_train, DIGITS.y_train), 100, {"batch_size": 1}),
}


def us_an_epoch(sizes: list[int], data: tuple[Any, Any], epochs: int, options: dict[str, Any]) -> float:
    """Of a whole fit."""
    trainer = Trainer(epochs=epochs, progress=False, **{"optimizer": SGD(lr=0.05), **options})
    model, began = MLP(sizes, output="softmax", seed=0), time.perf_counter()
    history = trainer.fit(model, *data)
    return 1e6 * (time.perf_counter() - began) / history.epochs


def main(rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")] = 7) -> None:
    """Measure short epochs, in calls of many and one by one."""
    warmup()
    table = Table(title="us an epoch", title_justify="left")
    for heading in ("", "in calls of many", "one by one", "times as long"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, work in WORKS.items():
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            many = us_an_epoch(*work)
            with mock.patch.object(together, "of", lambda fitting: None):
                times.append((many, us_an_epoch(*work)))
        many, single = np.median(times, axis=0)
        table.add_row(name, f"{many:.1f}", f"{single:.1f}", f"{single / many:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
