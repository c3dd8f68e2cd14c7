"""Activations and losses of the user's own: the same as the built-in ones, at every place, in every training."""

import copy
import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from numba import njit

from hotloop import MLP, SGD, Activation, Adam, Loss, Trainer, engine, trainer
from hotloop.kernels import activations, epochs, inference, losses, online, random
from hotloop.kernels.custom import LEAST_CODE
from hotloop.kernels.simd import cast

RNG = np.random.default_rng(23)
X = RNG.normal(size=(45, 6)) * (RNG.random((45, 6)) < 0.6)
LABELS, VALUES = RNG.integers(0, 3, 45), RNG.normal(size=(45, 3))
batches = pytest.mark.parametrize("batch_size", [1, 7, None])
both = pytest.mark.parametrize("dtype", ["float32", "float64"])
NAMES = ("tanh", "relu", "gelu", "silu", "sigmoid", "identity")


def part(function: Callable[..., Any], which: int) -> Callable[..., Any]:
    return njit(lambda z: function(z)[which])  # type: ignore[no-any-return]


def own(name: str) -> Activation:
    """The library's activation as if a user had written it."""
    function = getattr(activations, name)
    return Activation(part(function, 0), part(function, 1), name)


OWN = {name: own(name) for name in NAMES}


@njit
def squared_error(prediction, target):  # type: ignore[no-untyped-def]
    error = prediction - target
    return error * error


@njit
def squared_error_slope(prediction, target):  # type: ignore[no-untyped-def]
    error = prediction - target
    return error + error


@njit
def late_mse(prediction, target, k, delta):  # type: ignore[no-untyped-def]
    """Writes every derivative before it reads the predictions a second time."""
    share = cast(1.0, delta[0]) / cast(k, delta[0])
    for j in range(k):
        error = prediction[j] - target[j]
        delta[j] = share * (error + error)
    total = cast(0.0, share)
    for j in range(k):
        total += (prediction[j] - target[j]) ** 2
    return total * share


PAIR, ROW, LATE = Loss(squared_error, squared_error_slope), Loss(row=losses.mse), Loss(row=late_mse)
CLASSES = Loss(row=losses.cross_entropy_class, classes=True, name="own cross-entropy")


def train(
    activation: Any, output: Any, loss: Any, y: Any, dtype: str, batch_size: int | None, **options: Any
) -> tuple[MLP, list[float]]:
    model = MLP([6, 17, 5, 3], activation, output, dtype=dtype, seed=2, init="glorot_uniform")
    one = Trainer(loss, SGD(lr=0.05), None, batch_size, 4, seed=3, **options)
    return model, one.fit(model, X, y)["loss"]


@both
@batches
@pytest.mark.parametrize("name", NAMES)
def test_activations_are_the_built_in_ones_bit_for_bit(name: str, batch_size: int | None, dtype: str) -> None:
    for mine, builtin in (
        ((OWN[name], "softmax", None, LABELS), (name, "softmax", None, LABELS)),
        (("tanh", OWN[name], "mse", VALUES), ("tanh", name, "mse", VALUES)),
        (([OWN[name], "relu"], "identity", "mse", VALUES), ([name, "relu"], "identity", "mse", VALUES)),
    ):
        ours, found = train(*mine, dtype, batch_size)
        theirs, wanted = train(*builtin, dtype, batch_size)
        assert ours.params.tobytes() == theirs.params.tobytes() and found == wanted
        assert ours.forward(X).tobytes() == theirs.forward(X).tobytes()
        if ours.decision == theirs.decision:  # outputs of the library's sigmoid are labels
            assert np.array_equal(ours.predict(X), theirs.predict(X))
            assert np.array_equal(ours.predict_one(X[0]), theirs.predict_one(X[0]))


@both
@batches
@pytest.mark.parametrize("loss", [PAIR, ROW, LATE], ids=["pair", "row", "late"])
@pytest.mark.parametrize("output", ["identity", "tanh", "softmax"])
def test_losses_of_values_are_the_built_in_one(output: str, loss: Loss, batch_size: int | None, dtype: str) -> None:
    ours, found = train("tanh", output, loss, VALUES, dtype, batch_size)
    theirs, wanted = train("tanh", output, "mse", VALUES, dtype, batch_size)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    np.testing.assert_allclose(ours.params, theirs.params, rtol=tolerance, atol=tolerance)
    assert loss is not ROW or ours.params.tobytes() == theirs.params.tobytes()
    assert ours.loss == "custom" and ours.decision == theirs.decision
    mine, other = (Trainer(one).evaluate(ours, X, VALUES) for one in (loss, "mse"))
    assert mine == pytest.approx(other, rel=tolerance)


