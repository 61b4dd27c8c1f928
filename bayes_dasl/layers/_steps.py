"""Solver steps that survive infinite or undefined rates.

`safe_rates` replaces rates that are not finite; `RetryingController` repeats failed steps.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

# (largest valid rate, largest valid state) in double and in single precision. The square of the
# largest rate is still finite. A step with the largest rate ends beyond the largest state, unless
# the step is very short.
_DOUBLE, _SINGLE = (1e100, 1e60), (1e18, 1e14)
# Factor by which a failed step is shortened, as in Diffrax for very large errors. A tenth would
# cost Kvaerno5 three times as many steps.
_SHORTER = 0.2
# The first step, as a share of the solve, if the usual choice is not finite.
_FIRST = 1e-6


def limits(dtype: Any) -> tuple[float, float]:
    """Return the largest valid rate and the largest valid state for a dtype."""
    return _DOUBLE if jnp.finfo(jnp.result_type(dtype, float)).bits > 32 else _SINGLE


def _all(fine: Any, values: Any) -> Bool[Array, ""]:
    """Whether the condition `fine` holds for every number in a tree."""
    return jnp.all(jnp.asarray([jnp.all(fine(v)) for v in jax.tree.leaves(values)]))


def _are_rates(values: Any) -> Bool[Array, ""]:
    """Whether all rates in a tree are below the largest valid rate."""
    return _all(lambda v: jnp.abs(v) < limits(v.dtype)[0], values)


def _where_trees(which: Bool[Array, ""], these: Any, those: Any) -> Any:
    """Return the tree `these` if `which` is true, else `those`, as `jnp.where` does for arrays."""
    return jax.tree.map(lambda this, that: jnp.where(which, this, that), these, those)


def _huge(rates: Any) -> Any:
    """Return a tree like `rates` that is filled with the largest valid rate."""
    return jax.tree.map(lambda rate: jnp.full_like(rate, limits(rate.dtype)[0]), rates)


@eqx.filter_custom_jvp
def safe_rates(rates: Any, t: Any, y: Any, known: Any) -> Any:
    """Return `rates(t, y)`, or huge rates without a gradient if any rate is not finite.

    A step that is too long may leave the domain of the equation. Huge rates make the error estimate
    of that step huge, so that the solver rejects it. Reverse mode multiplies the gradient of a
    rejected step by zero. This gradient must be finite, so it is taken at `known`.

    Args:
        rates: a function `(t, y)` that returns rates by state.
        t: the time.
        y: the states by name.
        known: a pair of a time and states at which the rates are finite.
    """
    found = rates(t, y)
    return _where_trees(_are_rates(found), found, _huge(found))


@safe_rates.def_jvp
def _safe_rates_jvp(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    rates, t, y, known = primals
    # Where the rates are not finite, differentiate at `known` and drop the tangent.
    fine = _are_rates(rates(t, y))
    t, y = _where_trees(fine, (t, y), known)
    found, tangent = eqx.filter_jvp(lambda *p: p[0](*p[1:]), (rates, t, y), tangents[:3])
    return _where_trees(fine, found, _huge(found)), jax.tree.map(
        lambda d: jnp.where(fine, d, 0.0), tangent
    )


class RetryingController(diffrax.AbstractAdaptiveStepSizeController):
    """Step size controller that repeats a failed step with a fifth of its length.

    A step has failed if its result or error estimate is huge or not finite. Diffrax's controller
    cannot recover from an infinite state, because it computes NaN as the length of the next step.
    A solve without a successful step ends at `max_steps`.

    Args:
        controller: the controller that chooses the length of all other steps.

    Source: diffrax#752.
    """

    controller: diffrax.PIDController

    def __init__(self, controller: diffrax.PIDController):
        self.controller = controller

    @property
    def rtol(self) -> Any:
        return self.controller.rtol

    @property
    def atol(self) -> Any:
        return self.controller.atol

    @property
    def norm(self) -> Any:
        return self.controller.norm

    def wrap(self, direction: Any) -> "RetryingController":
        return RetryingController(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return jnp.where(jnp.isfinite(first) & (first > t0), first, t0 + _FIRST * (t1 - t0)), state

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        # Show the inner controller a step without an error in place of a failed one, and then
        # replace its decision by a rejection.
        fine = _all(lambda v: jnp.abs(v) < limits(v.dtype)[1], (y1_candidate, y_error))
        y1, error = _where_trees(
            fine, (y1_candidate, y_error), (y0, jax.tree.map(jnp.zeros_like, y_error))
        )
        keep, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1, args, error, error_order, controller_state
        )
        state = _where_trees(fine, state, controller_state)
        next_t1 = jnp.where(fine, next_t1, t0 + _SHORTER * (t1 - t0))
        return keep & fine, jnp.where(fine, next_t0, t0), next_t1, made_jump, state, result
