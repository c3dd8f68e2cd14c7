"""Losses bound to outputs: which pairs there are, how y is read, and what is said about a wrong one."""

import numpy as np
import pytest

from hotloop import MLP, objectives
from hotloop.kernels import activations, losses
from hotloop.objectives import OUTPUTS, bind, resolve


def model(k: int = 1, output: str = "identity", dtype: str = "float32") -> MLP:
    """A model with two inputs."""
    return MLP([2, k], output=output, dtype=dtype)


@pytest.mark.parametrize("output", activations.CODES)
def test_default_losses(output: str) -> None:
    expected = {"softmax": "cross_entropy", "sigmoid": "logistic", "step": "perceptron"}.get(output, "mse")
    assert resolve(None, output) == expected
    assert output in OUTPUTS[expected]


@pytest.mark.parametrize("output", activations.CODES)
@pytest.mark.parametrize("loss", OUTPUTS)
def test_every_pair_is_taken_or_refused_by_name(loss: str, output: str) -> None:
    if output in OUTPUTS[loss]:
        assert resolve(loss, output) == loss
    else:
        with pytest.raises(ValueError, match=f"loss: '{loss}' makes no sense with .* '{output}'.*{OUTPUTS[loss][0]}"):
            resolve(loss, output)


def test_pairs_of_the_textbooks_are_there() -> None:
    for loss, output in [
        ("mse", "sigmoid"),
        ("mse", "softmax"),
        ("mse", "tanh"),
        ("hinge", "identity"),
        ("logistic", "identity"),
        ("cross_entropy", "identity"),
        ("poisson", "softplus"),
    ]:
        assert resolve(loss, output) == loss
    with pytest.raises(ValueError, match="a step has no slope to follow"):
        resolve("mse", "step")
    with pytest.raises(ValueError, match="cross_entropy"):
        resolve("cross_entropy", "sigmoid")


@pytest.mark.parametrize(
    ("loss", "k", "output", "y", "code", "activation", "decision"),
    [
        ("mse", 1, "identity", [0.5, 1], losses.MSE, "identity", "value"),
        ("mse", 1, "sigmoid", [0, 1], losses.MSE, "sigmoid", "threshold"),
        ("mse", 2, "softmax", [[0, 1], [1, 0]], losses.MSE, "softmax", "argmax"),
        ("mae", 1, "tanh", [0.5, 1], losses.MAE, "tanh", "value"),
        ("huber", 1, "relu", [0.5, 1], losses.HUBER, "relu", "value"),
        ("hinge", 1, "identity", [-1, 1], losses.HINGE, "identity", "sign"),
        ("hinge", 1, "tanh", [-1, 1], losses.HINGE, "tanh", "sign"),
        ("hinge", 1, "step", [-1, 1], losses.HINGE, "identity", "sign"),
        ("hinge", 3, "identity", [0, 2], losses.HINGE_CLASS, "identity", "argmax"),
        ("hinge", 2, "identity", [[-1, 1], [1, 1]], losses.HINGE, "identity", "sign"),
        ("squared_hinge", 3, "identity", [0, 2], losses.SQUARED_HINGE_CLASS, "identity", "argmax"),
        ("logistic", 1, "sigmoid", [0, 1], losses.LOGISTIC, "identity", "threshold"),
        ("logistic", 2, "sigmoid", [[0, 1], [1, 1]], losses.LOGISTIC, "identity", "threshold"),
        ("logistic", 1, "identity", [0, 0.3], losses.LOGISTIC, "identity", "threshold"),
        ("cross_entropy", 3, "softmax", [0, 2], losses.CROSS_ENTROPY_CLASS, "identity", "argmax"),
        ("cross_entropy", 2, "softmax", [[0, 1], [0.5, 0.5]], losses.CROSS_ENTROPY, "identity", "argmax"),
        ("poisson", 1, "identity", [0, 7], losses.POISSON, "identity", "exp"),
        ("poisson", 1, "softplus", [0, 7], losses.POISSON_RATE, "softplus", "value"),
        ("perceptron", 1, "step", [0, 1], losses.PERCEPTRON, "identity", "threshold"),
        ("perceptron", 2, "step", [[0, 1], [1, 1]], losses.PERCEPTRON, "identity", "threshold"),
        ("perceptron", 3, "identity", [0, 2], losses.PERCEPTRON_CLASS, "identity", "argmax"),
    ],
)
def test_bind(loss: str, k: int, output: str, y: list[object], code: int, activation: str, decision: str) -> None:
    found = bind(loss, model(k, output), y, 2)
    assert (found.loss, found.code, found.activation) == (loss, code, activations.CODES[activation])
    assert found.decision == decision and len(found) == 2
    if code in losses.CLASS_CODES.values():
        assert found.labels.dtype == np.int32 and found.labels.tolist() == y and found.targets.shape == (0, k)
    else:
        assert found.targets.shape == (2, k) and found.targets.dtype == np.float32 and found.labels.shape == (0,)
        np.testing.assert_array_equal(found.targets, np.float32(y).reshape(2, k))


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1],
        np.array([0, 2, 1], np.uint8),
        np.array([0, 2, 1], ">i4"),
        np.array([0, 2, 1], np.uint64),
        np.array([0.0, 2.0, 1.0]),
        np.array([0, 9, 2, 9, 1])[::2],
        [[0], [2], [1]],
    ],
)
def test_labels_of_every_kind(labels: object) -> None:
    found = bind(None, model(3, "softmax"), labels, 3)  # type: ignore[arg-type]
    assert found.labels.tolist() == [0, 2, 1] and found.labels.dtype == np.int32
    assert found.labels.flags.c_contiguous and found.labels.flags.writeable and found.labels.dtype.isnative


