"""A GPU kernel of one's own from Hotloop's formulas: every thread trains one classifier, each with its own rate.

Without a GPU: NUMBA_ENABLE_CUDASIM=1 python examples/cuda_own_kernel.py
"""

import numpy as np
from numba import cuda

from hotloop.kernels.cuda import losses, shim


@cuda.jit
def train(X, y, rates, weight, delta, loss):
    """weight (models, features + 1, classes), the bias last; delta (models, classes) is room to work in."""
    m = cuda.grid(1)
    if m < rates.shape[0]:
        features, classes = X.shape[1], weight.shape[2]
        for _ in range(3):
            loss[m] = np.float32(0)
            for i in range(X.shape[0]):
                for j in range(classes):
                    delta[m, j] = weight[m, features, j]
                    for k in range(features):
                        delta[m, j] += X[i, k] * weight[m, k, j]
                # delta holds the logits, and then dloss/dlogits.
                loss[m] += losses.cross_entropy_class(delta[m], y[i], classes, delta[m])
                for j in range(classes):
                    step = rates[m] * delta[m, j]
                    weight[m, features, j] -= step
                    for k in range(features):
                        weight[m, k, j] -= X[i, k] * step


try:
    shim.require_device()
except RuntimeError as error:
    raise SystemExit(f"skipped: {error}") from None
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 60).astype(np.int32)
X = (np.eye(3)[y] + 0.3 * rng.normal(size=(60, 3))).astype(np.float32)
rates = cuda.to_device(np.geomspace(1e-4, 1, 8).astype(np.float32))
weight, loss = cuda.to_device(np.zeros((8, 4, 3), np.float32)), cuda.to_device(np.zeros(8, np.float32))
work = cuda.device_array((8, 3), np.float32)
shim.launch(train, 1, 32)(cuda.to_device(X), cuda.to_device(y), rates, weight, work, loss)  # or train[1, 32](...)
for rate, total in zip(rates.copy_to_host(), loss.copy_to_host(), strict=True):
    print(f"lr {rate:.4f}: loss {total / len(X):.4f}")
