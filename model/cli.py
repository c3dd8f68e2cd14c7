"""The command line: `hotloop train`, `evaluate`, `predict`, `info` and `warmup`.

Everything heavy (NumPy, Numba, the kernels) is imported inside the commands, so that `hotloop --help` answers at once.
Exit codes: 0 done, 1 failed with one line that says why, 2 wrong usage, 130 interrupted.
"""

import errno
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from hotloop import bench

if TYPE_CHECKING:
    import numpy.typing as npt

    from hotloop import MLP, History, Trainer
    from hotloop.data import Dataset

# What `train` does with each data set when its options do not say otherwise.
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"hidden": "64", "epochs": 20, "lr": 0.05},
    "mnist": {"hidden": "128", "epochs": 5, "lr": 0.01},
}


def _default(option: str) -> str:
    return ", ".join(f"{values[option]} for {data}" for data, values in DEFAULTS.items())


class Schedule(StrEnum):
    """Names of the learning-rate schedules."""

    constant = "constant"
    step = "step"
    exponential = "exponential"
    cosine = "cosine"


class Precision(StrEnum):
    """Names of the number formats of a model."""

    float32 = "float32"
    float64 = "float64"


class Device(StrEnum):
    """Names of what takes the steps."""

    cpu = "cpu"
    cuda = "cuda"


