"""The progress bar: silent where nobody waits, there where it is asked for, gone when training ends."""

import io
import sys
import types

import numpy as np
import pytest

from hotloop import MLP, Trainer, progress
from hotloop.progress import Progress


class Bar:
    """Stands in for rich's bar and remembers."""

    def __init__(self) -> None:
        self.updates: list[dict[str, object]] = []
        self.total: float = 0
        self.started = self.stopped = 0

    def add_task(self, text: str, total: float) -> int:
        self.total = total
        return 7

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1

    def update(self, task: int, **what: object) -> None:
        assert task == 7
        self.updates.append(what)


class Terminal(io.StringIO):
    """A stream that says somebody is looking."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Bar:
    """A bar that shows at once and only remembers."""
    made = Bar()
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "_rich_bar", lambda: made)
    return made


def fit(**options: object) -> None:
    """A short training."""
    X = np.arange(12.0).reshape(6, 2) / 12
    Trainer(epochs=3, batch_size=2, **options).fit(MLP([2, 1]), X, X[:, 0])  # type: ignore[arg-type]


def test_it_counts_samples_and_names_epoch_and_figures(bar: Bar) -> None:
    with Progress(4, 100, True) as shown:
        shown.update(0, 25)
        shown.note("  loss 0.5")
        shown.update(1, 50)
        shown.update(4, 0)
    assert bar.total == 400 and bar.started == bar.stopped == 1
    assert [update["completed"] for update in bar.updates] == [25, 150, 400]
    assert [update["description"] for update in bar.updates] == [
        "epoch 1/4",
        "epoch 2/4  loss 0.5",
        "epoch 4/4  loss 0.5",
    ]


def test_it_is_taken_away_after_an_error_too(bar: Bar) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(1, 1, True) as shown:
        shown.update(0, 1)
        raise KeyboardInterrupt
    assert bar.stopped == 1


def test_nothing_in_the_first_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_rich_bar", lambda: pytest.fail("a bar in the first second"))
    fit(progress=True)


def test_nothing_where_there_is_no_terminal(bar: Bar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    fit()
    assert not bar.started


def test_nothing_on_a_terminal_if_not_wanted(bar: Bar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit(progress=False)
    assert not bar.started


def test_on_a_terminal_a_notebook_or_by_force(bar: Bar, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(progress=True)
    assert bar.started == bar.stopped == 1
    assert "epoch 3/3" in str(bar.updates[-1]["description"]) and "loss" in str(bar.updates[-1]["description"])
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit()
    assert bar.started == 2
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    fit()
    assert bar.started == bar.stopped == 3


def test_the_real_bar_writes_to_the_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stream for a terminal
    with Progress(2, 10, True) as shown:
        shown.update(0, 5)
        shown.note("  loss 0.25")
        shown.update(1, 5)
    out, err = capsys.readouterr()
    assert out == "" and "epoch 2/2" in err and "loss 0.25" in err


def test_a_short_training_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    fit()
    assert capfd.readouterr() == ("", "")
