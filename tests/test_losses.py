"""Losses against their twins: value and delta, at the edges, and the delta against central differences of the twin."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import reference
from reference import Array

from hotloop.kernels import lines, losses
from hotloop.kernels.jit import jit
from hotloop.kernels.simd import pointer

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)

both = pytest.mark.parametrize("dtype", ["float32", "float64"])
each = pytest.mark.parametrize("name", list(reference.LOSSES))
each_class = pytest.mark.parametrize("name", list(reference.CLASS_LOSSES))


def run(name: str, prediction: Array, target: Any) -> tuple[float, Array]:
    """Value and delta of a kernel; delta lies in a field that must stay as it is."""
    k = len(prediction)
    delta = np.full(k + 40, 12345.0, prediction.dtype)
    value = getattr(losses, name)(prediction, target, k, delta)
    assert np.all(delta[k:] == 12345.0)
    return value, delta[:k]


def sample(name: str, k: int, seed: int) -> tuple[Array, Array]:
    """A row of predictions and one of targets that the loss is made for, in float64."""
    rng = np.random.default_rng([seed, k])
    prediction, noise = rng.normal(scale=2, size=(2, k))
    if name in ("mse", "mae", "huber"):
        return prediction, noise
    if name in ("hinge", "squared_hinge"):
        return prediction, np.sign(noise)
    if name == "cross_entropy":
        return prediction, reference.softmax(noise)
    if name == "logistic":
        return prediction, rng.choice([0.0, 1.0, rng.random()], size=k)  # hard and soft labels
    if name == "perceptron":
        return prediction, (noise > 0) * 1.0
    counts = rng.poisson(2.0, size=k) * 1.0
    return (np.exp(prediction / 2) if name == "poisson_rate" else prediction), counts


def central_difference(loss: Any, prediction: Array, target: Any, h: float = 1e-5) -> Array:
    """dvalue/dprediction of a twin, one element at a time."""
    slope = np.empty(len(prediction))
    for j in range(len(prediction)):
        up, down = prediction.copy(), prediction.copy()
        up[j] += h
        down[j] -= h
        slope[j] = (loss(up, target)[0] - loss(down, target)[0]) / (up[j] - down[j])
    return slope


def test_every_loss_has_a_twin() -> None:
    assert set(losses.CODES) | {"poisson_rate"} == set(reference.LOSSES)
    assert len(set(losses.CODES.values())) == len(losses.CODES)


@both
@each
def test_value_and_delta_agree_with_the_twin(name: str, dtype: str) -> None:
    for k, seed in product(SIZES, range(4)):
        prediction, target = (row.astype(dtype) for row in sample(name, k, seed))
        value, delta = run(name, prediction, target)
        exact_value, exact_delta = reference.LOSSES[name](prediction, target)
        eps = (k + 16) * np.finfo(dtype).eps
        np.testing.assert_allclose(value, exact_value, rtol=eps, atol=eps * abs(prediction).max())
        np.testing.assert_allclose(delta, exact_delta, rtol=eps, atol=eps)


@both
@each_class
def test_class_value_and_delta_agree_with_the_twin(name: str, dtype: str) -> None:
    for k, seed in product(SIZES[1:], range(4)):
        prediction = np.random.default_rng([k, seed]).normal(scale=2, size=k).astype(dtype)
        for label in {0, k // 2, k - 1, int(prediction.argmax())}:
            value, delta = run(f"{name}_class", prediction, label)
            exact_value, exact_delta = reference.CLASS_LOSSES[name](prediction, label)
            eps = (k + 16) * np.finfo(dtype).eps
            np.testing.assert_allclose(value, exact_value, rtol=eps, atol=eps * abs(prediction).max())
            np.testing.assert_allclose(delta, exact_delta, rtol=eps, atol=eps)


@each
def test_delta_is_the_central_difference_of_the_value(name: str) -> None:
    for k, seed in product((1, 2, 3, 9), range(4)):
        prediction, target = sample(name, k, seed)
        for kink in (target, target - 1, target + 1, 0):  # mae; huber and hinge at t p = 1; perceptron
            assert np.all(abs(prediction - kink) > 1e-4)
        difference = central_difference(reference.LOSSES[name], prediction, target)
        np.testing.assert_allclose(run(name, prediction, target)[1], difference, rtol=1e-7, atol=1e-8)


@each_class
def test_class_delta_is_the_central_difference_of_the_value(name: str) -> None:
    for k, seed in product((2, 3, 9), range(4)):
        prediction = np.random.default_rng([k, seed]).normal(scale=2, size=k)
        assert np.diff(np.sort(prediction)).min() > 1e-4
        for label in range(k):
            difference = central_difference(reference.CLASS_LOSSES[name], prediction, label)
            np.testing.assert_allclose(run(f"{name}_class", prediction, label)[1], difference, rtol=1e-7, atol=1e-8)


@both
@each
def test_delta_may_overwrite_the_prediction(name: str, dtype: str) -> None:
    for k in SIZES:
        prediction, target = (row.astype(dtype) for row in sample(name, k, 0))
        value, delta = run(name, prediction, target)
        assert getattr(losses, name)(prediction, target, k, prediction) == value
        assert prediction.tobytes() == delta.tobytes()


@both
@each_class
def test_class_delta_may_overwrite_the_prediction(name: str, dtype: str) -> None:
    for k in SIZES[1:]:
        prediction = np.random.default_rng(k).normal(size=k).astype(dtype)
        value, delta = run(f"{name}_class", prediction, k // 2)
        assert getattr(losses, f"{name}_class")(prediction, k // 2, k, prediction) == value
        assert prediction.tobytes() == delta.tobytes()


@both
def test_row_chooses_by_code(dtype: str) -> None:
    none = np.empty(0, dtype)
    for name, code in [*losses.CODES.items(), ("poisson_rate", losses.POISSON_RATE)]:
        prediction, target = (row.astype(dtype) for row in sample(name, 9, 0))
        value, delta = run(name, prediction, target)
        by_code = np.empty_like(delta)
        assert losses.row(code, prediction, target, -1, 9, by_code) == value
        assert by_code.tobytes() == delta.tobytes()
    for name, code in losses.CLASS_CODES.items():
        prediction = sample("mse", 9, 0)[0].astype(dtype)
        value, delta = run(f"{name}_class", prediction, 4)
        by_code = np.empty_like(delta)
        assert losses.row(code, prediction, none, 4, 9, by_code) == value
        assert by_code.tobytes() == delta.tobytes()


@both
@pytest.mark.parametrize("name", ["logistic", "cross_entropy", "hinge", "squared_hinge", "perceptron", "huber", "mae"])
def test_logits_of_a_thousand_are_finite_and_right(name: str, dtype: str) -> None:
    logits = np.array([1000.0, -1000.0, 0.0, 1000.0, -1000.0], dtype)
    for labels in ([1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]):
        target = np.array(labels, dtype)
        if name in ("hinge", "squared_hinge"):
            target = 2 * target - 1
        value, delta = run(name, logits, target)
        exact_value, exact_delta = reference.LOSSES[name](logits, target)
        assert np.isfinite(exact_value)
        eps = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(value, exact_value, rtol=eps, atol=eps)
        np.testing.assert_allclose(delta, exact_delta, rtol=eps, atol=eps)


@both
@each_class
def test_class_logits_of_a_thousand_are_finite_and_right(name: str, dtype: str) -> None:
    logits = np.array([1000.0, -1000.0, 0.0, 1000.0, -1000.0], dtype)
    for label in range(5):
        value, delta = run(f"{name}_class", logits, label)
        exact_value, exact_delta = reference.CLASS_LOSSES[name](logits, label)
        eps = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(value, exact_value, rtol=eps, atol=eps)
        np.testing.assert_allclose(delta, exact_delta, rtol=eps, atol=eps)


@both
def test_a_sure_and_right_answer_costs_little_but_not_nothing(dtype: str) -> None:
    # log(1 + e^-20) is below the spacing of numbers near 20: a difference of large numbers would give 0 or noise.
    for z, t in ((20.0, 1.0), (-20.0, 0.0)):
        value, _ = run("logistic", np.array([z], dtype), np.array([t], dtype))
        np.testing.assert_allclose(value, np.exp(-20.0), rtol=1e-5)


@both
def test_cross_entropy_of_a_class_is_that_of_its_one_hot_row(dtype: str) -> None:
    for k in SIZES:
        logits = np.random.default_rng(k).normal(scale=3, size=k).astype(dtype)
        for label in {0, k // 2, k - 1}:
            value, delta = run("cross_entropy_class", logits, label)
            row_value, row_delta = run("cross_entropy", logits, reference.one_hot(label, k).astype(dtype))
            np.testing.assert_allclose(value, row_value, rtol=0, atol=16 * np.finfo(dtype).eps)
            np.testing.assert_allclose(delta, row_delta, rtol=0, atol=4 * np.finfo(dtype).eps)


@both
def test_known_values(dtype: str) -> None:
    def close(result: tuple[float, Array], value: float, delta: list[float]) -> None:
        np.testing.assert_allclose(result[0], value, rtol=1e-6)
        np.testing.assert_allclose(result[1], delta, rtol=1e-6, atol=1e-7)

    def row(*numbers: float) -> Array:
        return np.array(numbers, dtype)

    log2 = 0.6931471805599453
    close(run("mse", row(1, 3), row(0, 1)), 2.5, [1, 2])
    close(run("mae", row(1, 3, 2), row(3, 1, 2)), 4 / 3, [-1 / 3, 1 / 3, 0])
    close(run("huber", row(0.5, 3), row(0, 0)), (0.125 + 2.5) / 2, [0.25, 0.5])
    close(run("hinge", row(0.5, 2, 1, 3), row(1, 1, 1, -1)), (0.5 + 4) / 4, [-0.25, 0, 0, 0.25])  # p t = 1 is no error
    close(run("squared_hinge", row(0.5, 2), row(1, -1)), (0.25 + 9) / 2, [-0.5, 3])
    close(run("logistic", row(0, 0), row(0, 1)), log2, [0.25, -0.25])
    close(run("cross_entropy", row(0, 0), row(0.25, 0.75)), log2, [0.25, -0.25])
    close(run("cross_entropy_class", row(0, 0, 0, 0), 2), 2 * log2, [0.25, 0.25, -0.75, 0.25])
    close(run("poisson", row(0, log2), row(3, 1)), (1 + 2 - log2) / 2, [-1, 0.5])
    close(run("poisson_rate", row(1, 2), row(3, 1)), (1 + 2 - log2) / 2, [-1, 0.25])
    close(run("perceptron", row(0.5, -2, 3, -4), row(1, 1, 0, 0)), 5, [0, -1, 1, 0])
    close(run("perceptron", row(0), row(1)), 0, [-1])  # step(0) = 0: wrong, so it moves although it costs nothing
    close(run("hinge_class", row(1, 0.5, 3), 0), 3, [-1, 0, 1])
    close(run("hinge_class", row(1, 0, 3), 2), 0, [0, 0, 0])
    close(run("hinge_class", row(1, 0, 2), 2), 0, [0, 0, 0])  # the edge of the margin
    close(run("squared_hinge_class", row(1, 0.5, 3), 0), 9, [-6, 0, 6])
    close(run("perceptron_class", row(1, 2, 2), 2), 0, [0, 1, -1])  # the first of equals is the answer
    close(run("perceptron_class", row(1, 2, 2), 1), 0, [0, 0, 0])
    close(run("perceptron_class", row(1, 2, 4), 0), 3, [-1, 0, 1])


@both
@each
def test_nan_gives_nan(name: str, dtype: str) -> None:
    for k in (1, 3, 17):
        for place in {0, k // 2, k - 1}:
            prediction, target = (row.astype(dtype) for row in sample(name, k, 0))
            prediction[place] = np.nan
            assert np.isnan(run(name, prediction, target)[0]), (k, place)


@both
@each_class
def test_class_nan_gives_nan(name: str, dtype: str) -> None:
    for k in (2, 3, 17):
        for place, label in product({0, k // 2, k - 1}, repeat=2):
            prediction = np.random.default_rng(k).normal(size=k).astype(dtype)
            prediction[place] = np.nan
            assert np.isnan(run(f"{name}_class", prediction, label)[0]), (k, place, label)


@jit
def ready_row(code, prediction, target, label, delta):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays."""
    k, z, into = prediction.shape[0], pointer(prediction, 0), pointer(delta, 0)
    return losses.ready_row(code, z, pointer(target, 0), label, k, into)


