"""The interface of all reparametrisations of a posterior, and the identity."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.compiling import Program
from ..._jax.devices import computing_devices
from ..._runs.journal import Arrays
from ...errors import MismatchError

# Number of rows that a program takes at once.
_BATCH = 100


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

    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return x `(n, dimension)` and log |det J| `(n,)` for many z."""
        return in_batches(_forward_rows, self, z)  # pyright: ignore

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Return z `(n, dimension)` for many x."""
        return in_batches(_inverse_rows, self, x)[0]

    def from_plain(
        self,
        x: Float[np.ndarray, "n dimension"],
        lp: Float[np.ndarray, " n"],
        gradient: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Transform positions, log densities and gradients from x to z; no solver runs.

        Args:
            x: unconstrained parameters.
            lp: log densities of x.
            gradient: gradients of `lp` by x, `(n, dimension)`.

        Returns:
            z, log densities of z, and their gradients by z.
        """
        return in_batches(_from_plain, self, x, lp, gradient)

    def to_plain(
        self,
        z: Float[np.ndarray, "n dimension"],
        lp: Float[np.ndarray, " n"],
        gradient: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Transform positions, log densities and gradients from z to x; no solver runs.

        Args:
            z: parameters of the reparametrisation.
            lp: log densities of z.
            gradient: gradients of `lp` by z, `(n, dimension)`.

        Returns:
            x, log densities of x, and their gradients by x.
        """
        return in_batches(_to_plain, self, z, lp, gradient)


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

    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return z unchanged, and log |det J| = 0 for each position."""
        return z, np.zeros(len(z))

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Return x unchanged."""
        return x


@runtime_checkable
class Reparametriser(Protocol):
    """Fits reparametrisations to draws, and to gradients of the log density at the draws.

    A fitted reparametrisation is a set of arrays that a journal can store. The attribute `kind`
    names such reparametrisations in a few words.

    With `evaluated_anew`, gradients in a new reparametrisation are computed by the solver.
    Otherwise they follow by the chain rule from gradients in the old one. Each class uses the
    cheaper way.
    """

    kind: str
    evaluated_anew: bool

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


def each_row(one: Callable[..., Any], *rows: Array) -> Any:
    """Apply a function to each row of some arrays.

    On a CPU rows are evaluated one after another, since the work for one row fits into the cache.
    On an accelerator they are evaluated as a batch.

    Args:
        one: the function of one row of each array.
        *rows: arrays with a leading axis of rows.
    """
    if computing_devices()[0].platform == "cpu":
        return jax.lax.map(lambda row: one(*row), rows)
    return jax.vmap(one)(*rows)


@Program
def _forward_rows(reparametrisation, z):
    return each_row(reparametrisation.forward, z)


@Program
def _inverse_rows(reparametrisation, x):
    return (each_row(reparametrisation.inverse, x),)


@Program
def _from_plain(reparametrisation, x, lp, gradient):
    def one(x, lp, gradient):
        z = reparametrisation.inverse(x)
        # log p(z) = log p(x) + log|det J|, and its gradient is Jᵀ ∇ₓ log p + ∇ log|det J|.
        (_, log_det), pull = jax.vjp(reparametrisation.forward, z)
        return z, lp + log_det, pull((gradient, jnp.ones(())))[0]

    return each_row(one, x, lp, gradient)


@Program
def _to_plain(reparametrisation, z, lp, gradient):
    def one(z, lp, gradient):
        x, log_det = reparametrisation.forward(z)
        slope = jax.grad(lambda q: reparametrisation.forward(q)[1])(z)
        # ∇ₓ log p = J⁻ᵀ (∇_z log p − ∇ log|det J|): the inverse has the Jacobian J⁻¹.
        (by_x,) = jax.vjp(reparametrisation.inverse, x)[1](gradient - slope)
        return x, lp - log_det, by_x

    return each_row(one, z, lp, gradient)


def in_batches(program: Any, shared: Any, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Run a program for any number of rows, in batches of one size, so that it compiles once.

    Args:
        program: a function of `shared` and of a batch of rows of each array; it returns arrays of
            rows.
        shared: an argument that all batches share.
        *arrays: arrays with a leading axis of rows.

    Returns:
        The arrays that the program returns, for all rows.
    """
    number, parts = len(arrays[0]), []
    for begin in range(0, number, _BATCH):
        # Copies of the last row fill the last batch; their results are dropped.
        index = np.minimum(np.arange(begin, begin + _BATCH), number - 1)
        parts.append(program(shared, *(np.asarray(a)[index] for a in arrays)))
    return tuple(
        np.concatenate([np.asarray(p) for p in column])[:number]
        for column in zip(*parts, strict=True)
    )
