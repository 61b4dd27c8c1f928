"""Whether NUTS draws with the same key what it drew in another revision: lynx–hare, mechanistic and
hybrid.

Run: `uv run python -m tests.studies.same_draws --before 8713163`

Each fit is a process of its own, with the package and the case study of its revision. Where the
draws differ, means and standard deviations of the scientific parameters and of the predictions are
compared in Monte-Carlo standard errors of the two runs together.
"""

import argparse
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from . import ROOT
from .imports import archive
from .pages import table
from .timing import printed

RIVALS = ("mechanistic", "hybrid")
JOB = """
import hashlib, json
import numpy as np
from arviz_stats.base.array import array_stats
import bayes_dasl as bd
from case_studies import lynx_hare
study = lynx_hare.study()
train, _ = bd.split(study.data, time=study.split)
model = study.rivals.get({rival!r}, study.model)
post = bd.fit(model, train, progress=False, key=0)
digest, found = hashlib.sha256(), {{}}
for name, values in post["posterior"].data_vars.items():
    digest.update(np.ascontiguousarray(values.values).tobytes())
    if values.attrs.get("group") == "science":
        found[str(name)] = values.values
for name, values in post["conditional_mean"].data_vars.items():
    found |= {{f"{{name}} at {{i}}": v for i, v in enumerate(np.moveaxis(values.values, -1, 0))}}
def said(x):
    x = x.reshape(*x.shape[:2], -1)[..., 0]
    square = (x - x.mean()) ** 2
    sizes = [float(array_stats.ess(v, chain_axis=0, draw_axis=1, method="mean")) for v in (x, square)]
    return [x.mean(), x.std() / sizes[0] ** 0.5, x.std(), square.std() / sizes[1] ** 0.5 / 2 / x.std()]
print(json.dumps([digest.hexdigest(), {{name: [float(v) for v in said(x)] for name, x in found.items()}}]))
"""


def said(rival: str, root: Path) -> tuple[str, dict[str, list[float]]]:
    """A digest of all draws, and mean and standard deviation with their errors by what is
    compared.
    """
    digest, found = json.loads(printed(JOB.format(rival=rival), root=root, BAYES_DASL_CACHE="off"))
    return digest, found


def compared(rival: str, before: Path) -> list[str]:
    """A line of the table."""
    (digest, found), (other_digest, other) = (said(rival, root) for root in (ROOT, before))
    both = np.array([(found[name], other[name]) for name in found if name in other])
    apart = [
        np.abs(both[:, 0, i] - both[:, 1, i]) / np.hypot(both[:, 0, i + 1], both[:, 1, i + 1])
        for i in (0, 2)
    ]
    same = "yes" if digest == other_digest else "no"
    return [rival, same, str(len(both)), *(f"{np.median(a):.2f} ({a.max():.2f})" for a in apart)]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.same_draws", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--before", required=True, help="a git revision")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive(ROOT, ".", asked.before))) as tar:
            tar.extractall(folder, filter="data")
        lines = [compared(rival, Path(folder)) for rival in RIVALS]
    header = [
        "model",
        "equal to the bit",
        "quantities",
        "means apart: median (most)",
        "sds apart: median (most)",
    ]
    print(table([header, *lines]))


if __name__ == "__main__":
    main()
