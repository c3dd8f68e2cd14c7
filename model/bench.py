"""`hotloop bench`: what batch size does to the same training, per sample, in mini-batches and on the full batch."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hotloop.history import History

SIZES = (64, 32, 10)
# A larger batch has fewer, less noisy steps and bears a larger rate; each is about the best of 0.01, 0.02, 0.05 ... 1.
RATES: dict[int | None, float] = {1: 0.02, 32: 0.2, 128: 0.5, 512: 1.0, None: 1.0}
COLORS = ("#4477aa", "#228833", "#ccbb44", "#ee6677", "#aa3377")

app = typer.Typer(no_args_is_help=True, help="Compare ways to train.")


@dataclass(frozen=True)
class Course:
    """One training of the study."""

    batch_size: int | None  # None: the full batch
    lr: float
    history: "History"

    @property
    def label(self) -> str:
        """The batch size in words."""
        names = {1: "1 (per sample)", None: "full (1,438)"}
        return names.get(self.batch_size, str(self.batch_size))

    @property
    def seconds(self) -> list[float]:
        """Training time up to the end of each epoch."""
        total, passed = 0.0, []
        for seconds in self.history["seconds"]:
            total += seconds
            passed.append(total)
        return passed

    def reached(self, accuracy: float) -> int | None:
        """The first epoch, counted from 1, after which the test accuracy is at least this; None if it never is."""
        found = (i for i, value in enumerate(self.history["val_accuracy"], 1) if value >= accuracy)
        return next(found, None)


def batch_size_study(epochs: int = 200, seed: int = 0) -> list[Course]:
    """Train 64-32-10 on the digits with every batch size of RATES: the same first weights, the same order of samples.

    On one thread. Seconds are those of training alone: neither compilation nor the test after each epoch counts.
    """
    from hotloop import MLP, SGD, Trainer
    from hotloop.data import load

    data = load("digits")
    courses = []
    for batch_size, lr in RATES.items():
        model = MLP(SIZES, output="softmax", seed=seed)
        trainer = Trainer(
            optimizer=SGD(lr=lr), batch_size=batch_size, epochs=epochs, seed=seed, threads=1, progress=False
        )
        warm = Trainer(batch_size=batch_size, epochs=1, threads=1, progress=False)
        warm.fit(MLP(SIZES, output="softmax"), data.X_train, data.y_train)
        history = trainer.fit(model, data.X_train, data.y_train, validation_data=(data.X_test, data.y_test))
        courses.append(Course(batch_size, lr, history))
    return courses


def print_study(courses: list[Course], accuracy: float) -> None:
    """A table of the courses: when each reached a test accuracy, and how it ended."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"digits, {'-'.join(map(str, SIZES))}: the way to {accuracy:.0%} test accuracy, and the end")
    for heading in ("batch size", "lr", "epochs", "seconds", "test accuracy", "training loss", "seconds in all"):
        table.add_column(heading, justify="left" if heading == "batch size" else "right")
    for course in courses:
        history, epoch = course.history, course.reached(accuracy)
        way = ("never", "-") if epoch is None else (str(epoch), f"{course.seconds[epoch - 1]:.4f}")
        end = f"{history['val_accuracy'][-1]:.4f}", f"{history['loss'][-1]:.2g}", f"{course.seconds[-1]:.3f}"
        table.add_row(course.label, f"{course.lr:g}", *way, *end)
    console.print(table)


def write_csv(courses: list[Course], path: Path) -> None:
    """One row for each epoch of each course, written beside the file and renamed."""
    from hotloop.files import replacing

    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["batch_size", "lr", "epoch", "seconds", "loss", "test_loss", "test_accuracy"])
        for course in courses:
            columns = [course.history[name] for name in ("loss", "val_loss", "val_accuracy")]
            for epoch, row in enumerate(zip(course.seconds, *columns, strict=True), 1):
                writer.writerow([course.batch_size or "full", course.lr, epoch, *row])


def draw(courses: list[Course], path: Path) -> None:
    """Training loss against epochs and against seconds, side by side, written beside the file and renamed.

    Raises ImportError without matplotlib, ValueError for a kind of file it cannot write.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("the picture needs matplotlib: pip install 'hotloop[plot]'") from None
    from hotloop.files import replacing

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for course, color in zip(courses, COLORS, strict=True):
        loss = course.history["loss"]
        style: dict[str, Any] = {"color": color, "linewidth": 1.8, "label": f"{course.label}, lr {course.lr:g}"}
        left.plot(range(1, len(loss) + 1), loss, **style)
        right.plot([1000 * seconds for seconds in course.seconds], loss, **style)
    for axes, text in ((left, "epochs"), (right, "milliseconds of training")):
        axes.set(xscale="log", yscale="log", xlabel=text)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(which="major", alpha=0.35)
        axes.grid(which="minor", alpha=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("training loss (cross-entropy)")
    left.legend(title="batch size", frameon=False, loc="lower left")
    figure.suptitle(f"Batch size on the digits, {'-'.join(map(str, SIZES))}, plain SGD on one thread")
    if (kind := path.suffix.removeprefix(".") or "png") not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"out: a picture cannot be written as .{kind}; use .png, .svg or .pdf")
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130, format=kind)


@app.callback()
def _group() -> None:
    """Keep `batch-size` a command with a name, alone as it is."""


@app.command("batch-size")
def batch_size(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training rows.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first weights and of the order of rows.")] = 0,
    accuracy: Annotated[float, typer.Option(min=0.0, max=1.0, help="Test accuracy to reach.")] = 0.95,
    out: Annotated[Path, typer.Option(help="Picture to write; the figures go into a .csv beside it.")] = Path(
        "batch-size.png"
    ),
) -> None:
    """Train the digits per sample, in mini-batches and on the full batch: loss against epochs and against seconds."""
    if not out.parent.is_dir():
        raise typer.BadParameter(f"--out: there is no folder {out.parent}")
    courses = batch_size_study(epochs, seed)
    print_study(courses, accuracy)
    table = out.with_suffix(".csv")
    write_csv(courses, table)
    typer.echo(f"saved {table}")
    draw(courses, out)
    typer.echo(f"saved {out}")
