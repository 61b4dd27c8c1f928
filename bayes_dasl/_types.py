"""Names for what public signatures take."""

from collections.abc import Callable, Mapping
from typing import Any

import numpyro.distributions as dist
from jaxtyping import Array, Float

type Scalar = float | Float[Array, ""] | dist.Distribution
"""A number, or the distribution that stands in its place."""

type Values = Mapping[str, Float[Array, "..."]]
"""Named arrays: states, forcings, rates of change, observables."""

type VectorField = Callable[[Any, Values, Values], Values]
"""`vector_field(t, y, u)`: the rate of change of each state, given time, states and forcings."""
