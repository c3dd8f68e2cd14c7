"""The history of a training: its columns, its text, its picture."""

import builtins
from pathlib import Path

import pytest

from hotloop import History


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
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, path, **options: seen.append(self))
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