@both
@batches
def test_losses_of_classes_are_the_built_in_one_bit_for_bit(batch_size: int | None, dtype: str) -> None:
    ours, found = train("tanh", "identity", CLASSES, LABELS, dtype, batch_size, validation_split=0.2)
    theirs, wanted = train("tanh", "identity", "cross_entropy", LABELS, dtype, batch_size, validation_split=0.2)
    assert ours.params.tobytes() == theirs.params.tobytes() and found == wanted
    assert np.array_equal(ours.predict(X), theirs.predict(X)) and ours.decision == "argmax"
    assert Trainer(CLASSES).evaluate(ours, X, LABELS) == Trainer("cross_entropy").evaluate(theirs, X, LABELS)


def test_one_output_and_weights_of_samples() -> None:
    weights = RNG.uniform(0, 2, 45)
    found = []
    for loss in (ROW, "mse"):
        model = MLP([6, 4, 1], OWN["gelu"], dtype="float64", seed=2)
        Trainer(loss, Adam(), epochs=3).fit(model, X, VALUES[:, 0], sample_weight=weights)
        found.append(model.params.tobytes())
    assert found[0] == found[1]


@both
@batches
def test_the_same_bits_for_threads_and_kinds_of_input(
    monkeypatch: pytest.MonkeyPatch, batch_size: int | None, dtype: str
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    monkeypatch.setattr(engine, "COLUMNS_PAY", 1)
    monkeypatch.setattr(trainer, "available_threads", lambda: 4)
    found = set()
    for threads, rows in ((1, X), (3, X), (4, sparse.csr_array(X))):
        model = MLP([6, 40, 3], OWN["silu"], dtype=dtype, seed=2)
        one = Trainer(LATE, Adam(), None, batch_size, 3, threads=threads, dropout=0.2)
        found.add((*one.fit(model, rows, VALUES)["loss"], model.params.tobytes()))
    assert len(found) == 1


def test_numpy_functions_constants_and_plain_functions() -> None:
    """What a user writes without thinking of types: it is right, if slower."""

    def value(z):  # type: ignore[no-untyped-def]
        return 0.5 * (z + np.sqrt(z**2 + 4))

    def slope(z):  # type: ignore[no-untyped-def]
        return 0.5 * (1 + z / np.sqrt(z**2 + 4))

    for dtype, rtol in (("float32", 1e-6), ("float64", 1e-14)):
        model = MLP([6, 5, 2], Activation(value, slope), dtype=dtype, seed=1)
        hidden = value(X.astype(dtype) @ model.weights[0] + model.biases[0])
        np.testing.assert_allclose(model.forward(X), hidden @ model.weights[1] + model.biases[1], rtol=1e-4, atol=rtol)
        history = Trainer(Loss(lambda p, t: (p - t) ** 2, lambda p, t: 2.0 * (p - t))).fit(model, X, VALUES[:, :2])
        assert np.isfinite(history["loss"]).all()


def test_a_whole_row_at_once() -> None:
    """A row function gets arrays: NumPy works on them."""

    @njit
    def row(prediction, target, k, delta):  # type: ignore[no-untyped-def]
        error = prediction - target
        delta[:] = 2 * error / k
        return (error**2).mean()

    ours, found = train("tanh", "identity", Loss(row=row), VALUES, "float64", 7)
    theirs, wanted = train("tanh", "identity", "mse", VALUES, "float64", 7)
    np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-12)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_classes_are_chosen_by_outputs_not_by_their_order_before_a_function_that_turns_it() -> None:
    turned = Activation(lambda z: -z, lambda z: -1.0 + 0.0 * z, "turned")
    model = MLP([6, 3], output=turned, dtype="float64", seed=2)
    plain = MLP([6, 3], dtype="float64", seed=2)
    plain.params *= -1
    for one in (model, plain):
        Trainer(CLASSES, SGD(lr=0.1), batch_size=5, epochs=5).fit(one, X, LABELS)
    np.testing.assert_allclose(model.params, -plain.params, rtol=1e-12)
    assert np.array_equal(model.predict(X), plain.predict(X))
    assert [model.predict_one(x) for x in X] == plain.predict(X).tolist()
    found = Trainer(CLASSES).evaluate(model, X, LABELS)["accuracy"]
    assert found == np.mean(model.predict(X) == LABELS) > 0.4


