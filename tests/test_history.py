"""The history of a training: its columns, its text, its picture."""

import builtins
from pathlib import Path

import pytest

from hotloop import History
from hotloop import history as module


def filled(epochs: int = 3, **extra: float) -> History:
    """A history of falling losses."""
    history = History()
    for epoch in range(epochs):
        history.append({"loss": 1.0 / (epoch + 1), "lr": 0.1, "seconds": 0.01, **extra})
    return history


def test_it_is_a_mapping_of_columns() -> None:
    history = filled(3, val_loss=0.5)
    assert list(history) == ["loss", "lr", "seconds", "val_loss"] and len(history) == 4
    assert history["loss"] == [1.0, 0.5, 1 / 3] and history["val_loss"] == [0.5] * 3
    assert "val_loss" in history and "accuracy" not in history and history.get("accuracy") is None
    assert dict(history)["lr"] == [0.1] * 3
    assert history.epochs == 3


def test_an_unknown_column_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"'losses'.*this history has loss, lr, seconds"):
        filled()["losses"]
    with pytest.raises(KeyError, match="no epochs"):
        History()["loss"]


def test_text() -> None:
    history = filled(2)
    history.stopped = "tol"
    assert repr(history) == "History(2 epochs, tol: loss 0.5, lr 0.1, seconds 0.01)"
    assert repr(History()) == "History(0 epochs, finished)"


@pytest.mark.parametrize("extra", [{}, {"val_loss": 0.5, "val_accuracy": 0.9}, {"val_loss": 0.5, "val_r2": 0.9}])
@pytest.mark.parametrize("epochs", [1, 40])
def test_plot_writes_a_picture(tmp_path: Path, extra: dict[str, float], epochs: int) -> None:
    pytest.importorskip("matplotlib")
    filled(epochs, **extra).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_plot_draws_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    seen = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, path: seen.append(self))
    history = filled(50, val_loss=0.5, val_accuracy=0.9)
    history.stopped = "early stopping"
    history.plot(tmp_path / "curve.png")
    left, right = seen[0].axes
    assert "early stopping" in left.get_title() and left.get_xlabel() == "epoch"
    assert left.get_yscale() == "log"  # from 1 to 1/50
    assert [list(line.get_ydata()) for line in left.lines] == [history["loss"], history["val_loss"]]
    assert list(right.lines[0].get_ydata()) == history["val_accuracy"]
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == ["training loss", "validation loss", "validation accuracy"]


def test_plot_of_a_training_that_diverged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = filled(2, val_loss=0.5, val_r2=0.1)
    history.append({"loss": float("nan"), "lr": 0.1, "seconds": 0.01})  # the last epoch was not validated
    history.stopped = "diverged"
    history.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_plot_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"hotloop\[plot\]"):
        filled().plot(tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_plot_without_a_path_returns_a_figure_that_notebooks_show() -> None:
    pytest.importorskip("matplotlib")
    figure = filled(3, val_loss=0.5, val_f1=0.7, val_auc=0.8, val_log_loss=0.6).plot()
    left, right = figure.axes
    shown = [text.get_text() for text in left.get_legend().get_texts()]
    expected = ["training loss", "validation loss", "validation log loss", "validation f1", "validation auc"]
    assert shown == expected and right.get_ylabel() == "validation metrics"
    assert len({line.get_color() for line in [*left.lines, *right.lines]}) == 5
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_errors_have_axes_of_their_own() -> None:
    pytest.importorskip("matplotlib")
    upper, lower, right = filled(3, val_loss=0.5, val_r2=0.7, val_mae=80.0, val_rmse=100.0).plot().axes
    assert [line.get_label() for line in lower.lines] == ["validation mae", "validation rmse"]
    assert [line.get_label() for line in right.lines] == ["validation r2"]
    assert lower.get_xlabel() == "epoch" and upper.get_xlabel() == "" and lower.get_ylabel() == "error, in units of y"


def test_draw_begins_anew() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    history = filled(2, val_loss=0.5, val_accuracy=0.5)
    history.draw(figure)
    history.append({"loss": 0.1, "lr": 0.1, "seconds": 0.01, "val_loss": 0.4, "val_accuracy": 0.6})
    history.draw(figure)
    assert len(figure.axes) == 2 and len(figure.axes[0].lines[0].get_ydata()) == 3


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_to_frame(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pytest.importorskip(library)
    monkeypatch.setattr(module, "find_spec", lambda name: name == library)
    history = filled(3, val_loss=0.5)
    frame = history.to_frame()
    assert isinstance(frame, frames.DataFrame)
    assert list(frame.columns) == ["epoch", "loss", "lr", "seconds", "val_loss"]
    assert list(frame["epoch"]) == [1, 2, 3] and list(frame["loss"]) == history["loss"]
    assert len(History().to_frame()) == 0


def test_to_frame_without_a_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pandas or polars: pip install 'hotloop\[data\]'"):
        filled().to_frame()


def test_it_behaves_as_a_dict() -> None:
    history = filled(2)
    assert history == dict(history) and next(iter(history.items())) == ("loss", [1.0, 0.5])
    assert {**history}["seconds"] == [0.01, 0.01] and history.get("nothing", 5) == 5
