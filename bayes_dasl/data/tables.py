"""`from_table`: make the dataset that models take from a table with a row for each measurement."""

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
from .guess_columns import refuse_without_times
from .input_table import DATE_FORMAT, MISSING, InputTable, Source, refuse_two_roles


class TableSeries(NamedTuple):
    """The values of one observable in a table.

    Args:
        name: the observable.
        rows: the rows of the table with a value.
        values: one value for each of these rows, in the wanted units.
        units: the units of the values.
        others: `<name>_censored` and `<name>_error` if given, for the same rows.
        copy: for each of these rows, the number of earlier rows with the same time and subject.
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
    """Return the dataset that models take, from a table with a row for each measurement.

    Columns are found whatever their case, and with units in brackets after their name: `"conc"`
    finds `Conc (mg/L)`. Empty cells, `.` and `NA` are missing. In NONMEM's layout, rows with a
    non-zero `evid` or with `mdv` 1 are no observations; `bd.dosing.doses` reads them.

    Args:
        table: a pandas DataFrame, or the path of a CSV or Parquet file.
        value: the column of measurements, or several columns, one for each observable.
        time: the column of times: numbers, or dates. Dates with an offset from UTC are converted to
            UTC; a period, as in pandas, is replaced by its begin.
        observable: the column that names the observable of each row, where one column of values
            holds several observables.
        subject: the column that names the subject of each row. Values then have the dimensions
            `(time, subject)`, with the numbers or names of this column as coordinate `subject`.
        error: the column of known standard errors, or a dict from value column or observable to
            such a column. Standard errors are in the units of the value unless their header or
            `units` state others. They become the variable `<observable>_error`.
        censored: the column of flags, or a dict as for `error`. A flag is 1 if the true value lies
            below its limit, −1 if it lies above, and 0 or empty if the value was measured. Flags
            become the variable `<observable>_censored`.
        limit: the column of limits of flagged rows, or a dict as for `error`, with units as for
            `error`. By default the value of a flagged row is its limit.
        covariates: columns with one number for each subject, `(subject,)`. A column of words gives
            a variable of zeros and ones for each word, such as `sex_male`; `score` with `>= 5`
            becomes `score_ge_5`.
        forcings: columns that drive the model. The dataset has all times at which a forcing has a
            value, also without an observation. Gaps in a single series stay missing, and
            `bd.data.fill_gaps` fills them. With subjects each row needs a number.
        names: names in the dataset, by column or by code in the column `observable`:
            `{"DV": "conc"}`.
        units: units of columns, such as `{"conc": "mg/L"}`, or the name of a column with the unit
            of each row. Units may also stand in the header in brackets, or in the dict
            `table.attrs["units"]`.
        to: the wanted units, by name in the dataset: `{"time": "hour"}`.
        replicates: whether one observable may have several values at one time of one subject.
        missing: codes for a missing value, such as -9999, in columns of values, errors, limits,
            forcings and covariates. A study uses them for later files of this table too.
        date_format: the format of dates, such as `"%d.%m.%Y"`; by default ISO 8601, as in
            2004-02-29 13:30. A study uses it for later files of this table too.

    Returns:
        A dataset with the coordinate `time`, and `subject` if there are subjects. It is NaN where
        nothing was observed.

    Raises:
        DataError: if the table is wrong; the message names the row, as a line of the file or a
            label of the DataFrame, and the remedy.
        ReadError: if the file does not exist or cannot be read.

    Example:
        ```python
        table = pd.DataFrame({"day": [0, 1, 2], "flow (m3/s)": [1.2, 0.9, 0.7]})
        data = bd.from_table(table, time="day", value="flow")
        print(data["flow"].attrs["units"])
        ```
    """
    # 1. Read the table, and check that no column has two roles.
    source = InputTable(table, units, to, names)
    refuse_without_times(source, time)
    columns, forced, known = (_listed(given) for given in (value, forcings, covariates))
    roles = {
        "values": columns,
        "times": [time],
        "observables": _listed(observable),
        "subjects": _listed(subject),
        "forcings": forced,
        "covariates": known,
    }
    refuse_two_roles(source, roles)
    if limit is not None and censored is None:
        raise DataError(
            "limit is given, but no column that says which values are censored: censored=…"
        )
    if known and subject is None:
        raise DataError(
            f"the covariate '{known[0]}' is a number of each subject, but no subject= is given"
        )
    # 2. Empty the cells that hold a code for a missing value.
    numeric = [*columns, *forced, *known]
    for given in (error, limit):
        numeric += given.values() if isinstance(given, Mapping) else _listed(given)
    absent = [missing] if isinstance(missing, (str, int, float)) else [*missing]
    source.blank(absent, numeric)
    # 3. Read the time and subject of each row, and the series of each observable.
    when = times(source, time, date_format)
    who, members = subjects(source, subject)
    observed = observations(source)
    beside = {"censored": censored, "limit": limit, "error": error}
    found = []
    for name, column, rows in _observables(source, columns, observable):
        own = {role: _one(given, name, column, columns, role) for role, given in beside.items()}
        found.append(
            _series_of_table(source, name, column, rows & observed, own, when, who, replicates)
        )
    measured = [number for s in found for number in who[s.rows]]
    for number in np.setdiff1d(np.arange(len(members)), measured)[:1]:
        first = source.row(int(np.argmax(who == number)))
        raise DataError(
            f"subject {members[number]} has no value at all (from {first}): leave it out of the "
            "table"
        )
    # 4. Lay series, forcings and covariates out over time and subject.
    driven = observed & np.any([~source.missing(column) for column in forced], axis=0)
    layout = _Layout(found, np.flatnonzero(driven), when, who, members, subject is not None)
    variables = {name: variable for s in found for name, variable in layout.series(s).items()}
    for column in forced:
        variables[source.called(column)] = layout.forcing(source, column)
    for column in known:
        variables |= _covariate(source, column, who, members, {"time", "subject", *variables})
    # 5. Refuse units given or wanted for an unknown name.
    beside = {other for s in found for other in s.others}
    convertible = {*variables, "time"} - beside
    for name in {*source.wanted} - convertible:
        of = ", ".join(name for name in variables if name not in beside)
        raise DataError(f"units are wanted of '{name}', but those of the dataset are of time, {of}")
    source.refuse_unknown_units({"time", *variables})
    # 6. Attributes say how to read a later file with the same columns.
    of_values = columns if observable is None else []
    called = {"time": time} | {source.called(column): column for column in (*of_values, *forced)}
    as_written = source.renamed(called)
    if date_format:
        as_written[DATE_FORMAT] = date_format
    if absent:
        as_written[MISSING] = json.dumps(absent)
    return layout.dataset(variables, source.units(time, "time")).assign_attrs(as_written)


def _observables(
    table: InputTable, columns: list[str], observable: str | None
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield the name, the column of values and flags of the rows of each observable.

    Args:
        table: the table.
        columns: the columns of values.
        observable: the column that names the observable of each row; None if each column of values
            is an observable.

    Raises:
        DataError: if a row has no observable, or a code has no name.
    """
    if not columns:
        raise DataError("value must name the column of what was measured, or several")
    if observable is None:
        every = np.ones(len(table), bool)
        yield from ((table.called(column), column, every) for column in columns)
        return
    if len(columns) > 1:
        raise DataError(
            f"with observable='{observable}' there is one column of values, not "
            f"{', '.join(columns)}"
        )
    observed = observations(table)
    table.refuse_missing(observable, "observable", observed, "say what was measured")
    codes = table.cells(observable, "observables")
    for code in pd.unique(codes[observed]):
        name = table.names.get(code, table.names.get(str(code), str(code).strip()))
        if not isinstance(code, str) and name == str(code):
            raise DataError(
                f"'{observable}' has the code {code}: say what it is called, as in names={{{code}: "
                "'conc'}}"
            )
        yield name, columns[0], np.asarray(codes == code)


