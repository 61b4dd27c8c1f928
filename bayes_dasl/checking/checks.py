"""A ladder of cheap checks before a long run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._findings import Diagnosis, Finding, for_a_failing_solve
from .._jax.devices import prepare
from .._jax.keys import as_key
from .._jax.tree import dotted
from ..data.datasets import FILLED, units_of
from ..data.dates import told, told_of
from ..errors import BayesDaslError, UnreadableError
from ..inference import NUTS, AbstractEngine, check_engine, pose
from ..inference.gradient import traced_once
from ..inference.problem import Problem
from ..inference.sharding import Sharded
from ..layers import ODE, Jump, solver_settings
from ..layers.layer import begins
from ..model import Model
from ..model.unit_check import unit_findings, units_unseen
from ..prediction.predictive import Draws, Pushed, push
from ..priors import draw_prior
from ..random import occurrences, paths
from ..scores.failures import FEW, SELDOM
from .corrections import corrections

_DRAWS = 256
_GRADIENTS = 64
_EQUAL = 1e-10
_MUCH = 0.1  # of a forcing that was filled
_PATIENCE = 600  # seconds of a fit, above which a cheaper one is suggested
_CHEAP = ("SVI", "Laplace")
_COARSE = (
    1e-4  # a relative tolerance that often suffices: a PDE took a quarter of the steps of 1e-6
)
_FEW = 0.2  # of the steps of a regular series: the longer ones are then rows that were left out


@dataclass(frozen=True)
class Check(Diagnosis):
    """The rungs of the ladder, each with a remedy where something is wrong."""

    @property
    def verdict(self) -> str:
        blamed = ", ".join(dict.fromkeys(f.subject for f in self.findings if f.level == self.level))
        said = {
            "good": "Ready to fit: every check passed.",
            "warning": f"Ready to fit, with care: see {blamed}.",
            "bad": f"Not ready to fit: {blamed}.",
        }[self.level]
        return f"{said} {self.unseen}" if self.unseen else said


def check(
    model: Model, data: xr.Dataset, engine: AbstractEngine | None = None, *, key: int | Array = 0
) -> Check:
    """Check data, prior draws, density, gradient, solver and cost, in seconds, before a long run.

    Nothing is raised, whatever is wrong with model, data, engine or key: the rung that fails says
    what, and those above it are not climbed.

    Args:
        model: the model.
        data: what it is to be fitted to, as for `fit`.
        engine: the one whose cost is told, `NUTS()` unless given; where its `cost` says nothing
            only that of a gradient is known.
        key: a whole number or a JAX random key, for the prior draws.

    Example:
        ```python
        found = bd.check(model, train)
        print(found)
        ```
    """
    found: list[Finding] = []
    unseen = ""
    try:
        for finding in _rungs(model, data, engine, key):
            found.append(finding)
        unseen = units_unseen(model, model.in_numbers(model.in_own_units(data)))
    except BayesDaslError as error:
        found.append(Finding("bad", "data and model", str(error), "mend this first"))
    except Exception as error:  # whatever a user's equation, noise or engine may raise
        said = f"{type(error).__name__}: {error}"
        found.append(
            Finding("bad", "data and model", said, "mend this first: bd.fit would raise it too")
        )
    return Check(tuple(found), unseen)


def _rungs(
    model: Model, data: xr.Dataset, engine: AbstractEngine | None, key: int | Array
) -> Iterator[Finding]:
    prepare()
    engine = NUTS() if engine is None else engine
    check_engine(engine)
    problem = pose(model, data)
    key_prior, key_predict, key_gradient = jax.random.split(as_key(key), 3)
    own = model.in_own_units(data)
    yield _data(problem, data[model.index])
    yield from _converted(data, own)
    yield from _kept(problem)
    yield from unit_findings(model, model.in_numbers(own))
    yield from _filled(model, data)
    yield from _before_the_data(problem, model.in_numbers(own)[model.index])
    yield from _rows_left_out(problem, model.in_numbers(own)[model.index])
    draws = {path: np.asarray(v) for path, v in draw_prior(model, _DRAWS, key=key_prior).items()}
    yield from _jumps(problem, draws)
    # What the priors say without the data, also where a model looks back at them.
    unseen = replace(problem.inputs, past=None)
    pushed = push(model, unseen, draws, observed=problem.observed, key=key_predict)
    yield from _solver(model, pushed)
    yield from _prior(problem, pushed)
    yield from corrections(problem, draws)
    yield from _gradient(problem, engine, key=key_gradient)


def _data(problem: Problem, index: xr.DataArray) -> Finding:
    times = index.values
    seen = ", ".join(
        f"{name} ({int((~np.isnan(y)).sum())})" for name, y in problem.observed.items()
    )
    rows = times.size - np.unique(times).size
    replicates = f", {rows} of them replicates" if rows else ""
    span = (
        f"{times.size} times from {told(index.values[0])} to {told(index.values[-1])}{replicates}"
    )
    return Finding(
        "good", "data and model", f"{span}; observed: {seen}; {problem.dimension} unknown numbers"
    )


def _before_the_data(problem: Problem, index: xr.DataArray) -> Iterator[Finding]:
    """Forcings of which nothing is known between the start of the solve and the first time of the
    data.
    """
    inputs = problem.inputs
    if not begins(problem.model.layer):
        return
    for name, force in inputs.forcings.items():
        first, start = float(force.times[0]), float(inputs.start)
        if first > start:
            yield Finding(
                "warning", f"forcing {name}",
                f"known from {told_of(index, first)} on; from the start of the solve at "
                f"{told_of(index, start)} until "
                "then it is held constant",
                "give the data a row at the start, with NaN for what was not observed",
            )  # fmt: skip


def _filled(model: Model, data: xr.Dataset) -> Iterator[Finding]:
    """What `fill_gaps` says of the forcings."""
    for name in model.layer.forcings:
        if (said := data[name].attrs.get(FILLED)) is not None:
            share = int(said.split()[0]) / int(said.split()[2])
            level, remedy = (
                ("good", "")
                if share <= _MUCH
                else ("warning", "see whether what was filled matters")
            )
            yield Finding(level, f"forcing {name}", said, remedy)


def _rows_left_out(problem: Problem, index: xr.DataArray) -> Iterator[Finding]:
    """Forcings whose table leaves out times of what else is a regular series: nobody chose what
    they are there.
    """
    if not problem.inputs.forcings or not begins(problem.model.layer):
        return
    rows = np.unique(index.values)
    steps = np.diff(rows)
    longer = steps > 1.5 * np.median(steps) if steps.size else np.zeros(0, bool)
    if not 0 < longer.sum() <= _FEW * steps.size:
        return
    missing, at = round(float((steps[longer] / np.median(steps) - 1).sum())), int(np.argmax(steps))
    begin, end = (told_of(index, float(rows[i])) for i in (at, at + 1))
    yield Finding(
        "warning", f"forcing {', '.join(problem.inputs.forcings)}",
        f"{missing} rows of a regular series are left out, the most between {begin} and {end}: "
        "there the model "
        "takes what the rows around them say",
        "give the data a row at each time, as by data.resample or data.reindex, and "
        "bd.data.fill_gaps a rule",
    )  # fmt: skip


def _jumps(problem: Problem, draws: Draws) -> Iterator[Finding]:
    """Unknown times of jumps that the prior puts before the solve, where a jump does not act."""
    start, is_jump = float(problem.inputs.start), lambda node: isinstance(node, Jump)
    nodes = jtu.tree_leaves_with_path(problem.model, is_leaf=is_jump)
    times = {f"{dotted(path)}.time" for path, node in nodes if is_jump(node)}
    for path in dict.fromkeys(
        leaf.path for leaf in occurrences(problem.model) if times & {*leaf.places}
    ):
        share = float(np.mean(draws[path] < start))
        if share:
            yield Finding(
                "warning", "jump before the start",
                f"{share:.0%} of the prior draws of {path} lie before the solve, which starts at "
                f"{start:g}, where a "
                "jump does not act",
                f"give the layer an earlier start, or the time a prior above {start:g}",
            )  # fmt: skip


def _kept(problem: Problem) -> Iterator[Finding]:
    """Whether a fit can be known again; nothing is said where it can."""
    try:
        problem.fingerprint(needed=True)
    except UnreadableError as error:
        yield Finding(
            "warning", "checkpoint", str(error),
            "a fit without a checkpoint goes ahead, and is known by its random leaves alone",
        )  # fmt: skip


def _converted(data: xr.Dataset, own: xr.Dataset) -> Iterator[Finding]:
    held, works_in = units_of(data), units_of(own)
    changed = [
        f"{name} from {held[name]} to {units}"
        for name, units in works_in.items()
        if units != held[name]
    ]
    if changed:
        yield Finding("good", "units of data", f"they are converted: {', '.join(changed)}")


def _solver(model: Model, pushed: Pushed) -> Iterator[Finding]:
    failed, total = int((~pushed.ok).sum()), pushed.ok.size
    steps = f"{int(np.median(pushed.steps))} steps in the median, {int(pushed.steps.max())} at most"
    message = (
        f"{failed} of {total} prior draws failed in the solver ({failed / total:.0%}); {steps}"
    )
    if failed == 0:
        yield Finding("good", "solver", f"all {total} prior draws were solved; {steps}")
    elif failed <= SELDOM * total:
        yield Finding("good", "solver", f"{message}: too few failures to matter")
    elif failed < total / 2:
        yield Finding(
            "warning", "solver", message,
            "such draws are rejected and counted; narrow the priors if they are not meant to be "
            "possible",
        )  # fmt: skip
    else:
        yield Finding(
            "bad", "solver", message,
            f"narrow the priors; else {for_a_failing_solve(solver_settings(model.layer))}",
        )  # fmt: skip


def _prior(problem: Problem, pushed: Pushed) -> Iterator[Finding]:
    """Could the priors have made such data? A datum outside nearly all prior draws says no."""
    for name, values in problem.observed.items():
        predicted = pushed.predictions[name][pushed.ok]
        if not len(predicted):
            continue
        finite = np.isfinite(predicted.reshape(len(predicted), -1)).all(axis=1)
        odd = f"{int((~finite).sum())} of {len(predicted)} prior draws are infinite or not a number"
        left_out = "" if finite.all() else f"; {odd}, and left out"
        if finite.mean() < 1 - FEW:
            left_out = ""
            yield Finding(
                "warning" if finite.any() else "bad", f"prior of {name}", odd,
                "narrow the priors, that of the noise first, until predictions are numbers",
            )  # fmt: skip
        if not finite.any():
            continue
        seen = ~np.isnan(values)
        noise = problem.model.told(name, problem.inputs)
        at_least, at_most = (
            np.asarray(end)[seen] for end in noise.known_between(np.asarray(values))
        )
        low, high = np.quantile(predicted[finite][:, seen], [0.005, 0.995], axis=0)
        outside, number = int(((at_most < low) | (at_least > high)).sum()), at_most.size
        if outside <= 0.1 * number:
            inside = f"{number - outside} of {number} data lie within the prior's range"
            yield Finding("good", f"prior of {name}", f"{inside}{left_out}")
        else:
            yield Finding(
                "warning", f"prior of {name}",
                f"{outside} of {number} data lie outside 99 % of the prior's draws{left_out}",
                "widen the priors, or check units and the start time",
            )  # fmt: skip


def _gradient(problem: Problem, engine: AbstractEngine, *, key: Array) -> Iterator[Finding]:
    try:
        strategy = engine.gradient_mode(problem)
        value_and_gradient, _ = traced_once(problem, strategy)
    except BayesDaslError as error:
        yield Finding("bad", "gradient", str(error), "mend this first")
        return
    run, positions = Sharded(value_and_gradient, _GRADIENTS), problem.prior(_GRADIENTS, key=key)
    began = time.perf_counter()
    value, gradient = run(positions)
    compiling = time.perf_counter() - began
    finite = np.isfinite(value)
    broken = finite & ~np.isfinite(gradient).all(axis=1)
    if broken.any():
        at = problem.labels()[int(np.argmin(np.isfinite(gradient[broken][0])))]
        yield Finding(
            "bad", "gradient", f"{int(broken.sum())} of {_GRADIENTS} gradients are not finite, "
                f"first in {at}",
            "mask before a singular function: log(where(ok, y, 1)), never where(ok, log(y), 0)",
        )  # fmt: skip
    elif not finite.any():
        yield Finding(
            "bad", "density", f"none of {_GRADIENTS} prior draws has a finite log density",
            "narrow the priors until some draws can be solved",
        )  # fmt: skip
    else:
        message = (
            f"{int(finite.sum())} of {_GRADIENTS} prior draws have a finite log density, all with "
            "finite gradients"
        )
        yield Finding("good", "density and gradient", message)
        yield from _unused(problem, positions[finite], gradient[finite])
    yield _cost(run, positions, compiling, problem, engine)


def _unused(problem: Problem, positions: Array, gradient: np.ndarray) -> Iterator[Finding]:
    """Random leaves on which nothing but their own prior depends, at none of some positions."""
    of_prior = np.asarray(jax.jit(jax.vmap(jax.grad(problem.log_prior)))(positions))
    moved = ~np.isclose(gradient, of_prior, rtol=_EQUAL, atol=_EQUAL).all(axis=0)
    leaves = paths(problem.model)
    unused = [
        path
        for path, site in problem.sites.items()
        # Of a path that goes on after the last datum the data rightly say nothing.
        if leaves[path].group != "latent" and not moved[site.start : site.start + site.size].any()
    ]
    if unused:
        yield Finding(
            "warning", "unknown numbers",
            f"no datum depends on {', '.join(unused)}: the posterior will be the prior",
            "use it in the equation, or leave it out",
        )  # fmt: skip


def _cost(run, positions, compiling: float, problem: Problem, engine: AbstractEngine) -> Finding:
    laps = []
    for _ in range(5):
        began = time.perf_counter()
        run(positions)
        laps.append(time.perf_counter() - began)
    each, batch = float(np.median(laps)) / _GRADIENTS, engine.batch
    message = f"one gradient at {batch} positions takes {1e3 * each * batch:.2g} ms"
    cost = engine.cost(problem)
    if not cost:
        return Finding("good", "cost", message)
    compiled = cost.programs * compiling
    least, most = (each * batch * number + compiled for number in (cost.least, cost.most))
    seconds = f"{least:.0f}" if f"{least:.0f}" == f"{most:.0f}" else f"{least:.0f} to {most:.0f}"
    message += f"; {engine!r} should take about {seconds} s, compilation included"
    if most <= _PATIENCE:
        return Finding("good", "cost", message)
    return Finding(
        "warning", "cost", f"{message}: more than ten minutes", _cheaper(problem.model, engine)
    )


def _cheaper(model: Model, engine: AbstractEngine) -> str:
    """How a fit may take less time, as far as it applies to this model and engine."""
    ways = []
    if isinstance(engine, NUTS):  # the steps of others do not hang on their draws
        ways.append(f"try fewer draws first, such as draws={max(engine.draws // 4, 1)}")
    solved = [
        node
        for node in jax.tree.leaves(model.layer, is_leaf=_has_tolerance)
        if _has_tolerance(node)
    ]
    if any(node.rtol < _COARSE for node in solved):
        ways.append(
            f"loosen the solver to rtol={_COARSE:g} and see by bd.updating.check_solver whether "
            "that suffices"
        )
    if any(isinstance(node, ODE) for node in solved):
        ways.append("let bd.checking.choose_solver find the quicker solver")
    if type(engine).__name__ not in _CHEAP:
        ways.append("take a cheaper engine, bd.engines.SVI() or bd.engines.Laplace()")
    return "; ".join(ways) or "fit fewer data first, or let it run overnight"


def _has_tolerance(node: Any) -> bool:
    return isinstance(getattr(node, "rtol", None), float)
