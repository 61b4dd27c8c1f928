"""Dose records in NONMEM's layout: read, check, expand repeats, and pad to arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.columns import sorted_within, subjects, times
from ..data.input_table import InputTable
from ..data.layer_inputs import NEVER
from ..errors import DataError

# The codes of `evid`.
_NOTHING, _DOSE, _OTHER, _RESET, _RESET_AND_DOSE = range(5)
UNKNOWN = -1.0
"""Code for a duration that is a parameter of the compartment."""


class Record(NamedTuple):
    """One dose record of a table.

    Args:
        row: the number of the row.
        time: the time of the dose.
        amount: the amount.
        rate: the rate of an infusion; 0 for a bolus or an infusion of given duration.
        duration: the duration of an infusion; `UNKNOWN` if it is a parameter.
        interval: the time between repeated doses.
        repeats: the number of further doses.
        steady: 0 without a steady state, 1 if a steady state replaces the states, 2 if it is added.
        until: the time of the next record that cancels the rest of this one.
    """

    row: int
    time: float
    amount: float
    rate: float
    duration: float
    interval: float
    repeats: int
    steady: int
    until: float

    @property
    def endless(self) -> bool:
        """Whether the record is a constant infusion at steady state that ends at its time."""
        return self.steady > 0 and self.interval == 0


# Values that pad the arrays of subjects with fewer doses.
_EMPTY = {"time": NEVER, "amount": 0.0, "rate": 0.0, "duration": 0.0, "until": NEVER}


class DoseArrays(NamedTuple):
    """Arrays `(subject, dose)` of doses, padded to the same number of doses per subject.

    Args:
        given: for each state, arrays `time`, `amount`, `rate`, `duration` and `until` of its doses,
            by name.
        steady: arrays of records at a steady state, by name. The key True is for constant
            infusions, False for repeated doses. They have the same arrays as `given` and three
            more. `interval` is the time between doses. `replaces` is 1 if the steady state replaces
            the states, else 0. `place`, `(subject, dose, state)`, is 1 for the state of the dose,
            else 0.
        resets: times at which all states return to their initial values, `(subject, reset)`.
        members: the subjects.
        start: the first time in the table.
    """

    given: dict[str, dict[str, np.ndarray]]
    steady: dict[bool, dict[str, np.ndarray]]
    resets: np.ndarray
    members: np.ndarray
    start: float


def read_doses(
    frame: InputTable, into: str | Sequence[str] | Mapping, time: str, subject: str | None
) -> DoseArrays:
    """Read the doses of a table.

    Args:
        frame: the table.
        into: the state that receives the doses, or the states of `cmt` 1, 2, …, or a dict of states
            by the code in `cmt`.
        time: the column of times.
        subject: the column of subjects; None for one subject.

    Returns:
        The doses as arrays.

    Raises:
        DataError: for an invalid row, which the message names, or a table without doses.
    """
    # 1. Times, subjects and kinds of all rows.
    when, (who, members) = times(frame, time), subjects(frame, subject)
    if when.dtype.kind == "M":
        raise DataError(
            f"the times of doses in '{frame.label(time)}' are dates: give numbers, such as hours, "
            "and where "
            "data have dates say in the layer since when they count: units={'time': 'h since "
            "2001-01-01'}"
        )
    sorted_within(frame, when, who, np.ones(len(frame), bool))
    kinds = _row_kinds(frame)
    states = _states(frame, into, kinds)
    columns = _Columns(frame, kinds)
    # 2. The records and resets of each subject. A reset, or a steady state that replaces the
    # states, ends earlier records.
    records: list[list[tuple[str, Record]]] = [[] for _ in members]
    resets: list[list[float]] = [[] for _ in members]
    anew = np.isin(kinds, (_RESET, _RESET_AND_DOSE)) | (
        (columns.ss == 1) & np.isin(kinds, (_DOSE, _RESET_AND_DOSE))
    )
    for row in np.flatnonzero(kinds != _NOTHING).tolist():
        of, later = who[row], np.flatnonzero(anew & (who == who[row]))
        until = next((float(when[k]) for k in later if k > row), NEVER)
        if kinds[row] in (_RESET, _RESET_AND_DOSE):
            resets[of].append(float(when[row]))
        if kinds[row] in (_DOSE, _RESET_AND_DOSE):
            records[of].append((states[row], columns.record(row, float(when[row]), until)))
    if not any(records):
        raise DataError("the table has no dose: a row with evid 1, or with a number in 'amt'")
    # 3. Doses by state, with repeats expanded.
    used = {state for rows in records for state, _ in rows}
    names = [state for state in dict.fromkeys(_states_by_code(into).values()) if state in used]
    given, steady = {}, {}
    for name in names:
        # A constant infusion that ends at its record is a steady state, not a dose.
        own = [
            [x for state, r in rows if state == name and not r.endless for x in _repeated(r)]
            for rows in records
        ]
        given[name] = _padded_arrays(own, _EMPTY)
    # 4. Records at a steady state, for all states together.
    for endless in (False, True):
        first = [
            [(state, r) for state, r in rows if r.steady and r.endless == endless]
            for rows in records
        ]
        if any(first):
            arrays = _padded_arrays(
                [[r for _, r in rows] for rows in first], _EMPTY | {"interval": 1.0}
            )
            arrays["replaces"] = _padded_rows(
                [[float(r.steady == 1) for _, r in rows] for rows in first], 0.0
            )
            # One-hot encoding of the state of each record; all zero for padding.
            number = _padded_rows([[names.index(state) for state, _ in rows] for rows in first], -1)
            place = (number[..., None] == np.arange(len(names))).astype(float)
            steady[endless] = arrays | {"place": place}
    return DoseArrays(given, steady, _padded_rows(resets, NEVER), members, float(when.min()))


def _row_kinds(frame: InputTable) -> np.ndarray:
    """Return the kind of each row: 0 for no dose, 1 for a dose, 3 for a reset, 4 for both."""
    amounts = frame.numbers("amt", "amounts")
    if not frame.has("evid"):
        rates = frame.numbers("rate", "rates") if frame.has("rate") else np.zeros(len(frame))
        return np.where(
            (np.nan_to_num(amounts) != 0) | (np.nan_to_num(rates) != 0), _DOSE, _NOTHING
        )
    kinds = np.nan_to_num(frame.numbers("evid", "events"))
    # Codes of old RxODE tables, such as 201 for a dose into the second compartment.
    old = (kinds > 100) & (kinds < 10000) & (kinds % 100 == 1)
    for row in np.flatnonzero(~np.isin(kinds, range(5)) & ~old)[:1]:
        raise DataError(
            f"evid is {kinds[row]:g} in {frame.row(row)}: it is 0 for an observation, 1 for a "
            "dose, 2 for nothing, 3 "
            "for a reset, 4 for a reset and a dose"
        )
    for row in np.flatnonzero((kinds == 0) & (np.nan_to_num(amounts) != 0))[:1]:
        raise DataError(
            f"amt is {amounts[row]:g} in {frame.row(row)}, but evid 0 says that it is no dose: "
            "write evid 1"
        )
    return np.where(old, _DOSE, np.where(kinds == _OTHER, _NOTHING, kinds)).astype(int)


def _states(
    frame: InputTable, into: str | Sequence[str] | Mapping, kinds: np.ndarray
) -> dict[int, str]:
    """Return the state that receives the dose, by the number of each row with a dose.

    `kinds` are the kinds of all rows.

    Raises:
        DataError: for a compartment that `into` does not name.
    """
    rows = np.flatnonzero(np.isin(kinds, (_DOSE, _RESET_AND_DOSE)))
    named = _states_by_code(into)
    if isinstance(into, str):
        return dict.fromkeys(rows.tolist(), into)
    if not frame.has("cmt"):
        if len(named) == 1:
            return dict.fromkeys(rows.tolist(), next(iter(named.values())))
        raise DataError(
            "the table has no column 'cmt' that says which compartment a dose goes into"
        )
    # A code may be a name of the state, a key as text, or the same number written differently.
    cells, missing, found = frame.cells("cmt"), frame.missing("cmt"), {}
    for row in rows.tolist():
        code = str(cells.iloc[row]).strip()
        name = next(
            (
                name
                for key, name in named.items()
                if code in (name, str(key)) or _same_number(code, key)
            ),
            None,
        )
        if missing[row] or name is None:
            raise DataError(
                f"the dose in {frame.row(row)} goes to the compartment {code}, which is not known: "
                f"into={{{code}: 'gut'}} would name it; named are "
                f"{', '.join(f'{c} ({n})' for c, n in named.items())}"
            )
        found[row] = name
    return found


def _states_by_code(into: str | Sequence[str] | Mapping) -> dict[Any, str]:
    """Return the states by the code of their compartment in `cmt`."""
    into = (into,) if isinstance(into, str) else into
    return dict(into) if isinstance(into, Mapping) else dict(enumerate(into, start=1))


def _same_number(code: str, key: object) -> bool:
    """Whether a text and a code are the same number, such as "1.0" and 1."""
    try:
        return float(code) == float(str(key))
    except ValueError:
        return False


class _Columns:
    """Checked columns of the table, converted to the wanted units.

    `kinds` are the kinds of all rows. Only rows that are doses are checked.
    """

    def __init__(self, frame: InputTable, kinds: np.ndarray):
        self.frame, self.dosed = frame, np.isin(kinds, (_DOSE, _RESET_AND_DOSE))
        # Factor from the table's unit of time to the wanted one, for durations and intervals.
        hours = (
            frame.converted(np.ones(len(frame)), frame.label("time"), "time", difference=True)
            if frame.wanted
            else 1.0
        )
        self.amt = frame.converted(self._of("amt", np.nan), "amt", "amt")
        self.ss, self.addl = self._of("ss", 0.0), self._of("addl", 0.0)
        self.ii, self.dur = (self._of(name, 0.0) * hours for name in ("ii", "dur"))
        self.rate = self._of("rate", 0.0)
        # A rate is an amount per time; codes such as -2 have no unit.
        known = self.rate > 0
        if frame.has("rate") and frame.wanted:
            rates = frame.converted(np.where(known, self.rate, np.nan), "amt", "amt") / hours
            self.rate = np.where(known, rates, self.rate)
        self._check()

    def _of(self, name: str, default: float) -> np.ndarray:
        """Return a column as numbers, with a default for missing values or a missing column."""
        if name != "amt" and not self.frame.has(name):
            return np.full(len(self.frame), default)
        values = self.frame.numbers(name, "doses", self.dosed)
        return np.where(np.isnan(values), default, values)

    def _check(self) -> None:
        """Raise a DataError for the first row with an invalid dose."""
        known = self.rate > 0
        endless = (self.ss > 0) & (self.ii == 0) & known
        amount = np.nan_to_num(self.amt)
        faults = {
            "amt is missing: write how much was given": np.isnan(self.amt) & ~endless,
            "amt is negative: a dose is a positive amount": amount < 0,
            "amt is 0: a dose is a positive amount": (amount == 0) & ~endless,
            "rate is negative: it is positive, 0 for a dose at once, or −2 for one unknown": (
                self.rate < 0
            )
            & (self.rate != -2),
            "dur is negative: it is positive, or 0 for a dose at once": self.dur < 0,
            "rate and dur are both given: leave one of them 0": (self.rate != 0) & (self.dur != 0),
            "addl is no whole number of at least 0": (self.addl < 0)
            | (self.addl != np.round(self.addl)),
            "addl is given, but the interval ii is not: write the time from one dose to the next": (
                self.addl > 0
            )
            & (self.ii <= 0),
            "ii is negative: it is the time from one dose to the next": self.ii < 0,
            "ss is neither 0, 1 nor 2": ~np.isin(self.ss, (0, 1, 2)),
            "ss is given, but the interval ii is not: a steady state is of repeated doses": (
                self.ss > 0
            )
            & (self.ii <= 0)
            & ~endless,
            "the infusion of a steady state lasts longer than the interval ii": (self.ss > 0)
            & (self.ii > 0)
            & (np.maximum(self.dur, amount / np.where(known, self.rate, np.inf)) > self.ii),
            "addl repeats an endless infusion, which has no amount": endless & (self.addl > 0),
        }
        # Report the first row of the first fault.
        for fault, where in faults.items():
            for row in np.flatnonzero(where & self.dosed)[:1]:
                raise DataError(f"in {self.frame.row(row)} {fault}")

    def record(self, row: int, time: float, until: float) -> Record:
        """Return the record of a row.

        Args:
            row: the number of the row.
            time: the time of the dose.
            until: the time of the next record that cancels the rest of this one.
        """
        duration = UNKNOWN if self.rate[row] == -2 else self.dur[row]
        amount, rate = np.nan_to_num(self.amt[row]), max(float(self.rate[row]), 0.0)
        return Record(
            row,
            time,
            float(amount),
            rate,
            float(duration),
            float(self.ii[row]),
            int(self.addl[row]),
            int(self.ss[row]),
            until,
        )


def _repeated(record: Record) -> list[Record]:
    """Return the record and its repeats as single doses."""
    return [
        record._replace(time=record.time + k * record.interval) for k in range(1 + record.repeats)
    ]


def _padded_arrays(rows: list[list[Record]], fill: dict[str, float]) -> dict[str, np.ndarray]:
    """Return one array `(subject, dose)` for each field in `fill`, padded with the value there."""
    found = {}
    for name, by in fill.items():
        found[name] = _padded_rows([[getattr(r, name) for r in of] for of in rows], by)
    return found


def _padded_rows(rows: list[list[float]], fill: float) -> np.ndarray:
    """Return rows of different lengths as one array, padded with `fill` at the end."""
    width = max(map(len, rows))
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows]).reshape(
        len(rows), width
    )
