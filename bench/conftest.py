"""Shared by all benchmarks: `compare` runs a kernel and its NumPy equivalent in one group; reports say where they ran."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from facts import facts
from numpy.typing import NDArray

Array = NDArray[Any]
Work = Callable[..., Any]  # gets the arrays, may change them in place, may return arrays or numbers


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(facts())


@pytest.fixture(params=["hotloop", "numpy"])
def compare(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """compare(group, hotloop, numpy, *arrays): check that both leave and return the same, then time one of them.

    Each gets its own copy of the arrays. NumPy's BLAS runs on one thread, as the kernels do. `same` takes the two
    outcomes in place of the comparison to `tolerance` (relative to the largest value).
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def run(
        group: str, hotloop: Work, numpy: Work, *arrays: Array, tolerance: float = 1e-5, same: Work | None = None
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

    return run


def _outcome(work: Work, arrays: tuple[Array, ...]) -> list[Array]:
    """The arrays as `work` leaves them, and what it returns."""
    own = [array.copy() for array in arrays]
    returned = work(*own)
    if returned is None:
        return own
    return own + [np.asarray(value) for value in (returned if isinstance(returned, tuple) else (returned,))]
