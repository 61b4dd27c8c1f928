"""Tables of rows as people keep them: read, their columns found, their cells made numbers; errors
name the row.
"""

import csv
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError, ReadError
from .units import agree, convert, installed, parsed, same_text

type Source = pd.DataFrame | str | Path
"""A table, or the file that holds one."""

_WITH_UNITS = re.compile(r"^(.*?)\s*[(\[]([^()\[\]]+)[)\]]\s*$")
COLUMNS = "columns"
"""The attribute of a dataset, as JSON: how its table called what the dataset calls otherwise, by
name.
"""
DATE_FORMAT, MISSING = "date_format", "missing"
"""Attributes of a dataset: how its table writes dates, and, as JSON, what stands for a missing
value in it.
"""
_MISSING = ("", ".", "na", "nan")
_PARQUET = (".parquet", ".pq")
ABSENT = (".", "NA", "N/A", "NaN", "nan", "")


class Frame:
    """A table whose rows are called as in the file that it comes from: by line, or in Parquet by
    their label.

    Args:
        table: a DataFrame, or the path of a CSV or, with pyarrow, Parquet file.
        units: what columns are in: units as text, or the name of a column that holds those of each
            row.
        to: the units that are wanted, by what columns are called in the result.
        names: what columns, or codes in them, are called in the result.
    """

    def __init__(
        self,
        table: Source,
        units: Mapping[str, str] | None = None,
        to: Mapping[str, str] | None = None,
        names: Mapping[Any, str] | None = None,
    ):
        self.has_lines = (
            isinstance(table, (str, Path)) and Path(table).suffix.lower() not in _PARQUET
        )
        self.path = Path(str(table)) if self.has_lines else None
        self.frame = _read(Path(table)) if isinstance(table, (str, Path)) else table
        if not isinstance(self.frame, pd.DataFrame):
            raise DataError(
                "a table is a pandas DataFrame, or the path of a CSV or Parquet file, not "
                f"{table!r}"
            )
        self.frame = self.frame.set_axis(
            [str(label).strip() for label in self.frame.columns], axis=1
        )
        for name in self.frame.columns[self.frame.columns.duplicated()][:1]:
            raise DataError(f"the table has two columns '{name}': rename or leave out one of them")
        self.frame = self.frame.dropna(how="all")
        if self.frame.empty:
            raise DataError("the table has no rows")
        self.stated, self.wanted, self.names = dict(units or {}), dict(to or {}), dict(names or {})

    def __len__(self) -> int:
        return len(self.frame)

    def row(self, number: Any) -> str:
        """How a reader finds a row, from its place in the table."""
        label = self.frame.index[number]
        return f"line {label + 2}" if self.has_lines else f"row {label}"

    def label(self, name: str, role: str = "") -> str:
        """The column of a name: exactly, or else whatever its case and the units in brackets after
        it.

        Raises:
            DataError: for none, or several.
        """
        if name in self.frame.columns:
            return name
        alike = self._alike(name)
        if len(alike) == 1:
            return alike[0]
        said = f"'{name}'" + (f" for {role}" if role else "")
        if alike:
            raise DataError(
                f"the columns {', '.join(alike)} may all be meant by {said}: write one of them"
            )
        raise DataError(
            f"the table has no column {said}; its columns are {', '.join(self.frame.columns)}"
        )

    def _alike(self, name: str) -> list[str]:
        """The columns that a name may mean: by their own one, else by what they are called in the
        result.
        """
        labels = [str(label) for label in self.frame.columns]
        found = [label for label in labels if name.lower() in (label.lower(), bare(label).lower())]
        return found or [
            label for label in labels if self.names.get(label, self.names.get(bare(label))) == name
        ]

    def has(self, name: str) -> bool:
        return bool(self._alike(name))

    def blank(self, missing: Iterable[Any], columns: Iterable[str]) -> None:
        """Empty the cells of some columns that hold what stands for a missing value.

        Args:
            missing: numbers or texts.
            columns: those in which it is looked for.
        """
        texts = {str(value).strip() for value in missing}
        numbers: Any = [value for value in missing if not isinstance(value, str)]
        labels = [self.label(column) for column in columns]
        changed = {}
        for label in labels:
            cells: Any = self.frame[label]
            if cells.dtype.kind not in "mM":
                as_number: Any = pd.to_numeric(cells, errors="coerce")
                changed[label] = cells.mask(
                    as_number.isin(numbers) | cells.astype(str).str.strip().isin(texts)
                )
        self.frame = self.frame.assign(**changed)

    def written(self, name: str) -> pd.Series:
        """The cells of a column as text without spaces around it, in a file with lines as they
        stand there.
        """
        label = self.label(name)
        cells = self.frame[label]
        if self.path is not None:
            cells = _text(self.path, _separator(self.path), as_text=True)[label].loc[cells.index]
        return cells.astype(str).str.strip()

    def called(self, column: str) -> str:
        """What a column is called in the result."""
        label = self.label(column)
        return self.names.get(column, self.names.get(label, bare(label)))

    def renamed(self, called: Mapping[str, str]) -> dict[str, str]:
        """The attribute that says which variables of the result the table calls otherwise; none if
        it calls all alike.

        Args:
            called: columns by what they are called in the result.
        """
        labels = {name: bare(self.label(column)) for name, column in called.items()}
        other = {name: label for name, label in labels.items() if label.lower() != name.lower()}
        return {COLUMNS: json.dumps(other)} if other else {}

    def cells(self, name: str, role: str = "") -> Any:
        return self.frame[self.label(name, role)]

    def missing(self, name: str) -> np.ndarray:
        cells = self.cells(name)
        if cells.dtype.kind in "iufbM":
            return np.asarray(cells.isna())
        return np.asarray(cells.isna() | cells.astype(str).str.strip().str.lower().isin(_MISSING))

    def numbers(self, name: str, role: str, among: np.ndarray | None = None) -> np.ndarray:
        """A column as float64, NaN where it is empty.

        Args:
            name: of the column.
            role: what it is for, in errors.
            among: which rows are read; the others are NaN. All of them unless given.

        Raises:
            DataError: that names the first row with text, or with a number that is infinite.
        """
        cells, empty = self.cells(name, role), self.missing(name)
        among = np.ones(len(self), bool) if among is None else among
        if cells.dtype.kind in "mM":
            raise DataError(f"the column '{self.label(name)}' for {role} holds dates, not numbers")
        found = np.asarray(pd.to_numeric(cells, errors="coerce"), float)
        for at in np.flatnonzero(np.isnan(found) & ~empty & among)[:1]:
            raise DataError(self._no_number(str(cells.iloc[at]), name, at))
        for at in np.flatnonzero(np.isinf(found) & among)[:1]:
            raise DataError(
                f"'{self.label(name)}' is infinite in {self.row(at)}: leave the cell empty if it "
                "is missing"
            )
        return np.where(among, found, np.nan)

    def _no_number(self, text: str, name: str, at: Any) -> str:
        said = f"'{self.label(name)}' is {text!r} in {self.row(at)}, which is no number"
        if re.fullmatch(r"\s*[<>≤≥]=?\s*[\d.]+\s*", text):
            number, side = re.sub(r"[^\d.]", "", text), "1" if text.strip()[0] in "<≤" else "−1"
            return (
                f"{said}: write the limit {number} there, {side} in a column of flags, and name "
                "that in censored="
            )
        ways = _commas([cell.strip() for cell in self.cells(name).dropna().astype(str)])
        if "," in text and len(ways) == 1:
            return f"{said}: read the table by pandas.read_csv(…, {next(iter(ways))}) first"
        if "," in text and ways:
            options = "; ".join(
                f"if {meaning}, by pandas.read_csv(…, {option})" for option, meaning in ways.items()
            )
            return f"{said}: read the table first, {options}"
        return f"{said}: leave the cell empty if it is missing"

    def refuse_missing(self, name: str, role: str, among: np.ndarray, remedy: str) -> None:
        """Raise DataError that names the first row, among those, in which a column is empty."""
        for at in np.flatnonzero(self.missing(name) & among)[:1]:
            raise DataError(
                f"the {role} in '{self.label(name)}' is missing in {self.row(at)}: {remedy}"
            )

    def converted(
        self, values: np.ndarray, name: str, called: str, *, difference: bool = False
    ) -> np.ndarray:
        """Numbers of a column in the units that are wanted of what it is called.

        Args:
            values: what the column holds, NaN in rows that do not count.
            name: of the column.
            called: the name in the result.
            difference: whether the numbers are differences, such as standard deviations.

        Raises:
            DataError: for units that cannot be converted, or that differ from row to row.
        """
        counted, want = ~np.isnan(values), self.wanted.get(called, "")
        held = np.array(self._held(name, called, counted))
        if want and not all(held[counted]):
            raise DataError(
                f"'{called}' is wanted in '{want}', but what '{self.label(name)}' is in is not "
                "said: give "
                f"units={{'{called}': …}}"
            )
        wanted = np.full(len(self), want) if want else held
        return self._from_to(values, held, wanted, called, difference=difference)

    def alike(
        self,
        values: np.ndarray,
        beside: str,
        role: str,
        name: str,
        called: str,
        *,
        difference: bool = False,
    ) -> np.ndarray:
        """Numbers that belong to those of another column, such as errors or limits, row by row in
        its units.

        They are in these unless their own column says other ones. What stands in brackets in its
        header and is no unit, as in `se (n=3)`, says none.

        Args:
            values: what their column holds, NaN in rows that do not count.
            beside: that column.
            role: another name by which its units may be given.
            name: the other column.
            called: what the other one is called in the result.
            difference: whether the numbers are differences, such as standard deviations.

        Raises:
            DataError: for units that cannot be converted, or where the other column says none.
        """
        counted = ~np.isnan(values)
        own, held = (
            np.array(self._held(beside, role, counted, itself=False)),
            np.array(self._held(name, called, counted)),
        )
        if any(own[counted]) and not all(held[counted]):
            raise DataError(
                f"'{self.label(beside)}' is in '{next(filter(None, own[counted]))}', but what "
                f"'{self.label(name)}' is "
                f"in is not said: give units={{'{called}': …}}"
            )
        own = np.where(own == "", held, own)
        try:
            return self._from_to(values, own, held, self.label(beside), difference=difference)
        except DataError as error:
            raise DataError(
                f"{error}: if it is in the units of '{called}', say so by "
                f"units={{'{bare(self.label(beside))}': …}}"
            ) from error

    def _from_to(
        self,
        values: np.ndarray,
        held: np.ndarray,
        wanted: np.ndarray,
        called: str,
        *,
        difference: bool,
    ) -> np.ndarray:
        """Numbers in the units that are wanted of each row, from those that each is in."""
        counted, done = ~np.isnan(values), np.array(values)
        for have, want in dict.fromkeys(zip(held[counted], wanted[counted], strict=True)):
            rows = counted & (held == have) & (wanted == want)
            where = f" in {self.row(int(np.argmax(rows)))}" if (held[counted] != have).any() else ""
            offset = _convert(np.zeros(1), have, want, called, where) if difference else 0.0
            done[rows] = _convert(values[rows], have, want, called, where) - offset
        return done

    def refuse_unknown_units(self, results: Iterable[str]) -> None:
        """Raise DataError for units of what is neither a column nor a result."""
        known = {name.lower() for name in results}
        for name in self.stated:
            if not self.has(name) and name.lower() not in known:
                raise DataError(
                    f"units are given of '{name}', but columns are {', '.join(self.frame.columns)}"
                )

    def units(self, name: str, called: str, among: np.ndarray | None = None) -> str:
        """The units of what a column is called in the result; empty if nobody says."""
        among = np.ones(len(self), bool) if among is None else among
        held = np.array(self._held(name, called, among))
        return self.wanted.get(called) or next((str(unit) for unit in held[among] if unit), "")

    def _held(self, name: str, called: str, among: np.ndarray, *, itself: bool = True) -> list[str]:
        """The units of each row of a column; one that is not `itself` in the result may differ from
        row to row.
        """
        label = self.label(name)
        alike = {key.lower(): unit for key, unit in self.stated.items()} | self.stated
        keys = (called, name, label, called.lower(), name.lower())
        stated = next((alike[key] for key in keys if key in alike), "")
        # A unit may be called as a column is: `cycle`. One that holds units holds texts, and others
        # than its own.
        if (
            stated in self.frame.columns
            and stated != label
            and not pd.api.types.is_numeric_dtype(self.frame[stated])
        ):
            return self._of_rows(stated, called, among, itself)
        found = _WITH_UNITS.match(label)
        unit = (
            stated
            or (found[2] if found else "")
            or (self.frame.attrs.get("units") or {}).get(label, "")
        )
        if unit and installed() and parsed(unit) is None:
            if not itself and not stated:
                return [""] * len(self)
            raise DataError(
                f"'{unit}' is no unit that can be read, of '{called}': write it as in 'mg/L'"
            )
        return [unit] * len(self)

    def _of_rows(self, column: str, called: str, among: np.ndarray, itself: bool) -> list[str]:
        self.refuse_missing(column, f"unit of '{called}'", among, "write it, as in the other rows")
        held = ["" if empty else str(cell).strip() for cell, empty in
                zip(self.frame[column], self.missing(column), strict=True)]  # fmt: skip
        rows = np.flatnonzero(among)
        for at in rows if itself else ():
            if not self.wanted.get(called) and not (
                held[at] == held[rows[0]] or agree(held[at], held[rows[0]])
            ):
                raise DataError(
                    f"'{called}' is in '{held[rows[0]]}' in {self.row(rows[0])} but in "
                    f"'{held[at]}' in {self.row(at)}: "
                    f"say which is wanted, as in to={{'{called}': '{held[rows[0]]}'}}"
                )
        return held


