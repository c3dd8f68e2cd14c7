"""Handwritten digits, 8 x 8 pixels: train, test, save, load. The data comes with the package."""

import tempfile
from pathlib import Path

from hotloop import MLP, SGD, EarlyStopping, Trainer
from hotloop.data import load

data = load("digits")
model = MLP([64, 64, 10], activation="relu", output="softmax")
trainer = Trainer(
    optimizer=SGD(lr=0.02), batch_size=1, epochs=50, validation_split=0.1, early_stopping=EarlyStopping(patience=5)
)
history = trainer.fit(model, data.X_train, data.y_train)
scores = trainer.evaluate(model, data.X_test, data.y_test)
print(f"{model}\n{history.stopped} after {history.epochs} epochs, {sum(history['seconds']):.2f} s")
print(f"test loss {scores['loss']:.4f}, test accuracy {scores['accuracy']:.4f}")

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "digits.safetensors")
    again = MLP.load(Path(folder) / "digits.safetensors")
row, probabilities = data.X_test[0], again.predict_proba(data.X_test[:1])[0]
print(f"first test image: a {again.predict_one(row)} (P = {probabilities.max():.3f}), labelled {data.y_test[0]}")
