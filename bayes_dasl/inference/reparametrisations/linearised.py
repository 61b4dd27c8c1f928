"""Science and unknown functions, reparametrised together given hyperparameters."""

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
from ..starts import Optimiser, chosen_for_reference, precision_at
from .conditional import is_normal
from .reparametrisation import (
    Identity,
    Reparametrisation,
    arrays_of,
    each_row,
    from_arrays,
    in_batches,
)

# Sound prior draws at which direct effects on predictions are looked for, and draws tried.
_PROBES, _TRIED = 3, 20
_BATCH = 16
# A direction of the weights counts as told by data from such a precision on, of its likelihood in
# that of its prior.
_TOLD_FROM = (0.2, 1.0, 5.0)
_FEWEST = 20  # positions by which reparametrisations are compared
# Nats of each weight by which another variant must suit better: a hundredth of a unit normal's
# square.
_BETTER = 0.005
_FEW = 2  # so many told directions at most follow the slopes of the model where they are
# Multiplications in the product of the slopes with themselves, which every gradient takes, at most.
_DEAREST = 50_000_000


class Linearised(Reparametrisation):
    r"""Science $\theta$ and weights $w$ of functions, nearly normal given hyperparameters $h$.

    To first order around a reference predictions are linear in $\theta$ and in the coefficients
    $c(h, w)$ of the functions, which are linear in $w$. So $\theta$ given $h$, with $w$ integrated
    out, is nearly normal, and so is $w$ given both. The slopes are those of the reference. Two
    things are done where they suit draws better: $w$ may be given the values of the science, as the
    equations see them, and not its numbers on the real line, which may be logarithms; and
    directions of $w$ of which data say little may come first. The mean of the others is corrected
    by what the model itself predicts where those are; if they are few, and the model solves
    nothing, by its slopes there too. The new parameters are $h$, and $\theta$ and $w$ in
    units of these normals. The posterior itself does not change.

    Args:
        on: whether it is switched on; else it is the identity.
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

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters, and log |det J|."""
        return self.both_ways(z, jnp.asarray(False))

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x)."""
        return self.both_ways(x, jnp.asarray(True))[0]

    def both_ways(
        self, v: Float[Array, " dimension"], back: Bool[Array, ""]
    ) -> tuple[Array, Array]:
        """Return x of z = v, or z of x = v if `back`, and log |det ∂x/∂z| either way."""
        return self.linear.way(self, v, back)

    @property
    def active(self) -> Reparametrisation:
        """Itself, or the identity if it is switched off."""
        return self if self.on else Identity()

    # Both ways have most of their work in common, so that one compiled program serves both.
    def forward_many(self, z: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and log |det J| for many z."""
        return in_batches(_both_ways, (self, False), z)  # pyright: ignore

    def inverse_many(self, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Return z for many x."""
        return self.inverse_with_log_det(x)[0]

    def inverse_with_log_det(
        self, x: Float[np.ndarray, "n dimension"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return z and log |det J| for many x."""
        return in_batches(_both_ways, (self, True), x)  # pyright: ignore


@Program
def _both_ways(shared, v):
    reparametrisation, back = shared
    return each_row(lambda v: reparametrisation.both_ways(v, back), v)


class Linearisation:
    """Fits `Linearised` around the mean of some positions.

    `weights` are the places of the numbers in which the unknown functions are linear, `direct`
    those of all that predictions hang on otherwise; what is left are hyperparameters. With
    `slopes_there` few told directions follow the slopes of the model where they are.
    """

    kind = "linearised"
    evaluated_anew = True
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
        self.like = self._made(
            False, *jax.tree.map(jnp.zeros_like, (*middle, *self._slopes(*middle)))
        )
        self.way = traced(self._way, self.like, jnp.zeros(self.dimension), jnp.asarray(False))

    def from_draws(
        self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None
    ) -> Arrays:
        """Return the arrays of the reparametrisation around the mean of some positions."""
        middle = self._middle(chosen_for_reference(positions))
        return arrays_of(
            self._suiting(self._made(True, *middle, *self._slopes(*middle)), positions)
        )

    def around(self, position: Float[np.ndarray, " dimension"], gradients: Any = None) -> Arrays:
        """Return the arrays of the reparametrisation around a position."""
        return self.from_draws(position[None])

    def restored(self, arrays: Mapping[str, Any]) -> Linearised:
        """Return the reparametrisation of such arrays."""
        return from_arrays(arrays, self.like)

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """Return minus the Hessian by z, taken as 1 for all but the hyperparameters."""
        return precision_at(optimiser, z, self.hyper.tolist())

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

    def _made(self, on: bool, *found: Any) -> Linearised:
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
        self, fitted: Linearised, positions: Float[np.ndarray, "n dimension"]
    ) -> Linearised:
        """Choose the variant under which positions are most nearly normal.

        First: weights given numbers, or values, of the science. Then: as it is, or with the
        directions that data inform last.
        """
        if len(positions) < _FEWEST:
            return fitted
        by_values = eqx.tree_at(lambda f: f.follows_values, fitted, jnp.asarray(True))
        fitted, nats = self._better(positions, fitted, self._nats(fitted, positions), [by_values])
        precision, turn = np.linalg.eigh(np.nan_to_num(self._information(fitted)))
        numbers = sorted(
            {int((precision >= bound).sum()) for bound in _TOLD_FROM} - {len(precision)}
        )
        turned = [
            eqx.tree_at(
                lambda f: (f.turn, f.told), fitted, (jnp.asarray(turn[:, ::-1]), _number(n))
            )
            for n in numbers
        ]
        return self._better(positions, fitted, nats, turned)[0]

    def _better(
        self,
        positions: Float[np.ndarray, "n dimension"],
        fitted: Linearised,
        nats: float,
        others: list[Linearised],
    ) -> tuple[Linearised, float]:
        """Return the best variant with its nats; this one, unless another is clearly better."""
        best, fewest = fitted, nats - _BETTER * self.weights.size
        for other in others:
            own = self._nats(other, positions)
            if own < fewest:
                best, fewest, nats = other, own, own
        return best, nats

    def _nats(self, fitted: Linearised, positions: Float[np.ndarray, "n dimension"]) -> float:
        """Return minus the mean log density of positions if z is N(0, 1), but for a constant."""
        z, log_dets = fitted.inverse_with_log_det(positions)
        nats = np.mean(0.5 * np.sum(z[:, self.weights] ** 2, axis=1) + log_dets)
        return float(np.nan_to_num(nats, nan=np.inf))

    def _by_data(self, fitted: Linearised) -> Array:
        """Return the Fisher information AᵀA of the standardised weights at the reference."""
        slopes = self._lowered(fitted, self._without(fitted, fitted.at)).by_weights
        return slopes.T @ slopes

    def _in_own_units(self, fitted: Linearised, z: Array) -> Array:
        """Return the weights of standardised ones along the turned directions."""
        return jnp.asarray(self._mean[self.weights]) + self._sd[self.weights] * (fitted.turn @ z)

    def _without(self, fitted: Linearised, v: Array) -> Array:
        """The hyperparameters of a position, with all else as in the middle."""
        return (
            v.at[self.direct]
            .set(fitted.at[self.direct])
            .at[self.weights]
            .set(self._mean[self.weights])
        )

    def _lowered(self, fitted: Linearised, x: Array) -> "_Residuals":
        """Return residuals to first order, in units of the noise, given hyperparameters in `x`."""
        problem, weights = self.problem, self.weights
        values, _ = constrained(self.sites, x)

        # Coefficients by the weights alone: JAX then pushes no tangents of others along.
        def own(z):
            w = self._in_own_units(fitted, z)
            given = {
                path: w[index].reshape(self.sites[path].shape)
                for path, index in self._where.items()
            }
            return self._coefficients(realise(problem.model, values | given))

        middle = jnp.zeros(weights.size)
        offset, by_weights = own(middle), jax.jacfwd(own)(middle)
        realised = self._realised(x)

        def residual(values):
            return residuals(problem, realised, fitted.centre, fitted.variances, values)

        left, push = jax.linearize(residual, fitted.centre)
        lowered = jax.vmap(
            lambda column: -push(_by_name(column, fitted.centre)), in_axes=1, out_axes=1
        )
        by_direct = lowered(fitted.by_direct)
        shifted = push(
            _by_name(fitted.by_coefficients @ (offset - fitted.coefficients), fitted.centre)
        )
        in_the_middle = left + by_direct @ fitted.at[self.direct] + shifted
        return _Residuals(
            in_the_middle, lowered(fitted.by_coefficients @ by_weights), by_direct, residual
        )

    def _way(self, fitted: Linearised, v: Array, back: Array) -> tuple[Array, Array]:
        weights, direct, number = self.weights, self.direct, self.weights.size
        # 1. Residuals to first order, given h: r(w, θ) = left − A w − B θ, with w standardised.
        told = jnp.arange(number) < fitted.told
        x = self._without(fitted, v)
        linear = self._lowered(fitted, x)
        slopes = jnp.concatenate([linear.by_weights, linear.by_direct], axis=1)
        # 2. Joint precision of (w, θ) given h and data: [A B]ᵀ[A B] + prior = L Lᵀ. Its last block
        #    L_θθ is the factor of θ with w integrated out; its first one, L_ww, that of w given θ.
        of_direct = 1 / self._sd[direct] ** 2
        prior = jnp.concatenate([jnp.ones(number), of_direct])
        pull = jnp.concatenate([jnp.zeros(number), of_direct * self._mean[direct]])
        factor = jnp.linalg.cholesky(slopes.T @ slopes + jnp.diag(prior))
        mean = cho_solve((factor, True), slopes.T @ linear.left + pull)[number:]
        first, second = factor[number:, number:], factor[:number, :number]
        spread = lambda xi: solve_triangular(second, xi, lower=True, trans=1)  # noqa: E731

        # 3. θ = mean + L_θθ⁻ᵀ z_θ, or θ as given on the way back.
        science = jnp.where(
            back, v[direct], mean + solve_triangular(first, v[direct], lower=True, trans=1)
        )
        # 4. w given θ has the mean (L_ww L_wwᵀ)⁻¹ Aᵀ (left − B θ); B θ may follow θ's values.
        by_values = fitted.at[direct] + fitted.by_values @ (
            self._values(x.at[direct].set(science)) - fitted.values
        )
        given = jnp.where(fitted.follows_values, by_values, science)
        middle = cho_solve(
            (second, True), linear.by_weights.T @ (linear.left - linear.by_direct @ given)
        )
        there = fitted.turn.T @ ((v[weights] - self._mean[weights]) / self._sd[weights])
        xi = jnp.where(back, second.T @ (there - middle), v[weights])
        # 5. Directions that data inform come last, and so follow all others by the model itself.
        middle = middle + spread(jnp.where(told, 0.0, xi))
        x = x.at[direct].set(science)
        middle, lower = self._corrected(
            fitted, middle, second, linear, lambda w: self._left(x.at[weights].set(w), linear)
        )

        # 6. z_w = Lᵀ (w − mean), or w = mean + L⁻ᵀ z_w.
        xi = jnp.where(back & told, lower.T @ (there - middle), xi)
        of_told = solve_triangular(lower, jnp.where(told, v[weights], 0.0), lower=True, trans=1)
        found = v.at[direct].set(jnp.where(back, first.T @ (science - mean), science))
        found = found.at[weights].set(
            jnp.where(back, xi, self._in_own_units(fitted, middle + of_told))
        )
        # 7. log|det J| = Σ log sd_w − Σ log L_ww,ii − Σ log L_θθ,ii.
        of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(lower)))
        log_det = of_weights - jnp.sum(jnp.log(jnp.diag(first)))
        # Not a `cond`, whose gradient keeps all that a prediction works out on its way.
        return jnp.where(fitted.on, found, v), jnp.where(fitted.on, log_det, 0.0)

    def _left(self, x: Array, linear: "_Residuals") -> tuple[Array, Array]:
        """Return the model's own residuals in units of the noise, and whether they are finite."""
        prediction = self._realised(x).predict(self.problem.inputs)
        left = linear.of(with_mismatches(self.problem, prediction))
        usable = prediction.ok & jnp.isfinite(left).all()
        return jnp.where(usable, left, 0.0), usable

    def _corrected(
        self,
        fitted: Linearised,
        middle: Array,
        second: Array,
        linear: "_Residuals",
        left_at: Callable[[Array], Any],
    ) -> tuple[Array, Array]:
        """Correct the mean of the informed directions by the model itself.

        Args:
            left_at: the model's own residuals for given weights.

        Returns:
            The mean given all others, and the factor of their precision.
        """
        number, few = self.weights.size, min(_FEW, self.weights.size)
        told = jnp.arange(number) < fitted.told
        known = jnp.where(told[:, None] & told, second, jnp.eye(number))
        # One step of Gauss–Newton, with the slopes of the reference and the model's own residuals.
        left, usable = left_at(self._in_own_units(fitted, middle))
        lacking = linear.by_weights.T @ left - middle
        middle += jnp.where(usable, cho_solve((known, True), jnp.where(told, lacking, 0.0)), 0.0)

        def gauss_newton(middle):
            some = told[:few]

            def left_of(z):
                left, usable = left_at(self._in_own_units(fitted, middle.at[:few].set(z)))
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
        are_few = (fitted.told > 0) & (fitted.told <= few)
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
    """Return what fits `Linearised`, or None without a function linear in normal weights."""
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
                jax.grad(lambda z, like=like: like.forward(z)[1]), jnp.zeros(problem.dimension)
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
