"""Residuals in standard deviations of the noise, and their first derivatives."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._jax.compiling import Program
from .._statistics.tails import masked_log_prob, seen_and_filled
from .._statistics.variance_component import Linear, Series
from ..errors import ModelError
from ..layers import Prediction
from ..model import Model, noise_at
from ..noise.sequential import on_link, within
from ..random import realise
from .problem import Problem

_RESIDUAL = "constraint residual "
# Number of directions whose derivatives one program computes together.
_BATCH = 16
# The most Gauss–Newton steps, and halvings of a step.
_STEPS, _HALVINGS = 30, 8
# The steps end once a step raises the log density by less than this many nats.
_ENOUGH = 0.1
# The least eigenvalue of the precision matrix of a prior.
_FLATTEST = 1e-4


def with_constraint_residuals(problem: Problem, prediction: Prediction) -> dict[str, Array]:
    """Return predictions of all observables together with constraint residuals, by name.

    A constraint residual is treated as a prediction whose datum is 0.

    Args:
        problem: the posterior.
        prediction: the prediction of a model.
    """
    values = {name: prediction.values[name] for name in problem.observed}
    return values | {
        _RESIDUAL + name: jnp.asarray(value)
        for name, value in prediction.constraint_residuals.items()
    }


def residuals(
    problem: Problem,
    realised: Model,
    centre: dict[str, Array],
    variances: dict[str, Array],
    values: dict[str, Array],
) -> Float[Array, " datum"]:
    """Return data minus predictions in standard deviations of the noise; 0 for missing data.

    The residuals of all observables and constraints are concatenated in the order of their names.
    With correlated noise, the distribution of each datum is conditional on earlier data.

    Args:
        problem: the posterior, for its data and inputs.
        realised: the model, with values for all random leaves.
        centre: predictions at which the standard deviation of the noise is evaluated, by name.
        variances: variances of the predictions from a filter, by name.
        values: predictions and constraint residuals, by name.
    """
    inputs, found = problem.inputs, []
    given = {}
    # 1. Distributions given the data before, if any noise looks back.
    if realised.reader.looks_back:
        given = realised.conditional(Prediction(values, jnp.asarray(True), before=values), inputs)
    for name, value in sorted(values.items()):
        # 2. A constraint residual r has the datum 0 and unit standard deviation.
        if name.startswith(_RESIDUAL):
            found.append(-jnp.ravel(value))
            continue
        # 3. (g(y) − location) / scale, on the scale of the noise's link g.
        noise = noise_at(realised, name, centre, inputs)
        observed = problem.observed[name]
        seen, filled = seen_and_filled(observed)
        if noise.looks_back:
            location, scale = on_link(given[name])
            linked, seen = _linked_data(noise, value, observed, location, scale)
        else:
            location = noise.link(value)
            scale = noise.spread(centre[name], variances.get(name))
            linked = noise.link(noise.as_predicted(filled))
        # A datum with zero standard deviation, such as a binomial of no trials, has no information.
        usable = seen & (scale > 0) & jnp.isfinite(scale)
        own = (linked - location) / jnp.where(usable, scale, 1.0)
        found.append(jnp.ravel(jnp.where(usable, own, 0.0)))
    return jnp.concatenate(found)


def _linked_data(
    noise: Any, value: Array, observed: Array, location: Array, scale: Array
) -> tuple[Array, Array]:
    """Transform data by the link of the noise.

    A censored datum is replaced by its expectation given its bounds.

    Args:
        noise: the noise, with its parameters evaluated at all times.
        value: predictions.
        observed: data, NaN if missing.
        location: mean of each datum given earlier data, on the scale of the link.
        scale: standard deviation of each datum given earlier data, on the scale of the link.

    Returns:
        The transformed data, and a mask that is False for missing data.
    """
    no_times = jnp.zeros(observed.shape[:1])
    seen = noise.before(no_times, observed, value, same=True).seen
    linked = noise.link(jnp.where(seen.there, observed, 1.0))
    if seen.bounds is not None:
        middle = noise.link(value)
        variance = jnp.where(scale > 0, jnp.square(scale), 1.0)
        linked = middle + within(seen, location - middle, variance)[0]
    return linked, seen.there


class Predicted(NamedTuple):
    """Predictions for the parameters at one position.

    Args:
        centre: predictions and constraint residuals, by name.
        variances: variances of the predictions from a filter, by name.
        ok: whether the solver succeeded.
    """

    centre: dict[str, Array]
    variances: dict[str, Array]
    ok: Array


type Enrich = Callable[[Model, Float[Array, " coefficient"]], Model]
"""Adds terms with given coefficients to a model; coefficients of 0 leave the model unchanged."""


class Around:
    """Residuals of a model, linearised around any position.

    The derivatives are by all parameters, and by the coefficients of terms that are added to the
    model. The programs are compiled once. The attribute `series` has the order of the data in time.

    Args:
        problem: the posterior.
        enrich: adds terms with given coefficients to a model.
        coefficients: number of coefficients.
        at: an example of a position, `(dimension,)`.
    """

    def __init__(
        self,
        problem: Problem,
        enrich: Enrich,
        coefficients: int,
        at: Float[np.ndarray, " dimension"],
    ):
        self.problem = problem.reversible()
        self.coefficients = coefficients
        self._enrich = enrich
        self._forward = problem.forward()
        self._log_density = Program(self.problem.log_density)
        self._of_prior = Program(
            lambda x: (jax.grad(problem.log_prior)(x), jax.hessian(problem.log_prior)(x))
        )
        self._moved = Program(self._move)
        observed = self.problem.observed
        found = jax.eval_shape(self._moved, at, np.zeros((_BATCH, at.size + coefficients)))[2]
        sizes = {name: value.size for name, value in sorted(found.centre.items())}
        seen = []
        for name, size in sizes.items():
            values = np.asarray(observed[name]) if name in observed else np.zeros(size)
            seen.append(~np.isnan(values).ravel())
        self._seen = np.concatenate(seen)
        self.series = self._series(sizes)

    def _series(self, sizes: dict[str, int]) -> Series:
        """Return the previous datum of each datum, and the time between them.

        The data of one observable at one place, or of one group, form a series. Missing data are
        left out.

        Args:
            sizes: number of data, missing ones included, by name of the observable or constraint.
        """
        times = np.asarray(self.problem.inputs.times, float)
        observed = self.problem.observed
        before = np.full(self._seen.size, -1)
        steps = np.ones(self._seen.size)
        start = 0
        # 1. The datum before each datum, and the time between them.
        for name, size in sizes.items():
            if name in observed:
                places = size // len(times)
                at = np.broadcast_to(times.reshape(len(times), -1), (len(times), places))
                rows = start + np.arange(size).reshape(len(times), places)
                # `own` are the rows of one series, `when` their times.
                for own, when in zip(rows.T, at.T, strict=True):
                    seen = self._seen[own]
                    before[own[seen][1:]] = own[seen][:-1]
                    steps[own[seen][1:]] = np.diff(when[seen])
            start += size
        # 2. Indices among the data that are not missing.
        number = np.cumsum(self._seen) - 1
        before = before[self._seen]
        steps = steps[self._seen]
        # 3. Steps in units of the median one; replicates at one time count as one step apart.
        usual = np.median(steps[(before >= 0) & (steps > 0)]) if (before >= 0).any() else 1.0
        return Series(np.where(before >= 0, number[before], -1), np.maximum(steps / usual, 1.0))

    def likeliest(
        self, positions: Float[np.ndarray, "n dimension"]
    ) -> Float[np.ndarray, " dimension"]:
        """Return the position with the highest log density.

        Args:
            positions: unconstrained parameters, `(n, dimension)`.

        Raises:
            ModelError: if no position has a finite log density.
        """
        densities = [self._density(x) for x in positions]
        if not np.isfinite(max(densities)):
            raise ModelError(
                f"the log density is finite at none of {len(densities)} draws of this posterior"
            )
        return positions[np.argmax(densities)]

    def best(
        self, x: Float[np.ndarray, " dimension"]
    ) -> tuple[Float[np.ndarray, " dimension"], bool]:
        """Maximise the log density by Gauss–Newton steps.

        Parameters that change no prediction keep their values.

        Args:
            x: the first position, `(dimension,)`.

        Returns:
            The last position, and whether the steps converged.
        """
        value = self._density(x)
        for _ in range(_STEPS):
            # 1. Step (Aᵀ A + Λ)⁻¹ (Aᵀ r + ∇ log prior), with slopes A, residuals r and prior
            #    precision Λ.
            linear, _, moving = self._linear(x, 0)
            step = np.zeros_like(x)
            pull = linear.slopes.T @ linear.left + linear.pull
            step[moving] = np.linalg.solve(linear.slopes.T @ linear.slopes + linear.precision, pull)
            # 2. Halve it until the log density rises.
            for i in range(_HALVINGS):
                tried = x + step / 2**i
                if (higher := self._density(tried)) > value:
                    break
            else:
                return x, True
            gained = higher - value
            x = tried
            value = higher
            if gained < _ENOUGH:
                return x, True
        return x, False

    def linear(
        self, x: Float[np.ndarray, " dimension"], replicates: int, *, key: Array
    ) -> tuple[Linear, Float[np.ndarray, "datum coefficient"]]:
        """Return the residuals linearised around a position, and residuals of simulated data.

        The simulated data are drawn from the model at this position. Where noise is correlated or
        data are censored, standard normal numbers replace their residuals.

        Args:
            x: the position, `(dimension,)`.
            replicates: number of simulated data sets.
            key: random seed.

        Returns:
            The linearised residuals with the simulated ones in `noise`, and the derivatives of
            predictions by the coefficients, in standard deviations of the noise.
        """
        linear, along, _ = self._linear(x, self.coefficients)
        found = self._moved(x, np.zeros((_BATCH, x.size + self.coefficients)))[2]
        keys = jax.random.split(key, replicates)
        noise = Program(self._replicates)(x, found, keys)
        return linear._replace(noise=np.asarray(noise)[:, self._seen]), along

    def _density(self, x: np.ndarray) -> float:
        """Return the log density at a position, or −∞ if it is not finite."""
        value = float(self._log_density(x))
        return value if np.isfinite(value) else -np.inf

    def _linear(self, x: np.ndarray, coefficients: int) -> tuple[Linear, np.ndarray, np.ndarray]:
        """Return the linearised residuals around a position, without simulated data.

        Args:
            x: the position, `(dimension,)`.
            coefficients: number of coefficients by which derivatives are taken: all or 0.

        Returns:
            The residuals, linear in those parameters that change predictions; the derivatives by
            the coefficients, `(datum, coefficient)`; and the indices of these parameters.
        """
        every = np.eye(x.size + coefficients, x.size + self.coefficients)
        parts, left = [], np.zeros(0)
        for start in range(0, len(every), _BATCH):
            # Zeros fill the last batch, so that one program serves all batches.
            part = every[start : start + _BATCH]
            filled = np.concatenate([part, np.zeros((_BATCH - len(part), every.shape[1]))])
            slopes, left, _ = self._moved(x, filled)
            parts.append(np.asarray(slopes)[: len(part)])
        slopes = np.concatenate(parts).T[self._seen]
        left = np.asarray(left)[self._seen]
        pull, curvature = map(np.asarray, self._of_prior(x))
        moving = np.flatnonzero(np.abs(slopes[:, : x.size]).max(axis=0) > 0)
        precision = _positive(-curvature[np.ix_(moving, moving)])
        linear = Linear(left, slopes[:, moving], pull[moving], precision, np.zeros((0, len(left))))
        return linear, slopes[:, x.size :], moving

    def _move(
        self, x: Array, directions: Float[Array, "batch number"]
    ) -> tuple[Array, Array, Predicted]:
        """Compute residuals and derivatives at a position.

        Args:
            x: the position, `(dimension,)`.
            directions: directions of parameters and coefficients, as rows.

        Returns:
            Derivatives of predictions along each direction, `(batch, datum)`, in standard
            deviations of the noise; the residuals, `(datum,)`; and the predictions.
        """
        problem = self._forward
        held = realise(problem.model, problem.constrain(x))

        # Minus the residuals, with the noise fixed at the position.
        def fallen(x, coefficients):
            realised = self._enrich(realise(problem.model, problem.constrain(x)), coefficients)
            prediction = realised.predict(problem.inputs)
            values = with_constraint_residuals(problem, prediction)
            found = Predicted(values, dict(prediction.variances), prediction.ok)
            found = jax.lax.stop_gradient(found)
            return -residuals(problem, held, found.centre, found.variances, values), found

        def along(direction):
            parts = direction[: x.size], direction[x.size :]
            _, slope, found = jax.jvp(
                fallen, (x, jnp.zeros(self.coefficients)), parts, has_aux=True
            )
            return slope, found

        slopes, found = jax.vmap(along, out_axes=(0, None))(directions)
        sound = found.ok & jnp.isfinite(slopes)
        left = self._left(held, found, problem.observed)
        return jnp.where(sound, slopes, 0.0), jnp.where(jnp.isfinite(left), left, 0.0), found

    def _left(
        self, realised: Model, found: Predicted, observed: dict[str, Array]
    ) -> Float[Array, " datum"]:
        """Return generalised residuals: the score by each prediction times the sd of the noise.

        The score is the derivative of the log likelihood. For normal noise this product is the
        residual itself. For other noise it has mean 0 if the model is right. With correlated noise,
        and for constraints, it is replaced by `residuals`.

        Args:
            realised: the model, with values for all random leaves.
            found: its predictions.
            observed: data by observable.
        """
        problem = dataclasses.replace(self.problem, observed=observed)
        plain = residuals(problem, realised, found.centre, found.variances, found.centre)
        free = [name for name in observed if not realised.noise_of(name).looks_back]

        def log_likelihood(values):
            prediction = self._given(found, values)
            laws = realised.conditional(prediction, problem.inputs)
            total = jnp.zeros(())
            for name in free:
                total += jnp.sum(masked_log_prob(laws[name], observed[name]))
            return total

        # ∂ log p / ∂f · σ / g′(f), since σ is on the scale of the link g.
        slopes = jax.grad(log_likelihood)({name: found.centre[name] for name in free})
        parts, start = [], 0
        for name, value in sorted(found.centre.items()):
            own = plain[start : start + value.size]
            start = start + value.size
            if name in slopes:
                noise = noise_at(realised, name, found.centre, problem.inputs)
                _, by_link = jax.jvp(noise.link, (value,), (jnp.ones_like(value),))
                spread = noise.spread(value, found.variances.get(name))
                scale = jnp.broadcast_to(spread, value.shape) / by_link
                own = jnp.where(jnp.isfinite(scale), slopes[name] * scale, 0.0).ravel()
            parts.append(own)
        return jnp.concatenate(parts)

    def _given(self, found: Predicted, values: dict[str, Array]) -> Prediction:
        """Return a `Prediction` from predicted values, of which some are replaced.

        Args:
            found: the predictions.
            values: the new values, by name.
        """
        every = {**found.centre, **values}
        return Prediction(every, jnp.asarray(True), variances=found.variances, before=every)

    def _replicates(
        self, x: Array, found: Predicted, keys: Array
    ) -> Float[Array, "replicate datum"]:
        """Return residuals of simulated data, `(replicate, datum)`.

        Args:
            x: the position of the parameters.
            found: predictions at this position.
            keys: a random key for each replicate.
        """
        problem = self.problem
        observed = self.problem.observed
        realised = realise(problem.model, problem.constrain(x))
        laws = realised.conditional(self._given(found, {}), problem.inputs)
        # 1. Observables that are simulated; residuals of the others are standard normal.
        drawn = [
            name
            for name, law in laws.items()
            if not realised.noise_of(name).looks_back and not hasattr(law, "uncensored")
        ]
        normal = jnp.concatenate(
            [jnp.full(v.size, n not in drawn) for n, v in sorted(found.centre.items())]
        )
        cross = problem.model.cross_correlation

        def one(key):
            of_data, of_rest = jax.random.split(key)
            own = dict(zip(laws, jax.random.split(of_data, len(laws)), strict=True))
            # 2. Cross-correlated observables are drawn together, with one key.
            if cross is not None:
                own |= dict.fromkeys(cross.observables, of_data)
            made = {
                n: jnp.where(jnp.isnan(observed[n]), jnp.nan, laws[n].sample(own[n])) for n in drawn
            }
            # 3. Their residuals.
            left = self._left(realised, found, observed | made)
            return jnp.where(normal, jax.random.normal(of_rest, normal.shape), left)

        return jax.lax.map(one, keys, batch_size=_BATCH)


def _positive(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return a symmetric matrix whose eigenvalues are raised to at least 1e-4."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, _FLATTEST)) @ vectors.T
