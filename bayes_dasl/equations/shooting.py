"""Multiple shooting: an ODE in short segments, each with an initial state of its own."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from numbers import Real
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jax.core import Tracer
from jaxtyping import Float

from .._jax.tree import FrozenDict
from ..data.datasets import averaged, checked_times, observations
from ..data.dates import DAY, SINCE, as_numbers, has_dates, told, unit_of
from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError
from ..layers._assumed import refuse_assumed
from ..layers.layer import AroundTrajectory, Prediction
from ..layers.ode import ODE
from ..random import shape_of


def _floats(knots: Any) -> tuple[float, ...]:
    try:
        return tuple(float(knot) for knot in knots)
    except (TypeError, ValueError):
        raise ModelError(f"knots must be finite times that increase, not {knots!r}") from None


def _gap(gap: Any) -> Any:
    return FrozenDict(gap) if isinstance(gap, Mapping) else gap


class MultipleShooting(AroundTrajectory):
    r"""An ODE solved from knot to knot, with the states at each knot as unknowns of their own.

    $\dot y = f(t, y, u)$ from $s_k$ at $\tau_k$ up to $\tau_{k+1}$, with
    $(y(\tau_{k+1}^-) - s_{k+1}) / g \sim N(0, 1)$

    Over a long time, the end of one single solve of a chaotic equation says nothing of where it
    started, and its gradient explodes; over a segment neither happens. The smaller the `gap` is,
    the more the segments are one solution of the equation, and the harder is the posterior to
    sample. A gap that is not zero is a model of its own: the equation with a small kick of that
    standard deviation at each knot. It must be known: the density of the gaps counts up to a
    constant only.

    A time before a knot belongs to the segment that ends there, a time at a knot to the one that
    starts there. After the last knot the last segment goes on. A knot after the last time has no
    say; one after the data is refused by a fit, as a later forecast would start anew from a state
    there that nothing is known of. A jump at a knot acts at the end of the earlier segment. All
    segments are solved side by side, each with at most `ode.max_steps` steps.

    Args:
        ode: the `bd.ODE`; the first segment starts from its `initial`.
        knots: the times at which later segments start, in the units of time of the data: they
            increase, and lie after the start.
        segments: for each state of `ode` its values at the knots, in its units, usually a random
            leaf of that shape (see `segment_states`).
        gap: how far the end of a segment may lie from the start of the next one, in the units of
            the states: a number, or a dict of them by state.

    Shapes: `knots` `(knots,)`; each segment state `(knots,)`, or `(knots, …)` for a state that is
    an array; predictions `(time,)`; `mismatches` `(knots, …)`, in units of the gap.

    Raises:
        ModelError: for knots that do not increase or lie before the start, for segment states of
            other names or shapes than those of the ODE, and for a gap that is not a known positive
            number.

    Source: Bock (1981), Numerical treatment of inverse problems in chemical reaction kinetics.
    """

    latent_fields: ClassVar[tuple[str, ...]] = ("segments",)

    ode: ODE
    knots: tuple[float, ...] = eqx.field(static=True, converter=_floats)
    segments: dict[str, Any]
    gap: float | Mapping[str, float] = eqx.field(static=True, converter=_gap)

    def __check_init__(self):
        if not isinstance(self.ode, ODE):
            raise ModelError(f"multiple shooting needs a bd.ODE, not {type(self.ode).__name__}")
        knots = np.asarray(self.knots)
        if not knots.size or not np.isfinite(knots).all() or (np.diff(knots) <= 0).any():
            raise ModelError(f"knots must be finite times that increase, not {self.knots}")
        self._check_start(self.ode.start)
        if self.ode.sums or self.ode.means:
            raise ModelError(
                "an ODE with sums or means over intervals is solved in one go: leave "
                "MultipleShooting out"
            )
        self._check_segments()
        for name, gap in self._gaps.items():
            if not isinstance(gap, Real) or isinstance(gap, bool) or not 0 < float(gap) < np.inf:
                raise ModelError(
                    f"the gap of '{name}' must be a known positive number, not {gap!r}"
                )

    def _check_start(self, start: Any) -> None:
        if (
            start is not None
            and not isinstance(start, (Tracer, datetime))
            and self.knots[0] <= float(start)
        ):
            raise ModelError(
                f"the first knot at {self.knots[0]:g} must lie after the start at {float(start):g}"
            )

    def _check_segments(self) -> None:
        if not isinstance(self.segments, Mapping) or set(self.segments) != set(self.ode.initial):
            named = (
                ", ".join(self.segments)
                if isinstance(self.segments, Mapping)
                else repr(self.segments)
            )
            raise ModelError(
                f"segments are given for {named}, but the states are {', '.join(self.ode.initial)}"
            )
        for name, value in self.segments.items():
            want = (len(self.knots), *shape_of(self.ode.initial[name]))
            if shape_of(value) != want:
                raise ModelError(
                    f"segments['{name}'] must have the shape {want}, one state a knot, not "
                    f"{shape_of(value)}"
                )
        if isinstance(self.gap, Mapping) and set(self.gap) != set(self.ode.initial):
            raise ModelError(
                f"gaps are given for {', '.join(self.gap)}, but the states are "
                f"{', '.join(self.segments)}"
            )

    @property
    def _gaps(self) -> dict[str, Any]:
        return (
            dict(self.gap)
            if isinstance(self.gap, Mapping)
            else dict.fromkeys(self.ode.initial, self.gap)
        )

    @property
    def states(self) -> int:
        """How many numbers the solver carries along: the states of all segments."""
        return self.ode.states * (len(self.knots) + 1)

    def refuse_times(self, times: Float[np.ndarray, " time"]) -> None:
        """Refuse data that end before the last knot, of whose state they would say nothing.

        Args:
            times: those of the data, sorted.

        Raises:
            ModelError: if so.
        """
        if self.knots[-1] > times[-1]:
            raise ModelError(
                f"the knot at {self.knots[-1]:g} lies after the data, which end at {times[-1]:g}: "
                "nothing would be "
                "known of the state there, from which a forecast would start anew"
            )

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `segments`: those of its state.

        Args:
            path: the names on the way from the layer to the leaf.
        """
        return self.units.get(path[1], "") if path[0] == "segments" else ""

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        self._check_start(inputs.start)
        # 1. Where segments start and end; after the last time a knot has no say (Bock 1981).
        times, knots = inputs.times, jnp.asarray(self.knots)
        starts = jnp.concatenate([inputs.start[None], jnp.minimum(knots, times[-1])])
        ends = jnp.concatenate([starts[1:], times[-1:]])
        # 2. The times of each segment, padded to one width, with the end of the segment last. A
        # time at a knot is the first one of the later segment.
        first, width = jnp.searchsorted(times, starts), self._width(times)
        at = jnp.minimum(first[:, None] + jnp.arange(width), len(times) - 1)
        asked = jnp.clip(times[at], starts[:, None], ends[:, None])
        asked = jnp.concatenate([asked, ends[:, None]], axis=1)
        begins = self._begins(inputs)

        def solve(start, times, initial):
            return self.ode.solve(Inputs(start, times, inputs.forcings), initial)

        # 3. All segments side by side.
        states, ok, steps = jax.vmap(solve)(starts, asked, begins)
        segment = jnp.searchsorted(knots, times, side="right")
        found = {
            name: y[segment, jnp.arange(len(times)) - first[segment]] for name, y in states.items()
        }
        # 4. Constraint residuals (y(τ⁻) - s) / gap, standard normal in the likelihood.
        ended = {name: y[:-1, -1] for name, y in states.items()}
        mismatches = self._mismatches(ended, begins, knots <= times[-1], jnp.all(ok))
        return self.ode.predict(inputs, found, jnp.all(ok), jnp.sum(steps), mismatches=mismatches)

    def _width(self, times: Any) -> int:
        """How many times a segment has at most; all of them if the times are not known yet."""
        if isinstance(times, Tracer):
            return len(times)
        return int(np.bincount(np.searchsorted(self.knots, np.asarray(times), side="right")).max())

    def _begins(self, inputs: Inputs) -> dict[str, Any]:
        first = self.ode.begin(inputs)
        later = {name: jnp.asarray(self.segments[name], y.dtype) for name, y in first.items()}
        return {name: jnp.concatenate([y[None], later[name]]) for name, y in first.items()}

    def _mismatches(self, ended: Any, begins: Any, inside: Any, ok: Any) -> dict[str, Any]:
        """How far each segment ends from the start of the next, in units of the gap; zero for knots
        after the end.
        """

        def gaps(name):
            each = (ended[name] - begins[name][1:]) / self._gaps[name]
            return jax.vmap(lambda held, gap: jnp.where(held & ok, gap, 0.0))(inside, each)

        return {f"{name} at knots": gaps(name) for name in ended}


