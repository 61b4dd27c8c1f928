"""Noise whose residuals are correlated between observables."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float

from .._statistics.describe_distributions import bounds, describe_distribution
from ..errors import ModelError
from ..noise.abstract_noise import AbstractCrossCorrelation, AbstractNoise
from ..noise.censored import Censored
from ..noise.sequential import Before
from ..random import Module, is_random, shape_of
from .correlated import CorrelatedNoise
from .filter import given_before
from .processes import AbstractProcess, White


class CrossCorrelation(AbstractCrossCorrelation):
    r"""Correlation between the residuals of several observables, by correlated innovations.

    $ds_i = F_i s_i\,dt + l_i\,dW_i, \quad \mathrm{corr}(dW_i, dW_j) = R_{ij}$

    Here $s_i$ is the state of the residual process of observable i, and $W_i$ the Wiener process
    that drives it. R correlates these Wiener processes. The marginal process of each observable is
    that of its own noise, such as an AR(1) with its scale and correlation. The `white` noise of an
    observable stays independent.

    If all processes are of one kind with equal time scales, R is also the correlation of residuals
    at one time. For different time scales, the correlation of residuals is smaller than R. So is
    the correlation of innovations over a time step. For AR(1) processes with lag-one correlations
    of 0.9 and 0.1, they are at most 0.41 and 0.86, respectively. If residuals are independent in
    time, give each observable the noise `bd.filtering.CorrelatedNoise(bd.filtering.White(scale))`.

    One Kalman filter runs over all observables. At each time it conditions an observable on all
    earlier data, and on the observables that precede it in `observables`. This gives the exact
    joint density with any pattern of missing data. Forecast draws have this correlation, too.

    Use it as the argument `cross_correlation` of a `bd.Model`.

    Args:
        observables: names of observables. The noise of each is a `CorrelatedNoise`, or one inside a
            `Censored`, with a stationary process.
        correlation: the correlation matrix R, or a distribution of it such as
            `dist.LKJ(number, 1.0)`. For two observables it may be a number between −1 and 1, or a
            distribution such as `dist.Uniform(-1, 1)`.

    Shapes: the observables have the same dimensions.

    Raises:
        ModelError: if there are fewer than two observables, or `correlation` is no correlation
            matrix of that size.

    Source: Gelfand et al. (2004) for processes that are correlated at one time; Lewandowski,
    Kurowicka & Joe (2009) for the prior.
    """

    observables: tuple[str, ...] = eqx.field(static=True)
    correlation: Any

    def __check_init__(self):
        names, number = self.observables, len(self.observables)
        strings = isinstance(names, tuple) and all(isinstance(n, str) for n in names)
        if not strings or len({*names}) != number:
            raise ModelError(
                f"CrossCorrelation is of a tuple of different names of observables, not {names!r}"
            )
        if number < 2:
            raise ModelError("CrossCorrelation is of two observables or more")
        given = self.correlation
        if not _is_number_or_matrix(given):
            raise ModelError(
                f"the correlation of {number} observables is {_wanted(number)}, "
                f"not {_correlation_text(given)}"
            )
        shape = shape_of(given) if is_random(given) else np.shape(given)
        if shape == () and number == 2:
            if not _lies_within(given):
                raise ModelError(
                    "a correlation lies between −1 and 1, as dist.Uniform(-1, 1) does, not "
                    f"{_correlation_text(given)}"
                )
        elif shape != (number, number):
            raise ModelError(
                f"the correlation of {number} observables is {_wanted(number)}, "
                f"not {_correlation_text(given)}"
            )
        elif is_random(given):
            if given.support is not dist.constraints.corr_matrix:
                raise ModelError(
                    f"a random matrix of correlations is dist.LKJ({number}, …), "
                    f"not {_correlation_text(given)}"
                )
        elif not isinstance(given, Tracer) and not _is_correlation(np.asarray(given, float)):
            raise ModelError(
                "a matrix of correlations is symmetric, positive definite and has ones on its "
                f"diagonal: not {given!r}"
            )

    def refuse(self, observables: Mapping[str, tuple[AbstractNoise, tuple[str, ...]]]) -> None:
        white = []
        for name in self.observables:
            if name not in observables:
                raise ModelError(
                    f"CrossCorrelation names '{name}', which is no observable: "
                    f"{', '.join(observables)}"
                )
            own, _ = observables[name]
            own = _uncensored(own)
            if not isinstance(own, CorrelatedNoise):
                raise ModelError(
                    f"'{name}' is to be correlated with other observables: give it a "
                    "bd.filtering.CorrelatedNoise, of a "
                    "bd.filtering.White if its residuals are independent in time, not "
                    f"{type(own).__name__}"
                )
            white.append(isinstance(own.process, White))
            if not white[-1] and type(own.process).equation is AbstractProcess.equation:
                kind = type(own.process).__name__
                raise ModelError(
                    f"'{name}' has a {kind}, which is not stationary: CrossCorrelation cannot have "
                    "it"
                )
        if any(white) and not all(white):
            raise ModelError(
                "residuals that are independent in time, of bd.filtering.White, have no "
                "correlation with those that are "
                "not: give all observables of a CrossCorrelation one or the other"
            )
        if len({observables[name][1] for name in self.observables}) > 1:
            raise ModelError("observables of a CrossCorrelation have the same dimensions")

    def given(
        self,
        noises: Mapping[str, Any],
        predictions: Mapping[str, Float[Array, "time ..."]],
        times: Float[Array, " time"],
        befores: Mapping[str, Before | None],
    ) -> dict[str, dist.Distribution]:
        own = [_uncensored(noises[name]) for name in self.observables]
        values = [predictions[name] for name in self.observables]
        before = [befores[name] for name in self.observables]
        joint = _JointProcess(tuple(noise.process for noise in own), _matrix_of(self.correlation))
        laws = given_before(joint, joint.begin_at, own, values, times, before)
        return {
            name: noises[name].censored(law) if isinstance(noises[name], Censored) else law
            for name, law in zip(self.observables, laws, strict=True)
        }


class _JointProcess(Module):
    """Several processes with correlated innovations as one process with a concatenated state.

    Args:
        processes: the process of each observable.
        correlation: the correlation matrix of the Wiener processes.
    """

    processes: tuple[AbstractProcess, ...]
    correlation: Float[Array, "process process"]

    @property
    def begins(self) -> None:
        return None

    @property
    def begin_at(self) -> tuple[int, ...]:
        """The index in the joint state at which the state of each process begins."""
        sizes = [jnp.shape(process.first)[-1] for process in self.processes]
        return tuple(int(n) for n in np.cumsum([0, *sizes[:-1]]))

    @property
    def first(self) -> Float[Array, "*member state state"]:
        """The stationary covariance of the joint state."""
        return self._block_matrix(self._between)

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        """Return the transition matrix A and the innovation covariance Q over a lag.

        Both are block matrices; block (i, j) belongs to processes i and j.
        """
        each = [process.over(lag) for process in self.processes]

        # The stationary covariance S_ij is preserved by Q_ij = S_ij - A_i S_ij A_jᵀ.
        def innovation(i: int, j: int) -> Array:
            if i == j:
                return each[i][1]
            usual = self._between(i, j)
            return usual - each[i][0] @ usual @ jnp.swapaxes(each[j][0], -1, -2)

        # A is block-diagonal.
        def flow(i: int, j: int) -> Array:
            a, b = each[i][0], each[j][0]
            return a if i == j else jnp.zeros((*a.shape[:-2], a.shape[-1], b.shape[-1]))

        return self._block_matrix(flow), self._block_matrix(innovation)

    def _between(self, i: int, j: int) -> Array:
        """Return the covariance between the states of processes i and j at one time.

        Its shape is `(…, state of i, state of j)`.
        """
        one, other = self.processes[i], self.processes[j]
        if i == j:
            return one.first
        # White processes have no equation; `refuse` allows them only if all processes are white.
        if one.equation is None or other.equation is None:
            shared = jnp.sqrt(jnp.asarray(one.first) * jnp.asarray(other.first))
        else:
            shared = _cross_covariance(*one.equation, *other.equation)
        return self.correlation[i, j] * shared

    def _block_matrix(self, block: Callable[[int, int], Array]) -> Array:
        """Assemble one matrix from the blocks of all pairs of processes, broadcast over groups.

        `block` is a function of the indices i and j that returns a block.
        """
        number = range(len(self.processes))
        rows = [[block(i, j) for j in number] for i in number]
        groups = jnp.broadcast_shapes(*(part.shape[:-2] for row in rows for part in row))

        def repeated(part: Array) -> Array:
            return jnp.broadcast_to(part, (*groups, *part.shape[-2:]))

        joined = [jnp.concatenate([*map(repeated, row)], axis=-1) for row in rows]
        return jnp.concatenate(joined, axis=-2)


def _uncensored(noise: Any) -> Any:
    """Return the noise inside a `Censored`, or the noise itself."""
    return noise.noise if isinstance(noise, Censored) else noise


def _cross_covariance(f: Array, own: Array, g: Array, other: Array) -> Array:
    """Stationary cross-covariance S of two processes that are driven by one Wiener process.

    S solves the Sylvester equation F S + S Gᵀ + l mᵀ = 0.

    Args:
        f: F, the drift matrix of the first process.
        own: l, the noise vector of the first process.
        g: G, the drift matrix of the second process.
        other: m, the noise vector of the second process.
    """
    # 1. As a linear system in the elements of S: (F ⊗ I + I ⊗ G) vec(S) = -vec(l mᵀ).
    sizes = f.shape[-1], g.shape[-1]
    one, two = (jnp.eye(size) for size in sizes)
    system = (
        f[..., :, None, :, None] * two[:, None, :]
        + one[:, None, :, None] * g[..., None, :, None, :]
    )
    driven = own[..., :, None] * other[..., None, :]
    system = system.reshape(*system.shape[:-4], sizes[0] * sizes[1], -1)
    # 2. Solve it, and restore the shape of S.
    found = jnp.linalg.solve(system, -driven.reshape(*driven.shape[:-2], -1, 1))
    return found.reshape(*found.shape[:-2], *sizes)


def _wanted(number: int) -> str:
    """Describe the allowed correlation of so many observables, for error messages."""
    alone = "a number between −1 and 1, or " if number == 2 else ""
    return f"{alone}a matrix of shape ({number}, {number}), such as dist.LKJ({number}, 1.0)"


def _correlation_text(given: Any) -> str:
    """Describe a given correlation, for error messages."""
    return describe_distribution(given) if is_random(given) else repr(given)


def _is_number_or_matrix(given: Any) -> bool:
    """Whether a correlation is random, traced, or a number or rectangular array of numbers."""
    if is_random(given) or isinstance(given, Tracer):
        return True
    try:
        return np.asarray(given).dtype.kind in "iuf"
    except ValueError:
        # Rows of different lengths.
        return False


def _lies_within(given: Any) -> bool:
    """Whether a correlation lies between -1 and 1; True for a traced one."""
    if isinstance(given, Tracer):
        return True
    if not is_random(given):
        return -1 < given < 1
    ends = bounds(given.support)
    return ends.get("lower", -2.0) >= -1 and ends.get("upper", 2.0) <= 1


def _matrix_of(correlation: Any) -> Array:
    """Return the correlation matrix; a number is the correlation of two observables."""
    given = jnp.asarray(correlation, float)
    return given if given.ndim else jnp.eye(2) + given * (1.0 - jnp.eye(2))


def _is_correlation(matrix: np.ndarray) -> bool:
    """Whether a matrix is symmetric and positive definite with ones on its diagonal."""
    ones = np.allclose(np.diag(matrix), 1.0)
    symmetric = np.allclose(matrix, matrix.T)
    return bool(ones and symmetric and np.linalg.eigvalsh(matrix).min() > 0)
