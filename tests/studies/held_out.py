"""How often held-out data call a forecast too sure, where it is right and where too few values lie
inside.

`uv run python -m tests.studies.held_out` prints both tables of docs/measurements/verdicts.md, in a minute or
two.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from tests.test_coverage import SOUND, held, judged

NUMBER = 100
FEW = [
    (6, 16, 0.3),
    (6, 16, 0.7),
    (6, 16, 0.95),
    (12, 30, 0.3),
    (12, 30, 0.7),
    (16, 30, 0.3),
    (16, 30, 0.7),
]


def row(make: Callable[[np.random.Generator], tuple], *cells: object) -> str:
    """One line of a table: how many of a hundred are good, inconclusive,
    and warned about or bad.
    """
    rng = np.random.default_rng(0)
    found = Counter(judged(*make(rng)).level for _ in range(NUMBER))
    return _line([*cells, found["good"], found["inconclusive"], found["warning"] + found["bad"]])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    for name, make in SOUND.items():
        print(row(make, name))
    for inside, number, correlation in [*FEW, (18, 26, 0.3)]:
        print(
            row(
                lambda rng, of=(inside, number, correlation): held(rng, *of),
                f"{inside} of {number}",
                correlation,
            )
        )
