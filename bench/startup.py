"""How long it takes to start: python bench/startup.py [--rounds N]

Fresh processes import Hotloop, and go on to the end of a first fit on the digits, per-sample and mini-batch, with an
empty cache and with a warm one. Imports are measured in turn with those of Numba alone, and each is compared with the
one beside it: a machine that others use too changes its speed from minute to minute.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from facts import facts

RESULTS = Path(__file__).parent / "results"
IMPORTS = {
    "import numba": "import numba",
    "import hotloop": "import hotloop",
    "from hotloop import MLP, Trainer": "from hotloop import MLP, Trainer",
}
FIT = """
from hotloop import MLP, Trainer
from hotloop.data import load_digits
Trainer(batch_size={batch_size}, epochs=5).fit(MLP([64, 32, 10], output="softmax"), *load_digits())
"""
FITS = {"per-sample": FIT.format(batch_size=1), "mini-batch": FIT.format(batch_size=32)}


def seconds(code: str, cache: str) -> float:
    """The time of a whole process that runs this code."""
    began = time.perf_counter()
    environment = {**os.environ, "HOTLOOP_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's sources are translated once, not in every process
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - began


def in_turn(codes: dict[str, str], cache: str, rounds: int) -> dict[str, list[float]]:
    """The times of each, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(seconds(code, cache))
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median time of each."""
    return {name: round(statistics.median(some), 3) for name, some in times.items()}


def cold(rounds: int) -> dict[str, float]:
    """The median time of each first fit, each time with a cache of its own."""
    times: dict[str, list[float]] = {name: [] for name in FITS}
    for _ in range(rounds):
        for name, code in FITS.items():
            with tempfile.TemporaryDirectory() as cache:
                times[name].append(seconds(code, cache))
    return medians(times)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Warm processes of each kind.")] = 9,
    cold_rounds: Annotated[int, typer.Option(min=1, help="Processes with an empty cache.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure imports and first fits in fresh processes."""
    with tempfile.TemporaryDirectory() as cache:
        in_turn({**IMPORTS, **FITS}, cache, 1)  # fills the cache, and the system's own
        imports, warm = in_turn(IMPORTS, cache, rounds), medians(in_turn(FITS, cache, rounds))
    alone, *others = IMPORTS
    over = {name: [a - b for a, b in zip(imports[name], imports[alone], strict=True)] for name in others}
    results = {
        "title": "Seconds of a whole process",
        "facts": facts(),
        "rounds": rounds,
        "imports": medians(imports),
        "import over numba": medians(over),
        "first fit, warm cache": warm,
        "first fit, empty cache": cold(cold_rounds),
    }
    for group, limit in (("import over numba", 0.15), ("first fit, warm cache", 1.2), ("first fit, empty cache", 10.0)):
        for name, value in results[group].items():  # type: ignore[union-attr]
            typer.echo(f"{group:<24}{name:<34}{value:8.3f} s, at most {limit} s")
    out.mkdir(exist_ok=True)
    (out / "startup.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
