"""Training and inference on an NVIDIA GPU: what `engine` is on the processor, over `hotloop.kernels.cuda`.

Imported only where device="cuda" is asked for, or an array on a device is given.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hotloop import custom, layout
from hotloop.engine import Pieces
from hotloop.inputs import Rows
from hotloop.kernels import updates
from hotloop.kernels.custom import LEAST_CODE
from hotloop.kernels.plan import ACTIVATION, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WIDTH, Inputs, Network, Samples
from hotloop.kernels.regularize import BLOCK, HALVES
from hotloop.objectives import Objective
from hotloop.regularization import Regularization

if TYPE_CHECKING:
    from hotloop.mlp import MLP

try:
    from hotloop.kernels.cuda import arrays, decisions, epochs, shim
    from hotloop.kernels.cuda import updates as gpu_updates
    from hotloop.kernels.cuda.custom import Activation, Loss, Own
    from hotloop.kernels.cuda.dense import SIDE
    from hotloop.kernels.cuda.regularize import Regular
except ImportError as error:
    raise ImportError(f"device: 'cuda' cannot be used here: {error}") from None

GRID_PAYS = 600_000  # multiply-adds of a step: about what one block does while a grid meets three times
SHARED_WEIGHTS = 8192  # weights of a layer from which a block should not read them alone
SLICE_ROWS = 128  # rows that a slice of the gradient has at least
PREDICT_ROWS = 64  # rows of an inference block
LARGEST = 2**31  # elements of an array with 32-bit indices


def require() -> None:
    """Raise a RuntimeError that says what to do where no kernel can be launched."""
    try:
        shim.require_device()
    except RuntimeError as error:
        raise RuntimeError(f"device: 'cuda' cannot be used here: {' '.join(str(error).split())}") from None


def require_tf32(dtype: Any) -> None:
    """Raise an error that says what to do where no product can be computed in TF32."""
    try:
        shim.require_tf32(dtype)
    except (RuntimeError, ValueError) as error:
        raise type(error)(f"tf32: {error}; use tf32=False.") from None


def processors() -> int:
    """Multiprocessors of the current device."""
    return 1 if shim.SIMULATOR else int(shim.cuda.get_current_device().MULTIPROCESSOR_COUNT)


def make_plan(plan: NDArray[np.int64], output: int, rows: int, apart: bool = False) -> tuple[NDArray[np.int64], int]:
    """The plan of the same network for blocks of `rows` rows on the GPU, and the workspace's size.

    Every row has room for a 1 behind its values, and the output's, if `apart`, for a delta; see kernels.cuda.network.
    """
    sizes = [int(width) for width in plan[:, WIDTH]]
    plan, _ = layout.make_plan(sizes, [*plan[1:-1, ACTIVATION], output], bool(plan[1, HAS_BIAS]), rows)
    plan[:, STRIDE] = [layout.padded(width + 1) for width in sizes]
    plan[-1, STRIDE] *= 2 if apart else 1
    place = 0
    for line in plan:
        line[VALUE], line[SLOPE] = place, place + rows * line[STRIDE]
        place += 2 * rows * int(line[STRIDE])
    return plan, place


def workspace(plan: NDArray[np.int64], size: int, rows: int, dtype: Any) -> NDArray[Any]:
    """The workspace of a plan: zeros, and the 1 behind the values of every row."""
    work = np.zeros(size, dtype)
    for layer, line in enumerate(plan):
        for start in (line[VALUE], line[SLOPE])[: 2 if layer == 0 else 1]:
            work[start : start + rows * line[STRIDE]].reshape(rows, line[STRIDE])[:, line[WIDTH]] = 1
    return work


def _inputs(inputs: Inputs, stream: Any) -> Inputs:
    """The rows on the device; what is there already is not copied."""
    return Inputs(*(upload(array, stream) for array in inputs))


def upload(array: Any, stream: Any = 0) -> Any:
    """An array on the device, by itself if it is there already; an empty one has room for an element."""
    if arrays.is_on_device(array):
        return array
    if array.size == 0:
        return shim.cuda.to_device(np.zeros(tuple(max(1, n) for n in array.shape), array.dtype), stream)[
            tuple(slice(0, n) for n in array.shape)
        ]
    return shim.cuda.to_device(np.ascontiguousarray(array), stream)


def own_functions(codes: Iterable[int], loss: int = 0) -> Own:
    """The activations and the loss of the user's own among these codes of activations, of one or of many models."""
    used = ((code, custom.find(code)) for code in sorted({int(code) for code in codes}) if code >= LEAST_CODE)
    activations = tuple(Activation(code, each.value, each.slope) for code, each in used)
    if loss < LEAST_CODE:
        return Own(activations)
    given = custom.find(loss)
    return Own(activations, Loss(given.value, given.slope, given.row, given.classes))


