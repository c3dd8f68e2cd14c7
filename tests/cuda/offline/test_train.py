"""What the kernel of many models becomes, and its main loops."""

from collections import Counter

import numba
import pytest
from machine_code import check, every_gpu, vector32
from numba import types
from test_epochs import row, square, twice

from hotloop.kernels.cuda import train
from hotloop.kernels.cuda.custom import Activation, Loss, Own
from hotloop.kernels.custom import LEAST_CODE


def array(kind, dimensions):
    return types.Array(kind, dimensions, "C")


def arguments():
    f, i = types.float32, types.int64
    models = (
        array(types.uint32, 2),
        array(types.uint32, 2),
        array(i, 1),
        array(f, 2),
        array(types.float64, 1),
        array(types.int32, 1),
        array(i, 1),
        *[vector32] * 3,
    )
    data = array(f, 2), array(f, 2), array(types.int32, 1), array(types.int32, 3)
    course = array(f, 3), array(f, 2), types.UniTuple(f, 5), i, i, i, i, i, i
    named = [(models, train.Models), (data, train.Data), (course, train.Course)]
    return *(types.NamedTuple(kinds, name) for kinds, name in named), array(f, 2), array(f, 2), array(f, 2)


PLACES = {"all shared": (True, True), "rows shared": (False, True), "none shared": (False, False)}
REGISTERS = {"all shared": 136, "rows shared": 200, "none shared": 176}


@every_gpu
@pytest.mark.parametrize("rows_each", [4, 1], ids=["batches", "few rows"])
@pytest.mark.parametrize("place", PLACES)
def test_budget(place, rows_each, capability):
    kernel = train.make_train(rows_each, *PLACES[place], False)
    code = check(kernel, arguments(), capability, registers=REGISTERS[place])
    forward = code.main_loop()
    if rows_each == 4 and place != "none shared":
        assert Counter(forward)["FFMA"] == 64 and sum(name.startswith("LDS") for name in forward) >= 4
        assert len(forward) <= 120 and not any(name.startswith(("BAR", "ST")) for name in forward)


@pytest.mark.parametrize(
    ("dropout", "bounds", "noise"), [(True, False, False), (False, True, False), (True, True, True)]
)
def test_budget_of_what_regularises(dropout, bounds, noise):
    kernel = train.make_train(4, *PLACES["all shared"], dropout, bounds, noise)
    check(kernel, arguments(), (7, 5), registers=REGISTERS["all shared"], doubles=noise)


@numba.njit
def difference(prediction, target):
    return prediction - target


OWN = {
    "row": Own((Activation(LEAST_CODE, square, twice),), Loss(row=row)),
    "value and slope": Own((Activation(LEAST_CODE, twice, square),), Loss(difference, difference)),
}


@pytest.mark.parametrize("rows_each", [4, 1], ids=["batches", "few rows"])
@pytest.mark.parametrize("name", OWN)
def test_budget_with_functions_of_the_users_own(name, rows_each):
    kernel = train.make_train(rows_each, *PLACES["all shared"], False, own=OWN[name])
    check(kernel, arguments(), (7, 5), registers=168 if rows_each == 4 else 136)
