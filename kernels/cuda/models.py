"""Many small models trained at once on one GPU: each by one block of threads, long pieces of the run in one launch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hotloop.kernels import activations, losses
from hotloop.kernels import updates as rules
from hotloop.kernels.cuda import block, random, train
from hotloop.kernels.cuda.arrays import as_device, as_stream, dtype_of, is_on_device
from hotloop.kernels.cuda.custom import NOTHING, Own
from hotloop.kernels.cuda.shim import SIMULATOR, cuda, launch, require_device
from hotloop.kernels.cuda.updates import LR, ROOT, constants
from hotloop.kernels.custom import LEAST_CODE
from hotloop.kernels.plan import ACTIVATION, BIAS, HAS_BIAS, PADDED, WEIGHT, WIDTH
from hotloop.kernels.regularize import HALVES

BATCH_ROWS = 512  # most rows in memory at once; a larger batch adds part after part into the gradient, as on the CPU
FEW_ROWS = 4  # smaller batches are summed one output a thread
ORDER_BYTES = 1 << 28  # of the samples' orders on the device: they bound the epochs of one launch
MOST_THREADS = 64 if SIMULATOR else train.MOST_THREADS
CLASSES = (16, 32, 64, 128, 256)  # kilobytes of shared memory: models of one class are launched together
RULES = (
    rules.SGD, rules.MOMENTUM, rules.NESTEROV, rules.ADAM, rules.RMSPROP, rules.ADAGRAD, rules.ADADELTA, rules.LION,
    rules.AVERAGED,
)  # fmt: skip


class Trained(NamedTuple):
    """What `train_models` gives back, all of it on the device: ask for it with copy_to_host()."""

    params: Any  # like the params given; where they lived on the device, these very arrays
    losses: Any  # (n_models, epochs) float32, the mean loss of each epoch's samples, each before its step
    first: Any  # what the rule remembers, to go on with; (0,) where it has none
    second: Any


class _Group(NamedTuple):
    """Models that are launched together, and how."""

    rows_each: int
    params_shared: bool
    work_shared: bool
    variant: tuple[bool, ...]  # whether some drop units, have bounds, have noise
    threads: int
    kilobytes: int  # of shared memory, the class


class _Model(NamedTuple):
    """What is known of one model before its launch."""

    group: _Group
    floats: tuple[int, int]  # of its parameters, with all that belongs to them, and of its rows
    work: int  # multiply-adds of a step: the largest begin first


def shared_limit() -> int:
    """Bytes of shared memory that one block of this GPU may have."""
    return 99 << 10 if SIMULATOR else int(cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


def _odd_quads(width: int) -> int:
    """Elements between rows of `width` units: an odd number of quads, at least as wide."""
    return 4 * (-(-width // 4) | 1)


def lay_out(plan: Any, rows: int, own: Own = NOTHING) -> tuple[np.ndarray, int, int]:
    """The lines of `block` for a plan of `hotloop.kernels.network`; the elements of its parameters and of its rows.

    own: its activations by their numbers; with room for the loss's slopes behind the rows of the output, if need be.
    """
    lines = np.zeros((len(plan), block.FIELDS), np.uint32)
    size = room = 0
    numbers = {given.code: held.code for given, held in zip(own.activations, own.numbered, strict=True)}
    for layer, line in enumerate(lines):
        width = int(plan[layer, WIDTH])
        quads, ld = -(-width // 4), _odd_quads(width)
        line[[block.WIDTH, block.QUADS, block.MAGIC, block.LD]] = width, quads, -(-(1 << 31) // quads), ld
        line[block.VALUE], line[block.SLOPE] = room, room + rows * ld
        room += (1 if layer == 0 else 2) * rows * ld
        if layer > 0:
            fan_in = 4 * int(lines[layer - 1, block.QUADS])
            line[block.WEIGHT], line[block.BIAS] = size, size + fan_in * ld
            size += (fan_in + 1) * ld
            code = int(plan[layer, ACTIVATION])
            line[block.HAS_BIAS], line[block.ACTIVATION] = plan[layer, HAS_BIAS], numbers.get(code, code)
            source = plan[layer, WEIGHT], plan[layer, BIAS], plan[layer, PADDED]
            line[[block.SOURCE_WEIGHT, block.SOURCE_BIAS, block.SOURCE_LD]] = source
    return lines, size, room + (rows * int(lines[-1, block.LD]) if own.apart else 0)


def _threads(lines: np.ndarray, rows: int, rows_each: int) -> int:
    """Threads of a block: as many as the widest step has tiles, in whole warps."""
    quads = lines[:, block.QUADS].astype(np.int64)
    forward = quads[1:].max() * (rows // rows_each) * (1 if rows_each == 4 else 4)
    tiles = int(max(forward, (quads[1:] * quads[:-1]).max()))
    return int(min(MOST_THREADS, max(32, -(-tiles // 32) * 32)))


def _place(
    lines: np.ndarray, size: int, room: int, rows: int, copies: int, threads: int | None, variant: tuple[bool, ...]
) -> _Model:
    """Where a model's parameters and rows lie, and with which others it is launched."""
    rows_each = 4 if rows % 4 == 0 else 1
    threads = threads or _threads(lines, rows, rows_each)
    floats = copies * size, max(room, 2 * threads)
    limit = shared_limit()
    params_shared, work_shared = 4 * sum(floats) <= limit, 4 * floats[1] <= limit
    needed = 4 * (floats[1] * work_shared + floats[0] * params_shared)
    kilobytes = next((size for size in CLASSES if needed <= size << 10), limit >> 10)
    quads = lines[:, block.QUADS].astype(np.int64)
    group = _Group(rows_each, params_shared, work_shared, variant, threads, kilobytes)
    return _Model(group, floats, int((quads[1:] * quads[:-1]).sum()))


