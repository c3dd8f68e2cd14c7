"""Callbacks that write: whole lines whatever happens, pictures, TensorBoard."""

import builtins
import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotloop import MLP, SGD, CSVLog, DivergenceWarning, History, JSONLLog, LivePlot, TensorBoard, Trainer

RNG = np.random.default_rng(17)
X = RNG.normal(size=(40, 5))
Y = X @ RNG.normal(size=5)


def train(callback: Any, epochs: int = 3, **options: Any) -> History:
    return Trainer(epochs=epochs, callbacks=[callback], validation_split=0.25, **options).fit(MLP([5, 1]), X, Y)


def rows_of(path: Path) -> list[dict[str, float]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("log", "name"), [(CSVLog, "log.csv"), (JSONLLog, "log.jsonl")])
def test_every_epoch_is_a_line(log: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    lengths = []

    class Watch(log):  # type: ignore[misc]
        def epoch(self, run: Any) -> None:
            super().epoch(run)
            lengths.append(len(rows_of(path)))  # it is in the file at once

    history = train(Watch(path))
    assert lengths == [1, 2, 3]
    expected = [{"epoch": i + 1, **{key: column[i] for key, column in history.items()}} for i in range(3)]
    assert rows_of(path) == expected
    assert path.read_bytes().endswith(b"\n") and b"\r" not in path.read_bytes()


@pytest.mark.parametrize(("log", "name"), [(CSVLog, "log.csv"), (JSONLLog, "log.jsonl")])
def test_replace_and_append(log: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    train(log(path), epochs=5)
    train(log(path), epochs=2)
    assert [row["epoch"] for row in rows_of(path)] == [1, 2]
    train(log(path, append=True), epochs=3)
    assert [row["epoch"] for row in rows_of(path)] == [1, 2, 1, 2, 3]
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"epoch": 4, "lo')  # a line that a power cut left
    train(log(path, append=True), epochs=1)
    assert path.read_bytes().startswith(whole) and len(rows_of(path)) == 6
    fresh = tmp_path / f"fresh-{name}"
    train(log(fresh, append=True), epochs=1)
    assert len(rows_of(fresh)) == 1


def test_other_columns_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    train(CSVLog(path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"log.csv begins with other columns than epoch,loss,lr,seconds; expected"):
        Trainer(callbacks=[CSVLog(path, append=True)]).fit(MLP([5, 1]), X, Y)
    assert path.read_bytes() == before


def test_figures_that_are_not_finite(tmp_path: Path) -> None:
    for log, name in ((CSVLog, "log.csv"), (JSONLLog, "log.jsonl")):
        with pytest.warns(DivergenceWarning):
            history = train(log(tmp_path / name), optimizer=SGD(1e30))
        row = rows_of(tmp_path / name)[-1]
        assert not math.isfinite(history["val_loss"][-1])
        assert row["val_loss"] is None if name.endswith("jsonl") else not math.isfinite(row["val_loss"])


@pytest.mark.parametrize("make", [CSVLog, JSONLLog, LivePlot])
def test_a_folder_that_is_not_there(make: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: folder .* does not exist"):
        train(make(tmp_path / "nowhere" / "log"))


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="append: got 1"):
        CSVLog(tmp_path / "log.csv", append=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every: got -1"):
        LivePlot(every=-1)


ENDLESS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell in the background has it ignore
import sys
import numpy as np
from hotloop import CSVLog, JSONLLog, MLP, Trainer
X = np.ones((10, 5), np.float32)
said = []
def say(run):
    if run.epoch == 3:
        print("ready", flush=True)
Trainer(epochs=10**9, callbacks=[CSVLog(sys.argv[1]), JSONLLog(sys.argv[2]), say]).fit(MLP([5, 1]), X, X[:, 0])
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_whole_lines_whatever_ends_the_program(ending: signal.Signals, tmp_path: Path) -> None:
    paths = [tmp_path / "log.csv", tmp_path / "log.jsonl"]
    command = [sys.executable, "-c", ENDLESS, *map(str, paths)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(ending)
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    for path in paths:
        rows = rows_of(path)
        assert path.read_bytes().endswith(b"\n") and [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= 4 and all(row.keys() == rows[0].keys() for row in rows)


# Pictures ------------------------------------------------------------------------------------------------------------


def test_live_plot_writes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("agg")
    path = tmp_path / "live.png"
    train(LivePlot(path, every=0.0))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_live_plot_is_throttled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("agg")
    drawn = []
    monkeypatch.setattr(History, "draw", lambda self, figure: drawn.append(self.epochs))
    train(LivePlot(every=1e6), epochs=30)
    assert drawn == [1, 30]  # at once, and when all is done
    drawn.clear()
    train(LivePlot(every=0.0), epochs=3)
    assert drawn == [1, 2, 3, 3]


def test_live_plot_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    calls = []

    class Canvas:
        def draw_idle(self) -> None:
            calls.append("draw")

        def flush_events(self) -> None:
            calls.append("flush")

    class Figure:
        canvas = Canvas()

        def show(self) -> None:
            calls.append("show")

    monkeypatch.setattr("matplotlib.get_backend", lambda: "QtAgg")
    monkeypatch.setattr(pyplot, "figure", lambda **options: Figure())
    monkeypatch.setattr(History, "draw", lambda self, figure: None)
    train(LivePlot(every=0.0), epochs=1)
    assert calls == ["show", "draw", "flush", "draw", "flush"]


def test_live_plot_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    shown: list[object] = []

    class Handle:
        def update(self, figure: object) -> None:
            shown.append(figure)

    class Display:
        @staticmethod
        def display(figure: object, display_id: bool) -> Handle:
            assert display_id
            return Handle()

    for name in ("ipykernel", "IPython"):
        monkeypatch.setitem(sys.modules, name, Display)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", Display)  # type: ignore[arg-type]
    train(LivePlot(every=0.0), epochs=2, progress=False)
    assert len(shown) == 3 and len({id(figure) for figure in shown}) == 1


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith(names):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)


def test_live_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "matplotlib")
    with pytest.raises(ImportError, match=r"hotloop\[plot\]"):
        train(LivePlot())


# TensorBoard ---------------------------------------------------------------------------------------------------------


class Writer:
    """Stands in for either writer."""

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.closed = folder, [], False  # type: ignore[var-annotated]
        made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert not self.closed
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


made: list[Writer] = []


@pytest.mark.parametrize("package", ["tensorboardX", "tensorboard.summary"])
def test_tensorboard_gets_every_figure(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()

    class Module:
        SummaryWriter = Writer

    Module.Writer = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboardX", Module if package == "tensorboardX" else None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorboard", Module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorboard.summary", Module)  # type: ignore[arg-type]
    history = train(TensorBoard(tmp_path / "runs"))
    [writer] = made
    assert writer.folder == str(tmp_path / "runs") and writer.closed
    assert writer.scalars == [(name, history[name][i], i + 1) for i in range(3) for name in history]


def test_tensorboard_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    train(TensorBoard(tmp_path))
    [file] = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents") and b"val_loss" in file.read_bytes()


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorboard")
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ImportError, match="pip install tensorboardX, or tensorboard"):
        Trainer(callbacks=[TensorBoard(tmp_path)]).fit(model, X, Y)
    assert model.params.tobytes() == before and not list(tmp_path.iterdir())
