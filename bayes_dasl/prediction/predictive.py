"""Push draws through a model, chunk by chunk,
so that memory stays bounded whatever their number.
"""

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
from .._statistics.missing_data import masked_log_prob
from ..data.layer_inputs import Inputs
from ..layers.layer import at_solutions, trajectories
from ..model import Model, Observed
from ..random import realise
from .conditional import alone, family_of, parameters_of

_LARGEST_CHUNK = 500
_SHARE = 0.25
"""Of the memory at hand, for one chunk."""
_MOST = 2**28
"""Bytes for one chunk on a CPU."""

_MEMBER = "member of the forcings"
_END = "end of "

type Draws = Mapping[str, np.ndarray]
type Paths = list[dict[str, np.ndarray]]
"""The states of each trajectory by name, `(draw, time, …)`."""


class Watched(NamedTuple):
    """Of which draws, and at which of the times, the states of trajectories are kept.

    Args:
        draws: the indices of some draws, ascending.
        times: those of some times.
    """

    draws: np.ndarray
    times: np.ndarray


class Drives(NamedTuple):
    """An ensemble of forcings, of which each draw has one member.

    Args:
        forcings: those of `Inputs`, and its own ones of a population, with a leading axis of
            members on every array.
        of_draw: which member a draw has, `(draw,)`.
    """

    forcings: tuple[dict[str, Any], dict[str, Any]]
    of_draw: np.ndarray


class Pushed(eqx.Module):
    """What draws predict; the leading axis is the draw. Values are NaN where the solver failed.

    `mismatch` is the root mean square of each standardised mismatch and broken constraint,
    `log_factor` what all of them add to the log density. `unobserved` are outputs without noise.
    `noise` has the parameters of the distribution of each datum where its family, by name in
    `families`, and they make it anew. `end` are the states at the last time, of a layer that goes
    on from them.
    """

    mean: dict[str, Any]
    variance: dict[str, Any]
    ok: Any
    steps: Any
    log_likelihood: dict[str, Any]
    predictions: dict[str, Any]
    mismatch: dict[str, Any] = eqx.field(default_factory=dict)
    log_factor: Any = 0.0
    unobserved: dict[str, Any] = eqx.field(default_factory=dict)
    noise: dict[str, dict[str, Any]] = eqx.field(default_factory=dict)
    end: dict[str, Any] = eqx.field(default_factory=dict)
    families: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def log_weight(self, observed: Observed) -> Any:
        """What data and constraints together say of each draw."""
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
    """Conditional mean and variance of each observable for every draw.

    With `observed` also the log likelihood of each datum (NaN where it is missing); with `key` also
    one predictive draw and the parameters of the noise.
    `draws` maps each random leaf's path to an array `(draws, …)`, `ends` each state to that from
    which a draw goes on.
    """
    return Pusher(model, inputs, draws, observed=observed, ends=ends, key=key).whole()


class Pusher:
    """A program that pushes draws through a model, chunk by chunk, for `push` or for what keeps no
    draws in memory.

    A chunk is as large as a quarter of the memory at hand allows, on a CPU a quarter of a gibibyte
    at most, since more makes nothing faster there: the compiled program itself says what it needs.

    Args:
        model: the model.
        inputs: those of its layer.
        draws: of every random leaf, `(draw, …)` by path.
        observed: the data of each observable, for their log likelihood.
        key: a JAX random key, for one predictive draw each, and the parameters of the noise.
        repeats: how many draws, along a second axis, of a noise that its parameters do not make
            anew.
        watched: draws whose states `watched_states` are kept while its own draws are pushed.
        drives: forcings that differ between draws.
        ends: the states at the start of the inputs, `(draw, …)` by name, of a layer that goes on
            from them.
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
        self._own = _arrays(draws) | ({} if drives is None else {_MEMBER: drives.of_draw})
        self._own |= {_END + name: values for name, values in _arrays(ends or {}).items()}
        # Numbers, which NumPy can index; without predictive draws nothing looks at them.
        split = None if key is None else jax.random.key_data(jax.random.split(key, self.draws))
        self._keys = np.zeros((self.draws, 0)) if split is None else np.asarray(split)
        self._watched = np.zeros(0, int) if watched is None else watched.draws
        kind = None if key is None else jax.random.key_impl(key)
        times, ensemble = (
            None if watched is None else watched.times,
            None if drives is None else drives.forcings,
        )
        one = _one_draw(model, inputs, observed, kind, repeats, times, ensemble)
        first = {path: values[0] for path, values in self._own.items()}, self._keys[0]
        # Traced once, without callbacks: another chunk costs no second trace, and JAX keeps the
        # program on disk.
        flat, self._held, _ = parted(one, *first, scalars=ends is not None)
        self._program, self.chunk = _compiled(flat, self._held, first, self.draws)
        of_chunk, _ = self._program.out_info
        self.shapes: Pushed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), of_chunk
        )
        self._states: list[Paths] = []

    def __call__(self, draws: Draws | None = None) -> Iterator[tuple[slice, Pushed]]:
        """Which rows are pushed, and what they predict: of its own draws, or of others, whose
        predictions mean nothing.

        Args:
            draws: others of the same model, `(draw, …)` by path.
        """
        own = draws is None
        draws = self._own if draws is None else _arrays(draws)
        total = len(next(iter(draws.values())))
        if own:
            self._states = []
        for start in range(0, total, self.chunk):
            # The last chunk repeats draws up to full length: one shape, one compilation.
            index = np.minimum(np.arange(start, start + self.chunk), total - 1)
            keys = self._keys[np.minimum(index, self.draws - 1)]
            part, states = self._program(
                self._held, {path: v[index] for path, v in draws.items()}, keys
            )
            keep = min(self.chunk, total - start)
            if own:
                some = (
                    self._watched[(start <= self._watched) & (self._watched < start + keep)] - start
                )
                self._states.append(jax.tree.map(lambda a, some=some: np.asarray(a)[some], states))
            yield (
                slice(start, start + keep),
                jax.tree.map(lambda a, keep=keep: np.asarray(a)[:keep], part),
            )
            # What was looked at makes room for the next chunk.
            del part, states

    @property
    def watched_states(self) -> Paths:
        """The states of the watched draws at the watched times, NaN where the solver failed."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self._states)

    def whole(self, without: tuple[str, ...] = ()) -> Pushed:
        """What all of its draws predict, in memory.

        Args:
            without: which of "variance" and "noise" nobody will look at: they stay empty.
        """
        lean = lambda part: dataclasses.replace(part, **{name: {} for name in without})  # noqa: E731
        found = jax.tree.map(lambda a: np.empty((self.draws, *a.shape), a.dtype), lean(self.shapes))
        for rows, part in self():
            for of_all, of_some in zip(
                jax.tree.leaves(found), jax.tree.leaves(lean(part)), strict=True
            ):
                of_all[rows] = of_some
        return found


