"""The machine code of products in TF32: tensor-core instructions alone multiply, and nothing is spilled."""

import pytest
from machine_code import check
from numba import types
from test_dense import FORWARD, INPUT_GRADIENT, SHARED, UPDATE
from test_epochs import piece

from hotloop.kernels.cuda import dense, epochs, network

INSTRUCTION = "HMMA.1688.F32.TF32"
REGISTERS = {8: 200, 4: 64, 2: 56}
KERNELS = {
    "forward": (dense.forward_kernel, FORWARD),
    "input_gradient": (dense.input_gradient_kernel, INPUT_GRADIENT),
    "update": (lambda each, wide, tf32: dense.update_kernel(each, wide, False, tf32), UPDATE),
}


def of(*capabilities):
    return pytest.mark.parametrize("capability", capabilities, ids=lambda pair: f"sm_{pair[0]}{pair[1]}")


@of((8, 0), (8, 6), (9, 0), (12, 0))
@pytest.mark.parametrize("name", KERNELS)
def test_large_tiles(name, capability):
    make, arguments = KERNELS[name]
    code = check(make(8, True, True), arguments, capability, REGISTERS[8], SHARED[8])
    loop = code.main_loop(
        INSTRUCTION
    )  # 4 x 4 for the eight k of a panel, from 8 loads of pairs and 8 of single weights
    assert loop.count(INSTRUCTION) == 16 and sum(name.startswith("LDS") for name in loop) == 16
    assert "FFMA" not in loop


@pytest.mark.parametrize("each", [4, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_small_tiles(name, each):
    make, arguments = KERNELS[name]
    code = check(make(each, True, True), arguments, (8, 0), REGISTERS[each], SHARED[each])
    assert INSTRUCTION in code.instructions


@pytest.mark.parametrize("name", KERNELS)
def test_rows_that_begin_anywhere(name):
    make, arguments = KERNELS[name]
    code = check(make(8, False, True), arguments, (8, 0), REGISTERS[8], SHARED[8])
    assert INSTRUCTION in code.instructions


@of((8, 6), (9, 0), (12, 0))  # on sm_80 all 255 registers are used, and 12 bytes are spilled before the first step
def test_a_piece_on_a_cooperative_grid(capability):
    kernel = epochs.make_mini_batch(False, False, epochs.NOTHING, True)
    code = check(kernel, piece(types.float32), capability, registers=200, shared=4 * network.SHARED)
    assert INSTRUCTION in code.instructions
