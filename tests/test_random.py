"""Random numbers: published vectors, the twins' every bit, and statistics that a wrong generator would fail."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Array

from hotloop.kernels import random

# The known-answer vectors of the authors' library (Random123, kat_vectors): counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEEDS = st.integers(0, 2**63 - 1)


def permutation(seed: int, epoch: int, n: int) -> Array:
    out = np.full(n + 20, -7, np.int64)
    random.permutation(seed, epoch, out[10 : 10 + n])
    assert np.all(out[:10] == -7) and np.all(out[10 + n :] == -7)
    return out[10 : 10 + n]


def chi_square(counts: Array) -> float:
    """How far counts are from equal, in standard deviations of the chi-square distribution."""
    expected, freedom = counts.mean(), counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def parse(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, result: str) -> None:
    assert tuple(int(word) for word in random.philox(*parse(counter), *parse(key))) == parse(result)
    assert reference.philox(parse(counter), parse(key)) == parse(result)


@given(seed=SEEDS, kind=st.integers(0, 5), stream=st.integers(0, 2**32 - 1), index=st.integers(0, 2**63 - 1))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_words_and_uniform_have_the_bits_of_the_twin(seed: int, kind: int, stream: int, index: int) -> None:
    assert tuple(int(word) for word in random.words(seed, kind, stream, index)) == reference.words(
        seed, kind, stream, index
    )
    assert random.uniform(seed, kind, stream, index) == reference.uniform(seed, kind, stream, index)


def test_uniform_is_uniform() -> None:
    draws = np.array([random.uniform(3, random.INIT, 0, i) for i in range(20000)])
    assert draws.min() >= 0 and draws.max() < 1
    for column in draws.T:
        assert abs(chi_square(np.histogram(column, bins=100, range=(0, 1))[0])) < 4
    both_columns = np.histogram2d(draws[:, 0], draws[:, 1], bins=10, range=[[0, 1], [0, 1]])[0]
    neighbours = np.histogram2d(draws[:-1, 0], draws[1:, 0], bins=10, range=[[0, 1], [0, 1]])[0]
    assert abs(chi_square(both_columns)) < 4 and abs(chi_square(neighbours)) < 4


@given(seed=SEEDS, epoch=st.integers(0, 10**6), n=st.integers(0, 300))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_permutation_is_the_twins(seed: int, epoch: int, n: int) -> None:
    assert np.array_equal(permutation(seed, epoch, n), reference.permutation(seed, epoch, n))


@given(seed=SEEDS, epoch=st.integers(0, 10**6), n=st.integers(0, 5000))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_permutation_holds_every_sample_once(seed: int, epoch: int, n: int) -> None:
    assert np.array_equal(np.sort(permutation(seed, epoch, n)), np.arange(n))


def test_permutation_differs_between_epochs_and_seeds_and_repeats_otherwise() -> None:
    orders = {permutation(seed, epoch, 100).tobytes() for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400
    assert np.array_equal(permutation(5, 6, 1000), permutation(5, 6, 1000))
    assert not np.array_equal(permutation(1, 0, 100), permutation(1 + 2**32, 0, 100))  # the seed's upper half counts


@pytest.mark.parametrize("vary", ["seed", "epoch"])
def test_every_permutation_is_as_likely(vary: str) -> None:
    counts = np.zeros((5,) * 5)
    for i in range(12000):
        counts[tuple(permutation(i, 0, 5) if vary == "seed" else permutation(0, i, 5))] += 1
    possible = counts[counts > 0]
    assert possible.size == 120
    assert abs(chi_square(possible)) < 4


def test_every_sample_visits_every_place_as_often() -> None:
    counts = np.zeros((40, 40))
    for epoch in range(4000):
        counts[np.arange(40), permutation(11, epoch, 40)] += 1
    assert abs(chi_square(counts)) < 4
    orders = np.array([permutation(11, epoch, 40) for epoch in range(4000)])
    steps = np.diff(orders, axis=1) % 40
    assert np.all(steps != 0)
    assert abs(chi_square(np.bincount(steps.ravel(), minlength=40)[1:])) < 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_weights_are_the_twins(dtype: str) -> None:
    for shape in [(1, 1), (3, 7), (17, 9)]:
        out = np.empty(shape, dtype)
        random.fill_uniform(4, 2, 0.5, out)
        np.testing.assert_array_equal(out, reference.fill_uniform(4, 2, 0.5, shape).astype(dtype))
        random.fill_normal(4, 2, 0.5, out)
        np.testing.assert_allclose(out, reference.fill_normal(4, 2, 0.5, shape), rtol=4 * np.finfo(dtype).eps)


def test_initial_weights_have_their_distribution() -> None:
    out = np.empty((200, 200))
    random.fill_uniform(1, 0, 2.0, out)
    assert out.min() >= -2 and out.max() < 2
    assert abs(out.mean()) < 4 * 2 / np.sqrt(3 * out.size)
    assert abs(chi_square(np.histogram(out, bins=100, range=(-2, 2))[0])) < 4
    random.fill_normal(1, 0, 2.0, out)
    assert abs(out.mean()) < 4 * 2 / np.sqrt(out.size)
    probability = reference.normal_cdf(np.sort(out.ravel()) / 2)  # uniform, if the numbers are normal
    assert abs(chi_square(np.histogram(probability, bins=100, range=(0, 1))[0])) < 4


def test_streams_and_seeds_give_other_weights() -> None:
    draws = set()
    for seed, stream in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        out = np.empty((3, 3))
        random.fill_uniform(seed, stream, 1.0, out)
        draws.add(out.tobytes())
        random.fill_normal(seed, stream, 1.0, out)
        draws.add(out.tobytes())
    assert len(draws) == 8