def segment_states(
    data: xr.Dataset,
    names: Iterable[str],
    knots: Iterable[float],
    scale: float | Mapping[str, float],
    *,
    units: str = "",
) -> dict[str, dist.Distribution]:
    r"""Priors of the states at the knots, around what was observed of them.

    $s_k \sim N(y(\tau_k), \sigma)$, where $y$ runs linearly between the observations

    They look at the data, so they are no priors in the strict sense: to say little, `scale` must be
    several times the noise of the data and what a state changes between two of them.

    Args:
        data: a dataset with a coordinate `time` and observations of the states, NaN where missing.
        names: the states, which the data must hold under the same names.
        knots: the times of the knots, none after the last time of the data and in its units.
        scale: the standard deviation σ, in the units of the states: a number, or a dict of them by
            name.
        units: what the knots count where data have dates, as the layer says:
            `day since 2001-01-01`.

    Raises:
        DataError: for a name that the data do not hold, or dates without `units`.
        ModelError: for knots after the data and for a scale that is missing or not positive.
    """
    if has_dates(data, "time") and SINCE not in units:
        raise DataError(
            "time holds dates, but knots are numbers: say what they count, as the layer does, by "
            f"units='{unit_of(units) or DAY} since {told(data['time'].values[0])}'"
        )
    times, priors, knots = (
        checked_times(as_numbers(data, "time", units)),
        {},
        np.asarray([*knots], float),
    )
    if (knots > times[-1]).any():
        raise ModelError(
            f"the knot at {knots.max():g} lies after the data, which end at {times[-1]:g}"
        )
    for name in names:
        spread = scale.get(name) if isinstance(scale, Mapping) else scale
        if not isinstance(spread, Real) or not spread > 0:
            raise ModelError(f"the scale of '{name}' must be positive, not {spread!r}")
        values = observations(data, name)
        seen = ~np.isnan(values)
        centre = np.interp(knots, *averaged(times[seen], values[seen]))
        priors[name] = dist.Normal(jnp.asarray(centre), float(spread))
    return priors
