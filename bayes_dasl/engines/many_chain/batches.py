"""Chains in batches, advanced by a compiled program for several draws at a time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._runs.journal import Arrays, Journal, concatenated
from ...inference.metric import Metric
from ...inference.problem import LogDensity
from ...inference.sharding import Sharded, most_even_shards
from .methods import FIRST_STEP_SIZE, AbstractMethod, Chain

CHUNK = 16
"""Draws between two returns to Python, where progress is shown and a checkpoint is written."""

type Trace = dict[str, np.ndarray]


class BatchedChains:
    """All chains in batches of equal size, one batch for each core or accelerator.

    The program compiles in the background. During warm-up, the tuning needs the statistics of all
    chains after each draw. With one batch, the compiled program itself updates the tuning. With
    several batches, all return to Python after each draw for the update. While sampling, batches
    run independently.

    Args:
        method: the kind of transition.
        density: log density of the posterior, in unconstrained coordinates.
        chains: the number of chains.
        metric: a metric with the structure of the later ones, for the compilation.
        dimension: the dimension of the posterior.
    """

    def __init__(
        self,
        method: AbstractMethod,
        density: LogDensity,
        chains: int,
        metric: Metric,
        dimension: int,
    ):
        self.chains = chains
        self.dimension = dimension
        self._method = method
        self._density = density
        self._batches = most_even_shards(chains)
        self._draws = Sharded(self._of_a_batch, self._batches)
        self._adapt = jax.jit(method.adapt)
        self._thread = ThreadPoolExecutor(1)
        self._compiled = self._thread.submit(self._compile, metric)
        self._iteration = 0
        self._state: Any = None
        self._keys: Any = None

    @property
    def devices(self) -> str:
        """Number and kind of the devices on which the chains run."""
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
        """Advance the chains of a batch by `number` draws.

        Args:
            batch: the chains and their random seeds.
            tuning: state of the tuning.
            begin: number of the first draw.
            number: how many draws.
            adapting: whether this is the warm-up.
            entering: True if the chains are in unconstrained coordinates, False if they are in
                whitened ones.
            metric: defines the whitened coordinates.

        Returns:
            The chains in whitened coordinates, the state of the tuning, the last statistics for the
            tuning, and the trace.
        """
        (chains, keys), method = batch, self._method

        # 1. Whitened coordinates z with x = A z, where the posterior has about unit covariance.
        chains = jax.tree.map(
            lambda new, old: jnp.where(entering, new, old), _whitened(chains, metric), chains
        )

        def density(z):
            return self._density(metric.position(z))

        # 2. A draw: one transition of each chain, all with the same step size and path length.
        def draw(chains, tuning, iteration):
            setting = method.setting(tuning, iteration, adapting)
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, iteration)
            chains, stats, seen = jax.vmap(lambda k, c: method.transition(k, c, setting, density))(
                now, chains
            )
            # 3. Adapt the setting to the statistics of all chains, if all are in this batch.
            if self._batches == 1:
                tuning = jax.lax.cond(adapting, lambda: method.adapt(tuning, seen), lambda: tuning)
            return (chains, tuning, seen), _batch_row(chains, setting, stats, metric)

        def advance(row, carry):
            (chains, tuning, _), trace = carry
            after, kept = draw(chains, tuning, begin + row)
            return after, jax.tree.map(lambda rows, one: rows.at[row].set(one), trace, kept)

        # 4. The loop writes each draw into a row of preallocated arrays.
        (_, _, seen), kept = jax.eval_shape(draw, chains, tuning, begin)
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), seen)
        trace = jax.tree.map(lambda a: jnp.zeros((CHUNK, *a.shape), a.dtype), kept)
        (chains, tuning, seen), trace = jax.lax.fori_loop(
            0, number, advance, ((chains, tuning, blank), trace)
        )
        return chains, tuning, seen, trace

    def _compile(self, metric: Metric) -> None:
        """Compile the program for arguments of the final shapes."""
        place = np.zeros((self.chains, self.dimension))
        value = np.zeros(self.chains)
        chains = Chain(place, value, place, place, value)
        keys = jax.random.split(jax.random.key(0), self.chains)
        _, (_, tuning) = jax.eval_shape(
            self._first, place, value, place, jax.eval_shape(lambda: jax.random.key(0))
        )
        number = jax.ShapeDtypeStruct((), int)
        flag = jax.ShapeDtypeStruct((), bool)
        self._draws.compile(
            self._in_batches((chains, keys)), tuning, number, number, flag, flag, metric
        )

    def _in_batches(self, tree: Any) -> Any:
        """Return the tree with leading axes (batch, chain) in place of (chain)."""
        return jax.tree.map(lambda a: a.reshape(self._batches, -1, *a.shape[1:]), tree)

    def _first(self, position: Any, value: Any, gradient: Any, key: Any) -> Any:
        """Return the keys of the chains, their first states, and the first state of the tuning.

        The second and third are in one pair: `keys, (chains, tuning)`.
        """
        keys, for_momentum, for_slice = (
            jax.random.split(k, self.chains) for k in jax.random.split(key, 3)
        )
        momentum = jax.vmap(lambda k: self._method.momentum(k, self.dimension))(for_momentum)
        slices = jax.vmap(lambda k: jax.random.uniform(k, minval=-1.0, maxval=1.0))(for_slice)
        tuning = self._method.untuned(self.dimension, jnp.asarray(FIRST_STEP_SIZE), jnp.asarray(0))
        chains = Chain(position, value, gradient, momentum, slices)
        return keys, (chains, jax.tree.map(jnp.asarray, tuning))

    def begin(
        self, position: np.ndarray, value: np.ndarray, gradient: np.ndarray, *, key: Array
    ) -> None:
        """Place each chain at its first position.

        Args:
            position: first positions, `(chain, dimension)`, in unconstrained coordinates.
            value: the log density at each position.
            gradient: the gradient of the log density at each position.
            key: random seed of the chains.
        """
        self._keys, self._state = self._first(position, value, gradient, key)

    def tune_anew(self) -> None:
        """Restart the tuning for a new metric, from the averaged step size."""
        chains, tuning = self._state
        now = jnp.asarray(self._iteration)
        step_size = self._method.setting(tuning, now, jnp.asarray(False)).step_size
        fresh = self._method.untuned(self.dimension, step_size, now)
        self._state = chains, jax.tree.map(jnp.asarray, fresh)

    def shrink_step_size(self, factor: float) -> None:
        """Multiply the step size by a factor.

        The state of the tuning must consist only of logarithms of step sizes, as for
        `UnadjustedMCLMC`.
        """
        chains, tuning = self._state
        self._state = chains, jax.tree.map(lambda log: np.asarray(log) + np.log(factor), tuning)

    def advance(self, journal: Journal, adapting: bool, metric: Metric) -> Trace:
        """Advance every chain by one chunk of draws, stored as one step of the journal.

        Args:
            journal: stores the draws, or returns stored ones.
            adapting: whether this is the warm-up.
            metric: defines the whitened coordinates.

        Returns:
            The trace of the chunk: arrays `(chain, draw, …)` by name. It has `gradient` only while
            adapting.
        """
        leaves, structure = jax.tree.flatten(self._state)

        def work() -> Arrays:
            state, trace = self._chunk(adapting, metric)
            # Only the metric is estimated from gradients.
            if not adapting:
                trace.pop("gradient")
            after = {
                f"state {i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))
            }
            return after | trace

        # The state changes only after a whole chunk, so that an interruption leaves it consistent.
        arrays = journal.step(f"{'warm-up' if adapting else 'draws'} from {self._iteration}", work)
        after = [arrays.pop(f"state {i}") for i in range(len(leaves))]
        self._state = jax.tree.unflatten(structure, after)
        self._iteration += CHUNK
        return arrays

    def _chunk(self, adapting: bool, metric: Metric) -> tuple[Any, Trace]:
        """Advance every chain by one chunk of draws.

        Returns:
            The chains with the state of the tuning, and the trace of the chunk.
        """
        self._compiled.result()
        (chains, tuning), traces = self._state, []
        chains, keys = self._in_batches((chains, self._keys))
        # Several batches return after each draw of the warm-up, to be tuned together.
        each = 1 if adapting and self._batches > 1 else CHUNK
        for row in range(0, CHUNK, each):
            numbers = map(np.asarray, (self._iteration + row, each, adapting, row == 0))
            chains, tunings, seen, trace = self._draws((chains, keys), tuning, *numbers, metric)
            tuning = jax.tree.map(lambda a: a[0], tunings)
            if each < CHUNK:
                tuning = self._adapt(tuning, jax.tree.map(_unbatched, seen))
            traces.append(
                {name: _unbatched(rows[:, :each].swapaxes(1, 2)) for name, rows in trace.items()}
            )
        trace = concatenated(traces)
        # Between chunks chains are kept in unconstrained coordinates, in which traces are written.
        last = jax.tree.map(_unbatched, chains)
        last = last._replace(position=trace["position"][:, -1], gradient=trace["gradient"][:, -1])
        return (last, tuning), trace

    def close(self) -> None:
        """Shut down the background thread, and cancel a compilation that has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _unbatched(batches: np.ndarray) -> np.ndarray:
    """Merge the axes (batch, chain) into one axis over all chains."""
    return batches.reshape(-1, *batches.shape[2:])


def _whitened(chains: Chain, metric: Metric) -> Chain:
    """Return chains in whitened coordinates, from chains in unconstrained ones."""
    position = jax.vmap(metric.whitened)(chains.position)
    gradient = jax.vmap(metric.whitened_gradient)(chains.gradient)
    return chains._replace(position=position, gradient=gradient)


def _batch_row(
    chains: Chain, setting: Any, stats: dict[str, Any], metric: Metric
) -> dict[str, Any]:
    """Return position, gradient and statistics of one draw of each chain, by name.

    The positions and gradients returned are in unconstrained coordinates.
    """
    shared = {"step_size": setting.step_size, "n_steps": setting.steps}
    return {
        "position": jax.vmap(metric.position)(chains.position),
        "gradient": jax.vmap(metric.gradient)(chains.gradient),
        **stats,
        **{name: jnp.broadcast_to(value, chains.value.shape) for name, value in shared.items()},
    }
