"""`check`: cheap checks of model, data, solver and gradient before a long run."""

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
from .._runs.user_code import place_in_user_code
from ..data.datasets import FILLED, units_of
from ..data.dates import in_words, index_in_words
from ..data.gaps import missing_code
from ..errors import BayesDaslError, UnreadableError
from ..inference import NUTS, AbstractEngine, check_engine, pose
from ..inference.gradient import many_gradients, traced_once
from ..inference.problem import Evaluation, Problem
from ..layers import ODE, Jump, solver_settings
from ..layers.layer import begins
from ..model import Model
from ..model.unit_check import unit_findings, units_unseen
from ..prediction.predictive import Draws, Pushed, push
from ..priors import draw_prior
from ..random import occurrences, paths
from ..scores.failures import FEW, SELDOM
from .corrections import corrections
from .display import findings_html
from .problems import problems_of

_DRAWS = 256
_GRADIENTS = 64
_EQUAL = 1e-10
# Share of filled values in a forcing that deserves a warning.
_MUCH = 0.1
# Time of a fit in seconds, above which cheaper ways are suggested.
_PATIENCE = 600
_CHEAP = ("SVI", "Laplace")
# A relative tolerance that often suffices. A PDE took a quarter of the steps at 1e-6.
_COARSE = 1e-4
# Longer steps count as left-out rows of a regular series if their share is at most this.
_FEW = 0.2


# The core knows no display, so that these methods come from here.
Diagnosis.__repr__ = Diagnosis.__str__
Diagnosis._repr_html_ = findings_html  # pyright: ignore


@dataclass(frozen=True, repr=False)
class Check(Diagnosis):
    """The findings of `check`, each with a remedy if there is a problem."""

    @property
    def verdict(self) -> str:
        """Whether the model is ready to fit; if not, which findings are responsible."""
        blamed = ", ".join(dict.fromkeys(f.subject for f in self.findings if f.level == self.level))
        said = {
            "good": "Ready to fit: every check passed.",
            "warning": f"Ready to fit, with care: see {blamed}.",
            "bad": f"Not ready to fit: {blamed}.",
        }[self.level]
        if self.unseen:
            return f"{said} {self.unseen}"
        return said


def check(
    model: Model, data: xr.Dataset, engine: AbstractEngine | None = None, *, key: int | Array = 0
) -> Check:
    """Check data, prior draws, density, gradient, solver and cost in seconds, before a long run.

    No error is raised. A failing check becomes a finding that says what is wrong, and later checks
    are skipped.

    Args:
        model: the model.
        data: the data of the model, as for `fit`.
        engine: the engine whose cost is estimated, by default `NUTS()`. For an engine without
            `cost`, only the time of a gradient is reported.
        key: a whole number or a JAX random key, for the prior draws.

    Returns:
        The findings, to be printed.

    Example:
        ```python
        found = bd.check(model, train)
        print(found)
        ```
    """
    found: list[Finding] = []
    unseen = ""
    try:
        # Collect one by one, so that findings before an error are kept.
        for finding in _findings_in_order(model, data, engine, key):
            found.append(finding)
        if all(finding.level != "bad" for finding in found):
            unseen = units_unseen(model, model.in_numbers(model.in_own_units(data)))
    except Exception as error:  # a user's equation, noise or engine may raise anything
        found.append(_problem(error))
    return Check(tuple(found), unseen)


def _problem(error: Exception) -> Finding:
    """Return an error as a finding, with its place in the user's code if that is known."""
    place = place_in_user_code(error)
    where = f", at {place}" if place else ""
    if isinstance(error, BayesDaslError):
        return Finding("bad", "data and model", f"{error}{where}", "mend this first")
    said = f"{type(error).__name__}: {error}{where}"
    return Finding("bad", "data and model", said, "mend this first: bd.fit would raise it too")