def make_regular(regularization: Regularization, layers: int, seed: int, dtype: Any, stream: Any = 0) -> Regular:
    """The same for the kernels, for a network of so many weight layers."""
    told = regularization.numbers(layers, seed)
    real, shares = dtype.type, np.round(told.dropout * HALVES).astype(np.int64)
    return Regular(
        real(told.l1), real(told.l2), real(told.clip_value), real(told.clip_norm), real(told.max_norm),
        upload(shares, stream), told.noise, seed, 0,
    )  # fmt: skip


class Engine:
    """One model, one objective, one batch size on the GPU; the interface of `engine.Engine`.

    The parameters live on the device from `restart` on, and after each piece in network.params too; what the optimiser
    remembers comes back with `close`. threads, per_sample and lazy_from are the processor's, and not used.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        objective: Objective,
        batch_size: int,
        threads: int,
        per_sample: bool = False,
        regularization: Regularization | None = None,
        seed: int = 0,
        lazy_from: int | None = None,
        stream: Any = 0,
        tf32: bool = False,
    ) -> None:
        require()
        self.tf32 = tf32
        if tf32:
            require_tf32(network.params.dtype)
        stream = arrays.as_stream(stream)
        regularization = regularization or Regularization()
        self.n, self.batch_size, self.stream, self.host = len(rows), batch_size, stream, network.params
        self.code, self.dtype, k = objective.code, network.params.dtype, int(network.plan[-1, WIDTH])
        self.order = np.arange(self.n)
        self.direct_allowed = regularization.direct
        self.regular = make_regular(regularization, len(network.plan) - 1, seed, self.dtype, stream)
        rows_wide = 2 * sum(layout.padded(int(width) + 1) for width in network.plan[:, WIDTH])
        self.chunk = min(batch_size, epochs.BLOCK, max(1, LARGEST // rows_wide))
        self.own = own_functions((*network.plan[1:-1, ACTIVATION], objective.activation), objective.code)
        plan, size = make_plan(network.plan, objective.activation, self.chunk, self.own.apart)
        self._shape(plan)
        self.plan, self.params = upload(plan, stream), upload(self.host, stream)
        self.scratch = epochs.Scratch(
            upload(workspace(plan, size, self.chunk, self.dtype), stream),
            shim.cuda.device_array(max(1, self.n), self.dtype),
            shim.cuda.device_array(-(-self.host.size // BLOCK), self.dtype),
        )
        self.samples = Samples(
            _inputs(rows.arrays, stream),
            upload(objective.targets if len(objective.targets) else np.zeros((1, k), self.dtype), stream),
            upload(objective.labels, stream),
            upload(objective.weights, stream),
            upload(self.order, stream),
            0,
        )
        self.buffers: tuple[Any, Any, Any] | None = None
        self.rule: updates.Rule | None = None
        self.total = 0.0
        self.pieces = Pieces(min(batch_size, self.n), 256)

    def _shape(self, plan: NDArray[np.int64]) -> None:
        """How many blocks, how many layers they share, how many slices of the gradient."""
        weights = plan[1:, PADDED] * plan[:-1, WIDTH]
        large = int(weights.sum()) * 3 * self.chunk > GRID_PAYS
        self.blocks = processors() if large else 1
        shared = [layer + 1 for layer, count in enumerate(weights) if count >= SHARED_WEIGHTS]
        self.wide = max(shared, default=0) if self.blocks > 1 else 0
        side = 4 * SIDE
        tiles = int((-(-(plan[:-1, WIDTH] + 1) // side) * -(-plan[1:, WIDTH] // side)).sum())
        self.slices = max(1, min(self.chunk // SLICE_ROWS, self.blocks // tiles))

    def close(self) -> None:
        """Bring what the optimiser remembers to the host, and let go of its memory on the device."""
        if self.buffers is not None and self.rule is not None:
            for kept, buffer in zip((self.rule.first, self.rule.second), self.buffers[1:], strict=True):
                if len(kept):
                    buffer.copy_to_host(kept, self.stream)
            self._wait()
        self.buffers = None

    def _wait(self) -> None:
        if self.stream:
            self.stream.synchronize()

    def restart(self, epoch: int) -> None:
        """Begin an epoch: a new sum of losses, new draws, the order and the parameters as they are on the host."""
        self.total = 0.0
        self.regular = self.regular._replace(epoch=epoch)
        self.samples.order.copy_to_device(self.order, self.stream)
        self.params.copy_to_device(self.host, self.stream)

    def run(self, start: int, stop: int, rule: updates.Rule) -> float:
        """Train on positions start .. stop of the order; return the sum of the losses since `restart`."""
        self.rule, steps = rule, -(-(stop - start) // self.batch_size)
        grad, first, second = self._buffers(rule)
        numbers = upload(self._numbers(rule, start // self.batch_size, max(1, steps)), self.stream)
        epochs.mini_batch(
            Network(self.plan, self.params),
            self.samples,
            start,
            stop,
            self.batch_size,
            self.code,
            epochs.Rule(rule.code, numbers, grad, first, second),
            self.regular,
            self.scratch,
            self.slices,
            self.wide,
            self.blocks,
            self.chunk,
            self.stream,
            self.own,
            self.tf32,
        )
        if stop > start:
            self._fetch(start, stop, steps, rule, first)
        return self.total

    def _fetch(self, start: int, stop: int, steps: int, rule: updates.Rule, first: Any) -> None:
        """Bring losses and parameters to the host, and the rule's clock up to date."""
        losses = self.scratch.row_loss[start:stop].copy_to_host(stream=self.stream)
        self.params.copy_to_host(self.host, self.stream)
        if rule.code == updates.AVERAGED:
            first.copy_to_host(rule.first, self.stream)
        self._wait()
        self.total += float(losses.sum(dtype=np.float64))
        if rule.code != updates.PASSIVE_AGGRESSIVE:  # which has no memory, and no betas
            rule.clock[:] = rule.clock[0] + steps, rule.clock[1] * rule.beta1**steps, rule.clock[2] * rule.beta2**steps

    def _buffers(self, rule: updates.Rule) -> tuple[Any, Any, Any]:
        """The gradient's slices, and what the rule remembers; made for the first piece."""
        if self.buffers is None:
            straight = rule.code in (updates.SGD, updates.PASSIVE_AGGRESSIVE)
            direct = straight and self.direct_allowed and self.slices == 1 and self.batch_size <= self.chunk
            grad = np.zeros(0 if direct else self.slices * self.host.size, self.dtype)
            self.buffers = (
                upload(grad, self.stream), upload(rule.first, self.stream), upload(rule.second, self.stream)
            )  # fmt: skip
        return self.buffers

    def _numbers(self, rule: updates.Rule, step: int, steps: int) -> NDArray[Any]:
        """What `kernels.cuda.updates.move` reads in each of these steps, which begin `step` steps into the epoch."""
        rates = rule.rates[np.minimum(np.arange(step, step + steps), len(rule.rates) - 1)]
        done = rule.clock[0] + 1 + np.arange(steps)
        one = gpu_updates.constants(rule.code, 1.0, rule.beta1, rule.beta2, rule.eps, 0.0, 1)
        table = np.tile(one, (steps, 1))
        table[:, gpu_updates.LR], table[:, gpu_updates.KEEP] = rates, 1.0 - rates * rule.weight_decay
        if rule.code == updates.ADAM:
            table[:, gpu_updates.LR] = rates / (1.0 - rule.beta1**done)
            table[:, gpu_updates.ROOT] = 1.0 / np.sqrt(1.0 - rule.beta2**done)
        elif rule.code == updates.AVERAGED:
            table[:, gpu_updates.ROOT] = 1.0 / np.maximum(1.0, done - rule.eps)
        return table.astype(self.dtype)


