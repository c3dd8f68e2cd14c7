"""The compile cache: where it is, whom it never stops, and what it survives. Each case is a process of its own."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

from hotloop.kernels import epochs, inference, jit
from hotloop.kernels.simd import pointer

# One small kernel: half a second to compile.
SMALL = """
import numpy as np
from hotloop.kernels import updates
params = np.ones(3, np.float32)
updates.sgd(params, np.ones(3, np.float32), 0.25)
assert params.tolist() == [0.75] * 3
print(sum(updates.sgd.stats.cache_hits.values()), sum(updates.sgd.stats.cache_misses.values()))
"""
TWO = SMALL + "velocity = np.zeros(3, np.float32)\nupdates.momentum(params, params, velocity, 0.1, 0.5)\n"


def start(code: str, cache: Path | str, **environment: str) -> subprocess.Popen[str]:
    """A Python process with this cache folder."""
    settings = {**os.environ, "HOTLOOP_CACHE_DIR": str(cache), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(code: str, cache: Path | str, **environment: str) -> tuple[str, str]:
    """What a process that must succeed printed, and its complaints."""
    process = start(code, cache, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip(), err


def kept(cache: Path, suffix: str = "*") -> list[Path]:
    """Files of the cache."""
    return sorted(path for path in cache.rglob(f"*.{suffix}") if path.is_file())


def test_the_folder_is_named_after_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jit.CACHE_FOLDER.name == jit.SOURCE_HASH and jit._source_hash() == jit.SOURCE_HASH
    for name in ("jit.py", "deeper/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    first = jit._source_hash()
    assert jit._source_hash() == first != jit.SOURCE_HASH
    (tmp_path / "deeper" / "other.py").write_text("a = 2\n")  # an edit in any kernel file
    second = jit._source_hash()
    assert second != first
    monkeypatch.setattr(jit.config, "CPU_NAME", "another")
    assert jit._source_hash() != second


def test_the_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_CACHE_DIR", str(tmp_path))
    assert jit._cache_root() == tmp_path
    monkeypatch.delenv("HOTLOOP_CACHE_DIR")
    monkeypatch.setattr(jit.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for system, part in (("Linux", "xdg"), ("Windows", "local"), ("Darwin", "Caches")):
        monkeypatch.setattr(jit.platform, "system", lambda system=system: system)
        root = jit._cache_root()
        assert root.is_absolute() and part in str(root) and "hotloop" in str(root)
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "numba"))
    assert jit._cache_root() == tmp_path / "numba"


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    assert run(SMALL, tmp_path)[0] == "0 1"
    assert [path.parent for path in kept(tmp_path, "nbi")] == [tmp_path / jit.SOURCE_HASH]
    before = {path: path.read_bytes() for path in kept(tmp_path)}
    assert run(SMALL, tmp_path)[0] == "1 0"
    assert {path: path.read_bytes() for path in kept(tmp_path)} == before


def test_loading_loads_no_compiler(tmp_path: Path) -> None:
    """Numba registers what it can compile, and imports much of SciPy, when it first compiles; to load needs neither."""
    run(SMALL, tmp_path)
    code = SMALL + "import sys\nprint('numba.np.linalg' in sys.modules, 'scipy.linalg' in sys.modules)\n"
    code += "import numba\nprint(numba.njit(lambda x: x @ x)(np.ones((2, 2))).tolist())  # and it still compiles\n"
    expected = "1 0\nFalse False\n[[2.0, 2.0], [2.0, 2.0]]"
    assert run(code, tmp_path)[0] == expected


PARTS = """
import numpy as np
from hotloop.kernels import jit, updates
from hotloop.optimizers import Adam, SGD
from hotloop.kernels import steps
params, grad = np.ones(20, np.float32), np.ones(20, np.float32)
rule = Adam(lr=0.5).rule(np.ones(1), grad, Adam().init(params))
assert rule.part == 0 and steps.ready(rule).part != 0 == steps.ready(rule._replace(grad=grad[:0])).part
print(jit.compiled_and_loaded())
"""


def test_a_part_has_a_file_of_its_own_and_is_compiled_alone(tmp_path: Path) -> None:
    assert run(PARTS, tmp_path)[0] == "(2, 0)"
    assert sorted(path.name.partition("-")[0] for path in kept(tmp_path, "nbi")) == ["steps._adam", "steps._move"]
    assert run(PARTS, tmp_path)[0] == "(0, 2)"


FIT = """
from hotloop import MLP, Trainer
Trainer(batch_size={batch_size}, epochs=1, progress=False).fit(
    MLP([64, 32, 10], output="softmax"), [[1.0] * 64] * 20, [0, 1] * 10
)
"""
COMMON = {"inference.all_finite", "random.fill_uniform", "random.permutation"}


@pytest.mark.parametrize(("batch_size", "epochs"), [(1, "epochs.per_sample"), (10, "epochs.mini_batch")])
def test_a_first_fit_compiles_nothing_that_it_does_not_use(tmp_path: Path, batch_size: int, epochs: str) -> None:
    """No rule with a memory, no other loss, no lists or masks of inputs: each would make the first fit wait longer."""
    run(FIT.format(batch_size=batch_size), tmp_path)
    names = {path.name.partition("-")[0] for path in kept(tmp_path, "nbi")}
    assert {name for name in names if not name.startswith("activations.")} == {*COMMON, epochs}


def test_a_part_is_called_by_its_address() -> None:
    here = jit.address(_add, types.CPointer(types.float32), types.int64, types.UniTuple(types.float64, 2))
    values = np.zeros(5, np.float32)
    _call_by_address(values, here)
    assert values.tolist() == [3.5, 3.5, 3.5, 0.0, 0.0]
    assert here == jit.address(_add, types.CPointer(types.float32), types.int64, types.UniTuple(types.float64, 2))


@jit.apart
def _add(at, n, terms):  # type: ignore[no-untyped-def]
    for i in range(n):
        at[i] += terms[0] + terms[1]


@numba.njit
def _call_by_address(values, here):  # type: ignore[no-untyped-def]
    jit.call(here, (pointer(values, 0), 3, (1.0, 2.5)))


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_are_compiled_again_and_replaced(tmp_path: Path, suffix: str) -> None:
    run(SMALL, tmp_path)
    for content in (b"", b"\x80\x04 not a pickle", None):
        for path in kept(tmp_path, suffix):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
        assert run(SMALL, tmp_path) == ("0 1", "")
        assert run(SMALL, tmp_path) == ("1 0", "")  # whole again


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out, err = run(TWO, tmp_path / "file" / "cache")
    assert out == "0 1"
    assert err.count("RuntimeWarning") == 1 and "Set HOTLOOP_CACHE_DIR to a writable folder" in err
    assert str(tmp_path / "file" / "cache") in err


def test_a_read_only_cache_that_is_full_is_used_in_silence(tmp_path: Path) -> None:
    run(SMALL, tmp_path)
    for path in [*kept(tmp_path), *(path for path in tmp_path.rglob("*") if path.is_dir()), tmp_path]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert run(SMALL, tmp_path) == ("1 0", "")
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o700)


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    both = [start(TWO, tmp_path) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0 and err == "", err
    assert run(TWO, tmp_path)[0] == "1 0"


def test_without_a_compiler_the_import_says_why(tmp_path: Path) -> None:
    process = start("from hotloop import MLP", tmp_path, NUMBA_DISABLE_JIT="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].startswith("ImportError: hotloop cannot run with NUMBA_DISABLE_JIT=1")


def test_import_brings_only_numba_and_numpy(tmp_path: Path) -> None:
    names = "('rich', 'typer', 'safetensors', 'matplotlib', 'sklearn', 'pandas', 'torch')"
    code = (
        "import sys\nimport numba\nbefore = set(sys.modules)  # Numba itself imports SciPy where there is one\n"
        "from hotloop import MLP, Trainer\nMLP([2, 1], init='zeros'), Trainer()\n"
        f"print([name for name in {names} if name in sys.modules and name not in before])"
    )
    assert run(code, tmp_path)[0] == "[]"
    assert kept(tmp_path) == []  # and compiles nothing


def test_every_kernel_has_the_options_of_the_one_decorator() -> None:
    for kernel in (epochs.per_sample, epochs.mini_batch, inference.predict, inference.all_finite):
        options = kernel.targetoptions
        assert options["nogil"] is True and options["error_model"] == "numpy"
        assert not options.get("fastmath") and not options.get("parallel")


@pytest.mark.parametrize(
    "name",
    [
        "activations",
        "dense",
        "entries",
        "epochs",
        "inference",
        "lines",
        "losses",
        "network",
        "random",
        "scalar",
        "sparse",
        "steps",
        "tiles",
        "updates",
    ],
)
def test_no_kernel_file_asks_numba_for_other_options(name: str) -> None:
    source = Path(str(importlib.import_module(f"hotloop.kernels.{name}").__file__)).read_text(encoding="utf-8")
    assert "numba.njit" not in source and "@njit" not in source and "fastmath" not in source


def test_division_by_zero_is_infinity() -> None:
    divide = jit.jit(_divide)
    assert divide(np.float64(1.0), np.float64(0.0)) == np.inf


def _divide(a, b):  # type: ignore[no-untyped-def]
    return a / b
