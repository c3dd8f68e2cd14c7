"""What layout.window and engine._sparse_below are set by: python bench/windows.py [--rounds N]

Random dense rows of which a given part is not zero, and MNIST (0.19); one thread. Per-sample: windows of one sample,
of sixteen, and those that are chosen; batch 32: all inputs visited, and the zeros skipped. All train in turn in one
process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

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

console = Console()


@contextmanager
def set_to(**values: Any) -> Iterator[None]:
    """With these functions and numbers of the engine in place of its own."""
    owners = {name: layout if hasattr(layout, name) else engine for name in values}
    before = {name: getattr(owner, name) for name, owner in owners.items()}
    try:
        for name, owner in owners.items():
            setattr(owner, name, values[name])
        yield
    finally:
        for name, owner in owners.items():
            setattr(owner, name, before[name])


def data(sizes: tuple[int, ...]) -> Iterator[tuple[str, Any, Any]]:
    """What rows are, they and their labels; MNIST where it fits."""
    rng = np.random.default_rng(0)
    for density in DENSITIES:
        X = rng.random((ROWS, sizes[0])) * (rng.random((ROWS, sizes[0])) < density)
        yield f"{density:g}", X.astype(np.float32), rng.integers(0, sizes[-1], ROWS)
    if sizes[0] == 784:
        digits = load_mnist()
        yield "MNIST", digits.X_train[:ROWS], digits.y_train[:ROWS]


def us_a_sample(sizes: tuple[int, ...], X: Any, y: Any, batch_size: int) -> float:
    """Of the fastest epoch of a training."""
    trainer = Trainer(optimizer=SGD(lr=0.01), batch_size=batch_size, epochs=EPOCHS, threads=1, progress=False)
    return 1e6 * min(trainer.fit(MLP(sizes, output="softmax"), X, y)["seconds"]) / len(X)


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "windows of 1": (1, {"window": lambda plan, density: 1}),
    "of 16": (1, {"window": lambda plan, density: layout.WINDOW}),
    "as chosen": (1, {}),
    "batch 32, all": (32, {"_sparse_below": lambda width, window: 0.0}),
    "zeros skipped": (32, {"_sparse_below": lambda width, window: 2.0}),
    "as chosen ": (32, {}),
}


def main(rounds: Annotated[int, typer.Option(min=1, help="Rounds; the least time counts.")] = 3) -> None:
    """Measure windows, and skipping zeros, by shape and density."""
    for sizes in SHAPES:
        table = Table(title="-".join(map(str, sizes)) + ", us a sample", title_justify="left")
        for heading in ("not zero", *WAYS):
            table.add_column(heading.strip(), justify="right")
        for name, X, y in data(sizes):
            least = dict.fromkeys(WAYS, np.inf)
            for _ in range(rounds):
                for way, (batch_size, values) in WAYS.items():
                    with set_to(**values):
                        least[way] = min(least[way], us_a_sample(sizes, X, y, batch_size))
            table.add_row(name, *(f"{us:.3f}" for us in least.values()))
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
