"""Predictions of many draws of a model, chunk by chunk, so that memory stays bounded."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._jax import memory as _memory
from .._jax.compiling import compiled
from .._jax.devices import computing_devices, keep_programs
from .._jax.trace import parted
from .._statistics.importance import total_log_likelihood
from .._statistics.tails import masked_log_prob
from ..data.layer_inputs import Inputs
from ..layers.layer import at_solutions, from_end, goes_on, trajectories
from ..model import Model, Observed
from ..random import realise
from .conditional import alone, family_of, parameters_of

_LARGEST_CHUNK = 500
# The share of available memory for one chunk, and the most bytes of a chunk on a CPU.
_SHARE = 0.25
_MOST = 2**28
# Keys of a dict of draws for the member of the forcings, and for states at the start.
_MEMBER = "member of the forcings"
_END = "end of "

type Draws = Mapping[str, np.ndarray]
type Paths = list[dict[str, np.ndarray]]
"""For each trajectory, its states `(draw, time, …)` by name."""


def map_over_draws(
    function: Callable[..., Any], held: list[Any], draws: Draws, *, batch: int
) -> Any:
    """Evaluate a function of one draw for all draws.

    Args:
        function: a function of its constants and a draw, as `parted` returns it.
        held: the constants.
        draws: all draws, `(draw, …)` by path.
        batch: the number of draws that are computed at once.

    Returns:
        The returned arrays with a leading axis of draws.
    """

    def every(held, draws):
        return jax.lax.map(lambda draw: function(held, draw), draws, batch_size=batch)

    return jax.jit(every)(held, dict(draws))


class Watched(NamedTuple):
    """Draws and times for which the states of trajectories are kept.

    Args:
        draws: the indices of some draws, ascending.
        times: the indices of some times.
    """

    draws: np.ndarray
    times: np.ndarray


class Drives(NamedTuple):
    """An ensemble of forcings, with one member for each draw.

    Args:
        forcings: two dicts: the forcings of `Inputs`, and those that differ between the groups of a
            population. All arrays have a leading axis of members.
        of_draw: the member that drives each draw, `(draw,)`.
    """

    forcings: tuple[dict[str, Any], dict[str, Any]]
    of_draw: np.ndarray


class Pushed(eqx.Module):
    """Predictions of draws; the leading axis is the draw. Values are NaN where the solver failed.

    Args:
        mean: the mean of each observable given the draw.
        variance: the variance of each observable given the draw.
        ok: whether the solver succeeded.
        steps: the number of solver steps.
        log_likelihood: the log likelihood of each datum, by observable.
        predictions: predictive draws with noise.
        constraint_residual: the root mean square of each constraint residual.
        log_factor: the log density of all constraints.
        unobserved: outputs of the layer that are not observed, without noise.
        noise: the parameters of each datum's distribution, by observable and name, if they suffice
            to rebuild it.
        end: the states at the last time, if the layer can continue from it.
        families: pairs of an observable and the family of its distribution, for `noise`.
    """

    mean: dict[str, Any]
    variance: dict[str, Any]
    ok: Any
    steps: Any
    log_likelihood: dict[str, Any]
    predictions: dict[str, Any]
    constraint_residual: dict[str, Any] = eqx.field(default_factory=dict)
    log_factor: Any = 0.0
    unobserved: dict[str, Any] = eqx.field(default_factory=dict)
    noise: dict[str, dict[str, Any]] = eqx.field(default_factory=dict)
    end: dict[str, Any] = eqx.field(default_factory=dict)
    families: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def log_weight(self, observed: Observed) -> Any:
        """Return the log likelihood of data and constraints for each draw.

        Args:
            observed: the data of each observable, NaN where missing.

        Returns:
            One number for each draw.
        """
        return total_log_likelihood(self.log_likelihood, observed) + self.log_factor


def push(
    model: Model,
    inputs: Inputs,
    draws: Draws,
    *,
    observed: Observed | None = None,
    ends: Draws | None = None,
    key: Array | None = None,
) -> Pushed:
    """Return predictions of every draw: conditional means and variances, and more if asked.

    Args:
        model: the model.
        inputs: the inputs of its layer.
        draws: draws `(draw, …)` of every random leaf, by path.
        observed: data, to add the log likelihood of each datum (NaN where it is missing).
        ends: the states from which each draw continues, `(draw, …)` by name.
        key: a random seed, to add one predictive draw and the parameters of the noise.

    Returns:
        Predictions of all draws, in memory.
    """
    return Pusher(model, inputs, draws, observed=observed, ends=ends, key=key).whole()


class Pusher:
    """A compiled program that predicts from draws, chunk by chunk.

    A chunk takes at most a quarter of the available memory, by the needs that the compiled program
    reports. On a CPU it takes at most a quarter of a gibibyte, since larger chunks are not faster.

    Args:
        model: the model.
        inputs: the inputs of its layer.
        draws: draws `(draw, …)` of every random leaf, by path.
        observed: the data of each observable, for their log likelihood.
        key: a random seed, to add a predictive draw for each draw, and the parameters of the noise.
        repeats: the number of predictive draws, along a second axis, for noise that its parameters
            do not rebuild or whose data are dependent.
        watched: draws and times for which `watched_states` keeps states.
        drives: forcings that differ between draws.
        ends: the states at the start of the inputs, `(draw, …)` by name, if the layer continues
            from an earlier solve.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        draws: Draws,
        *,
        observed: Observed | None = None,
        key: Array | None = None,
        repeats: int = 1,
        watched: Watched | None = None,
        drives: Drives | None = None,
        ends: Draws | None = None,
    ):
        keep_programs()
        self.draws: int = len(next(iter(draws.values())))
        # 1. Everything that differs between draws, in one dict.
        self._own = _numpy_arrays(draws)
        self._own |= {_END + name: values for name, values in _numpy_arrays(ends or {}).items()}
        ensemble, kind, times = None, None, None
        if drives is not None:
            ensemble, self._own[_MEMBER] = drives.forcings, drives.of_draw
        # 2. Seeds as numbers, which NumPy can index; none without predictive draws.
        self._keys = np.zeros((self.draws, 0))
        if key is not None:
            kind = jax.random.key_impl(key)
            self._keys = np.asarray(jax.random.key_data(jax.random.split(key, self.draws)))
        self._watched = np.zeros(0, int)
        if watched is not None:
            self._watched, times = watched
        # 3. Trace once, without callbacks: then other chunks need no second trace, and JAX finds
        #    the program on disk.
        one = _predictions_of_draw(model, inputs, observed, kind, repeats, times, ensemble)
        first = {path: values[0] for path, values in self._own.items()}, self._keys[0]
        flat, self._held, _ = parted(one, *first, scalars=ends is not None)
        self._program, self.chunk = _compiled(flat, self._held, first, self.draws)
        of_chunk, _ = self._program.out_info
        self.shapes: Pushed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), of_chunk
        )
        self._states: list[Paths] = []

    def __call__(self, draws: Draws | None = None) -> Iterator[tuple[slice, Pushed]]:
        """Predict from all draws, chunk by chunk.

        Args:
            draws: other draws of the same model, `(draw, …)` by path. By default, the draws that
                the program was built with. Ignore predictive draws of other draws, which reuse
                their seeds.

        Yields:
            The rows of a chunk, and their predictions.
        """
        own = draws is None
        draws = self._own if draws is None else _numpy_arrays(draws)
        total = len(next(iter(draws.values())))
        if own:
            self._states = []
        for start in range(0, total, self.chunk):
            # The last chunk repeats draws up to full length: one shape, one compilation.
            index = np.minimum(np.arange(start, start + self.chunk), total - 1)
            keys = self._keys[np.minimum(index, self.draws - 1)]
            chosen = {path: values[index] for path, values in draws.items()}
            part, states = self._program(self._held, chosen, keys)
            keep = min(self.chunk, total - start)
            if own:
                here = (start <= self._watched) & (self._watched < start + keep)
                some = self._watched[here] - start
                self._states.append(jax.tree.map(lambda a, some=some: np.asarray(a)[some], states))
            kept = jax.tree.map(lambda a, keep=keep: np.asarray(a)[:keep], part)
            yield slice(start, start + keep), kept
            # Free the memory before the next chunk.
            del part, states

    @property
    def watched_states(self) -> Paths:
        """The states of the watched draws at the watched times, NaN where the solver failed."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self._states)

    def whole(self, without: tuple[str, ...] = ()) -> Pushed:
        """Predict from all draws that the program was built with, in memory.

        Args:
            without: fields such as "variance" and "noise" that stay empty.

        Returns:
            The predictions of all draws.
        """
        empty = {name: {} for name in without}
        shapes = dataclasses.replace(self.shapes, **empty)

        def empty_like(one):
            return np.empty((self.draws, *one.shape), one.dtype)

        found = jax.tree.map(empty_like, shapes)
        for rows, part in self():
            leaves = jax.tree.leaves(dataclasses.replace(part, **empty))
            for of_all, of_some in zip(jax.tree.leaves(found), leaves, strict=True):
                of_all[rows] = of_some
        return found


def _numpy_arrays(draws: Draws) -> dict[str, np.ndarray]:
    return {path: np.asarray(values) for path, values in draws.items()}


def _compiled(
    function: Callable, held: list[Any], first: Any, draws: int
) -> tuple[jax.stages.Compiled, int]:
    """Compile a program for as many draws at once as the memory allows.

    Args:
        function: a function of constants, a draw and its seed.
        held: the constants.
        first: the first draw and its seed, for their shapes.
        draws: the number of draws.

    Returns:
        The program, and the number of draws that it takes at once.
    """
    budget = _SHARE * _memory.available()
    if computing_devices()[0].platform == "cpu":
        budget = min(budget, _MOST)
    chunk = min(_LARGEST_CHUNK, draws)
    while True:
        shapes = jax.tree.map(
            lambda x, n=chunk: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), first
        )
        program = compiled(jax.vmap(function, in_axes=(None, 0, 0)), held, *shapes)
        needed = _memory.needed(program)
        if needed <= budget or chunk == 1:
            return program, chunk
        # A power of two: free memory changes from run to run, but JAX finds a program on disk by
        # its shapes.
        fitting = max(chunk * budget / needed, 1)
        chunk = 2 ** math.floor(math.log2(min(fitting, chunk / 2)))


def _predictions_of_draw(
    model: Model,
    inputs: Inputs,
    observed: Observed | None,
    kind: Any,
    repeats: int,
    times: np.ndarray | None,
    ensemble: Any,
) -> Any:
    """Return a function of a draw and its seed that returns predictions, and states at some times.

    Args:
        model: the model.
        inputs: the inputs of its layer.
        observed: the data of each observable, for their log likelihood; None without it.
        kind: the implementation of JAX's random keys; None for no predictive draws.
        repeats: the number of predictive draws for noise that its parameters do not rebuild.
        times: the indices of the times at which states are returned; None for no states.
        ensemble: the forcings of all members of an ensemble; None without an ensemble.
    """
    common_inputs = inputs

    def one(draw, key):
        # 1. The model with the parameters, forcings and first states of this draw.
        inputs = common_inputs
        if ensemble is not None:
            forcings, own = jax.tree.map(lambda of_all: of_all[draw[_MEMBER]], ensemble)
            inputs = dataclasses.replace(inputs, forcings=forcings, own_forcings=own)
            draw = {path: value for path, value in draw.items() if path != _MEMBER}
        begun = {name.removeprefix(_END): draw[name] for name in draw if name.startswith(_END)}
        leaves = {path: v for path, v in draw.items() if not path.startswith(_END)}
        realised = realise(model, leaves)
        if begun:
            realised = eqx.tree_at(lambda m: m.layer, realised, from_end(realised.layer, begun))
        # 2. States at the watched times; the layer then reuses these solutions.
        states = []
        if times is not None:
            whole, asked, _ = model.reader.solved_at(inputs)
            solved = [ode.solve(whole, ode.begin(whole)) for ode in trajectories(realised.layer)]
            states = [
                jax.tree.map(lambda y, ok=ok: jnp.where(ok, y[asked][times], jnp.nan), y)
                for y, ok, _ in solved
            ]
            layer = at_solutions(realised.layer, solved)
            realised = eqx.tree_at(lambda m: m.layer, realised, layer)
        # 3. The prediction, and the distribution of each datum given the prediction.
        prediction = realised.predict(inputs)
        ok = prediction.ok
        noise = realised.conditional(prediction, inputs)

        def masked(value):
            return jnp.where(ok, value, jnp.nan)

        likelihood = {
            name: jnp.where(jnp.isnan(y), jnp.nan, masked_log_prob(noise[name], y))
            for name, y in (observed or {}).items()
        }
        # 4. Predictive draws, and the parameters that rebuild the distributions.
        predictions, parameters, beside = {}, {}, {}
        if kind is not None:
            beside = {name: masked(v) for name, v in prediction.values.items() if name not in noise}
            key = jax.random.wrap_key_data(key, impl=kind)
            keys = dict(zip(noise, jax.random.split(key, len(noise)), strict=True))
            if (cross := model.cross_correlation) is not None:
                # The same seed makes the noise of these observables correlated.
                keys |= dict.fromkeys(cross.observables, jax.random.fold_in(key, len(noise)))
            # Censoring belongs to the data, not to the forecast.
            noise = {name: getattr(d, "uncensored", d) for name, d in noise.items()}
            parameters = {name: found for name, d in noise.items() if (found := parameters_of(d))}
            for name, d in noise.items():
                several = repeats > 1 and (name not in parameters or alone(d) is not d)
                predictions[name] = masked(d.sample(keys[name], (repeats,) if several else ()))
        constraint_residuals = prediction.constraint_residuals.items()
        pushed = Pushed(
            mean={name: masked(d.mean) for name, d in noise.items()},
            variance={name: masked(d.variance) for name, d in noise.items()},
            ok=ok,
            steps=prediction.stats.get("steps", jnp.zeros((), int)),
            log_likelihood={
                name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf)
                for name, value in likelihood.items()
            },
            predictions=predictions,
            constraint_residual={
                name: masked(jnp.sqrt(jnp.mean(jnp.square(v)))) for name, v in constraint_residuals
            },
            log_factor=prediction.log_factor,
            unobserved=beside,
            noise={name: _nan_where_failed(ok, held) for name, held in parameters.items()},
            end={name: masked(state) for name, state in prediction.end.items()}
            if goes_on(model.layer)
            else {},
            families=tuple((name, family_of(alone(noise[name]))) for name in parameters),
        )
        return pushed, states

    return one


def _nan_where_failed(ok: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Set parameters to NaN if the solve failed; integers, such as trials, are unchanged."""
    return {
        p: jnp.where(ok, v, jnp.nan) if jnp.issubdtype(v.dtype, jnp.inexact) else v
        for p, v in parameters.items()
    }
