"""Results printed for people: scores, confusion matrix, speed. Plain text outside a terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from hotloop.history import History


def print_scores(
    scores: Mapping[str, float], actual: npt.NDArray[Any], predicted: npt.NDArray[Any], quiet: bool
) -> None:
    """Print the scores on the test rows and, unless quiet, how often each class was taken for each other."""
    if not quiet:
        print_confusion(actual, predicted)
        print(f"test loss      {scores['loss']:.4f}")
    print(f"test accuracy  {scores['accuracy']:.4f} ({(actual == predicted).sum()} of {len(actual)})")


def print_confusion(actual: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    k = int(max(actual.max(), predicted.max())) + 1
    counts = np.bincount(actual * k + predicted, minlength=k * k).reshape(k, k)
    console = Console()
    if not console.is_terminal:
        console = Console(width=8 * k + 20)
    table = Table(title="rows: class, columns: prediction", box=box.SIMPLE if console.is_terminal else None)
    table.add_column("", justify="right", style="bold")
    for j in range(k):
        table.add_column(str(j), justify="right")
    for i, row in enumerate(counts):
        cells = [f"[bold]{n}[/]" if i == j else (f"[red]{n}[/]" if n else ".") for j, n in enumerate(row)]
        table.add_row(str(i), *cells)
    console.print(table)


def print_speed(history: History, rows: int) -> None:
    """Print where the time went; rows: how many were trained on in each epoch."""
    seconds = sum(history["seconds"])
    speed = history.epochs * rows / seconds
    print(f"kernels        {history.compile_seconds:.2f} s to compile them, or to load them from the cache")
    print(f"trained        {seconds:.2f} s, {history.epochs} epochs, {speed:,.0f} samples a second")
