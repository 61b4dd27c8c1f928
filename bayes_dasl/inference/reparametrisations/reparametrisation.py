"""The interface of all reparametrisations of a posterior, and the identity."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._jax.compiling import Program, in_batches
from ..._jax.devices import computing_devices
from ..._runs.journal import Arrays
from ...errors import MismatchError


class Reparametrisation(eqx.Module):
    r"""An invertible map $z \mapsto x$ to unconstrained parameters $x$, with Jacobian $J$.

    The density of $z$ is $p(x(z))\,|\det J(z)|$, so the posterior itself does not change. A
    subclass defines `forward` and `inverse`; all other methods follow from them. The attribute
    `kind` is its name in results.
    """

    kind: ClassVar[str]

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters x(z), and log |det J(z)|."""
        raise NotImplementedError

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x), the inverse of `forward`."""
        raise NotImplementedError

    @property
    def active(self) -> "Reparametrisation":
        """Return this map if it is switched on, else the identity, whose program is cheaper."""
        return self

    def log_density(
        self, log_density: Callable[[Array], Array], z: Float[Array, " dimension"]
    ) -> Float[Array, ""]:
        """Return the log density of z, or −∞ where it is NaN.

        Args:
            log_density: the log density of x.
            z: parameters of the reparametrisation.
        """
        x, log_det = self.forward(z)
        value = log_density(x) + log_det
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def value_and_gradient(
        self,
        value_and_gradient: Callable[[Array], tuple[Array, Array]],
        z: Float[Array, " dimension"],
    ) -> tuple[Float[Array, ""], Float[Array, " dimension"]]:
        """Return the log density of z, and its gradient by z.

        Args:
            value_and_gradient: returns the log density of x and its gradient by x.
            z: parameters of the reparametrisation.
        """
        (x, log_det), pull = jax.vjp(self.forward, z)
        value, gradient = value_and_gradient(x)
        return value + log_det, pull((gradient, jnp.ones(())))[0]

    def transformed(
        self, v: Float[Array, " dimension"], lp: Array, gradient: Array, back: Bool[Array, ""]
    ) -> tuple[Array, Array, Array, Array]:
        """Transform a position, its log density and its gradient from z to x, or from x to z.

        Args:
            v: z, or x if `back`.
            lp: the log density of `v`.
            gradient: the gradient of `lp` by `v`.
            back: whether to transform from x to z.

        Returns:
            x or z, log |det ∂x/∂z|, and the log density and its gradient there.
        """
        z = jnp.where(back, self.inverse(v), v)
        (x, log_det), pull = jax.vjp(self.forward, z)
        # log p(z) = log p(x) + log|det J|, and its gradient is Jᵀ ∇ₓ log p + ∇ log|det J|.
        (by_z,) = pull((gradient, jnp.ones(())))
        # ∇ₓ log p = J⁻ᵀ (∇_z log p − ∇ log|det J|): the inverse has the Jacobian J⁻¹.
        (slope,) = pull((jnp.zeros_like(x), jnp.ones(())))
        (by_x,) = jax.vjp(self.inverse, x)[1](gradient - slope)
        other = (z, lp + log_det, by_z), (x, lp - log_det, by_x)
        moved, lp, gradient = jax.tree.map(lambda a, b: jnp.where(back, a, b), *other)
        return moved, log_det, lp, gradient

    def transform_many(
        self,
        v: Float[np.ndarray, "n dimension"],
        lp: Float[np.ndarray, " n"],
        gradient: Float[np.ndarray, "n dimension"],
        *,
        back: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the results of `transformed` for many positions, as arrays of rows."""
        program = functools.partial(_transformed_rows, (self, back))
        return in_batches(program, v, lp, gradient)  # pyright: ignore

    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return x `(n, dimension)` and log |det J| `(n,)` for many z."""
        return self.transform_many(z, np.zeros(len(z)), np.zeros_like(z), back=False)[:2]

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return z `(n, dimension)` and log |det J| `(n,)` for many x."""
        return self.transform_many(x, np.zeros(len(x)), np.zeros_like(x), back=True)[:2]


class Identity(Reparametrisation):
    r"""The identity $x = z$ with $\log|\det J| = 0$: the unconstrained parameters themselves."""

    kind: ClassVar[str] = "plain"

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return x = z, and log |det J| = 0."""
        return z, jnp.zeros(())

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return x unchanged."""
        return x

    # Compiled programs stay as small as the density itself: no Jacobian, no product with it.
    def log_density(
        self, log_density: Callable[[Array], Array], z: Float[Array, " dimension"]
    ) -> Float[Array, ""]:
        """Return the given log density at z, without a Jacobian term."""
        return log_density(z)

    def value_and_gradient(
        self,
        value_and_gradient: Callable[[Array], tuple[Array, Array]],
        z: Float[Array, " dimension"],
    ) -> tuple[Float[Array, ""], Float[Array, " dimension"]]:
        """Return the given log density and gradient at z, without a Jacobian term."""
        return value_and_gradient(z)

    def transform_many(
        self, v: np.ndarray, lp: np.ndarray, gradient: np.ndarray, *, back: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the arguments unchanged, and log |det J| = 0 for each position."""
        return v, np.zeros(len(v)), lp, gradient


@runtime_checkable
class Reparametriser(Protocol):
    """Fits reparametrisations to draws, and to gradients of the log density at the draws.

    A fitted reparametrisation is a set of arrays that a journal can store. The attribute `kind`
    names such reparametrisations in a few words.

    With `evaluated_anew`, gradients in a new reparametrisation are computed by the solver.
    Otherwise they follow by the chain rule from gradients in the old one. Each class uses the
    cheaper way. With `ends_early`, a fit to few draws is good enough to end the warm-up.
    """

    kind: str
    evaluated_anew: bool
    ends_early: bool

    @property
    def like(self) -> Any:
        """A reparametrisation of the right class and shapes."""
        ...

    def from_draws(
        self,
        positions: Float[np.ndarray, "n dimension"],
        gradients: Float[np.ndarray, "n dimension"],
    ) -> Arrays:
        """Return the arrays of the reparametrisation that is fitted to draws.

        Args:
            positions: the draws, as unconstrained parameters.
            gradients: gradients of the log density at the draws.
        """
        ...

    def restored(self, arrays: Arrays) -> Reparametrisation:
        """Return the reparametrisation from its arrays."""
        ...


def arrays_of(reparametrisation: Any) -> Arrays:
    """Return the arrays of a reparametrisation by name, for a journal."""
    leaves = jax.tree.leaves(reparametrisation)
    return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def from_arrays(arrays: Mapping[str, Any], like: Any) -> Any:
    """Return a reparametrisation from the arrays that `arrays_of` returned.

    Args:
        arrays: the arrays by name.
        like: a reparametrisation of the same class and shapes.

    Raises:
        MismatchError: if arrays are missing, since another version of the package wrote the
            checkpoint.
    """
    structure = jax.tree.structure(like)
    names = [f"leaf {i}" for i in range(structure.num_leaves)]
    if not {*names} <= {*arrays}:
        raise MismatchError(
            "the checkpoint holds coordinates of another version of bayes_dasl: delete it, and fit "
            "anew"
        )
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


# One compiled program serves all maps of many rows.
@Program
def _transformed_rows(shared, *rows):
    reparametrisation, back = shared
    # On a CPU rows are evaluated one after another, since the work for one row fits into the cache.
    at_once = None if computing_devices()[0].platform == "cpu" else len(rows[0])
    return jax.lax.map(
        lambda row: reparametrisation.transformed(*row, back), rows, batch_size=at_once
    )
