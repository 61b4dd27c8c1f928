"""Two layers of heat, that of the surface and that of the deep ocean, which two studies of the
climate share.
"""

from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import bayes_dasl as bd

FLUX, YEAR = "W m^-2", "year"
_PARTS = 3
"""Of a year: how many steps it takes."""
_WARMEST = 20.0  # K: as far as an equilibrium is looked for


class TwoLayers(bd.Module):
    r"""Heat of the surface and of the deep ocean, whose uptake is more effective than other
    forcings.

    $C
    \dot T = F - \lambda e^{f(T)} T - \varepsilon\gamma (T - D), \quad C_d \dot D = \gamma (T - D)$

    with f zero unless `bend` is there; λ is the feedback where f is zero. Called, it takes the
    states over a year of constant forcing and feedback, by three steps of Heun's method.
    Units: K above what was before, years, W m⁻² of the earth's surface.
    Source: Geoffroy et al. (2013).
    """

    capacity: bd.Scalar = bd.field(units="W yr m^-2 K^-1")
    deep_capacity: bd.Scalar = bd.field(units="W yr m^-2 K^-1")
    feedback: bd.Scalar = bd.field(units="W m^-2 K^-1")
    exchange: bd.Scalar = bd.field(units="W m^-2 K^-1")
    efficacy: bd.Scalar = bd.field(units="")
    bend: Any = bd.field(units="", default=None, kw_only=True)

    @abstractmethod
    def forced(self, u) -> Any:
        """The forcing of what drives a year."""

    def factor(self, warming) -> Any:
        """By how much the feedback is another at a warming."""
        return 1.0 if self.bend is None else self.bend(0.0, {}, {"warming": warming})["factor"]

    def feedback_at(self, warming) -> Any:
        """What the surface radiates more, by K of warming."""
        return self.feedback * self.factor(warming)

    def rates(self, y, forcing, feedback):
        """How fast both layers warm."""
        down = self.exchange * (y["surface"] - y["deep"])
        gain = forcing - feedback * y["surface"] - self.efficacy * down
        return {"surface": gain / self.capacity, "deep": down / self.deep_capacity}

    def __call__(self, t, y, u):
        forcing, feedback = self.forced(u), self.feedback_at(y["surface"])
        for _ in range(_PARTS):
            first = self.rates(y, forcing, feedback)
            second = self.rates(
                {name: y[name] + first[name] / _PARTS for name in y}, forcing, feedback
            )
            y = {name: y[name] + (first[name] + second[name]) / (2 * _PARTS) for name in y}
        return y

    def heat(self, y):
        """What both layers hold, in W yr m⁻²."""
        return self.capacity * y["surface"] + self.deep_capacity * y["deep"]

    def equilibrium(self, forcing):
        """The least warming at which as much is radiated as a forcing sends."""
        if self.bend is None:
            return forcing / self.feedback
        warming = jnp.linspace(0.0, _WARMEST, 401)
        bent = self.factor(warming) * warming
        found = jnp.vectorize(
            lambda linear, sent: jnp.interp(sent, jax.lax.cummax(linear * bent), warming)
        )
        return found(jnp.asarray(self.feedback), jnp.asarray(forcing))


def bend(highest: float) -> bd.Basis:
    """An unknown factor of the feedback that changes with the warming, seldom by more than a third,
    up to so many K.
    """
    length, amplitude = (highest + 1.0) / 3, dist.HalfNormal(0.15)
    family = bd.bases.HilbertGP(-1.0, highest, 10, length=length, amplitude=amplitude, boundary=2.2)
    return bd.Basis(family, "warming", "factor", positive=True)
