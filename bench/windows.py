"""What layout.window and engine._sparse_below are set by: python bench/windows.py [--rounds N]

Random dense rows of which a given part is not zero, and MNIST (0.19); one thread. Per-sample: windows of 1, 8, 24 and
16 samples, the last with all inputs visited and with the zeros skipped, and what is chosen; the same for batch 32. All
train in turn in one process.
"""

from collections.abc import Iterator
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from hotloop import MLP, SGD, Trainer, engine, layout
from hotloop.data import load_mnist

ROWS, EPOCHS = 2_000, 10
SHAPES = [(64, 32, 10), (200, 10), (200, 32, 10), (784, 10), (784, 30, 10), (784, 64, 10), (784, 128, 10)]
SHAPES += [(3000, 512, 10)]
DENSITIES = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]

console = Console(width=110)


def data(sizes: tuple[int, ...]) -> Iterator[tuple[str, Any, Any]]:
    """What rows are, they and their labels; MNIST where it fits."""
    rng = np.random.default_rng(0)
    for density in DENSITIES:
        X = rng.random((ROWS, sizes[0])) * (rng.random((ROWS, sizes[0])) < density)
        yield f"{density:g}", X.astype(np.float32), rng.integers(0, sizes[-1], ROWS)
    if sizes[0] == 784:
        digits = load_mnist()
        yield "MNIST", digits.X_train[:ROWS], digits.y_train[:ROWS]


# Batch size, window and density below which zeros are skipped; None: as the engine chooses.
WAYS: dict[str, tuple[int, int | None, float | None]] = {
    "1": (1, 1, None),
    "8": (1, 8, None),
    "24": (1, 24, None),
    "16, all": (1, 16, 0.0),
    "16, no zeros": (1, 16, 2.0),
    "chosen": (1, None, None),
    "32: all": (32, None, 0.0),
    "no zeros": (32, None, 2.0),
    "chosen ": (32, None, None),
}


def us_a_sample(sizes: tuple[int, ...], X: Any, y: Any, way: str) -> float:
    """Of the fastest epoch of a training."""
    batch_size, window, below = WAYS[way]
    windows = layout.window if window is None else lambda plan, density: window
    skips = engine._sparse_below if below is None else lambda width, window: below
    trainer = Trainer(optimizer=SGD(lr=0.01), batch_size=batch_size, epochs=EPOCHS, threads=1, progress=False)
    with mock.patch.object(layout, "window", windows), mock.patch.object(engine, "_sparse_below", skips):
        return 1e6 * min(trainer.fit(MLP(sizes, output="softmax"), X, y)["seconds"]) / len(X)


def main(rounds: Annotated[int, typer.Option(min=1, help="Rounds; the least time counts.")] = 3) -> None:
    """Measure windows, and skipping zeros, by shape and density."""
    for sizes in SHAPES:
        table = Table(title="-".join(map(str, sizes)) + ", us a sample", title_justify="left")
        for heading in ("not zero", *WAYS):
            table.add_column(heading.strip(), justify="right")
        for name, X, y in data(sizes):
            least = dict.fromkeys(WAYS, np.inf)
            for _ in range(rounds):
                for way in WAYS:
                    least[way] = min(least[way], us_a_sample(sizes, X, y, way))
            table.add_row(name, *(f"{us:.3f}" for us in least.values()))
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
