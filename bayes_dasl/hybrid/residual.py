"""`Residual`: a scientific model plus a learned correction."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import AbstractLayer
from ..layers._corrected import AbstractCorrected
from ..layers._parts import check_function, check_part, is_layer
from ..random import Values, VectorField, with_possible
from ._joined import AbstractHybrid
from .orthogonal import LayerProjection, Projection, check_corrected


class Residual(AbstractHybrid, AbstractCorrected):
    r"""A scientific model plus a learned correction of its rates or outputs.

    $s(t, y, u) + g(t, y, u)$, or $s(t, y, u) + y \odot g(t, y, u)$ if `relative`

    s is the science and g the closure; y are the states and u the forcings at time t. The closure
    may correct only some of the states or outputs. With `relative`, a vector field is corrected in
    its rate per unit of state, so that a positive state stays positive. The outputs of a layer are
    corrected by a share of themselves.

    With `orthogonal` the closure is replaced by its projection: $g_\perp = g - S c$ with $c =
    \arg\min_c \sum_j \lVert w_j (g(x_j) - S(x_j)\,c) \rVert^2$. $x_j$ are the rows of a dataset. S
    are the sensitivities of the science, that is, its derivatives with respect to its random leaves
    at the values of the present draw. So the closure does not take over what the science can
    explain at these rows. The weight $w_j$ is one over the standard deviation of each state or
    output. For a vector field with `relative`, it is one over the state itself. The projection uses
    the random leaves that the science has when the `Residual` is built.

    Args:
        science: a vector field `(t, y, u)`, or a layer.
        closure: a function `(t, y, u)`, such as a `Network`, that returns corrections by name, in
            the units of the corrected value. With `relative`, corrections have no unit, or for
            rates one over time.
        relative: whether g is multiplied by the corrected state or output.
        orthogonal: the dataset for the projection. For a vector field it holds every state and
            forcing that is read. Rows with gaps are left out, the index is the time `t`, and dates
            become days since 1970. For a layer the dataset holds times, forcings and other
            coordinates.
        extra: with a layer, the data variables that only the closure reads.

    Raises:
        ModelError: if the closure is no function. When called, if it corrects an unknown value, or
            if the dataset of `orthogonal` lacks a variable.
        DataError: if a variable with a `relative` correction is zero in the dataset of
            `orthogonal`.

    Source: Plumlee (2017), Bayesian calibration of inexact computer models.

    Example:
        ```python
        network = bd.Network.fourier(bd.standardise(train, "y"), ("y",), dist.HalfNormal(0.1))
        layer = bd.ODE(bd.Residual(Decay(bd.between(0.1, 1.0)), network), {"y": 2.0})
        ```
    """

    science: VectorField | AbstractLayer
    closure: VectorField
    relative: bool = eqx.field(default=False, static=True)
    orthogonal: Projection | LayerProjection | None = None

    def __init__(
        self,
        science: VectorField | AbstractLayer,
        closure: VectorField,
        relative: bool = False,
        *,
        orthogonal: xr.Dataset | None = None,
        extra: tuple[str, ...] = (),
    ):
        check_part(science, "science")
        check_function(closure, "closure")
        if orthogonal is not None and not isinstance(orthogonal, xr.Dataset):
            raise ModelError(f"orthogonal takes the data, an xarray.Dataset, not {orthogonal!r}")
        self.science = science
        self.closure = closure
        self.relative = relative
        self.extra = tuple(extra)
        self.orthogonal = None
        if orthogonal is not None and is_layer(science):
            self.orthogonal = LayerProjection(science, orthogonal, self.extra)
        elif orthogonal is not None:
            self.orthogonal = Projection(science, orthogonal)
            if relative:
                self.orthogonal.refuse_zeros(with_possible(closure))

    @property
    def parts(self):
        return {"science": self.science}

    def prepared(self) -> Any:
        """Return a copy in which the projection is computed, since it is constant in a solve."""
        inside = super().prepared()
        if not isinstance(inside.orthogonal, Projection):
            return inside
        return eqx.tree_at(
            lambda r: r.orthogonal.shift,
            inside,
            inside._shift(inside.orthogonal),
            is_leaf=lambda x: x is None,
        )

    def join(self, t, y: Values, u: Values, found) -> Values:
        added = self._correction(t, y, u)
        if isinstance(self.orthogonal, Projection):
            added = self.orthogonal.removed(
                self.science, added, self._shift(self.orthogonal), t, y, u
            )
        return self._corrected(found["science"], added)

    def _shift(self, projection: Projection) -> Any:
        """Return the coefficients c of the projection, from `prepared` or computed now."""
        if projection.shift is not None:
            return projection.shift
        return projection.coefficients(self.science, self._correction, self.relative)

    def _correction(self, t, y: Values, u: Values) -> Values:
        """Return the correction at a point by name, in the units of the corrected values."""
        added = {name: jnp.asarray(value) for name, value in self.closure(t, y, u).items()}
        if not self.relative:
            return added
        return {name: y[name] * value if name in y else value for name, value in added.items()}

    def _corrected(self, values: Values, added: Values) -> Values:
        """Add the corrections `added` to the values of the science, by name."""
        check_corrected(added, values)
        return dict(values) | {name: values[name] + value for name, value in added.items()}

    def _over_times(self, inputs: Inputs, found) -> Values:
        joined = super()._over_times(inputs, found)
        if not isinstance(self.orthogonal, LayerProjection):
            return joined
        # Subtract the part of the correction that a shift of scientific parameters explains.
        shift = self.orthogonal.shift(self.science, self._added)
        removed = self.orthogonal.along(self.science, inputs, shift)
        changed = self._added(inputs, found["science"])
        return {
            name: value - removed[name] if name in changed else value
            for name, value in joined.items()
        }

    def _added(self, inputs: Inputs, values: Values) -> Values:
        """Return the correction of a layer's values at all times, `(time, …)` by name.

        Args:
            inputs: the times and forcings.
            values: the values of the science at these times, by name.
        """

        def at(t, values):
            return self._correction(t, self.known({}, {"science": values}), inputs.forced(t))

        return jax.vmap(at)(inputs.times, dict(values))
