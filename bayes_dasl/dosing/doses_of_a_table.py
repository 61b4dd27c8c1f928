"""`doses`: doses from a table in NONMEM's layout, for one subject or several."""

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
    """Read doses from a table in NONMEM's layout, for `bd.ODE(…, doses=…)`.

    The names of the columns may be in upper or lower case. The columns are

    - `amt`: the amount;
    - `evid`: 0 for an observation, 1 for a dose, 2 for a row to ignore, 3 for a reset of all states
      to their initial values, 4 for a reset and then a dose. Without this column every row with an
      amount or a rate is a dose;
    - `cmt`: the compartment of the dose;
    - `rate`, `dur`: the rate of an infusion, or its duration; both 0 for a bolus; rate −2 for an
      unknown duration;
    - `addl`, `ii`: the number of further doses, and the interval between doses;
    - `ss`: 1 if repeated doses have reached a steady state, which replaces the states; 2 if the
      steady state is added to the states. An infusion with `ss` but without `ii` and amount is a
      constant infusion that ends at this time.

    A reset, or a steady state that replaces the states, also ends running infusions and cancels
    later doses of earlier records. Steady states are found by Newton's method on one dosing
    interval, for linear and nonlinear equations. The solve fails if a steady state is not found:
    the states before and after an interval may differ by at most ten times the solver's tolerances.
    For doses at a steady state, a lag must be shorter than the interval.

    Args:
        table: a pandas DataFrame, or the path of a CSV or Parquet file; the rows of each subject
            are sorted by time.
        into: the state that receives the doses, a list of the states of compartments 1, 2, …, or a
            dict of states by the code in `cmt`.
        time: the column of times, which are numbers.
        subject: the column of subjects. If it is given, the layer belongs in
            `bd.Each(layer, doses.members)`.
        lag: the delay of doses by state: numbers, or random leaves such as `bd.population(…)`.
        bioavailability: the share of an amount that arrives, by state. It shortens an infusion of
            known rate.
        duration: the duration of infusions with rate −2, by state.
        names: new names of columns: `{"Dose (mg)": "amt"}`. Entries for columns that are not read
            here are ignored, so that the same dict can be given to `bd.from_table`.
        units: units of columns: `{"amt": "mg"}`. Entries for other columns are ignored.
        to: the units to which "time" and "amt" are converted.

    Returns:
        The doses of all subjects, padded to the same number.

    Raises:
        DataError: for an invalid row; the message gives its line in the file or its label.
        ModelError: for a lag, bioavailability or duration of a state without doses, or one that is
            no number.
    """
    # 1. Read and check the table.
    frame = InputTable(table, units, to, names)
    read = read_doses(frame, into, time, subject)
    # 2. Check the parameters of states against the states with doses.
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
    # 3. Arrays over subjects become known numbers that vary between groups of a population.
    lasting = {state: dict(numbers or {}) for state, numbers in own.items()}
    return _doses(read, several=subject is not None, **lasting)


def _doses(
    read: DoseArrays, *, several: bool, lag: Any, bioavailability: Any, duration: Any
) -> Doses:
    """Build the `Doses` from arrays.

    Args:
        read: the arrays over subjects.
        several: whether there are several subjects; if not, arrays lose their first axis.
        lag: delays by state.
        bioavailability: bioavailabilities by state.
        duration: unknown durations by state.
    """

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
