"""How many gradients an engine takes, before it has run: a range, not a number."""

from collections.abc import Callable, Mapping
from typing import Any

from ..inference import NUTS, SMC, SVI, SWAG, DeepEnsemble, Joint, Laplace, ManyChain, MCDropout, Problem
from ..inference.descent.descent import WINDOW
from ..inference.descent.laplace import PATIENCE
from ..inference.nuts.sampler import DEEPEST
from ..inference.smc.sampler import WALK_UP_TO
from ..inference.starts import CLIMB_STEPS, CLIMBS
from ..inference.svi.variational import WINDOW as SVI_WINDOW
from ..networks.network import networks
from ..prediction.given_states import odes

type Range = tuple[float, float]
"""Gradients, or what costs as much, at each position of an engine's batch: at least and at most."""

_WARMUP = 300  # about what a warm-up of NUTS takes that ends by itself
_LEAPFROGS = (7, 31)  # a draw
_TEMPERATURES, _MOVES, _STEPS_A_MOVE = (5, 15), (2, 10), (3, 12)
_FEWEST_WINDOWS = 4  # of SVI, before it may have converged
_PROPOSALS = 4  # of SVI, a draw
_VALUES = 4  # that cost as much as a gradient
# Programs of an engine, each of which takes about as long to compile as a gradient.
_PROGRAMS, _PROGRAMS_OF_NETWORKS = 4, 30


def gradients(problem: Problem, engine: Any) -> Range | None:
    """The gradients that an engine takes at each of the positions that it looks at together; none if it is not known.

    Engines that descend may stop early, all others are thought to run as long as they are told to.
    """
    cost = _COSTS.get(type(engine))
    return None if cost is None else cost(problem, engine)


def compilations(problem: Problem) -> int:
    """How many times as long as a gradient an engine takes to compile: long for the coordinates of networks in ODEs."""
    return _PROGRAMS_OF_NETWORKS if _networks_inside(problem) else _PROGRAMS


def _networks_inside(problem: Problem) -> bool:
    return any(networks(ode) for ode in odes(problem.model.layer))


def _of_nuts(problem: Problem, engine: NUTS) -> Range:
    # Where a network sits inside an ODE trajectories are as long as they may be.
    least, most = (2**DEEPEST - 1,) * 2 if _networks_inside(problem) else _LEAPFROGS
    draws, deepest = (engine.warmup or _WARMUP) + engine.draws, 2**engine.max_tree_depth - 1
    climbs = CLIMB_STEPS * engine.climbs / engine.batch
    return climbs + draws * min(least, deepest), climbs + draws * min(most, deepest)


def _of_many_chains(problem: Problem, engine: ManyChain) -> Range:
    each = (2 if "mclmc" in engine.method else 1) * (engine.warmup + engine.draws)
    climbs = CLIMB_STEPS * CLIMBS / engine.batch
    return climbs + each, climbs + each * engine.max_steps


def _of_svi(problem: Problem, engine: SVI) -> Range:
    steps = 0 if engine.guide == "laplace" else engine.steps
    proposals = _PROPOSALS * engine.chains * engine.draws / _VALUES
    always = (CLIMB_STEPS * CLIMBS + proposals) / engine.batch
    return always + min(steps, _FEWEST_WINDOWS * SVI_WINDOW), always + steps


def _of_smc(problem: Problem, engine: SMC) -> Range:
    walks = engine.moves == "walk" or (engine.moves == "auto" and problem.dimension <= WALK_UP_TO)
    steps = (2 * problem.dimension / _VALUES,) * 2 if walks else _STEPS_A_MOVE
    least, most = (
        temperatures * min(moves, engine.most_moves) * each
        for temperatures, moves, each in zip(_TEMPERATURES, _MOVES, steps, strict=True)
    )
    return least, most


def _of_a_descent(problem: Problem, engine: Joint | DeepEnsemble | MCDropout | SWAG | Laplace) -> Range:
    patience = PATIENCE if isinstance(engine, Laplace) else getattr(engine, "patience", engine.steps)
    # An adversary looks which way to go, and then at the data twice.
    each = 3 if getattr(engine, "adversarial", 0.0) else 1
    after = WINDOW * getattr(engine, "collected", 0)
    return each * min(engine.steps, WINDOW * (1 + patience)) + after, each * engine.steps + after


_COSTS: Mapping[type, Callable[[Problem, Any], Range]] = {
    NUTS: _of_nuts,
    ManyChain: _of_many_chains,
    SVI: _of_svi,
    SMC: _of_smc,
    **dict.fromkeys((Joint, DeepEnsemble, MCDropout, SWAG, Laplace), _of_a_descent),
}
