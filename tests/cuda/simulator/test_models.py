"""Many models trained at once on the simulated GPU end with the bits of models trained one by one on the CPU."""

import numpy as np
import pytest
from test_custom import CUBIC, SOFT, margin, pinball, pinball_slope, relative

from hotloop import MLP, SGD, Activation, Loss, Trainer, engine, trainer
from hotloop import cuda as gpu
from hotloop.kernels import updates
from hotloop.kernels.cuda import custom, models
from hotloop.kernels.cuda.models import train_models
from hotloop.kernels.plan import ACTIVATION
from hotloop.objectives import bind
from hotloop.optimizers import Adadelta, Adagrad, Adam, AdamW, AveragedSGD, Lion, RMSprop

N = 11
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, N).astype(np.int32)
TARGETS = RNG.normal(size=(N, 2)).astype(np.float32)


def described(model, y, loss=None):
    """The plan, loss code and parameters that train_models wants of an MLP."""
    objective = bind(loss, model, y, N)
    plan = model._network.plan.copy()
    plan[-1, ACTIVATION] = objective.activation
    return plan, objective.code, model.params


def run(members, y, *, lr, seeds, epochs, batch_size, loss=None, X=X, **options):
    """Train the models together; return what came out, their plans' parameters one after the other."""
    plans, codes, params = zip(*(described(model, y, loss) for model in members), strict=True)
    flat = np.concatenate(params)
    own = gpu.own_functions(np.concatenate([plan[1:, ACTIVATION] for plan in plans]), codes[0])
    options = {"threads": 32, "own": own, **options}
    return train_models(
        plans, flat, X, y, loss=codes, lr=lr, seed=seeds, epochs=epochs, batch_size=batch_size, **options
    )


def check(
    members,
    y,
    *,
    lr,
    seeds,
    epochs,
    batch_size,
    optimizers=None,
    loss=None,
    bits=True,
    thin=None,
    regular=None,
    **options,
):
    trained = run(members, y, lr=lr, seeds=seeds, epochs=epochs, batch_size=batch_size, loss=loss, **options)
    mean = options.get("rule") == updates.AVERAGED  # the CPU's model ends as the mean
    params, losses = (trained.first if mean else trained.params).copy_to_host(), trained.losses.copy_to_host()
    begin = 0
    for m, model in enumerate(members):
        optimizer = optimizers[m] if optimizers else SGD(lr=lr[m])
        settings = {"batch_size": batch_size, "epochs": epochs, "seed": seeds[m], "threads": 1}
        if thin is not None:
            settings["dropout"] = [thin[1], *[thin[0]] * (len(model.weights) - 1)]
        if regular is not None:
            settings |= {name: values[m] for name, values in regular.items() if values[m]}
        trainer = Trainer(loss, optimizer, **settings)
        history = trainer.fit(model, options.get("X", X), y)
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
def test_models_of_several_shapes_have_the_bits_of_the_cpu(monkeypatch, batch_size):
    def batches(network, rows, objective, size, threads, per_sample, *rest, **named):
        """The CPU's per-sample training rounds in its own way: here it takes batches of one."""
        return engine.Engine(network, rows, objective, size, threads, False, *rest, **named)

    monkeypatch.setattr(trainer, "Engine", batches)
    members, epochs = (several(), 2) if batch_size >= models.FEW_ROWS else (several()[::3], 1)
    rates, seeds = [0.1, 0.05, 0.2, 0.1], [2**40, 1, 2, 0]
    count = len(members)
    check(members, LABELS, lr=rates[:count], seeds=seeds[:count], epochs=epochs, batch_size=batch_size)


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "leaky_relu", "elu", "gelu", "silu", "softplus", "identity"])
def test_activations(hidden):
    check(several(hidden)[1:2], LABELS, lr=[0.1], seeds=[4], epochs=1, batch_size=4)


@pytest.mark.parametrize(("loss", "output", "y"), [("mse", "softmax", TARGETS), ("mse", "identity", TARGETS)])
def test_losses_of_rows(loss, output, y):
    check(several("tanh", output, 2), y, lr=[0.1, 0.1, 0.1, 0.1], seeds=[1, 1, 1, 1], epochs=1, batch_size=4, loss=loss)


