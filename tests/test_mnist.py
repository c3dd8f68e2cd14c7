"""Known results on the real MNIST; skipped visibly where HOTLOOP_DATA does not name it."""

import os

import pytest

from hotloop import MLP, SGD, ExponentialDecay, Trainer
from hotloop.data import load

pytestmark = pytest.mark.skipif("HOTLOOP_DATA" not in os.environ, reason="HOTLOOP_DATA names no folder with MNIST")


def test_128_hidden_units_reach_97_5_percent_in_5_epochs() -> None:
    """The mean of three seeds: one of them is within 0.1 % of it on either side, by a rounding."""
    data = load("mnist")
    reached = []
    for seed in range(3):
        model = MLP([784, 128, 10], activation="relu", output="softmax", seed=seed)
        trainer = Trainer(loss="cross_entropy", optimizer=SGD(lr=0.01), batch_size=1, epochs=5, seed=seed)
        trainer.fit(model, data.X_train, data.y_train)
        reached.append(trainer.evaluate(model, data.X_test, data.y_test)["accuracy"])
    assert sum(reached) / 3 >= 0.975


@pytest.mark.slow
def test_800_hidden_units_reach_the_error_of_simard_and_others() -> None:
    """Simard, Steinkraus and Platt (2003): 1.6 % for this network with cross-entropy and no distortions."""
    data = load("mnist")
    model = MLP([784, 800, 10], activation="relu", output="softmax")
    trainer = Trainer(optimizer=SGD(lr=0.01), schedule=ExponentialDecay(0.9), batch_size=1, epochs=15)
    trainer.fit(model, data.X_train, data.y_train)
    assert 1 - trainer.evaluate(model, data.X_test, data.y_test)["accuracy"] <= 0.016
