"""Parameter updates over flat buffers, in place. grad is dloss/dparams; all (n,) of one dtype; lr, momentum scalars.

Definitions are PyTorch's: the velocity is a sum of gradients, the learning rate is applied when the parameters move.
"""

from hotloop.kernels.jit import jit
from hotloop.kernels.simd import cast, fma


@jit
def sgd(params, grad, lr):
    """params -= lr grad."""
    for i in range(params.shape[0]):
        params[i] = fma(cast(-lr, params[i]), grad[i], params[i])


@jit
def momentum(params, grad, velocity, lr, momentum):
    """velocity = momentum velocity + grad; params -= lr velocity (Polyak 1964)."""
    for i in range(params.shape[0]):
        velocity[i] = fma(cast(momentum, grad[i]), velocity[i], grad[i])
        params[i] = fma(cast(-lr, grad[i]), velocity[i], params[i])


@jit
def nesterov(params, grad, velocity, lr, momentum):
    """velocity = momentum velocity + grad; params -= lr (grad + momentum velocity) (Sutskever et al. 2013, eq. 3-4)."""
    for i in range(params.shape[0]):
        velocity[i] = fma(cast(momentum, grad[i]), velocity[i], grad[i])
        ahead = fma(cast(momentum, grad[i]), velocity[i], grad[i])
        params[i] = fma(cast(-lr, grad[i]), ahead, params[i])
