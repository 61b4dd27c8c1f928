"""Which combinations of unknown numbers the data of the case studies do not tell, in words, by
Fisher information.

Run: `uv run python -m tests.studies.sloppiness` (a minute)

For each science at the medians of its priors: what the data say less of than the prior, and by
which shares the variances fall from prior to posterior along all directions.
"""

import warnings
from collections.abc import Iterator

import xarray as xr

import bayes_dasl as bd
from case_studies import fluids, molecules

from .which_unknowns import ARGON, asked


def sciences() -> Iterator[tuple[str, bd.Model, xr.Dataset]]:
    """Names, models, and what they are fitted to."""
    yield "climate", *asked("climate")[:2]
    warm, profiles = (asked(study)[1] for study in ("argon", "channel"))
    for name in ("theory", "Tang-Toennies", "Lennard-Jones"):
        yield f"argon, {name}", molecules.model(ARGON, molecules.potentials(ARGON)[name]()), warm
    yield "channel", fluids.model(fluids.classical()), profiles


def main() -> None:
    for name, model, data in sciences():
        with warnings.catch_warnings():  # that it is at the median of the prior
            warnings.simplefilter("ignore", UserWarning)
            found = bd.sensitivity.fisher_information(model, data)
        shares = ", ".join(f"{share:.0%}" for share in found.directions["contraction"])
        print(f"{name}\n{found}\nvariances fall by {shares}\n")


if __name__ == "__main__":
    main()
