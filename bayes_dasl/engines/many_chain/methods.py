"""MCMC transitions for many chains, with settings that are tuned from all chains together.

Chains are in whitened coordinates, in which the posterior is about a standard normal. All chains
have the same step size and number of steps, so that the loops of a batch end together.
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

chees_adaptation = lazily("blackjax.adaptation.chees_adaptation")
meads_adaptation = lazily("blackjax.adaptation.meads_adaptation")
dual_averaging = lazily("blackjax.adaptation.step_size")
adjusted_mclmc = lazily("blackjax.mcmc.adjusted_mclmc")
mclmc = lazily("blackjax.mcmc.mclmc")
ghmc = lazily("blackjax.mcmc.ghmc")
hmc = lazily("blackjax.mcmc.hmc")
dynamic_hmc = lazily("blackjax.mcmc.dynamic_hmc")
integrators = lazily("blackjax.mcmc.integrators")
util = lazily("blackjax.util")

FIRST_STEP_SIZE = 0.5
# Length of a path whose end does not depend on its start, for a standard normal.
_QUARTER_TURN = math.pi / 2
# Squared energy error per dimension that is assumed for a step with a failed solve.
_FAILED_STEP = 1.0

type Stats = dict[str, Any]


class Chain(NamedTuple):
    """State of one chain.

    Args:
        position: the position in whitened coordinates.
        value: the log density at the position.
        gradient: the gradient of the log density.
        momentum: the momentum, for methods that keep it between transitions.
        slice: the slice variable of generalised HMC.
    """

    position: Any
    value: Any
    gradient: Any
    momentum: Any
    slice: Any

    def at(self, state: Any) -> "Chain":
        """Return the chain moved to the position of a BlackJAX state."""
        return self._replace(
            position=state.position, value=state.logdensity, gradient=state.logdensity_grad
        )


class Setting(NamedTuple):
    """Step size and number of steps of a transition; only MEADS uses `damping`."""

    step_size: Any
    steps: Any
    damping: Any = 0.0


class AbstractMethod(ABC):
    """A kind of transition and the rule that tunes it.

    Subclasses have `gradients`, the number of gradients of one integration step, and `limit`, the
    largest number of steps of a draw. The state of the tuning is a tree of arrays that each
    subclass chooses.
    """

    gradients: ClassVar[int]

    def momentum(self, key: Array, dimension: int) -> Array:
        """Return the first momentum of a chain; zero if each transition draws a new one."""
        return jnp.zeros(dimension)

    @abstractmethod
    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        """Return the first state of the tuning.

        Args:
            dimension: the dimension of the posterior.
            step_size: the first step size.
            iteration: the number of the draw.
        """

    @abstractmethod
    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        """Return the setting of a draw.

        Args:
            tuning: the state of the tuning.
            iteration: the number of the draw.
            adapting: True during warm-up, for the current step size; False for the averaged one.
        """

    @abstractmethod
    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        """Make one draw of a chain.

        Args:
            key: random seed.
            chain: the state of the chain.
            setting: step size and number of steps.
            density: the log density in whitened coordinates.

        Returns:
            The next state of the chain, the statistics of the draw by name, and the statistics that
            `adapt` needs.
        """

    @abstractmethod
    def adapt(self, tuning: Any, seen: Any) -> Any:
        """Return the next state of the tuning.

        Args:
            tuning: the state of the tuning.
            seen: the last element that `transition` returned, for all chains.
        """


def _quasi_random(iteration: Any) -> Any:
    """Return the element of a Halton sequence with this number, between 0 and 1."""
    return dynamic_hmc.halton_sequence(jnp.asarray(iteration), 10)


def _jittered(iteration: Any, longest: Any, limit: int) -> Any:
    """Return a quasi-random number of steps up to `longest`, at least 1 and at most `limit`."""
    return jnp.clip(jnp.ceil(_quasi_random(iteration) * longest), 1, limit).astype(int)


def _now_or_average(tuning: Any, adapting: Any) -> Any:
    """Return the current step size while adapting, else the averaged one."""
    return jnp.exp(jnp.where(adapting, tuning.log_step_size, tuning.log_step_size_avg))


def _hmc_state(chain: Chain) -> Any:
    return hmc.HMCState(chain.position, chain.value, chain.gradient)


def _hmc_stats(info: Any, value: Any) -> Stats:
    """Return the statistics of a draw that all adjusted methods have, by name.

    Args:
        info: the information of BlackJAX on the transition.
        value: the log density after the transition.
    """
    return {
        "lp": value,
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "solver_failure": jnp.isneginf(info.proposal.logdensity),
    }


@dataclasses.dataclass(frozen=True)
class ChEES(AbstractMethod):
    """HMC with jittered trajectory length, tuned to maximise the ChEES criterion.

    The criterion is the mean of the squared change of |x − E x|² over a trajectory, per unit of
    time, where x is the position. The trajectory length T follows its stochastic gradient (Adam
    with learning rate 0.05). With step size ε, all chains take L = ceil(h T / ε) leapfrog steps,
    where h is from a Halton sequence. Dual averaging tunes ε to a harmonic mean acceptance of
    0.651, the optimum of HMC in high dimension.

    Source: Hoffman, Radul & Sountsov (2021).
    """

    limit: int
    gradients: ClassVar[int] = 1

    def _rule(self) -> tuple[Any, Any]:
        """Return BlackJAX's two functions that begin and that update the tuning."""
        return chees_adaptation.base(
            _quasi_random, lambda i: i + 1, optax.adam(0.05), 0.651, 0.5, self.limit
        )

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        # Trajectories have half of the longest length on average. For a normal, a quarter turn is
        # the best mean length.
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
        unit = jnp.ones_like(chain.position)
        state, info = hmc.build_kernel()(
            key, _hmc_state(chain), density, setting.step_size, unit, setting.steps
        )
        seen = (
            info.proposal.position,
            info.proposal.momentum,
            chain.position,
            info.acceptance_rate,
            info.is_divergent,
        )
        # Energy at the start of the trajectory: kinetic energy minus log density. BlackJAX reports
        # the energy of the proposal instead, even if it was rejected.
        energy = jnp.sum(jnp.asarray(info.momentum) ** 2) / 2 - chain.value
        after = chain.at(state)
        return after, _hmc_stats(info, after.value) | {"energy": energy}, seen

    def adapt(self, tuning: Any, seen: Any) -> Any:
        return self._rule()[1](tuning, *seen, jnp.ones(seen[0].shape[1]))


