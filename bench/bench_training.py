"""Whole-training races as benchmarks, one group for each case, everyone on one thread where a library lets one choose.

All train one short epoch of the same rows. pytest-benchmark runs one contestant after the other; race.py alternates
them over longer trainings, and its figures are the ones to quote.
"""

from typing import Any

import pytest
from cases import CASES, Case, orders
from peers import CONTESTANTS, Contestant, Hotloop
from race import agree, check

ROWS = 2_000  # of the epoch at most, or 20 batches

pytestmark = pytest.mark.filterwarnings("default")  # the peers' own deprecations are not ours


@pytest.mark.parametrize("kind", CONTESTANTS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training(case: Case, kind: type[Contestant], benchmark: Any) -> None:
    if reason := kind.missing(case):
        pytest.skip(reason)
    try:
        X, y = case.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    first = case.first_layers()
    contestant = kind(case, min(kind.thread_counts(case)))
    entry = check(contestant, X, y, first)
    agree(check(Hotloop(case, 1), X, y, first), entry)
    rows = min(case.samples, max(20, ROWS // case.batch_size) * case.batch_size)
    contestant.load(X[:rows], y[:rows], orders(rows, 1))
    benchmark.group = f"{case.title}, {rows:,} rows"
    benchmark.pedantic(contestant.train, setup=lambda: contestant.reset(first), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(threads=contestant.threads, rows=rows)
