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

# Smallest damping factor of Newton's step.
_SHORTEST = 2.0**-20
# In units of machine epsilon: the smallest meaningful relative correction, and the inverse of the
# largest condition number (after scaling) at which equations still determine their unknowns.
_ROUNDING, _WORST_CONDITION = 10.0, 1e3


class DampedNewton(optx.AbstractRootFinder):
    r"""A damped Newton method: it halves a step until the next correction would be shorter.

    $y \leftarrow y - \lambda J(y)^{-1} f(y)$ with $\lambda \in \{1, \tfrac12, \tfrac14, \dots\}$

    y are the unknowns, f the residuals of the equations, J their Jacobian and λ the damping. The
    search ends when the correction $J^{-1} f$ is below `atol + rtol * abs(y)`, so the scale of the
    equations does not matter. Convergence is quadratic, so the root is far more exact than the
    tolerance. The search fails if even the smallest λ is too large, if the Jacobian is singular, or
    if numbers are not finite. The linear algebra is dense.

    Args:
        rtol: the relative tolerance.
        atol: the absolute tolerance, in the units of the unknowns.
        norm: the norm of a correction in units of the tolerance.

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
    """Search a root near a guess by `DampedNewton`, without a gradient.

    Args:
        system: a function of the vector of unknowns that returns as many residuals.
        guess: the start of the search, `(unknown,)`.
        rtol: the relative tolerance.
        atol: the absolute tolerance.
        max_steps: the largest number of steps.

    Returns:
        The root, or the guess if no root was found; whether a root was found; and the number of
        steps.
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
    """Whether a Jacobian is regular, independently of the scale of equations and unknowns."""
    # Divide rows, then columns, by their largest entry, before computing the condition number.
    scaled = jacobian / jnp.max(jnp.abs(jacobian), axis=1, keepdims=True)
    scaled = scaled / jnp.max(jnp.abs(scaled), axis=0, keepdims=True)
    norm = lambda matrix: jnp.max(jnp.sum(jnp.abs(matrix), axis=0))  # noqa: E731
    condition = norm(scaled) * norm(jnp.linalg.inv(scaled))
    # The condition number of a singular matrix is NaN, for which this comparison is false.
    return condition < 1 / (_WORST_CONDITION * jnp.finfo(jacobian.dtype).eps)


def iterate(
    system: System, guess: Flat, rtol: float, atol: float, max_steps: int
) -> tuple[Flat, Bool[Array, ""], Int[Array, ""]]:
    """Iterate a function to its fixed point, without a gradient.

    Args:
        system: a function of the vector of unknowns that returns the next iterate.
        guess: the first iterate, `(unknown,)`.
        rtol: the relative tolerance.
        atol: the absolute tolerance.
        max_steps: the largest number of steps.

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
    """Attach derivatives to a root by the implicit-function theorem.

    Args:
        system: the function of which `root` is a root. The derivatives are with respect to the
            arrays that the function captures.
        root: the root, from `search`.

    Returns:
        The same root, now differentiable.
    """
    return _implicit(eqx.filter_closure_convert(system, root), lax.stop_gradient(root))


@eqx.filter_custom_jvp
def _implicit(closed: Any, root: Any) -> Any:
    """Return a root of the system `closed`; its derivative is defined by `_implicit_jvp`."""
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
    """Solve equations inside a function of a model, for example for an equilibrium.

    The method is a damped Newton iteration. Derivatives follow from the implicit-function theorem.
    If no root is found, the unknowns are NaN. Inside an ODE the solver then tries a shorter step;
    otherwise the prediction has `ok=False`.

    Args:
        equations: a function of the unknowns that returns as many residuals as there are unknowns.
        guess: the start of the search: a number, an array, or a dict of numbers and arrays. No
            gradient flows through it.
        rtol: the relative tolerance of the root.
        atol: the absolute tolerance, in the units of the unknowns.
        max_steps: the largest number of steps.

    Returns:
        The root, with the structure of the guess; NaN if no root is found.

    Shapes: the residuals have the shapes of the guess.

    Raises:
        ModelError: if the numbers of residuals and unknowns differ.
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
