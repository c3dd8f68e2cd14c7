"""Losses on the GPU: the row functions of `hotloop.kernels.losses`, for kernels to call, and a kernel over a batch.

`mse(prediction, target, k, delta)`, ... are one thread's work on one row: they write delta and return the value.
`row` chooses by a code. `rows` launches over a batch on the device, on a stream, with one thread for each row.
"""

from hotloop.kernels import losses as cpu
from hotloop.kernels.cuda.shim import cuda, device, kernel, launch, shared

THREADS = 64

mse, mae, huber, hinge = shared(cpu.mse), shared(cpu.mae), shared(cpu.huber), shared(cpu.hinge)
squared_hinge, logistic, perceptron = shared(cpu.squared_hinge), shared(cpu.logistic), shared(cpu.perceptron)
cross_entropy, poisson, poisson_rate = shared(cpu.cross_entropy), shared(cpu.poisson), shared(cpu.poisson_rate)
cross_entropy_class, hinge_class = shared(cpu.cross_entropy_class), shared(cpu.hinge_class)
squared_hinge_class, perceptron_class = shared(cpu.squared_hinge_class), shared(cpu.perceptron_class)


@device
def row(code, prediction, target, label, k, delta):
    """Value and delta of one row by loss code; target is read by the losses of rows, label by those of classes."""
    if code == cpu.CROSS_ENTROPY_CLASS:
        return cross_entropy_class(prediction, label, k, delta)
    if code == cpu.MSE:
        return mse(prediction, target, k, delta)
    if code == cpu.LOGISTIC:
        return logistic(prediction, target, k, delta)
    if code == cpu.CROSS_ENTROPY:
        return cross_entropy(prediction, target, k, delta)
    if code == cpu.MAE:
        return mae(prediction, target, k, delta)
    if code == cpu.HUBER:
        return huber(prediction, target, k, delta)
    if code == cpu.HINGE:
        return hinge(prediction, target, k, delta)
    if code == cpu.SQUARED_HINGE:
        return squared_hinge(prediction, target, k, delta)
    if code == cpu.POISSON:
        return poisson(prediction, target, k, delta)
    if code == cpu.POISSON_RATE:
        return poisson_rate(prediction, target, k, delta)
    if code == cpu.PERCEPTRON:
        return perceptron(prediction, target, k, delta)
    if code == cpu.HINGE_CLASS:
        return hinge_class(prediction, label, k, delta)
    if code == cpu.SQUARED_HINGE_CLASS:
        return squared_hinge_class(prediction, label, k, delta)
    return perceptron_class(prediction, label, k, delta)


@kernel
def rows_kernel(code, prediction, targets, labels, delta, value):
    """value[r], delta[r] = the loss of row r, one thread for each row."""
    r = cuda.grid(1)
    if r < prediction.shape[0]:
        label = labels[r] if labels.shape[0] > 0 else 0
        target = targets[r if targets.shape[0] > 1 else 0]
        value[r] = row(code, prediction[r], target, label, prediction.shape[1], delta[r])


def rows(code, prediction, targets, labels, delta, value, stream=0):
    """value[r] and delta[r] = dvalue[r] / dprediction[r] of every row, by loss code; arrays on the device.

    prediction, delta (n, k), delta may be prediction; value (n,); targets (n, k), or (1, k) for a loss of classes;
    labels (n,) int32, or (0,) for a loss of rows.
    """
    if prediction.shape[0] > 0:
        blocks = -(-prediction.shape[0] // THREADS)
        launch(rows_kernel, blocks, THREADS, stream)(code, prediction, targets, labels, delta, value)