class _Commands(typer.core.TyperGroup):
    """The commands, with the errors a user can mend told in one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing was written", err=True)
            raise typer.Exit(130) from None
        except (ValueError, OSError, ImportError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:  # the reader of a pipe has left
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Perceptrons and multi-layer perceptrons, trained as fast as the machine permits.",
)
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hotloop {version('hotloop')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="Data set: digits or mnist.")],
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Units of the hidden layers, as 64,32; an empty text for none.", show_default=_default("hidden")
        ),
    ] = None,
    activation: Annotated[str, typer.Option(help="Activation of the hidden layers.")] = "relu",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training rows.", show_default=_default("epochs"))
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows to a step; 1 is per-sample SGD.")] = 1,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default=_default("lr"))] = None,
    schedule: Annotated[Schedule, typer.Option(help="Course of the learning rate.")] = Schedule.constant,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first weights and of the order of rows.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; the result is the same with any number.")] = None,
    validation_split: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the training rows set aside.")
    ] = 0.0,
    early_stopping: Annotated[
        int | None, typer.Option(min=1, help="Epochs to wait for a lower validation loss.")
    ] = None,
    dtype: Annotated[Precision, typer.Option(help="Number format.")] = Precision.float32,
    device: Annotated[Device, typer.Option(help="Processor, or an NVIDIA GPU.")] = Device.cpu,
    out: Annotated[
        Path | None, typer.Option(help="File of the trained model.", show_default="DATA.safetensors")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only print the test accuracy and errors.")] = False,
) -> None:
    """Train a classifier, test it on rows it has not seen, and save it."""
    chosen = DEFAULTS.get(data, DEFAULTS["digits"])
    sizes = _sizes(chosen["hidden"] if hidden is None else hidden)
    if early_stopping is not None and validation_split == 0.0:
        raise typer.BadParameter("--early-stopping needs --validation-split, the rows it watches")
    out = _writable(Path(f"{data}.safetensors") if out is None else out)

    from hotloop import MLP, SGD, EarlyStopping, Trainer
    from hotloop.data import load
    from hotloop.printing import print_scores, print_speed

    rows = load(data)
    model = MLP(
        [rows.X_train.shape[1], *sizes, int(rows.y_train.max()) + 1],
        activation=_activation(activation),
        output="softmax",
        dtype=dtype.value,
        seed=seed,
    )
    n_epochs = chosen["epochs"] if epochs is None else epochs
    trainer = Trainer(
        optimizer=SGD(lr=chosen["lr"] if lr is None else lr),
        schedule=_schedule(schedule, n_epochs),
        batch_size=batch_size,
        epochs=n_epochs,
        seed=seed,
        validation_split=validation_split,
        early_stopping=None if early_stopping is None else EarlyStopping(patience=early_stopping),
        threads=threads,
        device=_usable(device),
        progress=False if quiet else None,
    )
    history = _fit(trainer, model, rows)
    model.save(out)
    print_scores(trainer.evaluate(model, rows.X_test, rows.y_test), rows.y_test, model.predict(rows.X_test), quiet)
    if history is None:
        typer.echo(f"interrupted: {out} holds the model as far as it was trained", err=True)
        raise typer.Exit(130)
    if not quiet:
        print_speed(history, round(len(rows.X_train) * (1 - validation_split)))
    typer.echo(f"saved          {out}")


def _usable(device: Device) -> str:
    if device is Device.cuda:
        from hotloop import cuda

        try:
            cuda.require()
        except RuntimeError as error:
            raise ValueError(str(error)) from None
    return device.value


def _fit(trainer: "Trainer", model: "MLP", rows: "Dataset") -> "History | None":
    """Train; None if Ctrl-C ended it after the model had learned something."""
    import warnings

    from hotloop import DivergenceWarning

    untrained = model.params.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergenceWarning)
        try:
            return trainer.fit(model, rows.X_train, rows.y_train)
        except KeyboardInterrupt:
            if (model.params == untrained).all():
                raise
            return None
        except DivergenceWarning as warning:
            raise ValueError(f"{warning} Nothing was saved.") from warning


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A model that `train` saved.")],
    data: Annotated[str, typer.Argument(help="Data set: digits or mnist; its test rows are used.")],
) -> None:
    """Measure a saved model on the test rows of a data set."""
    from hotloop import MLP, Trainer
    from hotloop.data import load
    from hotloop.printing import print_scores

    model = MLP.load(file)
    rows = load(data)
    _check_features(rows.X_test, model, data)
    scores = Trainer(loss=model.loss).evaluate(model, rows.X_test, rows.y_test)
    print_scores(scores, rows.y_test, model.predict(rows.X_test), quiet=False)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="A model that `train` saved.")],
    data: Annotated[
        str, typer.Argument(help="Data set (its test rows), or a .npy or .csv file of numbers without labels.")
    ],
    proba: Annotated[bool, typer.Option("--proba", help="A probability for each class instead of the class.")] = False,
    out: Annotated[Path | None, typer.Option(help="A .csv file to write instead of the terminal.")] = None,
) -> None:
    """Predict with a saved model: one line for each row."""
    out = None if out is None else _writable(out)

    from hotloop import MLP
    from hotloop.data import DATASETS, load
    from hotloop.files import replacing
    from hotloop.rows import read_rows

    model = MLP.load(file)
    X = load(data).X_test if data in DATASETS or not Path(data).suffix else read_rows(Path(data))
    _check_features(X, model, data)
    lines = _csv_lines(model.predict_proba(X) if proba else model.predict(X), proba)
    if out is None:
        typer.echo("\n".join(lines))
    else:
        with replacing(out) as beside:
            beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        typer.echo(f"saved {out}: {len(lines) - 1} rows", err=True)


@app.command()
def info() -> None:
    """Say what this machine offers: versions, processor, vector width, threads, cache folder, GPU."""
    from hotloop.machine import describe

    facts = describe()
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


@app.command()
def warmup() -> None:
    """Compile every kernel ahead, so that no later process has to wait for that."""
    from hotloop.warm import warmup

    typer.echo(warmup(typer.echo))


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"--hidden takes numbers of units, as 64,32; {text!r} came")
    return [int(part) for part in parts]


def _activation(name: str) -> str:
    from hotloop import check
    from hotloop.kernels.activations import CODES

    try:
        return check.choice("--activation", name, [known for known in CODES if known != "softmax"])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _schedule(name: Schedule, epochs: int) -> Any:
    from hotloop import Constant, CosineDecay, ExponentialDecay, StepDecay

    if name is Schedule.step:
        return StepDecay(every=max(1, epochs // 3), rate=0.1)
    if name is Schedule.exponential:
        return ExponentialDecay(rate=0.95)
    return CosineDecay() if name is Schedule.cosine else Constant()


def _writable(file: Path) -> Path:
    """Complain before the work and not after it."""
    if not file.parent.is_dir():
        raise typer.BadParameter(f"--out: there is no folder {file.parent}")
    if file.is_dir():
        raise typer.BadParameter(f"--out: {file} is a folder")
    return file


def _check_features(X: "npt.NDArray[Any]", model: "MLP", source: str) -> None:
    columns = model.sizes[0] if model.prepare is None else model.prepare.columns
    if X.shape[1] != columns:
        raise ValueError(f"the model takes rows of {columns} numbers; {source} has {X.shape[1]}")


def _csv_lines(predictions: "npt.NDArray[Any]", proba: bool) -> list[str]:
    columns = predictions.reshape(len(predictions), -1)
    name = "p" if proba else "prediction"
    names = [name] if columns.shape[1] == 1 else [f"{name}{j}" for j in range(columns.shape[1])]
    return [",".join(names), *(",".join(map(str, row)) for row in columns)]


def main() -> None:
    """Run the command line."""
    app(prog_name="hotloop")


if __name__ == "__main__":
    main()
