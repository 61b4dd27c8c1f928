"""`MultipleShooting`: an ODE solved in short segments, each with its own initial state."""

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
from ..data.dates import DAY, SINCE, as_numbers, has_dates, in_words, unit_of
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
    r"""An ODE solved from knot to knot, with the states at each knot as latent variables.

    $\dot y = f(t, y, u)$ from $s_k$ at $\tau_k$ up to $\tau_{k+1}$, with
    $(y(\tau_{k+1}^-) - s_{k+1}) / g \sim N(0, 1)$

    The knots $\tau_k$ divide time into segments. Each segment starts from its own states $s_k$. The
    distance between the end of a segment and the start of the next one is penalised, with standard
    deviation g.

    A long solve of a chaotic equation is extremely sensitive to its initial state, so that
    gradients explode. Short segments avoid this. A smaller `gap` makes the segments closer to one
    continuous solution, but the posterior harder to sample. The gap is part of the model: it is the
    standard deviation of a random jump of the states at each knot. It must be a known number, since
    the density of the gaps is not normalised.

    A time before a knot belongs to the segment that ends there; a time at a knot belongs to the
    segment that starts there. The last segment continues after the last knot. Knots after the last
    time are ignored. But a fit refuses a knot after its data, since a later forecast would start
    from a state without data. If the ODE has a jump at a knot, it acts at the end of the earlier
    segment. All segments are solved in parallel, each with at most `ode.max_steps` steps.

    Args:
        ode: the `bd.ODE`; the first segment starts from its `initial`.
        knots: the start times of later segments, in the units of time of the data: increasing, and
            after the start.
        segments: for each state of `ode` its values at the knots, in its units, usually a random
            leaf of that shape (see `segment_states`).
        gap: the standard deviation g of the distance between the end of a segment and the start of
            the next one, in the units of the states: a number, or a dict of numbers by state.

    Shapes: `knots` `(knots,)`; each segment state `(knots,)`, or `(knots, …)` for a state that is
    an array; predictions `(time,)`; `constraint_residuals` `(knots, …)`, in units of the gap.

    Raises:
        ModelError: for knots that do not increase or lie before the start, segment states of other
            names or shapes than the states of the ODE, or a gap that is no known positive number.

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
        """Raise a ModelError if the first knot does not lie after a known start."""
        if (
            start is not None
            and not isinstance(start, (Tracer, datetime))
            and self.knots[0] <= float(start)
        ):
            raise ModelError(
                f"the first knot at {self.knots[0]:g} must lie after the start at {float(start):g}"
            )

    def _check_segments(self) -> None:
        """Raise a ModelError if segments or gaps do not match the states of the ODE."""
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
        """The standard deviation of the gaps of each state, by name."""
        return (
            dict(self.gap)
            if isinstance(self.gap, Mapping)
            else dict.fromkeys(self.ode.initial, self.gap)
        )

    @property
    def states(self) -> int:
        """Number of state variables of all segments."""
        return self.ode.states * (len(self.knots) + 1)

    def refuse_times(self, times: Float[np.ndarray, " time"]) -> None:
        """Refuse data that end before the last knot, since its states would have no data.

        Args:
            times: the times of the data, sorted.

        Raises:
            ModelError: if the last knot lies after the data.
        """
        if self.knots[-1] > times[-1]:
            raise ModelError(
                f"the knot at {self.knots[-1]:g} lies after the data, which end at {times[-1]:g}: "
                "nothing would be "
                "known of the state there, from which a forecast would start anew"
            )

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `segments`: the units of its state.

        Args:
            path: the names from the layer to the leaf.

        Returns:
            The units, or an empty string for any other leaf.
        """
        return self.units.get(path[1], "") if path[0] == "segments" else ""

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        self._check_start(inputs.start)
        # 1. Start and end of each segment (Bock 1981). A knot after the last time has no effect.
        times, knots = inputs.times, jnp.asarray(self.knots)
        starts = jnp.concatenate([inputs.start[None], jnp.minimum(knots, times[-1])])
        ends = jnp.concatenate([starts[1:], times[-1:]])
        # 2. The times of each segment, padded to the same number, with the end of the segment last.
        # A time at a knot is the first time of the later segment.
        first, width = jnp.searchsorted(times, starts), self._width(times)
        at = jnp.minimum(first[:, None] + jnp.arange(width), len(times) - 1)
        asked = jnp.clip(times[at], starts[:, None], ends[:, None])
        asked = jnp.concatenate([asked, ends[:, None]], axis=1)
        begins = self._begins(inputs)

        def solve(start, times, initial):
            return self.ode.solve(Inputs(start, times, inputs.forcings), initial)

        # 3. Solve all segments in parallel.
        states, ok, steps = jax.vmap(solve)(starts, asked, begins)
        segment = jnp.searchsorted(knots, times, side="right")
        found = {
            name: y[segment, jnp.arange(len(times)) - first[segment]] for name, y in states.items()
        }
        # 4. Constraint residuals (y(τ⁻) - s) / gap, standard normal in the likelihood.
        ended = {name: y[:-1, -1] for name, y in states.items()}
        constraint_residuals = self._standardised_gaps(
            ended, begins, knots <= times[-1], jnp.all(ok)
        )
        return self.ode.predict(
            inputs, found, jnp.all(ok), jnp.sum(steps), constraint_residuals=constraint_residuals
        )

    def _width(self, times: Any) -> int:
        """Largest number of data times in a segment, or of all times if they are traced."""
        if isinstance(times, Tracer):
            return len(times)
        return int(np.bincount(np.searchsorted(self.knots, np.asarray(times), side="right")).max())

    def _begins(self, inputs: Inputs) -> dict[str, Any]:
        """Return the initial states of all segments, `(segment, …)` by name."""
        first = self.ode.begin(inputs)
        later = {name: jnp.asarray(self.segments[name], y.dtype) for name, y in first.items()}
        return {name: jnp.concatenate([y[None], later[name]]) for name, y in first.items()}

    def _standardised_gaps(self, ended: Any, begins: Any, inside: Any, ok: Any) -> dict[str, Any]:
        """Return the constraint residuals at the knots, in units of the gap.

        Args:
            ended: the states at the end of all segments except the last, by name.
            begins: the initial states of all segments, by name.
            inside: whether each knot lies within the times of the data. Other knots have the
                residual 0.
            ok: whether the solve succeeded. If not, all residuals are 0.

        Returns:
            Arrays `(knots, …)`, with a key `"{state} at knots"` for each state.
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
    r"""Priors of the states at the knots, centred on interpolated observations.

    $s_k \sim N(y(\tau_k), \sigma)$ for the states $s_k$ at knot $\tau_k$, with linear interpolation
    $y$ of the observations.

    These priors use the data. To make them weak, choose a `scale` several times larger than the
    noise and than the change of a state between two observations.

    Args:
        data: a dataset with a coordinate `time` and observations of the states, NaN where missing.
        names: the names of the states. The data must have variables of the same names.
        knots: the times of the knots, in the units of the data. None may lie after the last time.
        scale: the standard deviation σ, in the units of the states: a number, or a dict of numbers
            by name.
        units: the unit and origin of `knots` if the data have dates, in the same form as for the
            layer: `day since 2001-01-01`.

    Returns:
        A normal distribution over the knots for each state, for `MultipleShooting(segments=…)`.

    Raises:
        DataError: for a name that the data do not have, or dates without `units`.
        ModelError: for knots after the data and for a scale that is missing or not positive.
    """
    if has_dates(data, "time") and SINCE not in units:
        raise DataError(
            "time holds dates, but knots are numbers: say what they count, as the layer does, by "
            f"units='{unit_of(units) or DAY} since {in_words(data['time'].values[0])}'"
        )
    times = checked_times(as_numbers(data, "time", units))
    priors, knots = {}, np.asarray([*knots], float)
    if (knots > times[-1]).any():
        raise ModelError(
            f"the knot at {knots.max():g} lies after the data, which end at {times[-1]:g}"
        )
    # Interpolate the observations, averaged where several share one time.
    for name in names:
        spread = scale.get(name) if isinstance(scale, Mapping) else scale
        if not isinstance(spread, Real) or not spread > 0:
            raise ModelError(f"the scale of '{name}' must be positive, not {spread!r}")
        values = observations(data, name)
        seen = ~np.isnan(values)
        centre = np.interp(knots, *averaged(times[seen], values[seen]))
        priors[name] = dist.Normal(jnp.asarray(centre), float(spread))
    return priors
