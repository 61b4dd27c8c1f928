"""Run NUTS chains: one program for all devices, chains vmapped on each, in segments of fixed length."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc import nuts
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ._problem import LogDensity

SEGMENT = 50
"""Draws between two returns to Python: for progress, adaptation, and an interruption that loses nothing."""

_FIRST_STEP_SIZE = 0.5

type Trace = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a segment needs to know of NUTS."""

    log_density: LogDensity
    target_acceptance: float
    max_tree_depth: int

    def segment(self, state: Any, key: Array, begin: Array, adapting: Array, metric: Any) -> tuple[Any, Any]:
        """`SEGMENT` transitions of one chain; `state` is (NUTS state, step-size state)."""
        step_nuts = nuts.build_kernel()
        _, adapt, average = dual_averaging_adaptation(self.target_acceptance)

        def transition(state, iteration):
            chain, tuning = state
            step_size: Any = jnp.where(adapting, jnp.exp(tuning.log_step_size), average(tuning))
            now = jax.random.fold_in(key, iteration)
            chain, info = step_nuts(now, chain, self.log_density, step_size, metric, self.max_tree_depth)
            tuned = adapt(tuning, info.acceptance_rate)
            tuning = jax.tree.map(lambda new, old: jnp.where(adapting, new, old), tuned, tuning)
            return (chain, tuning), _kept(chain, info, step_size)

        return jax.lax.scan(transition, state, begin + jnp.arange(SEGMENT))


def _kept(chain: Any, info: Any, step_size: Array) -> dict[str, Array]:
    ends = info.trajectory_leftmost_state, info.trajectory_rightmost_state
    failed = jnp.isneginf(ends[0].logdensity) | jnp.isneginf(ends[1].logdensity)
    return {
        "position": chain.position,
        "lp": chain.logdensity,
        "energy": info.energy,
        "acceptance_rate": info.acceptance_rate,
        "n_steps": info.num_integration_steps,
        "diverging": info.is_divergent,
        "solver_failure": failed,
        "step_size": step_size,
    }


@jax.jit
def _first_state(position: Any, value: Any, gradient: Any, step_size: Any) -> tuple[Any, Any]:
    init, _, _ = dual_averaging_adaptation(0.8)
    return nuts.hmc.HMCState(position, value, gradient), jax.vmap(init)(step_size)


class Chains:
    """Chains spread evenly over as many devices as divide their number; compiles in the background.

    The devices share one program without any communication (`shard_map`): one compilation, and each device
    goes at its own pace through a segment.
    """

    def __init__(self, kernel: Kernel, chains: int, metric: jax.ShapeDtypeStruct, dimension: int):
        available = jax.devices()
        count = max(n for n in range(1, len(available) + 1) if chains % n == 0)
        self.devices, self.chains = available[:count], chains
        self._split = NamedSharding(Mesh(np.array(self.devices), ("chains",)), PartitionSpec("chains"))
        self._thread = ThreadPoolExecutor(1)
        self._program = self._thread.submit(self._compile, kernel, metric, dimension)
        self._state: Any = None
        self._keys: Any = None

    def _compile(self, kernel: Kernel, metric: jax.ShapeDtypeStruct, dimension: int) -> Any:
        every, each = PartitionSpec(), PartitionSpec("chains")
        over_chains = jax.vmap(kernel.segment, in_axes=(0, 0, None, None, None))
        program = jax.shard_map(
            over_chains,
            mesh=self._split.mesh,
            in_specs=(each, each, every, every, every),
            out_specs=each,
            check_vma=False,
        )
        number = jax.ShapeDtypeStruct((self.chains,), float)
        place = jax.ShapeDtypeStruct((self.chains, dimension), float)
        state = jax.eval_shape(_first_state, place, number, place, number)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self.chains))
        chained = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=self._split), (state, keys))
        flag, iteration = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), int)
        return jax.jit(program).lower(*chained, iteration, flag, metric).compile()

    def begin(self, position: np.ndarray, value: np.ndarray, gradient: np.ndarray, *, key: Array) -> None:
        """Place each chain at its first position."""
        first = np.full(self.chains, _FIRST_STEP_SIZE)
        self._state = jax.device_put(_first_state(position, value, gradient, first), self._split)
        self._keys = jax.device_put(jax.random.split(key, self.chains), self._split)

    def restart_step_size(self) -> None:
        """Begin to adapt the step size anew, from the average so far."""
        (position, value, gradient), tuning = self._state
        average = np.exp(np.asarray(tuning.log_step_size_avg))
        state = _first_state(*map(np.asarray, (position, value, gradient)), average)
        self._state = jax.device_put(state, self._split)

    def share_step_size(self) -> None:
        """Give every chain the median of the adapted step sizes."""
        chain, tuning = self._state
        logs = np.asarray(tuning.log_step_size_avg)
        shared = jax.device_put(np.full_like(logs, np.median(logs)), self._split)
        self._state = chain, tuning._replace(log_step_size_avg=shared)

    def run(self, begin: int, adapting: bool, metric: np.ndarray) -> Trace:
        """One segment of every chain; arrays `(chain, draw, …)`."""
        program = self._program.result()

        def work():
            state, trace = program(self._state, self._keys, np.asarray(begin), np.asarray(adapting), metric)
            return state, {name: np.asarray(values) for name, values in trace.items()}

        # In a thread, so that Ctrl-C is heard at once; the state moves on only when a segment is whole.
        self._state, trace = self._thread.submit(work).result()
        return trace

    def close(self) -> None:
        """Let go of the thread; what it still computes is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
