"""The perceptron learns AND, OR and NOT, each a straight line between two classes; no line separates XOR."""

import numpy as np

from hotloop import MLP, SGD, Trainer

BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
GATES = {
    "AND": (BITS, [0, 0, 0, 1]),
    "OR": (BITS, [0, 1, 1, 1]),
    "NOT": (np.array([[0], [1]]), [1, 0]),
    "XOR": (BITS, [0, 1, 1, 0]),
}

for gate, (X, y) in GATES.items():
    model = MLP([X.shape[1], 1], output="step")
    Trainer("perceptron", SGD(lr=0.5), batch_size=1, epochs=50, progress=False).fit(model, X, y)
    learned = model.predict(X).tolist() == y
    line = " + ".join(f"{w:.2f} x{i}" for i, w in enumerate(model.weights[0][:, 0], 1))
    print(f"{gate:3}  {'learned' if learned else 'not learned'}: 1 where {line} + {model.biases[0][0]:.2f} > 0")
