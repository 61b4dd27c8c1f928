"""Coordinates in which science and unknown functions, both at once, are nearly normal given their
hyperparameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Int

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
from .frame import arrays_of, frame_of, with_volumes

_PROBES, _TRIED = (
    3,
    20,
)  # prior draws at which it is looked what predictions hang on directly, of so many tried
_BATCH = 16
# A direction of the weights counts as told by data from such a precision on, of its likelihood in
# that of its prior.
_TOLD_FROM = (0.2, 1.0, 5.0)
_FEWEST = 20  # positions by which frames are compared
# Nats of each weight by which another frame must suit better: a hundredth of a unit normal's
# square.
_BETTER = 0.005
_FEW = 2  # so many told directions at most follow the slopes of the model where they are
# Multiplications in the product of the slopes with themselves, which every gradient takes, at most.
_DEAREST = 50_000_000


class Linearised(eqx.Module):
    r"""Coordinates of science $\theta$ and weights $w$ of unknown functions, given hyperparameters
    $h$.

    To first order around a reference predictions are linear in $\theta$ and in the coefficients
    $c(h, w)$ of the functions, which are linear in $w$. So $\theta$ given $h$, with $w$ integrated
    out, is nearly normal, and so is $w$ given both. The slopes are those of the reference. Two
    things are done where they suit draws better: $w$ may be given the values of the science, as the
    equations see them, and not its numbers on the real line, which may be logarithms; and
    directions of $w$ of which data say little may come first. The mean of the others is corrected
    by what the model itself predicts where those are; if they are few, and the model solves
    nothing, by its slopes there too. Coordinates are $h$, $\theta$ and $w$ in units of these
    normals. The posterior stays what it is.

    Args:
        on: whether they are that; else the plain ones.
        at: the reference position.
        coefficients: those of the functions there, `(coefficient,)`.
        centre: what is predicted there, by observable.
        variances: those of the predictions there, of a filter.
        by_direct: the slopes of predictions by what they hang on directly, `(datum, direct)`.
        by_coefficients: those by the coefficients, `(datum, coefficient)`.
        values: those of all that are no weights, `(value,)`.
        by_values: the slopes of what predictions hang on directly by the values, `(direct, value)`.
        follows_values: whether weights are given the values of the science.
        turn: orthogonal directions of the standardised weights, `(weight, direction)`, by how much
            data say of them.
        told: how many of them, from the first on, follow all others by the model itself.
        linear: what made it.
    """

    on: Bool[Array, ""]
    at: Float[Array, " dimension"]
    coefficients: Float[Array, " coefficient"]
    centre: dict[str, Array]
    variances: dict[str, Array]
    by_direct: Float[Array, "datum direct"]
    by_coefficients: Float[Array, "datum coefficient"]
    values: Float[Array, " value"]
    by_values: Float[Array, "direct value"]
    follows_values: Bool[Array, ""]
    turn: Float[Array, "weight weight"]
    told: Int[Array, ""]
    linear: "Linearisation" = eqx.field(static=True)

    def position(
        self, xi: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there
        stretches.
        """
        return self.both_ways(xi, jnp.asarray(False))

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return self.both_ways(x, jnp.asarray(True))[0]

    def both_ways(
        self, v: Float[Array, " dimension"], back: Bool[Array, ""]
    ) -> tuple[Array, Array]:
        """From coordinates to a position, or `back`, and the log of the volume that the way there
        stretches.
        """
        return self.linear.way(self, v, back)


