"""Faults of unknown functions, for the study of verdicts: too coarse, too short, asked where no
data told them.
"""

from typing import Any

import numpy as np
import numpyro.distributions as dist

import bayes_dasl as bd

from .families import TIMES
from .planting import RNG, UNKNOWN, Fault, Judged, fitted, series, wandering

DENSE = np.linspace(0.0, 6.0, 151)


class Response(bd.Module):
    """In proportion to a dose, by a factor that depends on it."""

    slope: bd.Scalar
    factor: bd.Basis

    def __call__(self, t, y, u):
        return {"y": self.slope * u["dose"] * self.factor(t, y, u)["factor"]}


def of_time(family: Any, noise: Any = UNKNOWN, scale: float = 1.0) -> bd.Model:
    return bd.Model(bd.Algebraic(bd.Basis(family, "t", "y", scale=scale)), noise)


def looked_at(model: bd.Model, y: np.ndarray) -> Judged:
    """A fit of which it was looked whether its unknown functions are fine enough."""
    judged = fitted(model, series(y, DENSE))
    return judged._replace(post=bd.updating.check_functions(model, judged.post, key=5))


def serial_correlation_beside_a_function() -> Judged:
    """A wave that six splines are, and residuals with a correlation of 0.7 from one datum to the
    next.
    """
    y = 2.0 * np.sin(0.7 * DENSE) + 0.5 * wandering(0.7, 40, DENSE.size)
    return looked_at(of_time(bd.bases.BSpline(0.0, 6.0, 6), scale=3.0), y)


def function_too_coarse() -> Judged:
    """A narrow bump that six splines cannot be."""
    y = (
        np.sin(0.7 * DENSE)
        + 1.5 * np.exp(-(((DENSE - 2.0) / 0.15) ** 2))
        + 0.2 * RNG(41).normal(size=DENSE.size)
    )
    return looked_at(of_time(bd.bases.BSpline(0.0, 6.0, 6), scale=3.0), y)


def function_of_a_forcing_too_coarse() -> Judged:
    """A bump over a forcing in no order,
    which no correlation from one datum to the next explains.
    """
    forcing = RNG(44).uniform(-1.0, 1.0, DENSE.size)
    y = (
        forcing
        + 1.5 * np.exp(-(((forcing - 0.3) / 0.08) ** 2))
        + 0.2 * RNG(45).normal(size=DENSE.size)
    )
    function = bd.Basis(bd.bases.BSpline(-1.0, 1.0, 6), "x", "y", scale=3.0)
    model = bd.Model(bd.Algebraic(function, forcings=("x",)), UNKNOWN)
    judged = fitted(model, series(y, DENSE, x=forcing))
    return judged._replace(post=bd.updating.check_functions(model, judged.post, key=5))


def process_too_short() -> Judged:
    """A process of eight functions,
    of which the data ask for a wave of which half a period is 0.4.
    """
    y = 2.0 * np.sin(8.0 * TIMES) + 0.2 * RNG(42).normal(size=TIMES.size)
    family = bd.bases.HilbertGP(
        0.0, 6.0, 8, length=dist.LogNormal(-1.0, 0.5), amplitude=dist.HalfNormal(2.0)
    )
    return fitted(of_time(family), series(y))


def beyond_its_doses(scale: float) -> Judged:
    """A response that saturates, of which the fit sees low doses and the forecast high ones."""
    dose = np.where(TIMES > 4.0, 3.0 + 3.0 * (TIMES - 4.0), 0.5 * TIMES + 0.5)
    y = 5.0 * dose / (2.0 + dose) + 0.1 * RNG(43).normal(size=TIMES.size)
    family = bd.bases.BSpline(0.0, 10.0, 6)
    response = Response(
        dist.LogNormal(0.5, 0.5), bd.Basis(family, "dose", "factor", scale=scale, level=1.0)
    )
    return fitted(
        bd.Model(bd.Algebraic(response, forcings=("dose",)), UNKNOWN), series(y, dose=dose)
    )


def unseen_extrapolation() -> Judged:
    """The same without held-out data: whatever it says there, nothing has checked it."""
    return beyond_its_doses(0.5)._replace(test=None)


FAULTS: dict[str, Fault] = {
    "serial correlation beside an unknown function": Fault(
        serial_correlation_beside_a_function,
        ("unknown functions", "order of residuals"),
        says=("serially correlated", "neighbours have a correlation"),
        silent=("unknown function ",),
    ),
    "an unknown function that is too coarse": Fault(function_too_coarse, ("unknown function ",)),
    "a function of a forcing that is too coarse": Fault(
        function_of_a_forcing_too_coarse, ("unknown function ",)
    ),
    "a process shorter than its functions": Fault(process_too_short, ("shortness of",)),
    "a forecast beyond the training range": Fault(
        unseen_extrapolation, ("extrapolation of",), says=("nothing has checked it there",)
    ),
    "wrong science with a confident hybrid": Fault(
        lambda: beyond_its_doses(0.05),
        ("held-out data", "extrapolation of"),
        says=("intervals hold",),
    ),
}
