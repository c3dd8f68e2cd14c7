"""4,096 models 64-32-10 at once on a GPU, one command: python bench/gpu_models.py. Needs an NVIDIA GPU.

Peers: pip install torch "jax[cuda13]". Every model has its own weights, learning rate and order of the samples, and the
contestants take the same steps: Hotloop's train_models; Hotloop on all cores of the processor (fewer models, the same
rate a model); PyTorch, eager and vmap over models, a step in a CUDA graph; JAX, a jitted scan over vmap. The losses of
the last epoch have to agree to 1e-4 before anything is timed. The median of ROUNDS rounds, in turn, after a warm-up, in
model-steps (one step of one model) per second. Results go to bench/results/gpu-models.json.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from hotloop import MLP, SGD, Trainer
from hotloop.data import load
from hotloop.kernels import losses, random
from hotloop.kernels.activations import IDENTITY
from hotloop.layout import make_plan
from hotloop.machine import available_threads

SIZES, BATCH, EPOCHS, ROUNDS, MODELS = [64, 32, 10], 32, 5, 5, 4096
RESULTS = Path(__file__).parent / "results" / "gpu-models.json"

Contestant = Callable[[], Any]  # trains every model for EPOCHS epochs from its first weights; the last mean losses


class Case(NamedTuple):
    """What is trained."""

    X: Any  # (n, 64) float32, n a multiple of the batch: PyTorch's graph and JAX's scan have steps of one size
    y: Any  # (n,) int32
    rates: Any  # (n_models,)
    models: list[MLP]


def make_case(count: int) -> Case:
    """Digits, and models with seeds 0, 1, ... and learning rates between 0.01 and 0.1."""
    X, y = load("digits")[:2]
    n = len(X) // BATCH * BATCH
    models = [MLP(SIZES, output="softmax", seed=seed) for seed in range(count)]
    rates = np.geomspace(0.01, 0.1, count).astype(np.float32).astype(np.float64)
    return Case(np.asarray(X[:n], np.float32), np.asarray(y[:n], np.int32), rates, models)


def orders(case: Case) -> Any:
    """(EPOCHS, n_models, n): the samples' order, by epoch and the model's number as seed."""
    out = np.empty((EPOCHS, len(case.models), len(case.X)), np.int64)
    for e, m in np.ndindex(out.shape[:2]):
        random.permutation(m, e, out[e, m])
    return out


def stacked(case: Case) -> list[Any]:
    """Weights and biases of all models: [(n_models, fan_in, fan_out), (n_models, fan_out), ...]."""
    parts = zip(*([*model.weights, *model.biases] for model in case.models), strict=True)
    arrays = [np.stack(part) for part in parts]
    layers = len(SIZES) - 1
    return [array for pair in zip(arrays[:layers], arrays[layers:], strict=True) for array in pair]


def hotloop_gpu(case: Case) -> Contestant:
    from hotloop.kernels.cuda import train_models
    from hotloop.kernels.cuda.shim import cuda

    plan, _ = make_plan(SIZES, [case.models[0]._network.plan[1, 6], IDENTITY], True, 1)
    first = cuda.to_device(np.stack([model.params for model in case.models]))
    X, y, params = cuda.to_device(case.X), cuda.to_device(case.y), cuda.device_array_like(first)
    options = {"loss": losses.CROSS_ENTROPY_CLASS, "lr": case.rates, "seed": np.arange(len(case.models))}

    def train() -> Any:
        params.copy_to_device(first)
        plans = [plan] * len(case.models)
        return train_models(plans, params, X, y, epochs=EPOCHS, batch_size=BATCH, **options).losses.copy_to_host()[
            :, -1
        ]

    return train


def hotloop_cpu(case: Case) -> Contestant:
    def one(m: int) -> float:
        model = MLP(SIZES, output="softmax", init="zeros")
        model.params[:] = case.models[m].params
        options = {"batch_size": BATCH, "epochs": EPOCHS, "seed": m, "threads": 1, "progress": False}
        return float(Trainer(optimizer=SGD(lr=case.rates[m]), **options).fit(model, case.X, case.y)["loss"][-1])

    def train() -> Any:
        with ThreadPoolExecutor(available_threads()) as pool:
            return np.array(list(pool.map(one, range(len(case.models)))))

    return train


def pytorch_vmap(case: Case, device: str = "cuda") -> Contestant:
    import torch

    def put(array: Any) -> Any:
        return torch.as_tensor(array, device=device)

    X, y, every, first = put(case.X), put(case.y.astype(np.int64)), put(orders(case)), [put(a) for a in stacked(case)]
    rates = put(case.rates.astype(np.float32))
    params = [array.clone() for array in first]
    picked, total = every[0, :, :BATCH].clone(), torch.zeros(len(case.models), device=device)

    def cost(layers: list[Any], rows: Any, labels: Any) -> Any:
        hidden = torch.relu(rows @ layers[0] + layers[1])
        return torch.nn.functional.cross_entropy(hidden @ layers[2] + layers[3], labels)

    gradients = torch.func.vmap(torch.func.grad_and_value(cost))

    def one() -> None:
        gradient, loss = gradients(params, X[picked], y[picked])
        for p, g in zip(params, gradient, strict=True):
            p.sub_(rates.reshape(-1, *[1] * (p.dim() - 1)) * g)
        total.add_(loss)

    step = one
    if device == "cuda":
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                one()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            one()
        step = graph.replay

    def train() -> Any:
        for p, value in zip(params, first, strict=True):
            p.copy_(value)
        for e in range(EPOCHS):
            total.zero_()
            for i in range(0, len(case.X), BATCH):
                picked.copy_(every[e, :, i : i + BATCH])
                step()
        return (total * BATCH / len(case.X)).cpu().numpy()

    return train


def jax_vmap(case: Case) -> Contestant:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")
    steps = len(case.X) // BATCH
    X, y, first = jnp.asarray(case.X), jnp.asarray(case.y), [jnp.asarray(array) for array in stacked(case)]
    every = jnp.asarray(orders(case).astype(np.int32)).reshape(EPOCHS, len(case.models), steps, BATCH)
    rates = jnp.asarray(case.rates.astype(np.float32))

    def cost(layers: Any, rows: Any, labels: Any) -> Any:
        hidden = jax.nn.relu(rows @ layers[0] + layers[1])
        return -jax.nn.log_softmax(hidden @ layers[2] + layers[3])[jnp.arange(BATCH), labels].mean()

    def one_model(layers: Any, rate: Any, picked: Any) -> Any:
        loss, gradient = jax.value_and_grad(cost)(layers, X[picked], y[picked])
        return [p - rate * g for p, g in zip(layers, gradient, strict=True)], loss

    @jax.jit
    def epoch(layers: Any, order: Any) -> Any:
        def step(layers: Any, picked: Any) -> Any:
            return jax.vmap(one_model)(layers, rates, picked)

        layers, seen = jax.lax.scan(step, layers, jnp.swapaxes(order, 0, 1))
        return layers, seen.mean(axis=0)

    def train() -> Any:
        layers = first
        for e in range(EPOCHS):
            layers, seen = epoch(layers, every[e])
        return np.asarray(seen)

    return train


def contestants() -> dict[str, Callable[[Case], Contestant]]:
    """Those that are installed and see the GPU."""
    found: dict[str, Callable[[Case], Contestant]] = {"Hotloop": hotloop_gpu, "Hotloop, processor": hotloop_cpu}
    if find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            found["PyTorch vmap, CUDA graph"] = pytorch_vmap
    if find_spec("jax"):
        import jax

        if any(device.platform == "gpu" for device in jax.devices()):
            found["JAX vmap, scan"] = jax_vmap
    return found


def race(count: int, makers: dict[str, Callable[[Case], Contestant]]) -> dict[str, float]:
    """Model-steps per second, by contestant; the processor trains 16 models a core."""
    case = make_case(count)
    few = min(count, 16 * available_threads())
    part = case._replace(rates=case.rates[:few], models=case.models[:few])
    cases = {name: part if "processor" in name else case for name in makers}
    runs = {name: make(cases[name]) for name, make in makers.items()}
    seen = {name: run() for name, run in runs.items()}  # the warm-up
    for name, values in seen.items():
        np.testing.assert_allclose(values, seen["Hotloop"][: len(values)], rtol=1e-4, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    steps = EPOCHS * -(-len(case.X) // BATCH)
    return {name: steps * len(cases[name].models) / median(times) for name, times in seconds.items()}


def main() -> None:
    """Run everything, print it, keep it."""
    from hotloop.kernels.cuda.shim import cuda, require_device

    require_device()
    name = cuda.get_current_device().name
    card = name.decode() if isinstance(name, bytes) else name
    rates = race(MODELS, contestants())
    print(
        f"{card}: {MODELS} models {'-'.join(map(str, SIZES))}, batch {BATCH}, on {available_threads()} processor cores"
    )
    for who, rate in rates.items():
        print(f"  {who:<28} {rate / 1e6:10.3f} million model-steps/s, 1/{rates['Hotloop'] / rate:.1f} of Hotloop")
    RESULTS.write_text(json.dumps({"card": card, "model_steps_per_second": rates}, indent=2) + "\n")


if __name__ == "__main__":
    main()
