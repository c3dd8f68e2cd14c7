"""The machine code of whole pieces: a large kernel, in which nothing may be spilled either."""

from machine_code import check, every_gpu, matrix32, vector32
from numba import types

from hotloop.kernels.cuda import decisions, epochs
from hotloop.kernels.cuda.network import SHARED
from hotloop.kernels.network import Inputs, Network, Samples

whole, order = types.int64, types.Array(types.int64, 1, "C")
labels, plan = types.Array(types.int32, 1, "C"), types.Array(types.int64, 2, "C")


def record(kind, *fields):
    return types.NamedTuple(fields, kind)


NETWORK, INPUTS = record(Network, plan, vector32), record(Inputs, matrix32, vector32, labels, order)
PIECE = (
    NETWORK,
    record(Samples, INPUTS, matrix32, labels, vector32, order, whole),
    whole, whole, whole, whole,
    record(epochs.Rule, whole, matrix32, vector32, vector32, vector32),
    record(epochs.Penalties, types.float32, types.float32, types.float32),
    record(epochs.Scratch, vector32, vector32),
    whole, whole, whole,
)  # fmt: skip
PREDICT = (NETWORK, INPUTS, whole, whole, whole, vector32, whole, matrix32)


@every_gpu
def test_a_piece_on_a_cooperative_grid(capability):
    code = check(epochs.grid, PIECE, capability, registers=200, shared=4 * SHARED)  # one block a processor
    assert "LDG.E.128" in {name.removesuffix(".SYS") for name in code.instructions}  # rows are read wide


def test_a_piece_on_one_block():
    check(epochs.single, PIECE, (9, 0), registers=168, shared=4 * SHARED)


@every_gpu
def test_inference(capability):
    check(epochs.predict_kernel, PREDICT, capability, registers=168, shared=4 * SHARED)
    check(decisions.argmax_kernel, (matrix32, order), capability, registers=40)
    check(decisions.exp_kernel, (vector32, vector32), capability, registers=32)
    check(decisions.sign_kernel, (whole, vector32, order), capability, registers=32)
