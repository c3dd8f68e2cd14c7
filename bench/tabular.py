"""Five data sets of scikit-learn, ten folds: Hotloop beside scikit-learn's MLP. python bench/tabular.py [--data NAME]

Both see the same folds, standardised inside each fold (diabetes: y too, for both; r2 does not depend on its scale).
"scikit-learn, raw" is its MLP with no standardising at all, as its defaults are. Hotloop's recipe is one for all five
sets and is written into the results. Fit time is that of fit alone, the median over the folds; Hotloop's kernels are
compiled before. The contestants take turns, fold by fold. scikit-learn's products run on one thread.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from facts import facts
from rich.console import Console
from rich.table import Table
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from hotloop import MLP, Adam, Standardizer, Trainer

Array = np.ndarray
RESULTS = Path(__file__).parent / "results"
SETS: dict[str, Callable[..., Any]] = {
    "digits": datasets.load_digits,
    "breast cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
    "diabetes": datasets.load_diabetes,
}
FOLDS, SEED = 10, 0
HIDDEN, LR, BATCH_SIZE, EPOCHS, DROPOUT = 100, 0.002, 32, 100, 0.5
RECIPE = f"MLP([n, {HIDDEN}, k]), relu, Adam(lr={LR}), batch {BATCH_SIZE}, {EPOCHS} epochs, dropout {DROPOUT}"
CONTESTANTS = ("Hotloop", "scikit-learn", "scikit-learn, raw")

console = Console()


class Hotloop:
    """The recipe."""

    def __init__(self, X: Array, y: Array, classes: int, epochs: int = EPOCHS) -> None:
        self.X, self.y = X, y
        self.model = MLP([X.shape[1], HIDDEN, classes or 1], output="softmax" if classes else "identity", seed=SEED)
        self.model.prepare = Standardizer().fit(X)
        self.trainer = Trainer(
            optimizer=Adam(lr=LR), batch_size=BATCH_SIZE, epochs=epochs, dropout=DROPOUT, seed=SEED, progress=False
        )

    def fit(self) -> None:
        self.trainer.fit(self.model, self.X, self.y)

    def score(self, X: Array, y: Array) -> float:
        figures = self.trainer.evaluate(self.model, X, y)
        return figures.get("accuracy", figures.get("r2", 0.0))


class Sklearn:
    """Its MLP with its defaults, on the rows as they are given."""

    def __init__(self, X: Array, y: Array, classes: int) -> None:
        self.X, self.y = X, y
        self.model = (MLPClassifier if classes else MLPRegressor)(random_state=SEED)

    def fit(self) -> None:
        # Its 200 epochs are its default; one thread is the faster for such small products, above all beside other work.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(self.X, self.y)

    def score(self, X: Array, y: Array) -> float:
        return float(self.model.score(X, y))


def folds(name: str) -> tuple[Array, Array, int, list[tuple[Array, Array]]]:
    """Rows, truth, number of classes (0: values) and the folds' rows."""
    X, y = SETS[name](return_X_y=True)
    classes = 0 if name == "diabetes" else int(y.max()) + 1
    kind = StratifiedKFold if classes else KFold
    return X, y, classes, list(kind(FOLDS, shuffle=True, random_state=SEED).split(X, y))


def run(name: str) -> dict[str, Any]:
    """Cross-validate all contestants on one data set; the results as they go into the file."""
    X, y, classes, parts = folds(name)
    scores: dict[str, list[float]] = {one: [] for one in CONTESTANTS}
    seconds: dict[str, list[float]] = {one: [] for one in CONTESTANTS}
    Hotloop(X, y, classes, epochs=1).fit()  # compiles, or loads what is compiled
    for train, test in parts:
        scaler = Standardizer().fit(X[train])
        Z, Z_test = ((rows - scaler.mean) / scaler.scale for rows in (X[train], X[test]))
        center, spread = (0, 1) if classes else (y[train].mean(), y[train].std())
        truth, truth_test = ((part - center) / spread if not classes else part for part in (y[train], y[test]))
        entries = (
            (Hotloop(X[train], truth, classes), X[test], truth_test),
            (Sklearn(Z, truth, classes), Z_test, truth_test),
            (Sklearn(X[train], y[train], classes), X[test], y[test]),
        )
        for contestant, (entry, rows, expected) in zip(CONTESTANTS, entries, strict=True):
            began = time.perf_counter()
            entry.fit()
            seconds[contestant].append(time.perf_counter() - began)
            scores[contestant].append(entry.score(rows, expected))
    return {
        "name": name,
        "rows": len(X),
        "columns": X.shape[1],
        "classes": classes,
        "score": "accuracy" if classes else "r2",
        "recipe": RECIPE,
        "folds": FOLDS,
        "facts": facts(),
        "contestants": [
            {
                "name": one,
                "mean": round(statistics.mean(scores[one]), 5),
                "standard_error": round(statistics.stdev(scores[one]) / FOLDS**0.5, 5),
                "seconds": round(statistics.median(seconds[one]), 5),
                "scores": [round(score, 5) for score in scores[one]],
            }
            for one in CONTESTANTS
        ],
    }


def show(results: dict[str, Any]) -> None:
    """Print the results of a data set."""
    shape = f"{results['rows']:,} x {results['columns']}"
    table = Table(title=f"{results['name']}, {shape}, {FOLDS} folds", title_justify="left")
    for heading in ("contestant", results["score"], "standard error", "fit, ms"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in results["contestants"]:
        figures = f"{row['mean']:.4f}", f"{row['standard_error']:.4f}", f"{1000 * row['seconds']:.1f}"
        table.add_row(row["name"], *figures, style="bold" if row["name"] == CONTESTANTS[0] else "")
    console.print(table)
    ours, scaled, _ = results["contestants"]
    margin = (ours["mean"] - scaled["mean"]) / max(scaled["standard_error"], 1e-12)
    console.print(f"{margin:+.2f} standard errors, {scaled['seconds'] / ours['seconds']:.1f} times as fast\n")


def main(
    data: Annotated[list[str] | None, typer.Option(help="Data set, may be repeated; all without it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; data sets not run keep theirs.")] = RESULTS,
) -> None:
    """Cross-validate Hotloop and scikit-learn on real tables."""
    if unknown := [name for name in data or [] if name not in SETS]:
        raise typer.BadParameter(f"no data set {unknown[0]!r}; there are {', '.join(SETS)}")
    path = out / "tabular.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    console.print(f"Hotloop: {RECIPE}\n", markup=False)
    for name in data or SETS:
        with console.status(f"{name} ..."):
            found[name] = run(name)
        show(found[name])
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f".{path.name}")
        kept = {one: found[one] for one in SETS if one in found}
        beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)


if __name__ == "__main__":
    typer.run(main)
