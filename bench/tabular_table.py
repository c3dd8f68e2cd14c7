"""Write the table of real data sets of README.md anew from bench/results/tabular.json: python bench/tabular_table.py

The table goes between the markers of the file, which must be there. Scores below scikit-learn's stay in.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from table import HERE, footnote, write_between

BEGIN, END = "<!-- tabular table -->", "<!-- end of tabular table -->"
NOTE = """\
{folds}-fold cross-validation, the same folds for all, mean score and its standard error, and the median time of a fit,
compilation not included. Hotloop, the same recipe on every set: {recipe}. scikit-learn: `MLPClassifier` and
`MLPRegressor` with their defaults, on standardised columns and on the raw ones. Means and scales come from the training
rows of each fold alone; diabetes: y is standardised too, for Hotloop and for scikit-learn on standardised columns."""


def line(results: dict[str, Any]) -> str:
    """One data set."""
    rows = results["contestants"]
    scores = [f"{row['mean']:.3f} ± {row['standard_error']:.3f}" for row in rows]
    times = [figure(1000 * row["seconds"]) for row in rows[:2]]
    speed = f"{rows[1]['seconds'] / rows[0]['seconds']:.1f} x"
    title = f"{results['name']}, {results['rows']:,} x {results['columns']}, {results['score']}"
    return "| " + " | ".join([title, *scores, *times, speed]) + " |"


def figure(ms: float) -> str:
    """Three significant digits at most, without an exponent."""
    return f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown between the markers."""
    headings = [
        "",
        "Hotloop",
        "scikit-learn",
        "scikit-learn, raw",
        "Hotloop, ms",
        "scikit-learn, ms",
        "Hotloop's speed",
    ]
    rules = ["---", *["---:"] * (len(headings) - 1)]
    note = NOTE.format(folds=results[0]["folds"], recipe=results[0]["recipe"])
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join(rules)} |", *map(line, results)]
    return "\n".join([*lines, "", note, "", footnote(results)])


def main(
    readme: Annotated[Path, typer.Option(help="File with the markers.")] = HERE.parent / "README.md",
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = HERE / "results",
) -> None:
    """Regenerate the table of real data sets."""
    path = results / "tabular.json"
    if not path.exists():
        raise typer.BadParameter(f"no results in {results}: run python bench/tabular.py")
    found = list(json.loads(path.read_text(encoding="utf-8")).values())
    write_between(readme, BEGIN, END, table(found))
    typer.echo(f"{len(found)} data sets written to {readme.name}")


if __name__ == "__main__":
    typer.run(main)
