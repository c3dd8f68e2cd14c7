"""The tiled product's machine code: nothing spilled, no float64, and a main loop that multiplies and adds."""

import pytest
from machine_code import check, every_gpu, vector32, vector64
from numba import types

from hotloop.kernels.cuda import dense

count, code = types.uint32, types.int64
FORWARD = (vector32, vector32, vector32, code, vector32, count, count, count)
INPUT_GRADIENT = (vector32, vector32, vector32, count, count, count)
UPDATE = (vector32, vector32, vector32, vector32, count, count, count)
SHARED = {8: 16_896, 4: 17_408, 2: 18_432}  # bytes: two panels deep, for both operands
REGISTERS = {8: 168, 4: 80, 2: 64}
FFMA_SHARE = 0.65  # at least, of the main loop's instructions

KERNELS = {
    "forward": (dense.forward_kernel, FORWARD),
    "input_gradient": (dense.input_gradient_kernel, INPUT_GRADIENT),
    "update": (lambda each, wide: dense.update_kernel(each, wide, False), UPDATE),
}


def double(arguments):
    return tuple(vector64 if argument == vector32 else argument for argument in arguments)


def main_loop(code):
    """The basic block that loads panels and multiplies: what is left of the depth has a block of its own."""
    return max(code.blocks, key=lambda block: any(name.startswith("LDG") for name in block) * block.count("FFMA"))


@every_gpu
@pytest.mark.parametrize("name", KERNELS)
def test_large_tile(name, capability):
    make, arguments = KERNELS[name]
    code = check(make(8, True), arguments, capability, REGISTERS[8], SHARED[8])
    loop = main_loop(code)
    share = loop.count("FFMA") / len(loop)
    assert share >= FFMA_SHARE, f"{share:.2f} of {len(loop)}"
    assert loop.count("FFMA") == 512 and sum(name.startswith("LDS.") for name in loop) == 32


@every_gpu
@pytest.mark.parametrize("each", [4, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_small_tiles(name, each, capability):
    make, arguments = KERNELS[name]
    check(make(each, True), arguments, capability, REGISTERS[each], SHARED[each])


@pytest.mark.parametrize("name", KERNELS)
def test_unaligned_rows_and_float64(name):
    make, arguments = KERNELS[name]
    check(make(8, False), arguments, (7, 5), 168, SHARED[8])
    check(make(4, True), double(arguments), (7, 5), 168, 2 * SHARED[4])


@every_gpu
def test_strips(capability):
    check(dense.forward_strip_kernel(True), FORWARD, capability, 96, 4 * dense.SHARED)
