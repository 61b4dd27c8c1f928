"""Variational inference: a guide of a simple family is fitted to the posterior, and corrected by
importance weights.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._findings import SAMPLER, Finding, evidence_finding
from ..._runs.journal import Arrays, Journal, ProgressBar
from ..._statistics.importance import largest_pareto_k, weigh
from ...errors import ModelError
from ...inference.engine import AbstractEngine, Cost, Modes, Samples
from ...inference.gradient import traced_once
from ...inference.metric import root_of_inverse
from ...inference.problem import LogDensity, Problem
from ...inference.sharding import Sharded
from ...inference.starts import MAP_STARTS, MAP_STEPS, Optimiser, fared, find_start, nearest_mode
from .guides import GUIDES, Family, Parameters, build_family

WINDOW = 100
"""Steps between two looks at the ELBO."""

_PLATEAUS = 3
_SLOWER = 0.25
# A gain of so few nats moves no mean by more than about a hundredth of a standard deviation.
_WORTH_HAVING = 1e-4
_OVERSAMPLING = 4
_FEWEST_PROPOSALS = 1000
_VALUES = 4  # that cost as much as a gradient
_REACHED = 1e-3  # of the proposals, nearest to a mode that the guide reaches
_BATCH = 32
_RICH = ("full_rank", "flow")


@dataclasses.dataclass(frozen=True)
class SVI(AbstractEngine):
    """A guide fitted around the best mode by gradients of the ELBO, then resampled by importance.

    Whenever the mean ELBO of 100 steps has ceased to rise the learning rate is lowered; at the
    third time the fit has converged.

    Four draws of the guide for each that is asked for get Pareto-smoothed weights. Below a Pareto k
    of 0.7 the draws are resampled by them, so that they agree with the posterior; above it the
    draws are the guide's own. Neither sees a mode that the guide does not reach.

    Args:
        guide: the family in the unconstrained space: a normal with the curvature at the mode
            ("laplace"), a normal fitted with a diagonal ("mean_field"), a diagonal plus low-rank
            ("low_rank") or any ("full_rank") covariance, or an inverse autoregressive "flow".
        steps: the most that are taken, in windows of 100; "laplace" takes none.
        chains: among how many the draws are shared out.
        draws: draws of each chain that are kept.
        particles: gradients of a step, at as many draws of the guide.
        learning_rate: the first one of Adam, in the coordinates in which the normal at the mode is
            about standard.

    Source: Kucukelbir et al. (2017); Roeder et al. (2017); Yao et al. (2018); Dhaka et al. (2020);
    guides from NumPyro.

    Raises:
        ModelError: for an unknown guide or numbers that make no sense.
    """

    guide: str = "full_rank"
    steps: int = 5000
    chains: int = 4
    draws: int = 1000
    particles: int = 32
    learning_rate: float = 0.02

    def __post_init__(self):
        self._check_words(guide=GUIDES)
        self._check_numbers(steps=WINDOW, chains=1, draws=1, particles=2)
        self._check_floats("learning_rate")

    @property
    def batch(self) -> int:
        """Positions that are looked at together: the particles of a step."""
        return self.particles

    def cost(self, problem: Problem) -> Cost:
        steps = 0 if self.guide == "laplace" else self.steps
        proposals = _OVERSAMPLING * self.chains * self.draws / _VALUES
        always = (MAP_STEPS * MAP_STARTS + proposals) / self.batch
        return Cost(always + min(steps, (1 + _PLATEAUS) * WINDOW), always + steps)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Independent draws, shared out among the chains.

        Raises:
            ModelError: if no start has a finite log density, or for a flow of one dimension.
        """
        if self.guide == "flow" and problem.dimension < 2:
            raise ModelError(
                "SVI(guide='flow') needs two dimensions or more: take guide='full_rank'"
            )
        key_start, key_family, key_fit, key_draw, key_choose = jax.random.split(key, 5)
        value_and_gradient, log_density = traced_once(problem)
        bar.start("finding modes", 1)
        optimiser = Optimiser(value_and_gradient)
        found = journal.step(
            "modes", lambda: find_start(problem, optimiser, key=key_start).arrays()
        )
        centre = found["modes"][0]
        family = build_family(self.guide, root_of_inverse(found["precisions"][0]), key=key_family)
        ascent = _Ascent(family, log_density, self.particles, (centre, family.scale))
        parameters, fitted = self._fit(ascent, key_fit, journal, bar)
        number = max(_OVERSAMPLING * self.chains * self.draws, _FEWEST_PROPOSALS)

        def propose() -> Arrays:
            z, log_guide = _draw(family, parameters, number, key_draw)
            position = centre + z @ family.scale.T
            lp, log_volume = _evaluate(log_density, position), np.linalg.slogdet(family.scale)[1]
            ratio = lp - log_guide + log_volume
            return {
                "position": position,
                "lp": lp,
                "log_weight": np.where(np.isnan(ratio), -np.inf, ratio),
            }

        proposals = journal.step("draws", propose)
        chosen, judged = self._choose(proposals, key_choose)
        shape = self.chains, self.draws
        # Draws that are left as they are were resampled by no weight.
        kept = ("lp", "log_weight") if judged["resampled"] else ("lp",)
        facts = judged | fitted | fared(found) | {"modes_missed": _missed(proposals, found)}
        return Samples(
            proposals["position"][chosen].reshape(*shape, -1),
            {name: proposals[name][chosen].reshape(shape) for name in kept},
            facts,
            tuple(findings(facts, self.guide)),
            Modes(found["modes"], found["log_densities"]),
        )

    def _fit(
        self, ascent: "_Ascent", key: Array, journal: Journal, bar: ProgressBar
    ) -> tuple[Parameters, dict[str, int | float | str]]:
        """Climb until the ELBO has ceased to rise; the mean parameters of the last window."""
        windows = -(-self.steps // WINDOW) if self.guide != "laplace" else 0
        bar.start("fitting the guide", windows * WINDOW)
        state, rate, plateaus, before, done = ascent.first, self.learning_rate, 0, None, 0
        average, failed = state[0], 0
        while done < windows and plateaus < _PLATEAUS:
            climb = functools.partial(ascent.climb, state, jax.random.fold_in(key, done), rate)
            state, average, trace = ascent.unpack(journal.step(f"window {done + 1}", climb))
            failed += int(trace["failed"].sum())
            if before is not None and not _rises(before, trace["elbo"]):
                # Noise of the iterates averages out; the next window, with shorter steps, goes on
                # from there.
                plateaus, rate, state = plateaus + 1, _SLOWER * rate, (average, state[1])
            before, done = trace["elbo"], done + 1
            bar.advance(WINDOW, f"ELBO {trace['elbo'].mean():.2f}")
        return average, {
            "svi_steps": done * WINDOW,
            "svi_failures": failed,
            "gradients": done * WINDOW * self.particles,
            "converged": int(windows == 0 or plateaus == _PLATEAUS),
        }

    def _choose(
        self, proposals: Arrays, key: Array
    ) -> tuple[np.ndarray, dict[str, int | float | str]]:
        """Which proposals to keep, and what the weights say of the guide."""
        ratio, wanted = proposals["log_weight"], self.chains * self.draws
        finite = np.isfinite(ratio)
        weights = weigh(ratio, proposals["position"])
        trusted = weights.trusted
        facts: dict[str, int | float | str] = {
            "pareto_k": weights.pareto_k,
            "elbo": float(ratio[finite].mean() + np.log(finite.mean()))
            if finite.any()
            else -np.inf,
            "resampled": int(trusted),
            "proposals": len(ratio),
            "proposals_failed": int((~finite).sum()),
        }
        if trusted:
            relative = np.exp(ratio - ratio.max())
            facts["log_evidence"] = float(ratio.max() + np.log(relative.mean()))
            facts["log_evidence_se"] = float(relative.std() / relative.mean() / np.sqrt(len(ratio)))
            facts["importance_ess"] = weights.effective
            return weights.resample(wanted, key=key), facts
        # Weights that cannot be trusted still tell where the solver fails: that is no draw of the
        # posterior.
        usable = np.flatnonzero(finite) if finite.any() else np.arange(len(ratio))
        return usable[np.arange(wanted) * len(usable) // wanted], facts


def findings(facts: Mapping[str, Any], guide: str) -> Iterator[Finding]:
    """How far the draws of a guide may be trusted (Yao et al. 2018)."""
    richer = [other for other in _RICH if GUIDES.index(other) > GUIDES.index(guide)]
    take = f"take a richer guide ({', '.join(richer)}), or" if richer else "take"
    k, good, bound = (
        facts["pareto_k"],
        bool(facts["resampled"]),
        largest_pareto_k(facts["proposals"]),
    )
    done = "its draws are resampled by their weights" if good else "its draws are left as they are"
    yield Finding(
        "good" if good else "bad", "variational guide", f"PSIS k-hat {k:.2f}, good below "
            f"{bound:.2f}; {done}",
        "" if good else f"{take} {SAMPLER}",
    )  # fmt: skip
    if not facts["converged"]:
        yield Finding(
            "warning",
            "variational guide",
            f"the ELBO still rose after {facts['svi_steps']} steps",
            "allow more steps",
        )
    if facts["modes_missed"]:
        yield Finding(
            "warning", "modes",
            f"{facts['modes_missed']} of {facts['modes']} modes that were found hold no draw of "
            "the guide",
            "weigh the modes with bd.engines.SMC(), or rule out with the prior what is not "
            "believed",
        )  # fmt: skip
    if "log_evidence" in facts:
        yield evidence_finding(
            facts["log_evidence"], facts["log_evidence_se"], f"{take} bd.engines.SMC()"
        )


def _missed(proposals: Arrays, found: Arrays) -> int:
    """How many modes the guide does not reach. One that it does is its own: a climb that ended
    short of the top.
    """
    reached = nearest_mode(proposals["position"][None], found["modes"], found["precisions"])[0]
    held = np.bincount(reached[np.isfinite(proposals["log_weight"])], minlength=len(found["modes"]))
    return int((held < max(1.0, _REACHED * held.sum())).sum())


class _Ascent:
    """Adam on the ELBO; one compiled program climbs a window of steps."""

    def __init__(
        self,
        family: Family,
        log_density: LogDensity,
        particles: int,
        frame: tuple[np.ndarray, np.ndarray],
    ):
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam(b2=0.99))
        # As the journal returns them, or the second window would be another program.
        self.first = jax.tree.map(np.asarray, (family.initial, adam.init(family.initial)))
        self._tree = jax.tree.structure((self.first, family.initial))
        self._frame = frame

        def climb(state, key, rate, frame):
            def step(carry, number):
                (parameters, memory), total = carry
                now = jax.random.fold_in(key, number)
                slope_of = jax.grad(
                    lambda p: elbo(family, p, log_density, frame, particles, key=now), has_aux=True
                )
                slope, seen = slope_of(parameters)
                descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0.0), slope)
                update, memory = adam.update(descent, memory)
                parameters = jax.tree.map(lambda p, u: p - rate * u, parameters, update)
                return ((parameters, memory), jax.tree.map(jnp.add, total, parameters)), seen

            nothing = jax.tree.map(jnp.zeros_like, state[0])
            (state, total), trace = jax.lax.scan(step, (state, nothing), jnp.arange(WINDOW))
            return state, jax.tree.map(lambda s: s / WINDOW, total), trace

        self._climb = jax.jit(climb)

    def climb(self, state: Any, key: Array, rate: float) -> Arrays:
        """State, mean parameters and trace after a window, as arrays by name."""
        state, average, trace = self._climb(state, key, rate, self._frame)
        leaves = {
            f"leaf {i}": np.asarray(leaf)
            for i, leaf in enumerate(jax.tree.leaves((state, average)))
        }
        return leaves | {name: np.asarray(values) for name, values in trace.items()}

    def unpack(self, arrays: Arrays) -> tuple[Any, Parameters, Arrays]:
        """State, mean parameters and trace from what `climb` returned."""
        leaves = [arrays[f"leaf {i}"] for i in range(self._tree.num_leaves)]
        return *jax.tree.unflatten(self._tree, leaves), arrays