@dataclasses.dataclass(frozen=True)
class MEADS(AbstractMethod):
    """Generalised HMC: one leapfrog step per transition, with a persistent momentum.

    Step size and damping follow from the largest eigenvalues of covariances over the chains. A draw
    is several transitions, about half a period of a standard normal in total.

    Source: Hoffman & Sountsov (2022).
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
        steps = jnp.clip(jnp.ceil(2 * _QUARTER_TURN / step), 1, self.limit).astype(int)
        return Setting(step, steps, tuning.alpha[0])

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        kernel = ghmc.build_kernel()
        unit = jnp.ones_like(chain.position)

        def step(i, carry):
            state, stats = carry
            now = jax.random.fold_in(key, i)
            state, info = kernel(
                now, state, density, setting.step_size, unit, setting.damping, setting.damping / 2
            )
            # A draw diverges if one of its transitions does; the acceptance rate is their mean.
            new = _hmc_stats(info, state.logdensity)
            either = {name: stats[name] | new[name] for name in ("diverging", "solver_failure")}
            rate = stats["acceptance_rate"] + new["acceptance_rate"] / setting.steps
            return state, {"lp": new["lp"], "acceptance_rate": rate, **either}

        state = ghmc.GHMCState(
            chain.position, chain.momentum, chain.value, chain.gradient, chain.slice
        )
        zero = jnp.zeros_like(chain.value)
        no = jnp.zeros_like(chain.value, bool)
        none = {"lp": zero, "acceptance_rate": zero, "diverging": no, "solver_failure": no}
        state, stats = jax.lax.fori_loop(0, setting.steps, step, (state, none))
        after = chain.at(state)._replace(momentum=state.momentum, slice=state.slice)
        return after, stats, (after.position, after.gradient)

    def adapt(self, tuning: Any, seen: Any) -> Any:
        position, gradient = seen
        return meads_adaptation.base(num_folds=1)[1](tuning, position, gradient, 0)


@dataclasses.dataclass(frozen=True)
class MCLMC(AbstractMethod):
    """Metropolis-adjusted microcanonical trajectories, on average a quarter period long.

    `target` is the acceptance rate to which the step size is tuned.

    Source: Robnik, Cohn-Gordon & Seljak (2025).
    """

    limit: int
    gradients: ClassVar[int] = 2
    target: float = 0.9

    def untuned(self, dimension: int, step_size: Any, iteration: Any) -> Any:
        return dual_averaging.dual_averaging_adaptation(self.target)[0](step_size)

    def setting(self, tuning: Any, iteration: Any, adapting: Any) -> Setting:
        step = _now_or_average(tuning, adapting)
        return Setting(step, _jittered(iteration, 2 * _QUARTER_TURN / step, self.limit))

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        # The velocity has unit norm: a step of √d moves each coordinate by about one.
        length = setting.step_size * math.sqrt(chain.position.size)
        state, info = adjusted_mclmc.build_kernel()(
            key, _hmc_state(chain), density, length, (setting.steps,)
        )
        after = chain.at(state)
        return after, _hmc_stats(info, after.value), info.acceptance_rate

    def adapt(self, tuning: Any, seen: Any) -> Any:
        return dual_averaging.dual_averaging_adaptation(self.target)[1](tuning, jnp.mean(seen))


class EnergyTuning(NamedTuple):
    """State of the tuning: the logarithms of the current and of the averaged step size."""

    log_step_size: Any
    log_step_size_avg: Any


@dataclasses.dataclass(frozen=True)
class UnadjustedMCLMC(AbstractMethod):
    """Microcanonical Langevin dynamics without a Metropolis step; its draws are biased.

    The bias falls with the energy error. The step size is tuned so that the mean squared energy
    error of a step, per dimension, is half of `bound`. At a failed solve the chain turns back. No
    Metropolis step corrects this, so the step counts as a squared energy error of one per
    dimension.

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
        step = _now_or_average(tuning, adapting)
        return Setting(step, jnp.clip(jnp.ceil(_QUARTER_TURN / step), 1, self.limit).astype(int))

    def transition(
        self, key: Array, chain: Chain, setting: Setting, density: LogDensity
    ) -> tuple[Chain, Stats, Any]:
        kernel = mclmc.build_kernel()
        dimension = chain.position.size
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
        return chain.at(state)._replace(momentum=state.momentum), stats, error

    def adapt(self, tuning: Any, seen: Any) -> Any:
        # The squared energy error grows as ε⁶: log ε ← log ε + log(bound / 2 / error) / 6.
        wanted = jnp.log(self.bound / 2 / jnp.mean(seen)) / 6
        now = tuning.log_step_size + jnp.clip(jnp.nan_to_num(wanted), -0.3, 0.3)
        return EnergyTuning(now, 0.9 * tuning.log_step_size_avg + 0.1 * now)
