"""What epoch kernels are given: the plan of a network and its parameters, the samples and how they come.

plan (n_layers + 1, 9) int64, one line per layer, line 0 the input:
  WIDTH units, PADDED width (a multiple of 16, padding zero), STRIDE between rows in the workspace,
  WEIGHT and BIAS offsets in params, HAS_BIAS, ACTIVATION code, VALUE and SLOPE offsets in the workspace.
"""

from typing import Any, NamedTuple

WIDTH, PADDED, STRIDE, WEIGHT, BIAS, HAS_BIAS, ACTIVATION, VALUE, SLOPE = range(9)
COLUMNS = SLOPE + 1


class Network(NamedTuple):
    """A plan and its parameters."""

    plan: Any  # (n_layers + 1, 9) int64
    params: Any  # (n_params,) float32 or float64, padding included


class Parts(NamedTuple):
    """Where the code for one kind of inputs, and for a loss, is in this process, see `jit.apart`; 0 for the others."""

    forward: int = 0  # zeros.forward_zeros or sparse.forward_part
    update: int = 0  # zeros.update_zeros or sparse.update_part
    overlaps: int = 0  # sparse.overlaps, for windows of listed rows
    load: int = 0  # sparse.load_listed or sparse.load_dense
    first_layer: int = 0  # network.forward_zeros, for mini-batches
    delta: int = 0  # outputs.row_delta, for all losses but the most common


class Inputs(NamedTuple):
    """Dense rows, or compressed sparse rows."""

    X: Any  # (n, n_features) of the parameters' dtype; (0, n_features) where the rows are compressed
    value: Any  # (n_entries,) of the parameters' dtype
    index: Any  # (n_entries,) int32, ascending within a row
    start: Any  # (n + 1,) int64, where each row's entries begin; (0,) where the rows are dense


class Samples(NamedTuple):
    """The data of an epoch; targets or labels is empty, by the loss."""

    inputs: Inputs
    targets: Any  # (n, n_outputs) of the parameters' dtype
    labels: Any  # (n,) int32
    weights: (
        Any  # (n,) of the parameters' dtype, what each sample's loss is multiplied by; (0,) where all count the same
    )
    order: Any  # (n,) int64, the sample at each position of the epoch
    listed: int  # 1: only non-zero inputs are visited; 0: every input is, and compressed rows are filled out one by one
    parts: Parts = Parts()  # see `parts.ready`


class Lists(NamedTuple):
    """The non-zero inputs of each row of a block; see sparse.load_listed."""

    index: Any  # int32
    value: Any
    ends: Any  # int32
