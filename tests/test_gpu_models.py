"""On a real GPU: many models at once train like one by one on the processor, and take arrays and streams of others."""

import gpu
import numpy as np
import pytest

from hotloop import MLP, SGD, Trainer
from hotloop.kernels import updates
from hotloop.kernels.plan import ACTIVATION
from hotloop.objectives import bind
from hotloop.optimizers import Adam, Optimizer

REASON = gpu.unusable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(REASON), reason=REASON)]

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(801, 64)).astype(np.float32), RNG.integers(0, 10, 801).astype(np.int32)
ADAM = {"rule": updates.ADAM, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def members(seeds: range) -> list[MLP]:
    shapes = [[64, 32, 10], [64, 10], [64, 50, 20, 10], [64, 400, 300, 10]]  # the last does not fit into shared memory
    return [MLP(shapes[seed % 4], ["relu", "tanh"][seed % 2], output="softmax", seed=seed) for seed in seeds]


def plans_and_params(models):
    objectives = [bind(None, model, LABELS, len(X)) for model in models]
    plans = [model._network.plan.copy() for model in models]
    for plan, objective in zip(plans, objectives, strict=True):
        plan[-1, ACTIVATION] = objective.activation
    return plans, np.concatenate([model.params for model in models]), objectives[0].code


@pytest.mark.parametrize(
    ("batch_size", "optimizer", "rule"),
    [
        (1, SGD(lr=0.01), {}),
        (8, SGD(lr=0.05), {}),
        (32, SGD(lr=0.05), {}),
        (600, SGD(lr=0.1), {}),
        (8, Adam(lr=0.01), ADAM),
    ],
    ids=str,
)
def test_a_hundred_steps_like_the_processors(batch_size: int, optimizer: Optimizer, rule: dict[str, float]) -> None:
    from hotloop.kernels.cuda import train_models

    models, seeds = members(range(12)), np.arange(12)
    epochs = max(1, round(100 / -(-len(X) // batch_size)))
    plans, params, code = plans_and_params(models)
    options = {"loss": code, "lr": optimizer.lr, "seed": seeds, "epochs": epochs, "batch_size": batch_size, **rule}
    losses = train_models(plans, params, X, LABELS, **options).losses.copy_to_host()
    for m, model in enumerate(models):
        trainer = Trainer(optimizer=optimizer, batch_size=batch_size, epochs=epochs, seed=m, progress=False)
        np.testing.assert_allclose(losses[m], trainer.fit(model, X, LABELS)["loss"], rtol=1e-5, err_msg=str(m))


def test_regularised_like_the_processors() -> None:
    from hotloop.kernels.cuda import train_models

    models, options = members(range(4)), {"batch_size": 32, "epochs": 2}
    regular = {"l1": 1e-4, "l2": 1e-3, "clip_value": 0.1, "clip_norm": 0.5, "max_norm": 1.0, "input_noise": 0.1}
    plans, params, code = plans_and_params(models)
    trained = train_models(plans, params, X, LABELS, loss=code, lr=0.05, seed=np.arange(4), **options, **regular)
    losses = trained.losses.copy_to_host()
    for m, model in enumerate(models):
        trainer = Trainer(optimizer=SGD(lr=0.05), seed=m, progress=False, **options, **regular)
        np.testing.assert_allclose(losses[m], trainer.fit(model, X, LABELS)["loss"], rtol=1e-4, err_msg=str(m))


def test_the_order_of_the_samples_is_the_processors() -> None:
    from hotloop.kernels import random as cpu
    from hotloop.kernels.cuda import random
    from hotloop.kernels.cuda.shim import cuda

    out, expected = cuda.device_array((50, 3, 1797), np.int32), np.empty(1797, np.int64)
    random.permutations(cuda.to_device(np.arange(50)), 2, out)
    for m, e in np.ndindex(50, 3):
        cpu.permutation(m, 2 + e, expected)
        assert np.array_equal(out[m, e].copy_to_host(), expected)


def test_arrays_and_streams_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from hotloop.kernels.cuda import train_models

    plans, params, code = plans_and_params(members(range(4)))
    options = {"loss": code, "lr": 0.05, "seed": np.arange(4), "epochs": 2, "batch_size": 32}
    expected = train_models(plans, params, X, LABELS, **options).params.copy_to_host()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        own, rows, labels = (torch.as_tensor(array, device="cuda") for array in (params, X, LABELS))
        train_models(plans, own, rows, labels, stream=stream, **options)
    stream.synchronize()
    assert np.array_equal(own.cpu().numpy(), expected)  # trained in place
    with pytest.raises(ValueError, match="X is float64 on the device"):
        train_models(plans, own, rows.double(), labels, **options)
