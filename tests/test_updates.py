"""Parameter updates against their twins: one step, many steps, and what they leave alone."""

from typing import NamedTuple

import numpy as np
import pytest
import reference_updates as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Array

from hotloop.kernels import updates

SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
LR, MOMENTUM = 0.05, 0.9

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


class Case(NamedTuple):
    """A rule: how many buffers it remembers, the constants of the kernel, and those of the twin if they differ."""

    buffers: int
    constants: tuple[float, ...]
    twin: tuple[float, ...] | None = None
    before: tuple[float, ...] = ()  # of the twin, ahead of its constants


T = 5
RULES = {
    "sgd": Case(0, (LR,)),
    "momentum": Case(1, (LR, MOMENTUM)),
    "nesterov": Case(1, (LR, MOMENTUM)),
    "adam": Case(2, (LR, 0.9, 0.999, 1e-8, 0.1, 0.9**T, 0.999**T), (LR, 0.9, 0.999, 1e-8, 0.1), (T,)),
    "rmsprop": Case(2, (LR, MOMENTUM, 0.99, 1e-8)),
    "adagrad": Case(1, (LR, 1e-10)),
    "adadelta": Case(2, (LR, 0.9, 1e-6)),
    "lion": Case(1, (LR, 0.9, 0.99, 0.1)),
    "averaged": Case(1, (LR, 0.25)),
}
every_rule = pytest.mark.parametrize("name", RULES)


def buffers(n: int, dtype: str, count: int = 2) -> list[Array]:
    """Parameters, gradient and what a rule remembers (0 or more), in the middle of longer buffers."""
    draws = [np.random.default_rng([n, i]).normal(size=n + 80).astype(dtype)[40 : n + 40] for i in range(2 + count)]
    for remembered in draws[2:]:
        np.abs(remembered, out=remembered)
    return draws


def step(name: str, arrays: list[Array]) -> None:
    """One step of a kernel, in place."""
    getattr(updates, name)(*arrays, *RULES[name].constants)


def twin_step(name: str, arrays: list[Array]) -> list[Array]:
    """What params and the buffers hold after one step of the twin."""
    case = RULES[name]
    found = getattr(reference, name)(*arrays, *case.before, *(case.twin or case.constants))
    return list(found) if isinstance(found, tuple) else [found]


def assert_close(result: Array, exact: Array, roundings: int = 8) -> None:
    eps = np.finfo(result.dtype).eps
    np.testing.assert_allclose(result, exact, rtol=roundings * eps, atol=roundings * eps)


@both
@every_rule
def test_one_step_is_the_twins_and_touches_nothing_else(name: str, dtype: str) -> None:
    for n in SIZES:
        arrays = buffers(n, dtype, RULES[name].buffers)
        exact, around = twin_step(name, arrays), [array.base.copy() for array in arrays]
        step(name, arrays)
        for result, wanted in zip([arrays[0], *arrays[2:]], exact, strict=True):
            assert_close(result, wanted)
        assert np.array_equal(arrays[1].base, around[1])  # the gradient is read
        for array, before in zip(arrays, around, strict=True):
            assert np.array_equal(array.base[:40], before[:40]) and np.array_equal(array.base[-40:], before[-40:])


@both
@every_rule
def test_nothing_comes_of_nothing(name: str, dtype: str) -> None:
    """The padding of a network: zero parameters with zero gradients and zero memories stay zero, for any number of
    steps."""
    arrays = [np.zeros(33, dtype) for _ in range(2 + RULES[name].buffers)]
    for _ in range(20):
        step(name, arrays)
    assert not any(array.any() for array in arrays)


@both
@every_rule
def test_nan_and_infinity_stay_in_their_place(name: str, dtype: str) -> None:
    arrays, untouched = buffers(33, dtype, RULES[name].buffers), buffers(33, dtype, RULES[name].buffers)
    step(name, untouched)
    arrays[1][7], arrays[1][20] = np.nan, np.inf
    step(name, arrays)
    assert np.isnan(arrays[0][7])
    assert not np.isfinite(arrays[0][20]) or name == "lion"  # a sign is finite
    assert np.delete(arrays[0], [7, 20]).tobytes() == np.delete(untouched[0], [7, 20]).tobytes()


@both
@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_no_momentum_is_sgd(name: str, dtype: str) -> None:
    params, grad, velocity = buffers(33, dtype, 1)
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
def test_the_first_steps_of_adam_have_the_size_of_the_rate(dtype: str) -> None:
    """With a constant gradient both means, corrected for their start at zero, are exact: every step is lr."""
    params, grad = np.zeros(4, dtype), np.array([3.0, -1e-2, 50.0, -7.0], dtype)
    first, second = np.zeros(4, dtype), np.zeros(4, dtype)
    for t in range(1, 11):
        updates.adam(params, grad, first, second, LR, 0.9, 0.999, 1e-12, 0.0, 0.9**t, 0.999**t)
        np.testing.assert_allclose(params, -LR * t * np.sign(grad), rtol=1e-4 if dtype == "float32" else 1e-9)


def test_decay_is_decoupled() -> None:
    """Without a gradient weight_decay alone shrinks the parameters, whatever the rule remembers of gradients' size."""
    for name in ("adam", "lion"):
        arrays = [np.array([2.0, -3.0]), *(np.zeros(2) for _ in range(1 + RULES[name].buffers))]
        step(name, arrays)
        np.testing.assert_allclose(arrays[0], [2.0 * (1 - LR * 0.1), -3.0 * (1 - LR * 0.1)], rtol=1e-15)


def test_lion_moves_by_the_rate_or_not_at_all() -> None:
    params, grad, first = np.zeros(4), np.array([1e-30, -5.0, 0.0, 0.9]), np.array([0.0, 0.0, 0.0, -0.1])
    updates.lion(params, grad, first, LR, 0.9, 0.99, 0.0)
    assert params[:3].tolist() == [-LR, LR, 0.0]
    assert abs(params[3]) <= LR  # 0.9 * -0.1 + 0.1 * 0.9: a tie but for rounding


@given(st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_the_average_of_any_walk(steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params, mean, walk = rng.normal(size=5), np.zeros(5), []
    for t in range(1, steps + 1):
        updates.averaged(params, rng.normal(size=5), mean, LR, 1.0 / t)
        walk.append(params.copy())
    np.testing.assert_allclose(mean, np.mean(walk, axis=0), rtol=1e-12, atol=1e-13)


def test_every_code_has_its_buffers() -> None:
    codes = [updates.SGD, updates.MOMENTUM, updates.NESTEROV, updates.ADAM, updates.RMSPROP, updates.ADAGRAD]
    codes += [updates.ADADELTA, updates.LION, updates.AVERAGED, updates.PASSIVE_AGGRESSIVE, updates.GRADIENT_ONLY]
    assert codes == list(range(11)) == sorted(updates.BUFFERS)
    for name, case in RULES.items():
        assert updates.BUFFERS[getattr(updates, name.upper())] == case.buffers


@pytest.mark.parametrize("name", [name for name, case in RULES.items() if case.buffers and name != "averaged"])
def test_what_fades_ends_as_zero(name: str) -> None:
    """No float32 memory ends as a subnormal number, which would slow every step that follows."""
    arrays = buffers(40, "float32", RULES[name].buffers)
    arrays[1][:] = 0
    for remembered in arrays[2:]:
        remembered[:] = np.geomspace(1e-37, 1e-30, 40)
    for _ in range(500):
        step(name, arrays)
        for remembered in arrays[2:]:
            assert ((remembered == 0) | (remembered >= np.finfo(np.float32).smallest_normal)).all()
