"""`ProcessNoise`: noise on the states of an ODE, whose errors accumulate with time."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._statistics.describe_distributions import may_be_negative
from ..errors import DataError, ModelError
from ..random import Values, shape_of
from ._linear import AbstractLinear
from ._times import ROUNDING, checked_grid, known


class ProcessNoise(AbstractLinear):
    r"""Process noise on states, with an unknown path: model errors that grow with the horizon.

    $\dot y = f(t, y, u) + \sigma z_k / \sqrt h, \quad z_k \sim N(0, 1)$ in the k-th of the steps of
    length h, or $f + \sigma y z_k / \sqrt h$ if `relative`

    The added rate is constant within a step. At the ends of steps the noise is a Brownian motion,
    so a step as long as the time between data is fine enough, unless the equation is faster.
    `relative` noise is a Brownian motion of the logarithm (in Stratonovich's sense), so a positive
    state stays positive. The increments $z_k$ are inferred. Increments after the data keep their
    prior, so that a forecast widens. Members of a population share the noise. Steady states of
    doses ignore the noise.

    Args:
        scale: σ of each noisy state by name: numbers or random leaves such as
            `dist.HalfNormal(0.1)`, in units of the state per square root of time, or per square
            root of time if `relative`.
        grid: (start, end, steps) of the steps, evenly spaced, numbers in the units of time of the
            data; for dates the layer's units, days since 1970 by default. **It must
            cover the times of forecasts too**: a time beyond it is refused, or fails where a layer
            finds it out on its way.
        relative: whether noise is in proportion to the state.
        path: the increments of each state, `(steps, …)`, random leaves Normal(0, 1) unless given.

    Raises:
        ModelError: for no state, a bad grid, or a scale that may be negative.

    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, 3.4; Wong & Zakai
    (1965).
    """

    latent_fields: ClassVar[tuple[str, ...]] = ("path",)
    weights_field: ClassVar[str] = "path"
    is_process_noise: ClassVar[bool] = True

    scale: dict[str, Any]
    grid: tuple[float, float, int] = eqx.field(static=True)
    relative: bool = eqx.field(static=True)
    path: dict[str, Any]

    def __init__(
        self,
        scale: Mapping[str, Any],
        grid: tuple[float, float, int],
        *,
        relative: bool = False,
        path: Mapping[str, Any] | None = None,
    ):
        if not isinstance(scale, Mapping) or not scale:
            raise ModelError(
                f"ProcessNoise takes a scale for each state that has noise, by name, not {scale!r}"
            )
        for name, value in scale.items():
            if may_be_negative(value):
                raise ModelError(
                    f"the scale of the process noise of '{name}' must be positive, as HalfNormal is"
                )
        self.scale = dict(scale)
        self.grid = checked_grid(grid)
        self.relative = bool(relative)
        self.path = (
            {name: _increments(self.grid[2]) for name in scale} if path is None else dict(path)
        )
        if {*self.path} != {*scale} or any(
            shape_of(z) != (self.grid[2],) for z in self.path.values()
        ):
            raise ModelError(
                f"path must hold {self.grid[2]} increments for each of {', '.join(scale)}"
            )

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the noise is on scalar states.

        Args:
            shapes: the shapes of the states, by name.

        Raises:
            ModelError: for an unknown state, or one that is an array.
        """
        for name in self.scale:
            if name not in shapes:
                raise ModelError(
                    f"process noise names '{name}', but the states are {', '.join(shapes)}"
                )
            if shapes[name]:
                raise ModelError(
                    f"process noise is for states that are numbers: '{name}' has the shape "
                    f"{shapes[name]}"
                )

    def refuse_times(self, times: Float[np.ndarray, " time"]) -> None:
        """Refuse data beyond the grid.

        Args:
            times: the times of the data, in increasing order.

        Raises:
            DataError: if the last time lies beyond the grid.
        """
        last = self.grid[1]
        if times[-1] > last + ROUNDING * self.step:
            raise DataError(f"time {times[-1]:g} lies beyond the grid of the process noise, which "
                f"ends at {last:g}: "
                            "build it with a grid that covers data and forecasts")  # fmt: skip

    def covers(self, start: Any, times: Any) -> Bool[Array, ""]:
        """Whether the grid covers a solve.

        Args:
            start: the start of the solve.
            times: all its times, in increasing order. (The last one alone would already be traced.)

        Returns:
            A flag, for times that are traced.

        Raises:
            DataError: if times are known and lie outside the grid.
        """
        # 1. Refuse what is known now; 2. return a flag for what is traced.
        first, last, _ = self.grid
        slack = ROUNDING * self.step
        until = known(times)
        since = known(start)
        if until is not None:
            self.refuse_times(until)
        if since is not None and np.min(since) < first - slack:
            raise DataError(
                f"the model starts at {np.min(since):g}, before the grid of the process noise at "
                f"{first:g}"
            )
        return (start >= first - slack) & (times[-1] <= last + slack)

    @property
    def step(self) -> float:
        """Length h of a step of the grid."""
        start, end, steps = self.grid
        return (end - start) / steps

    @property
    def edges(self) -> Float[Array, " edge"]:
        """Times between two steps of the grid."""
        begin, end, steps = self.grid
        return jnp.linspace(begin, end, steps + 1)[1:-1]

    def added(self, t: Any, y: Values) -> dict[str, Any]:
        """Added rates of states: σ z_k / √h, times the state if `relative`.

        Args:
            t: the time.
            y: the states, by name.

        Returns:
            The rates by state.
        """
        # Search in the very edges at which the solver starts anew: a quotient could round to the
        # other side of one.
        now = jnp.searchsorted(self.edges, t, side="right")
        root = math.sqrt(self.step)
        kicks = {
            name: scale * jnp.asarray(self.path[name])[now] / root
            for name, scale in self.scale.items()
        }
        return {name: kick * y[name] if self.relative else kick for name, kick in kicks.items()}

    @property
    def coefficients(self) -> Float[Array, " size"]:
        return jnp.concatenate(
            [scale * jnp.asarray(self.path[name]) for name, scale in sorted(self.scale.items())]
        )

    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "ProcessNoise":
        # Scales become 1, and the path holds their product with the increments.
        names = sorted(self.scale)
        parts = dict(zip(names, jnp.split(coefficients, len(names)), strict=True))
        ones = dict.fromkeys(self.scale, 1.0)
        return eqx.tree_at(
            lambda noise: (noise.scale, noise.path), self, (ones, {n: parts[n] for n in self.path})
        )


def _increments(steps: int) -> dist.Distribution:
    return dist.Normal(0.0, 1.0).expand((steps,)).to_event(1)