def _per_model(values: Any, count: int, name: str, dtype: Any) -> np.ndarray:
    """One value for each model, from one value or one for each."""
    array = np.asarray(values, dtype)
    if array.ndim > 1 or array.size not in (1, count):
        raise ValueError(f"{name} must be one number or one for each of {count} models, not of shape {array.shape}")
    return np.broadcast_to(array.ravel(), (count,)).copy() if array.size == 1 else array.ravel()


def _check(n: int, X: Any, y: Any, epochs: int, batch_size: int, rule: int) -> None:
    if len(getattr(X, "shape", ())) != 2 or X.shape[0] == 0:
        raise ValueError(f"X must have the shape (n_samples, n_features), not {getattr(X, 'shape', type(X))}")
    if y.shape[0] != X.shape[0]:
        raise ValueError(f"X has {X.shape[0]} samples, but y has {y.shape[0]}")
    if n == 0:
        raise ValueError("plans is empty: there is no model to train")
    if epochs < 0 or batch_size < 1:
        raise ValueError(f"epochs must be 0 or more and batch_size 1 or more, not {epochs} and {batch_size}")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES} (codes of hotloop.kernels.updates), not {rule}")
    if X.shape[0] >= 1 << 31:
        raise ValueError(f"X has {X.shape[0]} samples; on the GPU it may have less than 2^31")


def _check_own(own: Own, codes: np.ndarray) -> None:
    given = [each.code for each in own.activations]
    if len(set(given)) < len(given) or min(given, default=LEAST_CODE) < LEAST_CODE:
        raise ValueError(f"own.activations must have codes of {LEAST_CODE} or more, each another, not {given}")
    if own.loss is not None and (codes[0] < LEAST_CODE or (codes != codes[0]).any()):
        raise ValueError(
            f"own.loss is the loss of all models of a call: loss must be one code of {LEAST_CODE} or more, not "
            f"{sorted({int(code) for code in codes})}; train models with other losses in a call of their own"
        )


def _check_model(plan: Any, loss: int, features: int, outputs: int | None, own: Own, name: str) -> None:
    if int(plan[0, WIDTH]) != features:
        raise ValueError(f"{name} takes {int(plan[0, WIDTH])} features, but X has {features}")
    known = {*activations.CODES.values(), *(each.code for each in own.activations)}
    for code in plan[1:, ACTIVATION]:
        if code not in known:
            raise ValueError(f"{name} has an activation (code {code}) of neither the library's nor own.activations")
    if (plan[1:-1, ACTIVATION] == activations.SOFTMAX).any():
        raise ValueError(f"{name} has a hidden layer of softmax, which only an output can have")
    if own.loss is None:
        classes = loss in losses.CLASS_CODES.values()
        if not classes and loss not in {*losses.CODES.values(), losses.POISSON_RATE}:
            raise ValueError(f"{name} has the loss code {loss}, which is none of the library's, and own.loss is None")
    else:
        classes = own.loss.classes
    if classes != (outputs is None):
        wanted = "integer classes (n,)" if classes else "targets (n, n_outputs)"
        raise ValueError(f"y must hold {wanted} for the loss of {name} (code {loss})")
    if outputs is not None and outputs != int(plan[-1, WIDTH]):
        raise ValueError(f"{name} has {int(plan[-1, WIDTH])} outputs, but y has {outputs} columns")


