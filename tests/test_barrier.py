"""The spin barrier: nobody passes before all have come, with more threads than cores too."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from hotloop.kernels import barrier

MEETINGS = 200


@numba.njit(nogil=True)
def march(meeting, steps, errors, thread, threads, meetings):  # type: ignore[no-untyped-def]
    """At each meeting write down my step, wait, and look whether all others have written theirs."""
    for number in range(1, meetings + 1):
        steps[thread] = number
        barrier.wait(meeting, threads)
        for other in range(threads):
            if steps[other] != number:
                errors[thread] += 1
        barrier.wait(meeting, threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_all_have_come_before_one_goes_on(threads: int) -> None:
    meeting = np.zeros(1, np.int64)
    steps, errors = np.zeros(threads, np.int64), np.zeros(threads, np.int64)
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(march, meeting, steps, errors, thread, threads, MEETINGS) for thread in range(threads)]
        for run in runs:
            run.result(timeout=60)
    assert not errors.any() and (steps == MEETINGS).all()
    assert meeting[0] == (2 * MEETINGS * threads if threads > 1 else 0)


def test_a_counter_can_be_used_again_by_as_many_threads() -> None:
    meeting, steps, errors = np.zeros(1, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            for run in [pool.submit(march, meeting, steps, errors, thread, 2, 5) for thread in range(2)]:
                run.result(timeout=60)
    assert meeting[0] == 60 and not errors.any()


def test_one_waits_for_the_other() -> None:
    meeting, steps, errors = np.zeros(1, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(march, meeting, steps, errors, 0, 2, 1)
        while steps[0] == 0:  # it has come
            pass
        assert not first.done() and meeting[0] <= 1
        pool.submit(march, meeting, steps, errors, 1, 2, 1).result(timeout=60)
        first.result(timeout=60)
    assert not errors.any()


@numba.njit(nogil=True)
def relay(counter, sums, thread, threads, turns):  # type: ignore[no-untyped-def]
    """Each thread in its turn takes what the thread before has left and adds one; thread 0 begins with nothing."""
    before = barrier.done(counter, thread)
    for turn in range(turns):
        if thread > 0:
            barrier.wait_turn(counter, thread - 1, before + turn + 1)
        sums[turn] = sums[turn] + 1 if thread > 0 else 1
        barrier.end_turn(counter, thread)
    barrier.wait_turn(counter, threads - 1, before + turns)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_take_turns(threads: int) -> None:
    counter, sums = np.zeros(barrier.APART * (threads + 1), np.int64), np.zeros(50, np.int64)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            sums[:] = 0
            for run in [pool.submit(relay, counter, sums, thread, threads, 50) for thread in range(threads)]:
                run.result(timeout=60)
            assert (sums == threads).all()