def test_boolean_labels_and_targets() -> None:
    assert bind(None, model(2, "softmax"), [True, False], 2).labels.tolist() == [1, 0]
    assert bind(None, model(1, "sigmoid"), [True, False], 2).targets.tolist() == [[1], [0]]


def test_take() -> None:
    rows = np.array([2, 0])
    labels = bind(None, model(3, "softmax"), [0, 2, 1], 3).take(rows)
    assert labels.labels.tolist() == [1, 0] and labels.targets.shape == (0, 3) and len(labels) == 2
    targets = bind(None, model(1), [5.0, 6.0, 7.0], 3).take(rows)
    assert targets.targets.tolist() == [[7], [5]] and targets.labels.shape == (0,) and len(targets) == 2


def test_one_column_and_one_dimension_are_the_same() -> None:
    flat, column = (bind(None, model(1), y, 2) for y in ([1.0, 2.0], [[1.0], [2.0]]))
    np.testing.assert_array_equal(flat.targets, column.targets)


@pytest.mark.parametrize(
    ("loss", "k", "output", "y", "message"),
    [
        (None, 1, "identity", [1.0, 2.0], r"y: got shape \(2,\), expected 3 rows, as many as X"),
        (None, 1, "identity", 1.0, r"y: got shape \(\), expected 3 rows"),
        (None, 2, "identity", np.zeros((3, 3)), r"y: got shape \(3, 3\), expected \(n, 2\)"),
        (None, 1, "identity", np.zeros((3, 2)), r"y: got shape \(3, 2\), expected \(n,\) or \(n, 1\)"),
        (None, 2, "sigmoid", [0, 1, 1], r"y: got shape \(3,\), expected \(n, 2\).*numpy.eye\(2\)\[y\]"),
        (None, 1, "identity", np.zeros((3, 1, 1)), r"y: got shape \(3, 1, 1\)"),
        (None, 3, "softmax", np.zeros((3, 1, 2), int), r"y: got shape \(3, 1, 2\)"),
        (None, 3, "softmax", np.zeros((3, 1, 1), int), r"y: got shape \(3, 1, 1\)"),
        (None, 3, "softmax", [0, 1, 3], r"y: got 3 at \[2\], expected class labels 0 to 2"),
        (None, 3, "softmax", [0, -1, 2], r"y: got -1 at \[1\], expected class labels 0 to 2"),
        (None, 3, "softmax", [0, 0.5, 2], r"y: got 0.5 at \[1\], expected class labels"),
        (None, 3, "softmax", [0, np.nan, 2], r"y: got nan at \[1\]"),
        (None, 3, "softmax", np.array([0, 2**40, 2]), r"y: got 1099511627776 at \[1\]"),
        (None, 3, "softmax", np.array([0, 2**63, 2], np.uint64), r"y: got 9223372036854775808 at \[1\]"),
        (None, 2, "softmax", [[0.5, 0.5], [1.2, -0.2], [0, 1]], r"y: got 1.2 in row 1, expected probabilities"),
        (None, 2, "softmax", [[0.5, 0.5], [0.2, 0.2], [0, 1]], r"y: row 1 sums to 0.4"),
        (None, 1, "identity", [1, np.nan, 2], r"y: got nan at \[1, 0\]"),
        (None, 1, "identity", [1, 2, -np.inf], r"y: got -inf at \[2, 0\]"),
        (None, 1, "identity", [1, 1e39, 2], r"y: got 1e\+39 at \[1, 0\], too large for float32"),
        (None, 1, "identity", ["a", "b", "c"], r"y: got dtype <U1, expected numbers"),
        (None, 1, "identity", [1j, 2, 3], r"y: got dtype complex128"),
        (None, 1, "identity", [[1], [2, 3], [4]], r"y: expected an array, got rows of different lengths"),
        ("hinge", 1, "identity", [0, 1, 1], r"y: got 0 in row 0, expected labels -1 and \+1 for loss hinge"),
        ("squared_hinge", 1, "identity", [1, 1, 2], r"y: got 2 in row 2, expected labels -1 and \+1"),
        ("logistic", 1, "sigmoid", [0, 1, -1], r"y: got -1 in row 2, expected labels 0 and 1"),
        ("perceptron", 1, "step", [0, 1, 0.5], r"y: got 0.5 in row 2, expected labels 0 and 1"),
        ("poisson", 1, "identity", [3, 0, -2], r"y: got -2 in row 2, expected counts, 0 or more"),
        ("cross_entropy", 1, "identity", [0, 1, 0], r"loss: cross_entropy needs two or more outputs"),
    ],
)
def test_what_is_said_of_a_wrong_y(loss: str | None, k: int, output: str, y: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        bind(loss, model(k, output), y, 3)  # type: ignore[arg-type]


def test_the_argument_is_named_as_the_caller_says() -> None:
    with pytest.raises(ValueError, match="validation y: got nan"):
        bind(None, model(1), [np.nan], 1, "validation y")


def test_every_loss_is_bound_somewhere_and_has_a_code() -> None:
    assert set(OUTPUTS) == set(losses.CODES)
    assert set(objectives.LOGITS) <= set(OUTPUTS) and set(objectives.DEFAULT.values()) <= set(OUTPUTS)
