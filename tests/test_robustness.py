"""Bad input over the whole public face is refused, told or acted upon: the cases of
`tests/studies/bad_inputs.py`.
"""

import warnings

import jaxtyping
import numpy as np
import pytest

import bayes_dasl as bd
from bayes_dasl.errors import DataError
from tests.studies.bad_inputs import (
    CASES,
    CLEAR,
    FINE,
    INSIDE,
    RIGHT,
    SILENT,
    THEIRS,
    THEIRS_UNCLEAR,
    TOLD,
    answer,
)

# These compile solves, or push draws through them.
SLOW = {
    "an equation that is never a number",
    "an initial state that is NaN",
    "a forcing that begins after the start",
    "a dose that may come before the data",
    "a copy of a model",
}


# NumPyro refuses these where the user makes the distribution, before anything of ours is called.
OF_NUMPYRO = {
    "a prior of a prior": (THEIRS_UNCLEAR,),
    "a prior of a prior, by its rate": (THEIRS_UNCLEAR,),
    "a prior of a negative scale": (THEIRS,),
}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Without the type checker of the tests, which would refuse some of this input itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.thorough(
    "data in thousandths",
    "replicates",
    "scores of replicates",
    "a single row",
    "places outside the grid",
    "a prior that cannot have made the data",
    "a prior over three numbers, unchecked",
    "a network of one name",
    "a forecast from a forecast",
    "scores of a single time",
    "a law that asks for an unknown value",
    "a checkpoint in a folder of other things",
    "a checkpoint in a file",
)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES]
)
def test_case(name):
    found = answer(CASES[name])
    assert found.outcome in (OF_NUMPYRO.get(name, FINE)), found.said


def test_there_are_many_cases():
    assert len(CASES) >= 120 and set(CASES) >= SLOW | set(OF_NUMPYRO)


def refused():
    raise DataError("no data")


def told():
    warnings.warn("look at the data", stacklevel=1)


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        (refused, CLEAR),
        (lambda: bd.between(2.0, 1.0), CLEAR),
        (lambda: bd.NUTS(chians=2), CLEAR),
        (lambda: np.ones(2) + np.ones(3), INSIDE),
        (lambda: {}["a"], INSIDE),
        (lambda: None, SILENT),
        (lambda: False, SILENT),
        (lambda: True, RIGHT),
        (told, TOLD),
    ],
)
def test_answers_are_told_apart(case, outcome):
    assert answer(case).outcome == outcome
