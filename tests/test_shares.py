"""Shares of a step's work: together they are all of it, in proportion to the threads' pace, and they change no bit."""

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop import MLP, SGD, engine, inputs
from hotloop.engine import Engine
from hotloop.kernels import barrier, shares
from hotloop.objectives import bind


@numba.njit
def of_thread(meeting, thread, threads):  # type: ignore[no-untyped-def]
    return shares.of_thread(meeting, thread, threads)


@numba.njit
def note(meeting, thread, share, cycles):  # type: ignore[no-untyped-def]
    shares.note(meeting, thread, share, shares.clock() - cycles)


def meeting_of(*costs: int) -> NDArray[np.int64]:
    """The counters where the work costs each thread so many cycles; 0: not measured."""
    meeting = np.zeros(barrier.APART * (len(costs) + 1), np.int64)
    meeting[barrier.APART + 1 :: barrier.APART] = costs
    return meeting


def shares_of(*costs: int) -> list[tuple[int, int, int]]:
    meeting = meeting_of(*costs)
    return [of_thread(meeting, thread, len(costs)) for thread in range(len(costs))]


@pytest.mark.parametrize(
    ("costs", "ends"),
    [
        ((5,), [8]),
        ((0, 0), [8, 16]),
        ((1000, 0), [8, 16]),  # until all have been measured
        ((1000, 1000), [8, 16]),
        ((1000, 1040), [8, 16]),
        ((1000, 1500), [10, 16]),
        ((3000, 1000), [4, 16]),
        ((1000, 10**9), [14, 16]),  # a thread that slept does not end with nothing
        ((900, 900, 900), [8, 16, 24]),
        ((500, 1000, 1000), [12, 18, 24]),
    ],
)
def test_shares_follow_the_pace(costs: tuple[int, ...], ends: list[int]) -> None:
    parts = shares.PARTS * len(costs)
    assert shares_of(*costs) == [(begin, end, parts) for begin, end in zip([0, *ends], ends, strict=False)]


def test_shares_are_all_of_the_work() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        threads, n, unit = rng.integers(1, 9), int(rng.integers(0, 600)), int(rng.choice([1, 8, 16]))
        found = [shares.bounds(n, share, unit) for share in shares_of(*rng.integers(1, 10**6, threads).tolist())]
        assert found[0][0] == 0 and found[-1][1] == n
        for (begin, end), (following, _) in zip(found, [*found[1:], (n, n)], strict=True):
            assert begin <= end == following and (begin % unit == 0 or begin == n)


def test_equal_shares_are_whole_tiles() -> None:
    assert [shares.bounds(100, (8 * t, 8 * t + 8, 16), 8) for t in range(2)] == [(0, 56), (56, 100)]
    assert [shares.bounds(64, (8 * t, 8 * t + 8, 24), 8) for t in range(3)] == [(0, 24), (24, 48), (48, 64)]


@pytest.mark.skipif(not shares._COUNTS, reason="no clock for programs here")
def test_what_a_part_costs_is_smoothed() -> None:
    meeting, slack = meeting_of(0, 0), 10**8  # cycles that the call itself may take
    note(meeting, 1, (0, 4, 16), 0)
    assert not meeting.any()  # too short to say anything
    note(meeting, 1, (12, 16, 16), 10**9 // 4)
    assert 10**9 <= meeting[2 * barrier.APART + 1] < 10**9 + slack and np.count_nonzero(meeting) == 1
    note(meeting, 1, (14, 16, 16), 10**9 // 4)
    assert 1.25e9 <= meeting[2 * barrier.APART + 1] < 1.25e9 + slack
    note(meeting, 1, (0, 8, 16), 10**12)  # asleep: counts as twice as slow
    assert 1.5625e9 <= meeting[2 * barrier.APART + 1] < 1.5625e9 + 2 * slack


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_unequal_shares_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, density: float) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    rng = np.random.default_rng(1)
    X, y = (rng.normal(size=(90, 100)) * (rng.random((90, 100)) < density)).astype(np.float32), rng.integers(0, 5, 90)
    found = set()
    for costs in ((1,), (0, 0), (1000, 3000), (3000, 1000), (10, 1000, 400)):
        model = MLP([100, 33, 17, 5], output="softmax", seed=6)
        machine = Engine(model._network, inputs.dense(X), bind(None, model, y, 90), 40, len(costs), False)
        machine.scratch.meeting[:] = meeting_of(*costs)
        rule = SGD(lr=0.1).rule(np.array([0.1]), model.params[:0], SGD().init(model.params))
        try:
            total = sum(machine.run(0, 90, rule) for _ in range(3))
            assert machine.threads == len(costs)
        finally:
            machine.close()
        found.add((model.params.tobytes(), total))
    assert len(found) == 1
