r"""Whether equations hold together in the units that are stated for their numbers and for the data.

A law of nature holds in any units: if each number $q_i$ of an equation $f$ is told in units that
make it $s_i$ times as large, the result is $s$ times as large,
$f(s_1 q_1, \dots, s_n q_n) = s\,f(q_1, \dots, q_n)$. This is tried with plain numbers at a few
points, whatever the equation is written in. A number inside of the code has no unit; one of which
none is stated may have any.

A number on a scale with an offset, such as a temperature in °C, is told in other units twice: as a
difference, and as what lies above the zero of the base units. An equation is right if one of the
two holds: `T - T_room` for both, `T + 273.15` for the second.
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
_FACTOR = 1.7
"""By which a base unit is changed."""
_TOLERANCE = 1e-6
_SUBJECT = "units of equations"
_LISTED = 6

type Numbers = dict[str, np.ndarray]
"""The numbers of an equation at some points, `(point, …)`, by name."""


class _Equation(NamedTuple):
    """A function of a model, and the units that are stated for its leaves and for `t`, states,
    forcings and results.
    """

    what: str
    function: Any
    states: Mapping[str, Any]
    forcings: tuple[str, ...]
    index: str
    stated: dict[str, str]
    results: dict[str, tuple[str, str]]
    """Those whose unit, divided by that of the second, is the unit of a result."""

    def texts(self) -> str:
        """The units that are stated, for a message."""
        said = {name.rsplit(".", 1)[-1]: units for name, units in self.stated.items() if units}
        return ", ".join(f"{name} {units}" for name, units in said.items())


def check_units(model: Model, data: xr.Dataset) -> None:
    """Refuse equations that are right in their dimensions and wrong by a factor, in the units that
    are stated.

    Nothing is computed where no two units differ by a factor, and nothing loads where numbers have
    none.

    Raises:
        ModelError: that names the units.
    """
    for equation in _equations(model, data):
        if _mixed(_factors(_units(equation))):
            for finding in _compare(data, equation):
                if finding.level == "bad":
                    raise ModelError(f"{finding.message}: {finding.remedy}")


def unit_findings(model: Model, data: xr.Dataset) -> Iterator[Finding]:
    """What the stated units say of the equations; nothing where numbers have none."""
    for equation in _equations(model, data) if installed() else ():
        yield from _compare(data, equation)


def units_unseen(model: Model, data: xr.Dataset) -> str:
    """That stated units of equations were not looked at, as a sentence; nothing where they were, or
    there are none.
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
    """What is tried: its name, the layer, the function, its states, and of which units its results
    are.
    """
    layer, found = model.layer, []
    for part in layer.trajectories or [layer]:
        for what, function, states in stated_functions(part):
            results = {name: (name, layer.index) for name in states}
            results = results or {name: (name, "") for name in part.outputs}
            found.append((what, part, function, states, results))
    return found


def _equations(model: Model, data: xr.Dataset) -> Iterator[_Equation]:
    """The functions of a model that say enough of their units; of a science with a correction, the
    science.
    """
    layer = model.layer
    for what, part, function, states, results in _functions(model):
        function = function.science if hasattr(function, "closure") else function
        if not all(name in data for name in part.forcings):  # what another layer makes
            continue
        own = {name: _stated(function, path) for name, (path, _) in _numbers(function).items()}
        if not any(own.values()):
            continue
        named = dict.fromkeys((layer.index, *states, *part.forcings, *results))
        # A state has the units of the data of its name only if it is what is observed.
        seen = {
            n
            for n in named
            if n in data.variables and (n not in states or getattr(part, "observe", None) is None)
        }
        beside = {
            n: part.units.get(n, "") or (str(data[n].attrs.get("units", "")) if n in seen else "")
            for n in named
        }
        beside[layer.index] = beside[layer.index].split(" since ")[0]
        yield _Equation(what, function, states, part.forcings, layer.index, own | beside, results)


def _numbers(function: Any) -> dict[str, tuple[tuple, Any]]:
    """The path and the value of each random leaf and each known number of a function."""
    found = {}
    for path, leaf in jtu.tree_flatten_with_path(function, is_leaf=is_random)[0]:
        number = isinstance(leaf, float) or (
            hasattr(leaf, "dtype") and np.issubdtype(leaf.dtype, np.inexact)
        )
        whole = isinstance(leaf, int) and bool(_stated(function, path))
        if path and (is_random(leaf) or number or whole):
            found[jtu.keystr(path)] = (path, leaf)
    return found


def _stated(function: Any, path: tuple) -> str:
    try:
        return stated_units(function, path)
    except TypeError:  # a known number inside of something whose parts have no names
        return ""


def _units(equation: _Equation) -> dict[str, Unit]:
    """What the stated units mean; what has none that can be read is taken for a plain number, for
    the time being.
    """
    found = {name: _readable(text) for name, text in equation.stated.items()}
    return {name: Unit("", 1.0, 1.0, {}) if unit is None else unit for name, unit in found.items()}


def _readable(text: str) -> Unit | None:
    unit = parsed(text) if text else None
    return None if unit is None or unit.scale is None else unit


def _silent(equation: _Equation) -> list[str]:
    """The numbers of which no unit is known, whole ones too."""
    silent = [name for name, text in equation.stated.items() if _readable(text) is None]
    return [
        name.rsplit(".", 1)[-1] for name in dict.fromkeys([*silent, *_whole(equation.function)])
    ]


def _whole(function: Any) -> list[str]:
    """Whole numbers of which no unit is stated: some may be amounts, but others are exponents."""
    return [
        jtu.keystr(path)
        for path, leaf in jtu.tree_flatten_with_path(function, is_leaf=is_random)[0]
        if path
        and isinstance(leaf, int)
        and not isinstance(leaf, bool)
        and not _stated(function, path)
    ]


