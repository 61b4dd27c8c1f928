"""Coordinates in which science and unknown functions, both at once, are nearly normal given their hyperparameters."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ...adaptive.basis import Basis, bases
from ...model import Model
from ...networks.network import networks
from ...random import paths, realise
from ..problem import Problem
from ..sites import constrained
from ..starts import Optimiser, or_lowest
from .conditional import is_normal
from .frame import coordinates, positions

_PROBES = 3  # prior draws at which it is looked what predictions hang on directly
_BATCH = 16
_TRIES, _APART = 8, 0.3


class TwoBlocks(eqx.Module):
    r"""Coordinates of science $\theta$ and weights $w$ of unknown functions, given hyperparameters $h$.

    To first order around a reference predictions are linear in $\theta$ and in the coefficients $c(h, w)$ of the
    functions, which are linear in $w$. So $\theta$ given $h$, with $w$ integrated out, is nearly normal, and so is $w$
    given both. The slopes are those of the reference; the mean of $w$ is corrected by what the model itself predicts at
    the linear mean. Coordinates are $h$ and both of them in units of these normals. The posterior stays what it is.

    Args:
        at: the reference position.
        coefficients: those of the functions there, `(coefficient,)`.
        centre: what is predicted there, by observable.
        by_direct: the slopes of predictions by what they hang on directly, `(datum, direct)`.
        by_coefficients: those by the coefficients, `(datum, coefficient)`.
        linear: what made it.
    """

    at: Float[Array, " dimension"]
    coefficients: Float[Array, " coefficient"]
    centre: dict[str, Array]
    by_direct: Float[Array, "datum direct"]
    by_coefficients: Float[Array, "datum coefficient"]
    linear: "Linearisation" = eqx.field(static=True)

    def position(self, xi: Float[Array, " dimension"]) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there stretches."""
        return self.linear.ways[0](self.arrays, xi)

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return self.linear.ways[1](self.arrays, x)

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.at, self.coefficients, self.centre, self.by_direct, self.by_coefficients


