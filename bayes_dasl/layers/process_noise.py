"""`ProcessNoise`: noise on the states of an ODE, for model errors that accumulate with time."""

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
    r"""Process noise on states of an ODE: random rates, for model errors that accumulate.

    $\dot y = f(t, y, u) + \sigma z_k / \sqrt h, \quad z_k \sim N(0, 1)$, or
    $\dot y = f(t, y, u) + \sigma y z_k / \sqrt h$ if `relative`

    Time is divided into steps of equal length h, and $z_k$ is the random increment of step k; f is
    the vector field. The added rate is constant within a step. At the ends of steps the summed
    noise is a Brownian motion. A step as long as the time between data is short enough, unless the
    states change faster. With `relative`, the logarithm of the state follows a Brownian motion (in
    Stratonovich's sense), so a positive state stays positive.

    The increments are inferred. Increments after the data keep their prior, so that a forecast
    becomes wider with time. All members of a population share the same noise. Steady states of
    doses are computed without it.

    Args:
        scale: σ of each noisy state by name: numbers, or random leaves such as
            `dist.HalfNormal(0.1)`. Its unit is that of the state per square root of time; if
            `relative`, one per square root of time.
        grid: (start, end, number of steps) of the evenly spaced steps. Start and end are numbers in
            the units of time of the layer, for dates by default days since 1970. **The grid must
            cover the times of forecasts too.** A known time beyond it is refused; for a time that
            JAX traces, the prediction has `ok=False`.
        relative: whether the noise is proportional to the state.
        path: the increments of each state by name, `(steps,)`. By default random leaves N(0, 1).

    Raises:
        ModelError: if there is no state, the grid or the path is invalid, or a scale may be
            negative.

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
        """Check that each noisy state exists and is a scalar.

        Args:
            shapes: the shape of each state of the layer, by name.

        Raises:
            ModelError: if a noisy state is unknown, or is an array.
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
        """Refuse data after the end of the grid.

        Args:
            times: the times of the data, in increasing order.

        Raises:
            DataError: if the last time lies after the end of the grid.
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
            times: all its times, in increasing order. (Under `jit`, a single element of a known
                array would be traced.)

        Returns:
            Whether start and times lie inside the grid.

        Raises:
            DataError: if the start or a time is outside the grid and JAX does not trace it.
        """
        # 1. Refuse known times outside the grid; 2. return a flag for traced times.
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
        """The length h of a step of the grid."""
        start, end, steps = self.grid
        return (end - start) / steps

    @property
    def edges(self) -> Float[Array, " edge"]:
        """The times between two steps of the grid, without its start and end."""
        begin, end, steps = self.grid
        return jnp.linspace(begin, end, steps + 1)[1:-1]

    def added(self, t: Any, y: Values) -> dict[str, Any]:
        """Return the rates that the noise adds: σ z_k / √h, times the state if `relative`.

        Args:
            t: the time, which selects the step k.
            y: the states, by name.

        Returns:
            The added rates by noisy state.
        """
        # Find the step by the same edges at which the solver restarts. Dividing by the step length
        # could round to the other side of an edge.
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
    """Return the prior of the increments of one state: independent N(0, 1)."""
    return dist.Normal(0.0, 1.0).expand((steps,)).to_event(1)
