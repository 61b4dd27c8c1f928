r"""Check that equations are consistent in the units of their parameters and of the data.

A law of nature holds in any units. Change the unit of each argument $q_i$ of an equation $f$, so
that its number becomes $s_i q_i$. Then the result must change by the factor $s$ of its own unit,
$f(s_1 q_1, \dots, s_n q_n) = s\,f(q_1, \dots, q_n)$. The check evaluates the equation at a few
points, so that it does not depend on how the equation is written. A literal number inside the code
has no unit.

A temperature in °C has a scale with an offset. The check changes the unit of such numbers in two
ways: as differences, and as distances from absolute zero. One of the two must agree. Both do for
`T - T_room`, the second does for `T + 273.15`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np
import xarray as xr

from .._findings import Finding
from .._jax.tree import stated_units
from ..data.units import Unit, installed, parsed
from ..errors import ModelError
from ..layers.layer import stated_functions
from ..random import is_random, paths
from .model import Model

_POINTS = 8
# Factor by which each base unit is changed. Its powers are neither 1 nor powers of ten.
_FACTOR = 1.7
_TOLERANCE = 1e-6
_SUBJECT = "units of equations"
# Most names in one message.
_LISTED = 6

type Numbers = dict[str, np.ndarray]
"""Values of the arguments of an equation at some points, `(point, …)` by name."""


class _Equation(NamedTuple):
    """A function `(t, y, u)` of a model, with stated units of its leaves, arguments and results.

    Args:
        what: the name of the function in messages.
        function: the function.
        states: the initial states by name.
        forcings: the names of the forcings.
        index: the name of the index.
        stated: the stated units by name or path; empty text if none are stated.
        results: for each result a pair of names (a, b): its unit is that of a divided by that of b.
            An empty b stands for no division.
    """

    what: str
    function: Any
    states: Mapping[str, Any]
    forcings: tuple[str, ...]
    index: str
    stated: dict[str, str]
    results: dict[str, tuple[str, str]]

    def texts(self) -> str:
        """Return the stated units as one text for a message, such as `rate 1/day, y mg/L`."""
        said = {name.rsplit(".", 1)[-1]: units for name, units in self.stated.items() if units}
        return ", ".join(f"{name} {units}" for name, units in said.items())


def check_units(model: Model, data: xr.Dataset) -> None:
    """Refuse equations that are wrong by a factor, because they mix units such as hours and days.

    Args:
        model: the model.
        data: the data, whose attributes state units.

    Raises:
        ModelError: if an equation is wrong by a factor; the message names the units.
    """
    for equation in _equations(model, data):
        # If no two units differ by a factor, nothing can be wrong, and nothing is evaluated.
        if _mixed(_factors(_units(equation))):
            for finding in _compare(data, equation):
                if finding.level == "bad":
                    raise ModelError(f"{finding.message}: {finding.remedy}")


def unit_findings(model: Model, data: xr.Dataset) -> Iterator[Finding]:
    """Yield the findings of the check of units, for each equation with stated units."""
    for equation in _equations(model, data) if installed() else ():
        yield from _compare(data, equation)


def units_unseen(model: Model, data: xr.Dataset) -> str:
    """Return a sentence that says why the stated units of equations were not checked.

    The text is empty if they were checked, or if no units are stated.
    """
    if not _functions(model) and any(leaf.units for leaf in paths(model).values()):
        return (
            f"Units of equations were not looked at: those of {type(model.layer).__name__} are not "
            "tried in others."
        )
    if not installed() and any(True for _ in _equations(model, data)):
        return (
            "Units of equations were not looked at, and those of data as texts: pip install "
            "'bayes-dasl[units]'."
        )
    return ""


def _functions(
    model: Model,
) -> list[tuple[str, Any, Any, Mapping[str, Any], dict[str, tuple[str, str]]]]:
    """List the functions of a model whose units can be checked.

    Returns:
        For each function: its name in messages, its layer, the function, the initial states whose
        rates it returns, and the units of its results as in `_Equation.results`.
    """
    layer = model.layer
    found = []
    for part in layer.trajectories or [layer]:
        for what, function, states in stated_functions(part):
            results = {name: (name, layer.index) for name in states}
            results = results or {name: (name, "") for name in part.outputs}
            found.append((what, part, function, states, results))
    return found


def _equations(model: Model, data: xr.Dataset) -> Iterator[_Equation]:
    """Yield the functions of a model in which the units of some number are stated.

    For a science with a learned correction the function is the science alone.
    """
    layer = model.layer
    for what, part, function, states, results in _functions(model):
        function = function.science if hasattr(function, "closure") else function
        # A forcing that is not in the data comes from another layer, so its units are unknown.
        if not all(name in data for name in part.forcings):
            continue
        own = {name: _stated(function, path) for name, (path, _) in _numbers(function).items()}
        if not any(own.values()):
            continue
        named = dict.fromkeys((layer.index, *states, *part.forcings, *results))
        # With `observe`, a variable of the data may have the name of a state but be another
        # quantity.
        own_states = states if getattr(part, "observe", None) is not None else ()
        beside = {}
        for n in named:
            of_data = n in data.variables and n not in own_states
            held = str(data[n].attrs.get("units", "")) if of_data else ""
            beside[n] = part.units.get(n, "") or held
        beside[layer.index] = beside[layer.index].split(" since ")[0]
        yield _Equation(what, function, states, part.forcings, layer.index, own | beside, results)


def _numbers(function: Any) -> dict[str, tuple[tuple, Any]]:
    """Return the path and the value of each random leaf and known number in a function.

    Returns:
        Pairs (path, value), by the path as text.
    """
    found = {}
    for path, leaf in jtu.tree_flatten_with_path(function, is_leaf=is_random)[0]:
        number = np.issubdtype(getattr(leaf, "dtype", type(leaf)), np.inexact)
        # A whole number may be an exponent, unless it has a unit.
        whole = isinstance(leaf, int) and bool(_stated(function, path))
        if path and (is_random(leaf) or number or whole):
            found[jtu.keystr(path)] = (path, leaf)
    return found


def _stated(function: Any, path: tuple) -> str:
    """Return the stated units of a leaf as text; empty if there are none."""
    try:
        return stated_units(function, path)
    except TypeError:  # inside an object whose parts have no names
        return ""


def _units(equation: _Equation) -> dict[str, Unit]:
    """Parse the stated units by name; an unknown unit is treated as dimensionless."""
    found = {name: _readable(text) for name, text in equation.stated.items()}
    return {name: Unit("", 1.0, 1.0, {}) if unit is None else unit for name, unit in found.items()}


def _readable(text: str) -> Unit | None:
    """Parse a unit; None if it is unknown or has no linear scale."""
    unit = parsed(text) if text else None
    if unit is None or unit.scale is None:
        return None
    return unit


def _silent(equation: _Equation) -> list[str]:
    """List the names of the numbers without a known unit, including whole numbers."""
    silent = [name for name, text in equation.stated.items() if _readable(text) is None]
    return [
        name.rsplit(".", 1)[-1] for name in dict.fromkeys([*silent, *_whole(equation.function)])
    ]


def _whole(function: Any) -> list[str]:
    """List the paths of whole numbers without a unit, which may be amounts or exponents."""
    return [
        jtu.keystr(path)
        for path, leaf in jtu.tree_flatten_with_path(function, is_leaf=is_random)[0]
        if path
        and isinstance(leaf, int)
        and not isinstance(leaf, bool)
        and not _stated(function, path)
    ]


def _factors(units: dict[str, Unit]) -> dict[str, float]:
    r"""Return the factors that convert all numbers to the nearest consistent system of units.

    Let $c_i$ be the scale of unit i and P the matrix of the powers of base dimensions in all units.
    The logarithms b of the scales of base units are chosen by least squares, $\min_b \|\log c - P
    b\|$. The factors are $e^{\log c - P b}$.

    Args:
        units: the units by name.

    Returns:
        The factor of each number, by name.
    """
    bases = sorted({base for unit in units.values() for base in unit.dimensions})
    powers = np.array(
        [[unit.dimensions.get(base, 0.0) for base in bases] for unit in units.values()]
    )
    logs = np.log([unit.scale or 1.0 for unit in units.values()])
    if bases:
        logs = logs - powers @ np.linalg.lstsq(powers, logs, rcond=None)[0]
    return dict(zip(units, np.exp(logs), strict=True))


def _mixed(factors: Mapping[str, float]) -> bool:
    """Whether a factor differs from 1, so that units of one dimension are mixed."""
    return any(abs(np.log(factor)) > _TOLERANCE for factor in factors.values())


def _compare(data: xr.Dataset, equation: _Equation) -> Iterator[Finding]:
    """Check one equation, and yield findings: wrong dimensions, a wrong factor, or no fault."""
    # 1. The changes of units: one for each base dimension, and one to a consistent system.
    units = _units(equation)
    bases = sorted({base for unit in units.values() for base in unit.dimensions})
    changes = [
        {n: _FACTOR ** unit.dimensions.get(base, 0.0) for n, unit in units.items()}
        for base in bases
    ]
    factors = _factors(units)
    offsets = {name: unit.offset for name, unit in units.items()}
    # 2. Apply each change to differences. If a scale has an offset, apply each change also to
    # distances from absolute zero.
    shifts = [dict.fromkeys(units, 0.0)] + ([offsets] if any(offsets.values()) else [])
    tried = [_Change(by, shift) for shift in shifts for by in (*changes, factors)]
    plain, *changed = _results(
        data, equation, [_Change(dict.fromkeys(units, 1.0), shifts[0]), *tried]
    )
    told = []
    for found, by in zip(changed, tried, strict=True):
        told.append({n: _undone(equation, n, found[n], by) for n in equation.results})
    # 3. For each result, collect the dimensions for which neither way reproduces the result in the
    # stated units, with the power of the base unit by which the result is wrong.
    each = len(changes) + 1
    off: dict[str, dict[str, float]] = {name: {} for name in equation.results}
    as_differences = False
    for name in equation.results:
        for i, base in enumerate(bases):
            held = [_alike(told[i + k * each][name], plain[name]) for k in range(len(shifts))]
            as_differences |= held == [True, False]
            if not any(held):
                off[name][base] = _power(told[i][name], plain[name])
    # 4. A number without a stated unit may explain a wrong dimension. If all dimensions agree,
    # such a number is dimensionless.
    silent = _silent(equation)
    if silent and (any(off.values()) or not bases):
        message = (
            f"{equation.what} was not checked: no unit that can be read is stated for "
            f"{_few_of(silent)}"
        )
        yield Finding("good", _SUBJECT, message)
        return
    # 5. If dimensions are right, a factor may still be wrong, such as hours in place of days.
    for name, bases_off in off.items():
        if bases_off:
            yield _wrong_dimension(equation, name, bases_off)
            continue
        several = [told[(k + 1) * each - 1][name] for k in range(len(shifts))]
        right = several[0]
        if not any(_alike(values, plain[name]) for values in several):
            yield Finding(
                "bad", _SUBJECT,
                f"in the units that are stated ({equation.texts()}) {equation.what} of '{name}' "
                f"{_times(plain[name], right)}",
                "state numbers and data in units of one system, or make a number that converts "
                "them a field, such as "
                "`hours_a_day: float = bd.field(units='hour/day', default=24.0)`",
            )  # fmt: skip
            return
    if not any(off.values()):
        only = (
            ", if numbers on a scale with an offset are differences or their zero is one of the "
            "numbers with a unit"
        )
        said = (
            f"{equation.what} holds in the units that are stated "
            f"({equation.texts()}){only if as_differences else ''}"
        )
        yield Finding("good", _SUBJECT, said)


def _wrong_dimension(equation: _Equation, name: str, off: Mapping[str, float]) -> Finding:
    """Return the finding on a result with a wrong dimension.

    Args:
        equation: the equation.
        name: the result.
        off: by base dimension, the power of the base unit by which the result is wrong; NaN if it
            is unknown.
    """
    said = (
        f"in the units that are stated ({equation.texts()}) {equation.what} of '{name}' is wrong "
        f"in its dimension of {' and '.join(base.strip('[]') for base in off)}"
    )
    example = "gravity: float = bd.field(units='m/s^2', default=9.81)"
    if np.isfinite([*off.values()]).all():
        lacking = {base.strip("[]"): -power for base, power in off.items()}
        powers = " ".join(f"{base}^{power:g}" for base, power in lacking.items())
        said += f": it lacks a factor in {powers}"
        if lacking in ({"length": 3.0}, {"length": -3.0}):
            said += ", such as a volume" if lacking["length"] > 0 else ", such as one over a volume"
            example = "volume: float = bd.field(units='L', default=32.0)"
    remedy = (
        "a unit is wrong, or a plain number inside of the equation has one: make it a field, such "
        f"as `{example}`"
    )
    return Finding("warning", _SUBJECT, said, remedy)


class _Change(NamedTuple):
    """A change of units.

    Args:
        factors: the factor of each number, by name.
        offsets: the offset of the scale of each number, by name; 0 for a scale without offset.
    """

    factors: Mapping[str, float]
    offsets: Mapping[str, float]

    def of(self, name: str, values: np.ndarray) -> np.ndarray:
        """Express values q in the other units: $(q + o) s - o$, with offset o and factor s."""
        return (values + self.offsets[name]) * self.factors[name] - self.offsets[name]


def _undone(equation: _Equation, name: str, found: np.ndarray, change: _Change) -> np.ndarray:
    """Convert a result, found after a change of units, back to its stated units.

    Args:
        equation: the equation.
        name: the result.
        found: its values, `(point, …)`.
        change: the change of units.
    """
    of, over = equation.results[name]
    offset = 0.0 if over else change.offsets[of]
    factor = change.factors[of] / (change.factors[over] if over else 1.0)
    return (found + offset) / factor - offset


def _power(found: np.ndarray, plain: np.ndarray) -> float:
    """Return the power of a base unit by which a result is wrong; NaN if points disagree.

    Args:
        found: the result after the change of the base unit, converted back.
        plain: the result in the stated units.
    """
    with np.errstate(all="ignore"):
        powers = np.log(found / plain) / np.log(_FACTOR)
    powers = powers[np.isfinite(powers)]
    if powers.size and np.allclose(powers, powers[0], atol=1e-4):
        return float(np.round(powers[0], 3))
    return np.nan


def _few_of(names: list[str]) -> str:
    """Return the first names as text, followed by the number of the remaining names."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two results agree at all finite points."""
    finite = np.isfinite(found) & np.isfinite(expected)
    difference = np.abs(found - expected)[finite].max(initial=0.0)
    return bool(difference <= _TOLERANCE * np.abs(expected)[finite].max(initial=0.0))


