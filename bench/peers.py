"""The contestants of a race: Hotloop, PyTorch (eager and compiled), JAX and scikit-learn, all doing plain SGD.

Each is written as its own users would write a fast loop for data that fits in memory: no data loader, no device copies,
no Python work that could be done outside the loop. `train` is what is timed.
"""

import multiprocessing
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from cases import SEED, Array, Case, Layers, targets

from hotloop import MLP, SGD, Trainer, warmup
from hotloop.machine import available_threads


class Contestant:
    """One library on one case. `load` and `reset` prepare and are not timed; `train` runs the loaded epochs."""

    name: ClassVar[str]
    library: ClassVar[str]  # the module it needs

    def __init__(self, case: Case, threads: int) -> None:
        self.case, self.threads = case, threads

    @classmethod
    def missing(cls, case: Case) -> str:
        """Why it cannot take part; empty if it can."""
        return "" if find_spec(cls.library) else f"{cls.library} is not installed"

    @classmethod
    def thread_counts(cls, case: Case) -> list[int]:
        """The numbers of threads to run with: one and all cores."""
        return sorted({1, available_threads()})

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        """Bring data (float32, classes) and the order of the samples in each epoch into the library's own form."""
        raise NotImplementedError

    def reset(self, layers: Layers) -> None:
        """Begin with these weights and biases."""
        raise NotImplementedError

    def train(self) -> list[float]:
        """Run the epochs; the mean loss of each, every sample's taken before its step (NaN where it is not told)."""
        raise NotImplementedError

    def layers(self) -> Layers:
        """The weights (fan_in, fan_out) and biases now."""
        raise NotImplementedError


class Hotloop(Contestant):
    """The public interface, Trainer.fit. It draws the orders itself, the same ones, so it only runs whole epochs."""

    name, library = "Hotloop", "hotloop"

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        warmup()  # what the peers compile is not counted either
        self.X, self.y, self.epochs = X, targets(self.case, y), len(orders)

    def reset(self, layers: Layers) -> None:
        output = "softmax" if self.case.loss == "cross_entropy" else "identity"
        self.model = MLP(self.case.sizes, output=output, init="zeros")
        for (weight, bias), w, b in zip(layers, self.model.weights, self.model.biases, strict=True):
            w[:], b[:] = weight, bias

    def train(self) -> list[float]:
        case = self.case
        trainer = Trainer(
            case.loss, SGD(case.lr), batch_size=case.batch_size, epochs=self.epochs, seed=SEED, threads=self.threads,
            progress=False,
        )  # fmt: skip
        return trainer.fit(self.model, self.X, self.y)["loss"]

    def layers(self) -> Layers:
        return list(zip(self.model.weights, self.model.biases, strict=True))


