"""Whole-training races against PyTorch, JAX and scikit-learn: python bench/race.py [--case NAME] [--quick]

Before a race all contestants train the same epoch and must agree in their losses. Then they warm up, and run in turn,
A B C A B C ..., in one process; a fresh start with the first weights precedes every run and is not timed.
A contestant that needs longer than a round's time for the whole case runs a part of it: times are per sample.
"""

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from cases import CASES, Array, Case, Layers, loss_of, orders
from facts import facts
from peers import CONTESTANTS, Contestant, Hotloop, quiet
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4  # relative, on the loss of the checked epoch and on that of the network after it
REST = 0.25  # seconds between two runs: OpenBLAS's and PyTorch's threads go on spinning for 0.12 s after their work

console = Console()


class DisagreementError(AssertionError):
    """Two contestants did not compute the same thing."""


@dataclass
class Entry:
    """One contestant's part of the results."""

    name: str
    threads: int
    epoch_loss: float  # of the checked epoch, as the library reports it (None in the file where it does not)
    final_loss: float  # of the network after the checked epoch, by the judge
    samples: int = 0  # of one timed run
    times: list[float] = field(default_factory=list)  # seconds of each round

    @property
    def us(self) -> float:
        """Median microseconds per sample."""
        return 1e6 * statistics.median(self.times) / self.samples


def check(contestant: Contestant, X: Array, y: Array, first: Layers) -> Entry:
    """One epoch over the first rows: what the contestant and the judge say of it."""
    case, n = contestant.case, contestant.case.check_samples
    contestant.load(X[:n], y[:n], orders(n, 1))
    contestant.reset(first)
    (epoch_loss,) = contestant.train()
    return Entry(contestant.name, contestant.threads, epoch_loss, loss_of(case, contestant.layers(), X[:n], y[:n]))


def agree(ours: Entry, theirs: Entry) -> None:
    """Raise DisagreementError unless both losses are the same to TOLERANCE; NaN: not told."""
    for what in ("epoch_loss", "final_loss"):
        a, b = getattr(ours, what), getattr(theirs, what)
        if not math.isnan(b) and not abs(a - b) <= TOLERANCE * abs(a):
            raise DisagreementError(f"{what}: {ours.name} {a:.8g}, {theirs.name} {b:.8g}")


