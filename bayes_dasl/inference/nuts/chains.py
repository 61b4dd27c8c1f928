"""NUTS chains with dual averaging of step sizes; one program runs chunks of draws."""

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

nuts = lazily("blackjax.mcmc.nuts")
dual_averaging = lazily("blackjax.adaptation.step_size")

CHUNK = 25
"""Warm-up draws per program call; Python then adapts, reports progress and writes checkpoints."""
# Program calls cost noticeable time if a gradient takes microseconds, so later chunks are longer.
_LONGEST_CHUNK = 200
# The most numbers in the positions of a chunk, for all chains together.
_TRACE_NUMBERS = 2**22

_FIRST_STEP_SIZE = 0.5
# Cautious draws multiply the step size by this factor.
_CAUTIOUS = 0.125


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The log density, and the settings of NUTS.

    Some random draws are cautious: their step size is an eighth of the usual one. So a chain can
    leave regions of much higher curvature. Whether a draw is cautious does not depend on the
    position, so the draws are exact.

    Args:
        log_density: the log density of unconstrained parameters.
        target_acceptance: the acceptance rate to which the step size is adapted.
        max_tree_depth: a draw takes at most 2 to this power gradients, less one.
        cautious: probability of a cautious draw.
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
        reparametrisation: Reparametrisation,
    ) -> tuple[Any, Any]:
        """Advance one chain by `number` draws.

        All positions are those of the reparametrisation.

        Args:
            rows: length of the arrays of the trace, at least `number`.
            state: state of the chain.
            key: random seed of the chain.
            begin: index of the first draw.
            number: number of draws.
            adapting: whether the step size is adapted.
            metric: the metric.
            reparametrisation: the reparametrisation.

        Returns:
            The next state, and the trace: arrays `(rows, …)` by name, zero after the last draw.
        """
        step_nuts: Any = nuts.build_kernel()
        _, adapt, average = dual_averaging.dual_averaging_adaptation(self.target_acceptance)
        unit = jnp.ones(state["position"].size)

        def log_density(whitened):
            return reparametrisation.log_density(self.log_density, metric.position(whitened))

        def transition(chain, tuning, iteration):
            # 1. The current step size while adapting, else the average one.
            step_size: Any = jnp.where(adapting, jnp.exp(tuning.log_step_size), average(tuning))
            now = jax.random.fold_in(key, iteration)
            adapts = adapting
            if self.cautious:
                now, key_cautious = jax.random.split(now)
                small = jax.random.bernoulli(key_cautious, self.cautious)
                step_size = jnp.where(small, _CAUTIOUS * step_size, step_size)
                adapts = adapting & ~small
            # 2. A draw of NUTS, with a unit metric in whitened coordinates.
            chain, info = step_nuts(now, chain, log_density, step_size, unit, self.max_tree_depth)
            # 3. Dual averaging of log ε towards the target acceptance; cautious draws do not count.
            tuned = adapt(tuning, info.acceptance_rate)
            tuning = jax.tree.map(lambda new, old: jnp.where(adapts, new, old), tuned, tuning)
            return chain, tuning, _trace_row(chain, info, step_size, metric)

        def advance(row, carry):
            chain, tuning, trace = carry
            chain, tuning, kept = transition(chain, tuning, begin + row)
            return chain, tuning, jax.tree.map(lambda held, one: held.at[row].set(one), trace, kept)

        # The state keeps whitened positions between chunks. Whitening them again would round them,
        # and draws would depend on the lengths of chunks.
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
    """Return a trace of zeros, which draws then overwrite.

    `jax.eval_shape` would give the shapes, too, but would trace NUTS a second time, which takes
    seconds.

    Args:
        rows: length of the arrays.
        dimension: number of parameters.
    """
    vectors = ("position", "gradient")
    numbers = ("lp", "energy", "acceptance_rate", "step_size")
    return (
        {name: jnp.zeros((rows, dimension)) for name in vectors}
        | {name: jnp.zeros(rows) for name in numbers}
        | {"n_steps": jnp.zeros(rows, int)}
        | {name: jnp.zeros(rows, bool) for name in ("diverging", "solver_failure")}
    )


def _trace_row(chain: Any, info: Any, step_size: Array, metric: Metric) -> dict[str, Array]:
    """Return a draw and its statistics by name.

    Args:
        chain: the state after the draw.
        info: BlackJAX's information on the trajectory.
        step_size: the step size of the draw.
        metric: transforms whitened positions.
    """
    # A solver failure ends a trajectory, so it shows at one of the ends.
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
    """Return the first state of dual averaging for a step size."""
    return dual_averaging.dual_averaging_adaptation(0.8)[0](step_size)


_new_tunings = jax.jit(jax.vmap(_new_tuning))


