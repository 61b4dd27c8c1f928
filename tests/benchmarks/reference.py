"""The posterior of posteriordb's lynx–hare model over ten keys, against its published reference draws.

Run: `uv run python tests/benchmarks/reference.py`
"""

import sys
from pathlib import Path

import arviz_stats as azs
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from problems import POSTERIORDB_NAMES, posteriordb_lynx_hare  # noqa: E402

import bayes_dasl as bd  # noqa: E402

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
        "seconds": post.attrs["wall_time_s"],
    }


if __name__ == "__main__":
    if not REFERENCE.exists():
        sys.exit(
            "the summary of posteriordb's hudson_lynx_hare-lotka_volterra (columns parameter, mean, sd) is no part of "
            f"the project: put it into shared/reference/{REFERENCE.name} beside the project"
        )
    reference = pd.read_csv(REFERENCE, index_col="parameter")
    table = pd.DataFrame([compare(key, reference) for key in range(10)]).set_index("key")
    print(table.round(3).to_string())
    met = (
        (table["largest shift of a mean (sd)"] < 0.1)
        & (table["lowest sd ratio"] > 0.93)
        & (table["highest sd ratio"] < 1.07)
        & (table["highest R-hat"] < 1.01)
        & (table["lowest bulk ESS"] >= 2000)
    )
    print(f"met in {int(met.sum())} of {len(met)} keys")
    sys.exit(0 if met.all() else 1)
