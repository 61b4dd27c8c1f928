"""Transitions of many chains, with settings that are tuned from all of them together.

Chains live in whitened coordinates, where the posterior looks like a standard normal. A setting is
shared by all chains, so that the loops of a batch end together.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..._jax.lazily import lazily
from ...inference.problem import LogDensity

chees_adaptation, meads_adaptation = (
    lazily("blackjax.adaptation.chees_adaptation"),
    lazily("blackjax.adaptation.meads_adaptation"),
)
adjusted_mclmc, mclmc = lazily("blackjax.mcmc.adjusted_mclmc"), lazily("blackjax.mcmc.mclmc")
ghmc, hmc, dynamic_hmc = (
    lazily("blackjax.mcmc.ghmc"),
    lazily("blackjax.mcmc.hmc"),
    lazily("blackjax.mcmc.dynamic_hmc"),
)
dual_averaging, integrators = (
    lazily("blackjax.adaptation.step_size"),
    lazily("blackjax.mcmc.integrators"),
)
util = lazily("blackjax.util")

FIRST_STEP_SIZE = 0.5
_QUARTER_TURN = math.pi / 2
_FAILED_STEP = 1.0

type Stats = dict[str, Any]


class Chain(NamedTuple):
    """One chain; only some methods keep the momentum and the slice from one transition to the
    next.
    """

    position: Any
    value: Any
    gradient: Any
    momentum: Any
    slice: Any


class Setting(NamedTuple):
    """What a transition needs to know; `damping` is that of MEADS, 0 elsewhere."""

    step_size: Any
    steps: Any
    damping: Any = 0.0


class AbstractMethod(ABC):
    """A kind of chain and the rule that tunes it. `gradients` are those of one integration step."""

    gradients: ClassVar[int]

    @abstractmethod
    def momentum(self, key: Array, dimension: int) -> Array:
        """The momentum that a chain begins with."""

    @abstractmethod
    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        """The state of the tuning at its start."""

    @abstractmethod
    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        """The setting of this iteration: of the moment while adapting, else the average so far."""

    @abstractmethod
    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        """One draw of one chain, its statistics, and what the tuning wants to know of it."""

    @abstractmethod
    def adapt(self, tuning: Any, seen: Any) -> Any:
        """The tuning after what was seen of all chains."""


def _jittered(iteration: Any, longest: Any, limit: int) -> Any:
    """A quasi-random number of steps between 1 and `longest`, the same for all chains."""
    fraction = dynamic_hmc.halton_sequence(jnp.asarray(iteration), 10)
    return jnp.clip(jnp.ceil(fraction * longest), 1, limit).astype(int)


def _hmc_stats(info: Any, value: Any) -> Stats:
    return {
        "lp": value,
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "solver_failure": jnp.isneginf(info.proposal.logdensity),
    }


@dataclasses.dataclass(frozen=True)
class ChEES(AbstractMethod):
    """HMC whose jittered trajectory maximises the change in the estimator of the expected square.

    Source: Hoffman, Radul & Sountsov (2021).
    """

    limit: int
    gradients: ClassVar[int] = 1

    def _rule(self) -> tuple[Any, Any]:
        jitter = lambda i: dynamic_hmc.halton_sequence(jnp.asarray(i), 10)  # noqa: E731
        return chees_adaptation.base(
            jitter, lambda i: i + 1, optax.adam(0.05), 0.651, 0.5, self.limit
        )

    def momentum(self, key: Array, dimension: int) -> Array:
        return jnp.zeros(dimension)

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        # Half of the longest trajectory is a quarter turn: the best for a standard normal.
        return self._rule()[0](iteration, step_size)._replace(trajectory_length=2 * _QUARTER_TURN)

    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        step = jnp.where(adapting, tuning.step_size, jnp.exp(tuning.log_step_size_moving_average))
        length = jnp.where(
            adapting, tuning.trajectory_length, jnp.exp(tuning.log_trajectory_length_moving_average)
        )
        return Setting(step, _jittered(iteration, length / step, self.limit))

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        state = hmc.HMCState(chain.position, chain.value, chain.gradient)
        unit = jnp.ones_like(chain.position)
        state, info = hmc.build_kernel()(
            key, state, density, setting.step_size, unit, setting.steps
        )
        seen = (
            info.proposal.position,
            info.proposal.momentum,
            chain.position,
            info.acceptance_rate,
            info.is_divergent,
        )
        # Of the trajectory at its start: BlackJAX's is that of the proposal, even if it was
        # rejected.
        energy = jnp.sum(jnp.asarray(info.momentum) ** 2) / 2 - chain.value
        after = Chain(
            state.position, state.logdensity, state.logdensity_grad, chain.momentum, chain.slice
        )
        return after, _hmc_stats(info, after.value) | {"energy": energy}, seen

    def adapt(self, tuning: Any, seen: Any) -> Any:
        return self._rule()[1](tuning, *seen, jnp.ones(seen[0].shape[1]))


@dataclasses.dataclass(frozen=True)
class MEADS(AbstractMethod):
    """Generalised HMC (one leapfrog, persistent momentum), tuned by largest eigenvalues over the
    chains.

    A draw is several transitions: about a quarter turn. Source: Hoffman & Sountsov (2022).
    """

    limit: int
    gradients: ClassVar[int] = 1

    def momentum(self, key: Array, dimension: int) -> Array:
        return jax.random.normal(key, (dimension,))

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        one = jnp.ones(1)
        return meads_adaptation.MEADSAdaptationState(
            iteration, step_size * one, jnp.ones((1, dimension)), one, one / 2
        )

    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        step = tuning.step_size[0]
        return Setting(
            step,
            jnp.clip(jnp.ceil(2 * _QUARTER_TURN / step), 1, self.limit).astype(int),
            tuning.alpha[0],
        )

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        kernel, unit = ghmc.build_kernel(), jnp.ones_like(chain.position)

        def step(i, carry):
            state, stats = carry
            now = jax.random.fold_in(key, i)
            state, info = kernel(
                now, state, density, setting.step_size, unit, setting.damping, setting.damping / 2
            )
            new = _hmc_stats(info, state.logdensity)
            either = {name: stats[name] | new[name] for name in ("diverging", "solver_failure")}
            rate = stats["acceptance_rate"] + new["acceptance_rate"] / setting.steps
            return state, {"lp": new["lp"], "acceptance_rate": rate, **either}

        state = ghmc.GHMCState(
            chain.position, chain.momentum, chain.value, chain.gradient, chain.slice
        )
        zero, no = jnp.zeros_like(chain.value), jnp.zeros_like(chain.value, bool)
        none = {"lp": zero, "acceptance_rate": zero, "diverging": no, "solver_failure": no}
        state, stats = jax.lax.fori_loop(0, setting.steps, step, (state, none))
        after = Chain(
            state.position, state.logdensity, state.logdensity_grad, state.momentum, state.slice
        )
        return after, stats, (after.position, after.gradient)

    def adapt(self, tuning: Any, seen: Any) -> Any:
        position, gradient = seen
        return meads_adaptation.base(num_folds=1)[1](tuning, position, gradient, 0)


@dataclasses.dataclass(frozen=True)
class MCLMC(AbstractMethod):
    """Metropolis-adjusted microcanonical trajectories, about a quarter turn long.

    Source: Robnik, Cohn-Gordon & Seljak (2025).
    """

    limit: int
    gradients: ClassVar[int] = 2
    target: float = 0.9

    def momentum(self, key: Array, dimension: int) -> Array:
        return jnp.zeros(dimension)

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        return dual_averaging.dual_averaging_adaptation(self.target)[0](step_size)

    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        step = jnp.exp(jnp.where(adapting, tuning.log_step_size, tuning.log_step_size_avg))
        return Setting(step, _jittered(iteration, 2 * _QUARTER_TURN / step, self.limit))

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        state = hmc.HMCState(chain.position, chain.value, chain.gradient)
        length = setting.step_size * math.sqrt(chain.position.size)
        state, info = adjusted_mclmc.build_kernel()(key, state, density, length, (setting.steps,))
        after = Chain(
            state.position, state.logdensity, state.logdensity_grad, chain.momentum, chain.slice
        )
        return after, _hmc_stats(info, after.value), info.acceptance_rate

    def adapt(self, tuning: Any, seen: Any) -> Any:
        return dual_averaging.dual_averaging_adaptation(self.target)[1](tuning, jnp.mean(seen))


class EnergyTuning(NamedTuple):
    """Step sizes by their logarithm: of the moment and averaged."""

    log_step_size: Any
    log_step_size_avg: Any


@dataclasses.dataclass(frozen=True)
class UnadjustedMCLMC(AbstractMethod):
    """Microcanonical Langevin dynamics without a Metropolis step: biased, the less the smaller the
    energy error.

    The step size is such that the squared energy error of a step, per dimension, is half of
    `bound`. A step that meets a failing solve turns the chain back, which no Metropolis step sets
    right: it counts as an error of one.

    Source: Robnik, De Luca, Silverstein & Seljak (2023); Robnik & Seljak (2024).
    """

    limit: int
    bound: float
    gradients: ClassVar[int] = 2

    def momentum(self, key: Array, dimension: int) -> Array:
        return util.generate_unit_vector(key, jnp.zeros(dimension))

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        return EnergyTuning(jnp.log(step_size), jnp.log(step_size))

    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        step = jnp.exp(jnp.where(adapting, tuning.log_step_size, tuning.log_step_size_avg))
        return Setting(step, jnp.clip(jnp.ceil(_QUARTER_TURN / step), 1, self.limit).astype(int))

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        kernel, dimension = mclmc.build_kernel(), chain.position.size
        unit = math.sqrt(dimension)

        def step(i, carry):
            state, squares, failed = carry
            now = jax.random.fold_in(key, i)
            state, info = kernel(
                now, state, density, 1.0, _QUARTER_TURN * unit, setting.step_size * unit
            )
            square = jnp.where(info.nonans, info.energy_change**2, _FAILED_STEP * dimension)
            return state, squares + square, failed | ~info.nonans

        state = integrators.IntegratorState(
            chain.position, chain.momentum, chain.value, chain.gradient
        )
        first = state, jnp.zeros_like(chain.value), jnp.zeros_like(chain.value, bool)
        state, squares, failed = jax.lax.fori_loop(0, setting.steps, step, first)
        error = squares / setting.steps / dimension
        stats = {
            "lp": state.logdensity,
            "diverging": failed,
            "solver_failure": failed,
            "energy_variance": error,
        }
        return (
            Chain(
                state.position, state.logdensity, state.logdensity_grad, state.momentum, chain.slice
            ),
            stats,
            error,
        )

    def adapt(self, tuning: Any, seen: Any) -> Any:
        # The squared error grows with the sixth power of the step size.
        wanted = jnp.log(self.bound / 2 / jnp.mean(seen)) / 6
        now = tuning.log_step_size + jnp.clip(jnp.nan_to_num(wanted), -0.3, 0.3)
        return EnergyTuning(now, 0.9 * tuning.log_step_size_avg + 0.1 * now)