def _findings_in_order(
    model: Model, data: xr.Dataset, engine: AbstractEngine | None, key: int | Array
) -> Iterator[Finding]:
    """Yield the findings, cheap checks first."""
    # 1. Data and model; `pose` raises if they cannot be fitted.
    prepare()
    engine = NUTS() if engine is None else engine
    check_engine(engine)
    if problems := problems_of(model, data):
        yield from map(_problem, problems)
        return
    problem = pose(model, data)
    key_prior, key_predict, key_gradient = jax.random.split(as_key(key), 3)
    own = model.in_own_units(data)
    numbers = model.in_numbers(own)
    yield _size_of_problem(problem, data[model.index])
    yield from _converted(data, own)
    yield from _without_fingerprint(problem)
    yield from unit_findings(model, numbers)
    yield from _missing_values(model, data)
    yield from _filled(model, data)
    yield from _before_the_data(problem, numbers[model.index])
    yield from _rows_left_out(problem, numbers[model.index])
    # 2. Prior draws, and the solver at each of them.
    draws = {path: np.asarray(v) for path, v in draw_prior(model, _DRAWS, key=key_prior).items()}
    yield from _jumps(problem, draws)
    # Prior predictions must not depend on the data, even if the model conditions on past data.
    unseen = replace(problem.inputs, past=None)
    pushed = push(model, unseen, draws, observed=problem.observed, key=key_predict)
    yield from _solver(model, pushed)
    yield from _prior(problem, pushed)
    yield from corrections(problem, draws)
    # 3. Density, gradient and cost.
    yield from _gradient(problem, engine, key=key_gradient)


def _size_of_problem(problem: Problem, index: xr.DataArray) -> Finding:
    """Return a finding with the number of times, data and parameters.

    `index` holds the times of the data.
    """
    times = index.values
    sizes = {name: int((~np.isnan(y)).sum()) for name, y in problem.observed.items()}
    seen = ", ".join(f"{name} ({size})" for name, size in sizes.items())
    rows = times.size - np.unique(times).size
    replicates = f", {rows} of them replicates" if rows else ""
    span = f"{times.size} times from {in_words(times[0])} to {in_words(times[-1])}{replicates}"
    message = f"{span}; observed: {seen}; {problem.dimension} unknown numbers"
    return Finding("good", "data and model", message)


def _before_the_data(problem: Problem, index: xr.DataArray) -> Iterator[Finding]:
    """Warn of forcings whose data begin after the start of the solve."""
    inputs = problem.inputs
    if not begins(problem.model.layer):
        return
    for name, force in inputs.forcings.items():
        first = float(force.times[0])
        start = float(inputs.start)
        if first > start:
            yield Finding(
                "warning", f"forcing {name}",
                f"known from {index_in_words(index, first)} on; from the start of the solve at "
                f"{index_in_words(index, start)} until then it is held constant",
                "give the data a row at the start, with NaN for what was not observed",
            )  # fmt: skip


def _missing_values(model: Model, data: xr.Dataset) -> Iterator[Finding]:
    """Warn of values that often stand for missing ones, such as -9999."""
    for name in (*model.observables, *model.layer.forcings):
        values = np.asarray(data[name].values, float)
        if (code := missing_code(values)) is not None:
            yield Finding(
                "warning",
                f"missing values of {name}",
                f"{int((values == code).sum())} of {values.size} are {code:g}, which often stands "
                "for a missing value",
                f"read the table again with bd.from_table(…, missing={code:g})",
            )


def _filled(model: Model, data: xr.Dataset) -> Iterator[Finding]:
    """Yield a finding for each forcing in which `fill_gaps` replaced missing values."""
    for name in model.layer.forcings:
        if (said := data[name].attrs.get(FILLED)) is not None:
            share = int(said.split()[0]) / int(said.split()[2])
            level = "good" if share <= _MUCH else "warning"
            yield Finding(level, f"forcing {name}", said, "see whether what was filled matters")


