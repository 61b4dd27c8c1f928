"""The No-U-Turn sampler, with robust starts and a warm-up that ends by itself."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._findings import Finding
from ..._runs.journal import Arrays, Journal, ProgressBar, concatenated
from ...errors import ModelError, ReadError
from ..engine import AbstractEngine, Cost, Facts, Modes, Samples
from ..gradient import STRATEGIES, choose, differentiated, many_gradients
from ..problem import Problem
from ..reparametrisations.centring import centring_of, has_dependent
from ..reparametrisations.linearised import has_linear, linearisation_of
from ..reparametrisations.local_start import LocalReparametriser, local_start
from ..reparametrisations.reference import (
    REPARAMETRISATIONS,
    References,
    matched_start,
    networks_inside,
    programs,
    references_of,
)
from ..reparametrisations.reparametrisation import Identity, Reparametrisation
from ..starts import (
    MAP_STARTS,
    MAP_STEPS,
    Optimiser,
    best_first,
    evenly,
    fared,
    first_positions,
    laplace_metric,
    modes_among,
    multi_start,
    nearest_mode,
    refined_starts,
)
from .chains import CHUNK, Chains, Kernel, first_state
from .pathfinder import Pathfinder
from .warmup import Warm, WarmUp, chunk, transformed

_STARTS = ("modes", "pathfinder")
# The largest tree depth with networks. Hidden weights have high curvature, so that steps are short,
# and longer trajectories only turn back.
DEEPEST = 7
# Probability of a cautious draw with networks whose random weights are all in last layers, and with
# other networks.
_CAUTIOUS = 0.1, 0.2
# Typical draws of a warm-up that ends by itself, and least and most leapfrog steps of a draw. They
# serve to estimate the cost.
_WARMUP = 300
_LEAPFROGS = (7, 31)
# The longest time of one program call, in seconds.
_LONGEST_PAUSE = 1.0


@dataclasses.dataclass(frozen=True)
class NUTS(AbstractEngine):
    """NUTS with starts at the best modes of a multi-start MAP search.

    Chains begin at draws of the normal approximation around modes, or at draws of another engine.
    The first metric is the covariance of the normal approximation. It is dense for up to 64
    parameters. Above that it is dense for up to 128 scientific parameters and latent states, and
    low-rank for the rest. During the warm-up it is fitted to the draws of all chains.

    A draw takes at most 127 steps if weights of networks are unknown.

    The sampler chooses a reparametrisation for the model, and names it in the attribute
    `sampled_in`:

    - *Networks* in a model that solves only ODEs: given all other parameters, the last layers'
      weights are nearly normal. Starts match vector fields to the data without a solve, and last
      layers are then drawn from that normal.
    - *Unknown functions* linear in their weights, such as a `Basis`, in any layer: given
      hyperparameters, scientific parameters and weights are nearly normal.
    - *Hierarchical parameters*, such as those of a population, are centred as far as the data
      inform them. The curvature at the start determines this first, and draws of the warm-up later.
      Chains begin where the log density, averaged over jittered random effects, is high.

    Args:
        chains: number of chains; they share the metric and the step size.
        warmup: number of dropped draws of each chain, in chunks of 25. By default the warm-up lasts
            until the chains agree and the metric has settled, at most 2000 draws.
        draws: number of draws of each chain that are kept.
        target_acceptance: the acceptance rate to which the step size is tuned.
        max_tree_depth: a draw takes at most 2 to this power gradients, less one.
        gradient: "forward" or "reverse" mode of differentiation of the solver. "auto" takes forward
            mode for up to 8 parameters (and fewer than 30 states), and reverse mode from 65.
            Otherwise a short measurement decides: forward mode must be faster by a fifth. If an
            equation forbids one mode, "auto" takes the other.
        start: "modes" optimises by Adam. "pathfinder" follows L-BFGS paths, and takes the point
            with the highest ELBO on each. An engine, such as `bd.DeepEnsemble(members=4)`, is run
            first, and each chain begins at one of its draws. With fewer draws than chains, chains
            share them.
        map_starts: number of starts of the multi-start MAP search, with 400 gradients each. They
            are the best of four times as many prior draws. A few suffice if a solve is expensive
            and the posterior has one mode. With a reparametrisation, a quarter of the starts (at
            least one) is optimised for another 400 gradients.
        reparametrisation: "auto" as above. With "none", network weights are sampled directly, and
            hierarchical parameters are non-centred. With another start than "modes", network
            weights are sampled directly, too.

    Source: Hoffman & Gelman (2014); Betancourt (2017); Seyboldt, Carlson & Carpenter (2026); kernel
    from BlackJAX; Sommer et al. (2024) for chains from an ensemble.

    Raises:
        ModelError: for settings that are not possible.

    Example:
        ```python
        engine = bd.NUTS(chains=2, draws=200, target_acceptance=0.95)
        post = bd.fit(model, train, engine)
        ```
    """

    chains: int = 4
    warmup: int | None = None
    draws: int = 1000
    target_acceptance: float = 0.9
    max_tree_depth: int = 10
    gradient: str = "auto"
    start: str | AbstractEngine = "modes"
    map_starts: int = MAP_STARTS
    reparametrisation: str = "auto"

    def __post_init__(self):
        self._check_numbers(chains=1, draws=1, max_tree_depth=1, map_starts=2)
        if self.warmup is not None:
            self._check_numbers(warmup=CHUNK)
        self._check_floats("target_acceptance")
        self._check_words(gradient=STRATEGIES, reparametrisation=REPARAMETRISATIONS)
        if not isinstance(self.start, AbstractEngine) and self.start not in _STARTS:
            raise ModelError(
                f"NUTS(start={self.start!r}): start must be one of {', '.join(_STARTS)}, or an "
                "engine such as bd.DeepEnsemble(members=4)"
            )

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together: one for each chain."""
        return self.chains

    def gradient_mode(self, problem: Problem) -> str:
        return choose(problem, self.gradient)

    def cost(self, problem: Problem) -> Cost:
        inside = networks_inside(problem)
        linear = has_linear(problem)
        # With networks, trajectories reach the largest depth.
        deep = problem.of_groups("network") and not linear
        least, most = (2**DEEPEST - 1,) * 2 if deep else _LEAPFROGS
        draws = (self.warmup or _WARMUP) + self.draws
        deepest = 2**self.max_tree_depth - 1
        reparametrised = inside or has_dependent(problem) or linear
        again = (
            refined_starts(self.map_starts)
            if reparametrised and self.reparametrisation != "none"
            else 0
        )
        before = MAP_STEPS * (self.map_starts + again) / self.batch
        first = self.start.cost(problem) if isinstance(self.start, AbstractEngine) else None
        first = first or Cost(0, 0)
        return Cost(
            before + first.least + draws * min(least, deepest),
            before + first.most + draws * min(most, deepest),
            programs(problem),
        )

    def near(self, positions: Float[np.ndarray, "draw dimension"]) -> "Warmed":
        """Return this engine, which then also searches for modes near draws of a similar posterior.

        Args:
            positions: draws of the similar posterior, `(draw, dimension)`, in the unconstrained
                space.
        """
        return Warmed(self, positions)

    def run(
        self,
        problem: Problem,
        *,
        near: Float[np.ndarray, "draw dimension"] | None = None,
        key: Array,
        journal: Journal,
        bar: ProgressBar,
    ) -> Samples:
        """Draw from the posterior.

        Ctrl-C while sampling ends the run early and keeps the draws so far.

        Args:
            problem: the posterior, as a function of one flat vector.
            near: draws of a similar posterior, `(draw, dimension)`. Half of the starts of the
                search for modes are chosen from them.
            key: a JAX random key.
            journal: stores the arrays of each finished step, if there is a checkpoint.
            bar: shows the progress.

        Returns:
            The draws in the unconstrained space, with statistics, findings and modes.

        Raises:
            ModelError: if no start has a finite log density.
        """
        bar.start("finding modes", 1)
        key_find, key_place, key_paths, key_chains = jax.random.split(key, 4)
        # 1. How gradients are taken.
        chosen = journal.step(
            "gradient", lambda: {"strategy": np.asarray(choose(problem, self.gradient))}
        )
        strategy, value_and_gradient, log_density = differentiated(
            problem, str(chosen["strategy"]), other=self.gradient == "auto"
        )
        # 2. The reparametrisation: around reference paths for networks, else around one position.
        judged = problem.of_groups("science", "latent")
        science = problem.of_groups("science")
        references = references_of(problem) if self._conditional else None
        local = None
        if self.reparametrisation != "none" and not references:
            local = centring_of(problem) or linearisation_of(problem)
        reparametriser = references or local
        depth = self.max_tree_depth
        if not local and problem.of_groups("network"):
            depth = min(depth, DEEPEST)
        cautious = _CAUTIOUS[references.linear.inner] if references else 0.0
        kernel = Kernel(log_density, self.target_acceptance, depth, cautious)
        # 3. Chains, whose program compiles while the modes are searched.
        chains = Chains(
            kernel,
            self.chains,
            laplace_metric(np.eye(problem.dimension), judged, science),
            reparametriser.like if reparametriser else Identity(),
            problem.dimension,
            key=key_chains,
        )
        try:
            # 4. Modes, and the first position of each chain.
            dependent = local.dependent if local else ()
            # With references, unconstrained parameters are evaluated only, by a smaller program.
            optimiser = Optimiser(
                value_and_gradient,
                self.map_starts,
                local and local.like,
                dependent,
                many_gradients(value_and_gradient) if references else None,
            )
            if isinstance(self.start, AbstractEngine):
                found = self.start.run(problem, key=key_paths, journal=journal, bar=bar)
                near = found.positions.reshape(-1, problem.dimension)
            pathfinder = Pathfinder(log_density, key=key_paths)

            def begin() -> Arrays:
                if references:
                    found = self._matched(problem, references, optimiser, near, key_find)
                else:
                    found = self._local(
                        problem, optimiser, pathfinder, near, key_find, key_place, local
                    )
                value, gradient = optimiser.evaluate(found["position"])
                return found | {
                    "lp": value,
                    "gradient": gradient,
                    "steps": np.asarray(optimiser.steps),
                    "seconds": np.asarray(optimiser.seconds),
                }

            begun = journal.step("start", begin)
            state = first_state(*(begun[name] for name in ("position", "lp", "gradient")))
            reparametrisation: Reparametrisation = local.restored(begun) if local else Identity()
            if references:
                reparametrisation = references.restored(
                    journal.step("frame", lambda: references.from_draws(begun["reached"]))
                )
                state |= transformed(reparametrisation, state, back=True)
            # 5. Warm-up from the metric at the mode, Σ = (−∇² log p)⁻¹.
            warm_up = WarmUp(
                self.warmup, chains, journal, bar, judged, reparametriser, optimiser.evaluate_in
            )
            metric = laplace_metric(begun["start_precision"], judged, science)
            warm = warm_up.run(state, metric, reparametrisation)
            # 6. Draws with everything fixed.
            trace, interrupted = self._sample(chains, warm, journal, bar)
        finally:
            chains.close()
        # 7. Facts, and draws in unconstrained parameters. Pathfinder's points lie near modes only.
        modes = begun["modes"][: 1 if self.start == "pathfinder" else None]
        facts = fared(begun) | {
            "modes": len(modes),
            "start_steps": int(begun["steps"]),
            "start_time_s": float(begun["seconds"]),
            "gradient": strategy,
            "sampled_in": f"{(reparametriser or Identity()).kind} coordinates",
            "devices": chains.devices,
            "warmup_draws": warm.draws,
            "warmup_settled": int(warm.settled),
            "warmup_steps": warm.steps,
            "warmup_time_s": warm.seconds,
            "draws_time_s": float(trace.pop("seconds").sum()),
        }
        reached = _unconstrained_draws(trace, warm.reparametrisation)
        if len(modes) > 1:
            trace["mode"] = nearest_mode(reached, modes, begun["precisions"])
        return Samples(
            reached,
            trace,
            facts,
            () if self.warmup is not None else tuple(findings(facts)),
            Modes(modes, begun["log_densities"][: len(modes)]),
            interrupted=interrupted,
        )

    @property
    def _conditional(self) -> bool:
        """Whether the conditional reparametrisation may be used for networks."""
        return self.reparametrisation != "none" and self.start == "modes"

    def _matched(
        self,
        problem: Problem,
        references: References,
        optimiser: Optimiser,
        near: np.ndarray | None,
        key: Array,
    ) -> Arrays:
        """Find modes and first positions for a model with networks, by gradient matching.

        Args:
            problem: the posterior.
            references: fits the reparametrisation.
            optimiser: evaluates and optimises positions.
            near: draws of a similar posterior, or None.
            key: random seed.

        Returns:
            The arrays of `matched_start`, with `start_precision` (minus the Hessian for the first
            metric) and `position` (the first position of each chain).
        """
        found = matched_start(problem, references, optimiser, near, chains=self.chains, key=key)
        return found | {
            "start_precision": found["precisions"][0],
            "position": found["reached"][: self.chains],
        }

    def _local(
        self,
        problem: Problem,
        optimiser: Optimiser,
        pathfinder: Pathfinder,
        near: np.ndarray | None,
        key_find: Array,
        key_place: Array,
        reparametriser: LocalReparametriser | None,
    ) -> Arrays:
        """Find modes, and first positions in a reparametrisation fitted at the best mode.

        Args:
            problem: the posterior.
            optimiser: evaluates and optimises positions.
            pathfinder: replaces the optimiser if `start` is "pathfinder".
            near: draws of a similar posterior or of the engine in `start`, or None.
            key_find: random seed of the search.
            key_place: random seed of the first positions.
            reparametriser: fits the reparametrisation; None for the identity.

        Returns:
            The arrays of `Start.arrays` and of the reparametrisation, with `start_precision` (minus
            the Hessian for the first metric) and `position` (the first position of each chain).
        """
        # 1. The best positions: draws of another engine, or optimised prior draws.
        given = near if isinstance(self.start, AbstractEngine) else None
        if given is None:
            ascent = pathfinder.optimise if self.start == "pathfinder" else optimiser.optimise
            x, objectives, tried, failed = multi_start(
                problem, optimiser, ascent=ascent, near=near, key=key_find
            )
        else:
            some = evenly(given, min(len(given), 4 * self.map_starts))
            x, objectives = (best[:1] for best in best_first(optimiser, some))
            tried, failed = len(some), 0
        # 2. Modes and curvature there.
        if reparametriser:
            plain, start, found = local_start(reparametriser, optimiser, x, tried, failed)
        else:
            plain = start = modes_among(optimiser, x, objectives, tried, failed)
            found = {}
        # 3. A draw of the normal around a mode for each chain, or a draw of the other engine.
        if given is None:
            position = first_positions(start, optimiser, self.chains, key=key_place)
        else:
            turns = np.arange(self.chains) % len(given)
            position = optimiser.reparametrisation.inverse_many(given[turns])[0]
        return (
            found
            | plain.arrays()
            | {
                "start_precision": start.precisions[0],
                "position": position,
            }
        )

    def _sample(
        self, chains: Chains, warm: Warm, journal: Journal, bar: ProgressBar
    ) -> tuple[Arrays, bool]:
        """Draw with fixed step size, metric and reparametrisation.

        Args:
            chains: runs chunks of draws.
            warm: the state after the warm-up.
            journal: stores each chunk.
            bar: shows the progress.

        Returns:
            The trace, arrays `(chain, draw, …)` by name and `seconds`; and whether Ctrl-C ended the
            run early.
        """
        bar.start("sampling", self.draws)
        traces: list[Arrays] = []
        state = warm.state
        divergences = 0
        interrupted = False
        length = chains.longest_chunk
        if length * warm.seconds / warm.draws > _LONGEST_PAUSE:
            length = CHUNK
        # Draws are numbered from the start of the warm-up, so that no random key is used twice.
        begin = warm.draws
        end = warm.draws + self.draws
        try:
            while begin < end:
                state, trace = chunk(
                    chains,
                    journal,
                    f"draws from {begin}",
                    state,
                    begin,
                    min(length, end - begin),
                    False,
                    warm.metric,
                    warm.reparametrisation,
                )
                traces.append(trace)
                divergences += int(trace["diverging"].sum())
                # A chunk from a checkpoint may have another length; draws do not depend on it.
                done = trace["lp"].shape[1]
                begin += done
                bar.advance(done, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        seconds = np.stack([trace.pop("seconds") for trace in traces])
        return concatenated(traces) | {"seconds": seconds}, interrupted


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield a finding if a warm-up without a fixed length reached its limit of draws.

    Args:
        facts: the facts of the run.
    """
    if not facts["warmup_settled"]:
        yield Finding(
            "warning",
            "warm-up",
            f"the chains had not agreed, or the metric not settled, after {facts['warmup_draws']} "
            "draws",
            "judge by R-hat; a stronger prior or another parametrisation makes the posterior "
            "easier",
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Warmed(AbstractEngine):
    """NUTS that also searches for modes near draws of a similar posterior.

    Args:
        engine: the settings of NUTS.
        positions: draws of the similar posterior, in the unconstrained space.
    """

    engine: NUTS
    positions: Float[np.ndarray, "draw dimension"]

    @property
    def draws(self) -> int:
        return self.engine.draws

    @property
    def batch(self) -> int:
        return self.engine.batch

    def __repr__(self) -> str:
        return f"{self.engine!r} near draws {self._hash()[:12]}"

    def _hash(self) -> str:
        """Return the SHA-256 of the draws."""
        return hashlib.sha256(np.ascontiguousarray(self.positions).tobytes()).hexdigest()

    def stored(self) -> dict[str, Any]:
        return super().stored() | {"positions": self._hash()}

    @classmethod
    def _from_stored(cls, settings: dict[str, Any]) -> "Warmed":
        raise ReadError(
            "the checkpoint was made by bd.update: call it again, with the same arguments and "
            "checkpoint"
        )

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior as `NUTS.run` does."""
        return self.engine.run(problem, near=self.positions, key=key, journal=journal, bar=bar)


def _unconstrained_draws(
    trace: Arrays, reparametrisation: Reparametrisation
) -> Float[np.ndarray, "chain draw dimension"]:
    """Return unconstrained parameters x(z) of a trace, `(chain, draw, dimension)`.

    The trace is changed. Its `position` is removed, and its `lp` becomes log p(x) = log p(z) − log
    |det J|.

    Args:
        trace: arrays by name, with positions z.
        reparametrisation: the map z ↦ x.
    """
    z = trace.pop("position")
    x, log_det = reparametrisation.forward_many(z.reshape(-1, z.shape[-1]))
    trace["lp"] = trace["lp"] - log_det.reshape(trace["lp"].shape)
    return x.reshape(z.shape)
