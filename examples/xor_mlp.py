"""A hidden layer of four units learns XOR, which one perceptron cannot."""

import numpy as np

from hotloop import MLP, SGD, Trainer

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
y = np.array([0, 1, 1, 0])

model = MLP([2, 4, 1], activation="tanh", output="sigmoid", seed=1)
history = Trainer("logistic", SGD(lr=0.5), batch_size=1, epochs=500, progress=False).fit(model, X, y)

print(f"loss {history['loss'][0]:.3f} -> {history['loss'][-1]:.4f}")
for x, truth, probability in zip(X, y, model.forward(X)[:, 0], strict=True):
    print(f"{x[0]} xor {x[1]} = {truth}   P(1) = {probability:.3f}")
