"""Learning from a stream, row by row: python bench/bench_online.py [--rows N] [--rounds N]

A million rows of 20 features go one by one through Trainer.learn_one. Beside it stand scikit-learn's SGDClassifier,
which gets a part of the same stream through partial_fit, with the same rule and rate, and Hotloop's own kernel: one fit
with batch_size 1 over the same rows. All calls are those of a Python loop, which is part of the time.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from facts import facts
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hotloop import MLP, SGD, Adam, Trainer
from hotloop.optimizers import Optimizer

RESULTS = Path(__file__).parent / "results"
FEATURES, ROWS, LR = 20, 1_000_000, 0.02
TESTED = 50_000  # rows that accuracy is measured on
PEER_ROWS = 20_000  # of the stream for the slow peer

Array = NDArray[Any]
console = Console()


@dataclass(frozen=True)
class Way:
    """One model and rule of Hotloop."""

    hidden: tuple[int, ...] = ()
    optimizer: Optimizer = SGD(LR)  # noqa: RUF009 (frozen)

    @property
    def name(self) -> str:
        """Sizes and rule."""
        return f"{'-'.join(map(str, (FEATURES, *self.hidden, 1)))}, {type(self.optimizer).__name__}"

    def make(self) -> tuple[MLP, Trainer]:
        """An untrained model, and a trainer that has compiled its kernels; the linear model begins with zeros."""
        init = "auto" if self.hidden else "zeros"
        model = MLP([FEATURES, *self.hidden, 1], output="sigmoid", init=init)
        before = model.params.copy()
        trainer = Trainer(optimizer=self.optimizer, batch_size=1, epochs=1, shuffle=False, threads=1, progress=False)
        trainer.learn_one(model, np.zeros(FEATURES, np.float32), 0)
        model.params[:] = before
        return model, Trainer(
            optimizer=self.optimizer, batch_size=1, epochs=1, shuffle=False, threads=1, progress=False
        )


WAYS = [Way(), Way((), Adam()), Way((32,)), Way((32,), Adam())]


def make_stream(rows: int) -> tuple[Array, Array]:
    """Normal rows and the labels of a plane through them, with noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    return X, (X @ rng.normal(size=FEATURES) + rng.normal(size=rows) > 0).astype(np.int64)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def learn(trainer: Trainer, model: MLP, X: Array, y: Array) -> None:
    """The loop of a user."""
    learn_one = trainer.learn_one
    for row, truth in zip(X, y.tolist(), strict=True):
        learn_one(model, row, truth)


def peer() -> Any:
    """scikit-learn's linear model with the same loss, rule and rate."""
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier("log_loss", penalty=None, learning_rate="constant", eta0=LR)


def learn_peer(model: Any, X: Array, y: Array) -> None:
    """The loop of a user of scikit-learn."""
    classes = np.array([0, 1])
    for i in range(len(X)):
        model.partial_fit(X[i : i + 1], y[i : i + 1], classes=classes)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_learn_one(way: Way, benchmark: Any) -> None:
    X, y = make_stream(1000)
    model, trainer = way.make()
    benchmark.group = "1,000 rows, one by one"
    benchmark(learn, trainer, model, X, y)


def test_partial_fit_of_scikit_learn(benchmark: Any) -> None:
    pytest.importorskip("sklearn")
    X, y = make_stream(1000)
    benchmark.group = "1,000 rows, one by one"
    benchmark.pedantic(learn_peer, (peer(), X, y), rounds=3)


def check(X: Array, y: Array) -> None:
    """Hotloop and scikit-learn learn the same weights."""
    model, trainer = WAYS[0].make()
    learn(trainer, model, X, y)
    other = peer()
    learn_peer(other, X, y)
    np.testing.assert_allclose(model.weights[0][:, 0], other.coef_[0], rtol=1e-3, atol=1e-4)


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the stream.")] = ROWS,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 5,
) -> None:
    """Measure, print and write bench/results/online.json."""
    X, y = make_stream(rows + TESTED)
    X, y, X_test, y_test = X[:rows], y[:rows], X[rows:], y[rows:]
    part = slice(0, min(PEER_ROWS, rows))
    check(X[:2000], y[:2000])
    times: dict[str, list[float]] = {}
    accuracy: dict[str, float] = {}
    for _ in range(rounds):
        for way in WAYS:
            model, trainer = way.make()
            times.setdefault(f"{way.name}, learn_one", []).append(timed(lambda: learn(trainer, model, X, y)) / rows)  # noqa: B023
            accuracy[f"{way.name}, learn_one"] = float((model.predict(X_test) == y_test).mean())
            if way is WAYS[0]:
                short, one = way.make()
                learn(one, short, X[part], y[part])
                accuracy["part of the stream"] = float((short.predict(X_test) == y_test).mean())
            model, trainer = way.make()
            history = trainer.fit(model, X, y)
            times.setdefault(f"{way.name}, one fit", []).append(history["seconds"][0] / rows)
            accuracy[f"{way.name}, one fit"] = float((model.predict(X_test) == y_test).mean())
        other = peer()
        seconds = timed(lambda: learn_peer(other, X[part], y[part]))  # noqa: B023
        times.setdefault("SGDClassifier.partial_fit", []).append(seconds / (part.stop - part.start))
        accuracy["SGDClassifier.partial_fit"] = float((other.predict(X_test) == y_test).mean())
    table = Table(title=f"{rows:,} rows of {FEATURES} features, row by row", title_justify="left")
    for heading in ("", "us a row", "rows", "test accuracy"):
        table.add_column(heading, justify="left" if not heading else "right")
    found = []
    for name, seconds_of in times.items():
        us = 1e6 * statistics.median(seconds_of)
        seen = part.stop if name.startswith("SGDClassifier") else rows
        found.append({"name": name, "us_per_row": round(us, 4), "rows": seen, "accuracy": accuracy[name]})
        table.add_row(name, f"{us:.2f}", f"{seen:,}", f"{accuracy[name]:.4f}")
    console.print(table)
    same = accuracy["part of the stream"]
    console.print(f"learn_one on the rows that scikit-learn saw: test accuracy {same:.4f}")
    beside = RESULTS / ".online.json"
    whole = {"facts": facts(), "rounds": rounds, "accuracy_on_the_peers_rows": same, "contestants": found}
    beside.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    beside.replace(RESULTS / "online.json")


if __name__ == "__main__":
    typer.run(main)
