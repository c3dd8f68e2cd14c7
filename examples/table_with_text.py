"""A table with numbers, text and gaps, labels of text: split, encode, train, save, load, predict."""

import tempfile
from pathlib import Path

import numpy as np

from hotloop import MLP, SGD, TableEncoder, Trainer
from hotloop.data import partition

rng = np.random.default_rng(0)
n = 600
size, colour = rng.normal(3.0, 1.0, n), rng.choice(["green", "yellow", "red"], n)
ripe = np.where((colour == "red") | ((colour == "yellow") & (size > 3.0)), "ripe", "not yet")
size[rng.random(n) < 0.05] = np.nan  # a scale that fails now and then

rows = np.column_stack([size.astype(object), colour])
(train, y_train), (held, y_held), (test, y_test) = partition(rows, ripe, fractions=(0.6, 0.2, 0.2), stratify=ripe)

encoder = TableEncoder(missing="mean").fit(train)  # size, size missing, and one column for each colour
model = MLP([encoder.width, 16, 1], output="sigmoid")
model.prepare = encoder
trainer = Trainer(optimizer=SGD(lr=0.1), batch_size=8, epochs=40)
trainer.fit(model, train, y_train, validation_data=(held, y_held))
print(model)
print(f"test accuracy {trainer.evaluate(model, test, y_test)['accuracy']:.3f}")

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "fruit.safetensors")
    again = MLP.load(Path(folder) / "fruit.safetensors")
print(f"a red one: {again.predict_one([2.5, 'red'])}, a small yellow one: {again.predict_one([1.5, 'yellow'])}")
