"""The No-U-Turn sampler with robust starts, a metric that adapts, and a warm-up as long as it needs
to be.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._findings import Finding
from ..._runs.journal import Arrays, Journal, ProgressBar
from ...errors import ModelError, ReadError
from ..engine import AbstractEngine, Cost, Facts, Modes, Samples
from ..gradient import STRATEGIES, choose, differentiated
from ..problem import Problem
from ..reparametrisations.centring import centring_of, has_dependent
from ..reparametrisations.linearised import Linearisation, has_linear, linearisation_of
from ..reparametrisations.local_start import LocalReparametriser, local_start
from ..reparametrisations.reference import (
    COORDINATES,
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
    Ascent,
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
from .warmup import Warm, WarmUp, chunk, into_frame

_STARTS = ("modes", "pathfinder")
# Where steps are short because the posterior of hidden weights is bent, longer trajectories only
# come back.
DEEPEST = 7
_CAUTIOUS = 0.2
_WARMUP = 300  # about what a warm-up takes that ends by itself
_LEAPFROGS = (7, 31)  # a draw
_LONGEST_PAUSE = 1.0  # seconds between two returns to Python


@dataclasses.dataclass(frozen=True)
class NUTS(AbstractEngine):
    """NUTS from the best modes of many prior draws, with the Laplace metric there.

    Chains begin at draws of the normal around modes, or at draws of another engine. The metric is
    dense up to 64 unknown numbers; above that it is dense for up to 128 numbers of the science and
    its latent states, and low-rank for the rest. It is refined from the draws of the warm-up,
    pooled over chains.

    Where a network sits in a model that solves nothing but ODEs, chains move in coordinates in
    which the weights of its last layer are nearly normal given all else (the attribute `sampled_in`
    says so), from vector fields matched to the data without a solve, and with at most 127 steps a
    draw. Where unknown functions are linear in their weights, as of a `Basis`, science and weights
    are nearly normal given hyperparameters, in any layer. Numbers whose priors depend on others,
    such as those of a population, are centred as far as the data say what they are, by the
    curvature at the start and then by draws of the warm-up; chains begin where the posterior is
    high on average over the members. Chains with a network begin where one of the best climbs
    ended, with weights of the last layer drawn anew.

    Args:
        chains: how many; they share the metric and the step size.
        warmup: draws of each chain that are not kept, in chunks of 25. Unless given it lasts until
            the chains agree and the metric has settled, at most 2000.
        draws: draws of each chain that are kept.
        target_acceptance: what the step size is tuned to.
        max_tree_depth: a draw takes at most 2 to this power gradients, less one.
        gradient: "forward" or "reverse" mode through the solver. "auto" takes forward mode for up
            to 8 unknown numbers (and fewer than 30 states), reverse mode from 65, and between them
            forward mode if a short measurement finds it faster by a fifth, and the other mode where
            an equation forbids the one.
        start: "modes" climbs by Adam, "pathfinder" by L-BFGS to the points of the highest ELBO on
            its paths. An engine, such as `bd.DeepEnsemble(members=4)`, is run first: each chain
            begins at one of its draws, some at the same where it has fewer.
        climbs: climbs to modes, of 400 gradients each, from the best of four times as many prior
            draws: a few suffice where a solve is dear and the posterior has one mode. With
            populations, unknown functions or networks a quarter of them, at least one, goes on for
            as long again.
        coordinates: "auto" as said above, or "plain" to move in the weights themselves, as with a
            network and any other start than "modes", and in numbers in units of what their priors
            depend on.

    Source: Hoffman & Gelman (2014); Betancourt (2017); Seyboldt, Carlson & Carpenter (2026); kernel
    from BlackJAX; Sommer et al. (2024) for chains from an ensemble.

    Raises:
        ModelError: for numbers that make no sense.

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
    climbs: int = MAP_STARTS
    coordinates: str = "auto"

    def __post_init__(self):
        self._check_numbers(chains=1, draws=1, max_tree_depth=1, climbs=2)
        if self.warmup is not None:
            self._check_numbers(warmup=CHUNK)
        self._check_floats("target_acceptance")
        self._check_words(gradient=STRATEGIES, coordinates=COORDINATES)
        if not isinstance(self.start, AbstractEngine) and self.start not in _STARTS:
            raise ModelError(
                f"NUTS(start={self.start!r}): start must be one of {', '.join(_STARTS)}, or an "
                "engine such as "
                "bd.DeepEnsemble(members=4)"
            )

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all chains."""
        return self.chains

    def gradient_mode(self, problem: Problem) -> str:
        return choose(problem, self.gradient)

    def cost(self, problem: Problem) -> Cost:
        # In conditional coordinates trajectories are as long as they may be.
        inside = networks_inside(problem)
        least, most = (2**DEEPEST - 1,) * 2 if inside else _LEAPFROGS
        draws, deepest = (self.warmup or _WARMUP) + self.draws, 2**self.max_tree_depth - 1
        begun = self.start.cost(problem) if isinstance(self.start, AbstractEngine) else None
        framed = inside or has_dependent(problem) or has_linear(problem)
        again = refined_starts(self.climbs) if framed and self.coordinates != "plain" else 0
        before = MAP_STEPS * (self.climbs + again) / self.batch
        return Cost(
            before + (begun.least if begun else 0) + draws * min(least, deepest),
            before + (begun.most if begun else 0) + draws * min(most, deepest),
            programs(problem),
        )

    def near(self, positions: Float[np.ndarray, "draw dimension"]) -> "Warmed":
        """This engine, but looking for modes near draws of a similar posterior too."""
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
        """Draw from the posterior. Ctrl-C while sampling ends early and keeps the draws so far.

        Args:
            problem: the posterior, as a function of one flat vector.
            near: draws of a similar posterior, `(draw, dimension)`, near which modes are looked for
                as well.
            key: a JAX random key.
            journal: keeps each step of long work as it is done.
            bar: shows how far the work has come.

        Raises:
            ModelError: if no start has a finite log density.
        """
        bar.start("finding modes", 1)
        key_find, key_place, key_paths, key_chains = jax.random.split(key, 4)
        chosen = journal.step(
            "gradient", lambda: {"strategy": np.asarray(choose(problem, self.gradient))}
        )
        strategy, value_and_gradient, log_density = differentiated(
            problem, str(chosen["strategy"]), other=self.gradient == "auto"
        )
        judged, science = problem.of_groups("science", "latent"), problem.of_groups("science")
        references = references_of(problem) if self._conditional else None
        local = None
        if self.coordinates != "plain" and not references:
            local = centring_of(problem) or linearisation_of(problem)
        depth = min(self.max_tree_depth, DEEPEST) if references else self.max_tree_depth
        kernel = Kernel(
            log_density, self.target_acceptance, depth, _CAUTIOUS if references else 0.0
        )
        chains = Chains(
            kernel,
            self.chains,
            laplace_metric(np.eye(problem.dimension), judged, science),
            (references or local).like if references or local else Identity(),  # pyright: ignore
            problem.dimension,
            key=key_chains,
        )
        try:
            dependent = local.dependent if local else ()
            optimiser = Optimiser(value_and_gradient, self.climbs, local and local.like, dependent)
            climb = (
                Pathfinder(log_density, key=key_paths).optimise
                if self.start == "pathfinder"
                else optimiser.optimise
            )
            if isinstance(self.start, AbstractEngine):
                found = self.start.run(problem, key=key_paths, journal=journal, bar=bar)
                near = found.positions.reshape(-1, problem.dimension)
            begun = journal.step(
                "start",
                lambda: self._begin(
                    problem, optimiser, climb, near, key_find, key_place, references or local
                ),
            )
            state = first_state(*(begun[name] for name in ("position", "lp", "gradient")))
            frame: Reparametrisation = local.restored(begun) if local else Identity()
            if references:
                frame = references.restored(
                    journal.step("frame", lambda: references.from_draws(begun["reached"]))
                )
                state |= into_frame(frame, state)
            evaluate = optimiser.evaluate_in if isinstance(local, Linearisation) else None
            warm_up = WarmUp(
                self.warmup, chains, journal, bar, judged, references or local, evaluate
            )
            warm = warm_up.run(
                state, laplace_metric(begun["start_precision"], judged, science), frame
            )
            trace, interrupted = self._sample(chains, warm, journal, bar)
        finally:
            chains.close()
        # Pathfinder's points lie near modes, not at them.
        modes = begun["modes"][: 1 if self.start == "pathfinder" else None]
        facts = fared(begun) | {
            "modes": len(modes),
            "start_steps": int(begun["steps"]),
            "start_time_s": float(begun["seconds"]),
            "gradient": strategy,
            "sampled_in": f"{(references or local or Identity()).kind} coordinates",
            "devices": chains.devices,
            "warmup_draws": warm.draws,
            "warmup_settled": int(warm.settled),
            "warmup_steps": warm.steps,
            "warmup_time_s": warm.seconds,
            "draws_time_s": float(trace.pop("seconds").sum()),
        }
        reached = _in_own_coordinates(trace, warm.frame)
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
        """Whether chains move in conditional coordinates where there are any."""
        return self.coordinates != "plain" and self.start == "modes"

    def _begin(
        self,
        problem: Problem,
        optimiser: Optimiser,
        climb: Ascent,
        near: np.ndarray | None,
        key_find: Array,
        key: Array,
        maker: References | LocalReparametriser | None,
    ) -> Arrays:
        """The modes, the first position of every chain with its value and gradient, and what that
        took.
        """
        if isinstance(maker, References):
            found = matched_start(problem, maker, optimiser, near, chains=self.chains, key=key_find)
            position, precision = found["reached"][: self.chains], found["precisions"][0]
        else:
            given = near if isinstance(self.start, AbstractEngine) else None
            if given is None:
                x, heights, tried, failed = multi_start(
                    problem, optimiser, ascent=climb, near=near, key=key_find
                )
            else:
                some = evenly(given, min(len(given), 4 * self.climbs))
                (x, heights), tried, failed = best_first(optimiser, some), len(some), 0
                x, heights = x[:1], heights[:1]
            if maker:
                plain, start, found = local_start(maker, optimiser, x, tried, failed)
            else:
                plain = start = modes_among(optimiser, x, heights, tried, failed)
                found = {}
            if given is None:
                position = first_positions(start, optimiser, self.chains, key=key)
            else:
                position = optimiser.reparametrisation.inverse_many(
                    given[np.arange(self.chains) % len(given)]
                )
            found, precision = found | plain.arrays(), start.precisions[0]
        value, gradient = optimiser.evaluate(position)
        found |= {
            "start_precision": precision,
            "position": position,
            "lp": value,
            "gradient": gradient,
        }
        return found | {
            "steps": np.asarray(optimiser.steps),
            "seconds": np.asarray(optimiser.seconds),
        }

    def _sample(
        self, chains: Chains, warm: Warm, journal: Journal, bar: ProgressBar
    ) -> tuple[Arrays, bool]:
        bar.start("sampling", self.draws)
        traces: list[Arrays] = []
        state, divergences, interrupted = warm.state, 0, False
        length = chains.longest_chunk
        if length * warm.seconds / warm.draws > _LONGEST_PAUSE:
            length = CHUNK
        # Iterations are numbered from the start of the warm-up: no random key is used twice.
        begin, end = warm.draws, warm.draws + self.draws
        try:
            while begin < end:
                name, number = f"draws from {begin}", min(length, end - begin)
                state, trace = chunk(
                    chains, journal, name, state, begin, number, False, warm.metric, warm.frame
                )
                traces.append(trace)
                divergences += int(trace["diverging"].sum())
                # What a checkpoint holds may be of another length, which the draws do not depend
                # on.
                done = trace["lp"].shape[1]
                begin += done
                bar.advance(done, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        seconds = np.stack([trace.pop("seconds") for trace in traces])
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
        return joined | {"seconds": seconds}, interrupted


def findings(facts: Facts) -> Iterator[Finding]:
    """What is said of a warm-up that was to end by itself."""
    if not facts["warmup_settled"]:
        yield Finding(
            "warning", "warm-up",
            f"the chains had not agreed, or the metric not settled, after {facts['warmup_draws']} "
            "draws",
            "judge by R-hat; a stronger prior or another parametrisation makes the posterior "
            "easier",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Warmed(AbstractEngine):
    """NUTS whose search for modes begins at draws of a similar posterior as well as at prior
    draws.
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
        return f"{self.engine!r} near draws {self._digest()[:12]}"

    def _digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.positions).tobytes()).hexdigest()

    def stored(self) -> dict[str, Any]:
        return super().stored() | {"positions": self._digest()}

    @classmethod
    def _from_stored(cls, settings: dict[str, Any]) -> "Warmed":
        raise ReadError(
            "the checkpoint was made by bd.update: call it again, with the same arguments and "
            "checkpoint"
        )

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior, as `NUTS.run`."""
        return self.engine.run(problem, near=self.positions, key=key, journal=journal, bar=bar)


def _in_own_coordinates(
    trace: Arrays, frame: Reparametrisation
) -> Float[np.ndarray, "chain draw dimension"]:
    """The positions of a trace whose chains moved in a frame; its log densities become those of the
    positions.
    """
    xi = trace.pop("position")
    x, log_volume = frame.forward_many(xi.reshape(-1, xi.shape[-1]))
    trace["lp"] = trace["lp"] - log_volume.reshape(trace["lp"].shape)
    return x.reshape(xi.shape)