def _arrays(draws: Draws) -> dict[str, np.ndarray]:
    return {path: np.asarray(values) for path, values in draws.items()}


def _compiled(
    function: Callable, held: list[Any], first: Any, draws: int
) -> tuple[jax.stages.Compiled, int]:
    """A program for as many draws at once as a share of the memory allows, and their number."""
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
        # A power of two: free memory is never twice the same, but a program on disk is found by its
        # chunk.
        chunk = 2 ** math.floor(math.log2(min(max(chunk * budget / needed, 1), chunk / 2)))


def _one_draw(
    model: Model,
    inputs: Inputs,
    observed: Observed | None,
    kind: Any,
    repeats: int,
    times: np.ndarray | None,
    ensemble: Any,
) -> Any:
    """Of a draw; with random keys of some `kind` also predictions, and the states at some of the
    `times`.
    """
    driven_alike = inputs

    def one(draw, key):
        inputs = driven_alike
        if ensemble is not None:
            forcings, own = jax.tree.map(lambda of_all: of_all[draw[_MEMBER]], ensemble)
            inputs = dataclasses.replace(inputs, forcings=forcings, own_forcings=own)
            draw = {path: value for path, value in draw.items() if path != _MEMBER}
        begun = {name.removeprefix(_END): draw[name] for name in draw if name.startswith(_END)}
        realised, states = (
            realise(model, {path: v for path, v in draw.items() if not path.startswith(_END)}),
            [],
        )
        if begun:
            realised = eqx.tree_at(lambda m: m.layer, realised, realised.layer.from_end(begun))
        if times is not None:
            whole, asked, _ = model.solved_at(inputs)
            solved = [ode.solve(whole, ode.begin(whole)) for ode in trajectories(realised.layer)]
            states = [
                jax.tree.map(lambda y, ok=ok: jnp.where(ok, y[asked][times], jnp.nan), y)
                for y, ok, _ in solved
            ]
            realised = eqx.tree_at(
                lambda m: m.layer, realised, at_solutions(realised.layer, solved)
            )
        prediction = realised.predict(inputs)
        ok = prediction.ok
        noise = realised.conditional(prediction, inputs)
        masked = lambda value: jnp.where(ok, value, jnp.nan)  # noqa: E731
        likelihood = {
            name: jnp.where(jnp.isnan(y), jnp.nan, masked_log_prob(noise[name], y))
            for name, y in (observed or {}).items()
        }
        predictions, parameters, beside = {}, {}, {}
        if kind is not None:
            beside = {name: masked(v) for name, v in prediction.values.items() if name not in noise}
            key = jax.random.wrap_key_data(key, impl=kind)
            keys = dict(zip(noise, jax.random.split(key, len(noise)), strict=True))
            if (cross := model.cross_correlation) is not None:  # by one key they hold together
                keys |= dict.fromkeys(cross.observables, jax.random.fold_in(key, len(noise)))
            noise = {
                name: getattr(d, "uncensored", d) for name, d in noise.items()
            }  # as they would be seen
            parameters = {name: found for name, d in noise.items() if (found := parameters_of(d))}
            for name, d in noise.items():
                several = repeats > 1 and (name not in parameters or alone(d) is not d)
                predictions[name] = masked(d.sample(keys[name], (repeats,) if several else ()))
        pushed = Pushed(
            {name: masked(d.mean) for name, d in noise.items()},
            {name: masked(d.variance) for name, d in noise.items()},
            ok,
            prediction.stats.get("steps", jnp.zeros((), int)),
            {
                name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf)
                for name, value in likelihood.items()
            },
            predictions,
            {
                name: masked(jnp.sqrt(jnp.mean(jnp.square(v))))
                for name, v in prediction.mismatches.items()
            },
            prediction.log_factor,
            beside,
            {name: _marked(ok, held) for name, held in parameters.items()},
            {name: masked(state) for name, state in prediction.end.items()}
            if model.layer.goes_on
            else {},
            tuple((name, family_of(alone(noise[name]))) for name in parameters),
        )
        return pushed, states

    return one


def _marked(ok: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with NaN for those of a failed solve; whole numbers, such as one of trials, stay
    such.
    """
    return {
        p: jnp.where(ok, v, jnp.nan) if jnp.issubdtype(v.dtype, jnp.inexact) else v
        for p, v in parameters.items()
    }
