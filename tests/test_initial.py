"""Initial weights: their spread, their seeds, and the rule that picks them."""

import math

import numpy as np
import pytest
import reference

from hotloop import MLP, initial

FAMILIES = ["he", "glorot", "lecun"]


def drawn(
    init: str, shape: tuple[int, int] = (300, 200), activation: str = "tanh", seed: int = 7, layer: int = 0
) -> np.ndarray:
    """A weight matrix filled by one rule, float64."""
    weight = np.full(shape, np.nan)
    initial.fill(weight, init, activation, seed, layer)
    return weight


@pytest.mark.parametrize(("family", "variance"), [("he", 2 / 300), ("glorot", 2 / 500), ("lecun", 1 / 300)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_mean_and_variance(family: str, variance: float, kind: str) -> None:
    weight = drawn(f"{family}_{kind}")
    error = math.sqrt(variance / weight.size)
    assert abs(weight.mean()) < 5 * error
    kurtosis = 1.8 if kind == "uniform" else 3.0
    assert abs(weight.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / weight.size)
    assert abs(np.mean(weight**4) / weight.var() ** 2 - kurtosis) < 0.15
    if kind == "uniform":
        assert np.abs(weight).max() <= math.sqrt(3 * variance)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_are_those_of_the_generator(family: str) -> None:
    deviation = math.sqrt(initial.VARIANCES[family](4, 5))
    uniform = reference.fill_uniform(7, 2, deviation * math.sqrt(3), (4, 5))
    normal = reference.fill_normal(7, 2, deviation, (4, 5))
    np.testing.assert_allclose(drawn(f"{family}_uniform", (4, 5), layer=2), uniform, rtol=1e-15)
    np.testing.assert_allclose(drawn(f"{family}_normal", (4, 5), layer=2), normal, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"])
def test_auto_is_he_before_a_rectifier(activation: str) -> None:
    np.testing.assert_array_equal(drawn("auto", activation=activation), drawn("he_uniform"))


@pytest.mark.parametrize("activation", ["identity", "tanh", "sigmoid", "softmax", "step"])
def test_auto_is_glorot_otherwise(activation: str) -> None:
    np.testing.assert_array_equal(drawn("auto", activation=activation), drawn("glorot_uniform"))


def test_zeros() -> None:
    assert not drawn("zeros").any()


def test_a_seed_gives_the_same_numbers_and_another_seed_or_layer_others() -> None:
    first = drawn("he_normal")
    assert drawn("he_normal").tobytes() == first.tobytes()
    assert not np.isclose(drawn("he_normal", seed=8), first).any()
    assert not np.isclose(drawn("he_normal", layer=1), first).any()
    assert not np.isclose(drawn("he_normal", seed=2**63 - 1), first).any()


def test_a_model_uses_each_layers_own_activation_and_number() -> None:
    model = MLP([5, 4, 3, 2], activation=["relu", "tanh"], output="softmax", dtype="float64", seed=3)
    for layer, (weight, init) in enumerate(
        zip(model.weights, ["he_uniform", "glorot_uniform", "glorot_uniform"], strict=True)
    ):
        np.testing.assert_array_equal(weight, drawn(init, weight.shape, seed=3, layer=layer))
    assert not any(bias.any() for bias in model.biases)


def test_float32_weights_are_the_float64_weights_rounded() -> None:
    for init in initial.NAMES:
        wide, narrow = (MLP([9, 7, 3], init=init, dtype=dtype, seed=5) for dtype in ("float64", "float32"))
        np.testing.assert_array_equal(wide.params.astype(np.float32), narrow.params)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"init: got 'he_unifrm'.*did you mean 'he_uniform'"):
        MLP([2, 1], init="he_unifrm")
