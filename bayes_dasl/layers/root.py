"""`find_root`: roots of equations, differentiated by the implicit-function theorem."""

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

# Newton's step is not damped below this factor.
_SHORTEST = 2.0**-20
# In units of machine epsilon: the smallest meaningful correction, and the inverse of the worst
# condition number (after scaling) at which equations still determine their unknowns.
_ROUNDING, _WORST_CONDITION = 10.0, 1e3


class DampedNewton(optx.AbstractRootFinder):
    r"""Damped Newton method, whose steps are halved until the next correction is shorter.

    $y \leftarrow y - \lambda J(y)^{-1} f(y)$ with $\lambda \in \{1, \tfrac12, \tfrac14, \dots\}$

    It ends when the correction, in the units of the unknowns, is below `atol + rtol * abs(y)`. So
    the scale of the equations does not matter. Convergence is quadratic, so the root is far more
    exact than the tolerance. The method fails if no step is short enough, the Jacobian is singular,
    or numbers are not finite. Its linear algebra is dense.

    Source: Deuflhard (2011), Newton Methods for Nonlinear Problems, section 3.3.
    """

    rtol: float
    atol: float
    norm: Callable = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return jnp.asarray(jnp.inf), jnp.asarray(1.0)

    def step(self, fn, y, args, options, state, tags):
        # 1. Newton correction J⁻¹ f(y), in units of the tolerance.
        value, aux = fn(y, args)
        factors = lu_factor(jax.jacfwd(lambda at: fn(at, args)[0])(y))
        correction = lu_solve(factors, value)
        scale = self.atol + jnp.maximum(self.rtol, _ROUNDING * jnp.finfo(y.dtype).eps) * jnp.abs(y)
        size = self.norm(correction / scale)

        # 2. Halve λ until the next correction, with the old Jacobian, is shorter (Deuflhard's
        # restricted natural monotonicity test): |Δ(λ)| ≤ (1 - λ/4) |Δ(0)|.
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
    """Search a root near a guess, without a gradient.

    Returns:
        The root (the guess if none was found), whether it is one, and the number of steps.
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
    """Whether the Jacobian is regular, whatever the scale of equations and unknowns."""
    # Scale rows, then columns, by their largest entry, before the condition number is judged.
    scaled = jacobian / jnp.max(jnp.abs(jacobian), axis=1, keepdims=True)
    scaled = scaled / jnp.max(jnp.abs(scaled), axis=0, keepdims=True)
    norm = lambda matrix: jnp.max(jnp.sum(jnp.abs(matrix), axis=0))  # noqa: E731
    condition = norm(scaled) * norm(jnp.linalg.inv(scaled))
    # The condition number of a singular matrix is NaN, for which this comparison is false.
    return condition < 1 / (_WORST_CONDITION * jnp.finfo(jacobian.dtype).eps)


def iterate(
    system: System, guess: Flat, rtol: float, atol: float, max_steps: int
) -> tuple[Flat, Bool[Array, ""], Int[Array, ""]]:
    """Fixed-point iteration, without a gradient.

    Returns:
        The last iterate, whether the iteration converged, and the number of steps.
    """
    closed, guess = frozen((eqx.filter_closure_convert(system, guess), guess))
    solver = optx.FixedPointIteration(rtol, atol)
    solution = optx.fixed_point(
        lambda y, _: closed(y), solver, guess, max_steps=max_steps, throw=False
    )
    return solution.value, solution.result == optx.RESULTS.successful, solution.stats["num_steps"]


def differentiable(system: System, root: Flat) -> Flat:
    """A root found by `search`, with its derivatives in all values that the system closes over."""
    return _implicit(eqx.filter_closure_convert(system, root), lax.stop_gradient(root))


@eqx.filter_custom_jvp
def _implicit(closed: Any, root: Any) -> Any:
    return root


# Implicit-function theorem: dy = -J⁻¹ (∂f/∂θ) dθ. Optimistix's ImplicitAdjoint does the same, but
# raises at a singular Jacobian even with throw=False.
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
    """Solve equations inside a function of a model, such as an equilibrium or an inverse.

    The method is a damped Newton iteration. Derivatives follow from the implicit-function theorem.
    If no root is found the unknowns are NaN: a solver then tries a shorter step, and a layer is not
    `ok`.

    Args:
        equations: a function of the unknowns that returns as many residuals.
        guess: the start of the search: a number, an array or a dict of them. It has no gradient.
        rtol: relative tolerance of the root.
        atol: absolute tolerance, in the units of the unknowns.
        max_steps: the most steps.

    Returns:
        The root, in the form of the guess; NaN if none is found.

    Shapes: the residuals have the shapes of the guess.

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
    # Without a root no gradient may flow, since the Jacobian may be singular.
    closed = jax.tree.map(
        lambda x: jnp.where(ok, x, lax.stop_gradient(x)) if eqx.is_inexact_array(x) else x,
        eqx.filter_closure_convert(system, flat),
    )
    return jax.tree.map(lambda x: jnp.where(ok, x, jnp.nan), unravel(differentiable(closed, root)))
