"""Doses from a table in NONMEM's layout, for one subject or for each member of a population."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..data.columns import as_coordinate
from ..data.input_table import InputTable, Source
from ..errors import ModelError
from ..populations import varying
from ..random import check_scalar
from .records import UNKNOWN, DoseArrays, read_doses
from .schedule import Doses, Given, Steady


def doses(
    table: Source,
    into: str | Sequence[str] | Mapping[Any, str],
    *,
    time: str = "time",
    subject: str | None = None,
    lag: Mapping[str, Any] | None = None,
    bioavailability: Mapping[str, Any] | None = None,
    duration: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    to: Mapping[str, str] | None = None,
) -> Doses:
    """The doses of a table in NONMEM's layout, for `bd.ODE(…, doses=…)`.

    Its columns, whatever their case, say of each row

    - `amt`: how much is given; `evid`: 0 for an observation, 1 for a dose, 3 for a reset of all
      states to what they
      were at the start, 4 for a reset and then a dose (without this column every row with an amount
      is a dose);
    - `cmt`: the compartment that it goes into;
    - `rate`, `dur`: the rate of an infusion, or how long it lasts; both 0 for a dose at once; rate
      −2 for a duration
      that is unknown;
    - `addl`, `ii`: how many more follow, and the time from one to the next;
    - `ss`: 1 if such doses have been given for ever, which replaces the states, 2 if their steady
      state is added
      to them. An infusion without `ii` and amount is one that went on for ever and ends at this
      time.

    A reset, or a steady state that replaces, also ends infusions and cancels what is still to come
    of earlier records. Steady states are those of the equations, linear or not, found by Newton's
    method on one cycle of the doses: the states after it differ from those before by no more than
    ten times the solver's tolerances, else the solve fails. All states need one. A lag must be
    shorter than the interval.

    Args:
        table: a pandas DataFrame, or the path of a CSV or Parquet file; the rows of each subject
            are sorted by time.
        into: the state that doses go into, or the states of compartments 1, 2, …, or a dict by what
            stands in `cmt`.
        time: the column of times, which are numbers.
        subject: the column that says whose the row is; the layer then belongs in
            `bd.Each(layer, doses.members)`.
        lag: how much later doses arrive, by state: numbers, known or random, such as
            `bd.population(…)`.
        bioavailability: the share of an amount that arrives, by state. An infusion of known rate
            gets shorter by it.
        duration: how long an infusion of unknown duration lasts, by state.
        names: what columns with other names are called in this layout: `{"Dose (mg)": "amt"}`.
            Those of columns that are not read here, as `bd.from_table` takes them, say nothing.
        units: what columns are in, as `bd.from_table` takes them: `{"amt": "mg"}`. Those of columns
            that the table lacks, or that are not read here, say nothing.
        to: the units that are wanted, of "time" and "amt".

    Returns:
        The doses of all members, filled up to the same number.

    Raises:
        DataError: that names the row, as a line of the file or a label of the DataFrame.
        ModelError: for a lag, a share or a duration of another state, or that is no number.
    """
    frame = InputTable(table, units, to, names)
    read = read_doses(frame, into, time, subject)
    own = {"lag": lag, "bioavailability": bioavailability, "duration": duration}
    for role, numbers in own.items():
        for state, number in (numbers or {}).items():
            if state not in read.given:
                raise ModelError(
                    f"{role} is given for '{state}', but doses go into {', '.join(read.given)}"
                )
            check_scalar(number, f"{role}['{state}']")
    for state, of in read.given.items():
        if (of["duration"] == UNKNOWN).any() and state not in (duration or {}):
            raise ModelError(
                f"the duration of doses into '{state}' is unknown (rate −2): give "
                f"duration={{'{state}': …}}"
            )
    lasting = {state: dict(numbers or {}) for state, numbers in own.items()}
    return _doses(read, several=subject is not None, **lasting)


def _doses(
    read: DoseArrays, *, several: bool, lag: Any, bioavailability: Any, duration: Any
) -> Doses:
    def of(array: np.ndarray) -> Any:
        return varying(array) if several else jnp.asarray(array[0])

    def infused(numbers: Mapping[str, np.ndarray]) -> bool:
        return bool((numbers["rate"] > 0).any() or (numbers["duration"] != 0).any())

    given = tuple(
        Given(
            **{name: of(array) for name, array in numbers.items()},
            into=state,
            infused=infused(numbers),
        )
        for state, numbers in read.given.items()
    )
    steady = tuple(
        Steady(
            **{name: of(a) for name, a in numbers.items()},
            into=tuple(read.given),
            infused=infused(numbers),
            endless=endless,
        )
        for endless, numbers in read.steady.items()
    )
    members = tuple(as_coordinate(read.members).tolist()) if several else ()
    return Doses(
        given=given,
        steady=steady,
        resets=of(read.resets),
        lag=lag,
        bioavailability=bioavailability,
        duration=duration,
        members=members,
        start=read.start,
    )
