"""The text of a study file that `write_study` makes of facts about a table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.dates import seconds_in


@dataclass(frozen=True)
class Series:
    """What a study needs to know of a column of numbers.

    Args:
        name: its name in the study.
        label: its label in the table.
        units: its units, if they are known.
        kind: "count", "positive" or "real".
        low: the value above which 98 % lie.
        high: the value below which 98 % lie.
        mean: the mean.
        spread: the standard deviation.
        first: the first value.
        gaps: the number of missing values.
        open_ended: whether the first or the last value is missing.
    """

    name: str
    label: str
    units: str
    kind: str
    low: float
    high: float
    mean: float
    spread: float
    first: float
    gaps: int
    open_ended: bool

    @property
    def is_positive(self) -> bool:
        """Whether the equation keeps it positive."""
        return self.kind != "real"


@dataclass(frozen=True)
class Facts:
    """What the text of a study needs.

    Args:
        name: name of the study.
        file: name of the study file.
        table: path of the table, from the study file.
        values: labels of the observables.
        options: further arguments of `from_table`.
        formats: further formats in which the dates may be meant.
        step: seconds between the rows of a regular series that lacks some of them.
        last: the number of last rows that are used; None for all.
        split: the last time of the training data.
        held_out: subjects that are held out instead.
        unit: the unit of time, if it is known.
        span: length of the training data.
        between: typical time between two rows.
        yearly: whether the equation has an annual cycle.
        series: the observables.
        forcings: the forcings.
        left_out: labels of the other columns, with reasons.
        members: the subjects.
    """

    name: str
    file: str
    table: str
    values: list[str]
    options: dict[str, Any]
    formats: Sequence[str]
    step: int | None
    last: int | None
    split: Any
    held_out: list[Any]
    unit: str
    span: float
    between: float
    yearly: bool
    series: list[Series]
    forcings: list[Series]
    left_out: dict[str, str]
    members: list[Any]

    @property
    def year(self) -> float:
        """The length of a year in the unit of time."""
        return 31557600 / seconds_in(self.unit)

    def field(self, series: Series, name: str) -> str:
        """Return the name of a parameter of an observable."""
        return name if len(self.series) == 1 else f"{series.name}_{name}"


def text_of(facts: Facts) -> str:
    """Return the text of a study file.

    Args:
        facts: what it needs.

    Returns:
        Python code with comments.
    """
    parts = [_head(facts), _load(facts), _equation(facts), _model(facts), _study(facts)]
    return "\n\n".join(part.strip("\n") + "\n" for part in parts)


def _head(facts: Facts) -> str:
    split, what = facts.split, "the last training time; later values are forecast"
    if facts.held_out:
        split, what = {"subject": facts.held_out}, "subjects that the fit does not see"
    left = [f"# Left out: {label!r}, which {why}." for label, why in facts.left_out.items()]
    numpy = "import jax.numpy as jnp\n" if _needs_jax(facts) else ""
    numpy += "import numpy as np\n" if facts.step else ""
    return f'''
"""{facts.name}: a study of {facts.table}, written by `bayes-dasl new`.

It runs as it is: it fits an equation that holds for many things, and forecasts what was held out.
Lines with EDIT are guesses from the table. Replace them by what you know.

    bayes-dasl check {facts.file}          takes seconds
    bayes-dasl run {facts.file} --quick    a first look
    bayes-dasl run {facts.file}            the whole run, with report.html
