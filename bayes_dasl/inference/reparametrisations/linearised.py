"""Joint reparametrisation of science and weights of functions, given hyperparameters."""

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
from ..linear_residuals import residuals, with_constraint_residuals
from ..problem import Problem
from ..sites import constrained
from ..starts import Optimiser, chosen_for_reference, precision_at
from .conditional import is_normal
from .reparametrisation import (
    Identity,
    Reparametrisation,
    arrays_of,
    from_arrays,
)

# Number of solved prior draws that show which parameters affect predictions directly, and the
# largest number of draws for this.
_PROBES, _TRIED = 3, 20
_BATCH = 16
# A direction is informed if the ratio of its precisions by data and by the prior reaches a bound.
# Each of these bounds gives a variant.
_INFORMED_FROM = (0.2, 1.0, 5.0)
# Number of positions that are needed to compare variants.
_FEWEST = 20
# Another variant is chosen if it is better by this many nats per weight.
_BETTER = 0.005
# Up to this number of informed directions, slopes are taken at each position.
_FEW = 2
# The largest number of multiplications in AᵀA for slopes A, which every gradient computes.
_DEAREST = 50_000_000


class Linearised(Reparametrisation):
    r"""Science $\theta$ and weights $w$ of functions, nearly normal given hyperparameters $h$.

    To first order around a reference position, predictions are linear in $\theta$ and in the
    coefficients $c(h, w)$ of the functions. The coefficients are linear in $w$. So $\theta$ given
    $h$, with $w$ integrated out, is nearly normal, and $w$ given $h$ and $\theta$ is nearly normal,
    too. The new parameters are $h$, and $\theta$ and $w$ standardised by these two normals. The
    posterior itself does not change.

    Two changes to this plain variant are made if draws are more normal with them:

    - The mean of $w$ is computed from the constrained values of $\theta$, as in the equations. The
      plain variant uses its unconstrained parameters, which may be logarithms.
    - The mean is corrected for some directions of $w$ only, those about which data have the most
      information. The plain variant corrects all directions.

    The correction is one Gauss–Newton step for the mean of these directions, given all other
    parameters. It uses predictions of the model itself. If there are at most two such directions,
    and the model solves nothing, it also uses the model's slopes.

    Args:
        on: whether it is switched on; otherwise it is the identity.
        at: the reference position.
        coefficients: coefficients of the functions at the reference, `(coefficient,)`.
        centre: predictions at the reference, by observable.
        variances: variances of these predictions from a filter, by observable.
        by_direct: slopes of predictions by the parameters with a direct effect, `(datum, direct)`.
        by_coefficients: slopes of predictions by the coefficients, `(datum, coefficient)`.
        values: constrained values at the reference of all parameters except weights, `(value,)`.
        by_values: slopes of the parameters with a direct effect by these values, `(direct, value)`.
        follows_values: whether the mean of weights is computed from constrained values.
        turn: orthogonal directions of the standardised weights as columns, `(weight, direction)`,
            those with the most information first.
        informed: number of directions, from the first one on, whose mean is corrected.
        linear: the object that fitted it.
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
    informed: Int[Array, ""]
    linear: "Linearisation" = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters x(z), and log |det J|."""
        return self.both_ways(z, jnp.asarray(False))

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x), the inverse of `forward`."""
        return self.both_ways(x, jnp.asarray(True))[0]

    def both_ways(
        self, v: Float[Array, " dimension"], back: Bool[Array, ""]
    ) -> tuple[Array, Array]:
        """Return x(z) or z(x), and log |det ∂x/∂z| in both cases.

        Args:
            v: z, or x if `back`.
            back: whether to return z(x).
        """
        return self.linear.way(self, v, back)

    @property
    def active(self) -> Reparametrisation:
        """Return this map if it is switched on, else the identity."""
        return self if self.on else Identity()

    def transformed(
        self, v: Float[Array, " dimension"], lp: Array, gradient: Array, back: Bool[Array, ""]
    ) -> tuple[Array, Array, Array, Array]:
        """Transform a position; its log density and gradient are NaN, and evaluated anew."""
        return *self.both_ways(v, back), jnp.nan * lp, jnp.nan * gradient


class Linearisation:
    """Fits `Linearised` around the mean of some positions.

    It divides the flat vector into three parts, which are attributes with indices. `weights` are
    the parameters in which unknown functions are linear. `direct` are other parameters with a
    direct effect on predictions. `hyper` are all others.

    Args:
        problem: the posterior.
        paths: paths of the random leaves that are the weights.
        slopes_there: whether slopes are taken at each position if few directions are informed.
    """

    kind = "linearised"
    evaluated_anew = True
    ends_early = True
    dependent: tuple[int, ...] = ()

    def __init__(self, problem: Problem, paths: tuple[str, ...], *, slopes_there: bool = False):
        self.problem = problem = problem.reversible()
        self._forward = problem.forward()
        self.sites = problem.sites
        self.dimension = problem.dimension
        # 1. Indices of the weights in the flat vector, and of each path among the weights.
        sites = [self.sites[path] for path in paths]
        self.weights = np.concatenate([np.arange(s.start, s.start + s.size) for s in sites])
        ends = np.cumsum([site.size for site in sites])
        self._where = {
            path: np.arange(end - site.size, end)
            for path, site, end in zip(paths, sites, ends, strict=True)
        }
        self._mean, self._sd = _exact_prior_normal(problem)
        self._slopes_there = slopes_there
        # 2. Other parameters: those that move predictions directly, and hyperparameters.
        draws = np.asarray(problem.prior(_TRIED, key=jax.random.key(0)))
        self._others = np.setdiff1d(np.arange(self.dimension), self.weights)
        self._slopes = Program(self._around)
        self._coefficients_of = Program(jax.vmap(lambda x: self._coefficients(self._realised(x))))
        self._moving = self._with_direct_effect(draws)
        self.direct = self._others[self._moving]
        self.hyper = self._others[~self._moving]
        # 3. An inactive reparametrisation of the right shapes, for which the program is traced.
        middle = self._middle(draws[:1])
        self._information_of = Program(self._by_data)
        blank = jax.tree.map(jnp.zeros_like, (*middle, *self._slopes(*middle)))
        self.like = self._made(False, *blank)
        self.way = traced(self._way, self.like, jnp.zeros(self.dimension), jnp.asarray(False))

    def from_draws(
        self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None
    ) -> Arrays:
        """Return the arrays of the reparametrisation around the mean of some positions.

        Args:
            positions: unconstrained parameters.
            gradients: not used.
        """
        middle = self._middle(chosen_for_reference(positions))
        fitted = self._made(True, *middle, *self._slopes(*middle))
        return arrays_of(self._best_variant(fitted, positions))

    def around(self, position: Float[np.ndarray, " dimension"], gradients: Any = None) -> Arrays:
        """Return the arrays of the reparametrisation around one position.

        Args:
            position: unconstrained parameters.
            gradients: not used.
        """
        return self.from_draws(position[None])

    def restored(self, arrays: Mapping[str, Any]) -> Linearised:
        """Return the reparametrisation from its arrays."""
        return from_arrays(arrays, self.like)

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """Return minus the Hessian by z for hyperparameters.

        Rows and columns of all other parameters are those of the identity matrix.

        Args:
            optimiser: evaluates gradients in the reparametrisation.
            z: the position.
        """
        return precision_at(optimiser, z, self.hyper.tolist())

    def _with_direct_effect(
        self, draws: Float[np.ndarray, "draw dimension"]
    ) -> Bool[np.ndarray, " other"]:
        """Return which parameters other than weights change predictions at fixed coefficients.

        Args:
            draws: positions at which this is tested.
        """
        moving = np.zeros(len(self._others), bool)
        sound = 0
        for draw in draws:
            _, _, by_others, by_coefficients, *_ = self._slopes(*self._middle(draw[None]))
            moving |= np.abs(by_others).max(axis=0) > 0
            sound += bool(np.any(by_coefficients))
            if sound == _PROBES:
                break
        return moving

    def _realised(self, x: Array, problem: Problem | None = None) -> Model:
        """Return the model with the parameters of a position.

        Args:
            x: the position.
            problem: the posterior whose model is used, by default the one of this object.
        """
        return realise((problem or self.problem).model, constrained(self.sites, x)[0])

    def _values(self, x: Array) -> Float[Array, " value"]:
        """Return the constrained values of all parameters except weights, at a position."""
        values, _ = constrained(self.sites, x)
        others = [jnp.ravel(v) for path, v in values.items() if path not in self._where]
        return jnp.concatenate([jnp.zeros(0), *others])

    def _coefficients(self, realised: Model) -> Float[Array, " coefficient"]:
        """Return the coefficients of all functions that are linear in their weights."""
        return jnp.concatenate([part.coefficients for _, part in linear_parts(realised)])

    def _predicted(self, x: Array, coefficients: Array, problem: Problem) -> tuple[dict, dict, Any]:
        """Predict with given coefficients of the functions.

        Args:
            x: the position.
            coefficients: the coefficients.
            problem: the posterior whose model is used.

        Returns:
            Predictions and their variances, by observable, and whether the solver succeeded.
        """
        realised = self._realised(x, problem)
        found = [part for _, part in linear_parts(realised)]
        each = jnp.split(coefficients, np.cumsum([part.coefficients.size for part in found])[:-1])
        held = iter([part.with_coefficients(own) for part, own in zip(found, each, strict=True)])
        realised = jax.tree.map(
            lambda node: next(held) if is_linear(node) else node, realised, is_leaf=is_linear
        )
        prediction = realised.predict(problem.inputs)
        return (
            with_constraint_residuals(self.problem, prediction),
            dict(prediction.variances),
            prediction.ok,
        )

    def _middle(self, chosen: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of some positions, and the mean of the functions' coefficients there."""
        coefficients = np.asarray(self._coefficients_of(np.asarray(chosen)))
        return chosen.mean(axis=0), coefficients.mean(axis=0)

    def _around(self, at: Array, coefficients: Array) -> tuple[Any, ...]:
        """Compute predictions and constrained values at a reference position, and their slopes.

        Args:
            at: the reference position.
            coefficients: the coefficients of the functions.

        Returns:
            Predictions; their variances; slopes of predictions by all parameters except weights;
            slopes of predictions by coefficients; constrained values; and their slopes by the
            parameters.
        """
        size = len(self._others)
        total = size + coefficients.size

        def flat(others, coefficients):
            found = self._predicted(at.at[self._others].set(others), coefficients, self._forward)
            predictions = [jnp.ravel(value) for _, value in sorted(found[0].items())]
            return jnp.concatenate(predictions), found

        # 1. Slopes of predictions by forward mode, one direction after the other.
        others = at[self._others]

        def along(i):
            direction = jnp.zeros(total).at[i].set(1.0)
            parts = direction[:size], direction[size:]
            _, slope, found = jax.jvp(flat, (others, coefficients), parts, has_aux=True)
            return slope, found

        slopes, found = jax.lax.map(along, jnp.arange(total), batch_size=_BATCH)
        # 2. Zero where the solve fails: the reparametrisation then is that of the prior.
        values, variances, ok = jax.tree.map(lambda each: each[0], found)
        sound = lambda v: jnp.where(ok & jnp.isfinite(v), v, 0.0)  # noqa: E731
        slopes = sound(slopes.T)
        centre, variances = jax.tree.map(sound, (values, variances))
        # 3. Slopes of the constrained values.
        values_of = lambda others: self._values(at.at[self._others].set(others))  # noqa: E731
        of_values = jax.jacfwd(values_of)(others)
        return centre, variances, slopes[:, :size], slopes[:, size:], self._values(at), of_values

    def _made(self, on: bool, *found: Any) -> Linearised:
        """Return the plain variant of the reparametrisation.

        Args:
            on: whether it is switched on.
            *found: the results of `_middle` and of `_around`.
        """
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
            informed=_strongly_typed(number),
            linear=self,
        )

    def _best_variant(
        self, fitted: Linearised, positions: Float[np.ndarray, "n dimension"]
    ) -> Linearised:
        """Return the variant under which some positions are most nearly normal.

        Args:
            fitted: the plain variant.
            positions: unconstrained parameters; with fewer than 20 the plain variant is returned.
        """
        if len(positions) < _FEWEST:
            return fitted
        # 1. Mean of weights from unconstrained parameters, or from constrained values.
        by_values = eqx.tree_at(lambda f: f.follows_values, fitted, jnp.asarray(True))
        fitted, nats = self._better(positions, fitted, self._nats(fitted, positions), [by_values])
        # 2. All directions are corrected, or only eigenvectors of AᵀA with large eigenvalues.
        precision, turn = np.linalg.eigh(np.nan_to_num(self._information_of(fitted)))
        counts = {int((precision >= bound).sum()) for bound in _INFORMED_FROM} - {len(precision)}
        turned = [
            eqx.tree_at(
                lambda f: (f.turn, f.informed),
                fitted,
                (jnp.asarray(turn[:, ::-1]), _strongly_typed(n)),
            )
            for n in sorted(counts)
        ]
        return self._better(positions, fitted, nats, turned)[0]

    def _better(
        self,
        positions: Float[np.ndarray, "n dimension"],
        fitted: Linearised,
        nats: float,
        others: list[Linearised],
    ) -> tuple[Linearised, float]:
        """Return the variant with the fewest nats, and its nats.

        Another variant replaces `fitted` only if it is clearly better.

        Args:
            positions: unconstrained parameters.
            fitted: the present variant.
            nats: its nats, from `_nats`.
            others: other variants.
        """
        fewest = nats - _BETTER * self.weights.size
        for other in others:
            own = self._nats(other, positions)
            if own < fewest:
                fitted = other
                fewest = nats = own
        return fitted, nats

    def _nats(self, fitted: Linearised, positions: Float[np.ndarray, "n dimension"]) -> float:
        """Return minus the mean log density of positions if z is standard normal, up to a constant.

        Only the standardised weights in z and log |det J| are counted.

        Args:
            fitted: the reparametrisation.
            positions: unconstrained parameters.
        """
        # −log N(z) + log |det ∂x/∂z| = ½ |z|² + log |det J| + constant.
        z, log_dets = fitted.inverse_many(positions)
        nats = np.mean(0.5 * np.sum(z[:, self.weights] ** 2, axis=1) + log_dets)
        return float(np.nan_to_num(nats, nan=np.inf))

    def _by_data(self, fitted: Linearised) -> Array:
        """Return the Fisher information AᵀA of the standardised weights at the reference."""
        slopes = self._lowered(fitted, self._without(fitted, fitted.at)).by_weights
        return slopes.T @ slopes

    def _in_own_units(self, fitted: Linearised, z: Array) -> Array:
        """Return weights from standardised weights.

        Args:
            fitted: the reparametrisation, whose `turn` has the directions.
            z: standardised weights along these directions.
        """
        return jnp.asarray(self._mean[self.weights]) + self._sd[self.weights] * (fitted.turn @ z)

    def _without(self, fitted: Linearised, v: Array) -> Array:
        """Return a position with only the hyperparameters of `v`.

        Direct parameters are those of the reference, and weights have their prior means.
        """
        x = v.at[self.direct].set(fitted.at[self.direct])
        return x.at[self.weights].set(self._mean[self.weights])

    def _lowered(self, fitted: Linearised, x: Array) -> "_LinearResiduals":
        """Return residuals to first order in units of the noise, given hyperparameters.

        Args:
            fitted: the reparametrisation.
            x: a position with these hyperparameters; its other parameters are those of `_without`.
        """
        problem = self.problem
        weights = self.weights
        values, _ = constrained(self.sites, x)

        # 1. Coefficients c = c₀ + C w, as a function of w only, so that JAX computes no other
        #    tangents.
        def own(z):
            w = self._in_own_units(fitted, z)
            given = {
                path: w[index].reshape(self.sites[path].shape)
                for path, index in self._where.items()
            }
            return self._coefficients(realise(problem.model, values | given))

        middle = jnp.zeros(weights.size)
        offset = own(middle)
        by_weights = jax.jacfwd(own)(middle)
        realised = self._realised(x)

        def residual(values):
            return residuals(problem, realised, fitted.centre, fitted.variances, values)

        # 2. Residuals at the reference, and the columns by which each parameter lowers them.
        left, push = jax.linearize(residual, fitted.centre)
        lowered = jax.vmap(
            lambda column: -push(_by_name(column, fitted.centre)), in_axes=1, out_axes=1
        )
        by_direct = lowered(fitted.by_direct)
        # 3. Move from the reference to θ = 0 and to the coefficients c₀ of mean weights.
        to_mean_weights = fitted.by_coefficients @ (offset - fitted.coefficients)
        shifted = push(_by_name(to_mean_weights, fitted.centre))
        in_the_middle = left + by_direct @ fitted.at[self.direct] + shifted
        by_weights = lowered(fitted.by_coefficients @ by_weights)
        return _LinearResiduals(in_the_middle, by_weights, by_direct, residual)

    def _way(self, fitted: Linearised, v: Array, back: Array) -> tuple[Array, Array]:
        """Return x(z) or z(x), and log |det ∂x/∂z|.

        Args:
            fitted: the reparametrisation.
            v: z, or x if `back`.
            back: whether to return z(x).
        """
        weights = self.weights
        direct = self.direct
        number = self.weights.size
        # 1. Residuals to first order, given h: r(w, θ) = left − A w − B θ, with w standardised.
        informed = jnp.arange(number) < fitted.informed
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
        first = factor[number:, number:]
        second = factor[:number, :number]
        spread = lambda xi: solve_triangular(second, xi, lower=True, trans=1)  # noqa: E731

        # 3. θ = mean + L_θθ⁻ᵀ z_θ, or the given θ if `back`.
        drawn = mean + solve_triangular(first, v[direct], lower=True, trans=1)
        science = jnp.where(back, v[direct], drawn)
        # 4. w given θ has the mean (L_ww L_wwᵀ)⁻¹ Aᵀ (left − B θ); B θ may use constrained values.
        values = self._values(x.at[direct].set(science))
        by_values = fitted.at[direct] + fitted.by_values @ (values - fitted.values)
        given = jnp.where(fitted.follows_values, by_values, science)
        left = linear.left - linear.by_direct @ given
        middle = cho_solve((second, True), linear.by_weights.T @ left)
        there = fitted.turn.T @ ((v[weights] - self._mean[weights]) / self._sd[weights])
        xi = jnp.where(back, second.T @ (there - middle), v[weights])
        # 5. Means of informed directions, given all others, are corrected by the model itself.
        middle = middle + spread(jnp.where(informed, 0.0, xi))
        x = x.at[direct].set(science)
        middle, lower = self._corrected(
            fitted, middle, second, linear, lambda w: self._left(x.at[weights].set(w), linear)
        )

        # 6. z_w = Lᵀ (w − mean), or w = mean + L⁻ᵀ z_w.
        xi = jnp.where(back & informed, lower.T @ (there - middle), xi)
        own = jnp.where(informed, v[weights], 0.0)
        along = solve_triangular(lower, own, lower=True, trans=1)
        found = v.at[direct].set(jnp.where(back, first.T @ (science - mean), science))
        in_own_units = self._in_own_units(fitted, middle + along)
        found = found.at[weights].set(jnp.where(back, xi, in_own_units))
        # 7. log|det J| = Σ log sd_w − Σ log L_ww,ii − Σ log L_θθ,ii.
        of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(lower)))
        log_det = of_weights - jnp.sum(jnp.log(jnp.diag(first)))
        # Not a `cond`: its gradient would keep all intermediate results of a prediction.
        return jnp.where(fitted.on, found, v), jnp.where(fitted.on, log_det, 0.0)

    def _left(self, x: Array, linear: "_LinearResiduals") -> tuple[Array, Array]:
        """Return standardised residuals of the model itself, and whether they are finite.

        Args:
            x: the position.
            linear: residuals to first order, for the standard deviations.
        """
        prediction = self._realised(x).predict(self.problem.inputs)
        left = linear.of(with_constraint_residuals(self.problem, prediction))
        usable = prediction.ok & jnp.isfinite(left).all()
        return jnp.where(usable, left, 0.0), usable

    def _corrected(
        self,
        fitted: Linearised,
        middle: Array,
        second: Array,
        linear: "_LinearResiduals",
        left_at: Callable[[Array], Any],
    ) -> tuple[Array, Array]:
        """Correct the mean of the informed directions by predictions of the model itself.

        Args:
            fitted: the reparametrisation.
            middle: mean of the standardised weights to first order.
            second: Cholesky factor of their precision.
            linear: residuals to first order.
            left_at: returns the model's residuals for given weights, and whether they are finite.

        Returns:
            The corrected mean, and the Cholesky factor of the precision.
        """
        number = self.weights.size
        few = min(_FEW, self.weights.size)
        informed = jnp.arange(number) < fitted.informed
        known = jnp.where(informed[:, None] & informed, second, jnp.eye(number))
        # 1. A step of Gauss–Newton, m ← m + (L Lᵀ)⁻¹ (Aᵀ r(m) − m), with the reference's slopes A
        #    and the model's own residuals r.
        left, usable = left_at(self._in_own_units(fitted, middle))
        lacking = jnp.where(informed, linear.by_weights.T @ left - middle, 0.0)
        middle += jnp.where(usable, cho_solve((known, True), lacking), 0.0)

        # 2. For a few directions, another step with the model's slopes there, and their factor.
        def gauss_newton(middle):
            some = informed[:few]

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
        # Without a solver the gradient of a `cond` keeps little, and other cases cost nothing.
        are_few = (fitted.informed > 0) & (fitted.informed <= few)
        return jax.lax.cond(are_few, gauss_newton, lambda middle: (middle, second), middle)


