"""Coordinates in which science and unknown functions, both at once, are nearly normal given their hyperparameters."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float

from ..._jax.compiling import Program
from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ...layers import is_linear, linear_parts
from ...layers.layer import AbstractPopulation
from ...model import Model
from ...networks.network import networks
from ...random import paths, realise
from ..linear_residuals import residuals, with_mismatches
from ..problem import Problem
from ..sites import constrained
from ..starts import Optimiser, chosen_for_reference, falls
from .conditional import is_normal
from .frame import arrays_of, frame_of

_PROBES, _TRIED = 3, 20  # prior draws at which it is looked what predictions hang on directly, of so many tried
_BATCH = 16
# Multiplications in the product of the slopes with themselves, which every gradient takes, at most.
_DEAREST = 50_000_000


class Linearised(eqx.Module):
    r"""Coordinates of science $\theta$ and weights $w$ of unknown functions, given hyperparameters $h$.

    To first order around a reference predictions are linear in $\theta$ and in the coefficients $c(h, w)$ of the
    functions, which are linear in $w$. So $\theta$ given $h$, with $w$ integrated out, is nearly normal, and so is $w$
    given both. The slopes are those of the reference; the mean of $w$ is corrected by what the model itself predicts at
    the linear mean. Coordinates are $h$ and both of them in units of these normals. The posterior stays what it is.

    Args:
        on: whether they are that; else the plain ones.
        at: the reference position.
        coefficients: those of the functions there, `(coefficient,)`.
        centre: what is predicted there, by observable.
        variances: those of the predictions there, of a filter.
        by_direct: the slopes of predictions by what they hang on directly, `(datum, direct)`.
        by_coefficients: those by the coefficients, `(datum, coefficient)`.
        linear: what made it.
    """

    on: Bool[Array, ""]
    at: Float[Array, " dimension"]
    coefficients: Float[Array, " coefficient"]
    centre: dict[str, Array]
    variances: dict[str, Array]
    by_direct: Float[Array, "datum direct"]
    by_coefficients: Float[Array, "datum coefficient"]
    linear: "Linearisation" = eqx.field(static=True)

    def position(self, xi: Float[Array, " dimension"]) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there stretches."""
        return self.both_ways(xi, jnp.asarray(False))

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return self.both_ways(x, jnp.asarray(True))[0]

    def both_ways(self, v: Float[Array, " dimension"], back: Bool[Array, ""]) -> tuple[Array, Array]:
        """From coordinates to a position, or `back`, and the log of the volume that the way there stretches."""
        return self.linear.way(self, v, back)