"""

from pathlib import Path

{numpy}import numpyro.distributions as dist

import bayes_dasl as bd

TABLE = Path(__file__).parent / {_code(facts.table)}
SPLIT = {_code(split)}  # EDIT: {what}
{chr(10).join(left)}
'''


def _needs_jax(facts: Facts) -> bool:
    """Whether the equation calls a function of JAX."""
    driven = facts.forcings or facts.yearly
    return facts.yearly or bool(driven and any(one.is_positive for one in facts.series))


def _load(facts: Facts) -> str:
    options = [f"        value={_code(facts.values)},  # EDIT: the columns that are forecast"]
    notes = {
        "time": "the column of times",
        "forcings": "EDIT: columns that drive them, known in the future too",
        "missing": "codes for a missing value",
        "date_format": "".join(f"or {other}? " for other in facts.formats),
        "replicates": "some times have several values",
    }
    for name, value in facts.options.items():
        note = notes.get(name)
        options.append(f"        {name}={_code(value)}," + (f"  # {note}" if note else ""))
    lines = ["    data = bd.from_table(", "        TABLE,", *options, "    )"]
    if facts.step:
        lines += [
            "    # A row for each time, since the equation needs its forcings at each.",
            '    first, last = data["time"].values[[0, -1]]',
            f'    step = np.timedelta64({facts.step}, "s")',
            "    data = data.reindex(time=np.arange(first, last + step, step))",
        ]
    for one in facts.forcings:
        if one.gaps and not facts.members:
            rule = f"{_digits(one.mean)}" if one.open_ended else '"interpolate"'
            lines.append(
                f"    data = bd.data.fill_gaps(data, {one.name}={rule})"
                "  # EDIT: how gaps of a forcing are filled"
            )
    if facts.last:
        lines.append(
            f"    data = data.isel(time=slice(-{facts.last}, None))"
            "  # EDIT: the last rows, so that a first run takes minutes"
        )
    gaps = [f"{one.name} {one.gaps}" for one in facts.series if one.gaps]
    missing = f" Missing: {', '.join(gaps)}." if gaps and not facts.members else ""
    return (
        'def load():\n    """Read the table; missing values are NaN.' + missing + '"""\n'
        + "\n".join([*lines, "    return data"])
    )  # fmt: skip


def _equation(facts: Facts) -> str:
    fields, body, rates = [], [], []
    per = f"1/{facts.unit}" if facts.unit else ""
    # 1. Typical values of forcings are known numbers with units.
    for one in facts.forcings:
        fields += [_field(f"{one.name}_mean", one.units), _field(f"{one.name}_sd", one.units)]
        value = f"u[{_code(one.name)}]"
        body.append(f"{one.name} = ({value} - self.{one.name}_mean) / self.{one.name}_sd")
    if facts.yearly:
        fields.append(_field("year", facts.unit))
        body.append("angle = 2 * jnp.pi * t / self.year")
    # 2. Each observable relaxes towards an equilibrium that forcings and season move.
    for one in facts.series:
        rate, level = facts.field(one, "rate"), facts.field(one, "equilibrium")
        # Effects on a positive value are factors, so that they have no units.
        units = "" if one.is_positive else one.units
        moved = [(facts.field(one, f"{f.name}_effect"), f.name) for f in facts.forcings]
        if facts.yearly:
            moved += [(facts.field(one, wave), f"jnp.{wave[:3]}(angle)") for wave in _WAVES]
        fields += [_field(rate, per), _field(level, one.units)]
        fields += [_field(name, units) for name, _ in moved]
        target = f"self.{level}"
        if moved:
            moves = f"{target} * jnp.exp(moved)" if one.is_positive else f"{target} + moved"
            body += [*_sum(moved), f"{one.name}_target = {moves}"]
            target = f"{one.name}_target"
        now = f"y[{_code(one.name)}]"
        rates.append(f"{_code(one.name)}: self.{rate} * ({target} - {now}),")
        if len(rates[-1]) > _LONGEST:
            rates[-1:] = [f"{_code(one.name)}: self.{rate}", f"* ({target} - {now}),"]
    lines = [f"        {line}" for line in body]
    returned = [f"            {rate}" for rate in rates]
    what = ", moved by what drives it" if facts.forcings else ""
    season = ", with an annual cycle" if facts.yearly else ""
    return "\n".join(
        [
            "class Relaxation(bd.Module):",
            f'    r"""Relaxation towards an equilibrium{what}{season}.  EDIT: your own equation.',
            "",
            r"    $\dot y = r\,(y_\infty - y)$",
            '    """',
            "",
            *(f"    {line}" for line in fields),
            "",
            "    def __call__(self, t, y, u):",
            *lines,
            "        return {",
            *returned,
            "        }",
        ]
    )


# Longest line of a rate that fits into 100 columns.
_LONGEST = 88
_WAVES = ("cosine", "sine")


def _sum(moved: Sequence[tuple[str, str]]) -> list[str]:
    """Return the lines that add up products."""
    first, *others = (f"self.{name} * {by}" for name, by in moved)
    return [f"moved = {first}", *(f"moved += {term}" for term in others)]


def _field(name: str, units: str) -> str:
    """Return the line of a field, with its units if they are known."""
    return f"{name}: bd.Scalar" + (f" = bd.field(units={_code(units)})" if units else "")