@pytest.mark.parametrize(
    ("loss", "output"), [("hinge", "identity"), ("perceptron", "step"), ("squared_hinge", "identity")]
)
def test_losses_of_classes(loss, output):
    check(several("relu", output)[2:], LABELS, lr=[0.1, 0.1], seeds=[1, 2], epochs=1, batch_size=4, loss=loss)


RULES = {
    "momentum": (SGD(lr=0.1, momentum=0.9), updates.MOMENTUM, {"beta1": 0.9}),
    "nesterov": (SGD(lr=0.1, momentum=0.9, nesterov=True), updates.NESTEROV, {"beta1": 0.9}),
    "adam": (Adam(lr=0.1), updates.ADAM, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
    "adamw": (AdamW(lr=0.1), updates.ADAM, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}),
    "rmsprop": (RMSprop(lr=0.1), updates.RMSPROP, {"beta2": 0.99, "eps": 1e-8}),
    "adagrad": (Adagrad(lr=0.1), updates.ADAGRAD, {"eps": 1e-10}),
    "adadelta": (Adadelta(lr=0.1), updates.ADADELTA, {"beta2": 0.9, "eps": 1e-6}),
    "lion": (Lion(lr=0.1), updates.LION, {"beta1": 0.9, "beta2": 0.99}),
    "averaged": (AveragedSGD(lr=0.1), updates.AVERAGED, {}),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    optimizer, rule, constants = RULES[name]
    exact = not name.startswith("ada") or name == "adagrad"  # Adam's corrected rate is rounded once more
    options = {"optimizers": [optimizer] * 2, "bits": exact, "rule": rule, **constants}
    check(several()[:2], LABELS, lr=[0.1, 0.1], seeds=[1, 2], epochs=2, batch_size=4, **options)


@pytest.mark.parametrize(("batch_size", "thin"), [(4, (0.5, 0.25)), (2, (0.4, 0.0))])
def test_dropout(batch_size, thin):
    rates, seeds = [0.1, 0.05, 0.1], [2**40, 1, 3]
    options = {"batch_size": batch_size, "thin": thin, "dropout": thin[0], "input_dropout": [thin[1]] * 3}
    check(several("tanh")[1:], LABELS, lr=rates, seeds=seeds, epochs=2, **options)


@pytest.mark.parametrize(
    "regular",
    [
        {"l1": [0.01, 0.0, 0.02], "l2": [0.0, 0.1, 0.2]},
        {"clip_value": [0.05, 0.02, 0.01], "input_noise": [0.0, 0.3, 0.1]},
        {"input_noise": [0.2, 0.0, 0.1]},
        {"clip_norm": [0.3, 0.0, 0.1], "max_norm": [0.0, 0.8, 0.5]},
    ],
    ids=lambda regular: "-".join(regular),
)
def test_penalties_bounds_and_noise(regular):
    rates, seeds = [0.1, 0.05, 0.1], [2**40, 1, 3]
    exact = "clip_norm" not in regular
    check(
        several("tanh")[1:],
        LABELS,
        lr=rates,
        seeds=seeds,
        epochs=1,
        batch_size=4,
        bits=exact,
        regular=regular,
        **regular,
    )


def test_bounds_of_a_rule_with_a_memory():
    momentum = {"optimizers": [SGD(lr=0.1, momentum=0.9)], "rule": updates.MOMENTUM, "beta1": 0.9}
    regular = {"l2": [0.1], "clip_value": [0.05], "clip_norm": [0.1], "max_norm": [0.7]}
    options = {"epochs": 1, "batch_size": 2, "bits": False, "regular": regular, **regular, **momentum}
    check(several()[3:], LABELS, lr=[0.1], seeds=[1], **options)


def test_biases_beyond_the_threads_of_a_block():
    check([MLP([2, 67, 3], output="softmax", seed=1)], LABELS, lr=[0.1], seeds=[1], epochs=1, batch_size=4, X=X[:, :2])


@pytest.mark.parametrize("kilobytes", [0, 3])
def test_what_does_not_fit_into_shared_memory(kilobytes, monkeypatch):
    monkeypatch.setattr(models, "shared_limit", lambda: kilobytes << 10)
    check(several()[1:2], LABELS, lr=[0.1], seeds=[1], epochs=2, batch_size=4)
    momentum = {"optimizers": [SGD(lr=0.1, momentum=0.9)], "rule": updates.MOMENTUM, "beta1": 0.9}
    check(several()[3:], LABELS, lr=[0.1], seeds=[1], epochs=1, batch_size=2, **momentum)


def test_a_batch_in_parts(monkeypatch):
    monkeypatch.setattr(models, "BATCH_ROWS", 4)
    momentum = {"optimizers": [SGD(lr=0.1, momentum=0.9)], "rule": updates.MOMENTUM, "beta1": 0.9}
    check(several()[:1], LABELS, lr=[0.1], seeds=[1], epochs=2, batch_size=9, **momentum)


@pytest.mark.parametrize("rule", [updates.MOMENTUM, updates.ADAM])
def test_pieces_and_going_on_give_the_same_bits(rule, monkeypatch):
    options = {
        "lr": [0.1, 0.05],
        "seeds": [3, 4],
        "batch_size": 4,
        "rule": rule,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
    }
    whole = run(several()[:2], LABELS, epochs=3, **options)
    monkeypatch.setattr(models, "ORDER_BYTES", 1)  # one epoch a launch
    pieces = run(several()[:2], LABELS, epochs=3, **options)
    assert np.array_equal(whole.params.copy_to_host(), pieces.params.copy_to_host())
    assert np.array_equal(whole.losses.copy_to_host(), pieces.losses.copy_to_host())
    begun = run(several()[:2], LABELS, epochs=1, **options)
    plans, codes, _ = zip(*(described(model, LABELS) for model in several()[:2]), strict=True)
    options["seed"] = options.pop("seeds")
    state = {"first": begun.first, "second": begun.second, "epoch": 1, "threads": 32}
    ended = train_models(plans, begun.params, X, LABELS, loss=codes, epochs=2, **options, **state)
    assert ended.params.copy_to_host().tobytes() == begun.params.copy_to_host().tobytes()  # trained in place
    assert np.array_equal(whole.params.copy_to_host(), ended.params.copy_to_host())


def test_rates_of_epochs_and_no_shuffling():
    plan, code, params = described(several()[0], LABELS)
    both = np.stack([params, params])
    options = {"loss": code, "batch_size": 4, "threads": 32, "shuffle": False}
    trained = train_models([plan, plan], both, X, LABELS, lr=[[0.1, 0.0], [0.1, 0.2]], epochs=2, **options)
    result = trained.params.copy_to_host()
    assert result.shape == both.shape and trained.losses.shape == (2, 2)
    first = train_models([plan], params, X, LABELS, lr=0.1, epochs=1, **options).params.copy_to_host()
    assert np.array_equal(result[0], first) and not np.array_equal(result[1], first)
    again = train_models([plan], first, X, LABELS, lr=0.2, epochs=1, **options).params.copy_to_host()
    assert np.array_equal(result[1], again)


def test_many_threads_and_few_give_the_same_bits():
    model = several()[1:2]
    few = run(model, LABELS, lr=[0.1], seeds=[1], epochs=1, batch_size=8, threads=32)
    many = run(model, LABELS, lr=[0.1], seeds=[1], epochs=1, batch_size=8, threads=64)
    assert np.array_equal(few.params.copy_to_host(), many.params.copy_to_host())


WRONG = [
    ({"X": X[:, :4]}, "model 0 takes 5 features, but X has 4"),
    ({"y": LABELS[:5]}, "X has 11 samples, but y has 5"),
    ({"y": LABELS + 1}, "classes 1 .. 3"),
    ({"y": TARGETS}, "integer classes"),
    ({"y": np.zeros(N)}, "targets .n, n_outputs. or integer classes"),
    ({"plans": []}, "no model to train"),
    ({"params": np.zeros(7, np.float32)}, "params must have .* elements"),
    ({"loss": 99}, "loss code 99"),
    ({"loss": [1, 2, 3]}, "loss must be one number or one for each of 2 models"),
    ({"lr": [[0.1, 0.1, 0.1]]}, "lr must be one"),
    ({"batch_size": 0}, "batch_size 1 or more"),
    ({"threads": 33}, "multiple of 32"),
    ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
    ({"input_dropout": [0.1, 0.2, 0.3]}, "input_dropout must be one number or one for each of 2 models"),
    ({"l2": [0.1, -0.1]}, r"l2 must be finite and at least 0, not -0\.1 to 0\.1"),
    ({"rule": updates.GRADIENT_ONLY}, "rule must be one of"),
    ({"X": X[0]}, "X must have the shape"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_errors(wrong, message):
    plan, code, params = described(several()[0], LABELS)
    arguments = {"plans": [plan] * 2, "params": np.stack([params] * 2), "X": X, "y": LABELS}
    options = {"loss": code, "lr": 0.1, "epochs": 1, "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        train_models(**{**arguments, **options, **wrong})


OWN = {
    "value and slope": (["tanh", CUBIC, SOFT], "identity", Loss(pinball, pinball_slope)),
    "an output": ([SOFT, "relu", CUBIC], SOFT, None),
    "a row": (["tanh", SOFT, "relu"], "tanh", Loss(row=relative)),
    "a row of probabilities": (["relu", "tanh", CUBIC], "softmax", Loss(row=relative)),
    "classes": (["relu", SOFT, "tanh"], "identity", Loss(row=margin, classes=True)),
}


@pytest.mark.parametrize("batch_size", [2, 7])
@pytest.mark.parametrize("name", OWN)
def test_functions_of_the_users_own(name, batch_size):
    hidden, output, loss = OWN[name]
    sizes, y = [[5, 4, 2], [5, 33, 2], [5, 7, 18, 2]], LABELS % 2 if name == "classes" else TARGETS
    members = [MLP(size, f, output, seed=i) for i, (size, f) in enumerate(zip(sizes, hidden, strict=True))]
    options = {"lr": [0.1, 0.05, 0.1], "seeds": [1, 2, 3], "epochs": 1, "batch_size": batch_size}
    check(members, y, loss=loss, bits=False, **options)


def test_what_is_infinite_at_zero_stays_out_of_the_padding():
    root = Activation(lambda z: abs(z) ** 0.5, lambda z: np.sign(z) * 0.5 / abs(z) ** 0.5)
    inverse = Activation(lambda z: 1.0 / z, lambda z: -1.0 / (z * z))
    members = [MLP([5, 6, 7, 3], f, "softmax", seed=1) for f in (root, inverse)]
    check(members, LABELS, lr=[1e-3, 1e-3], seeds=[1, 2], epochs=2, batch_size=5, bits=False)


RELU = custom.Activation(1, abs, abs)


@pytest.mark.parametrize(
    ("plan_code", "codes", "own", "message"),
    [
        (12345, [0, 0], custom.NOTHING, r"model 0 has an activation \(code 12345\) of neither the library's nor own"),
        (12345, [0, 0], custom.Own((RELU,)), r"own.activations must have codes of 4096 or more, each another, not \[1"),
        (0, [0, 9999], custom.NOTHING, "model 1 has the loss code 9999, which is none of the library's"),
        (0, [0, 9999], custom.Own(loss=custom.Loss(row=margin)), r"one code of 4096 or more, not \[0, 9999\]"),
        (
            0,
            [5000, 9999],
            custom.Own(loss=custom.Loss(row=margin)),
            "train models with other losses in a call of their",
        ),
        (0, [5000, 5000], custom.Own(loss=custom.Loss(row=margin, classes=True)), "y must hold integer classes"),
    ],
)
def test_errors_of_functions_of_the_users_own(plan_code, codes, own, message):
    plan, _, params = described(MLP([5, 4, 2], "identity"), TARGETS)
    plan[1, ACTIVATION] = plan_code
    with pytest.raises(ValueError, match=message):
        train_models([plan, plan], np.tile(params, 2), X, TARGETS, loss=codes, lr=0.1, epochs=1, batch_size=4, own=own)
