"""A progress bar for a training that takes longer than a second; nothing for one that does not."""

import sys
import time
from types import TracebackType
from typing import Any

DELAY = 1.0


class Progress:
    """Shows epoch, loss and time left on a terminal or in a notebook; enabled None means: only there.

    samples: of an epoch; 0 where nobody knows.
    """

    def __init__(self, epochs: int, samples: int, enabled: bool | None) -> None:
        self.epochs, self.samples = epochs, samples
        notebook = "ipykernel" in sys.modules
        self.enabled = enabled if enabled is not None else notebook or sys.stderr.isatty()
        self._began = time.perf_counter()
        self._bar: Any = None
        self._text = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """The figures shown beside the bar from now on."""
        self._text = text

    def update(self, epoch: int, sample: int) -> None:
        """Epochs done, and samples of the running one."""
        if not self.enabled or (self._bar is None and time.perf_counter() - self._began < DELAY):
            return
        if self._bar is None:
            self._bar = _rich_bar()
            self._task = self._bar.add_task("", total=self.epochs * (self.samples or 1))
            self._bar.start()
        done = min(epoch + 1, self.epochs)
        self._bar.update(
            self._task,
            completed=epoch * self.samples + sample if self.samples else epoch,
            description=f"epoch {done}/{self.epochs}{self._text}",
        )


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
