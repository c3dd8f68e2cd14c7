"""Whole trainings against what the machine can do at most, measured in the same rounds: python bench/ceilings.py

Per-sample training on dense rows against a stream that reads, changes and writes back a buffer as large as the weights,
once a sample, as a plain per-sample step has to. Wide mini-batches against multiply-adds on registers, on as many
threads at once. Rows are random, without zeros and with as many as MNIST has. Medians over rounds of the ratio of
neighbours in time: cores of shared machines change their pace from second to second.
"""

import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ceiling import multiply_add_rate, read_modify_write_rate
from facts import facts
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hotloop import MLP, Trainer, warmup
from hotloop.machine import available_threads

RESULTS = Path(__file__).parent / "results"
DENSITY = 0.19  # share of MNIST's pixels that are not zero
NARROW, WIDE = [784, 128, 10], [784, 1024, 1024, 1024, 10]

console = Console(width=120)


def make_rows(n: int, density: float) -> NDArray[np.float32]:
    """(n, 784) numbers above 0, of which a share is kept."""
    rng = np.random.default_rng(0)
    rows = rng.random((n, 784), np.float32) + np.float32(0.01)
    rows[rng.random(rows.shape) >= density] = 0.0
    return rows


def train(sizes: list[int], batch_size: int, threads: int, rows: NDArray[np.float32]) -> float:
    """Seconds a sample in the second epoch of a training."""
    model, labels = MLP(sizes, output="softmax"), np.arange(len(rows)) % 10
    trainer = Trainer(batch_size=batch_size, epochs=2, threads=threads, progress=False)
    history = trainer.fit(model, rows, labels)
    return history["seconds"][-1] / len(rows)


def products(sizes: list[int], density: float) -> float:
    """Multiply-adds of a sample: forward, gradient, and the deltas of all layers but the first's input."""
    first, *others = (fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    return 2 * density * first + 3 * sum(others)


def shares(work: Callable[[], float], ceiling: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Medians of work's rate, of the ceiling's around it, and of their ratio."""
    work()
    found = []
    for _ in range(rounds):
        before, rate, after = ceiling(), work(), ceiling()
        top = 2 / (1 / before + 1 / after)
        found.append((rate, top, rate / top))
    rate, top, share = (statistics.median(column) for column in zip(*found, strict=True))
    return rate, top, share


def per_sample() -> tuple[Callable[[], float], Callable[[], float]]:
    """GB/s that a plain per-sample step would need to be as fast, and those of the stream."""
    n = sum(fan_in * fan_out for fan_in, fan_out in pairwise(NARROW))
    rows = make_rows(10_000, 1.0)
    return lambda: 8e-9 * n / train(NARROW, 1, 1, rows), lambda: read_modify_write_rate(n)


def wide(threads: int, density: float, counted: float) -> tuple[Callable[[], float], Callable[[], float]]:
    """GFLOP/s of mini-batches, inputs counted as if so many were not zero, and those of multiply-adds on registers."""
    rows = make_rows(2_560, density)
    flops = 2e-9 * products(WIDE, counted)
    return lambda: flops / train(WIDE, 256, threads, rows), lambda: multiply_add_rate(threads)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each work.")] = 9,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure trainings against the ceilings of this machine."""
    warmup()
    works: dict[str, tuple[str, int, Any]] = {"784-128-10, batch 1, no zeros": ("GB/s", 1, per_sample())}
    for threads in sorted({1, available_threads()}):
        title = f"784-1024-1024-1024-10, batch 256, {threads} thread{'s' if threads > 1 else ''}"
        works |= {
            f"{title}, no zeros": ("GFLOP/s", threads, wide(threads, 1.0, 1.0)),
            f"{title}, zeros, not counted": ("GFLOP/s", threads, wide(threads, DENSITY, DENSITY)),
            f"{title}, zeros, counted": ("GFLOP/s", threads, wide(threads, DENSITY, 1.0)),
        }
    table = Table(title="Trainings and their ceilings", title_justify="left")
    for heading in ("", "unit", "training", "ceiling", "share"):
        table.add_column(heading, justify="right" if heading else "left")
    results: dict[str, Any] = {"facts": facts(), "rounds": rounds, "works": []}
    for title, (unit, threads, (work, ceiling)) in works.items():
        with console.status(f"{title} ..."):
            rate, top, share = shares(work, ceiling, rounds)
        row = {"work": title, "unit": unit, "threads": threads, "rate": rate, "ceiling": top, "share": share}
        results["works"].append({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
        table.add_row(title, unit, f"{rate:.0f}", f"{top:.0f}", f"{share:.0%}")
    console.print(table)
    out.mkdir(exist_ok=True)
    (out / "ceilings.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