def _rows_left_out(problem: Problem, index: xr.DataArray) -> Iterator[Finding]:
    """Warn if single times of a regular series of forcings have no row."""
    if not problem.inputs.forcings or not begins(problem.model.layer):
        return
    rows = np.unique(index.values)
    steps = np.diff(rows)
    # A step of two or more median steps is a gap, if such steps are few.
    longer = steps > 1.5 * np.median(steps) if steps.size else np.zeros(0, bool)
    if not 0 < longer.sum() <= _FEW * steps.size:
        return
    missing = round(float((steps[longer] / np.median(steps) - 1).sum()))
    at = int(np.argmax(steps))
    begin, end = (index_in_words(index, float(rows[i])) for i in (at, at + 1))
    yield Finding(
        "warning", f"forcing {', '.join(problem.inputs.forcings)}",
        f"{missing} rows of a regular series are left out, the most between {begin} and {end}: "
        "there the model takes what the rows around them say",
        "give the data a row at each time, as by data.resample or data.reindex, and "
        "bd.data.fill_gaps a rule",
    )  # fmt: skip


def _jumps(problem: Problem, draws: Draws) -> Iterator[Finding]:
    """Warn of priors of jump times that reach before the start, where a jump does not act."""
    start = float(problem.inputs.start)
    is_jump = lambda node: isinstance(node, Jump)  # noqa: E731
    nodes = jtu.tree_leaves_with_path(problem.model, is_leaf=is_jump)
    times = {f"{dotted(path)}.time" for path, node in nodes if is_jump(node)}
    unknown = [leaf.path for leaf in occurrences(problem.model) if times & {*leaf.places}]
    for path in dict.fromkeys(unknown):
        share = float(np.mean(draws[path] < start))
        if share:
            yield Finding(
                "warning", "jump before the start",
                f"{share:.0%} of the prior draws of {path} lie before the solve, which starts at "
                f"{start:g}, where a jump does not act",
                f"give the layer an earlier start, or the time a prior above {start:g}",
            )  # fmt: skip


def _without_fingerprint(problem: Problem) -> Iterator[Finding]:
    """Warn if the model has no fingerprint, which a checkpoint needs to recognise the model."""
    try:
        problem.fingerprint(needed=True)
    except UnreadableError as error:
        yield Finding(
            "warning", "checkpoint", str(error),
            "a fit without a checkpoint goes ahead, and is known by its random leaves alone",
        )  # fmt: skip


def _converted(data: xr.Dataset, own: xr.Dataset) -> Iterator[Finding]:
    """Yield a finding that lists the variables whose units were converted.

    Args:
        data: the original data.
        own: the data in the units of the model.
    """
    held = units_of(data)
    other = {name: units for name, units in units_of(own).items() if units != held[name]}
    changed = [f"{name} from {held[name]} to {units}" for name, units in other.items()]
    if changed:
        yield Finding("good", "units of data", f"they are converted: {', '.join(changed)}")


def _solver(model: Model, pushed: Pushed) -> Iterator[Finding]:
    """Yield a finding on the share of prior draws for which the solver fails.

    `pushed` holds the predictions of the prior draws.
    """
    failed = int((~pushed.ok).sum())
    total = pushed.ok.size
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
    """Compare the data with the prior predictive distribution of each observable.

    Only few data should lie outside the central 99 % of the draws. `pushed` holds the prior draws.
    """
    for name, values in problem.observed.items():
        predicted = pushed.predictions[name][pushed.ok]
        if not len(predicted):
            continue
        # 1. Draws that are not finite are reported, and left out.
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
        # 2. The share of data outside the central 99 % of the draws. Censored data count as
        #    outside if their whole range of possible values is.
        seen = ~np.isnan(values)
        noise = problem.model.reader.filled(name, problem.inputs)
        at_least, at_most = (
            np.asarray(end)[seen] for end in noise.known_between(np.asarray(values))
        )
        low, high = np.quantile(predicted[finite][:, seen], [0.005, 0.995], axis=0)
        outside = int(((at_most < low) | (at_least > high)).sum())
        number = at_most.size
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
    """Evaluate density and gradient at prior draws, and estimate the cost of a fit."""
    began = time.perf_counter()
    try:
        strategy = engine.gradient_mode(problem)
        value_and_gradient, _ = traced_once(problem, strategy)
    except BayesDaslError as error:
        yield Finding("bad", "gradient", str(error), "mend this first")
        return
    choosing = time.perf_counter() - began
    run = many_gradients(value_and_gradient)
    positions = np.asarray(problem.prior(_GRADIENTS, key=key))
    began = time.perf_counter()
    value, gradient = run(positions)
    # If `choose` has compiled the program, its time is about half of that of both modes.
    compiling = max(time.perf_counter() - began, choosing / 2)
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