def _series_of_table(
    table: InputTable,
    name: str,
    column: str,
    rows: np.ndarray,
    beside: Mapping[str, str | None],
    when: np.ndarray,
    who: np.ndarray,
    replicates: bool,
) -> TableSeries:
    """Read the values of one observable, with its flags of censoring and its errors.

    Args:
        table: the table.
        name: the observable.
        column: the column of its values.
        rows: flags of the rows of this observable.
        beside: its columns by role: "censored", "limit" and "error"; None for no column.
        when: the time of each row.
        who: the number of the subject of each row.
        replicates: whether several values at one time of one subject are allowed.
    """
    values = table.numbers(column, f"'{name}'", rows)
    flags = np.zeros(len(table))
    if beside["censored"]:
        flags, values = _censored(
            table, beside["censored"], beside["limit"], column, name, values, rows
        )
    there = ~np.isnan(values)
    if not there.any():
        raise DataError(f"'{name}' has no value at all in the column '{table.label(column)}'")
    sorted_within(table, when, who, there)
    others = {f"{name}_censored": flags[there]} if beside["censored"] else {}
    if beside["error"]:
        errors = table.numbers(beside["error"], "errors", there)
        for at in np.flatnonzero(there & ~(errors > 0))[:1]:
            raise DataError(
                f"the error of '{name}' is {table.cells(beside['error']).iloc[at]} in "
                f"{table.row(at)}: it must be positive wherever there is a value"
            )
        # First to the units of the values, then with them to the wanted ones.
        errors = table.alike(
            errors, beside["error"], f"{name}_error", column, name, difference=True
        )
        others[f"{name}_error"] = table.converted(errors, column, name, difference=True)[there]
    return TableSeries(
        name,
        np.flatnonzero(there),
        table.converted(values, column, name)[there],
        table.units(column, name, there),
        others,
        _copies(table, name, when, who, there, replicates),
    )