def portion(case: Case, samples: int) -> list[Array]:
    """The orders of the case's epochs, as many whole ones as `samples` allows, or else a part of one in whole steps."""
    epochs = samples // case.samples
    if epochs > 0:
        return orders(case.samples, min(case.epochs, epochs))
    steps = max(1, samples // case.batch_size)
    return [orders(case.samples, 1)[0][: steps * case.batch_size]]


def load(contestant: Contestant, X: Array, y: Array, first: Layers, seconds: float) -> int:
    """Load as many samples as the contestant trains in a round's seconds, by a warm run; return their number."""
    case, n = contestant.case, contestant.case.check_samples
    if isinstance(contestant, Hotloop):  # it draws its orders itself: whole epochs only
        rows = orders(case.samples, case.epochs)
    else:
        contestant.reset(first)
        began = time.perf_counter()
        contestant.train()
        rows = portion(case, int(seconds * n / (time.perf_counter() - began)))
    contestant.load(X, y, rows)
    return sum(map(len, rows))


def run(case: Case, rounds: int, seconds: float, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check and race all contestants of a case; the results as they go into the file."""
    X, y = case.load()
    first = case.first_layers()
    skipped: dict[str, str] = {}
    entries: list[tuple[Contestant, Entry]] = []
    for kind in CONTESTANTS:
        reason = "left out" if kind.name in without else kind.missing(case)
        if reason:
            skipped[kind.name] = reason
            continue
        try:
            entered = [(contestant, check(contestant, X, y, first)) for contestant in _teams(kind, case)]
        except DisagreementError:
            raise
        except Exception as error:  # no compiler for torch.compile, an older version of a peer
            if kind is Hotloop:
                raise
            skipped[kind.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
            continue
        for _, entry in entered:
            agree(entries[0][1] if entries else entry, entry)
        entries += entered
    for contestant, entry in entries:
        entry.samples = load(contestant, X, y, first, seconds)
        contestant.reset(first)
        contestant.train()
    for _ in range(rounds):
        for contestant, entry in entries:
            contestant.reset(first)
            time.sleep(REST)
            began = time.perf_counter()
            contestant.train()
            entry.times.append(time.perf_counter() - began)
    return _results(case, [entry for _, entry in entries], skipped, rounds)


def _teams(kind: type[Contestant], case: Case) -> list[Contestant]:
    return [kind(case, threads) for threads in kind.thread_counts(case)]


def _results(case: Case, entries: list[Entry], skipped: dict[str, str], rounds: int) -> dict[str, Any]:
    ours = min((entry for entry in entries if entry.name == Hotloop.name), key=lambda entry: entry.us)
    peers = [entry for entry in entries if entry.name != Hotloop.name]
    fastest = min(peers, key=lambda entry: entry.us, default=None)
    best = fastest.us if fastest else ours.us
    return {
        "case": asdict(case),
        "title": case.title,
        "facts": facts(),
        "rounds": rounds,
        "contestants": [
            {
                "name": entry.name,
                "threads": entry.threads,
                "us_per_sample": round(entry.us, 4),
                "times_fastest_peer": round(entry.us / best, 4),
                "samples": entry.samples,
                "seconds": [round(t, 6) for t in entry.times],
                "epoch_loss": None if math.isnan(entry.epoch_loss) else entry.epoch_loss,
                "final_loss": entry.final_loss,
            }
            for entry in entries
        ],
        "fastest_peer": fastest.name if fastest else None,
        "speedup": round(best / ours.us, 4),  # of Hotloop over the fastest peer, each with its best number of threads
        "skipped": skipped,
    }


def show(results: dict[str, Any]) -> None:
    """Print the results of a case."""
    table = Table(title=results["title"], title_justify="left")
    for heading in ("contestant", "threads", "us/sample", "x fastest peer", "samples", "epoch loss", "final loss"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in results["contestants"]:
        loss = "not told" if row["epoch_loss"] is None else f"{row['epoch_loss']:.7f}"
        figures = f"{row['us_per_sample']:.2f}", f"{row['times_fastest_peer']:.2f}", f"{row['samples']:,}"
        style = "bold" if row["name"] == Hotloop.name else ""
        table.add_row(row["name"], str(row["threads"]), *figures, loss, f"{row['final_loss']:.7f}", style=style)
    console.print(table)
    for name, reason in results["skipped"].items():
        console.print(f"skipped: {name}: {reason}")
    if results["fastest_peer"]:
        console.print(f"Hotloop is {results['speedup']:.2f} times as fast as {results['fastest_peer']}\n")


def main(
    case: Annotated[list[str] | None, typer.Option(help="Case to run, may be repeated; all without it.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three short rounds: a look, nothing is written.")] = False,
    without: Annotated[list[str] | None, typer.Option(help="Contestant to leave out, may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each case.")] = 7,
    seconds: Annotated[float, typer.Option(help="Longest time of one run.")] = 0.5,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Race Hotloop against its peers."""
    known = {one.name: one for one in CASES}
    if unknown := [name for name in case or [] if name not in known]:
        raise typer.BadParameter(f"no case {unknown[0]!r}; there are {', '.join(known)}")
    quiet()
    for name in case or known:
        try:
            with console.status(f"{name} ..."):
                results = run(known[name], 3 if quick else rounds, 0.15 if quick else seconds, tuple(without or ()))
        except FileNotFoundError as error:
            console.print(f"skipped: {name}: {error}\n")
            continue
        show(results)
        if not quick:
            out.mkdir(exist_ok=True)
            beside = out / f".{name}.json"
            beside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            beside.replace(out / f"{name}.json")


if __name__ == "__main__":
    typer.run(main)
