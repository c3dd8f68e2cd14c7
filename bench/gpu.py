"""Races on a GPU, one command: python bench/gpu.py. Needs an NVIDIA GPU; peers: pip install torch "jax[cuda13]".

One model 784-128-10 at batch 32, 128 and 4096 against PyTorch eager, PyTorch with a CUDA graph of each step, and JAX's
jitted scan over an epoch; and the tiled product against cuBLAS, in float32 (TF32 off; also against the card's FP32
peak) and in TF32. Before a race all contestants take the same steps from the same weights in the same order, and their
losses have to agree to 1e-4. The median of ROUNDS rounds, in turn, after a warm-up. Results go to
bench/results/gpu.json.
"""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hotloop import MLP, SGD, Trainer
from hotloop.kernels import activations

SIZES, LR, EPOCHS, ROUNDS = [784, 128, 10], 0.05, 3, 7
ROWS = 16384
BATCHES = (32, 128, 4096)
PRODUCTS = (512, 1024, 2048, 4096)
RESULTS = Path(__file__).parent / "results" / "gpu.json"

Contestant = Callable[[], float]  # trains EPOCHS epochs from the first weights; the mean loss of the last


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((ROWS, SIZES[0]), np.float32) - 0.5, rng.integers(0, SIZES[-1], ROWS)


def hotloop(X: Any, y: Any, batch: int) -> Contestant:
    def train() -> float:
        model = MLP(SIZES, output="softmax", seed=1)
        trainer = Trainer(
            optimizer=SGD(lr=LR), batch_size=batch, epochs=EPOCHS, shuffle=False, device="cuda", progress=False
        )
        return float(trainer.fit(model, X, y)["loss"][-1])

    return train


def torch_model() -> Any:
    import torch

    model = MLP(SIZES, output="softmax", seed=1)
    layers: list[Any] = []
    for weight, bias in zip(model.weights, model.biases, strict=True):
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data[:], layer.bias.data[:] = torch.as_tensor(weight.T.copy()), torch.as_tensor(bias.copy())
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).cuda()


def pytorch_eager(X: Any, y: Any, batch: int) -> Contestant:
    import torch

    x, t = torch.as_tensor(X).cuda(), torch.as_tensor(y).cuda()

    def train() -> float:
        net = torch_model()
        step = torch.optim.SGD(net.parameters(), lr=LR, fused=True)
        for _ in range(EPOCHS):
            total = torch.zeros((), device="cuda")
            for i in range(0, ROWS, batch):
                step.zero_grad(set_to_none=True)
                loss = torch.nn.functional.cross_entropy(net(x[i : i + batch]), t[i : i + batch])
                loss.backward()
                step.step()
                total += loss.detach() * batch
        return float(total) / ROWS

    return train


def pytorch_graph(X: Any, y: Any, batch: int) -> Contestant:
    import torch

    x, t = torch.as_tensor(X).cuda(), torch.as_tensor(y).cuda()
    net = torch_model()
    first = [p.detach().clone() for p in net.parameters()]
    step = torch.optim.SGD(net.parameters(), lr=LR, fused=True)
    some_x, some_t, total = x[:batch].clone(), t[:batch].clone(), torch.zeros((), device="cuda")

    def one() -> None:
        step.zero_grad(set_to_none=False)
        loss = torch.nn.functional.cross_entropy(net(some_x), some_t)
        loss.backward()
        step.step()
        total.add_(loss.detach() * batch)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            one()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one()

    def train() -> float:
        with torch.no_grad():
            for p, value in zip(net.parameters(), first, strict=True):
                p.copy_(value)
        for _ in range(EPOCHS):
            total.zero_()
            for i in range(0, ROWS, batch):
                some_x.copy_(x[i : i + batch])
                some_t.copy_(t[i : i + batch])
                graph.replay()
        return float(total) / ROWS

    return train


def jax_scan(X: Any, y: Any, batch: int) -> Contestant:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")
    x, t = jnp.asarray(X).reshape(-1, batch, SIZES[0]), jnp.asarray(y).reshape(-1, batch)
    model = MLP(SIZES, output="softmax", seed=1)
    first = [(jnp.asarray(w), jnp.asarray(b)) for w, b in zip(model.weights, model.biases, strict=True)]

    def cost(layers: Any, rows: Any, labels: Any) -> Any:
        for weight, bias in layers[:-1]:
            rows = jax.nn.relu(rows @ weight + bias)
        logits = rows @ layers[-1][0] + layers[-1][1]
        return -jax.nn.log_softmax(logits)[jnp.arange(batch), labels].mean()

    @jax.jit
    def epoch(layers: Any) -> Any:
        def one(layers: Any, some: Any) -> Any:
            loss, gradient = jax.value_and_grad(cost)(layers, *some)
            return jax.tree.map(lambda p, g: p - LR * g, layers, gradient), loss

        layers, losses = jax.lax.scan(one, layers, (x, t))
        return layers, losses.mean()

    def train() -> float:
        layers = first
        for _ in range(EPOCHS):
            layers, loss = epoch(layers)
        return float(loss)

    return train


