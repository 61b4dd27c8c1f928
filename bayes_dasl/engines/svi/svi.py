"""Variational inference: a guide fitted to the posterior, corrected by importance weights."""

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
"""Steps over which the ELBO is averaged."""

# Number of windows without a gain after which the fit has converged, and the factor by which each
# reduces the learning rate.
_PLATEAUS = 3
_SLOWER = 0.25
# Smallest gain of the ELBO that counts, in nats. A smaller gain changes no mean by more than about
# a hundredth of a standard deviation.
_WORTH_HAVING = 1e-4
# Proposals for each draw that is kept.
_OVERSAMPLING = 4
_FEWEST_PROPOSALS = 1000
# Number of evaluations that cost as much as a gradient.
_VALUES = 4
# The guide covers a mode if at least this share of its draws lie nearest to the mode.
_REACHED = 1e-3
_BATCH = 32
_RICH = ("full_rank", "flow")


@dataclasses.dataclass(frozen=True)
class SVI(AbstractEngine):
    """Variational inference: a guide fitted by maximising the ELBO, then importance resampling.

    A guide is a family of distributions that approximates the posterior. It is fitted around the
    best mode by stochastic gradients of the evidence lower bound (ELBO). Each time the mean ELBO
    over 100 steps stops rising, the learning rate is lowered. The third time, the fit has
    converged.

    Then the guide proposes four times as many draws as are wanted (at least 1000), with
    Pareto-smoothed importance weights. If the Pareto k is below 0.7 (less for fewer than 2200
    proposals), the proposals are resampled by their weights, and represent the posterior. Otherwise
    the draws are those of the guide itself. In either case, modes that the guide does not cover
    have no draws.

    Args:
        guide: the family of the guide: a normal with the curvature at the mode ("laplace"), a
            fitted normal with diagonal ("mean_field"), low-rank ("low_rank") or full ("full_rank")
            covariance, or an inverse autoregressive "flow".
        steps: the largest number of steps, in windows of 100; "laplace" takes none.
        chains: the number of chains into which the draws are divided.
        draws: the number of draws of each chain.
        particles: the number of draws of the guide, and of gradients, in each step.
        learning_rate: the first learning rate of Adam. It is relative to the Laplace approximation,
            which is about standard normal in the coordinates of the guide.

    Source: Kucukelbir et al. (2017); Roeder et al. (2017); Yao et al. (2018); Dhaka et al. (2020);
    guides from NumPyro.

    Raises:
        ModelError: for an unknown guide or invalid settings.
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
        """Number of positions that are evaluated together: the particles of a step."""
        return self.particles

    def cost(self, problem: Problem) -> Cost:
        steps = 0 if self.guide == "laplace" else self.steps
        proposals = _OVERSAMPLING * self.chains * self.draws / _VALUES
        always = (MAP_STEPS * MAP_STARTS + proposals) / self.batch
        return Cost(always + min(steps, (1 + _PLATEAUS) * WINDOW), always + steps)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw independently, and divide the draws into chains.

        Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if no start has a finite log density, or if a flow has one dimension.
        """
        if self.guide == "flow" and problem.dimension < 2:
            raise ModelError(
                "SVI(guide='flow') needs two dimensions or more: take guide='full_rank'"
            )
        key_start, key_family, key_fit, key_draw, key_choose = jax.random.split(key, 5)
        value_and_gradient, log_density = traced_once(problem)
        # 1. Modes, and coordinates z with x = mode + S z around the best one.
        bar.start("finding modes", 1)
        optimiser = Optimiser(value_and_gradient)
        found = journal.step(
            "modes", lambda: find_start(problem, optimiser, key=key_start).arrays()
        )
        centre = found["modes"][0]
        family = build_family(self.guide, root_of_inverse(found["precisions"][0]), key=key_family)
        # 2. Maximise the ELBO.
        ascent = _Ascent(family, log_density, self.particles, centre)
        parameters, fitted = self._fit(ascent, key_fit, journal, bar)
        number = max(_OVERSAMPLING * self.chains * self.draws, _FEWEST_PROPOSALS)

        # 3. Proposals with log weights log p(x, y) − log q(z) + log |det S|.
        def propose() -> Arrays:
            z, log_guide = _guide_draws(family, parameters, number, key_draw)
            position = centre + z @ family.scale.T
            lp = _evaluate(log_density, position)
            log_det = np.linalg.slogdet(family.scale)[1]
            ratio = lp - log_guide + log_det
            return {
                "position": position,
                "lp": lp,
                "log_weight": np.where(np.isnan(ratio), -np.inf, ratio),
            }

        # 4. Resample by the smoothed weights, if these can be trusted.
        proposals = journal.step("draws", propose)
        chosen, judged = self._choose(proposals, key_choose)
        shape = self.chains, self.draws
        # Weights are reported only for draws that were resampled by them.
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
        """Maximise the ELBO until it stops rising.

        Args:
            ascent: takes the steps.
            key: random seed.
            journal: stores each window of steps.
            bar: shows the progress.

        Returns:
            The mean of the guide's parameters over the last window, and a dict of facts of the fit.
        """
        windows = -(-self.steps // WINDOW) if self.guide != "laplace" else 0
        bar.start("fitting the guide", windows * WINDOW)
        state = ascent.first
        rate = self.learning_rate
        average, before = state[0], None
        done = failed = plateaus = 0
        while done < windows and plateaus < _PLATEAUS:
            # 1. A window of steps of Adam.
            work = functools.partial(ascent.window, state, jax.random.fold_in(key, done), rate)
            state, average, trace = ascent.unpack(journal.step(f"window {done + 1}", work))
            failed += int(trace["failed"].sum())
            # 2. At a plateau, continue from the mean of the iterates, in which their noise averages
            #    out, with shorter steps.
            if before is not None and not _rises(before, trace["elbo"]):
                plateaus += 1
                rate *= _SLOWER
                state = average, state[1]
            before = trace["elbo"]
            done += 1
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
        """Select the proposals that become draws.

        Args:
            proposals: arrays `position` and `log_weight` of all proposals.
            key: random seed.

        Returns:
            The indices of the selected proposals, and a dict of facts on the weights.
        """
        ratio = proposals["log_weight"]
        wanted = self.chains * self.draws
        finite = np.isfinite(ratio)
        weights = weigh(ratio, proposals["position"])
        # ELBO = E_q log w + log P_q(solver succeeds), since q is restricted to successes.
        elbo = float(ratio[finite].mean() + np.log(finite.mean())) if finite.any() else -np.inf
        facts: dict[str, int | float | str] = {
            "pareto_k": weights.pareto_k,
            "elbo": elbo,
            "resampled": int(weights.trusted),
            "proposals": len(ratio),
            "proposals_failed": int((~finite).sum()),
        }
        if weights.trusted:
            # The evidence is the mean weight; relative to the largest, so that nothing overflows.
            relative = np.exp(ratio - ratio.max())
            facts["log_evidence"] = float(ratio.max() + np.log(relative.mean()))
            facts["log_evidence_se"] = float(relative.std() / relative.mean() / np.sqrt(len(ratio)))
            facts["importance_ess"] = weights.effective
            return weights.resample(wanted, key=key), facts
        # Even without trusted weights, a position where the solver fails is no posterior draw.
        usable = np.flatnonzero(finite) if finite.any() else np.arange(len(ratio))
        return usable[np.arange(wanted) * len(usable) // wanted], facts


def findings(facts: Mapping[str, Any], guide: str) -> Iterator[Finding]:
    """Yield findings on how far the draws of a guide can be trusted (Yao et al. 2018).

    Args:
        facts: the facts of the run by name, such as `pareto_k` and `modes_missed`.
        guide: the family of the guide, one of `GUIDES`.
    """
    richer = [other for other in _RICH if GUIDES.index(other) > GUIDES.index(guide)]
    take = f"take a richer guide ({', '.join(richer)}), or" if richer else "take"
    good = bool(facts["resampled"])
    bound = largest_pareto_k(facts["proposals"])
    done = "its draws are resampled by their weights" if good else "its draws are left as they are"
    yield Finding(
        "good" if good else "bad",
        "variational guide",
        f"PSIS k-hat {facts['pareto_k']:.2f}, good below {bound:.2f}; {done}",
        "" if good else f"{take} {SAMPLER}",
    )
    if not facts["converged"]:
        yield Finding(
            "warning",
            "variational guide",
            f"the ELBO still rose after {facts['svi_steps']} steps",
            "allow more steps",
        )
    if facts["modes_missed"]:
        yield Finding(
            "warning",
            "modes",
            f"{facts['modes_missed']} of {facts['modes']} modes that were found hold no draw of "
            "the guide",
            "weigh the modes with bd.engines.SMC(), or rule out with the prior what is not "
            "believed",
        )
    if "log_evidence" in facts:
        yield evidence_finding(
            facts["log_evidence"], facts["log_evidence_se"], f"{take} bd.engines.SMC()"
        )


def _missed(proposals: Arrays, found: Arrays) -> int:
    """Return the number of modes that the guide does not cover.

    Args:
        proposals: arrays `position` and `log_weight` of the draws of the guide.
        found: arrays `modes` and `precisions` of the modes.
    """
    reached = nearest_mode(proposals["position"][None], found["modes"], found["precisions"])[0]
    held = np.bincount(reached[np.isfinite(proposals["log_weight"])], minlength=len(found["modes"]))
    return int((held < max(1.0, _REACHED * held.sum())).sum())


class _Ascent:
    """Maximises the ELBO by Adam; one compiled program takes a window of steps.

    Args:
        family: the guide.
        log_density: log density of the posterior.
        particles: the number of draws of the guide in each step.
        centre: the mode around which the guide is fitted.
    """

    def __init__(self, family: Family, log_density: LogDensity, particles: int, centre: np.ndarray):
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam(b2=0.99))
        # NumPy arrays, as the journal returns them: otherwise the second window would be compiled
        # anew.
        self.first = jax.tree.map(np.asarray, (family.initial, adam.init(family.initial)))
        self._tree = jax.tree.structure((self.first, family.initial))
        self._transform = centre, family.scale

        def window(state, key, rate, transform):
            def step(carry, number):
                (parameters, memory), total = carry
                now = jax.random.fold_in(key, number)
                slope_of = jax.grad(
                    lambda p: elbo(family, p, log_density, transform, particles, key=now),
                    has_aux=True,
                )
                slope, seen = slope_of(parameters)
                # Adam minimises, so it gets −∇ ELBO; a gradient without a value moves nothing.
                descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0.0), slope)
                update, memory = adam.update(descent, memory)
                parameters = jax.tree.map(lambda p, u: p - rate * u, parameters, update)
                return ((parameters, memory), jax.tree.map(jnp.add, total, parameters)), seen

            nothing = jax.tree.map(jnp.zeros_like, state[0])
            (state, total), trace = jax.lax.scan(step, (state, nothing), jnp.arange(WINDOW))
            return state, jax.tree.map(lambda s: s / WINDOW, total), trace

        self._window = jax.jit(window)

    def window(self, state: Any, key: Array, rate: float) -> Arrays:
        """Take a window of steps.

        Args:
            state: the guide's parameters and the memory of Adam.
            key: random seed.
            rate: the learning rate.

        Returns:
            Arrays by name, from which `unpack` gets the state, the mean parameters and the trace.
        """
        state, average, trace = self._window(state, key, rate, self._transform)
        leaves = enumerate(jax.tree.leaves((state, average)))
        return {f"leaf {i}": np.asarray(leaf) for i, leaf in leaves} | {
            name: np.asarray(values) for name, values in trace.items()
        }

    def unpack(self, arrays: Arrays) -> tuple[Any, Parameters, Arrays]:
        """Return the state, the mean parameters and the trace from the arrays of a window.

        The trace is the same dict of arrays; it has `elbo` and `failed` for each step.
        """
        leaves = [arrays[f"leaf {i}"] for i in range(self._tree.num_leaves)]
        return *jax.tree.unflatten(self._tree, leaves), arrays


