"""All chains as one batch: spread over devices, one compiled program for a segment of draws."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ..._jax.devices import evenly_loaded_devices
from ..._runs.journal import Arrays, Journal
from ..metric import Metric
from ..problem import LogDensity
from .methods import FIRST_STEP_SIZE, AbstractMethod, Chain

SEGMENT = 16
"""Draws between two returns to Python: for progress, checkpoints, and an interruption that loses little."""

type Trace = dict[str, np.ndarray]


class Population:
    """All chains, spread evenly over as many devices as divide their number; compiles in the background.

    While adapting, the devices exchange what the tuning wants to know once a draw, outside of every solve; while
    sampling they exchange nothing.
    """

    def __init__(self, method: AbstractMethod, density: LogDensity, chains: int, metric: Metric, dimension: int):
        self.devices, self.chains = evenly_loaded_devices(chains), chains
        self._method, self._density, self.dimension = method, density, dimension
        self._mesh = Mesh(np.array(self.devices), ("chains",))
        self._thread = ThreadPoolExecutor(1)
        self._program = self._thread.submit(self._compile, metric)
        self._iteration = 0
        self._state: Any = None
        self._keys: Any = None

    def _segment(self, state: Any, keys: Any, begin: Any, adapting: Any, metric: Metric) -> tuple[Any, Any]:
        """`SEGMENT` draws of the chains of one device; `state` is (chains, tuning)."""
        method = self._method

        def density(z):
            return self._density(metric.position(z))

        def draw(state, iteration):
            chains, tuning = state
            setting = method.setting(tuning, iteration, adapting)
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, iteration)
            chains, stats, seen = jax.vmap(lambda k, c: method.transition(k, c, setting, density))(now, chains)
            tuning = jax.lax.cond(adapting, lambda: method.adapt(tuning, _of_all(seen)), lambda: tuning)
            return (chains, tuning), _kept(chains, setting, stats, metric)

        chains, tuning = state
        state, trace = jax.lax.scan(draw, (_whitened(chains, metric), tuning), begin + jnp.arange(SEGMENT))
        last = state[0]._replace(position=trace["position"][-1], gradient=trace["gradient"][-1])
        return (last, state[1]), trace

    def _compile(self, metric: Metric) -> Any:
        every, each = PartitionSpec(), PartitionSpec("chains")
        program = jax.shard_map(
            self._segment,
            mesh=self._mesh,
            in_specs=((each, every), each, every, every, every),
            out_specs=((each, every), PartitionSpec(None, "chains")),
            check_vma=False,
        )
        place = jax.ShapeDtypeStruct((self.chains, self.dimension), float)
        value = jax.ShapeDtypeStruct((self.chains,), float)
        first = jax.eval_shape(self._first, place, value, place, jax.eval_shape(lambda: jax.random.key(0)))
        keys, state = jax.tree.map(
            lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), first, self._places(first)
        )
        iteration, flag = jax.ShapeDtypeStruct((), int), jax.ShapeDtypeStruct((), bool)
        return jax.jit(program).lower(state, keys, iteration, flag, metric).compile()

    def _places(self, everything: Any) -> Any:
        """Chains and their keys lie on their device, the tuning on all."""
        keys, (chains, tuning) = everything
        each, every = (NamedSharding(self._mesh, s) for s in (PartitionSpec("chains"), PartitionSpec()))
        on = lambda place, tree: jax.tree.map(lambda _: place, tree)  # noqa: E731
        return on(each, keys), (on(each, chains), on(every, tuning))

    def _first(self, position: Any, value: Any, gradient: Any, key: Any) -> Any:
        keys, for_momentum, for_slice = (jax.random.split(k, self.chains) for k in jax.random.split(key, 3))
        momentum = jax.vmap(lambda k: self._method.momentum(k, self.dimension))(for_momentum)
        slices = jax.vmap(lambda k: jax.random.uniform(k, minval=-1.0, maxval=1.0))(for_slice)
        tuning = self._method.untuned(self.dimension, jnp.asarray(FIRST_STEP_SIZE), jnp.asarray(0))
        return keys, (Chain(position, value, gradient, momentum, slices), jax.tree.map(jnp.asarray, tuning))

    def _put(self, keys: Any, state: Any) -> None:
        self._keys, self._state = jax.device_put((keys, state), self._places((keys, state)))

    def begin(self, position: np.ndarray, value: np.ndarray, gradient: np.ndarray, *, key: Array) -> None:
        """Place each chain at its first position."""
        self._put(*self._first(position, value, gradient, key))

    def tune_anew(self) -> None:
        """Begin to tune anew, from the step size so far; for a new metric."""
        chains, tuning = self._state
        step_size = self._method.setting(tuning, jnp.asarray(self._iteration), jnp.asarray(False)).step_size
        fresh = self._method.untuned(self.dimension, step_size, jnp.asarray(self._iteration))
        self._put(self._keys, (chains, jax.tree.map(jnp.asarray, fresh)))

    def shrink_step_size(self, factor: float) -> None:
        """Multiply the step size, where the tuning is its logarithms."""
        chains, tuning = self._state
        self._put(self._keys, (chains, jax.tree.map(lambda log: np.asarray(log) + np.log(factor), tuning)))

    def advance(self, journal: Journal, adapting: bool, metric: Metric) -> Trace:
        """One segment of every chain, as a step of the journal; arrays `(chain, draw, …)`."""
        leaves, structure = jax.tree.flatten(self._state)

        def work() -> Arrays:
            program = self._program.result()
            state, trace = program(self._state, self._keys, np.asarray(self._iteration), np.asarray(adapting), metric)
            if not adapting:
                trace.pop("gradient")  # only a metric is refined from it
            after = {f"state {i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
            return after | {name: np.asarray(values).swapaxes(0, 1) for name, values in trace.items()}

        # In a thread, so that Ctrl-C is heard at once; the chains move on only when a segment is whole.
        name = f"{'warm-up' if adapting else 'draws'} from {self._iteration}"
        arrays = journal.step(name, lambda: self._thread.submit(work).result())
        after = [arrays.pop(f"state {i}") for i in range(len(leaves))]
        self._put(self._keys, jax.tree.unflatten(structure, after))
        self._iteration += SEGMENT
        return arrays

    def close(self) -> None:
        """Let go of the thread; what it still computes is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _of_all(seen: Any) -> Any:
    """What was seen of the chains of every device."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, "chains", tiled=True), seen)


def _whitened(chains: Chain, metric: Metric) -> Chain:
    position, gradient = jax.vmap(metric.whitened)(chains.position), jax.vmap(metric.whitened_gradient)(chains.gradient)
    return chains._replace(position=position, gradient=gradient)


def _kept(chains: Chain, setting: Any, stats: dict[str, Any], metric: Metric) -> dict[str, Any]:
    shared = {"step_size": setting.step_size, "n_steps": setting.steps}
    return {
        "position": jax.vmap(metric.position)(chains.position),
        "gradient": jax.vmap(metric.gradient)(chains.gradient),
        **stats,
        **{name: jnp.broadcast_to(value, chains.value.shape) for name, value in shared.items()},
    }