@both
@each
def test_what_a_training_calls_has_the_bits_of_the_loss(name: str, dtype: str) -> None:
    code = losses.ready(losses.POISSON_RATE if name == "poisson_rate" else losses.CODES[name], dtype)
    for k in (*SIZES, 10, 40):
        prediction, target = (row.astype(dtype) for row in sample(name, k, 3))
        delta = np.full(k + 20, 12345.0, dtype)
        value, expected = run(name, prediction, target)
        assert ready_row(code, prediction, target, 0, delta) == value
        assert delta[:k].tobytes() == expected.tobytes() and (delta[k:] == 12345.0).all(), k


@both
@each_class
def test_what_a_training_calls_has_the_bits_of_the_loss_of_classes(name: str, dtype: str) -> None:
    code, none = losses.ready(losses.CLASS_CODES[name], dtype), np.empty(0, dtype)
    for k in (2, 3, 10, 17, 40):
        prediction, label = np.random.default_rng(k).normal(size=k).astype(dtype), k // 2
        delta = np.full(k + 20, 12345.0, dtype)
        value, expected = run(f"{name}_class", prediction, label)
        assert ready_row(code, prediction, none, label, delta) == value
        assert delta[:k].tobytes() == expected.tobytes() and (delta[k:] == 12345.0).all(), k


