"""A linear unit by gradient descent, worked by hand: where it diverges, and at which learning rate it does not.

Two samples, x = (1, 2, 3) with y = 6 and x = (4, 5, 6) with y = 15, no bias; both are met by w = (1, 1, 1).
With the mean squared error, L = 1/2 sum (y - x . w)^2, the gradient is -sum (y - x . w) x. From w = 0 it is
-(6 (1, 2, 3) + 15 (4, 5, 6)) = -(66, 87, 108). A step multiplies the error by 1 - lr h in each direction of X'X,
and the largest of its eigenvalues h is 90.4: rates above 2 / 90.4 = 0.022 overshoot further with every step.
"""

import warnings

import numpy as np

from hotloop import MLP, SGD, DivergenceWarning, Trainer

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
y = np.array([6.0, 15.0])

model = MLP([3, 1], bias=False, init="zeros")
_, (gradient,), _ = Trainer("mse").gradients(model, X, y)
print(f"gradient at w = 0: {gradient[:, 0]}")

for lr in (0.1, 0.01):
    model = MLP([3, 1], bias=False, init="zeros")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DivergenceWarning)
        trainer = Trainer("mse", SGD(lr=lr), batch_size=None, epochs=2000, progress=False)
        history = trainer.fit(model, X, y)
    print(f"\nlr={lr}: {history.stopped} after {history.epochs} epochs, loss {history['loss'][-1]:.3g}")
    for warning in caught:
        print(warning.message)
    if history.stopped == "finished":
        print(f"w = {model.weights[0][:, 0].round(4)}, predictions {model.predict(X).round(4)}")