class Torch(Contestant):
    """torch.nn layers, autograd and torch.optim.SGD; each epoch's samples are gathered once, batches are views."""

    name, library = "PyTorch", "torch"

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        import torch

        self.X, self.y = torch.from_numpy(X.copy()), torch.from_numpy(targets(self.case, y).copy())
        self.orders = [torch.from_numpy(order) for order in orders]

    def reset(self, layers: Layers) -> None:
        import torch

        linear = [torch.nn.Linear(*weight.shape) for weight, _ in layers]
        with torch.no_grad():
            for layer, (weight, bias) in zip(linear, layers, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias))
        self.linear = linear
        modules = [module for layer in linear for module in (layer, torch.nn.ReLU())][:-1]
        self.model = torch.nn.Sequential(*modules)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.case.lr)

    def step(self, x: Any, y: Any) -> Any:
        """One step of SGD on a batch; its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = _torch_loss(self.case)(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self) -> list[float]:
        import torch

        torch.set_num_threads(self.threads)
        means = []
        for order in self.orders:
            X, y = self.X[order].split(self.case.batch_size), self.y[order].split(self.case.batch_size)
            losses = [self.step(*batch) for batch in zip(X, y, strict=True)]
            means.append(float(torch.stack(losses).mean()))
        return means

    def layers(self) -> Layers:
        return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.linear]


class TorchCompiled(Torch):
    """torch.compile over the whole step: forward, gradient and update in one graph, without an autograd tape."""

    name = "PyTorch compiled"

    def __init__(self, case: Case, threads: int) -> None:
        super().__init__(case, threads)
        import torch

        torch.compiler.reset()  # one step after another under one name would soon reach the limit of recompilations
        self._compiled: Callable[..., Any] | None = None

    def reset(self, layers: Layers) -> None:
        import torch

        self.parameters = [torch.from_numpy(array.copy()) for layer in layers for array in layer]

    def step(self, x: Any, y: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._compile()
        return self._compiled(self.parameters, x, y)

    def _compile(self) -> Callable[..., Any]:
        import torch

        measure, lr = _torch_loss(self.case), self.case.lr

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            for i in range(0, len(parameters), 2):
                x = torch.addmm(parameters[i + 1], x.relu() if i else x, parameters[i])
            return measure(x, y)

        gradient = torch.func.grad_and_value(loss)

        def step(parameters: Any, x: Any, y: Any) -> Any:
            gradients, value = gradient(parameters, x, y)
            for parameter, slope in zip(parameters, gradients, strict=True):
                parameter.sub_(slope, alpha=lr)
            return value

        torch.set_num_threads(self.threads)
        return torch.compile(step, fullgraph=True, dynamic=False)

    def layers(self) -> Layers:
        arrays = [parameter.numpy() for parameter in self.parameters]
        return list(zip(arrays[::2], arrays[1::2], strict=True))


def _torch_loss(case: Case) -> Callable[..., Any]:
    from torch.nn import functional

    if case.loss == "hinge":
        return lambda z, t: (1 - t * z).clamp(min=0).mean()
    return functional.cross_entropy if case.loss == "cross_entropy" else functional.binary_cross_entropy_with_logits


class Jax(Contestant):
    """One jitted lax.scan over the batches of an epoch.

    XLA's thread pool is of the process: here all cores, in JaxOneCore one.
    """

    name, library = "JAX", "jax"

    def __init__(self, case: Case, threads: int) -> None:
        super().__init__(case, threads)
        self._epoch: Callable[..., Any] | None = None

    @classmethod
    def thread_counts(cls, case: Case) -> list[int]:
        return [available_threads()]  # cannot be changed in the process

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax.numpy as jnp

        y = targets(self.case, y)
        self.X, self.y = jnp.array(X), jnp.array(y.astype(np.int32) if y.ndim == 1 else y)
        self.orders = [order.reshape(-1, self.case.batch_size).astype(np.int32) for order in orders]

    def reset(self, layers: Layers) -> None:
        import jax.numpy as jnp

        self.parameters = [(jnp.array(weight), jnp.array(bias)) for weight, bias in layers]

    def train(self) -> list[float]:
        if self._epoch is None:
            self._epoch = self._compile()
        losses = []
        for order in self.orders:
            self.parameters, loss = self._epoch(self.parameters, self.X, self.y, order)
            losses.append(loss)
        return [float(loss) for loss in losses]  # waits for the computation

    def _compile(self) -> Callable[..., Any]:
        import jax
        import jax.numpy as jnp

        name, lr = self.case.loss, self.case.lr

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            for i, (weight, bias) in enumerate(parameters):
                x = (jax.nn.relu(x) if i else x) @ weight + bias
            if name == "hinge":
                return jnp.maximum(0, 1 - y * x).mean()
            if name == "logistic":
                return (jax.nn.softplus(x) - y * x).mean()
            return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()

        def epoch(parameters: Any, X: Any, y: Any, batches: Any) -> Any:
            def step(parameters: Any, rows: Any) -> Any:
                value, gradient = jax.value_and_grad(loss)(parameters, X[rows], y[rows])
                return jax.tree.map(lambda p, g: p - lr * g, parameters, gradient), value

            parameters, losses = jax.lax.scan(step, parameters, batches)
            return parameters, losses.mean()

        return jax.jit(epoch, donate_argnums=0)

    def layers(self) -> Layers:
        return [(np.asarray(weight), np.asarray(bias)) for weight, bias in self.parameters]


class JaxOneCore(Contestant):
    """JAX in a process of its own that may use one core: with all, its batch-1 loops wait for one another's threads."""

    name, library = "JAX", "jax"

    def __init__(self, case: Case, threads: int) -> None:
        super().__init__(case, threads)
        context = multiprocessing.get_context("spawn")
        self._ask, answers = context.Pipe()
        context.Process(target=_serve, args=(answers, case), daemon=True).start()

    @classmethod
    def missing(cls, case: Case) -> str:
        return super().missing(case) or (
            "" if hasattr(os, "sched_setaffinity") else "no way to keep it on one core here"
        )

    @classmethod
    def thread_counts(cls, case: Case) -> list[int]:
        return [1]

    def _call(self, method: str, *arguments: Any) -> Any:
        self._ask.send((method, arguments))
        answer = self._ask.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        self._call("load", X, y, orders)

    def reset(self, layers: Layers) -> None:
        self._call("reset", layers)

    def train(self) -> list[float]:
        return self._call("train")

    def layers(self) -> Layers:
        return self._call("layers")


