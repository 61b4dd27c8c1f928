"""Tidy tables, a row for each measurement or each time, as the datasets that models take."""

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DataError
from .columns import as_coordinate, observations, sorted_within, subjects, times
from .frames import DATE_FORMAT, MISSING, Frame, Source, once


class Seen(NamedTuple):
    """What was measured of one observable.

    Args:
        name: of the observable.
        rows: of the table, those in which there is a value.
        values: in the units that are wanted, one for each of these rows.
        units: those units.
        others: `<name>_censored` and `<name>_error`, for the same rows.
        copy: how many rows before each are of the same time and subject.
    """

    name: str
    rows: np.ndarray
    values: np.ndarray
    units: str
    others: dict[str, np.ndarray]
    copy: np.ndarray


def from_table(
    table: Source,
    value: str | Iterable[str],
    *,
    time: str = "time",
    observable: str | None = None,
    subject: str | None = None,
    error: str | Mapping[str, str] | None = None,
    censored: str | Mapping[str, str] | None = None,
    limit: str | Mapping[str, str] | None = None,
    covariates: str | Iterable[str] = (),
    forcings: str | Iterable[str] = (),
    names: Mapping[Any, str] | None = None,
    units: Mapping[str, str] | None = None,
    to: Mapping[str, str] | None = None,
    replicates: bool = False,
    missing: float | str | Iterable[float | str] = (),
    date_format: str | None = None,
) -> xr.Dataset:
    """The dataset that models take, from a table with a row for each measurement or each time.

    Columns are found whatever their case, and with units in brackets after their name: `"conc"`
    finds `Conc (mg/L)`. Empty cells, `.` and `NA` are missing. Of a table in NONMEM's layout, rows
    whose `evid` is not 0 or whose `mdv` is 1 are no observations; `bd.dosing.doses` reads them.

    Args:
        table: a pandas DataFrame, or the path of a CSV or Parquet file.
        value: the column of what was measured, or several of them, one for each observable.
        time: the column of times: numbers, or dates. Those with an offset from UTC become UTC,
            periods their begin.
        observable: the column that says what the value of a row is of, where one column holds
            several observables.
        subject: the column that says whose the row is; values are then `(time, subject)`, with the
            numbers or the names in this column as the coordinate `subject`.
        error: the column of known standard errors, in the units of the value unless its header or
            `units` say others; a dict by value where there are several. They become
            `<observable>_error`.
        censored: the column of flags: 1 where the value is only known to lie below its limit, −1
            where above, 0 or empty where it was seen; a dict where there are several values. They
            become `<observable>_censored`.
        limit: the column of these limits, in units as for `error`; unless given, the value of a
            flagged row is its limit.
        covariates: columns of which each subject has one number: `(subject,)`. Of one with words
            there is a variable of zeros and ones for each word, such as `sex_male`; `score` with
            `>= 5` becomes `score_ge_5`.
        forcings: columns that drive the model, kept at all their times, also where nothing was
            observed. Gaps of one series stay missing, for `bd.data.fill_gaps`; with subjects there
            must be a number in each row.
        names: what columns, or the codes in the column `observable`, are called in the dataset:
            `{"DV": "conc"}`.
        units: what columns are in, as in `{"conc": "mg/L"}`, or the name of a column that holds the
            units of each row. They may also stand in the header in brackets, or in
            `table.attrs["units"]`, a dict.
        to: the units that are wanted, by name in the dataset: `{"time": "hour"}`.
        replicates: whether several values of one observable at one time, of one subject, are
            measurements of their own.
        missing: a number or text, or several, such as -9999, that stand for a missing value in
            columns of values, errors, limits, forcings and covariates. A study reads later files of
            this table with the same ones.
        date_format: how dates are written, as in `"%d.%m.%Y"`; ISO 8601, as in 2004-02-29 13:30,
            unless given. A study reads later files of this table likewise.

    Returns:
        A dataset with the coordinate `time`, and `subject` if there are subjects, NaN where nothing
        was observed.

    Raises:
        DataError: that names the row, as a line of the file or a label of the DataFrame, and says
            what would be right.
        ReadError: for a file that is not there.

    Example:
        ```python
        table = pd.DataFrame({"day": [0, 1, 2], "flow (m3/s)": [1.2, 0.9, 0.7]})
        data = bd.from_table(table, time="day", value="flow")
        print(data["flow"].attrs["units"])
        ```
    """
    frame = Frame(table, units, to, names)
    columns, forced, known = (_listed(given) for given in (value, forcings, covariates))
    once(
        frame,
        {
            "values": columns,
            "times": [time],
            "observables": _listed(observable),
            "subjects": _listed(subject),
            "forcings": forced,
            "covariates": known,
        },
    )
    if limit is not None and censored is None:
        raise DataError(
            "limit is given, but no column that says which values are censored: censored=…"
        )
    if known and subject is None:
        raise DataError(
            f"the covariate '{known[0]}' is a number of each subject, but no subject= is given"
        )
    flanking = [
        name
        for given in (error, limit)
        for name in (given.values() if isinstance(given, Mapping) else _listed(given))
    ]
    absent = [missing] if isinstance(missing, (str, int, float)) else [*missing]
    frame.blank(absent, [*columns, *forced, *known, *flanking])
    when, (who, members) = times(frame, time, date_format), subjects(frame, subject)
    beside = {"censored": censored, "limit": limit, "error": error}
    found = []
    for name, column, rows in _observables(frame, columns, observable):
        own = {role: _one(given, name, column, columns, role) for role, given in beside.items()}
        found.append(
            _seen(frame, name, column, rows & observations(frame), own, when, who, replicates)
        )
    for number, member in enumerate(members):
        if not any((who[s.rows] == number).any() for s in found):
            first = frame.row(int(np.argmax(who == number)))
            raise DataError(
                f"subject {member} has no value at all (from {first}): leave it out of the table"
            )
    driven = observations(frame) & np.any([~frame.missing(column) for column in forced], axis=0)
    layout = _Layout(found, np.flatnonzero(driven), when, who, members, subject is not None)
    variables = {name: variable for s in found for name, variable in layout.seen(s).items()}
    for column in forced:
        variables[frame.called(column)] = layout.forcing(frame, column)
    for column in known:
        variables |= _covariate(frame, column, who, members, {"time", "subject", *variables})
    beside = {other for s in found for other in s.others}
    for name in {*frame.wanted} - {*variables, "time"} | {*frame.wanted} & beside:
        of = ", ".join(name for name in variables if name not in beside)
        raise DataError(f"units are wanted of '{name}', but those of the dataset are of time, {of}")
    frame.refuse_unknown_units({"time", *variables})
    of_values = columns if observable is None else []
    called = {"time": time} | {frame.called(column): column for column in (*of_values, *forced)}
    as_written = frame.renamed(called) | ({DATE_FORMAT: date_format} if date_format else {})
    as_written |= {MISSING: json.dumps(absent)} if absent else {}
    return layout.dataset(variables, frame.units(time, "time")).assign_attrs(as_written)