def _rates(lr: Any, count: int, epochs: int, n: int, batch_size: int, weight_decay: float) -> np.ndarray:
    """(n_models, epochs, 4): lr, what scales the deltas of a batch, and of the last one, and 1 - lr weight_decay."""
    lr = np.asarray(lr, np.float64)
    if lr.ndim < 2:
        lr = _per_model(lr, count, "lr", np.float64)[:, None]
    if lr.shape not in ((count, 1), (count, epochs)):
        raise ValueError(f"lr must be one, one for each of {count} models, or ({count}, {epochs}), not {lr.shape}")
    lr = np.broadcast_to(lr, (count, epochs))
    last = n % batch_size or batch_size
    return np.stack([lr, -lr / batch_size, -lr / last, 1.0 - lr * weight_decay], axis=2).astype(np.float32)


def _corrections(rule: int, beta1: float, beta2: float, eps: float, done: int, steps: int) -> np.ndarray:
    """(steps, 2): for each step the factor of lr, and ROOT; (1, 2) where they stay."""
    steps = max(1, steps) if rule in (rules.ADAM, rules.AVERAGED) else 1
    each = (constants(rule, 1.0, beta1, beta2, eps, 0.0, done + step) for step in range(1, steps + 1))
    return np.array([(numbers[LR], numbers[ROOT]) for numbers in each], np.float32)


def _flat(array: Any, size: int, name: str, stream: Any) -> Any:
    """The parameters, or what a rule remembers of them, as one flat array on the device; zeros where there is none."""
    if size == 0 or array is None:
        return cuda.to_device(np.zeros(size, np.float32), stream)
    array = as_device(array, np.float32, name, stream)
    if array.size != size:
        raise ValueError(f"{name} must have {size} elements, as the plans say, not {array.size}")
    return array.reshape(size)


def _tables(
    plans: Sequence[np.ndarray],
    codes: np.ndarray,
    shares: np.ndarray,
    rows: int,
    copies: int,
    threads: int | None,
    variant: tuple[bool, ...],
    own: Own,
) -> tuple[np.ndarray, np.ndarray, list[_Model]]:
    """The table of the models, the lines of their layers (equal plans share them), and where each lies."""
    table, models = np.zeros((len(plans), train.MODEL_FIELDS), np.uint32), []
    known: dict[bytes, tuple[int, int, int, _Model]] = {}
    lines: list[np.ndarray] = []
    for m, plan in enumerate(plans):
        key = plan.tobytes()
        if key not in known:
            some, size, room = lay_out(plan, rows, own)
            model = _place(some, size, room, rows, copies, threads, variant)
            known[key] = sum(map(len, lines)), size, len(plan) - 1, model
            lines.append(some)
        begin, size, layers, model = known[key]
        table[m] = begin, layers, codes[m] if own.loss is None else 0, size, rows, *shares[m]
        models.append(model)
    return table, np.concatenate(lines), models


