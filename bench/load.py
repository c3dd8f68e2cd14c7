"""Training where threads outnumber the cores, or other trainings want them: python bench/load.py [--rounds N]

The same work as on one thread, alone: two threads on one core, eight threads on all, and four trainings at once. The
figure is the time over that of one thread for the same total work, at most 1.3 for each; medians of runs in turn.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from facts import facts

from hotloop import MLP, Trainer, trainer, warmup

RESULTS = Path(__file__).parent / "results"
MOST = 1.3
ALONE = "seconds on one thread"
ROWS = np.random.default_rng(0).random((10_240, 784), np.float32)
ROWS[ROWS < 0.8] = 0  # as dense as MNIST
LABELS = np.arange(len(ROWS)) % 10
LENGTHS = {"1 epoch": 1, "10 epochs": 10}
COPIES = 4


def fit(threads: int, batch_size: int, epochs: int) -> None:
    """One training of 784-128-10."""
    model = MLP([784, 128, 10], output="softmax")
    Trainer(batch_size=batch_size, epochs=epochs, threads=threads, progress=False).fit(model, ROWS, LABELS)


def on_one_core(work: Callable[[], None]) -> None:
    """work() with this thread, and those it starts, on one of its cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        work()
    finally:
        os.sched_setaffinity(0, allowed)


def at_once(work: Callable[[], None]) -> None:
    """work() in COPIES threads."""
    with ThreadPoolExecutor(COPIES) as pool:
        for done in [pool.submit(work) for _ in range(COPIES)]:
            done.result()


def measure(batch_size: int, epochs: int, rounds: int) -> dict[str, float]:
    """Seconds of one thread, and each load's time over that of one thread for its work."""
    loads: dict[str, tuple[int, Callable[[], None]]] = {
        "one thread": (1, lambda: fit(1, batch_size, epochs)),
        "two threads on one core": (1, lambda: on_one_core(lambda: fit(2, batch_size, epochs))),
        "eight threads": (1, lambda: fit(8, batch_size, epochs)),
        "four at once": (COPIES, lambda: at_once(lambda: fit(2, batch_size, epochs))),
        "four at once, one core": (COPIES, lambda: on_one_core(lambda: at_once(lambda: fit(2, batch_size, epochs)))),
    }
    times: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        for name, (copies, work) in loads.items():
            began = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - began) / copies)
    medians = {name: statistics.median(some) for name, some in times.items()}
    alone = medians.pop("one thread")
    return {ALONE: round(alone, 4)} | {name: round(t / alone, 3) for name, t in medians.items()}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each load.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure training under load."""
    warmup()
    trainer.available_threads = lambda: 8  # type: ignore[assignment]  # threads are meant to be too many
    results: dict[str, object] = {"title": "Time over one thread's, same work", "facts": facts(), "rounds": rounds}
    for length, epochs in LENGTHS.items():
        for batch_size in (32, 128):
            found = measure(batch_size, epochs, rounds)
            results[f"batch {batch_size}, {length}"] = found
            for name, value in found.items():
                more = "  more than 1.3" if value > MOST and name != ALONE else ""
                typer.echo(f"batch {batch_size:<4}{length:<10}{name:<28}{value:8.3f}{more}")
    out.mkdir(exist_ok=True)
    (out / "load.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
