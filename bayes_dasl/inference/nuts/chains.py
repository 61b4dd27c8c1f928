"""Run NUTS chains: their step sizes, adapted by dual averaging, and one program for all devices, in
chunks of draws.
"""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._jax.lazily import lazily
from ..._runs.journal import Arrays
from ..metric import Metric
from ..problem import LogDensity
from ..reparametrisations.reparametrisation import Reparametrisation
from ..sharding import Sharded

nuts, dual_averaging = lazily("blackjax.mcmc.nuts"), lazily("blackjax.adaptation.step_size")

CHUNK = 25
"""Draws of the warm-up between two returns to Python: for adaptation, progress and checkpoints."""
_LONGEST_CHUNK = 200  # fewer returns to Python matter where a gradient takes microseconds
_TRACE_NUMBERS = 2**22  # in the positions of a trace, at most

_FIRST_STEP_SIZE = 0.5
_CAUTIOUS = 0.125  # of the step size


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a chunk needs to know of NUTS.

    With probability `cautious` a draw takes steps of an eighth: a chain in a pocket of the
    posterior that is much more bent than elsewhere gets out of it. The choice does not depend on
    where the chain is, so the draws are exact.
    """

    log_density: LogDensity
    target_acceptance: float
    max_tree_depth: int
    cautious: float = 0.0

    def chunk(
        self,
        rows: int,
        state: Any,
        key: Array,
        begin: Array,
        number: Array,
        adapting: Array,
        metric: Metric,
        frame: Reparametrisation,
    ) -> tuple[Any, Any]:
        """`number` transitions of one chain, in the metric's coordinates; the trace has so many
        `rows`.

        Positions, gradients and log densities of state and trace are those in the frame.
        """
        step_nuts: Any = nuts.build_kernel()
        _, adapt, average = dual_averaging.dual_averaging_adaptation(self.target_acceptance)
        unit = jnp.ones(state["position"].size)

        def log_density(z):
            return frame.log_density(self.log_density, metric.position(z))

        def transition(chain, tuning, iteration):
            step_size: Any = jnp.where(adapting, jnp.exp(tuning.log_step_size), average(tuning))
            now = jax.random.fold_in(key, iteration)
            adapts = adapting
            if self.cautious:
                now, key_cautious = jax.random.split(now)
                small = jax.random.bernoulli(key_cautious, self.cautious)
                step_size, adapts = (
                    jnp.where(small, _CAUTIOUS * step_size, step_size),
                    adapting & ~small,
                )
            chain, info = step_nuts(now, chain, log_density, step_size, unit, self.max_tree_depth)
            tuned = adapt(tuning, info.acceptance_rate)
            tuning = jax.tree.map(lambda new, old: jnp.where(adapts, new, old), tuned, tuning)
            return chain, tuning, _kept(chain, info, step_size, metric)

        def advance(row, carry):
            chain, tuning, trace = carry
            chain, tuning, kept = transition(chain, tuning, begin + row)
            return chain, tuning, jax.tree.map(lambda held, one: held.at[row].set(one), trace, kept)

        # Whitening a position again would round it: draws would depend on where chunks end.
        place = jnp.where(
            state["in_new_metric"], metric.whitened(state["position"]), state["whitened"]
        )
        slope = metric.whitened_gradient(state["gradient"])
        slope = jnp.where(state["in_new_metric"], slope, state["whitened_gradient"])
        first = (
            nuts.hmc.HMCState(place, state["lp"], slope),
            _tuning(state),
            _empty_trace(rows, place.size),
        )
        chain, tuning, trace = jax.lax.fori_loop(0, number, advance, first)
        last = {
            "position": metric.position(chain.position),
            "gradient": metric.gradient(chain.logdensity_grad),
            "lp": chain.logdensity,
            "whitened": chain.position,
            "whitened_gradient": chain.logdensity_grad,
            "in_new_metric": jnp.zeros((), bool),
        }
        return last | _tuning_arrays(tuning), trace


def _empty_trace(rows: int, dimension: int) -> dict[str, Array]:
    """Room for what is kept of so many draws; to ask JAX for the shapes would trace NUTS a second
    time, for seconds.
    """
    vectors, numbers = ("position", "gradient"), ("lp", "energy", "acceptance_rate", "step_size")
    return (
        {name: jnp.zeros((rows, dimension)) for name in vectors}
        | {name: jnp.zeros(rows) for name in numbers}
        | {"n_steps": jnp.zeros(rows, int)}
        | {name: jnp.zeros(rows, bool) for name in ("diverging", "solver_failure")}
    )


def _kept(chain: Any, info: Any, step_size: Array, metric: Metric) -> dict[str, Array]:
    ends = info.trajectory_leftmost_state, info.trajectory_rightmost_state
    failed = jnp.isneginf(ends[0].logdensity) | jnp.isneginf(ends[1].logdensity)
    return {
        "position": metric.position(chain.position),
        "gradient": metric.gradient(chain.logdensity_grad),
        "lp": chain.logdensity,
        "energy": info.energy,
        "acceptance_rate": info.acceptance_rate,
        "n_steps": info.num_integration_steps,
        "diverging": info.is_divergent,
        "solver_failure": failed,
        "step_size": step_size,
    }


def _new_tuning(step_size: Any) -> Any:
    return dual_averaging.dual_averaging_adaptation(0.8)[0](step_size)


_new_tunings = jax.jit(jax.vmap(_new_tuning))


def _tuning_arrays(tuning: Any) -> dict[str, Any]:
    return {f"tuning_{name}": value for name, value in tuning._asdict().items()}


def _tuning(state: Any) -> Any:
    kind = type(jax.eval_shape(_new_tuning, 1.0))
    return kind(**{name: state[f"tuning_{name}"] for name in kind._fields})


def _with_step_size(state: Arrays, step_size: np.ndarray) -> Arrays:
    """The state with the adaptation of the step size begun anew."""
    return state | {
        name: np.asarray(values) for name, values in _tuning_arrays(_new_tunings(step_size)).items()
    }


def first_state(position: np.ndarray, value: np.ndarray, gradient: np.ndarray) -> Arrays:
    """The state of chains that begin at these positions."""
    nowhere = np.full_like(position, np.nan)
    state = {"position": position, "lp": value, "gradient": gradient}
    state |= {
        "whitened": nowhere,
        "whitened_gradient": nowhere,
        "in_new_metric": np.ones(len(position), bool),
    }
    return _with_step_size(state, np.full(len(position), _FIRST_STEP_SIZE))


def enter_new_metric(state: Arrays) -> Arrays:
    """The state for chunks in another metric: the step size is adapted anew, from its average so
    far.
    """
    state = state | {"in_new_metric": np.ones(len(state["position"]), bool)}
    return _with_step_size(state, np.exp(state["tuning_log_step_size_avg"]))


def share_step_size(state: Arrays) -> Arrays:
    """Give every chain the median of the adapted step sizes."""
    logs = state["tuning_log_step_size_avg"]
    return state | {"tuning_log_step_size_avg": np.full_like(logs, np.median(logs))}


class Chains:
    """Chains on all cores or accelerators; their program compiles in the background."""

    def __init__(
        self,
        kernel: Kernel,
        chains: int,
        metric: Metric,
        frame: Reparametrisation,
        dimension: int,
        *,
        key: Array,
    ):
        def of_a_chain(chain, *shared):
            return kernel.chunk(self.longest_chunk, *chain, *shared)

        # Not so many draws that their trace fills the memory.
        self.longest_chunk = min(max(_TRACE_NUMBERS // (chains * dimension), CHUNK), _LONGEST_CHUNK)

        self._sharded, self.chains = Sharded(of_a_chain, chains), chains
        self._keys = jax.random.split(key, chains)
        self._thread = ThreadPoolExecutor(1)
        self._compiled = self._thread.submit(self._compile, metric, frame, dimension)

    @property
    def devices(self) -> str:
        """On how many of which kind of device they run."""
        return str(self._sharded)

    def _compile(self, metric: Metric, frame: Reparametrisation, dimension: int) -> None:
        place, number = np.zeros((self.chains, dimension)), np.zeros(self.chains)
        flag, whole = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), int)
        items = first_state(place, number, place), self._keys
        self._sharded.compile(items, whole, whole, flag, metric, frame)

    def chunk(
        self,
        state: Arrays,
        begin: int,
        number: int,
        adapting: bool,
        metric: Metric,
        frame: Reparametrisation,
    ) -> tuple[Arrays, Arrays]:
        """`number` draws of every chain: the state after them and the trace, arrays
        `(chain, draw, …)`.
        """
        self._compiled.result()
        began = time.perf_counter()
        numbers = map(np.asarray, (begin, number, adapting))
        after, trace = self._sharded((state, self._keys), *numbers, metric, frame)
        seconds = np.asarray(time.perf_counter() - began)
        # Copies: a part would keep all rows in memory.
        return after, {name: rows[:, :number].copy() for name, rows in trace.items()} | {
            "seconds": seconds
        }

    def close(self) -> None:
        """Let go of the thread; what it still compiles is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