def _unused(problem: Problem, positions: np.ndarray, gradient: np.ndarray) -> Iterator[Finding]:
    """Warn of parameters that no datum depends on.

    For such a parameter, the gradient of the posterior equals that of the prior at all positions.

    Args:
        problem: the posterior.
        positions: unconstrained positions.
        gradient: the gradient of the log posterior at each position.
    """
    of_prior = np.asarray(jax.jit(jax.vmap(jax.grad(problem.log_prior)))(positions))
    moved = ~np.isclose(gradient, of_prior, rtol=_EQUAL, atol=_EQUAL).all(axis=0)
    leaves = paths(problem.model)
    unused = []
    for path, site in problem.sites.items():
        # A latent path may continue after the last datum, so part of it may be unused on purpose.
        depends = moved[site.start : site.start + site.size].any()
        if leaves[path].group != "latent" and not depends:
            unused.append(path)
    if unused:
        yield Finding(
            "warning", "unknown numbers",
            f"no datum depends on {', '.join(unused)}: the posterior will be the prior",
            "use it in the equation, or leave it out",
        )  # fmt: skip


def _cost(
    run: Evaluation,
    positions: np.ndarray,
    compiling: float,
    problem: Problem,
    engine: AbstractEngine,
) -> Finding:
    """Estimate the time of a fit from the time of a gradient.

    The median of several measurements is robust to other load on the machine.

    Args:
        run: evaluates the gradients at all positions.
        positions: unconstrained positions.
        compiling: the time of the first evaluation, which includes compilation.
        problem: the posterior.
        engine: the engine.
    """
    laps = []
    for _ in range(5):
        began = time.perf_counter()
        run(positions)
        laps.append(time.perf_counter() - began)
    each = float(np.median(laps)) / _GRADIENTS
    batch = engine.batch
    message = f"one gradient at {batch} positions takes {1e3 * each * batch:.2g} ms"
    cost = engine.cost(problem)
    if not cost:
        return Finding("good", "cost", message)
    compiled = cost.programs * compiling
    # time = (time of a gradient) · (positions at once) · (number of gradients) + compilation
    least, most = (each * batch * number + compiled for number in (cost.least, cost.most))
    seconds = f"{least:.0f}" if f"{least:.0f}" == f"{most:.0f}" else f"{least:.0f} to {most:.0f}"
    message += f"; {engine!r} should take about {seconds} s, compilation included"
    if most <= _PATIENCE:
        return Finding("good", "cost", message)
    return Finding(
        "warning", "cost", f"{message}: more than ten minutes", _cheaper(problem.model, engine)
    )


def _cheaper(model: Model, engine: AbstractEngine) -> str:
    """Return ways to a cheaper fit, in words, that apply to this model and engine."""
    ways = []
    # The cost of the other engines does not depend on the number of draws.
    if isinstance(engine, NUTS):
        ways.append(f"try fewer draws first, such as draws={max(engine.draws // 4, 1)}")
    solved = list(filter(_has_tolerance, jax.tree.leaves(model.layer, is_leaf=_has_tolerance)))
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
    """Whether a node is a solver with a relative tolerance."""
    return isinstance(getattr(node, "rtol", None), float)
