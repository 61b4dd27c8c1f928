"""Hundreds to thousands of short chains, for a GPU or a cheap log density."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ..._findings import Finding, nested_finding
from ..._runs.journal import Arrays, Journal, ProgressBar, concatenated
from ..._statistics.convergence import nested_rhat
from ...errors import ModelError
from ...inference.engine import AbstractEngine, Cost, Modes, Samples
from ...inference.gradient import traced_once
from ...inference.metric import Metric, refine
from ...inference.problem import Problem
from ...inference.starts import (
    MAP_STARTS,
    MAP_STEPS,
    Optimiser,
    fared,
    find_start,
    first_positions,
    laplace_metric,
    nearest_mode,
)
from .batches import CHUNK, BatchedChains, Trace
from .methods import MCLMC, MEADS, ChEES, UnadjustedMCLMC

ENERGY_VARIANCE = 5e-4
"""Largest squared energy error of a step, per dimension, at which unadjusted chains are trusted."""

# Number of chunks of draws after each of which the step size of unadjusted chains may be reduced.
_ENERGY_TRIES = 5
_FEWEST_DRAWS = 4


@dataclasses.dataclass(frozen=True)
class ManyChain(AbstractEngine):
    """Many short chains with one step size and metric, tuned from all chains together.

    The chains form superchains: groups of chains with the same start. The chains are too short for
    R-hat. So convergence is assessed by the nested R-hat, which compares superchains. The fact
    `nested_rhat` covers all parameters except network weights; `diagnose` also covers trajectories
    and vector fields. All draws stay in memory: chains × draws × dimension × 8 bytes.

    Args:
        method: "chees" (HMC), "meads" (generalised HMC), "mclmc" (microcanonical,
            Metropolis-adjusted) or "unadjusted_mclmc". The last is biased: its step size keeps the
            energy error per dimension below `ENERGY_VARIANCE`, and the fact
            `energy_variance_per_dimension` reports the error. Microcanonical methods need at least
            two dimensions.
        chains: the number of chains, a multiple of `superchains`.
        warmup: the number of draws of each chain that are dropped.
        draws: the number of draws of each chain that are kept.
        superchains: the number of superchains. All have the same number of consecutive chains.
        max_steps: the largest number of integration steps of a draw, since a batch is as slow as
            its slowest chain.

    Source: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman (2024) for superchains and
    nested R-hat; kernels from BlackJAX.

    Raises:
        ModelError: for an unknown method or invalid settings.
    """

    method: str = "chees"
    chains: int = 256
    warmup: int = 96
    draws: int = 64
    superchains: int = 16
    max_steps: int = 32

    def __post_init__(self):
        if self.method not in _METHODS:
            raise ModelError(
                f"ManyChain(method={self.method!r}): the methods are {', '.join(_METHODS)}"
            )
        self._check_numbers(
            chains=4, warmup=3 * CHUNK, draws=_FEWEST_DRAWS, superchains=2, max_steps=1
        )
        if self.chains % self.superchains:
            raise ModelError(
                f"{self.chains} chains do not make {self.superchains} superchains of equal size: "
                f"take chains={-(-self.chains // self.superchains) * self.superchains}"
            )

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together: one per chain."""
        return self.chains

    def cost(self, problem: Problem) -> Cost:
        each = (2 if "mclmc" in self.method else 1) * (self.warmup + self.draws)
        search = MAP_STEPS * MAP_STARTS / self.batch
        return Cost(search + each, search + each * self.max_steps)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior. Ctrl-C while sampling ends early and keeps the draws so far.

        Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if no start has a finite log density, or if a microcanonical method runs in
                one dimension.
        """
        if "mclmc" in self.method and problem.dimension < 2:
            raise ModelError(
                f"method '{self.method}' moves at constant speed and needs a posterior of at least "
                f"2 dimensions, not {problem.dimension}: take method='chees'"
            )
        key_start, key_place, key_chains = jax.random.split(key, 3)
        # For a batch, reverse mode is cheaper than forward mode except in very few dimensions.
        value_and_gradient, log_density = traced_once(problem)
        method = _METHODS[self.method](self.max_steps)
        judged = problem.of_groups("science", "latent")
        science = problem.of_groups("science")
        unit = laplace_metric(np.eye(problem.dimension), judged, science)
        # The chains' program compiles while the modes are searched.
        chains = BatchedChains(method, log_density, self.chains, unit, problem.dimension)
        try:
            # 1. Modes by multi-start MAP; each superchain begins near one of them.
            bar.start("finding modes", 1)
            optimiser = Optimiser(value_and_gradient)
            begun = journal.step(
                "starts", lambda: self._begin(problem, optimiser, key_start, key_place)
            )
            chains.begin(
                *(begun[name] for name in ("position", "value", "gradient")), key=key_chains
            )
            # 2. Warm-up from the metric of the best mode, Σ = (−∇² log p)⁻¹.
            laplace = laplace_metric(begun["precisions"][0], judged, science)
            metric, steps = self._warm_up(chains, laplace, journal, bar)
            # 3. Without an acceptance step, the step size must be small enough to limit the bias.
            if isinstance(method, UnadjustedMCLMC):
                steps += _reduce_energy_error(chains, metric, journal, bar)
            # 4. Draws with fixed step size and metric.
            trace, interrupted = self._sample(chains, metric, journal, bar)
        finally:
            chains.close()
        return self._samples(trace, interrupted, begun, chains, method.gradients, steps, judged)

    def _begin(
        self, problem: Problem, optimiser: Optimiser, key: Array, key_place: Array
    ) -> Arrays:
        """Find the modes, and place the chains.

        Args:
            problem: the posterior.
            optimiser: evaluates and optimises positions.
            key: random seed of the search.
            key_place: random seed of the places.

        Returns:
            The arrays of the modes (`Start.arrays`), and `position`, `value` and `gradient` of each
            chain.
        """
        start = find_start(problem, optimiser, key=key)
        places = first_positions(start, optimiser, self.superchains, key=key_place)
        value, gradient = optimiser.evaluate(places)
        each = self.chains // self.superchains
        return start.arrays() | {
            "position": np.repeat(places, each, axis=0),
            "value": np.repeat(value, each),
            "gradient": np.repeat(gradient, each, axis=0),
        }

    def _warm_up(
        self, chains: BatchedChains, metric: Metric, journal: Journal, bar: ProgressBar
    ) -> tuple[Metric, int]:
        """Tune in three parts; the metric is estimated anew after the first and the second part.

        Args:
            chains: the chains, at their first positions.
            metric: the first metric.
            journal: stores each chunk of draws.
            bar: shows the progress.

        Returns:
            The last metric, and the number of integration steps of all chains.
        """
        bar.start("warm-up", self.warmup)
        thirds = np.array_split(np.arange(-(-self.warmup // CHUNK)), 3)
        steps = 0
        for number, third in enumerate(thirds):
            trace: Trace = {}
            for _ in third:
                trace = chains.advance(journal, True, metric)
                steps += int(trace["n_steps"].sum())
                bar.advance(CHUNK)
            if number < 2:
                # Use the covariance within superchains, since distant modes do not increase it.
                grouped = (
                    trace[name].reshape(self.superchains, -1, chains.dimension)
                    for name in ("position", "gradient")
                )
                metric = refine(metric, *grouped)
                chains.tune_anew()
        return metric, steps

    def _sample(
        self, chains: BatchedChains, metric: Metric, journal: Journal, bar: ProgressBar
    ) -> tuple[Trace, bool]:
        """Draw with fixed step size and metric.

        Returns:
            The trace (arrays `(chain, draw, …)` by name), and whether Ctrl-C ended the sampling
            early.
        """
        bar.start("sampling", self.draws)
        traces: list[Trace] = []
        divergences = 0
        interrupted = False
        try:
            for _ in range(0, self.draws, CHUNK):
                traces.append(chains.advance(journal, False, metric))
                divergences += int(traces[-1]["diverging"].sum())
                bar.advance(CHUNK, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        trace = concatenated(traces)
        return {name: values[:, : self.draws] for name, values in trace.items()}, interrupted

    def _samples(
        self,
        trace: Trace,
        interrupted: bool,
        begun: Arrays,
        chains: BatchedChains,
        gradients: int,
        steps: int,
        judged: Sequence[int],
    ) -> Samples:
        """Return the draws, statistics, facts and findings of the run.

        Args:
            trace: the draws and their statistics, `(chain, draw, …)` by name.
            interrupted: whether Ctrl-C ended the sampling.
            begun: the arrays that `_begin` returned.
            chains: the chains, for their devices.
            gradients: the number of gradients of one integration step.
            steps: the number of integration steps of the warm-up.
            judged: indices of the parameters in which superchains are compared.
        """
        position = trace.pop("position")
        error = trace.pop("energy_variance", None)
        compared = np.dstack([position[..., list(judged)], trace["lp"]])
        facts = fared(begun) | {
            "devices": chains.devices,
            "nested_rhat": nested_rhat(compared, self.superchains),
            "gradients": gradients * (steps + int(trace["n_steps"].sum())),
        }
        if error is not None:
            facts |= {
                "energy_variance_per_dimension": float(error.mean()),
                "energy_variance_bound": ENERGY_VARIANCE,
            }
        if len(begun["modes"]) > 1:
            trace["mode"] = nearest_mode(position, begun["modes"], begun["precisions"])
        return Samples(
            position,
            trace,
            facts,
            tuple(findings(facts)),
            Modes(begun["modes"], begun["log_densities"]),
            superchains=self.superchains,
            interrupted=interrupted,
        )


def findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings on the agreement of superchains and on the bias of unadjusted chains.

    `facts` are the facts of the run by name.
    """
    yield nested_finding(float(facts["nested_rhat"]))
    if "energy_variance_per_dimension" in facts:
        value = float(facts["energy_variance_per_dimension"])
        bound = float(facts["energy_variance_bound"])
        message = (
            f"{value:.2g} for each dimension, at most {bound:.2g} for draws without an acceptance "
            "step"
        )
        if value <= bound:
            yield Finding("good", "energy variance", message, "")
        else:
            remedy = "take an adjusted method, such as 'chees': these draws are biased"
            yield Finding("bad", "energy variance", message, remedy)


_METHODS = {
    "chees": ChEES,
    "meads": MEADS,
    "mclmc": MCLMC,
    "unadjusted_mclmc": lambda limit: UnadjustedMCLMC(limit, ENERGY_VARIANCE),
}


def _reduce_energy_error(
    chains: BatchedChains, metric: Metric, journal: Journal, bar: ProgressBar
) -> int:
    """Reduce the step size of unadjusted chains until their energy error is small enough.

    Args:
        chains: the chains, after the warm-up.
        metric: the metric.
        journal: stores each chunk of draws.
        bar: shows the progress.

    Returns:
        The number of integration steps of all chains.
    """
    bar.start("checking the energy", _ENERGY_TRIES * CHUNK)
    steps = 0
    for _ in range(_ENERGY_TRIES):
        trace = chains.advance(journal, False, metric)
        steps += int(trace["n_steps"].sum())
        bar.advance(CHUNK)
        error = float(trace["energy_variance"].mean())
        if error <= ENERGY_VARIANCE:
            break
        # The squared energy error grows as ε⁶, so ε shrinks by (bound / 2 / error)^(1/6).
        chains.shrink_step_size(float(np.clip((ENERGY_VARIANCE / 2 / error) ** (1 / 6), 0.3, 0.9)))
    return steps
