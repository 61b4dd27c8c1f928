"""A user's table: find its columns, read numbers and units from cells, and name rows in errors."""

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
"""Attribute of a dataset: a JSON dict that maps each variable to its column in the table."""
DATE_FORMAT = "date_format"
MISSING = "missing"
"""Attributes of a dataset: the format of dates, and a JSON list of codes for missing values."""
_MISSING = ("", ".", "na", "nan")
_PARQUET = (".parquet", ".pq")


class InputTable:
    """A user's table, whose errors name a row by its line in the file or by its label.

    A name of a column may differ from its label in case, and may lack the units in brackets.

    Args:
        table: a DataFrame, or the path of a CSV or Parquet file.
        units: the units by column: a text, or the name of a column with the unit of each row.
        to: the wanted units, by the name of the variable in the dataset made from the table.
        names: the name of the variable in that dataset, by column or by code in a column.
    """

    def __init__(
        self,
        table: Source,
        units: Mapping[str, str] | None = None,
        to: Mapping[str, str] | None = None,
        names: Mapping[Any, str] | None = None,
    ):
        # Only a text file has lines, and only its cells can be read again as written.
        is_text = isinstance(table, (str, Path)) and Path(table).suffix.lower() not in _PARQUET
        self.path = Path(str(table)) if is_text else None
        self.frame = _read(Path(table)) if isinstance(table, (str, Path)) else table
        if not isinstance(self.frame, pd.DataFrame):
            raise DataError(
                "a table is a pandas DataFrame, or the path of a CSV or Parquet file, not "
                f"{table!r}"
            )
        labels = [str(label).strip() for label in self.frame.columns]
        self.frame = self.frame.set_axis(labels, axis=1)
        for name in self.frame.columns[self.frame.columns.duplicated()][:1]:
            raise DataError(f"the table has two columns '{name}': rename or leave out one of them")
        self.frame = self.frame.dropna(how="all")
        if self.frame.empty:
            raise DataError("the table has no rows")
        self.stated = dict(units or {})
        self.wanted = dict(to or {})
        self.names = dict(names or {})

    def __len__(self) -> int:
        return len(self.frame)

    def row(self, number: Any) -> str:
        """Name a row for the user: its line in the file, or its label.

        Args:
            number: the position of the row, from 0.
        """
        label = self.frame.index[number]
        if self.path is None:
            return f"row {label}"
        return f"line {label + 2}"

    def label(self, name: str, role: str = "") -> str:
        """Return the label of the column that a name means, ignoring case and units in brackets.

        Args:
            name: the name of a column, or the name that `names` gives to the column.
            role: the role of the column, such as "times", for error messages.

        Returns:
            The label of the column, exactly as in the header.

        Raises:
            DataError: if no column or several columns match.
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
        """List the columns that a name may mean.

        Columns match by their label, ignoring case and units. If none does, they match by the name
        that the user gave to them.
        """
        labels = list(self.frame.columns)
        found = [label for label in labels if name.lower() in (label.lower(), bare(label).lower())]
        return found or [label for label in labels if self._given_name(label) == name]

    def _given_name(self, label: str) -> str | None:
        """Return the name that the user gave to a column; None if none was given."""
        return self.names.get(label, self.names.get(bare(label)))

    def has(self, name: str) -> bool:
        """Whether some column matches a name."""
        return bool(self._alike(name))

    def blank(self, missing: Iterable[Any], columns: Iterable[str]) -> None:
        """Empty the cells that hold a code for a missing value.

        Args:
            missing: the codes, numbers or texts.
            columns: the columns in which cells are emptied.
        """
        texts = {str(value).strip() for value in missing}
        numbers: Any = [value for value in missing if not isinstance(value, str)]
        changed = {}
        for label in map(self.label, columns):
            cells: Any = self.frame[label]
            if cells.dtype.kind in "mM":
                continue
            # -9999 and -9999.0 are the same code, hence the comparison of numbers too.
            as_number: Any = pd.to_numeric(cells, errors="coerce")
            as_text = cells.astype(str).str.strip()
            changed[label] = cells.mask(as_number.isin(numbers) | as_text.isin(texts))
        self.frame = self.frame.assign(**changed)

    def written(self, name: str) -> pd.Series:
        """Return a column as text; from a text file exactly as written, such as `01`."""
        label = self.label(name)
        cells = self.frame[label]
        if self.path is not None:
            cells = _read_text(self.path, as_text=True)[label].loc[cells.index]
        return cells.astype(str).str.strip()

    def called(self, column: str) -> str:
        """Return the name of a column's variable in the dataset."""
        label = self.label(column)
        return self.names.get(column, self.names.get(label, bare(label)))

    def renamed(self, called: Mapping[str, str]) -> dict[str, str]:
        """Return an attribute of the dataset that names the column of each renamed variable.

        Args:
            called: the columns, by the name of the variable.

        Returns:
            The attribute "columns" with a JSON dict; an empty dict if no variable was renamed.
            Differences of case or of units in brackets do not count.
        """
        labels = {name: bare(self.label(column)) for name, column in called.items()}
        other = {name: label for name, label in labels.items() if label.lower() != name.lower()}
        if other:
            return {COLUMNS: json.dumps(other)}
        return {}

    def cells(self, name: str, role: str = "") -> Any:
        """Return a column with the values and type that pandas read.

        Args:
            name: the column.
            role: its role, for error messages.
        """
        return self.frame[self.label(name, role)]

    def missing(self, name: str) -> np.ndarray:
        """Flag the empty cells of a column; `.`, `NA` and `nan` count as empty."""
        cells = self.cells(name)
        if cells.dtype.kind in "iufbM":
            return np.asarray(cells.isna())
        return np.asarray(cells.isna() | cells.astype(str).str.strip().str.lower().isin(_MISSING))

    def numbers(self, name: str, role: str, among: np.ndarray | None = None) -> np.ndarray:
        """Return a column as float64, NaN where it is empty.

        Args:
            name: the column.
            role: its role, for error messages.
            among: flags of the rows to read; all other rows become NaN. The default is all rows.

        Returns:
            One number for each row.

        Raises:
            DataError: if one of these rows holds text or an infinite number; the message names the
                row.
        """
        cells = self.cells(name, role)
        empty = self.missing(name)
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
        """Say, for an error, why a cell is no number, with the remedy for its most likely meaning.

        Args:
            text: the text of the cell.
            name: the column.
            at: the position of the row.
        """
        said = f"'{self.label(name)}' is {text!r} in {self.row(at)}, which is no number"
        # "<0.5" is a value below a limit of detection, that is a censored datum.
        if re.fullmatch(r"\s*[<>≤≥]=?\s*[\d.]+\s*", text):
            number = re.sub(r"[^\d.]", "", text)
            side = "1" if text.strip()[0] in "<≤" else "−1"
            return (
                f"{said}: write the limit {number} there, {side} in a column of flags, and name "
                "that in censored="
            )
        # "1,5" has a decimal comma or one between thousands: the other cells may decide.
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
        """Raise DataError at the first row with an empty cell.

        Args:
            name: the column.
            role: its role, for the message.
            among: flags of the rows to check.
            remedy: how to correct the table, for the message.
        """
        for at in np.flatnonzero(self.missing(name) & among)[:1]:
            raise DataError(
                f"the {role} in '{self.label(name)}' is missing in {self.row(at)}: {remedy}"
            )

    def converted(
        self, values: np.ndarray, name: str, called: str, *, difference: bool = False
    ) -> np.ndarray:
        """Convert numbers of a column to the units that the user wants in the dataset.

        Args:
            values: one number for each row; rows with NaN are ignored.
            name: the column.
            called: the name of its variable in the dataset.
            difference: whether the numbers are differences, such as standard deviations, to which
                an offset as in °C does not apply.

        Returns:
            The converted numbers.

        Raises:
            DataError: if units are unknown, cannot be converted or differ between rows.
        """
        counted = ~np.isnan(values)
        want = self.wanted.get(called, "")
        held = self._units_by_row(name, called, counted)
        if want and not all(held[counted]):
            raise DataError(
                f"'{called}' is wanted in '{want}', but what '{self.label(name)}' is in is not "
                f"said: give units={{'{called}': …}}"
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
        """Convert errors or limits of values, row by row, to the units of these values.

        Without units of their own, errors and limits have the units of the values. Text in brackets
        that is no unit, as in `se (n=3)`, is ignored.

        Args:
            values: the errors or limits, one for each row; rows with NaN are ignored.
            beside: the column of the errors or limits.
            role: another name under which the user may state their units, such as `conc_error`.
            name: the column of the values to which they belong.
            called: the name of the variable with these values in the dataset.
            difference: whether the numbers are differences, such as standard deviations.

        Returns:
            The converted errors or limits.

        Raises:
            DataError: if units cannot be converted, or the units of the values are unknown.
        """
        counted = ~np.isnan(values)
        own = self._units_by_row(beside, role, counted, itself=False)
        held = self._units_by_row(name, called, counted)
        if any(own[counted]) and not all(held[counted]):
            raise DataError(
                f"'{self.label(beside)}' is in '{next(filter(None, own[counted]))}', but what "
                f"'{self.label(name)}' is in is not said: give units={{'{called}': …}}"
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
        """Convert numbers between units that may differ from row to row.

        Args:
            values: one number for each row; rows with NaN are ignored.
            held: the unit of each row.
            wanted: the wanted unit of each row.
            called: the name of the numbers, for error messages.
            difference: whether the numbers are differences, which have no offset.
        """
        counted = ~np.isnan(values)
        done = np.array(values)
        for have, want in dict.fromkeys(zip(held[counted], wanted[counted], strict=True)):
            rows = counted & (held == have) & (wanted == want)
            where = f" in {self.row(int(np.argmax(rows)))}" if (held[counted] != have).any() else ""
            done[rows] = _convert(values[rows], have, want, called, where)
            # A difference has no offset: 1 degree Celsius is 1 kelvin, not 274.15.
            if difference:
                done[rows] -= _convert(np.zeros(1), have, want, called, where)
        return done

    def refuse_unknown_units(self, results: Iterable[str]) -> None:
        """Raise DataError if the user stated units for a name that is no column and no variable.

        Args:
            results: the names of the variables in the dataset.
        """
        known = {name.lower() for name in results}
        for name in self.stated:
            if not self.has(name) and name.lower() not in known:
                raise DataError(
                    f"units are given of '{name}', but columns are {', '.join(self.frame.columns)}"
                )

    def units(self, name: str, called: str, among: np.ndarray | None = None) -> str:
        """Return the units that a column has in the dataset; empty if unknown.

        Args:
            name: the column.
            called: the name of its variable in the dataset.
            among: flags of the rows that count; all by default.
        """
        among = np.ones(len(self), bool) if among is None else among
        held = self._units_by_row(name, called, among)[among]
        return self.wanted.get(called) or next((str(unit) for unit in held if unit), "")

    def _units_by_row(
        self, name: str, called: str, among: np.ndarray, *, itself: bool = True
    ) -> np.ndarray:
        """Return the unit of each row of a column, `""` where unknown.

        Args:
            name: the column.
            called: the name of its variable in the dataset.
            among: flags of the rows that count.
            itself: whether the column becomes a variable of the dataset. Its units must then be
                readable, and must agree between rows unless they are converted.
        """
        label = self.label(name)
        # 1. Units given by the user, by any name of the column; the exact case goes first.
        alike = {key.lower(): unit for key, unit in self.stated.items()} | self.stated
        keys = (called, name, label, called.lower(), name.lower())
        stated = next((alike[key] for key in keys if key in alike), "")
        # 2. The stated text may name another column, with the unit of each row. That column must
        # hold text: a unit such as `cycle` may also be the name of a column of numbers.
        columns = self.frame.columns
        names_a_column = stated in columns and stated != label
        if names_a_column and not pd.api.types.is_numeric_dtype(self.frame[stated]):
            return self._column_of_units(stated, called, among, itself)
        # 3. Else units in brackets in the header, else units in the attributes of the DataFrame.
        in_attributes = (self.frame.attrs.get("units") or {}).get(label, "")
        unit = stated or units_in_header(label) or in_attributes
        if unit and installed() and parsed(unit) is None:
            if itself or stated:
                raise DataError(
                    f"'{unit}' is no unit that can be read, of '{called}': write it as in 'mg/L'"
                )
            unit = ""
        return np.full(len(self), unit)

    def _column_of_units(
        self, column: str, called: str, among: np.ndarray, itself: bool
    ) -> np.ndarray:
        """Return the unit of each row from a column of units.

        Args:
            column: the column of units.
            called: the name of the variable whose units they are.
            among: flags of the rows that count.
            itself: whether the units must agree between these rows, unless they are converted.

        Raises:
            DataError: if a unit is missing, or units must agree but do not.
        """
        self.refuse_missing(column, f"unit of '{called}'", among, "write it, as in the other rows")
        texts = self.frame[column].astype(str).str.strip()
        held = texts.mask(self.missing(column), "").to_numpy(str)
        rows = np.flatnonzero(among)
        for at in rows if itself and not self.wanted.get(called) else ():
            first = held[rows[0]]
            if held[at] != first and not agree(held[at], first):
                raise DataError(
                    f"'{called}' is in '{first}' in {self.row(rows[0])} but in '{held[at]}' in "
                    f"{self.row(at)}: say which is wanted, as in to={{'{called}': '{first}'}}"
                )
        return held


_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")
_BOTH_GERMAN = re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d+")


def _commas(cells: Iterable[str]) -> dict[str, str]:
    """Return the options of `pandas.read_csv` with which all cells with a comma are numbers.

    `1,500` is ambiguous: both options are returned unless other cells decide.

    Returns:
        A dict from each option, such as `decimal=','`, to its meaning in words.
    """
    with_comma = [cell for cell in cells if "," in cell]
    if any(map(_BOTH_GERMAN.fullmatch, with_comma)):
        meaning = "points separate thousands and the comma is that of decimals"
        return {"thousands='.', decimal=','": meaning}
    ways = {}
    if all(map(_THOUSANDS.fullmatch, with_comma)):
        ways["thousands=','"] = "commas separate thousands"
    if all(map(_DECIMAL_COMMA.fullmatch, with_comma)):
        ways["decimal=','"] = "it is the comma of decimals"
    return ways


def bare(column: str) -> str:
    """Return the label of a column without units in brackets."""
    found = _WITH_UNITS.match(column)
    if found:
        return found[1]
    return column


def units_in_header(column: str) -> str:
    """Return the units in brackets at the end of a label; empty if there are none."""
    found = _WITH_UNITS.match(column.strip())
    if found:
        return found[2]
    return ""


def _convert(values: np.ndarray, have: str, want: str, called: str, where: str) -> np.ndarray:
    """Convert numbers between units.

    Args:
        values: the numbers.
        have: their unit.
        want: the wanted unit.
        called: their name, for error messages.
        where: text that names the row, for error messages.

    Raises:
        DataError: if the numbers cannot be converted.
    """
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
    """Read a CSV or Parquet file, by the ending of its name."""
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
        except Exception as error:  # pyarrow raises many types for a damaged file
            raise ReadError(f"{path.name} cannot be read as Parquet: {error}") from error
    if kind not in (".csv", ".txt", ".tsv", ".dat"):
        raise DataError(
            f"{path.name} is neither CSV nor Parquet: read it by pandas, and give the DataFrame"
        )
    return _read_text(path)


def _read_text(path: Path, *, as_text: bool = False) -> pd.DataFrame:
    """Read a text file with a separator between values, as a DataFrame.

    Numeric columns become numbers, unless `as_text` is true: then all columns are text.
    """
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = [name.strip() for name in next(csv.reader(file, delimiter=separator), [])]
        if len(header) == 1 and ";" in header[0]:
            raise DataError(
                f"{path.name} is separated by semicolons: read it by pandas.read_csv(…, sep=';') "
                "first, with decimal=',' where numbers have a comma"
            )
        # pandas would silently rename the second one to 'dose.1'.
        for name in {name for name in header if header.count(name) > 1}:
            raise DataError(f"the table has two columns '{name}': rename or leave out one of them")
        # A row with too many cells only warns, but would be read wrongly.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            found = pd.read_csv(
                path,
                sep=separator,
                skipinitialspace=True,
                na_values=["."],
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


def refuse_two_roles(table: InputTable, roles: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError if one column is named for two roles.

    Args:
        table: the table.
        roles: the columns by role, such as `{"times": ["day"]}`.
    """
    held: dict[str, str] = {}
    for role, columns in roles.items():
        for column in columns:
            label = table.label(column, role)
            if label in held:
                raise DataError(f"the column '{label}' is named for {held[label]} and for {role}")
            held[label] = role
