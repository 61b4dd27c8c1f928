"""Rodas5P, a Rosenbrock method for stiff equations.

Each step computes one Jacobian and factorises one matrix.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import lu_factor, lu_solve
from jaxtyping import Array, Float

# Coefficients of Rodas5P, from Steinebach (2023), transformed so that a stage needs no product with
# the Jacobian. The names of the coefficients are those of the equation of `Rodas5P`.
_GAMMA = 0.21193756319429014
# Weights of the first five stages in the last three: a_6j, continued by ones in a_7j and a_8j.
_EMBEDDED = (
    -7.502846399306121,
    2.561846144803919,
    -11.627539656261098,
    -0.18268767659942256,
    0.030198172008377946,
)
# a_ij: weights of earlier stages in the state of stage i.
_A = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    _EMBEDDED,
    (*_EMBEDDED, 1.0),
    (*_EMBEDDED, 1.0, 1.0),
)
# C_ij: weights of earlier stages, over h, on the right-hand side of stage i.
_C = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (
        24.854864614690072,
        -3.0009227002832186,
        47.4931110020768,
        5.5814197821558125,
        -0.6610691825249471,
    ),
    (
        30.91273214028599,
        -3.1208243349937974,
        77.79954646070892,
        34.28646028294783,
        -19.097331116725623,
        -28.087943162872662,
    ),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
# c_i: times of the stages, as shares of the step.
_TIMES = (
    0.0,
    0.6358126895828704,
    0.4095798393397535,
    0.9769306725060716,
    0.4288403609558664,
    1.0,
    1.0,
    1.0,
)
# d_i: weights of the time derivative f_t.
_D = (
    _GAMMA,
    -0.42387512638858027,
    -0.3384627126235924,
    1.8046452872882734,
    2.325825639765069,
    0.0,
    0.0,
    0.0,
)
# Dense output: three polynomial coefficients as weights of the stages.
_H = np.array(
    [
        [
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ],
        [
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ],
        [
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ],
    ]
)

# Up to this many states elimination is unrolled, since a call of LAPACK costs more than the
# arithmetic itself.
_WRITTEN_OUT_UP_TO = 8
# Length that replaces a zero length of steps, which solves of a batch have after their end.
_NO_LENGTH = 1e-12


class _Interpolation(diffrax.AbstractLocalInterpolation):
    """Dense output of Rodas5P: a polynomial of fourth order in time within a step.

    Args:
        t0: the start of the step.
        t1: the end of the step.
        y0: the states at the start.
        y1: the states at the end.
        coefficients: three coefficients of the polynomial for each state.
    """

    t0: Any
    t1: Any
    y0: Any
    y1: Any
    coefficients: Any

    def evaluate(self, t0: Any, t1: Any | None = None, left: bool = True) -> Any:
        if t1 is not None:
            return jax.tree.map(
                lambda late, early: late - early, self.evaluate(t1), self.evaluate(t0)
            )
        length = self.t1 - self.t0
        s = (t0 - self.t0) / jnp.where(length == 0, 1.0, length)

        def at(y0, y1, k):
            return (1 - s) * y0 + s * (y1 + (1 - s) * (k[0] + s * (k[1] + s * k[2])))

        return jax.tree.map(at, self.y0, self.y1, self.coefficients)


class Rodas5P(diffrax.AbstractAdaptiveSolver):
    r"""Rosenbrock–Wanner method of order 5(4) with eight stages, stiffly accurate and L-stable.

    $(M/(\gamma h) - J)\,k_i = f(t + c_i h,\ y + \sum_j a_{ij} k_j) + \tfrac1h M \sum_j C_{ij} k_j
    + h\,d_i\,f_t$

    f are the rates, J is their Jacobian, $f_t$ their derivative with respect to time, h the length
    of the step and $k_i$ the stages. Other letters are coefficients of the method. M is the
    identity matrix, with zeros for `algebraic` states, whose equations are $f = 0$ (index 1).

    The method suits stiff equations with few states. For these it needs fewer and cheaper steps
    than an implicit Runge–Kutta method. The linear algebra is dense.

    Args:
        algebraic: the names of algebraic states.

    Source: Steinebach (2023), Construction of Rosenbrock–Wanner method Rodas5P.
    """

    algebraic: tuple[str, ...] = eqx.field(default=(), static=True)
    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., _Interpolation]] = _Interpolation

    def order(self, terms: Any) -> int:
        return 5

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        return None

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any
    ) -> tuple[Any, Any, dict[str, Any], None, diffrax.RESULTS]:
        flat, unravel = ravel_pytree(y0)
        # In a batch, solves that have ended take steps of length zero. Their gradient is multiplied
        # by zero, so it must be finite.
        h = jnp.where(t1 == t0, _NO_LENGTH, t1 - t0)

        def rates(t, y):
            return ravel_pytree(terms.vf(t, unravel(y), args))[0]

        # 1. Jacobian J = ∂f/∂y, time derivative f_t, and the factorised matrix M/(γh) - J.
        jacobian = jax.jacfwd(rates, argnums=1)(t0, flat)
        by_time = jax.jvp(lambda t: rates(t, flat), (t0,), (jnp.ones_like(t0),))[1]
        mass = self._mass(y0)
        solve = _linear_solver(jnp.diag(mass) / (_GAMMA * h) - jacobian)
        # 2. Stages k_i, each by one solve with the same matrix.
        stages: list[Array] = []

        def weighted(weights):
            terms = (weight * k for weight, k in zip(weights, stages, strict=True))
            return sum(terms, jnp.zeros_like(flat))

        for a, c, at, d in zip(_A, _C, _TIMES, _D, strict=True):
            y = flat + weighted(a)
            carried = weighted(c)
            stages.append(solve(rates(t0 + at * h, y) + mass * carried / h + d * h * by_time))
        # 3. The last stage starts from the embedded solution, so it is itself the error estimate.
        end = y + stages[-1]
        dense = jax.vmap(unravel)(jnp.asarray(_H) @ jnp.stack(stages))
        y1 = unravel(end)
        return (
            y1,
            unravel(stages[-1]),
            dict(y0=y0, y1=y1, coefficients=dense),
            None,
            diffrax.RESULTS.successful,
        )

    def _mass(self, y: Any) -> Array:
        """Return the diagonal of the matrix M: 0 for algebraic states, 1 for all others."""
        if not self.algebraic:
            return jnp.ones(ravel_pytree(y)[0].size)
        return ravel_pytree(
            {name: jnp.full_like(v, float(name not in self.algebraic)) for name, v in y.items()}
        )[0]


def _linear_solver(matrix: Float[Array, "n n"]) -> Callable[[Array], Array]:
    """Return a function that solves linear equations with this matrix for a right-hand side."""
    if len(matrix) <= _WRITTEN_OUT_UP_TO:
        inverse = _unrolled_inverse(matrix)
        return lambda b: inverse @ b
    factors = lu_factor(matrix)
    return lambda b: lu_solve(factors, b)


@jax.custom_jvp
def _unrolled_inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the inverse of a small matrix by unrolled Gauss–Jordan elimination with pivoting."""
    size = len(matrix)
    rows = jnp.concatenate([matrix, jnp.eye(size)], axis=1)
    for i in range(size):
        # Move the row with the largest entry of column i to row i; scale it, and subtract multiples
        # of it from all other rows.
        pivot = i + jnp.argmax(jnp.abs(rows[i:, i]))
        chosen = rows[pivot]
        rows = jnp.where((jnp.arange(size) == pivot)[:, None], rows[i], rows)
        chosen = chosen / chosen[i]
        rows = jnp.where(
            (jnp.arange(size) == i)[:, None], chosen, rows - rows[:, i : i + 1] * chosen
        )
    return rows[:, size:]


# d(A⁻¹) = -A⁻¹ dA A⁻¹, so that no derivative runs through the pivoting.
@_unrolled_inverse.defjvp
def _unrolled_inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = _unrolled_inverse(primals[0])
    return inverse, -inverse @ tangents[0] @ inverse
