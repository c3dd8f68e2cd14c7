"""Many models trained at once on the simulated GPU end with the bits of models trained one by one on the CPU."""

import numpy as np
import pytest

from hotloop import MLP, SGD, Trainer
from hotloop.engine import replan
from hotloop.kernels.cuda.models import train_models
from hotloop.objectives import bind

N = 11
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, N).astype(np.int32)
TARGETS = RNG.normal(size=(N, 2)).astype(np.float32)


def described(model, y, loss=None):
    """The plan, loss code and parameters that train_models wants of an MLP."""
    objective = bind(loss, model, y, N)
    return replan(model._network.plan, objective.activation, 1)[0], objective.code, model.params


def run(members, y, *, lr, seeds, epochs, batch_size, loss=None, **options):
    """Train the models together; return what came out, their plans' parameters one after the other."""
    plans, codes, params = zip(*(described(model, y, loss) for model in members), strict=True)
    flat = np.concatenate(params)
    options = {"threads": 32, **options}
    return train_models(
        plans, flat, X, y, loss=codes, lr=lr, seed=seeds, epochs=epochs, batch_size=batch_size, **options
    )


def check(members, y, *, lr, seeds, epochs, batch_size, optimizers=None, loss=None, bits=True, **options):
    trained = run(members, y, lr=lr, seeds=seeds, epochs=epochs, batch_size=batch_size, loss=loss, **options)
    params, losses = trained.params.copy_to_host(), trained.losses.copy_to_host()
    begin = 0
    for m, model in enumerate(members):
        optimizer = optimizers[m] if optimizers else SGD(lr=lr[m])
        trainer = Trainer(loss, optimizer, batch_size=batch_size, epochs=epochs, seed=seeds[m], threads=1)
        history = trainer.fit(model, X, y)
        end = begin + model.params.size
        if bits:
            assert np.array_equal(params[begin:end], model.params), m
        np.testing.assert_allclose(params[begin:end], model.params, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(losses[m], history["loss"], rtol=1e-6)
        begin = end
    assert begin == params.size
    return trained


def several(hidden="relu", output="softmax", outputs=3):
    sizes = [[5, 4, outputs], [5, 33, outputs], [5, outputs], [5, 7, 18, outputs]]
    return [MLP(size, hidden, output, seed=i, bias=i != 1) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 11, 40])
def test_models_of_several_shapes_have_the_bits_of_the_cpu(batch_size):
    check(several(), LABELS, lr=[0.1, 0.05, 0.2, 0.1], seeds=[0, 1, 2, 2**40], epochs=2, batch_size=batch_size)


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "leaky_relu", "elu", "gelu", "silu", "softplus", "identity"])
def test_activations(hidden):
    check(several(hidden)[1:2], LABELS, lr=[0.1], seeds=[4], epochs=1, batch_size=4)
