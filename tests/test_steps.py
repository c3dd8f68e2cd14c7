"""Steps by address: the rule of each code, over a range of the parameters, and nothing beside it."""

import numba
import numpy as np
import pytest
from reference import Array

from hotloop import layout
from hotloop.kernels import steps, updates
from hotloop.kernels.plan import Network

RANGE = 5, 38  # of 50 parameters
LR = 0.05

# What each rule's kernel takes behind params and grad: how many memories, and its numbers in the third step.
NUMBERS = {
    "SGD": (0, (LR,)),
    "MOMENTUM": (1, (LR, 0.9)),
    "NESTEROV": (1, (LR, 0.9)),
    "ADAM": (2, (LR, 0.9, 0.99, 1e-3, 0.1, 0.9**2 * 0.9, 0.99**2 * 0.99)),
    "RMSPROP": (2, (LR, 0.9, 0.99, 1e-3)),
    "ADAGRAD": (1, (LR, 1e-3)),
    "ADADELTA": (2, (LR, 0.99, 1e-3)),
    "LION": (1, (LR, 0.9, 0.99, 0.1)),
    "AVERAGED": (1, (LR, 1.0 / (3.0 - 1e-3))),
}


@numba.njit
def apply(rule, params, begin, end, lr):
    steps.apply(rule, params, begin, end, lr)


@numba.njit
def apply_share(rule, plan, params, lr, share):
    steps._apply_share(rule, Network(plan, params), lr, share)


def drawn(dtype: str, n: int = 50) -> list[Array]:
    """Parameters, gradient and two memories."""
    arrays = [np.random.default_rng(i).normal(size=n).astype(dtype) for i in range(4)]
    return [*arrays[:2], *(np.abs(memory) for memory in arrays[2:])]


def make_rule(code: int, arrays: list[Array]) -> updates.Rule:
    """A rule that has done two steps."""
    clock = np.array([2.0, 0.9**2, 0.99**2])
    return steps.ready(updates.Rule(code, np.array([LR]), 0.9, 0.99, 1e-3, 0.1, *arrays[1:], clock))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_step_is_that_of_its_rule(name: str, dtype: str) -> None:
    arrays, wanted = drawn(dtype), drawn(dtype)
    apply(make_rule(getattr(updates, name), arrays), arrays[0], *RANGE, LR)
    memories, numbers = NUMBERS[name]
    part = [array[slice(*RANGE)] for array in wanted]
    getattr(updates, name.lower())(*part[: 2 + memories], *numbers)
    part[1][:] = 0  # the gradient is used up
    for found, exact in zip(arrays, wanted, strict=True):
        np.testing.assert_allclose(found, exact, rtol=4 * np.finfo(dtype).eps)
        assert found[: RANGE[0]].tobytes() == exact[: RANGE[0]].tobytes()
        assert found[RANGE[1] :].tobytes() == exact[RANGE[1] :].tobytes()


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", [[70, 150, 3], [1, 1], [40, 17, 33, 1]], ids=str)
def test_shares_make_a_whole_step(sizes: list[int], threads: int) -> None:
    """Every parameter is moved once, in more than one CHUNK; and its gradient set to zero."""
    plan, _ = layout.make_plan(sizes, [0] * (len(sizes) - 1), True, 1)
    n = layout.parameter_count(sizes)
    ours, theirs = drawn("float32", n), drawn("float32", n)
    for thread in range(threads):
        apply_share(make_rule(updates.ADAM, ours), plan, ours[0], LR, (thread, thread + 1, threads))
    apply(make_rule(updates.ADAM, theirs), theirs[0], 0, n, LR)
    assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs] and not ours[1].any()


def test_without_an_address_nothing_moves() -> None:
    for code in (updates.GRADIENT_ONLY, updates.PASSIVE_AGGRESSIVE):
        arrays = drawn("float64")
        before = [array.tobytes() for array in arrays]
        rule = make_rule(code, arrays)
        apply(rule, arrays[0], *RANGE, LR)
        assert rule.part == 0 and [array.tobytes() for array in arrays] == before


def test_an_address_is_asked_for_only_with_a_gradient_buffer() -> None:
    arrays = drawn("float32")
    assert make_rule(updates.SGD, arrays).part != 0
    assert make_rule(updates.SGD, [arrays[0], arrays[1][:0], *arrays[2:]]).part == 0