def sees_gpu(peer: str) -> bool:
    """Whether this peer, torch or jax, is installed and sees the GPU."""
    if not find_spec(peer):
        return False
    if peer == "torch":
        import torch

        return bool(torch.cuda.is_available())
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


def contestants() -> dict[str, Callable[[Any, Any, int], Contestant]]:
    """Those that are installed and see the GPU."""
    found = {"Hotloop": hotloop}
    if sees_gpu("torch"):
        found |= {"PyTorch eager": pytorch_eager, "PyTorch CUDA graph": pytorch_graph}
    if sees_gpu("jax"):
        found["JAX scan"] = jax_scan
    return found


def race(batch: int) -> dict[str, float]:
    """Microseconds of a step, by contestant."""
    X, y = data()
    runs = {name: make(X, y, batch) for name, make in contestants().items()}
    losses = {name: run() for name, run in runs.items()}  # the warm-up
    reference = losses["Hotloop"]
    for name, loss in losses.items():
        assert abs(loss - reference) <= 1e-4 * abs(reference), f"{name}: loss {loss}, Hotloop {reference}"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    steps = EPOCHS * -(-ROWS // batch)
    return {name: 1e6 * median(times) / steps for name, times in seconds.items()}


def milliseconds(work: Callable[[], None]) -> float:
    """The median time of a kernel on the device, by events."""
    from hotloop.kernels.cuda.shim import cuda

    work()
    times = []
    for _ in range(ROUNDS):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        for _ in range(10):
            work()
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(begin, end) / 10)
    return median(times)


def fp32_peak() -> float:
    """TFLOP/s of multiply-adds outside the tensor cores: lanes of a multiprocessor, multiprocessors, clock."""
    from hotloop.kernels.cuda.shim import cuda

    device = cuda.get_current_device()
    lanes = 64 if tuple(device.compute_capability) in ((7, 5), (8, 0)) else 128
    return 2e-9 * lanes * device.MULTIPROCESSOR_COUNT * device.CLOCK_RATE  # the clock in kHz


def has_tf32() -> bool:
    """Whether the card's tensor cores take TF32."""
    from hotloop.kernels.cuda import shim

    return shim.SIMULATOR or tuple(shim.cuda.get_current_device().compute_capability) >= shim.OLDEST_TF32


def product(n: int) -> dict[str, float]:
    """TFLOP/s of the tiled product of two n x n matrices with bias, and of cuBLAS without, in float32 and in TF32."""
    from hotloop.kernels.cuda import dense
    from hotloop.kernels.cuda.shim import cuda

    rng = np.random.default_rng(0)
    x, weight = (cuda.to_device(rng.standard_normal((n, n), np.float32)) for _ in range(2))
    bias, out = cuda.to_device(np.zeros(n, np.float32)), cuda.device_array((n, n), np.float32)
    work, flops = 2e-9 * n**3, {}
    for tf32 in (False, True) if has_tf32() else (False,):
        suffix = " TF32" if tf32 else ""

        def tiled(tf32: bool = tf32) -> None:
            dense.forward(x, weight, bias, activations.IDENTITY, out, tf32=tf32)

        flops["Hotloop" + suffix] = work / milliseconds(tiled)
        if sees_gpu("torch"):
            import torch

            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = torch.as_tensor(x, device="cuda"), torch.as_tensor(weight, device="cuda")
            c = torch.empty_like(a)
            with torch.cuda.stream(torch.cuda.default_stream()):
                flops["cuBLAS" + suffix] = work / milliseconds(lambda: torch.mm(a, b, out=c))  # noqa: B023 - run here
            error = float((torch.as_tensor(out, device="cuda") - c).abs().max())
            assert error < (1e-3 if tf32 else 1e-5) * n, f"{suffix or 'float32'}: they differ by {error}"
            torch.backends.cuda.matmul.allow_tf32 = False
    return flops


def share(rates: dict[str, float], suffix: str) -> str:
    """How much of cuBLAS's rate that is, if it ran."""
    peer = rates.get("cuBLAS" + suffix)
    return f", {rates['Hotloop' + suffix] / peer:.0%} of cuBLAS" if peer else ""


def main() -> None:
    """Run everything, print it, keep it."""
    from hotloop import cuda as engine
    from hotloop.kernels.cuda.shim import cuda

    engine.require()
    name = cuda.get_current_device().name
    results: dict[str, Any] = {"card": name.decode() if isinstance(name, bytes) else name, "fp32_peak": fp32_peak()}
    print(results["card"], f"FP32 peak {results['fp32_peak']:.1f} TFLOP/s")
    for batch in BATCHES:
        results[f"784-128-10, batch {batch}"] = steps = race(batch)
        print(f"784-128-10, batch {batch}:", ", ".join(f"{who} {us:.1f} us a step" for who, us in steps.items()))
    for n in PRODUCTS:
        results[f"product {n}"] = rates = product(n)
        peak = rates["Hotloop"] / results["fp32_peak"]
        print(f"product {n}: {rates['Hotloop']:.1f} TFLOP/s, {peak:.0%} of the FP32 peak{share(rates, '')}")
        if "Hotloop TF32" in rates:
            print(f"product {n} in TF32: {rates['Hotloop TF32']:.1f} TFLOP/s{share(rates, ' TF32')}")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