class Linearisation:
    """Makes frames around the mean of some positions.

    `weights` are the places of the numbers in which the unknown functions are linear, `direct`
    those of all that predictions hang on otherwise; what is left are hyperparameters. With
    `slopes_there` few told directions follow the slopes of the model where they are.
    """

    kind = "linearised"
    dependent: tuple[int, ...] = ()

    def __init__(self, problem: Problem, paths: tuple[str, ...], *, slopes_there: bool = False):
        self.problem = problem = problem.reversible()
        self._forward = problem.forward()
        self.sites, self.dimension = problem.sites, problem.dimension
        sizes = [self.sites[path].size for path in paths]
        ends = np.cumsum(sizes)
        self._where = {
            path: np.arange(end - n, end) for path, n, end in zip(paths, sizes, ends, strict=True)
        }
        starts = [self.sites[path].start for path in paths]
        self.weights = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)]
        )
        self._mean, self._sd = _prior_normal(problem)
        self._slopes_there = slopes_there
        draws = np.asarray(problem.prior(_TRIED, key=jax.random.key(0)))
        self._others = np.setdiff1d(np.arange(self.dimension), self.weights)
        self._slopes = Program(self._around)
        self._coefficients_of = Program(jax.vmap(lambda x: self._coefficients(self._realised(x))))
        self._moving = self._hung_on(draws)
        self.direct = self._others[self._moving]
        self.hyper = self._others[~self._moving]
        middle = self._middle(draws[:1])
        self._information = Program(self._by_data)
        self.like = self._frame(
            False, *jax.tree.map(jnp.zeros_like, (*middle, *self._slopes(*middle)))
        )
        self.way = traced(self._way, self.like, jnp.zeros(self.dimension), jnp.asarray(False))

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around the mean of some positions; see `restored`."""
        middle = self._middle(chosen_for_reference(positions))
        return arrays_of(
            self._suiting(self._frame(True, *middle, *self._slopes(*middle)), positions)
        )

    def around(self, position: Float[np.ndarray, " dimension"], gradients: Any = None) -> Arrays:
        """The arrays of the frame around a position."""
        return self.frame(position[None])

    def restored(self, arrays: Mapping[str, Any]) -> Linearised:
        """The frame of such arrays."""
        return frame_of(arrays, self.like)

    def precision(self, optimiser: Optimiser, xi: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """What stands for minus the Hessian in a frame that suits: 1 for all but the
        hyperparameters.
        """
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
            _, _, by_others, by_coefficients, *_ = self._slopes(*self._middle(draw[None]))
            moving |= np.abs(by_others).max(axis=0) > 0
            sound += bool(np.any(by_coefficients))
            if sound == _PROBES:
                break
        return moving

    def _realised(self, x: Array, problem: Problem | None = None) -> Model:
        return realise((problem or self.problem).model, constrained(self.sites, x)[0])

    def _values(self, x: Array) -> Float[Array, " value"]:
        """The values of all that are no weights, as the equations see them."""
        values, _ = constrained(self.sites, x)
        return jnp.concatenate(
            [jnp.zeros(0), *(jnp.ravel(v) for path, v in values.items() if path not in self._where)]
        )

    def _coefficients(self, realised: Model) -> Float[Array, " coefficient"]:
        return jnp.concatenate([part.coefficients for _, part in linear_parts(realised)])

    def _predicted(self, x: Array, coefficients: Array, problem: Problem) -> tuple[dict, dict, Any]:
        """What is predicted where the functions have these coefficients."""
        realised = self._realised(x, problem)
        found = [part for _, part in linear_parts(realised)]
        each = jnp.split(coefficients, np.cumsum([part.coefficients.size for part in found])[:-1])
        held = iter([part.with_coefficients(own) for part, own in zip(found, each, strict=True)])
        realised = jax.tree.map(
            lambda node: next(held) if is_linear(node) else node, realised, is_leaf=is_linear
        )
        prediction = realised.predict(problem.inputs)
        return with_mismatches(self.problem, prediction), dict(prediction.variances), prediction.ok

    def _middle(self, chosen: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of some positions, and that of the coefficients there."""
        at = np.mean(chosen, axis=0)
        return at, np.mean(np.asarray(self._coefficients_of(np.asarray(chosen))), axis=0)

    def _around(self, at: Array, coefficients: Array) -> tuple[Any, ...]:
        """Predictions and values at a reference, and slopes of both: by all but the weights, and by
        coefficients.
        """
        size = len(self._others)

        def flat(numbers, coefficients):
            found = self._predicted(at.at[self._others].set(numbers), coefficients, self._forward)
            return jnp.concatenate(
                [jnp.ravel(value) for _, value in sorted(found[0].items())]
            ), found

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
        of_values = jax.jacfwd(lambda numbers: self._values(at.at[self._others].set(numbers)))(
            at[self._others]
        )
        return centre, variances, slopes[:, :size], slopes[:, size:], self._values(at), of_values

    def _frame(self, on: bool, *found: Any) -> Linearised:
        at, coefficients, centre, variances, by_others, by_coefficients, values, of_values = (
            jax.tree.map(jnp.asarray, found)
        )
        number = self.weights.size
        return Linearised(
            on=jnp.asarray(on),
            at=at,
            coefficients=coefficients,
            centre=centre,
            variances=variances,
            by_direct=by_others[:, self._moving],
            by_coefficients=by_coefficients,
            values=values,
            by_values=_left_inverse(of_values)[self._moving],
            follows_values=jnp.asarray(False),
            turn=jnp.eye(number),
            told=_number(number),
            linear=self,
        )

    def _suiting(
        self, frame: Linearised, positions: Float[np.ndarray, "n dimension"]
    ) -> Linearised:
        """The frame that suits positions: as it is, or by values; and then that, or with directions
        data tell last.
        """
        if len(positions) < _FEWEST:
            return frame
        by_values = eqx.tree_at(lambda f: f.follows_values, frame, jnp.asarray(True))
        frame, nats = self._better(positions, frame, self._nats(frame, positions), [by_values])
        precision, turn = np.linalg.eigh(np.nan_to_num(self._information(frame)))
        numbers = sorted(
            {int((precision >= bound).sum()) for bound in _TOLD_FROM} - {len(precision)}
        )
        turned = [
            eqx.tree_at(lambda f: (f.turn, f.told), frame, (jnp.asarray(turn[:, ::-1]), _number(n)))
            for n in numbers
        ]
        return self._better(positions, frame, nats, turned)[0]

    def _better(
        self,
        positions: Float[np.ndarray, "n dimension"],
        frame: Linearised,
        nats: float,
        others: list[Linearised],
    ) -> tuple[Linearised, float]:
        """The best of other frames with its nats, if it is by so much better than this one; else
        this one.
        """
        best, fewest = frame, nats - _BETTER * self.weights.size
        for other in others:
            own = self._nats(other, positions)
            if own < fewest:
                best, fewest, nats = other, own, own
        return best, nats

    def _nats(self, frame: Linearised, positions: Float[np.ndarray, "n dimension"]) -> float:
        """How unlikely the unit normal of a frame makes positions, but for a constant."""
        xi, volumes = with_volumes(frame, positions)
        nats = np.mean(0.5 * np.sum(xi[:, self.weights] ** 2, axis=1) + volumes)
        return float(np.nan_to_num(nats, nan=np.inf))

    def _by_data(self, frame: Linearised) -> Array:
        """What data say of the standardised weights at the reference: the product of their slopes
        with themselves.
        """
        slopes = self._lowered(frame, self._without(frame, frame.at)).by_weights
        return slopes.T @ slopes

    def _in_own_units(self, frame: Linearised, z: Array) -> Array:
        """The weights that standardised ones along the directions of a frame stand for."""
        return jnp.asarray(self._mean[self.weights]) + self._sd[self.weights] * (frame.turn @ z)

    def _without(self, frame: Linearised, v: Array) -> Array:
        """The hyperparameters of a position, with all else as in the middle."""
        return (
            v.at[self.direct]
            .set(frame.at[self.direct])
            .at[self.weights]
            .set(self._mean[self.weights])
        )

    def _lowered(self, frame: Linearised, x: Array) -> "_Residuals":
        """What is left of the data to first order, in units of the noise, given the hyperparameters
        in `x`.
        """
        problem, weights = self.problem, self.weights
        values, _ = constrained(self.sites, x)

        def own(
            z,
        ):  # of all numbers these alone have slopes: others would be pushed along for nothing
            w = self._in_own_units(frame, z)
            given = {
                path: w[index].reshape(self.sites[path].shape)
                for path, index in self._where.items()
            }
            return self._coefficients(realise(problem.model, values | given))

        middle = jnp.zeros(weights.size)
        offset, by_weights = own(middle), jax.jacfwd(own)(middle)
        realised = self._realised(x)

        def residual(values):
            return residuals(problem, realised, frame.centre, frame.variances, values)

        left, push = jax.linearize(residual, frame.centre)
        lowered = jax.vmap(
            lambda column: -push(_by_name(column, frame.centre)), in_axes=1, out_axes=1
        )
        by_direct = lowered(frame.by_direct)
        shifted = push(
            _by_name(frame.by_coefficients @ (offset - frame.coefficients), frame.centre)
        )
        in_the_middle = left + by_direct @ frame.at[self.direct] + shifted
        return _Residuals(
            in_the_middle, lowered(frame.by_coefficients @ by_weights), by_direct, residual
        )

    def _way(self, frame: Linearised, v: Array, back: Array) -> tuple[Array, Array]:
        weights, direct, number = self.weights, self.direct, self.weights.size
        told = jnp.arange(number) < frame.told
        x = self._without(frame, v)
        linear = self._lowered(frame, x)
        slopes = jnp.concatenate([linear.by_weights, linear.by_direct], axis=1)
        of_direct = 1 / self._sd[direct] ** 2
        prior = jnp.concatenate([jnp.ones(number), of_direct])
        pull = jnp.concatenate([jnp.zeros(number), of_direct * self._mean[direct]])
        factor = jnp.linalg.cholesky(slopes.T @ slopes + jnp.diag(prior))
        mean = cho_solve((factor, True), slopes.T @ linear.left + pull)[number:]
        first, second = factor[number:, number:], factor[:number, :number]
        spread = lambda xi: solve_triangular(second, xi, lower=True, trans=1)  # noqa: E731

        science = jnp.where(
            back, v[direct], mean + solve_triangular(first, v[direct], lower=True, trans=1)
        )
        by_values = frame.at[direct] + frame.by_values @ (
            self._values(x.at[direct].set(science)) - frame.values
        )
        given = jnp.where(frame.follows_values, by_values, science)
        middle = cho_solve(
            (second, True), linear.by_weights.T @ (linear.left - linear.by_direct @ given)
        )
        there = frame.turn.T @ ((v[weights] - self._mean[weights]) / self._sd[weights])
        xi = jnp.where(back, second.T @ (there - middle), v[weights])
        # Directions that data tell come last, and so follow all others by the model itself.
        middle = middle + spread(jnp.where(told, 0.0, xi))
        x = x.at[direct].set(science)
        middle, lower = self._corrected(
            frame, middle, second, linear, lambda w: self._left(x.at[weights].set(w), linear)
        )

        xi = jnp.where(back & told, lower.T @ (there - middle), xi)
        of_told = solve_triangular(lower, jnp.where(told, v[weights], 0.0), lower=True, trans=1)
        found = v.at[direct].set(jnp.where(back, first.T @ (science - mean), science))
        found = found.at[weights].set(
            jnp.where(back, xi, self._in_own_units(frame, middle + of_told))
        )
        of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(lower)))
        volume = of_weights - jnp.sum(jnp.log(jnp.diag(first)))
        # Not a `cond`, whose gradient keeps all that a prediction works out on its way.
        return jnp.where(frame.on, found, v), jnp.where(frame.on, volume, 0.0)

    def _left(self, x: Array, linear: "_Residuals") -> tuple[Array, Array]:
        """What the model itself leaves of the data at a position, in units of the noise, and
        whether it is usable.
        """
        prediction = self._realised(x).predict(self.problem.inputs)
        left = linear.of(with_mismatches(self.problem, prediction))
        usable = prediction.ok & jnp.isfinite(left).all()
        return jnp.where(usable, left, 0.0), usable

    def _corrected(
        self,
        frame: Linearised,
        middle: Array,
        second: Array,
        linear: "_Residuals",
        left_at: Callable[[Array], Any],
    ) -> tuple[Array, Array]:
        """The mean of the told directions given all others by the model itself, and the factor of
        their precision.

        `left_at` is what the model leaves of the data where the weights are so.
        """
        number, few = self.weights.size, min(_FEW, self.weights.size)
        told = jnp.arange(number) < frame.told
        known = jnp.where(told[:, None] & told, second, jnp.eye(number))
        left, usable = left_at(self._in_own_units(frame, middle))
        lacking = linear.by_weights.T @ left - middle
        middle += jnp.where(usable, cho_solve((known, True), jnp.where(told, lacking, 0.0)), 0.0)

        def gauss_newton(middle):
            some = told[:few]

            def left_of(z):
                left, usable = left_at(self._in_own_units(frame, middle.at[:few].set(z)))
                return left, (left, usable)

            z = middle[:few]
            slopes, (left, usable) = jax.jacfwd(left_of, has_aux=True)(z)
            usable = usable & jnp.isfinite(slopes.T @ slopes).all()
            slopes = jnp.where(usable & some, slopes, 0.0)
            factor = jnp.linalg.cholesky(slopes.T @ slopes + jnp.eye(few))
            z += jnp.where(usable & some, cho_solve((factor, True), -slopes.T @ left - z), 0.0)
            own = jnp.where(some[:, None] & some, factor, second[:few, :few])
            return middle.at[:few].set(z), second.at[:few, :few].set(own)

        if not self._slopes_there:
            return middle, second
        # What the gradient of a `cond` keeps is little where nothing is solved, and who gains
        # nothing pays nothing.
        are_few = (frame.told > 0) & (frame.told <= few)
        return jax.lax.cond(are_few, gauss_newton, lambda middle: (middle, second), middle)


