"""Where parameters and values lie: nothing overlaps, everything is aligned."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop import MLP, layout
from hotloop.kernels.plan import ACTIVATION, BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH

sizes_lists = st.lists(st.integers(1, 600), min_size=2, max_size=5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000])
def test_aligned_zeros_begin_on_a_cache_line(count: int, dtype: str) -> None:
    for _ in range(20):  # the allocator's luck must not decide
        array = layout.aligned(count, dtype)
        assert array.shape == (count,) and array.dtype == dtype
        assert array.ctypes.data % layout.CACHE_LINE == 0
        assert array.flags.c_contiguous and array.flags.writeable and not array.any()


def test_a_huge_page_is_used_again_only_when_nothing_lies_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_spare", [])
    count = layout.MANY_PAGES // 4
    first, second = layout.aligned(count, "float32"), layout.aligned(count, "float32")
    assert not np.shares_memory(first, second) and layout._spare == []
    place = first.ctypes.data
    assert place % layout.HUGE_PAGE == 0
    first[:] = 7.0
    part = first.reshape(4, -1)[1, 5:9]  # holds the page, as the weights of a model do
    del first
    assert layout._spare == [] and part.tolist() == [7.0] * 4
    del part
    assert len(layout._spare) == 1
    again = layout.aligned(2 * count, "float64")
    assert again.ctypes.data == place and not again.any() and layout._spare == []
    del second, again
    many = [layout.aligned(count, "float32") for _ in range(layout.MOST_SPARE + 3)]
    many.clear()
    assert len(layout._spare) == layout.MOST_SPARE


def test_huge_pages_of_threads_are_apart() -> None:
    def work(number: int) -> bool:
        sound = True
        for _ in range(200):
            array = layout.aligned(layout.MANY_PAGES // 4, "float32")
            sound = sound and not array.any()
            array[:] = number
            sound = sound and bool((array == number).all())
        return sound

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(1, 9)))


@pytest.mark.parametrize(("width", "expected"), [(1, 16), (15, 16), (16, 16), (17, 32), (784, 784), (1000, 1008)])
def test_padded_is_a_multiple_of_16(width: int, expected: int) -> None:
    assert layout.padded(width) == expected


def test_parameter_count_of_a_known_network() -> None:
    assert layout.parameter_count([3, 5, 17]) == (3 + 1) * 16 + (5 + 1) * 32


def assert_disjoint(regions: list[tuple[int, int]], total: int) -> None:
    """Regions (start, length) lie within total and do not overlap."""
    end = 0
    for start, length in sorted(regions):
        assert start >= end
        end = start + length
    assert end <= total


@given(sizes_lists, st.integers(1, 600), st.booleans())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_no_two_things_overlap(sizes: list[int], rows: int, bias: bool) -> None:
    plan, size = layout.make_plan(sizes, list(range(1, len(sizes))), bias, rows)
    assert plan.shape == (len(sizes), 9) and plan.dtype == np.int64
    parameters, places = [], []
    for layer, line in enumerate(plan):
        assert line[WIDTH] == sizes[layer]
        assert line[PADDED] == layout.padded(sizes[layer]) <= line[STRIDE]
        places += [(line[what], rows * line[STRIDE]) for what in (VALUE, SLOPE)]
        if layer > 0:
            assert line[ACTIVATION] == layer
            assert line[HAS_BIAS] == bias
            assert line[WEIGHT] % 16 == 0
            parameters.append((line[WEIGHT], sizes[layer - 1] * line[PADDED]))
            parameters.append((line[BIAS], line[PADDED]))
    assert_disjoint([(int(start), int(length)) for start, length in parameters], layout.parameter_count(sizes))
    assert_disjoint([(int(start), int(length)) for start, length in places], size)


@pytest.mark.parametrize("width", [256, 512, 1024, 250])
def test_rows_of_a_block_do_not_share_cache_sets(width: int) -> None:
    plan, _ = layout.make_plan([width, 1], [0], True, 64)
    assert plan[0, STRIDE] % layout.PAGE_ALIAS != 0 and plan[0, STRIDE] % 16 == 0
    one, _ = layout.make_plan([width, 1], [0], True, 1)
    assert one[0, STRIDE] == layout.padded(width)


@pytest.mark.parametrize(
    ("sizes", "density", "window"),
    [([784, 65], 0.05, 16), ([784, 65], 0.04, 1), ([20, 64], 0.34, 1), ([784, 64], 0.35, 16), ([784, 1], 1.0, 16)],
)
def test_windows_by_shape_and_density(sizes: list[int], density: float, window: int) -> None:
    plan, _ = layout.make_plan(sizes, [0], True, 1)
    assert layout.window(plan, density) == window


@given(sizes_lists)
@settings(max_examples=20, derandomize=True, deadline=None)
def test_a_models_views_cover_its_buffer_except_the_padding(sizes: list[int]) -> None:
    model = MLP(sizes, init="zeros")
    for view in model.weights + model.biases:
        assert np.shares_memory(view, model.params)
        view += 1  # an element covered twice would become 2
    assert model.params.ctypes.data % layout.CACHE_LINE == 0
    assert sorted(set(model.params.tolist())) in ([0.0, 1.0], [1.0])
    assert int(model.params.sum(dtype=np.float64)) == model.n_params
