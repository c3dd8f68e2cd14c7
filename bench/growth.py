"""How the cost grows: time of training against samples, features, hidden width and threads, with the peers.

python bench/growth.py [--axis NAME] measures, and writes bench/results/growth.json and growth.png.
The network is features-width-10 with ReLU and cross-entropy on dense normal rows; what is not varied is 4,096 samples,
256 features, width 128. Every contestant runs with one thread and with all, and the better of the two counts.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from cases import Array, Case, orders
from facts import facts
from peers import CONTESTANTS, Contestant, Hotloop, quiet
from race import REST, agree, check
from rich.console import Console

from hotloop.machine import available_threads

RESULTS = Path(__file__).parent / "results"
SAMPLES, FEATURES, WIDTH = 4096, 256, 128
AXES: dict[str, tuple[int, ...]] = {
    "samples": (256, 1024, 4096, 16384, 65536),
    "features": (16, 64, 256, 1024, 4096),
    "width": (16, 64, 256, 1024, 4096),
}
BATCHES = (1, 32)
LEFT_OUT = ("PyTorch compiled",)  # half a minute of compilation for each point
COLORS = {"Hotloop": "#cc3311", "PyTorch": "#4477aa", "JAX": "#228833", "scikit-learn MLP": "#ccbb44"}

console = Console()


@dataclass(frozen=True)
class Growing(Case):
    """A case of random dense rows."""

    def load(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.samples, self.sizes[0])).astype(np.float32)
        return X, rng.integers(0, self.sizes[-1], self.samples)


def cases(axis: str, batch_size: int) -> Iterator[tuple[int, Growing]]:
    """The cases along an axis; samples fewer where a network is wide, so that no point takes minutes."""
    for value in AXES[axis]:
        samples = value if axis == "samples" else SAMPLES
        features, width = (
            value if axis == name else usual for name, usual in (("features", FEATURES), ("width", WIDTH))
        )
        if axis != "samples" and value > 1000:
            samples = 1024
        yield value, Growing(f"{axis}-{value}", "random", (features, width, 10), batch_size, samples, 1, lr=0.001)


def measure(contestant: Contestant, X: Array, y: Array, first: Any, seconds: float, rounds: int) -> float:
    """Median seconds of an epoch. A contestant that needs longer than `seconds` trains a part of it."""
    case, share = contestant.case, 1.0
    if not isinstance(contestant, Hotloop):
        n = case.check_samples
        contestant.reset(first)
        began = time.perf_counter()
        contestant.train()  # the rows of the check
        possible = int(seconds * n / (time.perf_counter() - began)) // case.batch_size * case.batch_size
        rows = min(case.samples, max(possible, 2 * case.batch_size))
        share = rows / case.samples
        contestant.load(X, y, [orders(case.samples, 1)[0][:rows]])
    else:
        contestant.load(X, y, orders(case.samples, 1))
    times = []
    for round in range(rounds + 1):
        contestant.reset(first)
        time.sleep(REST)
        began = time.perf_counter()
        contestant.train()
        if round:  # the first one warms up
            times.append(time.perf_counter() - began)
    return statistics.median(times) / share


def point(case: Growing, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of an epoch for every contestant, by number of threads; all agree in their losses first."""
    X, y = case.load()
    first = case.first_layers()
    found: dict[str, dict[str, float]] = {}
    ours = None
    for kind in CONTESTANTS:
        if kind.name in LEFT_OUT or kind.missing(case):
            continue
        for threads in kind.thread_counts(case):
            contestant = kind(case, threads)
            entry = check(contestant, X, y, first)
            ours = ours or entry
            agree(ours, entry)
            found.setdefault(kind.name, {})[str(threads)] = measure(contestant, X, y, first, seconds, rounds)
    return found


