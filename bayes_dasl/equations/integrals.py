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

    The rule is exact for polynomials of degree `2 * nodes - 1`; for smooth functions the error
    falls geometrically in `nodes`, and as `panels ** (-2 * nodes)`. It is the same sum for every
    parameter, so it can be differentiated in the parameters of `f`, in both limits and in `scale`.
    An infinite `high`, given as `math.inf`, is reached by $x = a + s\,z/(1-z)$ with $z$ from 0 to 1
    and $s$ = `scale`. That too is geometric for functions that fall off as a whole power of $1/x$
    from 2 on; functions that fall off exponentially need more nodes, or a finite limit. For a kink,
    a jump or a steep core see `integrate_between`.

    Args:
        f: a function of one number, which may return a number, an array or a tree of them.
        low: the lower limit, a finite number, in the units of x.
        high: the upper limit: a number, or `math.inf`.
        nodes: Gauss–Legendre nodes in each panel.
        panels: equal parts of the range.
        scale: of an infinite range, the length within which half of the nodes lie, in the units of
            x.

    Shapes: `f` takes a number and returns a number, an array or a tree of them; the integral has
    the same shape.

    Raises:
        ModelError: if `nodes` or `panels` is no positive whole number, or `low` is infinite.
    """
    return integrate_between(f, (low, high), nodes=nodes, panels=panels, scale=scale)


def integrate_between(
    f: Callable, edges: Sequence[Any], *, nodes: int = 20, panels: int = 1, scale: Any = 1.0
) -> Any:
    r"""The integral of a function from the first edge to the last, where it is smooth between its
    edges.

    $\sum_k \int_{e_k}^{e_{k+1}} f(x)\,dx$, each by `integrate` with `nodes` and `panels`

    Args:
        f: as for `integrate`.
        edges: numbers that increase, two or more, in the units of x: at every jump and kink, and
            close around a steep core. They may depend on parameters: no node ever crosses an edge,
            so the gradient is exact where a jump moves. The last one may be `math.inf`.
        nodes: Gauss–Legendre nodes in each panel.
        panels: equal parts of each interval between two edges.
        scale: as for `integrate`, of an infinite last interval.

    Raises:
        ModelError: for fewer than two edges, and as `integrate`.
    """
    if len(edges) < 2:
        raise ModelError(f"an integral needs at least two edges, not {len(edges)}")
    rule = _rule(nodes, panels)
    pieces = [_placed(*rule, low, high, scale) for low, high in itertools.pairwise(edges)]
    # All nodes at once, so that the function is compiled once.
    x, weights = map(jnp.concatenate, zip(*pieces, strict=True))
    return jax.tree.map(lambda values: jnp.tensordot(weights, values, 1), jax.vmap(f)(x))


def _placed(z: Array, weights: Array, low: Any, high: Any, scale: Any) -> tuple[Array, Array]:
    """Nodes and weights between two limits, from those between 0 and 1."""
    if _is_infinite(low) or (_is_infinite(high) and high < 0):
        raise ModelError(
            f"integrate from {low} to {high}: low must be finite, and only high may be math.inf"
        )
    if _is_infinite(high):
        return low + scale * z / (1 - z), weights * scale / (1 - z) ** 2
    return low + (high - low) * z, weights * (high - low)


def _rule(nodes: int, panels: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Nodes in (0, 1) and weights that sum to one."""
    _check(nodes, panels)
    x, w = np.polynomial.legendre.leggauss(nodes)
    z = (np.arange(panels)[:, None] + (x + 1) / 2) / panels
    return jnp.asarray(z.ravel()), jnp.asarray(np.tile(w / (2 * panels), panels))


def _is_infinite(limit: Any) -> bool:
    return isinstance(limit, float) and math.isinf(limit)


def _check(nodes: Any, panels: Any) -> None:
    for name, value in (("nodes", nodes), ("panels", panels)):
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{name} must be a whole number of at least 1, not {value!r}")
