"""Roots of equations, for a vector of unknowns,
with derivatives by the implicit-function theorem.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import lu_factor, lu_solve
from jaxtyping import Array, Bool, Float, Int

from .._jax.tree import frozen
from ..errors import ModelError

type Flat = Float[Array, " unknown"]
type System = Callable[[Flat], Flat]

_SHORTEST = 2.0**-20
# In units of the rounding of a number: no correction is smaller than the first, no equations that
# determine their unknowns have a condition (once they are scaled) worse than the second allows.
_ROUNDING, _WORST_CONDITION = 10.0, 1e3


class DampedNewton(optx.AbstractRootFinder):
    r"""Newton's method for a vector, with steps that are halved until the next correction is
    shorter.

    $y \leftarrow y - \lambda J(y)^{-1} f(y)$ with $\lambda \in \{1, \tfrac12, \tfrac14, \dots\}$

    It ends when the correction, which has the units of the unknowns, is below
    `atol + rtol * abs(y)`: so the scale of the equations does not matter, and the root is far more
    exact than the tolerance, since the order is two. It fails where no step is short enough, where
    the Jacobian is singular, or where numbers are not finite. Dense algebra.

    Source: Deuflhard (2011), Newton Methods for Nonlinear Problems, section 3.3.
    """

    rtol: float
    atol: float
    norm: Callable = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return jnp.asarray(jnp.inf), jnp.asarray(1.0)

    def step(self, fn, y, args, options, state, tags):
        value, aux = fn(y, args)
        factors = lu_factor(jax.jacfwd(lambda at: fn(at, args)[0])(y))
        correction = lu_solve(factors, value)
        scale = self.atol + jnp.maximum(self.rtol, _ROUNDING * jnp.finfo(y.dtype).eps) * jnp.abs(y)
        size = self.norm(correction / scale)

        def too_long(damping):
            following = lu_solve(factors, fn(y - damping * correction, args)[0])
            shorter = self.norm(following / scale) <= (1 - damping / 4) * size
            return ~shorter & ~(size < 1) & (damping > _SHORTEST)

        damping = lax.while_loop(too_long, lambda damping: damping / 2, jnp.ones_like(size))
        return y - damping * correction, (size, damping), aux

    def terminate(self, fn, y, args, options, state, tags):
        size, damping = state
        stuck = optx.RESULTS.where(
            damping > _SHORTEST, optx.RESULTS.successful, optx.RESULTS.nonlinear_divergence
        )
        return size < 1, stuck

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


def search(
    system: System, guess: Flat, rtol: float, atol: float, max_steps: int
) -> tuple[Flat, Bool[Array, ""], Int[Array, ""]]:
    """A root of a system near a guess, whether it is one, and the steps; no gradient flows through
    the search.
    """
    closed, guess = frozen((eqx.filter_closure_convert(system, guess), guess))
    solver = DampedNewton(rtol, atol)
    solution = optx.root_find(
        lambda y, _: closed(y), solver, guess, max_steps=max_steps, throw=False
    )
    ok = (solution.result == optx.RESULTS.successful) & jnp.all(jnp.isfinite(solution.value))
    ok = ok & _determined(jax.jacfwd(closed)(solution.value))
    return jnp.where(ok, solution.value, guess), ok, solution.stats["num_steps"]


def _determined(jacobian: Float[Array, "equation unknown"]) -> Bool[Array, ""]:
    """Whether equations determine their unknowns, whatever the scale of either."""
    scaled = jacobian / jnp.max(jnp.abs(jacobian), axis=1, keepdims=True)
    scaled = scaled / jnp.max(jnp.abs(scaled), axis=0, keepdims=True)
    norm = lambda matrix: jnp.max(jnp.sum(jnp.abs(matrix), axis=0))  # noqa: E731
    condition = norm(scaled) * norm(jnp.linalg.inv(scaled))
    # Of a singular matrix it is not a number.
    return condition < 1 / (_WORST_CONDITION * jnp.finfo(jacobian.dtype).eps)


def iterate(
    system: System, guess: Flat, rtol: float, atol: float, max_steps: int
) -> tuple[Flat, Bool[Array, ""], Int[Array, ""]]:
    """Where a system leads that is applied again and again, whether it settles, and the steps;
    without a gradient.
    """
    closed, guess = frozen((eqx.filter_closure_convert(system, guess), guess))
    solver = optx.FixedPointIteration(rtol, atol)
    solution = optx.fixed_point(
        lambda y, _: closed(y), solver, guess, max_steps=max_steps, throw=False
    )
    return solution.value, solution.result == optx.RESULTS.successful, solution.stats["num_steps"]


def differentiable(system: System, root: Flat) -> Flat:
    """A root that `search` has found, as a differentiable function of all that the system is closed
    over.
    """
    return _implicit(eqx.filter_closure_convert(system, root), lax.stop_gradient(root))


@eqx.filter_custom_jvp
def _implicit(closed: Any, root: Any) -> Any:
    return root


# As Optimistix's ImplicitAdjoint, which raises at a singular Jacobian even with throw=False.
@_implicit.def_jvp
def _implicit_jvp(primals, tangents):
    closed, root = primals
    root = _implicit(closed, root)
    _, along = eqx.filter_jvp(lambda system: system(root), (closed,), tangents[:1])
    along = jnp.zeros_like(root) if along is None else along  # of equations in which nothing moves
    return root, -jnp.linalg.solve(jax.jacfwd(closed)(root), along)


def find_root(
    equations: Callable[[Any], Any],
    guess: Any,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-12,
    max_steps: int = 64,
) -> Any:
    """Unknowns at which equations are zero, inside of a function of a model: an equilibrium, an
    inverse, a law.

    Newton's method, damped; derivatives follow from the implicit-function theorem, whatever the
    steps of the search were. Where none is found the unknowns are NaN, so that a solver tries a
    shorter step, and a layer is not `ok`.

    Args:
        equations: a function of the unknowns, which returns as many numbers as they have.
        guess: where the search starts: a number, an array or a dict of them. No gradient flows
            through it.
        rtol: the error that a root may have, relative to it.
        atol: the error that it may have besides, in its units.
        max_steps: the most steps.

    Shapes: those of the guess, also of what the equations return.

    Raises:
        ModelError: if the equations return another number of values.
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, float), guess))

    def system(y):
        return ravel_pytree(equations(unravel(y)))[0]

    if jax.eval_shape(system, flat).shape != flat.shape:
        raise ModelError(
            f"the equations return {jax.eval_shape(system, flat).size} values of {flat.size} "
            "unknowns"
        )
    root, ok, _ = search(system, flat, rtol, atol, max_steps)
    closed = jax.tree.map(
        lambda x: jnp.where(ok, x, lax.stop_gradient(x)) if eqx.is_inexact_array(x) else x,
        eqx.filter_closure_convert(system, flat),
    )
    return jax.tree.map(lambda x: jnp.where(ok, x, jnp.nan), unravel(differentiable(closed, root)))
