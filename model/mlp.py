"""The multi-layer perceptron: its layers, its parameters, its predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hotloop import check, engine, files, initial, inputs, layout, objectives, summary
from hotloop import classes as class_values
from hotloop import prepare as preparation
from hotloop.custom import Activation, activation_code
from hotloop.kernels import activations, inference
from hotloop.kernels.plan import ACTIVATION, BIAS, PADDED, WEIGHT, Network
from hotloop.machine import available_threads

DECISIONS = ("value", "argmax", "threshold", "sign", "exp")
ORDERED = ("identity", "step", "sigmoid", "tanh", "leaky_relu", "elu", "softplus", "softmax")  # larger z, larger output
DECISION_OF: dict[Any, str] = {"softmax": "argmax", "sigmoid": "threshold", "step": "threshold"}


class MLP:
    """A multi-layer perceptron: a_0 = x, z_l = a_{l-1} @ weight_l + bias_l, a_l = f_l(z_l).

    sizes       units of the input, of every hidden layer and of the output
    activation  of the hidden layers: one name or Activation, or one for each
    output      activation of the last layer: identity, softmax (classes), sigmoid, step (perceptron), ...
    bias        False leaves every bias at zero
    init        "auto" (He's before rectifiers, Glorot's otherwise), he_, glorot_, lecun_ with uniform or normal, zeros
    dtype       "float32" or "float64"
    seed        of the initial weights

    Raises ValueError or TypeError for anything else, naming the argument.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: "str | Activation | Sequence[str | Activation]" = "relu",
        output: "str | Activation" = "identity",
        bias: bool = True,
        init: str = "auto",
        dtype: DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        if not isinstance(sizes, list | tuple) or len(sizes) < 2:
            raise ValueError(f"sizes: got {sizes!r}, expected two or more layer widths, such as [784, 128, 10].")
        self.sizes = tuple(check.integer(f"sizes[{i}]", width, 1) for i, width in enumerate(sizes))
        self.activations = _hidden(activation, len(self.sizes) - 2)
        self.output = output if isinstance(output, Activation) else check.choice("output", output, activations.CODES)
        if self.output == "softmax" and self.sizes[-1] == 1:
            raise ValueError("output: softmax over one unit is always 1; use 'sigmoid' for two classes.")
        self.bias = check.boolean("bias", bias)
        self.dtype = check.float_dtype("dtype", dtype)
        self.init = check.choice("init", init, initial.NAMES)
        self.seed = check.integer("seed", seed, 0, 2**63 - 1)
        self.loss: str | None = None
        self.decision = DECISION_OF.get(self.output, "value")
        self._classes: NDArray[Any] | None = None
        self._prepare: preparation.Preparation | None = None
        self.params = layout.aligned(layout.parameter_count(self.sizes), self.dtype)
        codes = [activation_code(each, self.dtype) for each in (*self.activations, self.output)]
        plan, self._row_work = layout.make_plan(self.sizes, codes, self.bias, 1)
        self._score_plan, _ = layout.make_plan(self.sizes, [*codes[:-1], activations.IDENTITY], self.bias, 1)
        self._row_shape = (self.sizes[0],)
        self._network = Network(plan, self.params)
        for layer, weight in enumerate(self.weights):
            following = (*self.activations, self.output)[layer]
            initial.fill(weight, self.init, following, self.seed, layer)

    @property
    def weights(self) -> list[NDArray[Any]]:
        """Views of the weights, (fan_in, fan_out) each: writing to them changes the model."""
        views = []
        for line, fan_in, fan_out in zip(self._network.plan[1:], self.sizes[:-1], self.sizes[1:], strict=True):
            start, ld = line[WEIGHT], line[PADDED]
            views.append(self.params[start : start + fan_in * ld].reshape(fan_in, ld)[:, :fan_out])
        return views

    @property
    def biases(self) -> list[NDArray[Any]]:
        """Views of the biases, (fan_out,) each; zero and unused with bias=False."""
        starts = self._network.plan[1:, BIAS]
        return [self.params[s : s + fan_out] for s, fan_out in zip(starts, self.sizes[1:], strict=True)]

    @property
    def prepare(self) -> preparation.Preparation | None:
        """What is done to X before the first layer wherever it is read: a fitted Standardizer or TableEncoder, or None.

        It is saved with the model. It gives rows of sizes[0] columns.
        """
        return self._prepare

    @prepare.setter
    def prepare(self, value: preparation.Preparation | None) -> None:
        self._prepare = preparation.checked(value, self.sizes[0])

    @property
    def classes(self) -> NDArray[Any] | None:
        """The values, text or numbers, that stand for the class numbers in y and in predictions, or None.

        As many as there are outputs, two for one output. Fitting on text sets them, sorted. Saved with the model.
        """
        return self._classes

    @classes.setter
    def classes(self, values: ArrayLike | None) -> None:
        self._classes = None if values is None else class_values.checked("classes", values, max(2, self.sizes[-1]))

    @property
    def n_params(self) -> int:
        """Number of trainable parameters."""
        return sum((i + self.bias) * o for i, o in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def set_prior(self, y: ArrayLike, loss: str | None = None) -> None:
        """Set the output bias so that, with all else zero, the outputs are the averages of y.

        softmax: log(share of each class); sigmoid and logistic: log(p / (1 - p)); poisson: log(mean); identity with
        mse: the mean. y and loss as in Trainer.fit. A class that y lacks counts as half a sample. Raises ValueError for
        other outputs and losses, and for a model without bias. Goodfellow, Bengio and Courville 2016, section 8.4.
        """
        if not self.bias:
            raise ValueError("bias: got False, expected a model with biases to set.")
        objective = objectives.bind(loss, self, y, None)
        self.biases[-1][:] = objective.prior()

    def __repr__(self) -> str:
        hidden = f", activation={list(self.activations)}" if self.activations else ""
        head = f"MLP({list(self.sizes)}{hidden}, output={self.output!r}, dtype='{self.dtype}')"
        return f"{head}  # {self.n_params:,} parameters"

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Layers, shapes, parameters, bytes, loss and what is kept beside them, as a table of plain text."""
        return summary.table(self)

    def _read(self, name: str, X: Any) -> inputs.Rows:
        """X, prepared and checked, in the form of the kernels; errors call it by this name."""
        if self._prepare is None:
            return inputs.read(name, X, self.sizes[0], self.dtype)
        return self._prepare.read(name, X, self.dtype)

    def forward(self, X: Any, stream: Any = 0) -> Any:
        """Outputs (n, n_outputs) of the last activation for X (n, n_features).

        An X on a GPU (CuPy, PyTorch, Numba, DLPack) is read in place, on this CUDA stream, and the outputs stay there.
        """
        if inputs.on_device(X):
            from hotloop import cuda

            return cuda.forward(self, X, self._network.plan[-1, ACTIVATION], stream)
        rows = self._read("X", X)
        return engine.infer(self._network, rows, self._network.plan[-1, ACTIVATION], available_threads())

    def predict(self, X: Any, stream: Any = 0) -> Any:
        """Predictions for X (n, n_features), by what the model was trained for.

        Classes 0 .. k-1 (n,) for softmax and cross-entropy; 0 or 1 for sigmoid, step, logistic and perceptron; -1 or
        +1 for hinge; with model.classes, these values; rates for poisson; else the outputs themselves.
        One output gives (n,), several (n, n_outputs). X on a GPU as in `forward`; classes are their numbers there.
        """
        code = self._network.plan[-1, ACTIVATION] if self._by_outputs else activations.IDENTITY
        if inputs.on_device(X):
            from hotloop import cuda

            return cuda.predict(self, X, code, stream)
        rows = self._read("X", X)
        return self._decide(engine.infer(self._network, rows, code, available_threads()))

    @property
    def _by_outputs(self) -> bool:
        """Whether predictions need the outputs: where f keeps the order of z, decisions are made by the last z."""
        return self.decision in ("value", "exp") or self.output not in ORDERED

    def predict_one(self, x: ArrayLike) -> Any:
        """The prediction for one row x (n_features,): what predict gives for it, with the least overhead."""
        row = self._row(x)
        out = np.empty(self.sizes[-1], self.dtype)
        plan = self._network.plan if self._by_outputs else self._score_plan
        best = inference.predict_row(plan, self.params, row, self._row_work, out)
        if best < 0:
            check.finite("x", row, np.asarray(x))
        if self.decision != "argmax":
            return self._decide(out[None])[0]
        return best if self._classes is None else self._classes[best]

    def _row(self, x: ArrayLike) -> NDArray[Any]:
        """One row x (n_features,) in the form of the kernels; whether it is finite they see themselves."""
        if self._prepare is not None:
            row = self._prepare.row(x, self.dtype)
        elif isinstance(x, np.ndarray) and x.dtype == self.dtype and x.flags.carray:
            row = x
        else:
            row = check.for_kernels(check.numeric("x", x), self.dtype)
        if row.shape != self._row_shape:
            raise ValueError(f"x: got shape {row.shape}, expected {self._row_shape}.")
        return row

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Class probabilities (n, n_classes); two columns for one sigmoid output, one per label for several.

        Raises ValueError for a model whose outputs are no probabilities, and for X on a GPU unless output is softmax.
        """
        outputs = self.forward(X)
        if self.output == "softmax":
            return outputs
        if inputs.on_device(X):
            raise ValueError("X: got an array on a GPU, which predict_proba takes with output 'softmax'; pass NumPy's.")
        if self.output == "identity" and self.loss == "cross_entropy":
            shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
        if self.output == "identity" and self.loss == "logistic":
            outputs = 0.5 * (1 + np.tanh(0.5 * outputs))
        elif self.output != "sigmoid":
            raise ValueError(
                f"predict_proba: output {self.output!r} trained with loss {self.loss!r} gives no probabilities; "
                "use output 'softmax' or 'sigmoid'."
            )
        return np.hstack([1 - outputs, outputs]) if self.sizes[-1] == 1 else outputs

    def _decide(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Predictions from outputs, or from the z of the last layer where a decision only asks which is larger."""
        if self._classes is not None and self.decision in ("argmax", "sign", "threshold"):
            return self._classes[outputs.argmax(axis=1) if self.decision == "argmax" else (outputs[:, 0] > 0) * 1]
        if self.decision == "argmax":
            return outputs.argmax(axis=1)
        if self.decision == "sign":
            chosen: NDArray[Any] = np.where(outputs > 0, 1, -1)
        elif self.decision == "threshold":
            chosen = (outputs > 0).astype(np.int64)
        else:
            chosen = np.exp(outputs) if self.decision == "exp" else outputs.copy()
        return chosen[:, 0] if self.sizes[-1] == 1 else chosen

    def save(self, path: str | Path) -> None:
        """Write the model to a safetensors file; an existing file is replaced only once the new one is whole."""
        files.save(self, Path(path))

    @staticmethod
    def load(path: str | Path, custom: Sequence[Activation] = ()) -> "MLP":
        """Read a model that `save` wrote; runs no code of the file. Raises ValueError for anything else.

        custom: the activations of your own that the model was made with; the file knows only their names.
        """
        return files.load(Path(path), custom)


def _hidden(activation: Any, layers: int) -> tuple[str | Activation, ...]:
    """One activation per hidden layer."""
    if not isinstance(activation, str | Activation | list | tuple):
        raise TypeError(f"activation: got {activation!r}, expected a name, or one for each hidden layer.")
    single = isinstance(activation, str | Activation)
    names: list[Any] = [activation] * layers if single else list(activation)  # type: ignore[arg-type]
    for name in [activation] if single else names:
        if not isinstance(name, Activation) and check.choice("activation", name, activations.CODES) == "softmax":
            raise ValueError("activation: softmax belongs to the output; expected a function of one unit.")
    if len(names) != layers:
        raise ValueError(f"activation: got {len(names)} names, expected {layers}, one for each hidden layer.")
    return tuple(names)