def _censored(
    table: InputTable,
    column: str,
    limit: str | None,
    of: str,
    name: str,
    values: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flags of censoring, and the values with the limit in place of each censored value.

    Args:
        table: the table.
        column: the column of flags.
        limit: the column of limits; None if the value of a flagged row is its limit.
        of: the column of values.
        name: the observable.
        values: its value in each row.
        rows: flags of the rows of this observable.

    Raises:
        DataError: if a flag is not −1, 0 or 1, or a flagged row has no limit.
    """
    flags = np.nan_to_num(table.numbers(column, "flags of censoring", rows))
    for at in np.flatnonzero(~np.isin(flags, (-1, 0, 1)))[:1]:
        raise DataError(
            f"'{column}' is {flags[at]:g} in {table.row(at)}: a flag is 1 where the value lies "
            "below its limit, −1 where above, 0 where it was seen"
        )
    limits = values if limit is None else table.numbers(limit, "limits", rows)
    for at in np.flatnonzero((flags != 0) & np.isnan(limits))[:1]:
        raise DataError(
            f"the value in {table.row(at)} is censored, but its limit in '{limit or of}' is "
            "missing: write it there"
        )
    if limit is not None:
        limits = table.alike(np.where(flags != 0, limits, np.nan), limit, limit, of, name)
    return flags, np.where(flags != 0, limits, values)


def _copies(
    table: InputTable,
    name: str,
    when: np.ndarray,
    who: np.ndarray,
    there: np.ndarray,
    replicates: bool,
) -> np.ndarray:
    """Count, for each row with a value, the earlier rows with the same time and subject.

    Args:
        table: the table.
        name: the observable.
        when: the time of each row.
        who: the number of the subject of each row.
        there: flags of the rows with a value.
        replicates: whether there may be earlier rows with the same time and subject.

    Raises:
        DataError: if there is one although `replicates` is false.
    """
    rows = np.flatnonzero(there)
    cells = pd.DataFrame({"who": who[rows], "when": when[rows]})
    copy = cells.groupby(["who", "when"]).cumcount().to_numpy()
    for i in np.flatnonzero(copy)[:1] if not replicates else ():
        same = (who[rows] == who[rows[i]]) & (when[rows] == when[rows[i]])
        first = rows[np.argmax(same)]
        raise DataError(
            f"'{name}' has two values at time {when[rows[i]]}, in {table.row(first)} and "
            f"{table.row(rows[i])}: leave one out, or say replicates=True if both were measured; "
            "subjects are told apart by subject=…"
        )
    return copy


class _Layout:
    """The layout of the dataset: the place of each row of the table along time and subject.

    A time with replicates has several places along time, one for each replicate.

    Args:
        found: the series of all observables.
        driven: the rows of the table with a forcing.
        when: the time of each row.
        who: the number of the subject of each row.
        members: the names of the subjects.
        several: whether the dataset has the dimension `subject`.
    """

    def __init__(
        self,
        found: list[TableSeries],
        driven: np.ndarray,
        when: np.ndarray,
        who: np.ndarray,
        members: np.ndarray,
        several: bool,
    ):
        # Times at which only a forcing has a value belong to the dataset too.
        held = [*((s.rows, s.copy) for s in found), (driven, 0)]
        pairs = pd.concat([pd.DataFrame({"when": when[rows], "copy": copy}) for rows, copy in held])
        self.grid = pd.MultiIndex.from_frame(pairs.drop_duplicates().sort_values(["when", "copy"]))
        self.times = self.grid.get_level_values("when").to_numpy()
        self.when = when
        self.who = who
        self.members = members
        self.several = several

    def _laid(
        self,
        places: np.ndarray,
        rows: np.ndarray,
        values: np.ndarray,
        units: str,
        fill: float = np.nan,
    ) -> Any:
        """Return values as a variable of xarray: a tuple of dimensions, array and attributes.

        Args:
            places: the position along time of each value.
            rows: the row of the table of each value.
            values: the values.
            units: their units.
            fill: the value where the table has none.
        """
        found = np.full((len(self.times), len(self.members)), fill)
        found[places, self.who[rows]] = values
        attributes = {"units": units} if units else {}
        if self.several:
            return ("time", "subject"), found, attributes
        return ("time",), found[:, 0], attributes

    def series(self, s: TableSeries) -> dict[str, Any]:
        """Return the variables of one observable by name: its values, flags and errors."""
        places = self.grid.get_indexer(pd.MultiIndex.from_arrays([self.when[s.rows], s.copy]))
        laid = {s.name: self._laid(places, s.rows, s.values, s.units)}
        for name, values in s.others.items():
            # An unobserved datum is not censored, so that its flag is 0.
            form = ("", 0.0) if name.endswith("_censored") else (s.units, np.nan)
            laid[name] = self._laid(places, s.rows, values, *form)
        return laid

    def forcing(self, table: InputTable, column: str) -> Any:
        """Return a forcing at all times of the dataset.

        A single series may have gaps, which `fill_gaps` can fill later. With subjects a gap is
        refused: it could not be distinguished from a time at which only another subject has a row.

        Raises:
            DataError: if the forcing is missing for a subject, or has two values at one time.
        """
        kept = observations(table) if self.several else ~table.missing(column)
        asked = np.isin(self.when, self.times) & kept
        table.refuse_missing(column, "forcing", asked, "fill the gap in the table first")
        name = table.called(column)
        rows = np.flatnonzero(asked)
        values = table.converted(table.numbers(column, "forcing"), column, name)
        # 1. All rows of one time and subject must agree.
        cells = pd.DataFrame({"who": self.who[rows], "when": self.when[rows], "row": rows})
        first = cells.groupby(["who", "when"])["row"].transform("first").to_numpy()
        for at in np.flatnonzero(values[rows] != values[first])[:1]:
            raise DataError(
                f"the forcing '{name}' has two values at time {self.when[rows[at]]}, in "
                f"{table.row(first[at])} and {table.row(rows[at])}: it is one number at each time"
            )
        # 2. A time with replicates has several places, begin … end − 1: the forcing fills them all.
        begin = np.searchsorted(self.times, self.when[rows], "left")
        end = np.searchsorted(self.times, self.when[rows], "right")
        number = end - begin
        places = np.repeat(begin - np.cumsum(number) + number, number) + np.arange(number.sum())
        rows = np.repeat(rows, number)
        return self._laid(places, rows, values[rows], table.units(column, name))

    def dataset(self, variables: Mapping[str, Any], units: str) -> xr.Dataset:
        """Return the dataset of these variables; `units` are the units of time."""
        attributes = {"units": units} if units else {}
        coordinates: dict[str, Any] = {"time": ("time", self.times, attributes)}
        if self.several:
            coordinates["subject"] = ("subject", as_coordinate(self.members))
        return xr.Dataset(dict(variables), coordinates)


def _covariate(
    table: InputTable, column: str, who: np.ndarray, members: np.ndarray, taken: set[str]
) -> dict[str, Any]:
    """Return a covariate as a variable `(subject,)`, or as one indicator variable for each word.

    Args:
        table: the table.
        column: the column of the covariate.
        who: the number of the subject of each row.
        members: the names of the subjects.
        taken: names of variables that are in use.

    Returns:
        The variables by name.

    Raises:
        DataError: if the covariate is missing, or changes within a subject.
    """
    every = np.ones(len(table), bool)
    table.refuse_missing(column, "covariate", every, "each subject has one, in each of its rows")
    cells = table.cells(column, "covariates")
    first = np.unique(who, return_index=True)[1]
    for at in np.flatnonzero((cells != cells.iloc[first[who]].to_numpy()).to_numpy())[:1]:
        earlier = first[who[at]]
        raise DataError(
            f"the covariate '{column}' of subject {members[who[at]]} is {cells.iloc[earlier]} in "
            f"{table.row(earlier)} but {cells.iloc[at]} in {table.row(at)}: what changes with time "
            "is a forcing"
        )
    name = table.called(column)
    # Numbers are converted; words become indicator variables.
    if pd.api.types.is_numeric_dtype(cells):
        values = table.converted(table.numbers(column, "covariates"), column, name)[first]
        units = table.units(column, name)
        return {name: ("subject", values, {"units": units} if units else {})}
    words = cells.astype(str).str.strip().to_numpy()
    found = {}
    for word in np.unique(words):
        held = (words[first] == word).astype(float)
        said = f"{name}_{word}"
        called = as_name(said, taken | {*found})
        attributes = {} if called == said else {"long_name": f"{name} {word}"}
        found[called] = ("subject", held, attributes)
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


def as_name(text: str, taken: Collection[str]) -> str:
    """Return an unused Python identifier for a text, with signs in words: `>= 5` is `ge_5`.

    A number is added to a name that is in `taken`.
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f"_{word}_")
    if not text.isidentifier():
        text = re.sub(r"_{2,}", "_", re.sub(r"\W", "_", text)).strip("_")
    if not text or text[0].isdigit():
        text = f"_{text}"
    numbered = (f"{text}_{i}" for i in itertools.count(2))
    return next(name for name in itertools.chain([text], numbered) if name not in taken)


def _listed(names: str | Iterable[str] | None) -> list[str]:
    """Return one name, several names or None as a list."""
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _one(
    given: str | Mapping[str, str] | None, name: str, column: str, columns: list[str], role: str
) -> str | None:
    """Choose the column of errors, flags or limits that belongs to one observable.

    Args:
        given: the user's argument: one column, or columns by observable or by column of values.
        name: the observable.
        column: the column of its values.
        columns: all columns of values.
        role: the name of the argument, for error messages.

    Raises:
        DataError: if one column is given for several columns of values, or a key is unknown.
    """
    if isinstance(given, str) and len(columns) > 1:
        raise DataError(
            f"there are {len(columns)} columns of values: say which {role} belongs to which, as in "
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