def _groups(models: Sequence[_Model], stream: Any) -> list[tuple[_Group, Any, Any, Any]]:
    """Each group with its models, the largest first, and room in the GPU's memory for what is not shared."""
    members: dict[_Group, list[int]] = {}
    for m, model in enumerate(models):
        members.setdefault(model.group, []).append(m)
    nothing, groups = cuda.device_array((1, 1), np.float32), []
    for group, chosen in members.items():
        chosen.sort(key=lambda m: -models[m].work)
        room = []
        for part, shared in enumerate((group.params_shared, group.work_shared)):
            size = max(models[m].floats[part] for m in chosen)
            room.append(nothing if shared else cuda.device_array((len(chosen), -(-size // 4) * 4), np.float32))
        groups.append((group, cuda.to_device(np.array(chosen, np.int32), stream), *room))
    return groups


def _shares(dropout: Any, input_dropout: Any, count: int) -> np.ndarray:
    """(n_models, 2): the shares, of HALVES, of hidden units and of inputs dropped."""
    given = {"dropout": dropout, "input_dropout": input_dropout}
    shares = [_per_model(share, count, name, np.float64) for name, share in given.items()]
    for name, share in zip(given, shares, strict=True):
        if not ((share >= 0.0) & (share < 1.0)).all():
            raise ValueError(f"{name} must be at least 0 and less than 1, not {share.min()} to {share.max()}")
    return np.round(np.stack(shares, axis=1) * HALVES).astype(np.int64)


def _bounds(count: int, **given: Any) -> np.ndarray:
    """(n_models, len(given)): a number of each kind for each model."""
    columns = [_per_model(values, count, name, np.float64) for name, values in given.items()]
    for name, column in zip(given, columns, strict=True):
        if not (column >= 0.0).all() or not np.isfinite(column).all():
            raise ValueError(f"{name} must be finite and at least 0, not {column.min()} to {column.max()}")
    return np.stack(columns, axis=1)


def _orders(seeds: np.ndarray, epoch: int, epochs: int, n: int, shuffle: bool, stream: Any) -> Any:
    """The order of the samples, for each seed and epoch."""
    if not shuffle:
        return cuda.to_device(np.arange(n, dtype=np.int32).reshape(1, 1, n), stream)
    if (seeds == seeds[0]).all():
        seeds = seeds[:1]
    orders = cuda.device_array((len(seeds), epochs, n), np.int32, stream=stream)
    random.permutations(cuda.to_device(seeds, stream), epoch, orders, stream)
    return orders


def train_models(
    plans: Any,
    params: Any,
    X: Any,
    y: Any,
    *,
    loss: Any,
    lr: Any,
    seed: Any = 0,
    epochs: int,
    batch_size: int,
    rule: int = rules.SGD,
    beta1: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    weight_decay: float = 0.0,
    dropout: Any = 0.0,
    input_dropout: Any = 0.0,
    input_noise: Any = 0.0,
    l1: Any = 0.0,
    l2: Any = 0.0,
    clip_value: Any = 0.0,
    clip_norm: Any = 0.0,
    max_norm: Any = 0.0,
    first: Any = None,
    second: Any = None,
    epoch: int = 0,
    shuffle: bool = True,
    own: Own = NOTHING,
    threads: int | None = None,
    stream: Any = 0,
) -> Trained:
    """Train many small models on the same samples, each by one block of threads, all at once.

    Every model may have its own shape, activations, loss, learning rate and seed; batch size, epochs and the rule are
    the same for all. The order of the samples, the steps and the order of every sum are those of one model on the CPU.
    Weights, what the rule remembers and the rows of a batch lie in shared memory while a launch lasts, or in the GPU's
    where they do not fit.

    plans: a plan of `hotloop.kernels.network` for each model. params: float32, (n_models, n_params), or flat, one model
    after the other; on the device they are trained in place, from the host they are copied.
    X (n, n_features) float32; y (n, n_outputs) float32, or (n,) integer classes, which are not checked on the device.
    loss: a code of `losses`, for all or for each; seed too. lr: one, one for each model, or (n_models, epochs).
    rule: a code of `updates`; beta1, beta2, eps and weight_decay are what its formulas call so.
    dropout, input_dropout: the shares of the hidden units and of the inputs dropped in a step; one, or one for each
    model; those that stay are scaled by 1 / (1 - share).
    input_noise, l1, l2, clip_value, clip_norm, max_norm: as `Trainer` has them, 0 for none; one, or one for each model.
    A penalty or a bound in one sends the steps of all by way of a gradient; its norm is summed in an order of its own.
    epoch, first, second: go on after so many epochs with what a call before gave back.
    own: activations of the user's own, each with the code that stands for it in a plan, LEAST_CODE of
    `hotloop.kernels.custom` or more, for every model that has it; and a loss of the user's own, which all models have
    then: their codes are LEAST_CODE or more. The kernel is compiled anew for each set of them.
    threads: of a block, a multiple of 32. stream: numba-cuda's, PyTorch's, CuPy's, or a handle; nothing waits for it.
    Raises ValueError for arguments that do not fit together, RuntimeError where there is no GPU.
    """
    plans = [np.asarray(plan) for plan in plans]
    count = len(plans)
    y = y if is_on_device(y) else np.asarray(y)
    X = X if is_on_device(X) else np.asarray(X)
    _check(count, X, y, epochs, batch_size, rule)
    classes = len(y.shape) == 1 and dtype_of(y).kind in "iu"
    if not classes and len(y.shape) != 2:
        had = f"{dtype_of(y)} of shape {tuple(y.shape)}"
        raise ValueError(f"y must be targets (n, n_outputs) or integer classes (n,), not {had}")
    if threads is not None and (threads < 32 or threads % 32 != 0 or threads > MOST_THREADS):
        raise ValueError(f"threads must be a multiple of 32 up to {MOST_THREADS}, not {threads}")
    n, codes = X.shape[0], _per_model(loss, count, "loss", np.int64)
    _check_own(own, codes)
    for m in range(count):
        _check_model(plans[m], int(codes[m]), X.shape[1], None if classes else y.shape[1], own, f"model {m}")
    if classes and not is_on_device(y) and not 0 <= y.min() <= y.max() < min(int(plan[-1, WIDTH]) for plan in plans):
        raise ValueError(f"y holds the classes {y.min()} .. {y.max()}, and a model does not have so many outputs")
    starts = np.cumsum([0, *(int(plan[-1, BIAS] + plan[-1, PADDED]) for plan in plans)])
    rates = _rates(lr, count, epochs, n, batch_size, weight_decay)
    seeds = _per_model(seed, count, "seed", np.int64)
    shares, noise = _shares(dropout, input_dropout, count), _bounds(count, input_noise=input_noise)[:, 0]
    bounds = _bounds(count, l1=l1, l2=l2, clip_value=clip_value, clip_norm=clip_norm, max_norm=max_norm)
    require_device()
    stream = as_stream(stream)

    shape = tuple(params.shape)
    params, first, second = (
        _flat(array, int(starts[-1]) if needed else 0, name, stream)
        for array, needed, name in (
            (params, True, "params"),
            (first, rules.BUFFERS[rule] > 0, "first"),
            (second, rules.BUFFERS[rule] > 1, "second"),
        )
    )
    direct = int(rule == rules.SGD and batch_size <= BATCH_ROWS and weight_decay == 0.0 and not bounds.any())
    rows = min(batch_size, n, BATCH_ROWS)
    rows = -(-rows // 4) * 4 if rows >= FEW_ROWS else rows
    copies = 2 - direct + rules.BUFFERS[rule]
    variant = bool(shares.any()), bool(bounds.any()), bool(noise.any())
    table, lines, models = _tables(plans, codes, shares, rows, copies, threads, variant, own)
    losses_seen = cuda.device_array((count, epochs), np.float32, stream=stream)
    labels = as_device(y, np.int32, "y", stream) if classes else cuda.device_array(0, np.int32)
    targets = cuda.device_array((1, 1), np.float32) if classes else as_device(y, np.float32, "y", stream)
    data = train.Data(as_device(X, np.float32, "X", stream), targets, labels, None)
    who = train.Models(
        cuda.to_device(lines, stream),
        cuda.to_device(table, stream),
        cuda.to_device(seeds, stream),
        cuda.to_device(bounds.astype(np.float32), stream),
        cuda.to_device(noise, stream),
        None,
        cuda.to_device(starts[:-1].astype(np.int64), stream),
        params,
        first,
        second,
    )
    numbers = tuple(np.float32(value) for value in (beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps))
    course = train.Course(cuda.to_device(rates, stream), None, numbers, rule, batch_size, direct, 0, 0, epoch)
    groups = _groups(models, stream)
    at_once = max(1, ORDER_BYTES // (4 * n * (count if seeds.size > 1 else 1))) if shuffle else epochs
    for begin in range(0, epochs, at_once):
        end = min(epochs, begin + at_once)
        data = data._replace(orders=_orders(seeds, epoch + begin, end - begin, n, shuffle, stream))
        steps = -(-n // batch_size)
        corrections = _corrections(rule, beta1, beta2, eps, (epoch + begin) * steps, (end - begin) * steps)
        piece = course._replace(corrections=cuda.to_device(corrections, stream), begin=begin, end=end)
        for group, chosen, room_p, room_w in groups:
            kernel = train.make_train(group.rows_each, group.params_shared, group.work_shared, *group.variant, own)
            start = launch(kernel, chosen.shape[0], group.threads, stream, group.kilobytes << 10)
            start(who._replace(chosen=chosen), data, piece, room_p, room_w, losses_seen)
    return Trained(params.reshape(shape), losses_seen, first, second)