# A journal stores arrays by name, so the state of dual averaging is split into its fields.
def _tuning_arrays(tuning: Any) -> dict[str, Any]:
    """Return the fields of a dual averaging state as arrays named `tuning_…`."""
    return {f"tuning_{name}": value for name, value in tuning._asdict().items()}


def _tuning(state: Any) -> Any:
    """Return the dual averaging state from the arrays named `tuning_…`."""
    kind = type(jax.eval_shape(_new_tuning, 1.0))
    return kind(**{name: state[f"tuning_{name}"] for name in kind._fields})


def _with_step_size(state: Arrays, step_size: np.ndarray) -> Arrays:
    """Return the state of the chains with dual averaging restarted.

    Args:
        state: the state of all chains.
        step_size: first step size of each chain.
    """
    tunings = _tuning_arrays(_new_tunings(step_size))
    return state | {name: np.asarray(values) for name, values in tunings.items()}


def first_state(position: np.ndarray, value: np.ndarray, gradient: np.ndarray) -> Arrays:
    """Return the first state of chains.

    Args:
        position: first positions, `(chain, dimension)`.
        value: log densities there, `(chain,)`.
        gradient: gradients there, `(chain, dimension)`.
    """
    unset = np.full_like(position, np.nan)
    state = {
        "position": position,
        "lp": value,
        "gradient": gradient,
        "whitened": unset,
        "whitened_gradient": unset,
        "in_new_metric": np.ones(len(position), bool),
    }
    return _with_step_size(state, np.full(len(position), _FIRST_STEP_SIZE))


def enter_new_metric(state: Arrays) -> Arrays:
    """Return the state of the chains prepared for a new metric.

    Dual averaging restarts from the average step size so far.
    """
    state = state | {"in_new_metric": np.ones(len(state["position"]), bool)}
    return _with_step_size(state, np.exp(state["tuning_log_step_size_avg"]))


def share_step_size(state: Arrays) -> Arrays:
    """Return the state in which every chain has the median of all adapted step sizes."""
    logs = state["tuning_log_step_size_avg"]
    return state | {"tuning_log_step_size_avg": np.full_like(logs, np.median(logs))}


class Chains:
    """Run chains on all cores or accelerators; the program compiles in the background.

    Args:
        kernel: the log density and the settings of NUTS.
        chains: number of chains.
        metric: a metric of the right shapes.
        reparametrisation: a reparametrisation of the right class and shapes.
        dimension: number of parameters.
        key: random seed.
    """

    def __init__(
        self,
        kernel: Kernel,
        chains: int,
        metric: Metric,
        reparametrisation: Reparametrisation,
        dimension: int,
        *,
        key: Array,
    ):
        def of_a_chain(chain, *shared):
            return kernel.chunk(self.longest_chunk, *chain, *shared)

        # The trace of a chunk must fit into memory.
        self.longest_chunk = min(max(_TRACE_NUMBERS // (chains * dimension), CHUNK), _LONGEST_CHUNK)

        self.chains = chains
        self._sharded = Sharded(of_a_chain, chains)
        self._keys = jax.random.split(key, chains)
        self._thread = ThreadPoolExecutor(1)
        self._compiled = self._thread.submit(self._compile, metric, reparametrisation, dimension)

    @property
    def devices(self) -> str:
        """Number and kind of the devices on which the chains run."""
        return str(self._sharded)

    def _compile(
        self, metric: Metric, reparametrisation: Reparametrisation, dimension: int
    ) -> None:
        """Compile the program for arrays of the right shapes; their values do not matter."""
        place = np.zeros((self.chains, dimension))
        value = np.zeros(self.chains)
        flag = jax.ShapeDtypeStruct((), bool)
        whole = jax.ShapeDtypeStruct((), int)
        items = first_state(place, value, place), self._keys
        self._sharded.compile(items, whole, whole, flag, metric, reparametrisation)

    def chunk(
        self,
        state: Arrays,
        begin: int,
        number: int,
        adapting: bool,
        metric: Metric,
        reparametrisation: Reparametrisation,
    ) -> tuple[Arrays, Arrays]:
        """Advance every chain by `number` draws.

        Args:
            state: state of the chains.
            begin: index of the first draw.
            number: number of draws.
            adapting: whether step sizes are adapted.
            metric: the metric.
            reparametrisation: the reparametrisation.

        Returns:
            The next state, and the trace: arrays `(chain, draw, …)` by name, and `seconds`.
        """
        self._compiled.result()
        began = time.perf_counter()
        numbers = map(np.asarray, (begin, number, adapting))
        after, trace = self._sharded((state, self._keys), *numbers, metric, reparametrisation)
        seconds = np.asarray(time.perf_counter() - began)
        # Copies, since a view would keep all rows in memory.
        kept = {name: rows[:, :number].copy() for name, rows in trace.items()}
        return after, kept | {"seconds": seconds}

    def close(self) -> None:
        """Release the background thread, and drop a compilation that has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
