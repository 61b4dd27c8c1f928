"""How much the intervals of perfect ensembles hold: members drawn from where the truth is drawn
from, too.

Run: `uv run python -m tests.studies.uncertainty.few_members`; it takes a minute or two and prints a
table.

At each of many times member and truth have levels of their own from a normal distribution, or from
one with a long tail on one side, and data scatter about the truth by normal noise; a share of the
variance of a datum is epistemic.
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.fitting.groups import data_groups
from bayes_dasl.prediction.datatree import draws_dataset
from bayes_dasl.prediction.posterior import signature

from ..pages import table

TIMES, LEVELS = 4000, (50, 90, 95)
LEAST = 1e-3  # of the standard deviation of a datum that is noise, where none should be
SHAPES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1.0,
}


class Levels(bd.Module):
    """A level of its own at each time 0, 1, …"""

    level: dist.Distribution

    def __call__(self, t, y, u):
        return {"y": self.level[t.astype(int)]}


def coverage(members: int, share: float, shape: str, *, alone: bool = False) -> list[float]:
    """Shares of data that the 50, 90 and 95 % intervals hold;
    `alone` with one draw of each member.
    """
    rng = np.random.default_rng([members, int(100 * share)])
    levels = np.sqrt(share) * SHAPES[shape](rng, (members + 1, TIMES))
    noise = max(float(np.sqrt(1 - share)), LEAST)
    model = bd.Model(
        bd.Algebraic(Levels(dist.Normal(0.0, 1.0).expand([TIMES]))), bd.NormalNoise(noise)
    )
    data = xr.Dataset(
        {"y": ("time", levels[-1] + noise * rng.normal(size=TIMES))},
        {"time": np.arange(float(TIMES))},
    )
    groups = {"posterior": draws_dataset(model, {"layer.function.level": levels[None, :-1]})}
    post = xr.DataTree.from_dict(groups | data_groups(model, data, 0.0))
    post.attrs = {"signature": signature(model), "markov": int(alone)}
    scores = bd.score(bd.forecast(model, post, data), data).loc["y"]
    return [float(scores[f"coverage_{level}"]) for level in LEVELS]


def main() -> None:
    lines: list[list[object]] = [
        [
            "members are",
            "epistemic share of the variance",
            "members",
            *(f"held by {level} %" for level in LEVELS),
        ]
    ]
    rows = [
        ("normal", share, members) for share in (0.0, 0.5, 1.0) for members in (2, 3, 5, 10, 20)
    ]
    rows += [("exponential", share, members) for share in (0.5, 1.0) for members in (5, 10, 20)]
    for shape, share, members in rows:
        lines.append(
            [shape, f"{share:.0%}", members, *(f"{c:.1%}" for c in coverage(members, share, shape))]
        )
    for members in (5, 10, 20):
        found = coverage(members, 0.0, "normal", alone=True)
        lines.append(["normal, one draw of each", "0%", members, *(f"{c:.1%}" for c in found)])
    print(table(lines))


if __name__ == "__main__":
    main()
