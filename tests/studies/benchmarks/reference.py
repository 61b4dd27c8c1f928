"""The posterior of posteriordb's lynx–hare model over ten keys, against its published reference
draws.

Run: `uv run python -m tests.studies.benchmarks.reference`

The worst figure of each kind over all parameters goes into the section of docs/measurements/benchmarks.md. Exits
with 1 if a key does not meet all bounds.
"""

import sys

import arviz_stats as azs
import pandas as pd

import bayes_dasl as bd
from tests.problems import POSTERIORDB_NAMES, posteriordb_lynx_hare

from .. import ROOT
from ..pages import table, write_section

REFERENCE = ROOT.parent / "shared" / "reference" / "lotka_volterra_posteriordb_summary.csv"


def compare(key: int, reference: pd.DataFrame) -> dict[str, float]:
    """The worst figure of each kind over all parameters."""
    model, data = posteriordb_lynx_hare()
    post = bd.fit(model, data, bd.NUTS(chains=4, draws=1000), key=key)
    draws = post["posterior"].to_dataset()
    rows = {ours: reference.loc[theirs] for theirs, ours in POSTERIORDB_NAMES.items()}
    shift = {n: abs(float(draws[n].mean()) - row["mean"]) / row["sd"] for n, row in rows.items()}
    ratio = {n: float(draws[n].std()) / row["sd"] for n, row in rows.items()}
    rhat, ess = azs.rhat(draws), azs.ess(draws, method="bulk")
    return {
        "key": key,
        "largest shift of a mean (sd)": max(shift.values()),
        "lowest sd ratio": min(ratio.values()),
        "highest sd ratio": max(ratio.values()),
        "highest R-hat": max(float(v) for v in rhat.data_vars.values()),
        "lowest bulk ESS": min(float(v) for v in ess.data_vars.values()),
        "divergences": int(post["sample_stats"]["diverging"].sum()),
    }


def met(figures: dict[str, float]) -> bool:
    return (
        figures["largest shift of a mean (sd)"] < 0.1
        and figures["lowest sd ratio"] > 0.93
        and figures["highest sd ratio"] < 1.07
        and figures["highest R-hat"] < 1.01
        and figures["lowest bulk ESS"] >= 2000
    )


def main() -> None:
    if not REFERENCE.exists():
        sys.exit(
            "the summary of posteriordb's hudson_lynx_hare-lotka_volterra (columns parameter, "
            "mean, sd) is no part of "
            f"the project: put it into shared/reference/{REFERENCE.name} beside the project"
        )
    reference = pd.read_csv(REFERENCE, index_col="parameter")
    fits = [compare(key, reference) for key in range(10)]
    lines = [
        list(fits[0]),
        *(
            [f"{v:.0f}" if v > 100 or isinstance(v, int) else f"{v:.3f}" for v in f.values()]
            for f in fits
        ),
    ]
    number = sum(map(met, fits))
    content = f"{table(lines)}\n\nAll bounds are met with **{number} of {len(fits)} keys**."
    write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "reference", content)
    print(content)
    sys.exit(0 if number == len(fits) else 1)


if __name__ == "__main__":
    main()