class _LinearResiduals(NamedTuple):
    """Residuals to first order: left − A w − B θ.

    Args:
        left: residuals for standardised weights w = 0 (their prior means) and for θ = 0.
        by_weights: A.
        by_direct: B.
        of: returns residuals for predictions by name.
    """

    left: Float[Array, " datum"]
    by_weights: Float[Array, "datum weight"]
    by_direct: Float[Array, "datum direct"]
    of: Callable[[dict[str, Array]], Array]


def _strongly_typed(number: int) -> Int[Array, ""]:
    """Return a number as an array without JAX's weak type, as a journal restores it.

    With two types programs would compile twice.
    """
    return jnp.asarray(number, int)


def _left_inverse(slopes: Float[Array, "value number"]) -> Float[Array, "number value"]:
    """Return the pseudo-inverse of a matrix of slopes, independent of the units of its rows."""
    slopes = jnp.nan_to_num(slopes, posinf=0.0, neginf=0.0)
    # With rows of unit length D⁻¹ S, the left inverse is (D⁻¹ S)⁺ D⁻¹.
    size = jnp.linalg.norm(slopes, axis=1, keepdims=True)
    size = jnp.where(size > 0, size, 1.0)
    return jnp.linalg.pinv(slopes / size) / size.T


def has_linear(problem: Problem) -> bool:
    """Whether the layer contains a function that is linear in its weights."""
    return bool(linear_parts(problem.model.layer))