def _times(found: np.ndarray, right: np.ndarray) -> str:
    """Return words that say by which factor a result is too large.

    Args:
        found: the result in the stated units.
        right: the result in a consistent system of units.
    """
    with np.errstate(all="ignore"):
        ratio = (found / right)[np.isfinite(found / right)]
    middle = float(np.median(ratio)) if ratio.size else np.nan
    even = ratio.size and np.allclose(ratio, middle, rtol=1e-4, atol=0.0)
    if even:
        return f"comes out {middle:.4g} times as large as it is"
    return "comes out wrong"


def _results(
    data: xr.Dataset, equation: _Equation, changes: list[_Change]
) -> list[dict[str, np.ndarray]]:
    """Evaluate an equation at a few points after each change of units, in one program.

    Returns:
        For each change the results, `(point, …)` by name.
    """
    leaves, structure = jtu.tree_flatten_with_path(equation.function, is_leaf=is_random)
    values = _points(data, equation)
    every = {
        name: np.concatenate([change.of(name, v) for change in changes])
        for name, v in values.items()
    }

    def at(numbers):
        function = jtu.tree_unflatten(
            structure, [numbers.get(jtu.keystr(path), leaf) for path, leaf in leaves]
        )
        states = {name: numbers[name] for name in equation.states}
        forced = {name: numbers[name] for name in equation.forcings}
        found: Mapping = function(numbers[equation.index], states, forced)
        return {name: found[name] for name in equation.results}

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(every))
    parts = {name: np.split(v, len(changes)) for name, v in found.items()}
    return [{name: v[i] for name, v in parts.items()} for i in range(len(changes))]


def _points(data: xr.Dataset, equation: _Equation) -> Numbers:
    """Draw the arguments of an equation at a few points.

    Random leaves are drawn from their prior, states around their initial values. Times and forcings
    are those of random rows of the data.
    """

    def over_points(leaf: Any) -> np.ndarray:
        if is_random(leaf):
            return np.asarray(leaf.sample(jax.random.key(len(found)), (_POINTS,)))
        return np.broadcast_to(leaf, (_POINTS, *np.shape(leaf))).astype(float)

    found: Numbers = {}
    rng = np.random.default_rng(0)
    rows = rng.integers(data.sizes[equation.index], size=_POINTS)
    for name, (_, leaf) in _numbers(equation.function).items():
        found[name] = over_points(leaf)
    for name, initial in equation.states.items():
        begun = over_points(initial)
        found[name] = np.where(begun == 0, 1.0, begun) * rng.uniform(0.5, 1.5, begun.shape)
    for name in (equation.index, *equation.forcings):
        found[name] = np.asarray(data[name].values, float)[rows]
    return found
