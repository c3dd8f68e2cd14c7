"""Figures of the history that something watches: which there are, and which way is better."""

from collections.abc import Iterable

from hotloop import check
from hotloop.metrics import METRICS

FALLING = ("loss", *(name for name, metric in METRICS.items() if metric.smaller))
RISING = tuple(name for name, metric in METRICS.items() if not metric.smaller)
KNOWN = tuple(f"val_{name}" for name in FALLING + RISING) + FALLING + RISING


def falls(monitor: str, mode: str | None) -> bool:
    """Whether less is better for this figure: mode says so, "min" or "max"; None: as known of its name."""
    if mode is None:
        return check.choice("monitor", monitor, KNOWN).removeprefix("val_") in FALLING
    if not isinstance(monitor, str):
        raise TypeError(f"monitor: got {monitor!r}, expected the name of a figure, such as 'val_loss'.")
    return check.choice("mode", mode, ("min", "max")) == "min"


def require(owner: str, monitor: str, figures: Iterable[str]) -> None:
    """Refuse a monitor of which the training will have no figure, before it begins."""
    there = list(figures)
    if monitor in there:
        return
    if monitor.startswith("val_") and not any(name.startswith("val_") for name in there):
        raise ValueError(
            f"{owner}: monitors {monitor!r}, but there is no validation data; "
            "set validation_split or pass validation_data."
        )
    raise ValueError(f"{owner}: monitors {monitor!r}, but this training has only {', '.join(there)}.")
