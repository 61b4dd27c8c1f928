"""All chains in batches, a compiled program for a chunk of draws."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._runs.journal import Arrays, Journal
from ...inference.metric import Metric
from ...inference.problem import LogDensity
from ...inference.sharding import Sharded, most_even_shards
from .methods import FIRST_STEP_SIZE, AbstractMethod, Chain

CHUNK = 16
"""Draws between two returns to Python: for progress, checkpoints, and an interruption that loses
little.
"""

type Trace = dict[str, np.ndarray]


class BatchedChains:
    """All chains in batches of equal size, one for each core or accelerator; compiles in the
    background.

    What the tuning wants to know of all chains is put together once a draw while adapting: by the
    program itself where there is one batch, else here. While sampling the batches go at their own
    pace.
    """

    def __init__(
        self,
        method: AbstractMethod,
        density: LogDensity,
        chains: int,
        metric: Metric,
        dimension: int,
    ):
        self.chains, self.dimension = chains, dimension
        self._method, self._density = method, density
        self._batches = most_even_shards(chains)
        self._draws, self._adapt = Sharded(self._of_a_batch, self._batches), jax.jit(method.adapt)
        self._thread = ThreadPoolExecutor(1)
        self._compiled = self._thread.submit(self._compile, metric)
        self._iteration = 0
        self._state: Any = None
        self._keys: Any = None

    @property
    def devices(self) -> str:
        """On how many of which kind of device they run."""
        return str(self._draws)

    def _of_a_batch(
        self,
        batch: Any,
        tuning: Any,
        begin: Any,
        number: Any,
        adapting: Any,
        entering: Any,
        metric: Metric,
    ) -> tuple[Any, Any, Any, Any]:
        """So many draws of the chains of a batch: the chains, the tuning, what it wants to know of
        them, the trace.

        Chains are in whitened coordinates, unless they are `entering` them.
        """
        (chains, keys), method = batch, self._method

        def density(z):
            return self._density(metric.position(z))

        def draw(chains, tuning, iteration):
            setting = method.setting(tuning, iteration, adapting)
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, iteration)
            chains, stats, seen = jax.vmap(lambda k, c: method.transition(k, c, setting, density))(
                now, chains
            )
            if self._batches == 1:
                tuning = jax.lax.cond(adapting, lambda: method.adapt(tuning, seen), lambda: tuning)
            return (chains, tuning, seen), _kept(chains, setting, stats, metric)

        def advance(row, carry):
            (chains, tuning, _), trace = carry
            after, kept = draw(chains, tuning, begin + row)
            return after, jax.tree.map(lambda rows, one: rows.at[row].set(one), trace, kept)

        chains = jax.tree.map(
            lambda new, old: jnp.where(entering, new, old), _whitened(chains, metric), chains
        )
        (_, _, seen), kept = jax.eval_shape(draw, chains, tuning, begin)
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), seen)
        trace = jax.tree.map(lambda a: jnp.zeros((CHUNK, *a.shape), a.dtype), kept)
        (chains, tuning, seen), trace = jax.lax.fori_loop(
            0, number, advance, ((chains, tuning, blank), trace)
        )
        return chains, tuning, seen, trace

    def _compile(self, metric: Metric) -> None:
        place, value = np.zeros((self.chains, self.dimension)), np.zeros(self.chains)
        chains, keys = (
            Chain(place, value, place, place, value),
            jax.random.split(jax.random.key(0), self.chains),
        )
        _, (_, tuning) = jax.eval_shape(
            self._first, place, value, place, jax.eval_shape(lambda: jax.random.key(0))
        )
        number, flag = jax.ShapeDtypeStruct((), int), jax.ShapeDtypeStruct((), bool)
        self._draws.compile(
            self._in_batches((chains, keys)), tuning, number, number, flag, flag, metric
        )

    def _in_batches(self, tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(self._batches, -1, *a.shape[1:]), tree)

    def _first(self, position: Any, value: Any, gradient: Any, key: Any) -> Any:
        keys, for_momentum, for_slice = (
            jax.random.split(k, self.chains) for k in jax.random.split(key, 3)
        )
        momentum = jax.vmap(lambda k: self._method.momentum(k, self.dimension))(for_momentum)
        slices = jax.vmap(lambda k: jax.random.uniform(k, minval=-1.0, maxval=1.0))(for_slice)
        tuning = self._method.untuned(self.dimension, jnp.asarray(FIRST_STEP_SIZE), jnp.asarray(0))
        return keys, (
            Chain(position, value, gradient, momentum, slices),
            jax.tree.map(jnp.asarray, tuning),
        )

    def begin(
        self, position: np.ndarray, value: np.ndarray, gradient: np.ndarray, *, key: Array
    ) -> None:
        """Place each chain at its first position."""
        self._keys, self._state = self._first(position, value, gradient, key)

    def tune_anew(self) -> None:
        """Begin to tune anew, from the step size so far; for a new metric."""
        chains, tuning = self._state
        step_size = self._method.setting(
            tuning, jnp.asarray(self._iteration), jnp.asarray(False)
        ).step_size
        fresh = self._method.untuned(self.dimension, step_size, jnp.asarray(self._iteration))
        self._state = chains, jax.tree.map(jnp.asarray, fresh)

    def shrink_step_size(self, factor: float) -> None:
        """Multiply the step size, where the tuning is its logarithms."""
        chains, tuning = self._state
        self._state = chains, jax.tree.map(lambda log: np.asarray(log) + np.log(factor), tuning)

    def advance(self, journal: Journal, adapting: bool, metric: Metric) -> Trace:
        """One chunk of every chain, as a step of the journal; arrays `(chain, draw, …)`."""
        leaves, structure = jax.tree.flatten(self._state)

        def work() -> Arrays:
            state, trace = self._chunk(adapting, metric)
            if not adapting:
                trace.pop("gradient")  # only a metric is refined from it
            return {
                f"state {i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))
            } | trace

        # The chains move on only when a chunk is whole.
        arrays = journal.step(f"{'warm-up' if adapting else 'draws'} from {self._iteration}", work)
        after = [arrays.pop(f"state {i}") for i in range(len(leaves))]
        self._state = jax.tree.unflatten(structure, after)
        self._iteration += CHUNK
        return arrays

    def _chunk(self, adapting: bool, metric: Metric) -> tuple[Any, Trace]:
        self._compiled.result()
        (chains, tuning), traces = self._state, []
        chains, keys = self._in_batches((chains, self._keys))
        each = 1 if adapting and self._batches > 1 else CHUNK
        for row in range(0, CHUNK, each):
            numbers = map(np.asarray, (self._iteration + row, each, adapting, row == 0))
            chains, tunings, seen, trace = self._draws((chains, keys), tuning, *numbers, metric)
            tuning = jax.tree.map(lambda a: a[0], tunings)
            if each < CHUNK:
                tuning = self._adapt(tuning, jax.tree.map(_joined, seen))
            traces.append(
                {name: _joined(rows[:, :each].swapaxes(1, 2)) for name, rows in trace.items()}
            )
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
        last = jax.tree.map(_joined, chains)
        last = last._replace(position=joined["position"][:, -1], gradient=joined["gradient"][:, -1])
        return (last, tuning), joined

    def close(self) -> None:
        """Let go of the thread; what it still compiles is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _joined(batches: np.ndarray) -> np.ndarray:
    """The chains of all batches in one row."""
    return batches.reshape(-1, *batches.shape[2:])


def _whitened(chains: Chain, metric: Metric) -> Chain:
    position, gradient = (
        jax.vmap(metric.whitened)(chains.position),
        jax.vmap(metric.whitened_gradient)(chains.gradient),
    )
    return chains._replace(position=position, gradient=gradient)


def _kept(chains: Chain, setting: Any, stats: dict[str, Any], metric: Metric) -> dict[str, Any]:
    shared = {"step_size": setting.step_size, "n_steps": setting.steps}
    return {
        "position": jax.vmap(metric.position)(chains.position),
        "gradient": jax.vmap(metric.gradient)(chains.gradient),
        **stats,
        **{name: jnp.broadcast_to(value, chains.value.shape) for name, value in shared.items()},
    }