def infer(network: Network, inputs: Inputs, output: int, n: int, stream: Any = 0) -> Any:
    """The network's outputs (n, k) for these rows, on the device; see engine.infer."""
    require()
    dtype, k = network.params.dtype, int(network.plan[-1, WIDTH])
    plan, size = make_plan(network.plan, output, PREDICT_ROWS)
    blocks = max(1, min(2 * processors(), -(-n // PREDICT_ROWS)))
    out, work = shim.cuda.device_array((n, k), dtype), shim.cuda.device_array(blocks * size, dtype)
    net, own = Network(upload(plan, stream), upload(network.params, stream)), own_functions(plan[1:, ACTIVATION])
    epochs.predict(net, _inputs(inputs, stream), 0, n, PREDICT_ROWS, work, out, blocks, stream, own)
    return out


def _view(model: "MLP", name: str, X: Any, stream: Any) -> Rows:
    """X (n, n_features) on the device as rows, not copied."""
    if model._prepare is not None:
        raise ValueError(
            f"{name}: got an array on a GPU, but this model prepares its inputs on the processor; pass NumPy's."
        )
    require()
    view = arrays.as_device(X, model.dtype, name, stream)
    if view.ndim != 2 or view.shape[1] != model.sizes[0] or view.shape[0] == 0:
        raise ValueError(
            f"{name}: got shape {tuple(view.shape)}, expected (n_samples, {model.sizes[0]}), at least one."
        )
    return Rows(Inputs(view, np.zeros(0, model.dtype), np.zeros(0, np.int32), np.zeros(0, np.int64)))


def read(model: "MLP", name: str, X: Any, stream: Any = 0) -> Rows:
    """Rows to train on, from X (n, n_features) on the device, which is not copied; errors call it by this name.

    Raises ValueError for another shape, dtype or layout, for NaN and for infinity.
    """
    stream = arrays.as_stream(stream)
    rows = _view(model, name, X, stream)
    place = arrays.first_unsound(rows.arrays.X, stream)
    if place < rows.arrays.X.size:
        raise ValueError(
            f"{name}: got a NaN or an infinity at {list(divmod(place, model.sizes[0]))}; expected finite numbers only."
        )
    return rows


def to_host(array: Any, stream: Any = 0) -> NDArray[Any]:
    """A NumPy copy of an array on the device, of any library."""
    require()
    return arrays.to_host(array, arrays.as_stream(stream))


def forward(model: "MLP", X: Any, output: int, stream: Any = 0) -> Any:
    """Outputs (n, n_outputs) on the device for X (n, n_features) on the device, which is read in place.

    stream: numba-cuda's, PyTorch's, CuPy's, or a handle. Raises ValueError for another shape, dtype or layout.
    """
    stream = arrays.as_stream(stream)
    rows = _view(model, "X", X, stream)
    return infer(model._network, rows.arrays, output, len(rows), stream)


def predict(model: "MLP", X: Any, output: int, stream: Any = 0) -> Any:
    """MLP.predict for X on the device; predictions stay there, classes as their numbers."""
    stream = arrays.as_stream(stream)
    outputs = forward(model, X, output, stream)
    n, k = outputs.shape
    shape = (n,) if k == 1 or model.decision == "argmax" else (n, k)
    if model.decision == "value":
        return outputs.reshape(*shape)
    kind = model.dtype if model.decision == "exp" else np.int64
    out = shim.cuda.device_array(int(np.prod(shape)), kind)
    decisions.decide(decisions.CODES[model.decision], outputs, out, stream)
    return out.reshape(*shape)
