"""Machine code kept between processes: found again, told apart, compiled anew where the file is spoilt."""

import os
import subprocess
import sys

import pytest
from test_epochs import row, square, twice

from hotloop.kernels.cuda import activations, cache, dense, epochs, train
from hotloop.kernels.cuda.custom import Activation, Loss, Own
from hotloop.kernels.custom import LEAST_CODE

# What a process with a GPU does for its first launches, up to the machine code: how much was found, how much compiled.
SCRIPT = """
from types import SimpleNamespace
from hotloop.kernels.cuda import dense
from numba import types
from numba.cuda import codegen, dispatcher

dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin()
codegen.CUDACodeLibrary._ensure_cc = lambda library, cc: (9, 0)
codegen.JITCUDACodegen.magic_tuple = lambda self: ((13, 0), (9, 0))
vector, count = types.Array(types.float32, 1, "C"), types.uint32
for wide in (True, False):
    kernel = dense.input_gradient_kernel(2, wide)
    compiled = kernel.compile((vector, vector, vector, count, count, count))
    assert len(bytes(compiled._codelibrary.get_cubin().code)) > 1000
    print(sum(kernel._cache_hits.values()), sum(kernel._cache_misses.values()), end=" ")
"""


def test_another_process_finds_it(tmp_path):
    def run():
        environment = os.environ | {"HOTLOOP_CACHE_DIR": str(tmp_path)}
        result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    assert run() == ["0", "1", "0", "1"]
    assert run() == ["1", "0", "1", "0"]
    for file in tmp_path.rglob("*input_gradient*.1.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert sorted(run()) == ["0", "0", "1", "1"]
    assert run() == ["1", "0", "1", "0"]


def test_every_variant_of_a_kernel_is_known_by_its_own_name():
    kernels = [epochs.make_mini_batch(alone, noisy) for alone in (False, True) for noisy in (False, True)]
    kernels += [epochs.make_mini_batch(False, False, epochs.NOTHING, True), epochs.make_predict()]
    kernels += [dense.forward_kernel(each, wide) for each in (2, 4, 8) for wide in (False, True)]
    kernels += [dense.update_kernel(4, True, fresh) for fresh in (False, True)]
    kernels += [train.make_train(rows, True, shared, drops) for rows in (1, 4) for shared, drops in [(1, 0), (0, 1)]]
    kernels += [dense.forward_strip_kernel(True), activations.apply_kernel]
    assert all(isinstance(kernel._cache, cache._Cache) for kernel in kernels)
    assert len({kernel._cache._identity for kernel in kernels}) == len(kernels)


@pytest.mark.parametrize(
    "own", [Own((Activation(LEAST_CODE, square, twice),)), Own((), Loss(None, None, row, False))], ids=["value", "row"]
)
def test_functions_of_the_users_own_are_not_kept(own):
    assert not isinstance(epochs.make_mini_batch(False, False, own)._cache, cache._Cache)


def test_a_folder_that_cannot_be_written_costs_one_warning(monkeypatch):
    def refuse(*args):
        raise OSError("read-only")

    monkeypatch.setattr(cache.CUDACache, "save_overload", refuse)
    kept = cache._Cache(activations.apply_kernel.py_func, "a name")
    cache.jit._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"cannot be kept in .* Set HOTLOOP_CACHE_DIR to a writable folder"):
        kept.save_overload(None, None)
    kept.save_overload(None, None)
    cache.jit._warn_once.cache_clear()
