"""One table of hashes: the trained weights are the same bits on any threads, processor, tile shape, and kind of input.

Processors and tile shapes are chosen when kernels are compiled, so each is a process of its own, two at a time.
"""

import ctypes
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotloop import MLP, SGD, Trainer, engine, trainer
from hotloop.kernels import epochs, simd
from hotloop.machine import simd_features

BITS = {
    "per-sample float32": "7d80a795f62953b5",
    "per-sample float64": "c74ab6178fda08ec",
    "mini-batch float32": "fcbcfdd218240123",
    "mini-batch float64": "2968bb481a185110",
    "momentum float32": "192875fd554e0db6",
    "momentum float64": "35ef6b32e5f98fa1",
}
KINDS = {"per-sample": (1, 0.0), "mini-batch": (60, 0.0), "momentum": (60, 0.9)}  # batch size, momentum

# Integers and sizes only: no library has a say in them. 300 inputs and 70 units leave rests in every tile.
GRID = np.arange(130 * 300).reshape(130, 300)
X = (GRID * 7919 % 13 - 6) / 4 * (GRID * 31 % 7 < 2)
Y = np.arange(130) * 7 % 3

AVX2 = "+64bit,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
# Both spellings: glibc 2.33 dropped "_Usable".
MASK = "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-FMA_Usable,-FMA4_Usable,-AVX2_Usable"
# Lets simd.py see another processor than Numba does: the tile shape that this processor does not choose.
OTHER_TILE = """
import llvmlite.binding as llvm
true = llvm.get_host_cpu_features
llvm.get_host_cpu_features = lambda: {"avx512f": not true().get("avx512f", False)}
import hotloop.kernels.simd
llvm.get_host_cpu_features = true
"""


class AllThreads(engine.Pace):
    """Never tries fewer."""

    def __init__(self, threads: int, other: int) -> None:
        super().__init__(max(threads, other), max(threads, other))


def table(rows: Any, threads: int) -> dict[str, str]:
    """The hash of the weights after each training of BITS, by this many threads."""
    found = {}
    for name in BITS:
        kind, dtype = name.split()
        batch_size, momentum = KINDS[kind]
        model = MLP([300, 70, 17, 3], ["relu", "gelu"], "softmax", dtype=dtype, seed=12)
        optimizer = SGD(0.02, momentum)
        Trainer(None, optimizer, None, batch_size, epochs=2, seed=34, threads=threads).fit(model, rows, Y)
        assert np.isfinite(model.params).all()
        found[name] = hashlib.sha256(b"".join(part.tobytes() for part in model.weights + model.biases)).hexdigest()[:16]
    return found


def unlisted_and_listed() -> list[dict[str, str]]:
    """The tables with every input visited, and with only the non-zero ones."""
    chosen = engine._sparse_below
    tables = []
    for below in (0.0, 2.0):
        engine._sparse_below = lambda width, window, below=below: below
        tables.append(table(X, 1))
    engine._sparse_below = chosen
    return tables


def exps() -> str:
    """A hash of what this process's C library takes for exp, on Linux."""
    if sys.platform != "linux":
        return ""
    exp = ctypes.CDLL(None).exp
    exp.restype, exp.argtypes = ctypes.c_double, [ctypes.c_double]
    return hashlib.sha256(np.array([exp(x / 7919) for x in range(20_000)]).tobytes()).hexdigest()


def elsewhere(before: str = "", **environment: str) -> dict[str, Any]:
    """What another process finds: its tables, its tile and its exp."""
    code = before + (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import test_bits as t; s = t.simd; "
        "print(json.dumps([t.unlisted_and_listed(), [s.TILE_ROWS, s.TILE_VECTORS], t.exps()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(("tables", "tile", "exps"), json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module", autouse=True)
def processes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The other processes, two at a time, while this one does its own share."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with ThreadPoolExecutor(2) as pool:
        yield {
            "generic": pool.submit(elsewhere, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", HOTLOOP_CACHE_DIR=cache),
            "haswell": pool.submit(
                elsewhere, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=AVX2, HOTLOOP_CACHE_DIR=cache
            ),
            "other tile": pool.submit(elsewhere, OTHER_TILE, HOTLOOP_CACHE_DIR=cache + "/tile"),
            "masked": pool.submit(elsewhere, GLIBC_TUNABLES=MASK),
        }


@pytest.mark.parametrize("form", ["unlisted", "listed", "compressed"])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_bits_on_threads(monkeypatch: pytest.MonkeyPatch, threads: int, form: str) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    monkeypatch.setattr(engine, "Pace", AllThreads)
    monkeypatch.setattr(engine, "_sparse_below", lambda width, window: 0.0 if form == "unlisted" else 2.0)
    monkeypatch.setattr(trainer, "available_threads", lambda: 8)  # more than there are: they wait for one another
    seen: set[tuple[int, int]] = set()
    kernel: Callable[..., float] = epochs.mini_batch

    def watched(*arguments: Any) -> float:
        if arguments[3] > arguments[2]:  # compiling takes a piece of no rows, on one thread
            seen.add(arguments[-2:])
        return kernel(*arguments)

    monkeypatch.setattr(epochs, "mini_batch", watched)
    rows = pytest.importorskip("scipy.sparse").csr_array(X) if form == "compressed" else X
    assert table(rows, threads) == BITS
    assert seen == {(thread, threads) for thread in range(threads)}


def result(processes: dict[str, Future[dict[str, Any]]], name: str) -> dict[str, Any]:
    """What one of the processes found, which must be the bits of the table."""
    found = processes[name].result()
    assert found["tables"] == [BITS, BITS]
    return found


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 only")
def test_bits_without_fused_multiply_add(processes: dict[str, Future[dict[str, Any]]]) -> None:
    result(processes, "generic")


@pytest.mark.skipif("avx2" not in simd_features(), reason="this processor has no AVX2")
def test_bits_of_avx2(processes: dict[str, Future[dict[str, Any]]]) -> None:
    assert result(processes, "haswell")["tile"] == [6, 1]


def test_bits_of_the_other_tile(processes: dict[str, Future[dict[str, Any]]]) -> None:
    tiles = [result(processes, "other tile")["tile"], [simd.TILE_ROWS, simd.TILE_VECTORS]]
    assert sorted(tiles) == [[6, 1], [8, 2]]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_bits_with_another_libm(processes: dict[str, Future[dict[str, Any]]]) -> None:
    """glibc without its FMA variants takes other values for exp; the kernels do not ask it."""
    found = result(processes, "masked")
    if found["exps"] == exps():
        pytest.skip("this C library has no variants of exp to mask, or this processor none to choose from")
