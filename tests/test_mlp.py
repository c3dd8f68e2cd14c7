"""Models: what they are made of, what they compute, what they predict, and what they refuse."""

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference
from test_check import VARIANTS, variants

from hotloop import MLP, SGD, Trainer
from hotloop.kernels import activations

RNG = np.random.default_rng(21)
X = RNG.normal(size=(40, 5))
DTYPES = ["float32", "float64"]
HIDDEN = [name for name in activations.CODES if name != "softmax"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sizes": [3]}, ValueError, r"sizes: got \[3\], expected two or more layer widths"),
        ({"sizes": 3}, ValueError, "sizes: got 3, expected two or more"),
        ({"sizes": "34"}, ValueError, "sizes: got '34', expected two or more"),
        ({"sizes": None}, ValueError, "sizes: got None"),
        ({"sizes": [3, 0, 1]}, ValueError, r"sizes\[1\]: got 0, expected at least 1"),
        ({"sizes": [3, 2.0]}, TypeError, r"sizes\[1\]: got 2.0 of type float, expected a whole number"),
        ({"sizes": [3, True]}, TypeError, r"sizes\[1\]: got True of type bool"),
        ({"activation": "rleu"}, ValueError, "activation: got 'rleu'; did you mean 'relu'"),
        ({"activation": ["relu", "tanh"]}, ValueError, "activation: got 2 names, expected 1, one for each"),
        ({"activation": "softmax"}, ValueError, "activation: softmax belongs to the output"),
        ({"activation": ["softmax"]}, ValueError, "activation: softmax belongs to the output"),
        ({"activation": 5}, (TypeError, ValueError), "activation: got 5"),
        ({"activation": None}, (TypeError, ValueError), "activation: got None"),
        ({"activation": [5]}, ValueError, "activation: got 5"),
        ({"sizes": [3, 2], "activation": "rleu"}, ValueError, "activation: got 'rleu'"),
        ({"output": "softmx"}, ValueError, "output: got 'softmx'; did you mean 'softmax'"),
        ({"output": "softmax", "sizes": [3, 1]}, ValueError, "output: softmax over one unit is always 1"),
        ({"bias": 1}, TypeError, "bias: got 1 of type int, expected True or False"),
        ({"init": "he"}, ValueError, "init: got 'he'.*he_uniform"),
        ({"dtype": "float16"}, ValueError, "dtype: got 'float16', expected 'float32' or 'float64'"),
        ({"seed": -1}, ValueError, "seed: got -1, expected between 0 and"),
        ({"seed": 2**63}, ValueError, "seed: got 9223372036854775808"),
        ({"seed": None}, TypeError, "seed: got None"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MLP(**{"sizes": [3, 4, 1], **arguments})  # type: ignore[arg-type]


def test_shapes_and_counts() -> None:
    model = MLP([5, 17, 3], dtype="float64")
    assert [weight.shape for weight in model.weights] == [(5, 17), (17, 3)]
    assert [bias.shape for bias in model.biases] == [(17,), (3,)]
    assert model.n_params == 5 * 17 + 17 + 17 * 3 + 3
    assert MLP((5, 17, 3), bias=False).n_params == 5 * 17 + 17 * 3
    assert model.sizes == (5, 17, 3) and model.activations == ("relu",) and model.params.dtype == np.float64
    assert MLP([np.int64(5), 1], activation="tanh").activations == ()


def test_text() -> None:
    assert repr(MLP([784, 128, 10], output="softmax")) == (
        "MLP([784, 128, 10], activation=['relu'], output='softmax', dtype='float32')  # 101,770 parameters"
    )
    assert repr(MLP([2, 1])) == "MLP([2, 1], output='identity', dtype='float32')  # 3 parameters"


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_any_seed_below_2_to_the_63(seed: int) -> None:
    first, second = MLP([3, 2], seed=seed), MLP([3, 2], seed=seed)
    assert first.params.tobytes() == second.params.tobytes() and first.params.any()
    Trainer(seed=seed, epochs=1, validation_split=0.5).fit(first, np.ones((4, 3)), np.ones((4, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_forward_is_numpys(hidden: str, dtype: str) -> None:
    for output in activations.CODES:
        model = MLP([5, 7, 18, 3], hidden, output, dtype=dtype, seed=3)
        for bias in model.biases:
            bias[:] = 0.3
        found = model.forward(X)
        assert found.shape == (40, 3) and found.dtype == dtype
        if "step" in (hidden, output):
            continue  # a z of about 0 may round to either side: see below
        z = reference.network_forward(model.weights, model.biases, [hidden, hidden, output], X)[-1]
        tolerance = 2e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found, reference.activate(output, z), rtol=tolerance, atol=tolerance)


def test_forward_of_steps() -> None:
    model = MLP([2, 3, 2], "step", "step", init="zeros")
    model.weights[0][:] = [[1, -1, 0], [1, 0, -1]]
    model.weights[1][:] = [[1, -1], [-2, 1], [1, 0]]
    np.testing.assert_array_equal(model.forward([[1, 0], [0, 0], [-1, 2]]), [[1, 0], [0, 0], [0, 0]])


def test_writing_to_views_changes_the_model_and_forward_does_not() -> None:
    model = MLP([5, 3], init="zeros")
    model.weights[0][2, 1] = 2.0
    model.biases[0][1] = 1.0
    before = model.params.copy()
    np.testing.assert_allclose(model.forward(X)[:, 1], 2 * X[:, 2] + 1, rtol=1e-5, atol=1e-6)
    model.predict(X)
    model.predict_one(X[0])
    np.testing.assert_array_equal(model.params, before)


def fitted(output: str, loss: str | None, y: np.ndarray, k: int = 1, dtype: str = "float32") -> MLP:
    """A model trained for a little while."""
    model = MLP([5, 6, k], "tanh", output, dtype=dtype, seed=1)
    Trainer(loss, SGD(lr=0.05), batch_size=4, epochs=3).fit(model, X, y)
    return model


LABELS = RNG.integers(0, 3, 40)
SIGNS = np.sign(X[:, 0])
MANY = (X[:, :3] > 0) * 1.0
DECISIONS: dict[str, tuple[str, str | None, np.ndarray, int, Callable[[np.ndarray], np.ndarray]]] = {
    "mse": ("identity", "mse", X[:, 0], 1, lambda a: a[:, 0]),
    "mse of three": ("identity", "mse", X[:, :3], 3, lambda a: a),
    "mse with sigmoid": ("sigmoid", "mse", SIGNS > 0, 1, lambda a: (a[:, 0] > 0.5) * 1),
    "mae": ("tanh", "mae", X[:, 0], 1, lambda a: a[:, 0]),
    "softmax": ("softmax", None, LABELS, 3, lambda a: a.argmax(axis=1)),
    "cross_entropy of logits": ("identity", "cross_entropy", LABELS, 3, lambda a: a.argmax(axis=1)),
    "sigmoid": ("sigmoid", None, SIGNS > 0, 1, lambda a: (a[:, 0] > 0.5) * 1),
    "sigmoid of three": ("sigmoid", None, MANY, 3, lambda a: (a > 0.5) * 1),
    "logistic of logits": ("identity", "logistic", SIGNS > 0, 1, lambda a: (a[:, 0] > 0) * 1),
    "logistic with step": ("step", "logistic", SIGNS > 0, 1, lambda a: a[:, 0]),
    "hinge": ("identity", "hinge", SIGNS, 1, lambda a: np.where(a[:, 0] > 0, 1, -1)),
    "hinge with tanh": ("tanh", "hinge", SIGNS, 1, lambda a: np.where(a[:, 0] > 0, 1, -1)),
    "hinge with step": ("step", "hinge", SIGNS, 1, lambda a: np.where(a[:, 0] > 0.5, 1, -1)),
    "hinge of classes": ("identity", "hinge", LABELS, 3, lambda a: a.argmax(axis=1)),
    "squared_hinge of three": ("identity", "squared_hinge", 2 * MANY - 1, 3, lambda a: np.where(a > 0, 1, -1)),
    "perceptron": ("step", None, SIGNS > 0, 1, lambda a: a[:, 0]),
    "perceptron of logits": ("identity", "perceptron", SIGNS > 0, 1, lambda a: (a[:, 0] > 0) * 1),
    "perceptron of classes": ("identity", "perceptron", LABELS, 3, lambda a: a.argmax(axis=1)),
    "poisson": ("identity", "poisson", np.arange(40) % 4, 1, lambda a: np.exp(a[:, 0])),
    "poisson of rates": ("softplus", "poisson", np.arange(40) % 4, 1, lambda a: a[:, 0]),
}


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_predict_is_what_the_loss_means(name: str, dtype: str) -> None:
    output, loss, y, k, decide = DECISIONS[name]
    model = fitted(output, loss, y, k, dtype)
    found = model.predict(X)
    np.testing.assert_array_equal(found, decide(model.forward(X)))
    assert found.shape == ((40,) if k == 1 or found.ndim == 1 else (40, k))
    for i in range(40):
        np.testing.assert_array_equal(model.predict_one(X[i]), found[i])
    evaluated = Trainer(loss).evaluate(model, X, y)
    if "accuracy" in evaluated:
        assert evaluated["accuracy"] == pytest.approx(np.mean(found == y), abs=1e-12)


def test_a_perceptron_for_each_class_predicts_as_it_is_evaluated() -> None:
    """If this pair is refused one day, so be it; it must not be evaluated by one rule and predict by another."""
    model = MLP([5, 3], output="step", seed=1)
    Trainer("perceptron", SGD(lr=0.1), batch_size=1, epochs=20).fit(model, X, LABELS)
    assert Trainer("perceptron").evaluate(model, X, LABELS)["accuracy"] == np.mean(model.predict(X) == LABELS)


def test_before_training_the_output_decides() -> None:
    assert MLP([5, 3], output="softmax").predict(X).dtype.kind == "i"
    assert set(MLP([5, 1], output="sigmoid").predict(X)) <= {0, 1}
    assert MLP([5, 1]).predict(X).dtype == np.float32


@pytest.mark.parametrize(
    "given",
    [list, np.asarray, np.float32, np.asfortranarray, lambda x: x.astype(">f8"), lambda x: x[::-1].copy()[::-1]],
)
def test_predict_one_takes_any_row(given: Callable[[np.ndarray], object]) -> None:
    exact = X.astype(np.float32).astype(np.float64)  # in both types
    read_only = exact[7].copy()
    read_only.flags.writeable = False
    for dtype in DTYPES:
        model = fitted("identity", "mse", X[:, :3], 3, dtype)
        for row in (exact[7], read_only):
            np.testing.assert_array_equal(model.predict_one(given(row)), model.predict(exact)[7])


@pytest.mark.parametrize("output", ["identity", "sigmoid", "step", "softmax", "tanh"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_predict_one_refuses_what_predict_refuses(output: str, bad: float) -> None:
    model = MLP([5, 4, 2], "tanh", output)
    row = X[0].copy()
    row[3] = bad
    with pytest.raises(ValueError, match=r"X: got"):
        model.predict(row[None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"x: got .* at \[3\]"):
            model.predict_one(row)


@pytest.mark.parametrize(
    "row", [X[:1], X[0, :4], 1.0, [], ["a"] * 5, [None] * 5, [1j] * 5, [[1], [2, 3], [4], [5], [6]]], ids=repr
)
def test_predict_one_names_its_argument(row: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^x: "):
        MLP([5, 2]).predict_one(row)  # type: ignore[arg-type]


def test_predict_one_does_not_depend_on_earlier_rows_or_trainings() -> None:
    model = MLP([5, 40, 2], output="softmax", seed=1)
    model.predict_one(X[0])
    Trainer(optimizer=SGD(lr=0.5), epochs=5).fit(model, X, SIGNS > 0)
    for i in (3, 0, 3):
        assert model.predict_one(X[i]) == model.predict(X)[i]


def test_one_model_predicts_in_several_threads() -> None:
    model = MLP([64, 200, 200, 3], "tanh", dtype="float64", seed=1)
    rows = RNG.normal(size=(20, 64))
    alone = [model.predict_one(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            np.testing.assert_array_equal(list(pool.map(model.predict_one, rows)), alone)


@pytest.mark.parametrize("dtype", DTYPES)
def test_predict_proba(dtype: str) -> None:
    softmax = fitted("softmax", None, LABELS, 3, dtype)
    np.testing.assert_array_equal(softmax.predict_proba(X), softmax.forward(X))
    logits = fitted("identity", "cross_entropy", LABELS, 3, dtype)
    np.testing.assert_allclose(logits.predict_proba(X), reference.softmax(np.float64(logits.forward(X))), rtol=1e-5)
    for model in (fitted("sigmoid", None, SIGNS > 0, 1, dtype), fitted("identity", "logistic", SIGNS > 0, 1, dtype)):
        found = model.predict_proba(X)
        assert found.shape == (40, 2) and found.dtype == dtype
        np.testing.assert_array_equal(found.argmax(axis=1), model.predict(X))
    labels = fitted("sigmoid", None, MANY, 3, dtype)
    np.testing.assert_array_equal(labels.predict_proba(X), labels.forward(X))
    for model in (softmax, logits, fitted("sigmoid", None, SIGNS > 0, 1, dtype)):
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_predict_proba_of_far_logits_is_0_or_1_without_a_warning() -> None:
    model = fitted("identity", "logistic", SIGNS > 0)
    model.biases[-1][:] = -1e4
    np.testing.assert_array_equal(model.predict_proba(X), np.tile([1, 0], (40, 1)))


@pytest.mark.parametrize(("output", "loss"), [("identity", "mse"), ("identity", "hinge"), ("step", "perceptron")])
def test_no_probabilities(output: str, loss: str) -> None:
    y = SIGNS if loss == "hinge" else SIGNS > 0
    with pytest.raises(ValueError, match=f"predict_proba: output '{output}' trained with loss '{loss}' gives no"):
        fitted(output, loss, y).predict_proba(X)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_form_of_an_array_does_not_change_a_bit(variant: str, dtype: str, tmp_path: Path) -> None:
    plain = X.astype(np.float32)  # exact in both types
    form = variants(plain, tmp_path)[variant]
    results = []
    for rows in (plain, form):
        model = MLP([5, 6, 3], output="softmax", dtype=dtype, seed=1)
        Trainer(batch_size=8, epochs=2, validation_split=0.2).fit(model, rows, LABELS)
        results.append(model.params.tobytes() + model.forward(rows).tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("method", ["forward", "predict", "predict_proba"])
def test_wrong_inputs_are_named(method: str) -> None:
    model = MLP([5, 3], output="softmax")
    for rows, message in ((X[:, :4], r"X: got shape \(40, 4\)"), (X[0], "one row"), (np.full((1, 5), np.nan), "nan")):
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_padding_and_absent_biases_stay_zero(bias: bool, batch_size: int | None, momentum: float) -> None:
    model = MLP([5, 7, 3], "sigmoid", "softmax", bias=bias, seed=1)
    Trainer(optimizer=SGD(0.1, momentum), batch_size=batch_size, epochs=3).fit(model, X, LABELS)
    shown = MLP([5, 7, 3], init="zeros")
    for view in shown.weights + shown.biases:
        view[:] = 1
    assert not model.params[shown.params == 0].any()
    assert all(part.any() == bias for part in model.biases)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_whole_and_independent(duplicate: Callable[[MLP], MLP]) -> None:
    model = fitted("softmax", None, LABELS, 3)
    twin = duplicate(model)
    assert twin.predict(X).tobytes() == model.predict(X).tobytes() and twin.loss == model.loss
    before = model.params.copy()
    Trainer(optimizer=SGD(lr=0.5), epochs=3).fit(twin, X, LABELS)
    np.testing.assert_array_equal(model.params, before)
    Trainer(optimizer=SGD(lr=0.5), epochs=3).fit(model, X, LABELS)
    assert twin.params.tobytes() == model.params.tobytes()
    assert twin.forward(X).tobytes() == model.forward(X).tobytes()
    assert [twin.predict_one(row) for row in X] == twin.predict(X).tolist()
    assert np.shares_memory(twin.weights[0], twin.params)


def test_prior_makes_an_untrained_model_predict_the_averages() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    model = MLP([2, 3], output="softmax", init="zeros")
    model.set_prior(labels)
    assert model.predict_proba(np.ones((1, 2)))[0] == pytest.approx([0.6, 0.3, 0.1], rel=1e-6)

    model = MLP([2, 1], output="sigmoid", init="zeros")
    model.set_prior([1, 0, 0, 0])
    assert model.predict_proba(np.ones((1, 2)))[0] == pytest.approx([0.75, 0.25], rel=1e-6)

    model = MLP([2, 2], init="zeros", dtype="float64")
    model.set_prior([[1.0, -2.0], [2.0, 5.0]])
    assert model.predict(np.ones((1, 2))).tolist() == [[1.5, 1.5]]

    model = MLP([2, 1], init="zeros", dtype="float64")
    model.set_prior([1, 2, 6], loss="poisson")
    assert np.exp(model.forward(np.ones((1, 2))))[0, 0] == pytest.approx(3, rel=1e-12)


def test_prior_of_a_class_that_is_missing_is_finite() -> None:
    model = MLP([2, 3], output="softmax", init="zeros")
    model.set_prior([0, 0, 1, 1])
    assert np.isfinite(model.biases[-1]).all()


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (MLP([2, 1], bias=False), None, "bias: got False"),
        (MLP([2, 1], output="tanh"), "mse", "loss: 'mse' with this output has no prior"),
        (MLP([2, 1], output="step"), None, "loss: 'perceptron' with this output has no prior"),
    ],
)
def test_prior_is_refused_where_there_is_none(model: MLP, loss: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.set_prior([0, 1, 1], loss)