def elbo(
    family: Family,
    parameters: Parameters,
    log_density: LogDensity,
    transform: Any,
    particles: int,
    *,
    key: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    r"""Estimate the evidence lower bound, with the guide restricted to successful solves.

    $\text{ELBO} = E_q[\log p(x, y) + \log|\det S| - \log q(z)] + \log P_q(\text{success})$

    Here q is the guide, y the data, and x = mode + S z the parameters of the model.

    For a guide with `closed` density, the gradient omits the score term, whose mean is zero. So the
    noise of the gradient vanishes as the guide approaches the posterior.

    Args:
        family: the guide.
        parameters: the parameters of the guide.
        log_density: log density of the posterior.
        transform: the mode and the matrix S.
        particles: the number of draws of the guide.
        key: random seed.

    Returns:
        The estimate, and a dict of `elbo`, the estimate again, and `failed`, the number of draws
        with a failed solve.

    Source: Roeder, Wu & Duvenaud (2017), Sticking the landing.
    """
    centre, scale = transform
    # 1. Draws z(φ) of the guide by reparametrisation.
    guide = family.posterior(parameters)
    z, between = guide.sample_with_intermediates(key, (particles,))
    # 2. log q(z) with φ fixed, if the density is closed.
    if family.closed:
        log_guide = family.posterior(jax.lax.stop_gradient(parameters)).log_prob(z)
    else:
        log_guide = guide.log_prob(z, between)
    # 3. log p(x(z), y) + log |det S|.
    log_posterior = jax.vmap(log_density)(centre + z @ scale.T) + jnp.linalg.slogdet(scale)[1]
    # 4. Mean over the draws with a successful solve, plus the log of their share.
    finite = jnp.isfinite(log_posterior) & jnp.isfinite(log_guide)
    count = jnp.maximum(finite.sum(), 1)
    mean = jnp.where(finite, log_posterior - log_guide, 0.0).sum() / count
    value = mean + jnp.log(count / particles)
    return value, {"elbo": value, "failed": particles - finite.sum()}


def _guide_draws(
    family: Family, parameters: Parameters, number: int, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws z of the guide, `(number, dimension)`, and the log density of each."""

    def draw(parameters, key):
        guide = family.posterior(parameters)
        z, between = guide.sample_with_intermediates(key, (number,))
        return z, guide.log_prob(z) if family.closed else guide.log_prob(z, between)

    z, log_guide = jax.jit(draw)(parameters, key)
    return np.asarray(z), np.asarray(log_guide)


def _evaluate(
    log_density: LogDensity, x: Float[np.ndarray, "n dimension"]
) -> Float[np.ndarray, " n"]:
    """Return the log density at many positions, in small batches.

    Small batches are used because a batch takes as long as its slowest solve.
    """
    blocks = -(-len(x) // _BATCH)
    # The last batch is filled up with copies of the last position.
    filled = x[np.minimum(np.arange(blocks * _BATCH), len(x) - 1)]
    values = Sharded(jax.vmap(log_density), blocks)(filled.reshape(blocks, _BATCH, -1))
    return values.reshape(-1)[: len(x)]


def _rises(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the mean ELBO rose from one window to the next, by more than chance.

    Steps in which every solve failed do not count. If one of the windows has no other steps, the
    answer is yes.

    Args:
        before: the ELBO of each step of the earlier window.
        after: the ELBO of each step of the later window.
    """
    before = before[np.isfinite(before)]
    after = after[np.isfinite(after)]
    if not before.size or not after.size:
        return True
    # Standard error of the difference of two means: sqrt(s₁²/n₁ + s₂²/n₂).
    error = np.sqrt(before.var() / before.size + after.var() / after.size)
    return bool(after.mean() - before.mean() > max(error, _WORTH_HAVING))
