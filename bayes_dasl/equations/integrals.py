"""Numerical integrals by Gauss–Legendre quadrature with a fixed number of nodes."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError


def integrate(
    f: Callable, low: Any, high: Any, *, nodes: int = 20, panels: int = 1, scale: Any = 1.0
) -> Any:
    r"""Integrate a function of one number by Gauss–Legendre quadrature.

    $\int_a^b f(x)\,dx \approx \sum_i w_i f(x_i)$ with `nodes` Gauss–Legendre nodes in each of
    `panels` equal panels

    The rule is exact for polynomials of degree up to `2 * nodes - 1`. For smooth functions the
    error falls geometrically in `nodes`, and as `panels ** (-2 * nodes)`. The integral is
    differentiable in the parameters of `f`, in both limits and in `scale`.

    An infinite `high` is given as `math.inf`. The integral then uses the substitution
    $x = a + s\,z/(1-z)$ with $z$ from 0 to 1 and $s$ = `scale`. It converges geometrically for
    functions that decay as $1/x^2, 1/x^3, \dots$. Functions that decay exponentially need more
    nodes, or a finite limit. For functions with a kink, a jump or a narrow peak see
    `integrate_between`.

    Args:
        f: a function of one number, which may return a number, an array or a tree of them.
        low: the lower limit a, a finite number, in the units of x.
        high: the upper limit b: a number, or `math.inf`.
        nodes: the number of Gauss–Legendre nodes in each panel.
        panels: the number of equal parts of the range.
        scale: used for an infinite range only: half of the nodes lie within this distance of `low`,
            in the units of x.

    Returns:
        The integral, in the form and shapes of the values of `f`.

    Raises:
        ModelError: if `nodes` or `panels` is no positive whole number, or `low` is infinite.
    """
    return integrate_between(f, (low, high), nodes=nodes, panels=panels, scale=scale)


def integrate_between(
    f: Callable, edges: Sequence[Any], *, nodes: int = 20, panels: int = 1, scale: Any = 1.0
) -> Any:
    r"""Integrate a piecewise smooth function, from the first edge to the last.

    $\sum_k \int_{e_k}^{e_{k+1}} f(x)\,dx$, with edges $e_k$ and each integral by `integrate`

    Args:
        f: a function of one number, which may return a number, an array or a tree of them.
        edges: two or more increasing numbers, in the units of x. Put an edge at every jump and
            kink, and edges close around a narrow peak. Edges may depend on parameters. No node ever
            crosses an edge, so the gradient is exact when a jump moves. The last edge may be
            `math.inf`.
        nodes: the number of Gauss–Legendre nodes in each panel.
        panels: the number of equal parts of each interval between two edges.
        scale: used for an infinite last interval only: half of its nodes lie within this distance
            of its lower edge.

    Returns:
        The integral, in the form and shapes of the values of `f`.

    Raises:
        ModelError: for fewer than two edges, or invalid arguments as for `integrate`.
    """
    if len(edges) < 2:
        raise ModelError(f"an integral needs at least two edges, not {len(edges)}")
    rule = _rule(nodes, panels)
    pieces = [_placed(*rule, low, high, scale) for low, high in itertools.pairwise(edges)]
    # All nodes at once, so that the function is compiled once.
    x, weights = map(jnp.concatenate, zip(*pieces, strict=True))
    return jax.tree.map(lambda values: jnp.tensordot(weights, values, 1), jax.vmap(f)(x))


def _placed(z: Array, weights: Array, low: Any, high: Any, scale: Any) -> tuple[Array, Array]:
    """Map nodes and weights from (0, 1) to the interval from `low` to `high`.

    Args:
        z: nodes in (0, 1).
        weights: the weights of the nodes.
        low: the lower limit.
        high: the upper limit, which may be infinite.
        scale: the length s of the substitution for an infinite limit.

    Returns:
        The nodes and weights on the interval.
    """
    if _is_infinite(low) or (_is_infinite(high) and high < 0):
        raise ModelError(
            f"integrate from {low} to {high}: low must be finite, and only high may be math.inf"
        )
    # x = a + s z / (1 - z), dx = s dz / (1 - z)²
    if _is_infinite(high):
        return low + scale * z / (1 - z), weights * scale / (1 - z) ** 2
    return low + (high - low) * z, weights * (high - low)


def _rule(nodes: int, panels: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return Gauss–Legendre nodes in (0, 1), panel by panel, and their weights, which sum to one.

    Raises:
        ModelError: if `nodes` or `panels` is no positive whole number.
    """
    for name, value in (("nodes", nodes), ("panels", panels)):
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{name} must be a whole number of at least 1, not {value!r}")
    x, w = np.polynomial.legendre.leggauss(nodes)
    z = (np.arange(panels)[:, None] + (x + 1) / 2) / panels
    return jnp.asarray(z.ravel()), jnp.asarray(np.tile(w / (2 * panels), panels))


def _is_infinite(limit: Any) -> bool:
    return isinstance(limit, float) and math.isinf(limit)
