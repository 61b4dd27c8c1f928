"""`Chebyshev`: an explicit method with a large stability limit, for diffusion."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ModelError

# Damping ε of the stability polynomial, from Sommeijer et al. (1998).
_DAMPING = 2 / 13


class Chebyshev(diffrax.AbstractAdaptiveSolver):
    r"""Runge–Kutta–Chebyshev method of second order, for diffusion on many cells.

    It is explicit, so a step needs no linear algebra. With step size h it is stable for real
    negative eigenvalues of magnitude up to $0.65\,s^2 / h$ for s ≥ 8 ($0.5\,s^2 / h$ for s = 2). So
    each evaluation of the vector field advances about s times as far as in an ordinary explicit
    method. It does not suit equations dominated by advection.

    Args:
        stages: s, the number of evaluations of the vector field in a step, at least 2.

    Raises:
        ModelError: for fewer than two stages.

    Source: Sommeijer, Shampine & Verwer (1998), RKC: an explicit solver for parabolic PDEs.
    """

    stages: int = eqx.field(default=16, static=True)

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Any]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def __check_init__(self):
        if not isinstance(self.stages, int) or self.stages < 2:
            raise ModelError(f"a Chebyshev method has at least 2 stages, not {self.stages!r}")

    def order(self, terms: Any) -> int:
        return 2

    def error_order(self, terms: Any) -> int:
        return 3

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        return None

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any
    ) -> tuple[Any, Any, dict[str, Any], None, diffrax.RESULTS]:
        h = t1 - t0
        first, table = _coefficients(self.stages)
        slope = lambda t, y: jax.tree.map(lambda rate: h * rate, terms.vf(t, y, args))  # noqa: E731
        # 1. First stage: Y₁ = y₀ + μ̃₁ h f(y₀) (Sommeijer et al. 1998).
        k0 = slope(t0, y0)
        y = jax.tree.map(lambda y, k: y + first * k, y0, k0)

        # 2. Stages 2 to s follow the three-term recursion of Chebyshev polynomials.
        def stage(carry, row):
            before, last = carry
            mu, nu, mu_rate, gamma_rate, at = row
            k = slope(t0 + at * h, last)
            new = jax.tree.map(
                lambda y, y2, y1, k, k0: (
                    (1 - mu - nu) * y + mu * y2 + nu * y1 + mu_rate * k + gamma_rate * k0
                ),
                *(y0, last, before, k, k0),
            )
            return (last, new), None

        (_, y1), _ = jax.lax.scan(stage, (y0, y), tuple(map(jnp.asarray, table)))
        # 3. Error of the step: 0.8 (y₀ - y₁) + 0.4 h (f₀ + f₁) (Sommeijer et al., equation 3.1).
        k1 = slope(t1, y1)
        error = jax.tree.map(lambda a, b, k0, k1: 0.8 * (a - b) + 0.4 * (k0 + k1), y0, y1, k0, k1)
        return y1, error, dict(y0=y0, y1=y1, k0=k0, k1=k1), None, diffrax.RESULTS.successful


def _coefficients(stages: int) -> tuple[float, np.ndarray]:
    r"""Coefficients of the method with the given number of stages s.

    Returns:
        The weight $\tilde\mu_1$ of the first stage, and an array `(5, s - 1)`. Its rows are $\mu$,
        $\nu$, $\tilde\mu$, $\tilde\gamma$ and the evaluation time as a fraction of the step. Its
        columns are the stages 2 to s.
    """
    # 1. T_j, T_j' and T_j'' at w₀, slightly above 1, so that the method is damped.
    w0 = 1 + _DAMPING / stages**2
    basis = [np.polynomial.Chebyshev.basis(j) for j in range(stages + 1)]
    value, slope, bend = (np.array([p.deriv(m)(w0) for p in basis]) for m in range(3))
    w1 = slope[-1] / bend[-1]
    # 2. The choice of b_j makes every stage second-order accurate; a_j makes it consistent.
    b = np.empty(stages + 1)
    b[2:] = bend[2:] / slope[2:] ** 2
    b[:2] = b[2]
    a = 1 - b * value
    # 3. The times of the stages, as fractions of the step.
    times = np.zeros(stages + 1)
    times[2:] = w1 * bend[2:] / slope[2:]
    times[1] = times[2] / slope[2]
    # 4. Weights of the recursion, one column for each of the stages 2 to s.
    last, new = np.arange(1, stages), np.arange(2, stages + 1)
    mu, nu = 2 * b[new] * w0 / b[last], -b[new] / b[new - 2]
    mu_rate = 2 * b[new] * w1 / b[last]
    return float(b[1] * w1), np.stack([mu, nu, mu_rate, -a[last] * mu_rate, times[last]])