def _observables(
    frame: Frame, columns: list[str], observable: str | None
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, column and rows of each observable.

    Raises:
        DataError: for rows of none, or names that are no words.
    """
    every = np.ones(len(frame), bool)
    if not columns:
        raise DataError("value must name the column of what was measured, or several")
    if observable is None:
        yield from ((frame.called(column), column, every) for column in columns)
        return
    if len(columns) > 1:
        raise DataError(
            f"with observable='{observable}' there is one column of values, not "
            f"{', '.join(columns)}"
        )
    frame.refuse_missing(observable, "observable", observations(frame), "say what was measured")
    codes = frame.cells(observable, "observables")
    for code in pd.unique(codes[observations(frame)]):
        name = frame.names.get(code, frame.names.get(str(code), str(code).strip()))
        if not isinstance(code, str) and name == str(code):
            raise DataError(
                f"'{observable}' has the code {code}: say what it is called, as in names={{{code}: "
                "'conc'}}"
            )
        yield name, columns[0], np.asarray(codes == code)


def _seen(
    frame: Frame,
    name: str,
    column: str,
    rows: np.ndarray,
    beside: Mapping[str, str | None],
    when: np.ndarray,
    who: np.ndarray,
    replicates: bool,
) -> Seen:
    """What was measured of one observable, with its flags and errors."""
    values, flags = frame.numbers(column, f"'{name}'", rows), np.zeros(len(frame))
    if beside["censored"]:
        flags, values = _censored(
            frame, beside["censored"], beside["limit"], column, name, values, rows
        )
    there = ~np.isnan(values)
    if not there.any():
        raise DataError(f"'{name}' has no value at all in the column '{frame.label(column)}'")
    sorted_within(frame, when, who, there)
    others = {f"{name}_censored": flags[there]} if beside["censored"] else {}
    if beside["error"]:
        errors = frame.numbers(beside["error"], "errors", there)
        for at in np.flatnonzero(there & ~(errors > 0))[:1]:
            raise DataError(
                f"the error of '{name}' is {frame.cells(beside['error']).iloc[at]} in "
                f"{frame.row(at)}: it must be "
                "positive wherever there is a value"
            )
        errors = frame.alike(
            errors, beside["error"], f"{name}_error", column, name, difference=True
        )
        others[f"{name}_error"] = frame.converted(errors, column, name, difference=True)[there]
    return Seen(
        name,
        np.flatnonzero(there),
        frame.converted(values, column, name)[there],
        frame.units(column, name, there),
        others,
        _copies(frame, name, when, who, there, replicates),
    )


def _censored(
    frame: Frame,
    column: str,
    limit: str | None,
    of: str,
    name: str,
    values: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Flags, and the values with limits in place of those that are censored.

    Raises:
        DataError: for other flags than −1, 0 and 1, or a flag without a limit.
    """
    flags = np.nan_to_num(frame.numbers(column, "flags of censoring", rows))
    for at in np.flatnonzero(~np.isin(flags, (-1, 0, 1)))[:1]:
        raise DataError(
            f"'{column}' is {flags[at]:g} in {frame.row(at)}: a flag is 1 where the value lies "
            "below its limit, −1 "
            "where above, 0 where it was seen"
        )
    limits = values if limit is None else frame.numbers(limit, "limits", rows)
    for at in np.flatnonzero((flags != 0) & np.isnan(limits))[:1]:
        raise DataError(
            f"the value in {frame.row(at)} is censored, but its limit in '{limit or of}' is "
            "missing: write it there"
        )
    if limit is not None:
        limits = frame.alike(np.where(flags != 0, limits, np.nan), limit, limit, of, name)
    return flags, np.where(flags != 0, limits, values)


def _copies(
    frame: Frame, name: str, when: np.ndarray, who: np.ndarray, there: np.ndarray, replicates: bool
) -> np.ndarray:
    """Of each row with a value how many before it are of the same time and subject.

    Raises:
        DataError: if there are any and they are not `replicates`.
    """
    rows = np.flatnonzero(there)
    cells = pd.DataFrame({"who": who[rows], "when": when[rows]})
    copy = cells.groupby(["who", "when"]).cumcount().to_numpy()
    for i in np.flatnonzero(copy)[:1] if not replicates else ():
        first = rows[np.flatnonzero((who[rows] == who[rows[i]]) & (when[rows] == when[rows[i]]))[0]]
        raise DataError(
            f"'{name}' has two values at time {when[rows[i]]}, in {frame.row(first)} and "
            f"{frame.row(rows[i])}: "
            "leave one out, or say replicates=True if both were measured; subjects are told apart "
            "by subject=…"
        )
    return copy


class _Layout:
    """Where the rows of a table lie over times, in which replicates have rows of their own, and
    subjects.
    """

    def __init__(
        self,
        found: list[Seen],
        driven: np.ndarray,
        when: np.ndarray,
        who: np.ndarray,
        members: np.ndarray,
        several: bool,
    ):
        held = [
            *((s.rows, s.copy) for s in found),
            (driven, 0),
        ]  # forcings go on where nothing was observed
        pairs = pd.concat([pd.DataFrame({"when": when[rows], "copy": copy}) for rows, copy in held])
        self.grid = pd.MultiIndex.from_frame(pairs.drop_duplicates().sort_values(["when", "copy"]))
        self.times = self.grid.get_level_values("when").to_numpy()
        self.when, self.who, self.members, self.several = when, who, members, several

    def _laid(
        self,
        places: np.ndarray,
        rows: np.ndarray,
        values: np.ndarray,
        units: str,
        fill: float = np.nan,
    ) -> Any:
        found = np.full((len(self.times), len(self.members)), fill)
        found[places, self.who[rows]] = values
        dims, found = (("time", "subject"), found) if self.several else (("time",), found[:, 0])
        return dims, found, {"units": units} if units else {}

    def seen(self, s: Seen) -> dict[str, Any]:
        """The variables of one observable, by name."""
        places = self.grid.get_indexer(pd.MultiIndex.from_arrays([self.when[s.rows], s.copy]))
        laid = {s.name: self._laid(places, s.rows, s.values, s.units)}
        for name, values in s.others.items():
            flags = name.endswith("_censored")
            laid[name] = self._laid(
                places, s.rows, values, "" if flags else s.units, 0.0 if flags else np.nan
            )
        return laid

    def forcing(self, frame: Frame, column: str) -> Any:
        """A column that drives the model, at all times of the dataset.

        Of one series it may have gaps, which `fill_gaps` fills; of subjects one would look like a
        time of another.

        Raises:
            DataError: where it is missing for a subject, or has two values at one time.
        """
        asked = np.isin(self.when, self.times) & (
            observations(frame) if self.several else ~frame.missing(column)
        )
        frame.refuse_missing(column, "forcing", asked, "fill the gap in the table first")
        name, rows = frame.called(column), np.flatnonzero(asked)
        values = frame.converted(frame.numbers(column, "forcing"), column, name)
        cells = pd.DataFrame({"who": self.who[rows], "when": self.when[rows]})
        first = rows[
            cells.reset_index().groupby(["who", "when"])["index"].transform("first").to_numpy()
        ]
        for at in np.flatnonzero(values[rows] != values[first])[:1]:
            raise DataError(
                f"the forcing '{name}' has two values at time {self.when[rows[at]]}, in "
                f"{frame.row(first[at])} and "
                f"{frame.row(rows[at])}: it is one number at each time"
            )
        # A time with replicates has several rows, in all of which the forcing is the same.
        begin, end = (
            np.searchsorted(self.times, self.when[rows], side) for side in ("left", "right")
        )
        number = end - begin
        places = np.repeat(begin - np.cumsum(number) + number, number) + np.arange(number.sum())
        rows = np.repeat(rows, number)
        return self._laid(places, rows, values[rows], frame.units(column, name))

    def dataset(self, variables: Mapping[str, Any], units: str) -> xr.Dataset:
        coordinates: dict[str, Any] = {
            "time": ("time", self.times, {"units": units} if units else {})
        }
        if self.several:
            coordinates["subject"] = ("subject", as_coordinate(self.members))
        return xr.Dataset(dict(variables), coordinates)


def _covariate(
    frame: Frame, column: str, who: np.ndarray, members: np.ndarray, taken: set[str]
) -> dict[str, Any]:
    """A variable `(subject,)`, or one for each word in the column, with names that are not taken.

    Raises:
        DataError: where it is missing or changes within a subject.
    """
    frame.refuse_missing(
        column, "covariate", np.ones(len(frame), bool), "each subject has one, in each of its rows"
    )
    cells, first = (
        frame.cells(column, "covariates"),
        np.array([np.argmax(who == n) for n in range(len(members))]),
    )
    for at in np.flatnonzero((cells != cells.iloc[first[who]].to_numpy()).to_numpy())[:1]:
        raise DataError(
            f"the covariate '{column}' of subject {members[who[at]]} is "
            f"{cells.iloc[first[who[at]]]} in "
            f"{frame.row(first[who[at]])} but {cells.iloc[at]} in {frame.row(at)}: what changes "
            "with time is a forcing"
        )
    name = frame.called(column)
    if pd.api.types.is_numeric_dtype(cells):
        values = frame.converted(frame.numbers(column, "covariates"), column, name)[first]
        units = frame.units(column, name)
        return {name: ("subject", values, {"units": units} if units else {})}
    words = cells.astype(str).str.strip().to_numpy()
    found = {}
    for word in np.unique(words):
        held, said = (words[first] == word).astype(float), f"{name}_{word}"
        called = _as_name(said, taken | {*found})
        found[called] = ("subject", held, {} if called == said else {"long_name": f"{name} {word}"})
    return found


_SIGNS = {
    ">=": "ge",
    "<=": "le",
    "≥": "ge",
    "≤": "le",
    ">": "gt",
    "<": "lt",
    "=": "eq",
    "+": "plus",
    "%": "percent",
}


def _as_name(text: str, taken: Collection[str]) -> str:
    """A text as a name of Python that is not taken: letters, digits and underscores, with signs in
    words.
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f"_{word}_")
    plain = (
        re.sub(r"_{2,}", "_", re.sub(r"\W", "_", text)).strip("_")
        if not text.isidentifier()
        else text
    )
    plain = plain if plain and not plain[0].isdigit() else f"_{plain}"
    return next(
        name
        for i in itertools.count(1)
        if (name := plain if i == 1 else f"{plain}_{i}") not in taken
    )


def _listed(names: str | Iterable[str] | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _one(
    given: str | Mapping[str, str] | None, name: str, column: str, columns: list[str], role: str
) -> str | None:
    """The column that stands beside that of one observable.

    Raises:
        DataError: for one column where there are several of values.
    """
    if isinstance(given, str) and len(columns) > 1:
        raise DataError(
            f"there are {len(columns)} columns of values: say which {role} belongs to "
            "which, as in "
            f"{role}={{'{column}': '{given}'}}"
        )
    if isinstance(given, Mapping):
        for key in {*given} - {*columns, name}:
            if len(columns) == 1 or key not in columns:
                raise DataError(
                    f"{role} names '{key}', which is no column of values: {', '.join(columns)}"
                )
        return given.get(name, given.get(column))
    return given