_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")
_BOTH_GERMAN = re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d+")


def _commas(cells: Iterable[str]) -> dict[str, str]:
    """How numbers with commas may be meant: options of pandas' reader, each with its meaning in
    words.

    In `1,500` it cannot be told; other cells of the column may tell it.
    """
    with_comma = [cell for cell in cells if "," in cell]
    decimal, thousands = (
        all(map(kind.fullmatch, with_comma)) for kind in (_DECIMAL_COMMA, _THOUSANDS)
    )
    if any(map(_BOTH_GERMAN.fullmatch, with_comma)):
        return {
            "thousands='.', decimal=','": "points separate thousands and the comma is that of "
            "decimals"
        }
    ways = {"thousands=','": "commas separate thousands"} if thousands else {}
    return ways | ({"decimal=','": "it is the comma of decimals"} if decimal else {})


def bare(column: str) -> str:
    """The name of a column without the units in brackets after it."""
    found = _WITH_UNITS.match(column)
    return found[1] if found else column


def units_in_header(column: str) -> str:
    """The units in brackets after the name of a column; empty if there are none."""
    found = _WITH_UNITS.match(column.strip())
    return found[2] if found else ""


def _convert(values: np.ndarray, have: str, want: str, called: str, where: str) -> np.ndarray:
    if same_text(have, want):
        return values
    if not installed():
        raise DataError(
            f"'{called}' is in '{have}' but wanted in '{want}': to convert units, install pint"
        )
    found = convert(values, have, want)
    if found is None:
        raise DataError(f"'{called}' is in '{have}'{where}, which cannot be converted to '{want}'")
    return found


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    kind = path.suffix.lower()
    if kind in _PARQUET:
        try:
            return pd.read_parquet(path)
        except ImportError as error:
            raise DataError(
                f"{path.name}: Parquet is read by pyarrow: pip install 'bayes-dasl[parquet]'"
            ) from error
        except Exception as error:  # whatever its reader may raise of a torn file
            raise ReadError(f"{path.name} cannot be read as Parquet: {error}") from error
    if kind not in (".csv", ".txt", ".tsv", ".dat"):
        raise DataError(
            f"{path.name} is neither CSV nor Parquet: read it by pandas, and give the DataFrame"
        )
    return _text(path, _separator(path))


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _text(path: Path, separator: str, *, as_text: bool = False) -> pd.DataFrame:
    """A file of separated values, with numbers where a column holds nothing else,
    or all as texts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = [name.strip() for name in next(csv.reader(file, delimiter=separator), [])]
        if len(header) == 1 and ";" in header[0]:
            raise DataError(
                f"{path.name} is separated by semicolons: read it by pandas.read_csv(…, sep=';') "
                "first, "
                "with decimal=',' where numbers have a comma"
            )
        # pandas would call the second one 'dose.1'.
        for name in {name for name in header if header.count(name) > 1}:
            raise DataError(f"the table has two columns '{name}': rename or leave out one of them")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            found = pd.read_csv(
                path,
                sep=separator,
                skipinitialspace=True,
                na_values=list(ABSENT),
                skip_blank_lines=False,
                encoding="utf-8-sig",
                index_col=False,
                dtype=str if as_text else None,
            )
            return found.set_axis([str(label).strip() for label in found.columns], axis=1)
    except UnicodeDecodeError as error:
        raise ReadError(f"{path.name} is not UTF-8 text: {error}") from error
    except pd.errors.EmptyDataError as error:
        raise DataError("the table has no rows") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        said = re.sub(r"^Error tokenizing data\. C error: ", "", str(error).strip())
        raise DataError(f"{path.name} is no table: {said}") from error


def once(frame: Frame, roles: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError for one column in two roles."""
    held: dict[str, str] = {}
    for role, columns in roles.items():
        for column in columns:
            label = frame.label(column, role)
            if label in held:
                raise DataError(f"the column '{label}' is named for {held[label]} and for {role}")
            held[label] = role