def _serve(connection: Any, case: Case) -> None:
    """The other end of JaxOneCore: calls what it is told until the race ends."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX counts the cores
    jax = Jax(case, 1)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:  # the contestant is gone
            return
        try:
            connection.send(getattr(jax, method)(*arguments))
        except Exception as error:
            connection.send(error)


class ScikitMLP(Contestant):
    """MLPClassifier(solver="sgd", momentum=0): one partial_fit for each epoch, on samples gathered in its order."""

    name, library = "scikit-learn MLP", "sklearn"

    @classmethod
    def missing(cls, case: Case) -> str:
        linear = len(case.sizes) == 2 or case.loss != "cross_entropy"
        return super().missing(case) or ("it has no such linear model" if linear else "")

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        self.X, self.y, self.orders = X, y, orders

    def reset(self, layers: Layers) -> None:
        from sklearn.neural_network import MLPClassifier

        case = self.case
        self.model = MLPClassifier(
            case.sizes[1:-1], solver="sgd", momentum=0, nesterovs_momentum=False, alpha=0, batch_size=case.batch_size,
            learning_rate_init=case.lr, shuffle=False,
        )  # fmt: skip
        first = min(len(self.X), case.batch_size)
        self.model.partial_fit(self.X[:first], self.y[:first], classes=np.arange(case.sizes[-1]))
        for i, (weight, bias) in enumerate(layers):
            self.model.coefs_[i][:], self.model.intercepts_[i][:] = weight, bias

    def train(self) -> list[float]:
        from threadpoolctl import threadpool_limits

        losses = []
        with threadpool_limits(self.threads):
            for order in self.orders:
                self.model.partial_fit(self.X[order], self.y[order])
                losses.append(float(self.model.loss_))
        return losses

    def layers(self) -> Layers:
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))


class ScikitLinear(Contestant):
    """SGDClassifier: one binary model for each class, on data put in order before the clock starts."""

    name, library = "scikit-learn SGDClassifier", "sklearn"

    @classmethod
    def missing(cls, case: Case) -> str:
        fits = len(case.sizes) == 2 and case.loss in ("hinge", "logistic") and case.batch_size == 1
        return super().missing(case) or ("" if fits else "it only has linear models")

    def load(self, X: Array, y: Array, orders: list[Array]) -> None:
        self.epochs = [(self.form(X[order]), y[order]) for order in orders]

    def form(self, X: Array) -> Any:
        """The rows as the classifier gets them."""
        return X

    def reset(self, layers: Layers) -> None:
        (weight, bias), = layers  # fmt: skip
        self.model = self._classifier(fit_intercept=True)
        self.model.coef_[:], self.model.intercept_[:] = weight.T, bias

    def _classifier(self, fit_intercept: bool) -> Any:
        from sklearn.linear_model import SGDClassifier

        classes = self.case.sizes[-1]
        model = SGDClassifier(
            loss="hinge" if self.case.loss == "hinge" else "log_loss", penalty=None, alpha=0, shuffle=False,
            learning_rate="constant", eta0=self.case.lr / classes, fit_intercept=fit_intercept, n_jobs=self.threads,
        )  # fmt: skip
        X, y = self.epochs[0]
        return model.partial_fit(X[:1], y[:1], classes=np.arange(classes))

    def train(self) -> list[float]:
        for X, y in self.epochs:
            self.model.partial_fit(X, y)
        return [float("nan")] * len(self.epochs)

    def layers(self) -> Layers:
        return [(self.model.coef_.T, self.model.intercept_)]


class ScikitLinearSparse(ScikitLinear):
    """SGDClassifier on CSR rows, its faster form for pixels. A column of ones is the bias: its own learns slower."""

    name = "scikit-learn SGDClassifier, CSR"

    @classmethod
    def missing(cls, case: Case) -> str:
        return super().missing(case) or ("the rows have no zeros" if "no zeros" in case.data else "")

    def form(self, X: Array) -> Any:
        from scipy.sparse import csr_array

        return csr_array(np.hstack([X, np.ones((len(X), 1), X.dtype)]))

    def reset(self, layers: Layers) -> None:
        (weight, bias), = layers  # fmt: skip
        self.model = self._classifier(fit_intercept=False)
        self.model.coef_[:] = np.vstack([weight, bias]).T

    def layers(self) -> Layers:
        return [(self.model.coef_[:, :-1].T, self.model.coef_[:, -1])]


CONTESTANTS: tuple[type[Contestant], ...] = (
    Hotloop, Torch, TorchCompiled, Jax, JaxOneCore, ScikitMLP, ScikitLinear, ScikitLinearSparse,
)  # fmt: skip


def quiet() -> None:
    """Silence the peers' own advice, which is not about the race."""
    warnings.filterwarnings("ignore", module=r"(torch|jax|sklearn)\b.*")
