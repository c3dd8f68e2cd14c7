"""Kernels of regularisation against their twins, called from compiled code, on the buffers of odd networks."""

from itertools import pairwise

import numba
import numpy as np
import pytest
import reference_regularize as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Array, words

from hotloop import MLP
from hotloop.kernels import regularize
from hotloop.kernels.plan import SLOPE, STRIDE, VALUE
from hotloop.layout import make_plan
from hotloop.regularization import Regularization

SIZES = [[1, 1], [3, 2], [5, 17, 3], [33, 16, 40, 2], [70, 64, 1]]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)
both = pytest.mark.parametrize("dtype", ["float32", "float64"])
every_share = pytest.mark.parametrize("threads", [1, 3])


@numba.njit
def penalise(plan, params, grad, l1, l2, ends):
    for begin, end in zip(ends[:-1], ends[1:]):  # noqa: B905, RUF007 (Numba knows neither)
        regularize.penalise(plan, params, grad, l1, l2, begin, end)


@numba.njit
def clip_values(grad, bound, begin, end):
    regularize.clip_values(grad, bound, begin, end)


@numba.njit
def clip_norm(grad, squares, bound, ends):
    regularize.sum_squares(grad, squares, 0, squares.shape[0])
    for begin, end in zip(ends[:-1], ends[1:]):  # noqa: B905, RUF007 (Numba knows neither)
        regularize.scale_to_norm(grad, squares, bound, begin, end)


@numba.njit
def limit_norms(net, regular, threads):
    for thread in range(threads):
        regularize.limit_norms(net, regular, thread, threads)


@numba.njit
def drop(plan, work, layer, r, position, regular):
    regularize.drop(plan, work, layer, r, position, regular)


@numba.njit
def add_noise(plan, work, r, position, regular):
    regularize.add_noise(plan, work, r, position, regular)


def network(sizes: list[int], dtype: str) -> MLP:
    """A model whose weights and biases are all of about size 1, one weight exactly zero."""
    model = MLP(sizes, dtype=dtype)
    rng = np.random.default_rng(sizes)
    for view in model.weights + model.biases:
        view[:] = rng.normal(size=view.shape)
    model.weights[0][0, 0] = 0.0
    return model