def _model(facts: Facts) -> str:
    # 1. Priors from the ranges of the data.
    arguments = [f"year={_digits(facts.year)},"] if facts.yearly else []
    for one in facts.forcings:
        arguments += [f"{one.name}_mean={_digits(one.mean)},"]
        arguments += [f"{one.name}_sd={_digits(one.spread)},"]
    for one in facts.series:
        rate, level = facts.field(one, "rate"), facts.field(one, "equilibrium")
        slow, fast = 1.0 / facts.span, 1.0 / facts.between
        typical = f"bd.between({_digits(slow)}, {_digits(max(fast, 3 * slow))})"
        unit = facts.unit or "unit of time"
        arguments.append(f"# EDIT: how fast {one.name} relaxes, per {unit}, and to what level.")
        arguments.append(f"{rate}={_of_each(typical, facts)},")
        arguments.append(f"{level}={_equilibrium(one, facts)},")
        effect = "0.5" if one.is_positive else _digits(one.spread)
        moved = [f"{f.name}_effect" for f in facts.forcings]
        moved += _WAVES if facts.yearly else ()
        arguments += [f"{facts.field(one, name)}=dist.Normal(0.0, {effect})," for name in moved]
    # 2. The layer and the noise.
    initial = [f"            {_code(one.name)}: {_initial(one, facts)}," for one in facts.series]
    known = [*facts.series, *facts.forcings]
    units = {one.name: one.units for one in known if one.units}
    units |= {"time": facts.unit} if facts.unit else {}
    options = [f"        units={_code(units)},"] if units else []
    if facts.forcings:
        options.append(f"        forcings={_code([one.name for one in facts.forcings])},")
    noise = [f"        {_code(one.name)}: {_noise(one)}," for one in facts.series]
    made = "return bd.ODE("
    each = []
    if facts.members:
        made = "ode = bd.ODE("
        each = ['    return bd.Each(ode, members=load()["subject"].values)']
    return "\n".join(
        [
            "def science():",
            '    """Return the equation with a prior in the place of each unknown number."""',
            "    return Relaxation(",
            *(f"        {line}" for line in arguments),
            "    )",
            "",
            "",
            "def layer():",
            '    """Return the layer: the equation, and where it starts."""',
            f"    {made}",
            "        science(),",
            "        initial={  # EDIT: the states at the first time",
            *initial,
            "        },",
            *options,
            "    )",
            *each,
            "",
            "",
            "def model(layer):",
            '    """Return the model: a layer, and the noise of the data."""',
            "    noise = {  # EDIT: the scatter of the data around the states",
            *noise,
            "    }",
            "    return bd.Model(layer, noise)",
        ]
    )


def _of_each(prior: str, facts: Facts) -> str:
    """Return a positive prior, that of a population if there are subjects."""
    return f"bd.population({prior}, dist.HalfNormal(0.5))" if facts.members else prior


def _equilibrium(one: Series, facts: Facts) -> str:
    """Return the prior of an equilibrium."""
    if one.is_positive:
        low = max(one.low, one.high / 100)
        high = max(one.high, 1.5 * low)
        return _of_each(f"bd.between({_digits(low)}, {_digits(high)})", facts)
    typical = f"dist.Normal({_digits(one.mean)}, {_digits(2 * one.spread)})"
    if not facts.members:
        return typical
    return (
        f"bd.varying(bd.dependent(dist.Normal, {typical}, dist.HalfNormal({_digits(one.spread)})))"
    )


def _initial(one: Series, facts: Facts) -> str:
    """Return the prior of a first state."""
    prior = f"dist.Normal({_digits(one.first)}, {_digits(one.spread)})"
    if one.is_positive:
        first = max(one.first, one.high / 100)
        prior = f"bd.between({_digits(first / 4)}, {_digits(4 * first)})"
    return f"bd.varying({prior})" if facts.members else prior


def _noise(one: Series) -> str:
    """Return the noise of an observable."""
    return {
        "count": "bd.NegativeBinomialNoise(concentration=bd.between(0.5, 50.0))",
        "positive": "bd.LogNormalNoise(scale=dist.HalfNormal(0.5))",
        "real": f"bd.NormalNoise(scale=dist.HalfNormal({_digits(one.spread)}))",
    }[one.kind]


def _study(facts: Facts) -> str:
    lines = [
        "def study():",
        '    """Return the study that `bayes-dasl run` runs."""',
        "    data = load()",
    ]
    hybrid = []
    if not facts.members:
        first = facts.series[0].name
        hybrid = [
            "        # EDIT: uncomment to let a small network learn what the equation misses.",
            "        # competitors={",
            '        #     "hybrid": model(',
            "        #         bd.corrected(layer(), bd.split(data, time=SPLIT)[0], "
            f"{_code(first)})",
            "        #     )",
            "        # },",
        ]
    return "\n".join(
        [
            *lines,
            "    return bd.Study(",
            f"        name={_code(facts.name)},",
            "        model=model(layer()),",
            '        label="relaxation",',
            *hybrid,
            "        data=data,",
            "        split=SPLIT,",
            "        engine=bd.NUTS(),",
            "    )",
        ]
    )


def _code(value: Any) -> str:
    """Return a value as Python code, with double quotes."""
    return repr(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _digits(value: float) -> str:
    """Return a number with three digits; more of a large one."""
    return repr(float(f"{value:.3g}" if abs(value) < 100 else f"{value:.5g}"))
