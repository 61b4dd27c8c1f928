"""Run NUTS chains: vmapped on each device, one host thread a device, in segments of fixed length."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc import nuts
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array

from ._problem import LogDensity

SEGMENT = 50
"""Draws between two returns to Python: for progress, adaptation, and an interruption that loses nothing."""

type Trace = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a segment needs to know of NUTS."""

    log_density: LogDensity
    target_acceptance: float
    max_tree_depth: int

    def segment(self, state: Any, keys: Array, begin: Array, adapting: Array, metric: Array) -> tuple:
        """`SEGMENT` transitions of one chain; `state` is (NUTS state, step-size state)."""
        step_nuts = nuts.build_kernel()
        _, adapt, average = dual_averaging_adaptation(self.target_acceptance)

        def transition(state, iteration):
            chain, tuning = state
            step_size = jnp.where(adapting, jnp.exp(tuning.log_step_size), average(tuning))
            key = jax.random.fold_in(keys, iteration)
            chain, info = step_nuts(key, chain, self.log_density, step_size, metric, self.max_tree_depth)
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


class Chains:
    """Chains on all devices; compiles on every device at once, in the background."""

    def __init__(self, kernel: Kernel, chains: int, metric: jax.ShapeDtypeStruct, dimension: int):
        available = jax.devices()
        count = max(n for n in range(1, len(available) + 1) if chains % n == 0)
        self.devices = available[:count]
        self.chains = chains
        self._pool = ThreadPoolExecutor(count)
        self._share = chains // count
        over_chains = jax.vmap(kernel.segment, in_axes=(0, 0, None, None, None))
        self._program = jax.jit(over_chains)
        shapes = self._shapes(metric, dimension)
        self._compiled: list[Future] = [
            self._pool.submit(self._compile, shapes, device) for device in self.devices
        ]
        self._states: list[Any] = []
        self._keys: list[Any] = []

    def _shapes(self, metric: jax.ShapeDtypeStruct, dimension: int) -> tuple:
        example = jax.eval_shape(lambda: _first_state(*[jnp.zeros((self._share, dimension))] * 2, jnp.zeros(self._share)))
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self._share))
        return example, keys, jax.ShapeDtypeStruct((), int), jax.ShapeDtypeStruct((), bool), metric

    def _compile(self, shapes: tuple, device: jax.Device) -> Any:
        here = SingleDeviceSharding(device)
        placed = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes)
        return self._program.lower(*placed).compile()

    def begin(self, position: np.ndarray, value: np.ndarray, gradient: np.ndarray, *, key: Array) -> None:
        """Place each chain at its first position."""
        state = _first_state(jnp.asarray(position), jnp.asarray(gradient), jnp.asarray(value))
        keys = jax.random.split(key, self.chains)
        self._states = list(self._placed(state))
        self._keys = list(self._placed(keys))

    def restart_step_size(self, step_size: float | None = None) -> None:
        """Begin to adapt the step size anew, from the average so far."""
        init, _, average = dual_averaging_adaptation(0.8)
        restarted = []
        for chain, tuning in self._states:
            sizes = np.full(self._share, step_size) if step_size else np.asarray(average(tuning))
            restarted.append((chain, jax.vmap(init)(jnp.asarray(sizes))))
        self._place_states(restarted)

    def share_step_size(self) -> float:
        """Give every chain the median of the adapted step sizes."""
        logs = np.concatenate([np.asarray(tuning.log_step_size_avg) for _, tuning in self._states])
        common = float(np.median(logs))
        shared = [(c, t._replace(log_step_size_avg=jnp.full(self._share, common))) for c, t in self._states]
        self._place_states(shared)
        return float(np.exp(common))

    def _place_states(self, states: list) -> None:
        self._states = [jax.device_put(s, d) for s, d in zip(states, self.devices, strict=True)]

    def _placed(self, tree: Any) -> Iterator[Any]:
        for i, device in enumerate(self.devices):
            part = slice(i * self._share, (i + 1) * self._share)
            yield jax.device_put(jax.tree.map(lambda a, part=part: a[part], tree), device)

    def run(self, begin: int, adapting: bool, metric: np.ndarray) -> Trace:
        """One segment of every chain; arrays `(chain, draw, …)`."""
        runs = [self._pool.submit(self._run_on, i, begin, adapting, metric) for i in range(len(self.devices))]
        done = [r.result() for r in runs]
        # Only now, with all devices done, does the state move on: an interruption leaves it whole.
        self._states = [state for state, _ in done]
        return {name: np.concatenate([trace[name] for _, trace in done]) for name in done[0][1]}

    def _run_on(self, i: int, begin: int, adapting: bool, metric: np.ndarray) -> tuple[Any, Trace]:
        arguments = jax.device_put((jnp.asarray(begin), jnp.asarray(adapting), jnp.asarray(metric)), self.devices[i])
        state, trace = self._compiled[i].result()(self._states[i], self._keys[i], *arguments)
        return state, {name: np.asarray(values) for name, values in trace.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _first_state(position: Array, gradient: Array, value: Array) -> tuple:
    init, _, _ = dual_averaging_adaptation(0.8)
    return nuts.hmc.HMCState(position, value, gradient), jax.vmap(init)(jnp.full(position.shape[0], 0.5))