class Linearisation:
    """Makes frames around the mean of some positions.

    `weights` are the places of the numbers in which the unknown functions are linear, `direct` those of all that
    predictions hang on otherwise; what is left are hyperparameters.
    """

    kind = "linearised"
    dependent: tuple[int, ...] = ()

    def __init__(self, problem: Problem, paths: tuple[str, ...]):
        self.problem = problem = problem.reversible()
        self._forward = problem.forward()
        self.sites, self.dimension = problem.sites, problem.dimension
        sizes = [self.sites[path].size for path in paths]
        ends = np.cumsum(sizes)
        self._where = {path: np.arange(end - n, end) for path, n, end in zip(paths, sizes, ends, strict=True)}
        starts = [self.sites[path].start for path in paths]
        self.weights = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)])
        self._mean, self._sd = _prior_normal(problem)
        draws = np.asarray(problem.prior(_TRIED, key=jax.random.key(0)))
        self._others = np.setdiff1d(np.arange(self.dimension), self.weights)
        self._slopes = Program(self._around)
        self._coefficients_of = Program(jax.vmap(lambda x: self._coefficients(self._realised(x))))
        self._moving = self._hung_on(draws)
        self.direct = self._others[self._moving]
        self.hyper = self._others[~self._moving]
        middle = self._middle(draws[:1])
        self.like = self._frame(False, *jax.tree.map(jnp.zeros_like, (*middle, *self._slopes(*middle))))
        self.way = traced(self._way, self.like, jnp.zeros(self.dimension), jnp.asarray(False))

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around the mean of some positions; see `restored`."""
        middle = self._middle(chosen_for_reference(positions))
        return arrays_of(self._frame(True, *middle, *self._slopes(*middle)))

    def around(self, position: Float[np.ndarray, " dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around a position."""
        return self.frame(position[None])

    def restored(self, arrays: Mapping[str, Any]) -> Linearised:
        """The frame of such arrays."""
        return frame_of(arrays, self.like)

    def precision(self, optimiser: Optimiser, xi: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """What stands for minus the Hessian in a frame that suits: 1 for all but the hyperparameters."""
        precision, hyper = np.eye(self.dimension), list(self.hyper)
        if not hyper:
            return precision
        of_hyper = falls(optimiser.gradients, xi, np.eye(self.dimension)[hyper])[:, hyper]
        precision[np.ix_(hyper, hyper)] = (of_hyper + of_hyper.T) / 2
        return precision

    def _hung_on(self, draws: Float[np.ndarray, "draw dimension"]) -> Bool[np.ndarray, " other"]:
        """Which of the numbers that are no weights move predictions while the coefficients stay."""
        moving, sound = np.zeros(len(self._others), bool), 0
        for draw in draws:
            *_, by_others, by_coefficients = self._slopes(*self._middle(draw[None]))
            moving |= np.abs(by_others).max(axis=0) > 0
            sound += bool(np.any(by_coefficients))
            if sound == _PROBES:
                break
        return moving

    def _realised(self, x: Array, problem: Problem | None = None) -> Model:
        return realise((problem or self.problem).model, constrained(self.sites, x)[0])

    def _coefficients(self, realised: Model) -> Float[Array, " coefficient"]:
        return jnp.concatenate([part.coefficients for _, part in linear_parts(realised)])

    def _predicted(self, x: Array, coefficients: Array, problem: Problem) -> tuple[dict, dict, Any]:
        """What is predicted where the functions have these coefficients."""
        realised = self._realised(x, problem)
        found = [part for _, part in linear_parts(realised)]
        each = jnp.split(coefficients, np.cumsum([part.coefficients.size for part in found])[:-1])
        held = iter([part.with_coefficients(own) for part, own in zip(found, each, strict=True)])
        realised = jax.tree.map(lambda node: next(held) if is_linear(node) else node, realised, is_leaf=is_linear)
        prediction = realised.predict(problem.inputs)
        return with_mismatches(self.problem, prediction), dict(prediction.variances), prediction.ok

    def _middle(self, chosen: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of some positions, and that of the coefficients there."""
        at = np.mean(chosen, axis=0)
        return at, np.mean(np.asarray(self._coefficients_of(np.asarray(chosen))), axis=0)

    def _around(self, at: Array, coefficients: Array) -> tuple[dict[str, Array], dict[str, Array], Array, Array]:
        """What is predicted at a reference, and its slopes by all but the weights and by the coefficients."""
        size = len(self._others)

        def flat(numbers, coefficients):
            found = self._predicted(at.at[self._others].set(numbers), coefficients, self._forward)
            return jnp.concatenate([jnp.ravel(value) for _, value in sorted(found[0].items())]), found

        def along(i):
            direction = jnp.zeros(size + coefficients.size).at[i].set(1.0)
            parts = direction[:size], direction[size:]
            _, slope, found = jax.jvp(flat, (at[self._others], coefficients), parts, has_aux=True)
            return slope, found

        slopes, found = jax.lax.map(along, jnp.arange(size + coefficients.size), batch_size=_BATCH)
        values, variances, ok = jax.tree.map(lambda each: each[0], found)
        sound = lambda v: jnp.where(ok & jnp.isfinite(v), v, 0.0)  # noqa: E731
        slopes = sound(slopes.T)
        centre, variances = jax.tree.map(sound, (values, variances))
        return centre, variances, slopes[:, :size], slopes[:, size:]

    def _frame(self, on: bool, *found: Any) -> Linearised:
        at, coefficients, centre, variances, by_others, by_coefficients = jax.tree.map(jnp.asarray, found)
        by_direct = by_others[:, self._moving]
        return Linearised(jnp.asarray(on), at, coefficients, centre, variances, by_direct, by_coefficients, self)

    def _blocks(self, frame: Linearised, x: Array) -> Any:
        """The normals of both blocks, given the hyperparameters in `x`: of the first at once, of the second by it."""
        at, coefficients, centre = frame.at, frame.coefficients, frame.centre
        by_direct, by_coefficients = frame.by_direct, frame.by_coefficients
        problem, weights, direct = self.problem, self.weights, self.direct
        x = x.at[direct].set(at[direct]).at[weights].set(0.0)
        values, _ = constrained(self.sites, x)

        def own(w):  # of all numbers these alone have slopes: others would be pushed along for nothing
            given = {path: w[index].reshape(self.sites[path].shape) for path, index in self._where.items()}
            return self._coefficients(realise(problem.model, values | given))

        nothing = jnp.zeros(weights.size)
        offset, by_weights = own(nothing), jax.jacfwd(own)(nothing)
        realised = self._realised(x)
        residual = lambda values: residuals(problem, realised, centre, frame.variances, values)  # noqa: E731
        left, push = jax.linearize(residual, centre)
        lowered = jax.vmap(lambda column: -push(_by_name(column, centre)), in_axes=1, out_axes=1)
        s_w, s_d = lowered(by_coefficients @ by_weights), lowered(by_direct)
        shifted = push(_by_name(by_coefficients @ (offset - coefficients), centre))
        missed = left + s_d @ at[direct] + shifted
        both = jnp.concatenate([s_w, s_d], axis=1)
        prior = 1 / jnp.asarray(self._sd[np.concatenate([weights, direct])]) ** 2
        mean = jnp.asarray(self._mean[np.concatenate([weights, direct])])
        factor = jnp.linalg.cholesky(both.T @ both + jnp.diag(prior))
        likely = cho_solve((factor, True), both.T @ missed + prior * mean)
        number = weights.size
        first, second = factor[number:, number:], factor[:number, :number]
        pull = prior[:number] * mean[:number]

        def of_weights(direct_value: Array) -> Array:
            """The mean of the weights given all else, after one step from the linear one by the model itself."""
            linear = cho_solve((second, True), s_w.T @ (missed - s_d @ direct_value) + pull)
            model = self._realised(x.at[direct].set(direct_value).at[weights].set(linear))
            prediction = model.predict(problem.inputs)
            left = residual(with_mismatches(problem, prediction))
            usable = prediction.ok & jnp.isfinite(left).all()
            left = jnp.where(usable, left, 0.0)
            corrected = cho_solve((second, True), s_w.T @ (left + s_w @ linear) + pull)
            return jnp.where(usable, corrected, linear)

        return likely[number:], first, second, of_weights

    def _way(self, frame: Linearised, v: Array, back: Array) -> tuple[Array, Array]:
        mean, first, second, of_weights = self._blocks(frame, v)
        given = v[self.direct]
        direct = jnp.where(back, given, mean + solve_triangular(first, given, lower=True, trans=1))
        centre, given = of_weights(direct), v[self.weights]
        there = centre + solve_triangular(second, given, lower=True, trans=1)
        direct = jnp.where(back, first.T @ (direct - mean), direct)
        weights = jnp.where(back, second.T @ (given - centre), there)
        volume = -jnp.sum(jnp.log(jnp.diag(first))) - jnp.sum(jnp.log(jnp.diag(second)))
        there = v.at[self.direct].set(direct).at[self.weights].set(weights)
        # Not a `cond`, whose gradient keeps all that a prediction works out on its way.
        return jnp.where(frame.on, there, v), jnp.where(frame.on, volume, 0.0)


def has_linear(problem: Problem) -> bool:
    """Whether a part of the model is linear in weights of its own."""
    return bool(linear_parts(problem.model.layer))


def linearisation_of(problem: Problem) -> Linearisation | None:
    """What makes frames for the unknown functions of a problem; none where none is linear in normal weights."""
    model = problem.model
    linear = linear_parts(model.layer)
    if not linear or networks(model) or isinstance(model.layer, AbstractPopulation):
        return None
    leaves = paths(model)
    places = [f"layer.{where}.{part.weights_field}" for where, part in linear]
    inside = lambda leaf: any(p.startswith(place) for place in places for p in (leaf.path, *leaf.places))  # noqa: E731
    found = tuple(path for path, leaf in leaves.items() if is_normal(leaf) and inside(leaf))
    dear = problem.data * problem.dimension**2 > _DEAREST
    if not found or dear:
        return None
    try:
        maker = Linearisation(problem, found)
        jax.eval_shape(jax.grad(lambda xi: maker.like.position(xi)[1]), jnp.zeros(problem.dimension))
    except Exception:  # whatever JAX, or a rule of the user, may raise: equations may have derivatives one way only
        return None
    return maker


def _prior_normal(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each number under the prior: exact where it is normal, else about."""
    mean, sd = problem.prior_normal()
    for path, leaf in paths(problem.model).items():
        if is_normal(leaf):
            prior, site = leaf.distribution, problem.sites[path]
            own = slice(site.start, site.start + site.size)
            for kept, value in ((mean, prior.mean), (sd, jnp.sqrt(prior.variance))):
                kept[own] = np.broadcast_to(np.asarray(value), leaf.shape).ravel()
    return mean, sd


def _by_name(vector: Float[Array, " datum"], like: dict[str, Array]) -> dict[str, Array]:
    """What a vector over all data, in the order of their names, says of each."""
    names = sorted(like)
    parts = jnp.split(vector, np.cumsum([like[name].size for name in names])[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