def cuts(n: int, threads: int) -> Array:
    """Ends of the shares of a buffer, at any place."""
    return np.array([n * thread // threads for thread in range(threads + 1)])


def tolerance(dtype: str) -> float:
    return 2e-6 if dtype == "float32" else 2e-15


@every_share
@both
@every_size
def test_penalties_are_added_to_the_weights_alone(sizes: list[int], dtype: str, threads: int) -> None:
    model, grad = network(sizes, dtype), network(sizes[:1] + sizes[1:], dtype)
    grad.params[:] *= 0.5
    exact = reference.penalised(model.weights, grad.weights, reference.Regular(l1=0.3, l2=0.7))
    biases, padded = [bias.copy() for bias in grad.biases], np.count_nonzero(grad.params == 0)
    penalise(model._network.plan, model.params, grad.params, 0.3, 0.7, cuts(len(grad.params), threads))
    for found, wanted in zip(grad.weights, exact, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance(dtype), atol=tolerance(dtype))
    assert grad.weights[0][0, 0] == 0.0  # half of 0, and the sign of 0
    assert all(np.array_equal(a, b) for a, b in zip(grad.biases, biases, strict=True))
    assert np.count_nonzero(grad.params == 0) >= padded


@both
def test_clipped_values(dtype: str) -> None:
    for n in (1, 15, 16, 17, 100):
        grad = np.random.default_rng(n).normal(size=n).astype(dtype)
        grad[0] = np.nan
        exact = np.clip(grad, -0.5, 0.5)
        begin, end = n // 3, n - n // 5
        whole = grad.copy()
        clip_values(grad, 0.5, begin, end)
        assert grad[begin:end].tobytes() == exact[begin:end].tobytes()
        assert grad[:begin].tobytes() == whole[:begin].tobytes() and grad[end:].tobytes() == whole[end:].tobytes()


@every_share
@both
@pytest.mark.parametrize("n", [16, 1008, 1024, 1040, 2048, 5136])
def test_clipped_norm(n: int, dtype: str, threads: int) -> None:
    grad = np.random.default_rng(n).normal(size=n).astype(dtype)
    norm = np.linalg.norm(grad.astype(float))
    for bound in (norm * 2, norm / 3, 1e-3):
        found = grad.copy()
        squares = np.full(-(-n // regularize.BLOCK), np.nan, dtype)
        clip_norm(found, squares, bound, cuts(n, threads))
        wanted = reference.clipped([grad], reference.Regular(clip_norm=bound))[0]
        np.testing.assert_allclose(found, wanted, rtol=10 * tolerance(dtype))
        assert bound < norm or found.tobytes() == grad.tobytes()


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@both
@every_size
def test_limited_norms(sizes: list[int], dtype: str, threads: int) -> None:
    model = network(sizes, dtype)
    model.weights[0][:, -1] = 0.0  # a unit without weights
    exact = [reference.limited(weight, 1.5) for weight in model.weights]
    below = [np.linalg.norm(weight.astype(float), axis=0) < 1.4999 for weight in model.weights]
    before, biases = [weight.copy() for weight in model.weights], [bias.copy() for bias in model.biases]
    limit_norms(model._network, Regularization(max_norm=1.5).for_kernels(len(below), dtype, 0), threads)
    for found, wanted, old, small in zip(model.weights, exact, before, below, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=10 * tolerance(dtype))
        assert found[:, small].tobytes() == old[:, small].tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(model.biases, biases, strict=True))


@both
@pytest.mark.parametrize("share", [0.5, 0.1, 1 / 3, 0.99, 1e-6])
def test_dropped_units_are_the_twins(share: float, dtype: str) -> None:
    sizes = [3, 19, 8, 2]
    plan, size = make_plan(sizes, [0, 0, 0], True, 4)
    regular = Regularization(dropout=[share] * 3).for_kernels(3, dtype, seed=2**40 + 5, epoch=7)
    for layer in (0, 1, 2):
        for r, position in ((0, 0), (3, 1), (2, 123_456)):
            work = np.random.default_rng(1).normal(size=size).astype(dtype)
            before = work.copy()
            drop(plan, work, layer, r, position, regular)
            factor = reference.unit_factor(2**40 + 5, 7, position, layer, 4, sizes[layer], share)
            for place in (VALUE, SLOPE):
                at = plan[layer, place] + r * plan[layer, STRIDE]
                wanted = before[at : at + sizes[layer]] * factor.astype(dtype)
                assert work[at : at + sizes[layer]].tobytes() == wanted.tobytes()
                before[at : at + sizes[layer]] = wanted
            assert work.tobytes() == before.tobytes()  # and nothing else


def test_a_draw_equal_to_the_share_keeps_its_unit() -> None:
    """16 bits are 0 .. 65535: with `<` a share of s / 65536 is dropped s times in 65536, with `<=` once more."""
    plan, size = make_plan([2, 8, 2], [0, 0], True, 1)
    bits = [word >> 16 * lane & 0xFFFF for word in words(9, reference.DROPOUT, 0, 1 << 24) for lane in range(4)]
    for unit, drawn in enumerate(bits):
        for share, kept in ((drawn / 65536, True), ((drawn + 1) / 65536, False)):
            work = np.ones(size)
            drop(plan, work, 1, 0, 0, Regularization(dropout=[0.0, share]).for_kernels(2, "float64", 9))
            assert (work[plan[1, VALUE] + unit] > 0) == kept


@both
def test_noise_is_the_twins(dtype: str) -> None:
    plan, size = make_plan([5, 2], [0], True, 3)
    regular = Regularization(input_noise=0.25).for_kernels(1, dtype, seed=11, epoch=2)
    work = np.random.default_rng(1).normal(size=size).astype(dtype)
    before = work.copy()
    add_noise(plan, work, 2, 77, regular)
    at = plan[0, VALUE] + 2 * plan[0, STRIDE]
    before[at : at + 5] = reference.noisy(before[None, at : at + 5], 11, 2, [77], 0.25)[0]
    np.testing.assert_allclose(work, before, rtol=tolerance(dtype))
    assert np.delete(work, range(at, at + 5)).tobytes() == np.delete(before, range(at, at + 5)).tobytes()


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**9), st.integers(0, 2**31), st.floats(0.0, 0.999))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_any_draw_of_dropout(seed: int, position: int, epoch: int, share: float) -> None:
    plan, size = make_plan([2, 9, 2], [0, 0], True, 1)
    regular = Regularization(dropout=[0.0, share]).for_kernels(2, "float64", seed, epoch)
    if not share:
        assert regular.dropout.shape == (0,)
        return
    work = np.ones(size)
    drop(plan, work, 1, 0, position, regular)
    factor = reference.unit_factor(seed, epoch, position, 1, 3, 9, share)
    assert work[plan[1, VALUE] : plan[1, VALUE] + 9].tolist() == factor.tolist()


def test_twins_of_whole_networks_agree() -> None:
    """Without dropout and weights the thinned network of the twin is the network of the other twin."""
    import reference as plain

    rng = np.random.default_rng(5)
    weights = [rng.normal(size=pair) for pair in pairwise([4, 5, 3])]
    biases = [rng.normal(size=n) for n in (5, 3)]
    x, y = rng.normal(size=(6, 4)), rng.integers(0, 3, 6)
    arguments = (weights, biases, ["tanh", "softmax"], "cross_entropy", x, y)
    values, dweights, dbiases = reference.thinned_gradients(*arguments, None, np.ones(6))
    loss, exact_weights, exact_biases = plain.network_gradients(*arguments)
    assert np.mean(values) == pytest.approx(loss, rel=1e-14)
    for found, wanted in zip(dweights + dbiases, exact_weights + exact_biases, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