def crossovers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points where a peer is faster than Hotloop, each with its better number of threads."""
    lost = []
    for row in rows:
        best = {name: min(times.values()) for name, times in row["seconds"].items()}
        ours = best.pop(Hotloop.name)
        for name, seconds in best.items():
            if seconds < ours:
                lost.append({"axis": row["axis"], "value": row["value"], "batch": row["batch"], "peer": name,
                             "times_faster": round(ours / seconds, 2)})  # fmt: skip
    return lost


def draw(results: dict[str, Any], path: Path) -> None:
    """Time against samples, features and width, and what threads give."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.subplots(len(BATCHES), len(AXES) + 1)
    for line, batch in zip(grid, BATCHES, strict=True):
        for axes, axis in zip(line[:-1], AXES, strict=True):
            rows = [row for row in results["points"] if row["axis"] == axis and row["batch"] == batch]
            for name, color in COLORS.items():
                per = [min(row["seconds"][name].values()) for row in rows if name in row["seconds"]]
                scale = [1.0 if axis == "samples" else 1e6 / row["samples"] for row in rows if name in row["seconds"]]
                at = [row["value"] for row in rows if name in row["seconds"]]
                style = {
                    "color": color,
                    "linewidth": 2.2 if name == Hotloop.name else 1.4,
                    "marker": "o",
                    "markersize": 3,
                }
                axes.plot(at, [p * s for p, s in zip(per, scale, strict=True)], label=name, **style)
            axes.set(xscale="log", yscale="log", xlabel="hidden width" if axis == "width" else axis)
            axes.set_ylabel("seconds an epoch" if axis == "samples" else "µs a sample")
            axes.set_title(f"batch {batch}: {axis}", fontsize=10)
        rows = [row for row in results["points"] if row["axis"] == "width" and row["batch"] == batch]
        for name, color in COLORS.items():
            pairs = [(row["value"], row["seconds"][name]) for row in rows if len(row["seconds"].get(name, {})) > 1]
            gains = [times[min(times, key=int)] / times[max(times, key=int)] for _, times in pairs]
            line[-1].plot([at for at, _ in pairs], gains, color=color, marker="o", markersize=3, label=name)
        line[-1].axhline(1.0, color="#999999", linewidth=0.8)
        threads = results["facts"]["threads"]
        line[-1].set(xscale="log", xlabel="hidden width", ylabel=f"speed of {threads} threads over 1", ylim=(0, None))
        line[-1].set_title(f"batch {batch}: threads", fontsize=10)
        for axes in line:
            axes.grid(which="major", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(COLORS), frameon=False)
    figure.savefig(path, dpi=110)


def main(
    axis: Annotated[
        list[str] | None, typer.Option(help="samples, features or width; may be repeated; all without.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each contestant at each point, after a warm one.")] = 3,
    seconds: Annotated[float, typer.Option(help="About the longest time of one run.")] = 0.2,
) -> None:
    """Measure how the cost grows, with the peers."""
    if unknown := [name for name in axis or [] if name not in AXES]:
        raise typer.BadParameter(f"no axis {unknown[0]!r}; there are {', '.join(AXES)}")
    quiet()
    points = []
    for name in axis or AXES:
        for batch in BATCHES:
            for value, case in cases(name, batch):
                row = {"axis": name, "batch": batch, "value": value, "samples": case.samples, "sizes": case.sizes}
                points.append(row | {"seconds": point(case, seconds, rounds)})
                best = {who: min(times.values()) for who, times in points[-1]["seconds"].items()}
                shown = "  ".join(f"{who} {1e6 * t / case.samples:.2f}" for who, t in best.items())
                console.print(f"{name} {value}, batch {batch}: us a sample  {shown}")
    results = {"facts": facts() | {"threads": available_threads()}, "points": points, "crossovers": crossovers(points)}
    if axis is None:
        beside = RESULTS / ".growth.json"
        beside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        beside.replace(RESULTS / "growth.json")
        draw(results, RESULTS / "growth.png")
    for lost in results["crossovers"]:
        place = f"{lost['axis']} {lost['value']}, batch {lost['batch']}"
        console.print(f"{lost['peer']} is {lost['times_faster']} x as fast at {place}")


if __name__ == "__main__":
    typer.run(main)
