"""One interface to all reparametrisations of a posterior; the identity is the default."""

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

# Rows that a program takes at once.
_BATCH = 100


class Reparametrisation(eqx.Module):
    r"""An invertible map $z \mapsto x$ to unconstrained parameters, with Jacobian $J$.

    The density of $z$ is $p(x(z))\,|\det J(z)|$, so the posterior itself does not change.
    A subclass defines `forward` and `inverse`; all else follows from them.
    """

    kind: ClassVar[str]

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters x(z), and log |det J| there."""
        raise NotImplementedError

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x)."""
        raise NotImplementedError

    @property
    def active(self) -> "Reparametrisation":
        """Return itself, or the identity if it is switched off, which needs a cheaper program."""
        return self

    def log_density(
        self, log_density: Callable[[Array], Array], z: Float[Array, " dimension"]
    ) -> Float[Array, ""]:
        """Return the log density of z, −∞ where it is not a number."""
        x, log_det = self.forward(z)
        value = log_density(x) + log_det
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def value_and_gradient(
        self,
        value_and_gradient: Callable[[Array], tuple[Array, Array]],
        z: Float[Array, " dimension"],
    ) -> tuple[Float[Array, ""], Float[Array, " dimension"]]:
        """Return the log density of z and its gradient by z."""
        (x, log_det), pull = jax.vjp(self.forward, z)
        value, gradient = value_and_gradient(x)
        return value + log_det, pull((gradient, jnp.ones(())))[0]

    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and log |det J| for many z."""
        return in_batches(_forward_rows, self, z)  # pyright: ignore

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Return z for many x."""
        return in_batches(_inverse_rows, self, x)[0]

    def from_plain(
        self,
        x: Float[np.ndarray, "n dimension"],
        lp: Float[np.ndarray, " n"],
        gradient: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Return z with log densities and gradients by z, from those by x; no solver runs."""
        return in_batches(_from_plain, self, x, lp, gradient)

    def to_plain(
        self,
        z: Float[np.ndarray, "n dimension"],
        lp: Float[np.ndarray, " n"],
        gradient: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Return x with log densities and gradients by x, from those by z; no solver runs."""
        return in_batches(_to_plain, self, z, lp, gradient)


class Identity(Reparametrisation):
    """The unconstrained parameters themselves: $x = z$, $\\log|\\det J| = 0$."""

    kind: ClassVar[str] = "plain"

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return z, and zero."""
        return z, jnp.zeros(())

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return x."""
        return x

    # Compiled programs stay as small as the density itself: no Jacobian, no product with it.
    def log_density(
        self, log_density: Callable[[Array], Array], z: Float[Array, " dimension"]
    ) -> Float[Array, ""]:
        """Return the log density as it is."""
        return log_density(z)

    def value_and_gradient(
        self,
        value_and_gradient: Callable[[Array], tuple[Array, Array]],
        z: Float[Array, " dimension"],
    ) -> tuple[Float[Array, ""], Float[Array, " dimension"]]:
        """Return value and gradient as they are."""
        return value_and_gradient(z)

    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return z unchanged, and log |det J| = 0 for each position."""
        return z, np.zeros(len(z))

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Return x."""
        return x


@runtime_checkable
class Reparametriser(Protocol):
    """Fits reparametrisations to draws and the gradients of the log density there.

    Fitted reparametrisations are arrays that a journal can keep. `kind` names them in one word;
    `like` is one of them, with the same shapes. With `evaluated_anew`, gradients in a new
    reparametrisation are evaluated by the solver, since this is cheaper than the chain rule.
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
        """Return the arrays fitted to draws and gradients of the log density."""
        ...

    def restored(self, arrays: Arrays) -> Reparametrisation:
        """Return the reparametrisation of such arrays."""
        ...


def arrays_of(reparametrisation: Any) -> Arrays:
    """Return a reparametrisation as arrays that a journal can keep."""
    leaves = jax.tree.leaves(reparametrisation)
    return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def from_arrays(arrays: Mapping[str, Any], like: Any) -> Any:
    """Return the reparametrisation that `arrays_of` took apart, of the same class as `like`.

    Raises:
        MismatchError: for arrays of a checkpoint that another version of the package wrote.
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
    """Apply a function to each row.

    On a CPU rows go one after another, since their work then fits its cache; else all together.
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
    """Run a program over any number of rows; batches of one size need one compilation."""
    number, parts = len(arrays[0]), []
    for begin in range(0, number, _BATCH):
        # The last batch is filled up with copies of the last row, which are dropped again.
        index = np.minimum(np.arange(begin, begin + _BATCH), number - 1)
        parts.append(program(shared, *(np.asarray(a)[index] for a in arrays)))
    return tuple(
        np.concatenate([np.asarray(p) for p in column])[:number]
        for column in zip(*parts, strict=True)
    )
