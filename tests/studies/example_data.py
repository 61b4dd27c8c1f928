"""The examples of `bd.example_data`: simulations with a fixed seed, and small published tables.

Run: `uv run python -m tests.studies.example_data`. It writes `bayes_dasl/data/examples/`, a CSV file for
each example and `index.json`. `tests/test_example_data.py` checks that the files are what it writes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from case_studies import influenza as school, lynx_hare as pelts

from . import ROOT

FOLDER = ROOT / "bayes_dasl" / "data" / "examples"
SIMULATED = "Simulated by tests/studies/example_data.py of bayes_dasl with a fixed seed. Truth: "


@dataclass(frozen=True)
class Example:
    """An example and what is known of it.

    Args:
        make: returns its table.
        title: one line, for the list of examples.
        source: where the numbers come from; of a simulation, its equations.
        units: the unit of each column that has one.
        licence: of the numbers.
        dates: columns of dates.
        dims: columns that become dimensions of a dataset.
    """

    make: Callable[[], pd.DataFrame]
    title: str
    source: str
    units: dict[str, str]
    licence: str = "Apache-2.0"
    dates: list[str] = field(default_factory=list)
    dims: list[str] = field(default_factory=list)


def tank() -> pd.DataFrame:
    r"""The level of a tank with a hole: $\dot h = q(t) - 0.35 \sqrt h$, read to within 4 %."""
    rng = np.random.default_rng(1)
    time, knots = np.arange(0.0, 48.5, 0.5), np.arange(0.0, 49.0, 4.0)
    valve = rng.uniform(0.08, 0.42, knots.size)
    valve[:7] = [0.1, 0.4, 0.2, 0.42, 0.08, 0.3, 0.12]
    fine = np.linspace(0.0, 48.0, 9601)
    level = [0.5]
    for inflow in np.interp(fine[:-1], knots, valve):
        level.append(level[-1] + 0.005 * (inflow - 0.35 * np.sqrt(level[-1])))
    read = np.interp(time, fine, level) * np.exp(rng.normal(0.0, 0.04, time.size))
    return pd.DataFrame(
        {"time": time, "inflow": np.interp(time, knots, valve).round(4), "level": read.round(4)}
    )


def catchment() -> pd.DataFrame:
    """Six years of a catchment with a soil, a quick store and a slow one that is not linear.

    The gauge fails in some spells, and the evaporation of four days is missing.
    """
    rng = np.random.default_rng(0)
    dates = pd.date_range("2001-10-01", "2007-09-30", name="date")
    summer = -np.cos(2 * np.pi * (dates.day_of_year.to_numpy() - 15) / 365.25)
    # Spells of rain: a wet day is followed by another one more often than a dry one.
    rain, wet = np.zeros(len(dates)), False
    for day in range(len(dates)):
        wet = rng.random() < (0.62 if wet else 0.25) - 0.05 * summer[day]
        rain[day] = rng.gamma(0.8, 8.0 + 2.0 * summer[day]) if wet else 0.0
    evaporation = np.clip(2.0 + 1.6 * summer + 0.4 * rng.normal(size=len(dates)), 0.1, None)
    rain, evaporation = rain.round(1), evaporation.round(2)
    soil, quick, slow, flow = 100.0, 2.0, 40.0, np.zeros(len(dates))
    for day in range(len(dates)):
        recharge = rain[day] * min(soil / 160.0, 1.0) ** 2.0
        soil += rain[day] - recharge
        soil -= min(evaporation[day] * min(soil / 90.0, 1.0), soil)
        quick += 0.6 * recharge
        slow += 0.4 * recharge
        fast, base = 0.4 * quick, 0.02 * slow * (slow / 40.0) ** 0.8
        quick, slow, flow[day] = quick - fast, slow - base, fast + base
    discharge = (flow * np.exp(rng.normal(0.0, 0.08, flow.size))).round(3)
    for first, days in ((230, 9), (611, 21), (1106, 5), (1490, 30), (1930, 2)):
        discharge[first : first + days] = np.nan
    evaporation[865:869] = np.nan
    found = {"rain": rain, "potential_evaporation": evaporation, "discharge": discharge}
    return pd.DataFrame(found, dates).reset_index()


def theophylline() -> pd.DataFrame:
    """Twelve subjects, one oral dose each, ten samples in 24 h: one compartment, absorption.

    The design is that of the study by R. Upton (NONMEM Users Guide, Part V, 1994).
    """
    rng = np.random.default_rng(0)
    nominal = np.array([0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0])
    rows = []
    for subject in range(1, 13):
        weight = round(float(np.clip(rng.normal(70.0, 9.0), 50.0, 90.0)), 1)
        dose = round(4.6 * weight / 5.0) * 5.0
        clearance = 2.8 * (weight / 70.0) ** 0.75 * np.exp(0.25 * rng.normal())
        volume = 32.0 * (weight / 70.0) * np.exp(0.12 * rng.normal())
        absorbed, gone = 1.5 * np.exp(0.6 * rng.normal()), clearance / volume
        times = (nominal * (1 + 0.02 * rng.normal(size=nominal.size))).round(2)
        scale = dose * absorbed / (volume * (absorbed - gone))
        clean = scale * (np.exp(-gone * times) - np.exp(-absorbed * times))
        seen = clean * (1 + 0.08 * rng.normal(size=nominal.size)) + 0.2 * rng.normal(size=10)
        rows.append((subject, 0.0, np.nan, dose, 1, weight))
        rows += [
            (subject, time, round(max(float(conc), 0.01), 2), 0.0, 0, weight)
            for time, conc in zip(times, seen, strict=True)
        ]
    return pd.DataFrame(rows, columns=["subject", "time", "conc", "amt", "evid", "weight"])


def heat() -> pd.DataFrame:
    r"""A rod that is heated at one end: $\partial_t T = \partial_x (D(T)\, \partial_x T)$.

    $D = 0.5 + 2.5 / (1 + e^{-(T - 5)})$; T is 10 at x = 0 and the end at x = 10 is insulated.
    """
    rng = np.random.default_rng(0)
    cells, width, step = 200, 0.05, 2e-4
    at, temperature = (np.arange(cells) + 0.5) * width, np.zeros(cells)
    sensors, times = np.arange(16) * 0.625 + 0.3125, np.arange(1.0, 25.0)
    read = []
    for number in range(1, round(times[-1] / step) + 1):
        # The end is half a cell away, hence a mirrored value beyond it.
        beyond = np.concatenate([[20.0 - temperature[0]], temperature, temperature[-1:]])
        faces = (beyond[1:] + beyond[:-1]) / 2
        diffusion = 0.5 + 2.5 / (1 + np.exp(5.0 - faces))
        temperature = temperature + step / width**2 * np.diff(diffusion * np.diff(beyond))
        if number % round(1.0 / step) == 0:
            read.append(np.interp(sensors, at, temperature) + 0.1 * rng.normal(size=16))
    time, x = np.meshgrid(times, sensors, indexing="ij")
    return pd.DataFrame(
        {"time": time.ravel(), "x": x.ravel(), "temperature": np.ravel(read).round(3)}
    )


def lynx_hare() -> pd.DataFrame:
    """The pelts that the case study fits."""
    return pd.DataFrame({"year": range(1900, 1921), "hare": pelts.HARE, "lynx": pelts.LYNX})


def influenza() -> pd.DataFrame:
    """The counts that the case study fits."""
    return school.load().to_dataframe().astype(int).rename_axis("date").reset_index()


EXAMPLES = {
    "tank": Example(
        tank,
        "Water level of a tank with a known inflow",
        SIMULATED
        + "d level/dt = inflow - 0.35 m^0.5/h * sqrt(level), level(0) = 0.5 m; readings scatter by 4 %. "
        "The inflow is per area of the tank.",
        {"time": "h", "inflow": "m/h", "level": "m"},
    ),
    "lynx_hare": Example(
        lynx_hare,
        "Pelts of lynx and hare in Canada, 1900-1920",
        "E. P. Odum, Fundamentals of Ecology (1953), after D. A. MacLulich (1937) and C. Elton and M. "
        "Nicholson (1942), records of the Hudson's Bay Company; digitised by J. M. Mahaffy.",
        {"year": "year", "hare": "thousand pelts", "lynx": "thousand pelts"},
        "Numbers as published; also in posteriordb under BSD-3-Clause",
    ),
    "catchment": Example(
        catchment,
        "Daily rain and discharge of a river, six years",
        SIMULATED
        + "a soil of 160 mm passes rain on by the square of its filling; 60 % of it goes to a quick store "
        "(0.4/day), 40 % to a slow one (0.02/day at 40 mm, to the power 1.8); discharge scatters by 8 %. "
        "67 days of discharge and 4 of potential evaporation are missing.",
        {"rain": "mm/day", "potential_evaporation": "mm/day", "discharge": "mm/day"},
        dates=["date"],
    ),
    "theophylline": Example(
        theophylline,
        "Drug concentrations in 12 subjects",
        SIMULATED
        + "one compartment with absorption 1.5/h (log-sd 0.6), clearance 2.8 L/h * (weight/70)^0.75 (0.25), "
        "volume 32 L * weight/70 (0.12); errors of 8 % and 0.2 mg/L. Design of R. Upton's study in A. J. "
        "Boeckmann, L. B. Sheiner & S. L. Beal, NONMEM Users Guide, Part V (1994).",
        {"time": "h", "conc": "mg/L", "amt": "mg", "weight": "kg"},
    ),
    "influenza": Example(
        influenza,
        "Boys in bed with influenza, 14 days in 1978",
        "Anonymous, Influenza in a boarding school, British Medical Journal 1 (1978) 587, read off its "
        "figure as in the R package outbreaks. 763 boys were in the school.",
        {"in_bed": "boys"},
        "Numbers as published; also in the R package outbreaks under MIT",
        dates=["date"],
    ),
    "heat": Example(
        heat,
        "Temperature along a heated rod (a PDE)",
        SIMULATED
        + "dT/dt = d/dx (D(T) dT/dx), D = 0.5 + 2.5/(1 + exp(5 - T)); T(0, x) = 0, T(t, 0) = 10, no flux "
        "at x = 10; readings scatter by 0.1. Temperatures are above that of the surroundings.",
        {"time": "min", "x": "cm", "temperature": "K"},
        dims=["time", "x"],
    ),
}  # fmt: skip


def index() -> dict[str, dict]:
    """What `index.json` holds."""
    return {
        name: {
            "title": of.title,
            "rows": len(of.make()),
            "source": of.source,
            "licence": of.licence,
            "units": of.units,
            "dates": of.dates,
            "dims": of.dims,
        }
        for name, of in EXAMPLES.items()
    }


def main(folder: Path = FOLDER) -> None:
    for name, of in EXAMPLES.items():
        of.make().to_csv(folder / f"{name}.csv", index=False)
    text = json.dumps(index(), indent=2, ensure_ascii=False)
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
