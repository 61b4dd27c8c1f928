"""Solver steps that survive infinite or undefined rates: safe rates, and retried steps."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

# Largest rate and largest state, for each precision. The square of the largest rate is finite. A
# step with a larger rate ends beyond the largest state, unless it is very short.
_DOUBLE, _SINGLE = (1e100, 1e60), (1e18, 1e14)
# Factor by which a failed step is shortened, as in Diffrax for very large errors. A tenth would
# cost Kvaerno5 three times as many steps.
_SHORTER = 0.2
# The first step, as a share of the solve, if the usual choice is not finite.
_FIRST = 1e-6


def limits(dtype: Any) -> tuple[float, float]:
    """The largest valid rate and the largest valid state of a dtype."""
    return _DOUBLE if jnp.finfo(jnp.result_type(dtype, float)).bits > 32 else _SINGLE


def _all(fine: Any, values: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.asarray([jnp.all(fine(v)) for v in jax.tree.leaves(values)]))


def _are_rates(values: Any) -> Bool[Array, ""]:
    return _all(lambda v: jnp.abs(v) < limits(v.dtype)[0], values)


def _where_trees(which: Bool[Array, ""], these: Any, those: Any) -> Any:
    return jax.tree.map(lambda this, that: jnp.where(which, this, that), these, those)


def _huge(rates: Any) -> Any:
    return jax.tree.map(lambda rate: jnp.full_like(rate, limits(rate.dtype)[0]), rates)


@eqx.filter_custom_jvp
def safe_rates(rates: Any, t: Any, y: Any, known: Any) -> Any:
    """`rates(t, y)`, replaced by huge rates without a gradient where they are not finite.

    A step that is too long may leave the domain of the equation. Huge rates make its error estimate
    huge, so that it is rejected. The gradient through a rejected step is multiplied by zero, so it
    must be finite: it is taken at `known`, a time and states with finite rates.
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
    """Step size controller that retries a step with a fifth of its length if it is not finite.

    Diffrax's own controller cannot recover from an infinite state, since the next length is NaN.
    A solve that finds no good step ends at `max_steps`.

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
        # The inner controller sees a step without an error instead of one that is not finite; its
        # decision is then replaced by a rejection.
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
