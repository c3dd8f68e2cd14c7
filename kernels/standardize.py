"""Columns shifted and scaled, in float64, rounded once to the dtype of the network."""

from hotloop.kernels.jit import jit


@jit
def standardize(X, shift, inverse, out):
    """out = (X - shift) inverse: X (n, k) and out (n, k) float32 or float64, shift and inverse (k,) float64."""
    for r in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[r, j] = (X[r, j] - shift[j]) * inverse[j]


@jit
def standardize_row(x, shift, inverse, out):
    """The same for one row x (k,)."""
    for j in range(x.shape[0]):
        out[j] = (x[j] - shift[j]) * inverse[j]
