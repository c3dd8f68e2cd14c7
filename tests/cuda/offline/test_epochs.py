"""The machine code of whole pieces: a large kernel, in which nothing may be spilled either."""

import numba
from machine_code import check, every_gpu, matrix32, vector32
from numba import types

from hotloop.kernels.cuda import decisions, epochs
from hotloop.kernels.cuda.custom import Activation, Loss, Own
from hotloop.kernels.cuda.network import SHARED
from hotloop.kernels.cuda.regularize import Regular
from hotloop.kernels.custom import LEAST_CODE
from hotloop.kernels.plan import Inputs, Network, Parts, Samples
from hotloop.kernels.simd import cast

whole, order = types.int64, types.Array(types.int64, 1, "C")
labels, plan = types.Array(types.int32, 1, "C"), types.Array(types.int64, 2, "C")


def record(kind, *fields):
    return types.NamedTuple(fields, kind)


def piece(real):
    """The arguments of a piece for parameters of this type."""
    vector, matrix = types.Array(real, 1, "C"), types.Array(real, 2, "C")
    inputs = record(Inputs, matrix, vector, labels, order)
    return (
        record(Network, plan, vector),
        record(Samples, inputs, matrix, labels, vector, order, whole, record(Parts, whole, whole, whole)),
        whole, whole, whole, whole,
        record(epochs.Rule, whole, matrix, vector, vector, vector),
        record(Regular, real, real, real, real, real, order, types.float64, whole, whole),
        record(epochs.Scratch, vector, vector, vector),
        whole, whole, whole,
    )  # fmt: skip


NETWORK, INPUTS = record(Network, plan, vector32), record(Inputs, matrix32, vector32, labels, order)
PREDICT = (NETWORK, INPUTS, whole, whole, whole, vector32, whole, matrix32)


@every_gpu
def test_a_piece_on_a_cooperative_grid(capability):
    kernel, registers = epochs.make_mini_batch(False, False), 255 if capability == (7, 5) else 200
    code = check(kernel, piece(types.float32), capability, registers, shared=4 * SHARED)  # one block a processor
    assert "LDG.E.128" in {name.removesuffix(".SYS") for name in code.instructions}  # rows are read wide


def test_a_piece_on_one_block():
    check(epochs.make_mini_batch(True, False), piece(types.float32), (9, 0), registers=168, shared=4 * SHARED)


def test_a_piece_with_input_noise_and_of_float64():
    """The draws are of float64, also where the parameters are not."""
    noisy = epochs.make_mini_batch(False, True)
    check(noisy, piece(types.float64), (9, 0), registers=255, shared=8 * SHARED, doubles=True)


@numba.njit
def square(z):
    return z * z


@numba.njit
def twice(z):
    return z + z


@numba.njit
def row(prediction, target, k, delta):
    total = cast(0.0, prediction[0])
    for j in range(k):
        delta[j] = twice(prediction[j] - target[j])
        total += square(prediction[j] - target[j])
    return total


def test_a_piece_with_functions_of_the_users_own_and_noise():
    own = Own((Activation(LEAST_CODE, square, twice),), Loss(None, None, row, False))
    noisy = epochs.make_mini_batch(False, True, own)
    check(noisy, piece(types.float32), (7, 5), registers=255, shared=4 * SHARED, doubles=True)


@every_gpu
def test_inference(capability):
    check(epochs.make_predict(), PREDICT, capability, registers=168, shared=4 * SHARED)
    check(decisions.argmax_kernel, (matrix32, order), capability, registers=40)
    check(decisions.exp_kernel, (vector32, vector32), capability, registers=32)
    check(decisions.sign_kernel, (whole, vector32, order), capability, registers=32)