class _Residuals(NamedTuple):
    """Residuals to first order: `left` where weights have their prior means and all they hang on
    directly is zero.

    `by_weights` and `by_direct` is by how much each number lowers them; `of` makes residuals of
    what is predicted.
    """

    left: Float[Array, " datum"]
    by_weights: Float[Array, "datum weight"]
    by_direct: Float[Array, "datum direct"]
    of: Callable[[dict[str, Array]], Array]


def _number(of: int) -> Int[Array, ""]:
    """A number as it comes from a journal:
    of JAX's weak type each program would be compiled twice.
    """
    return jnp.asarray(of, int)


def _left_inverse(slopes: Float[Array, "value number"]) -> Float[Array, "number value"]:
    """What takes changes of values to those of numbers, whatever the units of values."""
    slopes = jnp.nan_to_num(slopes, posinf=0.0, neginf=0.0)
    size = jnp.linalg.norm(slopes, axis=1, keepdims=True)
    size = jnp.where(size > 0, size, 1.0)
    return jnp.linalg.pinv(slopes / size) / size.T


def has_linear(problem: Problem) -> bool:
    """Whether a part of the model is linear in weights of its own."""
    return bool(linear_parts(problem.model.layer))


def linearisation_of(problem: Problem) -> Linearisation | None:
    """What makes frames for the unknown functions of a problem; none where none is linear in normal
    weights.
    """
    model = problem.model
    linear = linear_parts(model.layer)
    if not linear or networks(model) or isinstance(model.layer, AbstractPopulation):
        return None
    leaves = paths(model)
    places = [f"layer.{where}.{part.weights_field}" for where, part in linear]

    def inside(leaf):
        return any(p.startswith(place) for place in places for p in (leaf.path, *leaf.places))

    found = tuple(path for path, leaf in leaves.items() if is_normal(leaf) and inside(leaf))
    dear = problem.data * problem.dimension**2 > _DEAREST
    if not found or dear:
        return None
    solves_nothing = model.layer.trajectories == []
    for slopes_there in (True, False) if solves_nothing else (False,):
        try:
            maker = Linearisation(problem, found, slopes_there=slopes_there)
            like = maker.like
            jax.eval_shape(
                jax.grad(lambda xi, like=like: like.position(xi)[1]), jnp.zeros(problem.dimension)
            )
        except Exception:
            # Whatever JAX or a user's rule may raise: equations may have derivatives one way only.
            continue
        return maker
    return None


def _prior_normal(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each number under the prior: exact where it is normal, else
    about.
    """
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