def elbo(
    family: Family,
    parameters: Parameters,
    log_density: LogDensity,
    frame: Any,
    particles: int,
    *,
    key: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Estimate of the evidence lower bound of the guide, restricted to where the solver succeeds.

    Where the density of the guide is closed, only the path of the draws carries a gradient: its
    noise vanishes as the guide comes close to the posterior.

    Source: Roeder, Wu & Duvenaud (2017), Sticking the landing.
    """
    centre, scale = frame
    guide = family.posterior(parameters)
    z, between = guide.sample_with_intermediates(key, (particles,))
    still = family.posterior(jax.lax.stop_gradient(parameters)) if family.closed else guide
    log_guide = still.log_prob(z) if family.closed else guide.log_prob(z, between)
    log_posterior = jax.vmap(log_density)(centre + z @ scale.T) + jnp.linalg.slogdet(scale)[1]
    finite = jnp.isfinite(log_posterior) & jnp.isfinite(log_guide)
    count = jnp.maximum(finite.sum(), 1)
    mean = jnp.where(finite, log_posterior - log_guide, 0.0).sum() / count
    value = mean + jnp.log(count / particles)
    return value, {"elbo": value, "failed": particles - finite.sum()}


def _draw(
    family: Family, parameters: Parameters, number: int, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the guide in its own coordinates, and its log density there."""

    def draw(parameters, key):
        guide = family.posterior(parameters)
        z, between = guide.sample_with_intermediates(key, (number,))
        return z, guide.log_prob(z) if family.closed else guide.log_prob(z, between)

    z, log_guide = jax.jit(draw)(parameters, key)
    return np.asarray(z), np.asarray(log_guide)


def _evaluate(
    log_density: LogDensity, x: Float[np.ndarray, "n dimension"]
) -> Float[np.ndarray, " n"]:
    """The log density at many positions, in small batches, since a batch is as slow as its slowest
    solve.
    """
    blocks = -(-len(x) // _BATCH)
    filled = np.minimum(np.arange(blocks * _BATCH), len(x) - 1)
    return Sharded(jax.vmap(log_density), blocks)(x[filled].reshape(blocks, _BATCH, -1)).reshape(
        -1
    )[: len(x)]


def _rises(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the mean ELBO of a window is better than that of the one before by more than chance.

    Steps at which the solver failed for every particle do not count; with nothing to compare, it
    may still rise.
    """
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if not before.size or not after.size:
        return True
    error = np.sqrt(before.var() / before.size + after.var() / after.size)
    return bool(after.mean() - before.mean() > max(error, _WORTH_HAVING))