@jit
def class_rows(logits, label, k, scale, value, delta):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays."""
    z, into, of, to = pointer(logits, 0), pointer(delta, 0), pointer(scale, 0), pointer(value, 0)
    lines.cross_entropy_class_rows(z, logits.shape[0], pointer(label, 0), k, of, to, into)


@jit
def class_line(logits, label, k, scale, delta):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays."""
    return lines.cross_entropy_class_line(pointer(logits, 0), label, k, scale, pointer(delta, 0))


@both
@pytest.mark.parametrize("spread", [2.0, 1000.0])
@pytest.mark.parametrize("rows", [1, 2, 7, 15, 16])
def test_cross_entropy_of_many_rows_has_the_bits_of_each(rows: int, spread: float, dtype: str) -> None:
    for k in (1, 2, 3, 10, 15, 16):
        rng = np.random.default_rng([rows, k])
        logits, label = np.zeros((rows, 16), dtype), rng.integers(0, k, rows).astype(np.int32)
        logits[:, :k] = rng.normal(scale=spread, size=(rows, k))
        scale, value, delta = rng.normal(size=rows).astype(dtype), np.zeros(rows, dtype), np.full((rows, 16), 7, dtype)
        class_rows(logits, label, k, scale, value, delta)
        for r in range(rows):
            one, back = run("cross_entropy_class", logits[r, :k], label[r])
            line = np.full(16, 7, dtype)
            assert value[r] == one == class_line(logits[r], label[r], k, scale[r], line)
            assert delta[r, :k].tobytes() == (back * scale[r]).astype(dtype).tobytes()
            assert delta[r].tobytes() == line.tobytes()
            exact, slope = reference.cross_entropy_class(logits[r, :k], int(label[r]))
            np.testing.assert_allclose(value[r], exact, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(delta[r, :k], slope * np.float64(scale[r]), rtol=1e-4, atol=1e-6)
        assert not delta[:, k:].any()  # what the padding of the weights would be moved by


@both
def test_nan_in_one_of_many_rows_stays_there(dtype: str) -> None:
    logits, label = np.zeros((5, 16), dtype), np.zeros(5, np.int32)
    logits[3, 1] = np.nan
    scale, value, delta = np.ones(5, dtype), np.zeros(5, dtype), np.zeros((5, 16), dtype)
    class_rows(logits, label, 4, scale, value, delta)
    assert np.isnan(value[3]) and np.isnan(delta[3, :4]).all() and not np.isnan(delta[3, 4:]).any()
    assert np.isfinite(np.delete(value, 3)).all() and np.isfinite(np.delete(delta, 3, 0)).all()
