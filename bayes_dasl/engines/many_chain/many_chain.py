"""Hundreds to thousands of short chains, for a GPU or a cheap density."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ..._findings import Finding, nested_finding
from ..._runs.journal import Arrays, Journal, ProgressBar
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

_PLACES = ("position", "gradient")
_TRIES = 5
_FEWEST_DRAWS = 4


@dataclasses.dataclass(frozen=True)
class ManyChain(AbstractEngine):
    """Many short chains that are tuned from one another.

    The fact `nested_rhat` compares the superchains, in all numbers but the weights of networks:
    chains too short for R-hat can be judged by it. `diagnose` does the same for trajectories and
    vector fields. All draws are kept in
    memory: chains × draws × dimension × 8 bytes.

    Args:
        method: "chees" (HMC), "meads" (generalised HMC), "mclmc" (microcanonical,
            Metropolis-adjusted) or "unadjusted_mclmc" (biased: its step size is kept so small that
            the energy error per dimension stays below `ENERGY_VARIANCE`, and the fact
            `energy_variance_per_dimension` says whether it did). The microcanonical ones need at
            least two dimensions.
        chains: how many, a multiple of the superchains.
        warmup: draws of each chain that are not kept.
        draws: draws of each chain that are kept.
        superchains: groups of chains of equal size, one after the other; those of one begin at the
            same point.
        max_steps: the most integration steps of a draw, since a batch is as slow as its slowest
            chain.

    Source: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman (2024) for superchains and
    nested R-hat; kernels from BlackJAX.

    Raises:
        ModelError: for numbers that make no sense.
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
        """Positions that are looked at together: all chains."""
        return self.chains

    def cost(self, problem: Problem) -> Cost:
        each = (2 if "mclmc" in self.method else 1) * (self.warmup + self.draws)
        climbs = MAP_STEPS * MAP_STARTS / self.batch
        return Cost(climbs + each, climbs + each * self.max_steps)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior. Ctrl-C while sampling ends early and keeps the draws so far.

        Raises:
            ModelError: if no start has a finite log density, or for a microcanonical method in one
                dimension.
        """
        if "mclmc" in self.method and problem.dimension < 2:
            raise ModelError(
                f"method '{self.method}' moves at constant speed and needs a posterior of at least "
                "2 dimensions, not "
                f"{problem.dimension}: take method='chees'"
            )
        key_start, key_place, key_chains = jax.random.split(key, 3)
        # Reverse mode: for a batch it is cheaper than forward mode from few dimensions on.
        value_and_gradient, log_density = traced_once(problem)
        method = _METHODS[self.method](self.max_steps)
        judged, science = problem.of_groups("science", "latent"), problem.of_groups("science")
        unit = laplace_metric(np.eye(problem.dimension), judged, science)
        chains = BatchedChains(method, log_density, self.chains, unit, problem.dimension)
        try:
            bar.start("finding modes", 1)
            optimiser = Optimiser(value_and_gradient)
            begun = journal.step(
                "starts", lambda: self._begin(problem, optimiser, key_start, key_place)
            )
            chains.begin(
                *(begun[name] for name in ("position", "value", "gradient")), key=key_chains
            )
            laplace = laplace_metric(begun["precisions"][0], judged, science)
            metric, steps = self._warm_up(chains, laplace, journal, bar)
            if isinstance(method, UnadjustedMCLMC):
                steps += _keep_energy(chains, metric, journal, bar)
            trace, interrupted = self._sample(chains, metric, journal, bar)
        finally:
            chains.close()
        return self._samples(trace, interrupted, begun, chains, method.gradients, steps, judged)

    def _begin(
        self, problem: Problem, optimiser: Optimiser, key: Array, key_place: Array
    ) -> Arrays:
        """The modes, and the first position of every chain with its value and gradient."""
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
        """The metric in the end and the integration steps spent; it is refined after the first two
        thirds.
        """
        bar.start("warm-up", self.warmup)
        thirds, steps = np.array_split(np.arange(-(-self.warmup // CHUNK)), 3), 0
        for number, third in enumerate(thirds):
            trace: Trace = {}
            for _ in third:
                trace = chains.advance(journal, True, metric)
                steps += int(trace["n_steps"].sum())
                bar.advance(CHUNK)
            if number < 2:
                # Within superchains, so that modes far apart do not widen it.
                grouped = (
                    trace[name].reshape(self.superchains, -1, chains.dimension) for name in _PLACES
                )
                metric = refine(metric, *grouped)
                chains.tune_anew()
        return metric, steps

    def _sample(
        self, chains: BatchedChains, metric: Metric, journal: Journal, bar: ProgressBar
    ) -> tuple[Trace, bool]:
        bar.start("sampling", self.draws)
        traces: list[Trace] = []
        divergences, interrupted = 0, False
        try:
            for _ in range(0, self.draws, CHUNK):
                traces.append(chains.advance(journal, False, metric))
                divergences += int(traces[-1]["diverging"].sum())
                bar.advance(CHUNK, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
        return {name: values[:, : self.draws] for name, values in joined.items()}, interrupted

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
        """Draws, statistics and facts; `steps` are those of the warm-up, `judged` the numbers that
        chains agree on.
        """
        position, error = trace.pop("position"), trace.pop("energy_variance", None)
        facts = fared(begun) | {
            "devices": chains.devices,
            "nested_rhat": nested_rhat(
                np.dstack([position[..., list(judged)], trace["lp"]]), self.superchains
            ),
            "gradients": gradients * (steps + int(trace["n_steps"].sum())),
        }
        if error is not None:
            facts |= {
                "energy_variance_per_dimension": float(error.mean()),
                "energy_variance_bound": ENERGY_VARIANCE,
            }
        if len(begun["modes"]) > 1:
            trace["mode"] = nearest_mode(position, begun["modes"], begun["precisions"])
        modes = Modes(begun["modes"], begun["log_densities"])
        said = tuple(findings(facts))
        return Samples(
            position,
            trace,
            facts,
            said,
            modes,
            superchains=self.superchains,
            interrupted=interrupted,
        )


def findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    yield nested_finding(float(facts["nested_rhat"]))
    if "energy_variance_per_dimension" in facts:
        value, bound = (
            float(facts[n]) for n in ("energy_variance_per_dimension", "energy_variance_bound")
        )
        remedy = (
            ""
            if value <= bound
            else "take an adjusted method, such as 'chees': these draws are biased"
        )
        message = (
            f"{value:.2g} for each dimension, at most {bound:.2g} for draws without an acceptance "
            "step"
        )
        yield Finding("good" if value <= bound else "bad", "energy variance", message, remedy)


_METHODS = {
    "chees": ChEES,
    "meads": MEADS,
    "mclmc": MCLMC,
    "unadjusted_mclmc": lambda limit: UnadjustedMCLMC(limit, ENERGY_VARIANCE),
}


def _keep_energy(chains: BatchedChains, metric: Metric, journal: Journal, bar: ProgressBar) -> int:
    """Reduce the step size of unadjusted chains until their energy error is small enough; the steps
    spent on it.
    """
    bar.start("checking the energy", _TRIES * CHUNK)
    steps = 0
    for _ in range(_TRIES):
        trace = chains.advance(journal, False, metric)
        steps += int(trace["n_steps"].sum())
        bar.advance(CHUNK)
        error = float(trace["energy_variance"].mean())
        if error <= ENERGY_VARIANCE:
            break
        # The squared error grows with the sixth power of the step size.
        chains.shrink_step_size(float(np.clip((ENERGY_VARIANCE / 2 / error) ** (1 / 6), 0.3, 0.9)))
    return steps
