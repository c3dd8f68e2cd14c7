"""Draw training and validation loss epoch by epoch: python learning_curve.py [curve.png]"""

import sys
from importlib.util import find_spec

from hotloop import MLP, SGD, CosineDecay, Trainer
from hotloop.data import load

if find_spec("matplotlib") is None:
    print("skipped: pictures need matplotlib: pip install 'hotloop[plot]'")
    sys.exit()

path = sys.argv[1] if len(sys.argv) > 1 else "learning_curve.png"
data = load("digits")
model = MLP([64, 32, 10], activation="tanh", output="softmax")
trainer = Trainer(optimizer=SGD(lr=0.2), schedule=CosineDecay(), batch_size=32, epochs=60)
history = trainer.fit(model, data.X_train, data.y_train, validation_data=(data.X_test, data.y_test))
history.plot(path)
print(f"{path}: validation loss {history['val_loss'][0]:.3f} -> {history['val_loss'][-1]:.3f}")