class Linearisation:
    """Makes frames around the mean of some positions.

    `weights` are the places of the numbers in which the unknown functions are linear, `direct` those of all that
    predictions hang on otherwise; what is left are hyperparameters.
    """

    def __init__(self, problem: Problem, paths: tuple[str, ...]):
        self.problem = problem = problem.reversible()
        self._forward = problem.forward()
        self.sites, self.dimension = problem.sites, problem.dimension
        sizes = [self.sites[path].size for path in paths]
        ends = np.cumsum(sizes)
        self._where = {path: np.arange(end - n, end) for path, n, end in zip(paths, sizes, ends, strict=True)}
        starts = [self.sites[path].start for path in paths]
        self.weights = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)])
        draws = problem.prior(500, key=jax.random.key(0))
        self._mean, self._sd = np.median(draws, axis=0), problem.prior_widths()
        seen = [~np.isnan(np.asarray(problem.observed[name])).ravel() for name in problem.model.observables]
        self._seen = np.concatenate(seen)
        self.others = np.setdiff1d(np.arange(self.dimension), self.weights)
        self._program = jax.jit(self._around)
        each = jax.vmap(lambda x, at: self._coefficients(self._realised(x), at), in_axes=(0, None))
        self._coefficients_of = jax.jit(each)
        probes = [self._program(*self._middle(x[None])) for x in draws[:_PROBES]]
        self._moving = np.abs([by_others for *_, by_others, _ in probes]).max(axis=(0, 1)) > 0
        self.direct = self.others[self._moving]
        blank = jax.tree.map(jnp.zeros_like, self._kept(*self._middle(draws[:1]), *probes[0]))
        vector = jnp.zeros(self.dimension)
        self.ways = tuple(traced(way, blank, vector) for way in (self._position, self._back))
        self.like = TwoBlocks(*blank, self)

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around the mean of some positions; see `restored`."""
        number = 32 if len(positions) > 1 else 1
        chosen = positions[np.linspace(0, len(positions) - 1, number).astype(int)]
        middle = self._middle(chosen)
        leaves = jax.tree.leaves(self._kept(*middle, *self._program(*middle)))
        return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}

    def restored(self, arrays: Mapping[str, Any]) -> TwoBlocks:
        """The frame of such arrays."""
        structure = jax.tree.structure(self.like)
        return jax.tree.unflatten(structure, [jnp.asarray(arrays[f"leaf {i}"]) for i in range(structure.num_leaves)])

    def widths(self, prior: Float[np.ndarray, " dimension"]) -> Float[np.ndarray, " dimension"]:
        """By how much a coordinate varies: as under the prior, or by one where frames make it a unit normal."""
        widths = prior.copy()
        widths[self.weights] = widths[self.direct] = 1.0
        return widths

    def _realised(self, x: Array, problem: Problem | None = None) -> Model:
        return realise((problem or self.problem).model, constrained(self.sites, x)[0])

    def _coefficients(self, realised: Model, reference: Array) -> Float[Array, " coefficient"]:
        """Those of the features that the functions have at the reference position."""
        there = bases(self._realised(reference))
        each = [own.coefficients(other.family) for (_, own), (_, other) in zip(bases(realised), there, strict=True)]
        return jnp.concatenate(each)

    def _predicted(self, x: Array, coefficients: Array, reference: Array, problem: Problem) -> tuple[dict, Any]:
        """What is predicted where the functions have these coefficients of the features at the reference."""
        realised = self._realised(x, problem)
        found, there = [own for _, own in bases(realised)], [b for _, b in bases(self._realised(reference))]
        parts = jnp.split(coefficients, np.cumsum([b.family.size for b in found])[:-1])
        held = iter([b.with_coefficients(other.family, c) for b, other, c in zip(found, there, parts, strict=True)])
        realised = jax.tree.map(lambda n: next(held) if _is_basis(n) else n, realised, is_leaf=_is_basis)
        prediction = realised.predict(problem.inputs)
        return dict(prediction.values), prediction.ok

    def _middle(self, chosen: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of some positions, and that of the coefficients there."""
        at = np.mean(chosen, axis=0)
        return at, np.mean(self._coefficients_of(np.asarray(chosen), at), axis=0)

    def _around(self, at: Array, coefficients: Array) -> tuple[dict[str, Array], Array, Array]:
        """What is predicted at a reference, and its slopes by all but the weights and by the coefficients."""
        size = len(self.others)

        def flat(numbers, coefficients):
            values, ok = self._predicted(at.at[self.others].set(numbers), coefficients, at, self._forward)
            return jnp.concatenate([jnp.ravel(values[n]) for n in self.problem.model.observables]), (values, ok)

        def along(i):
            direction = jnp.zeros(size + coefficients.size).at[i].set(1.0)
            parts = direction[:size], direction[size:]
            _, slope, (values, ok) = jax.jvp(flat, (at[self.others], coefficients), parts, has_aux=True)
            return slope, values, ok

        slopes, values, ok = jax.lax.map(along, jnp.arange(size + coefficients.size), batch_size=_BATCH)
        sound = lambda v: jnp.where(ok[0] & jnp.isfinite(v), v, 0.0)  # noqa: E731
        slopes = sound(slopes.T)
        return {name: sound(v[0]) for name, v in values.items()}, slopes[:, :size], slopes[:, size:]

    def _kept(self, at: Any, coefficients: Any, centre: Any, by_others: Any, by_coefficients: Any) -> tuple[Any, ...]:
        by_direct = np.asarray(by_others)[:, self._moving]
        return jax.tree.map(jnp.asarray, (at, coefficients, centre, by_direct, by_coefficients))

    def _blocks(self, arrays: tuple, x: Array) -> Any:
        """The normals of both blocks, given the hyperparameters in `x`: of the first at once, of the second by it."""
        at, coefficients, centre, by_direct, by_coefficients = arrays
        problem, weights, direct = self.problem, self.weights, self.direct
        x = x.at[direct].set(at[direct]).at[weights].set(0.0)
        values, _ = constrained(self.sites, x)

        def own(w):  # of all numbers these alone have slopes: others would be pushed along for nothing
            given = {path: w[index].reshape(self.sites[path].shape) for path, index in self._where.items()}
            return self._coefficients(realise(problem.model, values | given), at)

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

    def _position(self, arrays: tuple, xi: Array) -> tuple[Array, Array]:
        mean, first, second, of_weights = self._blocks(arrays, xi)
        direct = mean + solve_triangular(first, xi[self.direct], lower=True, trans=1)
        weights = of_weights(direct) + solve_triangular(second, xi[self.weights], lower=True, trans=1)
        volume = -jnp.sum(jnp.log(jnp.diag(first))) - jnp.sum(jnp.log(jnp.diag(second)))
        return xi.at[self.direct].set(direct).at[self.weights].set(weights), volume

    def _back(self, arrays: tuple, x: Array) -> Array:
        mean, first, second, of_weights = self._blocks(arrays, x)
        direct = x[self.direct]
        xi = x.at[self.direct].set(first.T @ (direct - mean))
        return xi.at[self.weights].set(second.T @ (x[self.weights] - of_weights(direct)))


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


def linear_start(
    maker: Linearisation,
    optimiser: Optimiser,
    x: Float[np.ndarray, "n dimension"],
    prior: Float[np.ndarray, " dimension"],
    chains: int,
    *,
    key: Array,
) -> np.ndarray:
    """Where chains begin: near the hyperparameters of what climbs have reached, with all else drawn to first order."""
    frame = maker.restored(maker.frame(x[:1]))
    xi = coordinates(frame, x[np.arange(chains) % len(x)])
    hyper = np.setdiff1d(np.arange(maker.dimension), [*maker.weights, *maker.direct])
    noise = np.asarray(jax.random.normal(key, (_TRIES, chains, maker.dimension)))
    begun = x[np.arange(chains) % len(x)]
    missing = np.ones(chains, bool)
    for number in range(_TRIES):
        size = 2.0**-number
        tried = xi * (1 - size)
        tried[:, hyper] = xi[:, hyper]
        step = noise[number] * size
        step[:, hyper] *= _APART * prior[hyper]
        there, _ = positions(frame, tried + step)
        fine = missing & np.isfinite(or_lowest(optimiser.evaluate(there)[0]))
        begun = np.where(fine[:, None], there, begun)
        missing &= ~fine
        if not missing.any():
            break
    return begun


def _is_basis(node: Any) -> bool:
    return isinstance(node, Basis)
