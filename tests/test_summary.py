"""A model as text: every layer with its shape, and what is kept with it."""

import numpy as np

from hotloop import MLP, Standardizer, Trainer


def test_the_table() -> None:
    assert MLP([784, 128, 64, 10], ["relu", "tanh"], "softmax").summary() == (
        "layer         shape  activation  parameters    bytes\n"
        "----------------------------------------------------\n"
        "input           784\n"
        "hidden 1  784 x 128  relu           100,480  401,920\n"
        "hidden 2   128 x 64  tanh             8,256   33,024\n"
        "output      64 x 10  softmax            650    2,600\n"
        "----------------------------------------------------\n"
        "total                               109,386  437,544\n"
        "dtype  float32\n"
        "loss   not trained"
    )


def test_what_is_kept_is_shown() -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = MLP([2, 3], output="softmax", dtype="float64", bias=False)
    model.prepare = Standardizer().fit(X)
    Trainer(epochs=1).fit(model, X, [["ant", "bee", "cow"][i % 3] for i in range(20)])
    assert model.summary().splitlines()[3:] == [
        "output  2 x 3  softmax              6     48",
        "--------------------------------------------",
        "total                               6     48",
        "dtype    float64, without biases",
        "loss     cross_entropy",
        "prepare  Standardizer(2 columns, centred and scaled, 20 rows)",
        "classes  3: ant, bee, cow",
    ]


def test_print_shows_it_and_repr_stays_one_line() -> None:
    model = MLP([2, 30], output="softmax")
    model.classes = range(30)
    assert str(model) == model.summary() and "classes  30: 0, 1, 2, 3, 4, 5, ..." in str(model)
    assert "\n" not in repr(model)