def test_gradients_of_a_network_with_own_parts() -> None:
    model = MLP([6, 5, 3], OWN["tanh"], OWN["sigmoid"], dtype="float64", seed=1)
    loss, dweights, dbiases = Trainer(PAIR).gradients(model, X, VALUES)
    exact = reference.network_gradients(model.weights, model.biases, ["tanh", "sigmoid"], "mse", X, VALUES)
    assert loss == pytest.approx(exact[0], rel=1e-13)
    for found, wanted in zip(dweights + dbiases, exact[1] + exact[2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_no_kernel_is_compiled_again() -> None:
    dispatchers: list[Any] = [epochs.per_sample, epochs.mini_batch, inference.predict, inference.predict_row]
    dispatchers += [inference.total_loss, inference.all_finite, random.permutation, online.learn, online.learn_direct]

    def everything(activation: Any, losses_: list[Any]) -> None:
        for loss, y, k in ((losses_[0], VALUES, 3), (losses_[1], LABELS, 3), (losses_[0], VALUES[:, 0], 1)):
            for batch_size, optimizer in ((1, SGD()), (7, SGD()), (None, Adam())):
                model = MLP([6, 4, k], activation)
                one = Trainer(loss, optimizer, None, batch_size, 1, validation_split=0.2)
                one.fit(model, X, y)
                model.predict(X), model.predict_one(X[0]), one.learn_one(model, X[0], y[0])

    everything("tanh", ["mse", "cross_entropy"])
    compiled = [list(kernel.signatures) for kernel in dispatchers]
    fresh = Activation(lambda z: np.sin(z), lambda z: np.cos(z))
    everything(fresh, [Loss(squared_error, squared_error_slope), Loss(row=losses.hinge_class, classes=True)])
    assert [list(kernel.signatures) for kernel in dispatchers] == compiled


def test_codes_are_addresses_one_for_each_dtype() -> None:
    for thing in (own("tanh"), Loss(squared_error, squared_error_slope)):
        codes = [thing.code(dtype) for dtype in ("float32", "float64", np.float32)]
        assert codes[0] == codes[2] != codes[1] and min(codes) >= LEAST_CODE


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Activation(3, np.sin), "value: got 3, expected a function"),
        (lambda: Activation(lambda z: z, None), "slope: got None, expected a function"),
        (lambda: Activation(np.tanh, lambda z: z), "value: got <ufunc 'tanh'>, expected a plain Python function"),
        (lambda: Activation(abs, lambda z: z), "value: got <built-in function abs>, expected a plain"),
        (lambda: Activation(lambda z: z), "slope"),
        (lambda: Loss(), "loss: expected either value and slope, or row"),
        (lambda: Loss(squared_error), "loss: expected either value and slope, or row"),
        (lambda: Loss(slope=squared_error), "loss: expected either value and slope, or row"),
        (lambda: Loss(squared_error, squared_error_slope, row=late_mse), "loss: expected either"),
        (lambda: Loss(squared_error, row=late_mse), "loss: expected either"),
        (lambda: Loss(squared_error, squared_error_slope, classes=True), "classes: got True with value and slope"),
        (lambda: Loss(row=7), "row: got 7, expected a function"),
        (lambda: Loss(row=late_mse, classes=1), "classes: got 1"),
    ],
)
def test_what_is_no_function(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda z, w: z, "missing a required argument: 'w'"),
        (lambda z: undefined_name(z), "name 'undefined_name' is not defined"),  # type: ignore[name-defined]  # noqa: F821
        (lambda z: z.foo, "Unknown attribute 'foo' of type float32"),
        (lambda z: None, "Cannot cast none to float32"),
        (lambda z: np.no_such_function(z), "no attribute 'no_such_function'"),
    ],
)
def test_what_cannot_be_compiled(value: Callable[..., Any], reason: str) -> None:
    with pytest.raises(
        TypeError, match=f"activation bad: Numba cannot compile it for numbers of type float32: .*{reason}"
    ):
        MLP([2, 2, 1], Activation(value, lambda z: z, "bad"))
    model = MLP([6, 3], seed=1)
    before = model.params.copy()
    with pytest.raises(TypeError, match="loss bad: Numba cannot compile it for numbers of type float32"):
        Trainer(Loss(lambda p, t: value(p), squared_error_slope, name="bad")).fit(model, X, VALUES)
    assert np.array_equal(model.params, before) and model.loss is None


