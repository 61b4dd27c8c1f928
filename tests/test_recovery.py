"""Known truths are recovered: a fit of many simulated data sets for each layer, mechanism and
architecture.
"""

import numpy as np
import pytest

from bayes_dasl.model import check_data
from tests.studies.recovery.case import REPLICATES, fit
from tests.studies.recovery.cases import CASES

# Less has a probability of 0.1 % for a single parameter whose intervals cover 90 %.
LOWEST = 0.76


@pytest.mark.thorough(
    "ODE, non-stiff",
    "ODE, stiff",
    "ODE with jumps",
    "ODE with a step forcing",
    "MultipleShooting",
    "ODE with events (a ball that bounces)",
    "Basis, an unknown input over time",
    "Coupling of two time scales",
    "boundary over time and initial state learned",
    "Series, a decay behind a sensor",
    "Parallel, learned shares",
    "Hierarchical, two layers under a network",
    "Residual, orthogonal",
)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_can_be_evaluated_at_the_data(case):
    """What a model lacks is seen when it is traced, without a solve."""
    assert set(check_data(case.model, case.blank())) == set(case.noise)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_truth_makes_data_that_the_model_takes(case):
    assert set(check_data(case.model, case.data(0))) == set(case.noise)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_intervals_cover_the_truth(case):
    rows = [fit(case, replicate) for replicate in range(REPLICATES)]
    covered = {path: np.mean([row["covered"][path] for row in rows]) for path in case.judged}
    assert 0.8 <= np.mean([*covered.values()]) <= 0.97
    assert min(covered.values()) >= LOWEST
