"""What the kernels over elements and rows become: activations, losses, updates, random numbers."""

import pytest
from machine_code import check, every_gpu, matrix32, matrix64, vector32, vector64
from numba import types

from hotloop.kernels.cuda import activations, arrays, losses, random, updates

i64, labels = types.int64, types.Array(types.int32, 1, "C")
order = types.Array(i64, 1, "C")
BUDGETS = [  # kernel, arguments, registers
    (activations.apply_kernel, (i64, vector32, i64, vector32), 32),
    (activations.apply_kernel, (i64, vector64, i64, vector64), 48),
    (activations.value_and_slope_kernel, (i64, vector32, i64, vector32, vector32), 32),
    (activations.softmax_kernel, (matrix32, matrix32), 48),
    (losses.rows_kernel, (i64, matrix32, matrix32, labels, matrix32, vector32), 64),
    (losses.rows_kernel, (i64, matrix64, matrix64, labels, matrix64, vector64), 80),
    (updates.move_kernel, (i64, types.UniTuple(types.float32, 8), *[vector32] * 4), 40),
    (updates.move_kernel, (i64, types.UniTuple(types.float64, 8), *[vector64] * 4), 64),
    (random.permutations_kernel, (order, i64, types.Array(types.int32, 3, "C")), 64),
    (arrays.first_unsound_kernel, (vector32, order), 40),
    (arrays.take_kernel, (matrix32, order, matrix32), 40),
    (random.fill_uniform_kernel, (i64, i64, types.float64, matrix32), 40),
    (random.fill_normal_kernel, (i64, i64, types.float64, matrix32), 48),
]


@every_gpu
@pytest.mark.parametrize(("kernel", "arguments", "registers"), BUDGETS)
def test_budget(kernel, arguments, registers, capability):
    check(kernel, arguments, capability, registers)
