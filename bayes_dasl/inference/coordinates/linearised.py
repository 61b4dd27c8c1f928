"""Coordinates in which science and unknown functions, both at once, are nearly normal given their hyperparameters."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float

from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ...adaptive.basis import Basis, bases
from ...model import Model
from ...networks.network import networks
from ...random import paths, realise
from ..problem import Problem
from ..sites import constrained
from ..starts import Optimiser, falls
from .conditional import is_normal

_PROBES, _TRIED = 3, 20  # prior draws at which it is looked what predictions hang on directly, of so many tried
_POSITIONS = 32  # of which a reference is the mean
_BATCH = 16


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
        by_direct: the slopes of predictions by what they hang on directly, `(datum, direct)`.
        by_coefficients: those by the coefficients, `(datum, coefficient)`.
        linear: what made it.
    """

    on: Bool[Array, ""]
    at: Float[Array, " dimension"]
    coefficients: Float[Array, " coefficient"]
    centre: dict[str, Array]
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
        self._mean, self._sd = problem.prior_normal()
        draws = np.asarray(problem.prior(_TRIED, key=jax.random.key(0)))
        seen = [~np.isnan(np.asarray(problem.observed[name])).ravel() for name in problem.model.observables]
        self._seen = np.concatenate(seen)
        self._others = np.setdiff1d(np.arange(self.dimension), self.weights)
        self._slopes = jax.jit(self._around)
        self._coefficients_of = jax.jit(jax.vmap(lambda x: self._coefficients(self._realised(x))))
        self._moving = self._hung_on(draws)
        self.direct = self._others[self._moving]
        self.hyper = self._others[~self._moving]
        described = jax.eval_shape(self._around, draws[0], self._middle(draws[:1])[1])
        blank = self._frame(False, *jax.tree.map(jnp.zeros_like, (*self._middle(draws[:1]), *described)))
        self.like = blank
        self.way = traced(self._way, blank, jnp.zeros(self.dimension), jnp.asarray(False))

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around the mean of some positions; see `restored`."""
        number = _POSITIONS if len(positions) > 1 else 1
        middle = self._middle(positions[np.linspace(0, len(positions) - 1, number).astype(int)])
        leaves = jax.tree.leaves(self._frame(True, *middle, *self._slopes(*middle)))
        return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}

    def around(self, position: Float[np.ndarray, " dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around a position."""
        return self.frame(position[None])

    def restored(self, arrays: Mapping[str, Any]) -> Linearised:
        """The frame of such arrays."""
        structure = jax.tree.structure(self.like)
        return jax.tree.unflatten(structure, [jnp.asarray(arrays[f"leaf {i}"]) for i in range(structure.num_leaves)])

    def precision(self, optimiser: Optimiser, xi: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """What stands for minus the Hessian in a frame that suits: 1 for all but the hyperparameters."""
        precision, hyper = np.eye(self.dimension), list(self.hyper)
        of_hyper = falls(optimiser.gradients, xi, np.eye(self.dimension)[hyper])[:, hyper]
        precision[np.ix_(hyper, hyper)] = (of_hyper + of_hyper.T) / 2
        return precision

    def _hung_on(self, draws: Float[np.ndarray, "draw dimension"]) -> Bool[np.ndarray, " other"]:
        """Which of the numbers that are no weights move predictions while the coefficients stay."""
        moving, sound = np.zeros(len(self._others), bool), 0
        for draw in draws:
            _, by_others, by_coefficients = self._slopes(*self._middle(draw[None]))
            moving |= np.abs(by_others).max(axis=0) > 0
            sound += bool(np.any(by_coefficients))
            if sound == _PROBES:
                break
        return moving

    def _realised(self, x: Array, problem: Problem | None = None) -> Model:
        return realise((problem or self.problem).model, constrained(self.sites, x)[0])

    def _coefficients(self, realised: Model) -> Float[Array, " coefficient"]:
        return jnp.concatenate([function.coefficients for _, function in bases(realised)])

    def _predicted(self, x: Array, coefficients: Array, problem: Problem) -> tuple[dict, Any]:
        """What is predicted where the functions have these coefficients."""
        realised = self._realised(x, problem)
        found = [function for _, function in bases(realised)]
        parts = jnp.split(coefficients, np.cumsum([function.family.size for function in found])[:-1])
        held = iter([function.with_coefficients(part) for function, part in zip(found, parts, strict=True)])
        realised = jax.tree.map(lambda n: next(held) if _is_basis(n) else n, realised, is_leaf=_is_basis)
        prediction = realised.predict(problem.inputs)
        return dict(prediction.values), prediction.ok

    def _middle(self, chosen: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of some positions, and that of the coefficients there."""
        at = np.mean(chosen, axis=0)
        return at, np.mean(self._coefficients_of(np.asarray(chosen)), axis=0)

    def _around(self, at: Array, coefficients: Array) -> tuple[dict[str, Array], Array, Array]:
        """What is predicted at a reference, and its slopes by all but the weights and by the coefficients."""
        size = len(self._others)

        def flat(numbers, coefficients):
            values, ok = self._predicted(at.at[self._others].set(numbers), coefficients, self._forward)
            return jnp.concatenate([jnp.ravel(values[n]) for n in self.problem.model.observables]), (values, ok)

        def along(i):
            direction = jnp.zeros(size + coefficients.size).at[i].set(1.0)
            parts = direction[:size], direction[size:]
            _, slope, (values, ok) = jax.jvp(flat, (at[self._others], coefficients), parts, has_aux=True)
            return slope, values, ok

        slopes, values, ok = jax.lax.map(along, jnp.arange(size + coefficients.size), batch_size=_BATCH)
        sound = lambda v: jnp.where(ok[0] & jnp.isfinite(v), v, 0.0)  # noqa: E731
        slopes = sound(slopes.T)
        return {name: sound(v[0]) for name, v in values.items()}, slopes[:, :size], slopes[:, size:]

    def _frame(self, on: bool, at: Any, coefficients: Any, centre: Any, by_others: Any, by_coefficients: Any) -> Any:
        by_direct = jnp.asarray(by_others)[:, self._moving]
        return Linearised(
            *jax.tree.map(jnp.asarray, (on, at, coefficients, centre, by_direct, by_coefficients)), linear=self
        )

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
        slope, misses, precisions = [], [], []
        for name in realised.observables:
            noise = realised.noise_at(name, centre, problem.inputs)
            linked, rise = jax.jvp(noise.link, (centre[name],), (jnp.ones_like(centre[name]),))
            slope.append(jnp.ravel(rise))
            misses.append(jnp.ravel(self._linked_data(name, noise) - linked))
            precisions.append(jnp.ravel(noise.spread(centre[name]) ** -2.0))
        slope, missed, precision = map(jnp.concatenate, (slope, misses, precisions))
        root = jnp.sqrt(jnp.where(self._seen, precision, 0.0))
        by_c = (root * slope)[:, None] * by_coefficients
        s_w, s_d = by_c @ by_weights, (root * slope)[:, None] * by_direct
        missed = root * jnp.where(self._seen, missed, 0.0) + s_d @ at[direct] - by_c @ (offset - coefficients)
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
            away = []
            for name in model.observables:
                noise, value = model.noise_at(name, centre, problem.inputs), prediction.values[name]
                away.append(jnp.ravel(self._linked_data(name, noise) - noise.link(value)))
            left = root * jnp.where(self._seen, jnp.concatenate(away), 0.0)
            usable = prediction.ok & jnp.isfinite(left).all()
            left = jnp.where(usable, left, 0.0)
            corrected = cho_solve((second, True), s_w.T @ (left + s_w @ linear) + pull)
            return jnp.where(usable, corrected, linear)

        return likely[number:], first, second, of_weights

    def _linked_data(self, name: str, noise: Any) -> Array:
        observed = self.problem.observed[name]
        return noise.link(noise.as_predicted(jnp.where(jnp.isnan(observed), 1.0, observed)))

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


def linearisation_of(problem: Problem) -> Linearisation | None:
    """What makes frames for the unknown functions of a problem; none where none is linear in normal weights."""
    model = problem.model
    if not bases(model.layer) or networks(model) or model.looks_back or problem.own_rows is not None:
        return None
    leaves = paths(model)
    places = [f"layer.{where}.weights" for where, _ in bases(model.layer)]
    inside = lambda leaf: any(p.startswith(place) for place in places for p in (leaf.path, *leaf.places))  # noqa: E731
    found = tuple(path for path, leaf in leaves.items() if is_normal(leaf) and inside(leaf))
    return Linearisation(problem, found) if found else None


def _is_basis(node: Any) -> bool:
    return isinstance(node, Basis)