def _factors(units: dict[str, Unit]) -> dict[str, float]:
    """By how much numbers are to be multiplied to be in units of one system, which is the nearest
    to theirs.
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
    return any(abs(np.log(factor)) > _TOLERANCE for factor in factors.values())


def _compare(data: xr.Dataset, equation: _Equation) -> Iterator[Finding]:
    units = _units(equation)
    bases = sorted({base for unit in units.values() for base in unit.dimensions})
    changes = [
        {n: _FACTOR ** unit.dimensions.get(base, 0.0) for n, unit in units.items()}
        for base in bases
    ]
    factors, offsets = _factors(units), {name: unit.offset for name, unit in units.items()}
    # 1. All changes as of differences, and once more with the offsets of scales if there are any.
    shifts = [dict.fromkeys(units, 0.0)] + ([offsets] if any(offsets.values()) else [])
    tried = [_Change(by, shift) for shift in shifts for by in (*changes, factors)]
    plain, *changed = _results(
        data, equation, [_Change(dict.fromkeys(units, 1.0), shifts[0]), *tried]
    )
    told = [{name: _undone(equation, name, found[name], by) for name in equation.results}
            for found, by in zip(changed, tried, strict=True)]  # fmt: skip
    # 2. The dimensions in which none of the two brings back the result, by what the equation is off
    # there.
    each = len(changes) + 1
    off: dict[str, dict[str, float]] = {name: {} for name in equation.results}
    as_differences = False
    for name in equation.results:
        for i, base in enumerate(bases):
            held = [_alike(told[i + k * each][name], plain[name]) for k in range(len(shifts))]
            as_differences |= held == [True, False]
            if not any(held):
                off[name][base] = _power(told[i][name], plain[name])
    silent = _silent(equation)
    # Where all dimensions agree without them, those of which no unit is known have none of these
    # dimensions.
    if silent and (any(off.values()) or not bases):
        message = (
            f"{equation.what} was not checked: no unit that can be read is stated for "
            f"{_listed(silent)}"
        )
        yield Finding("good", _SUBJECT, message)
        return
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
    """That a result is wrong in some dimensions, and which factor it lacks, as far as that is
    known.
    """
    said = (
        f"in the units that are stated ({equation.texts()}) {equation.what} of '{name}' is wrong "
        "in its dimension of "
        f"{' and '.join(base.strip('[]') for base in off)}"
    )
    example = "gravity: float = bd.field(units='m/s^2', default=9.81)"
    if np.isfinite([*off.values()]).all():
        lacking = {base.strip("[]"): -power for base, power in off.items()}
        said += (
            ": it lacks a factor in "
            f"{' '.join(f'{base}^{power:g}' for base, power in lacking.items())}"
        )
        if lacking in ({"length": 3.0}, {"length": -3.0}):
            said += ", such as a volume" if lacking["length"] > 0 else ", such as one over a volume"
            example = "volume: float = bd.field(units='L', default=32.0)"
    remedy = (
        "a unit is wrong, or a plain number inside of the equation has one: make it a field, such "
        "as"
    )
    return Finding("warning", _SUBJECT, said, f"{remedy} `{example}`")


class _Change(NamedTuple):
    """How numbers are told in other units: by which factors, and how far above what zero they
    count.
    """

    factors: Mapping[str, float]
    offsets: Mapping[str, float]

    def of(self, name: str, values: np.ndarray) -> np.ndarray:
        return (values + self.offsets[name]) * self.factors[name] - self.offsets[name]


def _undone(equation: _Equation, name: str, found: np.ndarray, change: _Change) -> np.ndarray:
    """A result of numbers in other units, in its own one."""
    of, over = equation.results[name]
    offset = 0.0 if over else change.offsets[of]
    return (found + offset) / (
        change.factors[of] / (change.factors[over] if over else 1.0)
    ) - offset


def _power(found: np.ndarray, plain: np.ndarray) -> float:
    """The power of a base unit by which a result is off; NaN where that is no one power."""
    with np.errstate(all="ignore"):
        powers = np.log(found / plain) / np.log(_FACTOR)
    powers = powers[np.isfinite(powers)]
    return (
        float(np.round(powers[0], 3))
        if powers.size and np.allclose(powers, powers[0], atol=1e-4)
        else np.nan
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (
        f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    )


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    finite = np.isfinite(found) & np.isfinite(expected)
    difference = np.abs(found - expected)[finite].max(initial=0.0)
    return bool(difference <= _TOLERANCE * np.abs(expected)[finite].max(initial=0.0))


def _times(found: np.ndarray, right: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        ratio = (found / right)[np.isfinite(found / right)]
    middle = float(np.median(ratio)) if ratio.size else np.nan
    even = ratio.size and np.allclose(ratio, middle, rtol=1e-4, atol=0.0)
    return f"comes out {middle:.4g} times as large as it is" if even else "comes out wrong"


def _results(
    data: xr.Dataset, equation: _Equation, changes: list[_Change]
) -> list[dict[str, np.ndarray]]:
    """What an equation gives at a few points if its numbers are told in other units: in one
    program.
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
        states, forced = (
            {name: numbers[name] for name in some} for some in (equation.states, equation.forcings)
        )
        found: Mapping = function(numbers[equation.index], states, forced)
        return {name: found[name] for name in equation.results}

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(every))
    parts = {name: np.split(v, len(changes)) for name, v in found.items()}
    return [{name: v[i] for name, v in parts.items()} for i in range(len(changes))]


def _points(data: xr.Dataset, equation: _Equation) -> Numbers:
    """Numbers of an equation at a few prior draws, rows of the data, and states about where they
    begin.
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