def linearisation_of(problem: Problem) -> Linearisation | None:
    """Return a `Linearisation` for the model, or None if it cannot be used.

    The model needs a function that is linear in weights with normal priors. It must have no
    networks and no population, and the linear algebra must be affordable.
    """
    model = problem.model
    # 1. Networks and populations have reparametrisations of their own.
    linear = linear_parts(model.layer)
    if not linear or networks(model) or isinstance(model.layer, AbstractPopulation):
        return None
    leaves = paths(model)
    places = [f"layer.{where}.{part.weights_field}" for where, part in linear]

    def inside(leaf):
        return any(p.startswith(place) for place in places for p in (leaf.path, *leaf.places))

    # 2. The normal weights of these functions, unless the linear algebra costs too much.
    found = tuple(path for path, leaf in leaves.items() if is_normal(leaf) and inside(leaf))
    expensive = problem.data * problem.dimension**2 > _DEAREST
    if not found or expensive:
        return None
    # 3. With slopes at each position if the equations have the derivatives, else without.
    solves_nothing = model.layer.trajectories == []
    for slopes_there in (True, False) if solves_nothing else (False,):
        try:
            maker = Linearisation(problem, found, slopes_there=slopes_there)
            like = maker.like
            jax.eval_shape(
                jax.grad(lambda z, like=like: like.forward(z)[1]), jnp.zeros(problem.dimension)
            )
        except Exception:
            # Equations may have derivatives in one mode only, and JAX or a user's rule may raise
            # anything.
            continue
        return maker
    return None


def _exact_prior_normal(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return prior means and standard deviations in the unconstrained space, `(dimension,)`.

    They are exact for normal priors, and approximate for all others.
    """
    mean, sd = problem.prior_normal()
    for path, leaf in paths(problem.model).items():
        if is_normal(leaf):
            prior = leaf.distribution
            site = problem.sites[path]
            own = slice(site.start, site.start + site.size)
            for kept, value in ((mean, prior.mean), (sd, jnp.sqrt(prior.variance))):
                kept[own] = np.broadcast_to(np.asarray(value), leaf.shape).ravel()
    return mean, sd


def _by_name(vector: Float[Array, " datum"], like: dict[str, Array]) -> dict[str, Array]:
    """Split a vector over all data into arrays by name.

    Args:
        vector: values in the order of sorted names.
        like: arrays of the right shapes, by name.
    """
    names = sorted(like)
    parts = jnp.split(vector, np.cumsum([like[name].size for name in names])[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
