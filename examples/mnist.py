"""MNIST with per-sample SGD: 97 % in about a second. Set HOTLOOP_DATA to the folder that holds the data."""

import os
import sys

from hotloop import MLP, SGD, ExponentialDecay, Trainer
from hotloop.data import load

if "HOTLOOP_DATA" not in os.environ:
    print("skipped: set HOTLOOP_DATA to a folder with the four MNIST files (or a folder mnist that holds them)")
    sys.exit()

data = load("mnist")
model = MLP([784, 128, 10], activation="relu", output="softmax")
trainer = Trainer(optimizer=SGD(lr=0.02), schedule=ExponentialDecay(rate=0.7), batch_size=1, epochs=3)
history = trainer.fit(model, data.X_train, data.y_train)

for epoch, (loss, seconds) in enumerate(zip(history["loss"], history["seconds"], strict=True), 1):
    print(f"epoch {epoch}: loss {loss:.4f}, {seconds:.2f} s, {len(data.X_train) / seconds:,.0f} samples a second")
print(f"test accuracy {trainer.evaluate(model, data.X_test, data.y_test)['accuracy']:.4f}")
