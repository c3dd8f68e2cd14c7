"""Parameter updates against their twins: one step, many steps, and what they leave alone."""

from typing import Any

import numpy as np
import pytest
import reference
from reference import Array

from hotloop.kernels import updates

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
LR, MOMENTUM = 0.05, 0.9

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def buffers(n: int, dtype: str) -> list[Array]:
    """Parameters, gradient and velocity in the middle of longer buffers."""
    return [np.random.default_rng([n, i]).normal(size=n + 80).astype(dtype)[40:-40] for i in range(3)]


def assert_close(result: Array, exact: Array) -> None:
    eps = np.finfo(result.dtype).eps
    np.testing.assert_allclose(result, exact, rtol=4 * eps, atol=8 * eps)


@both
def test_sgd(dtype: str) -> None:
    for n in SIZES:
        params, grad, _ = buffers(n, dtype)
        exact, around, grad_before = reference.sgd(params, grad, LR), params.base.copy(), grad.copy()
        updates.sgd(params, grad, LR)
        assert_close(params, exact)
        assert np.array_equal(grad, grad_before)
        assert np.array_equal(params.base[:40], around[:40]) and np.array_equal(params.base[-40:], around[-40:])


@both
@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_momentum_and_nesterov(name: str, dtype: str) -> None:
    for n in SIZES:
        params, grad, velocity = buffers(n, dtype)
        exact_params, exact_velocity = getattr(reference, name)(params, grad, velocity, LR, MOMENTUM)
        around, around_velocity, grad_before = params.base.copy(), velocity.base.copy(), grad.copy()
        getattr(updates, name)(params, grad, velocity, LR, MOMENTUM)
        assert_close(params, exact_params)
        assert_close(velocity, exact_velocity)
        assert np.array_equal(grad, grad_before)
        for buffer, before in ((params, around), (velocity, around_velocity)):
            assert np.array_equal(buffer.base[:40], before[:40]) and np.array_equal(buffer.base[-40:], before[-40:])


@both
@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_no_momentum_is_sgd(name: str, dtype: str) -> None:
    params, grad, velocity = buffers(33, dtype)
    plain = params.copy()
    getattr(updates, name)(params, grad, velocity, LR, 0.0)
    updates.sgd(plain, grad, LR)
    assert params.tobytes() == plain.tobytes()
    assert np.array_equal(velocity, grad)


@pytest.mark.parametrize(("name", "ahead"), [("momentum", 0), ("nesterov", 1)])
def test_a_constant_gradient_builds_up_a_geometric_series(name: str, ahead: int) -> None:
    params, velocity, grad, steps = np.zeros(3), np.zeros(3), np.array([1.0, -2.0, 0.5]), 25
    for _ in range(steps):
        getattr(updates, name)(params, grad, velocity, LR, MOMENTUM)
    # v_s = g (1 - m^s) / (1 - m); Nesterov's step is g + m v_s = v_(s+1), one ahead.
    factors = [(1 - MOMENTUM ** (s + ahead)) / (1 - MOMENTUM) for s in range(1, steps + 1)]
    np.testing.assert_allclose(velocity, grad * (1 - MOMENTUM**steps) / (1 - MOMENTUM), rtol=1e-13)
    np.testing.assert_allclose(params, -LR * grad * sum(factors), rtol=1e-13)


@both
def test_nan_and_infinity_stay_in_their_place(dtype: str) -> None:
    def check(function: Any, with_velocity: bool) -> None:
        params, grad, velocity = buffers(33, dtype)
        grad[7], grad[20] = np.nan, np.inf
        function(*([params, grad, velocity, LR, MOMENTUM] if with_velocity else [params, grad, LR]))
        assert np.isnan(params[7]) and np.isneginf(params[20])
        assert np.isfinite(np.delete(params, [7, 20])).all()

    check(updates.sgd, False)
    check(updates.momentum, True)
    check(updates.nesterov, True)
