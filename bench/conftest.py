"""Shared by all benchmarks: `compare` runs a kernel and its NumPy equivalent in one group; reports say where."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ceiling import multiply_add_peak, read_modify_write_peak
from facts import facts
from numpy.typing import NDArray

Array = NDArray[Any]
Work = Callable[..., Any]  # gets the arrays, may change them in place, may return arrays or numbers


CEILINGS = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if float(config.getoption("benchmark_max_time")) == 1.0:  # the plugin's default, which takes four minutes in all
        config.option.benchmark_max_time = "0.2"
    config.stash[CEILINGS] = []


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(facts())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash[CEILINGS]:
        terminalreporter.section("kernels against the ceiling of one core, measured in this run")
        for line in config.stash[CEILINGS]:
            terminalreporter.write_line(line)


@pytest.fixture(params=["hotloop", "numpy"])
def compare(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """compare(group, hotloop, numpy, *arrays): check that both leave and return the same, then time one of them.

    Each gets its own copy of the arrays. NumPy's BLAS runs on one thread, as the kernels do. `same` takes the two
    outcomes in place of the comparison to `tolerance` (relative to the largest value). flops (operations) or n (float32
    elements read and written) puts the rate beside the ceiling, into the report and the result's extra_info.
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def run(
        group: str,
        hotloop: Work,
        numpy: Work,
        *arrays: Array,
        tolerance: float = 1e-5,
        same: Work | None = None,
        flops: float = 0,
        n: int = 0,
    ) -> None:
        with threadpoolctl.threadpool_limits(1):
            ours, theirs = _outcome(hotloop, arrays), _outcome(numpy, arrays)
            if same is not None:
                same(ours, theirs)
            else:
                for a, b in zip(ours, theirs, strict=True):
                    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))
            benchmark.group = group
            work = hotloop if request.param == "hotloop" else numpy
            benchmark(work, *(array.copy() for array in arrays))
        if benchmark.stats is not None and (flops or n):  # no stats with --benchmark-disable
            seconds = benchmark.stats.stats.median
            rate, top = (flops, multiply_add_peak()) if flops else (8 * n, read_modify_write_peak(n))
            unit, share = "GFLOP/s" if flops else "GB/s", rate / seconds / 1e9 / top
            benchmark.extra_info |= {unit: round(share * top, 1), "ceiling": round(top, 1), "share": round(share, 3)}
            line = f"{group:<40} {request.param:<8} {share * top:8.1f} {unit}, {share:5.0%} of {top:.0f}"
            request.config.stash[CEILINGS].append(line)

    return run


def _outcome(work: Work, arrays: tuple[Array, ...]) -> list[Array]:
    """The arrays as `work` leaves them, and what it returns."""
    own = [array.copy() for array in arrays]
    returned = work(*own)
    if returned is None:
        return own
    return own + [np.asarray(value) for value in (returned if isinstance(returned, tuple) else (returned,))]
