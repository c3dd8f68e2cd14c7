"""Write the speed table of README.md anew from bench/results/*.json: python bench/table.py

The table goes between the markers of the file, which must be there. Cases that Hotloop loses stay in.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from cases import CASES

HERE = Path(__file__).parent
BEGIN, END = "<!-- speed table -->", "<!-- end of speed table -->"
NOTE = """\
Median time of the whole training loop, shuffling included, compilation not. All contestants train the same network in
the same order of samples and agree in their losses to 1e-4. They run in turn in one process, {rounds} rounds, each with
the better of one thread and all cores (JAX on one core: in a process of its own). The last column is the fastest peer's
time over Hotloop's."""
COLUMNS = {  # heading: contestants, of which the fastest is shown
    "Hotloop": ("Hotloop",),
    "PyTorch": ("PyTorch",),
    "PyTorch compiled": ("PyTorch compiled",),
    "JAX": ("JAX",),
    "scikit-learn": ("scikit-learn MLP", "scikit-learn SGDClassifier", "scikit-learn SGDClassifier, CSR"),
}


def cell(results: dict[str, Any], names: tuple[str, ...]) -> str:
    """The best time among some contestants and their numbers of threads."""
    times = [row["us_per_sample"] for row in results["contestants"] if row["name"] in names]
    return figure(min(times)) if times else "-"


def figure(us: float) -> str:
    """Three significant digits at most, without an exponent."""
    return f"{us:.2f}" if us < 10 else f"{us:.1f}" if us < 100 else f"{us:.0f}"


def line(results: dict[str, Any]) -> str:
    cells = [cell(results, names) for names in COLUMNS.values()]
    ratio = f"{results['speedup']:.2f} x {results['fastest_peer']}" if results["fastest_peer"] else "-"
    return "| " + " | ".join([results["title"], *cells, ratio]) + " |"


def footnote(results: list[dict[str, Any]]) -> str:
    """Where and when the figures were measured; one line for each set of facts."""
    lines = []
    for one in results:
        facts = one["facts"]
        versions = ", ".join(f"{name} {facts[name]}" for name in ("numba", "torch", "jax", "scikit-learn"))
        lines.append(
            f"{facts['processor']}, {facts['threads']} threads, {facts['system']}, Python {facts['python']}, "
            f"{versions}; commit {facts['commit']}, {facts['date']}."
        )
    return "  \n".join(dict.fromkeys(lines))


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown between the markers."""
    headings = ["µs per sample", *COLUMNS, "Hotloop's speed"]
    rules = ["---", *["---:"] * (len(COLUMNS) + 1)]
    rounds = min(one["rounds"] for one in results)
    return "\n".join(
        [
            "| " + " | ".join(headings) + " |",
            "| " + " | ".join(rules) + " |",
            *map(line, results),
            "",
            NOTE.format(rounds=rounds),
            "",
            footnote(results),
        ]
    )


def write_between(readme: Path, begin: str, end: str, text: str) -> None:
    """Put text between two markers of a file, which must be there."""
    before, first, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise typer.BadParameter(f"{readme} has no lines {begin} and {end}")
    beside = readme.with_name(f".{readme.name}")
    beside.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
    beside.replace(readme)


def main(
    readme: Annotated[Path, typer.Option(help="File with the markers.")] = HERE.parent / "README.md",
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = HERE / "results",
) -> None:
    """Regenerate the speed table."""
    found = [results / f"{case.name}.json" for case in CASES]
    read = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]
    if not read:
        raise typer.BadParameter(f"no results in {results}: run python bench/race.py")
    write_between(readme, BEGIN, END, table(read))
    typer.echo(f"{len(read)} of {len(CASES)} cases written to {readme.name}")


if __name__ == "__main__":
    typer.run(main)
