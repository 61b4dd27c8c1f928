"""Do values that depend on one another count as the fewer that they are worth? By series of known
correlation.
"""

import re

import numpy as np
import pytest
import xarray as xr
from test_coverage import autoregressive, sharing

from bayes_dasl._statistics import error_of_mean, independent_hits
from bayes_dasl.scores.draws_at_data import lower_by
from bayes_dasl.verdict.leads import against_baseline, against_competitor


def intervals(several):
    """How often two standard errors either way hold a mean of zero, and the error beside its true
    size.
    """
    errors = np.array([error_of_mean(grids) for grids in several])
    means = np.array(
        [np.mean(np.concatenate([grid.ravel() for grid in grids])) for grids in several]
    )
    return np.mean(np.abs(means) < 2 * errors), np.median(errors) / means.std()


@pytest.mark.parametrize("number", [30, 68, 300])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.77])
def test_the_error_of_a_mean_is_right_for_an_autoregression(number, correlation):
    """As if independent, two errors of 68 values of correlation 0.77 hold the mean in 52 % of
    cases.
    """
    rng = np.random.default_rng(0)
    held, size = intervals([[row] for row in autoregressive(rng, (400, number), correlation)])
    assert held > (0.83 if number == 30 else 0.88)
    assert size == pytest.approx(1.0, abs=0.2)


MADE = {
    "an offset of each member": lambda rng: [rng.normal(size=12) + 0.5 * rng.normal(size=(40, 12))],
    "an error that all members share": lambda rng: [
        autoregressive(rng, (100,), 0.7)[:, None] + 0.3 * rng.normal(size=(100, 30))
    ],
    "two observables that go together": lambda rng: [
        e := autoregressive(rng, (100,), 0.7),
        e + rng.normal(size=100),
    ],
    "observables of other shapes": lambda rng: [
        autoregressive(rng, (80,), 0.7),
        rng.normal(size=(40, 3)),
    ],
    "a field without dependence": lambda rng: [rng.normal(size=(20, 20))],
}


@pytest.mark.parametrize("case", MADE)
def test_members_places_and_observables_may_depend_on_each_other(case):
    rng = np.random.default_rng(0)
    held, size = intervals([MADE[case](rng) for _ in range(200)])
    assert held > 0.85 and size == pytest.approx(1.0, abs=0.25)


def test_series_of_members_do_not_run_on_into_one_another():
    """Each goes from low to high; end to end, in a table, the last of one is beside the first of
    the next.
    """
    ramps = np.tile(np.linspace(-1, 1, 10)[:, None], (1, 40))
    alternating = error_of_mean([ramps * (-1.0) ** np.arange(40)])
    # Forty independent members, each of them worth one value or two.
    assert 0.5 * ramps.std() / np.sqrt(40) < alternating < 3 * ramps.std() / np.sqrt(40)


def test_missing_values_leave_the_rest_as_they_are():
    e = np.random.default_rng(0).normal(size=50)
    gaps = np.insert(e, [10, 20, 20], np.nan)
    assert error_of_mean([gaps]) == pytest.approx(error_of_mean([e]))
    assert independent_hits([gaps]) == pytest.approx(independent_hits([e]))
    assert error_of_mean([e[:1]]) == error_of_mean([]) == np.inf
    assert independent_hits([]) == 0 and independent_hits([np.full(3, np.nan)]) == 0


def test_hits_are_worth_as_many_as_their_sum_varies_by():
    """Of all that two normals share, whether both are far out shares the square."""
    rng = np.random.default_rng(0)
    z = autoregressive(rng, (2000, 100), 0.7)
    outside = (np.abs(z) > 1.6449).sum(axis=1)
    worth = 100 * 100 * 0.09 / outside.var()
    found = [independent_hits([row]) for row in z[:200]]
    assert np.median(found) == pytest.approx(worth, rel=0.3) and np.median(found) < worth
    assert max(independent_hits([row]) for row in sharing(rng, (50, 30), 1.0)) == pytest.approx(1.0)
    assert np.median([independent_hits([row]) for row in rng.normal(size=(200, 30))]) > 25
    # Another sign is no other dependence.
    assert independent_hits([z[0], -z[0]]) == pytest.approx(independent_hits([z[0], z[0]]))
    assert independent_hits([z[0], -z[0]]) == pytest.approx(independent_hits([z[0]]), rel=0.01)


def test_the_standard_error_of_a_better_score_allows_for_errors_that_hold_together():
    """Of 68 values whose errors have a correlation of 0.77: as far as the score itself strays from
    series to series.
    """
    rng = np.random.default_rng(0)
    own, other, lower, told = rng.normal(size=(300, 68)), 2.0 + rng.normal(size=(300, 68)), [], []
    for _ in range(60):
        y = 2.0 + autoregressive(rng, (68,), 0.77)
        data = xr.Dataset({"y": ("time", y)})
        [finding] = against_competitor("other", {"y": (own, y)}, {"y": (other, y)}, data)
        said = re.search(
            r"CRPS is (\d+)% lower \(standard error (\d+)%, of 68 values\)", finding.message
        )
        lower.append(int(said[1]))
        told.append(int(said[2]))
    assert np.median(told) == pytest.approx(np.std(lower), rel=0.3)


def test_one_value_has_no_standard_error():
    draws, y = np.random.default_rng(0).normal(size=(200, 1)), np.array([5.0])
    [finding] = against_baseline(
        "naive", {"y": (draws, y)}, {"y": (draws + 5.0, y)}, xr.Dataset({"y": ("time", y)})
    )
    assert "lower (standard error unknown, of 1 value)" in finding.message


def test_how_much_lower_a_score_is_counts_every_datum_once():
    ours, theirs, number = np.array([1.0, 2.0]), np.array([0.5, 2.0]), np.array([30, 10])
    assert lower_by(ours, theirs, number) == pytest.approx(0.5 * 30 / 40)
    assert np.isnan(lower_by(ours, np.array([0.5, np.nan]), number))
    assert lower_by(ours, np.array([0.5, np.nan]), np.array([30, 0])) == pytest.approx(0.5)
