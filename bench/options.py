"""What options cost: python bench/options.py [--rounds N]

784-128-10 on MNIST, batch 32 and batch 1, with each optimiser, each way to regularise, and an activation and a loss of
the user's own beside the equal built-in ones. All train in turn in one process; a ratio is that of the median times.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer
from facts import facts
from rich.console import Console
from rich.table import Table

from hotloop import MLP, SGD, Adadelta, Adagrad, Adam, AdamW, AveragedSGD, Lion, RMSprop, Trainer
from hotloop.custom import Activation, Loss
from hotloop.data import load_mnist
from hotloop.kernels import scalar
from hotloop.kernels.simd import cast

RESULTS = Path(__file__).parent / "results"
ROWS = 10_240
PLAIN = "SGD"

console = Console()


@numba.njit
def tanh(z):
    return scalar.tanh(z)


@numba.njit
def tanh_slope(z):
    value = scalar.tanh(z)
    return (cast(1.0, z) - value) * (cast(1.0, z) + value)


@numba.njit
def squared_error(prediction, target):
    return (prediction - target) * (prediction - target)


@numba.njit
def squared_error_slope(prediction, target):
    return (prediction - target) + (prediction - target)


@dataclass
class Option:
    """One way to train, and what it is compared with."""

    name: str
    against: str = PLAIN
    optimizer: Any = SGD(lr=0.05)  # noqa: RUF009 (frozen)
    activation: Any = "relu"
    loss: Any = None
    regularize: Any = None


OPTIONS = [
    Option(PLAIN),
    Option("SGD, momentum", optimizer=SGD(lr=0.01, momentum=0.9)),
    Option("SGD, Nesterov", optimizer=SGD(lr=0.01, momentum=0.9, nesterov=True)),
    Option("Adam", optimizer=Adam()),
    Option("AdamW", optimizer=AdamW()),
    Option("RMSprop", optimizer=RMSprop(lr=0.001)),
    Option("Adagrad", optimizer=Adagrad()),
    Option("Adadelta", optimizer=Adadelta()),
    Option("Lion", optimizer=Lion()),
    Option("averaged SGD", optimizer=AveragedSGD(lr=0.05)),
    Option("SGD, dropout 0.5", regularize={"dropout": 0.5}),
    Option("SGD, dropout 0.2 and 0.5", regularize={"dropout": (0.2, 0.5)}),
    Option("SGD, l2", regularize={"l2": 1e-4}),
    Option("SGD, clip_norm", regularize={"clip_norm": 1.0}),
    Option("SGD, max_norm", regularize={"max_norm": 3.0}),
    Option("SGD, label_smoothing", regularize={"label_smoothing": 0.1}),
    Option("tanh", activation="tanh"),
    Option("tanh of one's own", "tanh", activation=Activation(tanh, tanh_slope)),
    Option("mse", loss="mse"),
    Option("mse of one's own", "mse", loss=Loss(squared_error, squared_error_slope)),
]


def epoch(option: Option, batch_size: int, threads: int, X: Any, y: Any) -> tuple[float, float]:
    """Seconds and loss of the second epoch of a training."""
    values = option.loss is not None
    model = MLP([784, 128, 10], option.activation, "identity" if values else "softmax")
    trainer = Trainer(
        option.loss, option.optimizer, batch_size=batch_size, epochs=2, threads=threads, progress=False,
        **(option.regularize or {}),
    )  # fmt: skip
    history = trainer.fit(model, X, np.eye(10, dtype=np.float32)[y] if values else y)
    return history["seconds"][1], history["loss"][1]


def main(rounds: Annotated[int, typer.Option(min=1, help="Rounds of each option.")] = 7) -> None:
    """Measure what options cost."""
    data = load_mnist()
    X, y = data.X_train[:ROWS], data.y_train[:ROWS]
    rows = []
    for batch_size, threads in ((32, 1), (32, 2), (1, 1)):
        times: dict[str, list[float]] = {option.name: [] for option in OPTIONS}
        losses = {option.name: epoch(option, batch_size, threads, X, y)[1] for option in OPTIONS}  # a warm one
        for _ in range(rounds):
            for option in OPTIONS:
                times[option.name].append(epoch(option, batch_size, threads, X, y)[0])
        median = {name: statistics.median(each) for name, each in times.items()}
        table = Table(title=f"784-128-10, batch {batch_size}, threads {threads}", title_justify="left")
        for heading in ("", "us a sample", "ratio", "against", "loss"):
            table.add_column(heading, justify="left" if heading in ("", "against") else "right")
        for option in OPTIONS:
            us, ratio = 1e6 * median[option.name] / ROWS, median[option.name] / median[option.against]
            table.add_row(option.name, f"{us:.2f}", f"{ratio:.2f}", option.against, f"{losses[option.name]:.5f}")
            rows.append({"option": option.name, "batch": batch_size, "threads": threads, "us_per_sample": round(us, 4),
                         "ratio": round(ratio, 4), "against": option.against, "loss": losses[option.name]})  # fmt: skip
        console.print(table)
    beside = RESULTS / ".options.json"
    beside.write_text(
        json.dumps({"facts": facts(), "rounds": rounds, "options": rows}, indent=1) + "\n", encoding="utf-8"
    )
    beside.replace(RESULTS / "options.json")


if __name__ == "__main__":
    typer.run(main)