def test_wrong_truths_and_outputs() -> None:
    model = MLP([6, 3], seed=1)
    with pytest.raises(ValueError, match=r"y: got 3 at \[0\], expected class labels 0 to 2"):
        Trainer(CLASSES).fit(model, X, np.full(45, 3))
    with pytest.raises(ValueError, match=r"y: got shape \(45,\), expected \(n, 3\)"):
        Trainer(PAIR).fit(model, X, VALUES[:, 0])
    with pytest.raises(ValueError, match=r"loss: Loss\(squared_error\) makes no sense with output 'step'"):
        Trainer(PAIR).fit(MLP([6, 3], output="step"), X, VALUES)
    with pytest.raises(ValueError, match="loss: 'cross_entropy' makes no sense with output Activation"):
        Trainer("cross_entropy").fit(MLP([6, 3], output=OWN["tanh"]), X, LABELS)
    with pytest.raises(ValueError, match=r"label_smoothing: got .* with loss 'custom'"):
        Trainer(CLASSES, label_smoothing=0.1).fit(model, X, LABELS)
    with pytest.raises(ValueError, match="loss: 'custom' with this output has no prior"):
        model.set_prior(VALUES, PAIR)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    from hotloop import DivergenceWarning

    model = MLP([6, 3], seed=1)
    before = model.params.copy()
    with pytest.warns(DivergenceWarning):
        Trainer(Loss(lambda p, t: p / (p - p), lambda p, t: p)).fit(model, X, VALUES)
    assert np.array_equal(model.params, before)


# Files, copies --------------------------------------------------------------------------------------------------------


def test_saving_and_loading(tmp_path: Path) -> None:
    model, _ = train([OWN["gelu"], "tanh"], OWN["sigmoid"], PAIR, VALUES, "float32", 7)
    model.save(tmp_path / "m.safetensors")
    again = MLP.load(tmp_path / "m.safetensors", custom=[OWN["sigmoid"], OWN["gelu"]])
    assert again.activations == model.activations and again.output is OWN["sigmoid"]
    assert (again.loss, again.decision) == ("custom", "value")
    assert again.predict(X).tobytes() == model.predict(X).tobytes()
    for custom in ([], [OWN["gelu"]], [OWN["tanh"]]):
        with pytest.raises(ValueError, match=r"it needs the activation '(gelu|sigmoid)': pass it to load as custom"):
            MLP.load(tmp_path / "m.safetensors", custom=custom)


def test_built_in_names_are_not_mistaken_for_own(tmp_path: Path) -> None:
    model = MLP([6, 4, 3], "gelu", seed=1)
    model.save(tmp_path / "m.safetensors")
    assert MLP.load(tmp_path / "m.safetensors", custom=[OWN["gelu"]]).activations == ("gelu",)


def test_copies_of_a_model_share_its_activation() -> None:
    model = MLP([6, 5, 3], own("gelu"), seed=1)
    expected = model.forward(X)
    again, other = copy.deepcopy(model), copy.copy(model.activations[0])
    assert again.activations[0] is model.activations[0] is other
    del model, other
    gc.collect()
    assert again.forward(X).tobytes() == expected.tobytes()


def test_pickling_is_refused_not_wrong() -> None:
    for thing in (OWN["gelu"], PAIR, MLP([6, 5, 3], OWN["gelu"]), Trainer(PAIR)):
        with pytest.raises(TypeError, match="cannot be pickled: its machine code belongs to this process"):
            pickle.dumps(thing)


def test_names() -> None:
    assert repr(PAIR) == "Loss(squared_error)" and repr(OWN["gelu"]) == "Activation(gelu)"
    assert "Activation(gelu)" in repr(MLP([6, 5, 3], OWN["gelu"])) and "gelu" in MLP([6, 5, 3], OWN["gelu"]).summary()
