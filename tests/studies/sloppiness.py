"""Which combinations of unknown numbers the data of the case studies do not tell, in words, by Fisher information.

Run: `uv run python -m tests.studies.sloppiness` (a minute)

For each science at the medians of its priors: what the data say less of than the prior, and by which shares the
variances fall from prior to posterior along all directions.
"""

from collections.abc import Iterator

import xarray as xr

import bayes_dasl as bd
from case_studies import climate, fluids, molecules


def sciences() -> Iterator[tuple[str, bd.Model, xr.Dataset]]:
    """Names, models, and what they are fitted to."""
    train, _ = bd.split(climate.load(), time=climate.SPLIT)
    yield "climate", climate.observed(climate.yearly(climate.earth())), train
    gas = molecules.GASES["argon"]
    warm, _ = bd.split(molecules.load(gas), coldness=1000.0 / gas.warm)
    for name in ("theory", "Tang-Toennies", "Lennard-Jones"):
        yield f"argon, {name}", molecules.model(gas, molecules.potentials(gas)[name]()), warm
    yield "channel", fluids.model(fluids.classical()), fluids.rows_of(fluids.TRAINED)


def main() -> None:
    for name, model, data in sciences():
        found = bd.fisher_information(model, data)
        shares = ", ".join(f"{share:.0%}" for share in found.directions["contraction"])
        print(f"{name}\n{found}\nvariances fall by {shares}\n")


if __name__ == "__main__":
    main()
