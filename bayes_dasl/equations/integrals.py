"""Integrals of closed forms by Gauss–Legendre quadrature on a fixed number of nodes."""

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
    r"""The integral of a function of one number.

    $\int_a^b f(x)\,dx \approx \sum_i w_i f(x_i)$ with `nodes` Gauss–Legendre nodes in each of
    `panels` equal panels

    The rule is exact for polynomials of degree `2 * nodes - 1`. For smooth functions the error
    falls geometrically in `nodes`, and as `panels ** (-2 * nodes)`. The integral is differentiable
    in the parameters of `f`, in both limits and in `scale`. An infinite `high`, given as
    `math.inf`, is reached by $x = a + s\,z/(1-z)$ with $z$ from 0 to 1 and $s$ = `scale`. This
    converges geometrically for functions that decay as $1/x^2, 1/x^3, \dots$; functions that decay
    exponentially need more nodes, or a finite limit. For a kink, a jump or a steep core see
    `integrate_between`.

    Args:
        f: a function of one number, which may return a number, an array or a tree of them.
        low: the lower limit, a finite number, in the units of x.
        high: the upper limit: a number, or `math.inf`.
        nodes: Gauss–Legendre nodes in each panel.
        panels: equal parts of the range.
        scale: for an infinite range, the length that holds half of the nodes, in the units of x.

    Returns:
        The integral, in the form and shapes of the values of `f`.

    Raises:
        ModelError: if `nodes` or `panels` is no positive whole number, or `low` is infinite.
    """
    return integrate_between(f, (low, high), nodes=nodes, panels=panels, scale=scale)


def integrate_between(
    f: Callable, edges: Sequence[Any], *, nodes: int = 20, panels: int = 1, scale: Any = 1.0
) -> Any:
    r"""The integral of a piecewise smooth function, from the first edge to the last.

    $\sum_k \int_{e_k}^{e_{k+1}} f(x)\,dx$, each by `integrate` with `nodes` and `panels`

    Args:
        f: as for `integrate`.
        edges: two or more increasing numbers, in the units of x: at every jump and kink, and close
            around a steep core. They may depend on parameters. No node ever crosses an edge, so the
            gradient is exact when a jump moves. The last edge may be `math.inf`.
        nodes: Gauss–Legendre nodes in each panel.
        panels: equal parts of each interval between two edges.
        scale: as for `integrate`, for an infinite last interval.

    Returns:
        The integral, in the form and shapes of the values of `f`.

    Raises:
        ModelError: for fewer than two edges, and as for `integrate`.
    """
    if len(edges) < 2:
        raise ModelError(f"an integral needs at least two edges, not {len(edges)}")
    rule = _rule(nodes, panels)
    pieces = [_placed(*rule, low, high, scale) for low, high in itertools.pairwise(edges)]
    # All nodes at once, so that the function is compiled once.
    x, weights = map(jnp.concatenate, zip(*pieces, strict=True))
    return jax.tree.map(lambda values: jnp.tensordot(weights, values, 1), jax.vmap(f)(x))


def _placed(z: Array, weights: Array, low: Any, high: Any, scale: Any) -> tuple[Array, Array]:
    """Map nodes and weights from (0, 1) to an interval, which may be infinite."""
    if _is_infinite(low) or (_is_infinite(high) and high < 0):
        raise ModelError(
            f"integrate from {low} to {high}: low must be finite, and only high may be math.inf"
        )
    # x = a + s z / (1 - z), dx = s dz / (1 - z)²
    if _is_infinite(high):
        return low + scale * z / (1 - z), weights * scale / (1 - z) ** 2
    return low + (high - low) * z, weights * (high - low)


def _rule(nodes: int, panels: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Gauss–Legendre nodes in (0, 1), panel by panel, and weights that sum to one.

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
