"""Do held-out data call a forecast too sure where it is, leave a right one alone, and say what they
could not show?
"""

import numpy as np
import pytest

from bayes_dasl.verdict.coverage import coverage_finding

DRAWS = 400


def judged(draws, observed):
    """The finding on a forecast of one observable, or of several by name; draws `(draw, time,
    …)`.
    """
    draws, observed = (v if isinstance(v, dict) else {"y": v} for v in (draws, observed))
    own = {name: (d.reshape(len(d), -1), observed[name].ravel()) for name, d in draws.items()}
    return coverage_finding(own, own, observed)


def autoregressive(rng, shape, correlation):
    """Standard normals `(…, time)` whose neighbours in time have a correlation."""
    e = rng.normal(size=shape)
    for i in range(1, shape[-1]):
        e[..., i] = correlation * e[..., i - 1] + np.sqrt(1 - correlation**2) * e[..., i]
    return e


def sharing(rng, shape, share):
    """Standard normals `(…, time)`: a share of the variance is one error of all times."""
    return np.sqrt(share) * rng.normal(size=(*shape[:-1], 1)) + np.sqrt(1 - share) * rng.normal(
        size=shape
    )


def right(made):
    """A forecast and an observation that are drawn alike."""
    return made[1:], made[0]


def zeros(rng, number):
    """A river that is dry half of the time, and its noise is correlated."""
    level = np.exp(2 * np.sin(np.arange(number) / 9.0)) - 1
    return np.maximum(level * np.exp(0.4 * autoregressive(rng, (DRAWS + 1, number), 0.7)), 0.0)


def several(rng, number):
    one = autoregressive(rng, (DRAWS + 1, number), 0.7)
    made = {"x": one, "y": -one + 0.2 * rng.normal(size=one.shape)}
    return {name: v[1:] for name, v in made.items()}, {name: v[0] for name, v in made.items()}


def field(rng, number):
    """Ten places; errors of neighbours in time and in space are alike."""
    e = autoregressive(rng, (DRAWS + 1, 10, number), 0.7)
    return np.moveaxis(
        autoregressive(rng, e.shape, 0.0) * 0.3 + np.cumsum(e, axis=1) / np.sqrt(5.0), 1, 2
    )


SOUND = {
    "independent": lambda rng: right(rng.normal(size=(DRAWS + 1, 60))),
    "few": lambda rng: right(sharing(rng, (DRAWS + 1, 12), 0.3)),
    "one error for all": lambda rng: right(sharing(rng, (DRAWS + 1, 30), 0.9)),
    "autoregressive": lambda rng: right(autoregressive(rng, (DRAWS + 1, 60), 0.8)),
    "counts": lambda rng: right(
        rng.poisson(2.0 + np.sin(np.arange(60)), size=(DRAWS + 1, 60)).astype(float)
    ),
    "zeros": lambda rng: right(zeros(rng, 200)),
    "two observables": lambda rng: several(rng, 40),
    "field": lambda rng: right(field(rng, 20)),
}


@pytest.mark.thorough("few", "autoregressive", "counts", "zeros", "two observables", "field")
@pytest.mark.parametrize("case", SOUND)
def test_a_right_forecast_is_seldom_called_too_sure(case):
    """At most one of twenty, whatever the errors have in common, also of zeros and of counts."""
    rng = np.random.default_rng(0)
    found = [judged(*SOUND[case](rng)) for _ in range(100)]
    flagged = [str(f) for f in found if f.level in ("warning", "bad")]
    assert len(flagged) <= 5, flagged


def held(rng, inside, number, correlation, share=0.8):
    """A forecast that takes its errors for nearly one and the same, and data of which so many lie
    inside.

    Its own replicates hold as few in a tenth of cases, so that beside them no data would look odd.
    """
    draws = sharing(rng, (DRAWS, number), share)
    z = autoregressive(rng, (number,), correlation)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    out = np.sort(np.where(z < 0, z / low, z / high))
    return draws, z * 2 / (out[inside - 1] + out[inside])


@pytest.mark.parametrize(("inside", "number"), [(6, 16), (12, 30), (16, 30)])
def test_too_few_values_in_the_intervals_are_never_good(inside, number):
    """They are a fault where errors differ, and inconclusive where they may all be one."""
    rng = np.random.default_rng(0)
    apart, together = (
        [judged(*held(rng, inside, number, correlation)) for _ in range(20)]
        for correlation in (0.3, 0.95)
    )
    assert all(f"hold {inside} of {number} values" in f.message for f in apart + together)
    assert sum(f.level in ("warning", "bad") for f in apart) >= 19, [*map(str, apart)]
    assert not any(f.level == "good" for f in together), [*map(str, together)]
    assert any(f.level == "inconclusive" for f in together)


def test_seven_of_ten_values_in_intervals_of_ninety_per_cent_are_not_good():
    rng = np.random.default_rng(1)
    found = [
        judged(*held(rng, 18, 26, correlation))
        for correlation in (0.0, 0.5, 0.8)
        for _ in range(10)
    ]
    assert sum(f.level == "good" for f in found) <= 1, [*map(str, found)]


def test_a_fault_of_the_highest_forecasts_is_seen_among_zeros():
    """All in all nine tenths are held, since an interval that ends at zero holds every zero."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        draws, observed = right(zeros(rng, 1000))
        middle = np.median(draws, axis=0)
        high = middle > np.quantile(middle, 0.95)
        observed = np.where(high, middle * (observed / np.where(high, middle, 1.0)) ** 3, observed)
        finding = judged(draws, observed)
        assert (
            finding.level in ("warning", "bad")
            and "at the highest 5 % of forecasts they hold" in finding.message
        )
        assert int(finding.message.split()[5]) > 880


def test_zeros_that_come_too_seldom_are_seen():
    """A forecast of zeros at three times of four holds them all; by its PIT it is wrong where they
    come at half.
    """
    rng = np.random.default_rng(0)
    draws = np.where(rng.random((DRAWS, 400)) < 0.75, 0.0, rng.exponential(size=(DRAWS, 400)))
    observed = np.where(rng.random(400) < 0.25, 0.0, 3 * rng.exponential(size=400))
    assert judged(draws, observed).level == "bad"


@pytest.mark.parametrize(("number", "level"), [(3, "inconclusive"), (8, "good")])
def test_few_values_could_not_have_shown_anything(number, level):
    """Of eight independent values that all lie inside a coverage of 0.05^(1/8) = 69 % is what is
    ruled out.
    """
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(DRAWS, number))
    observed = 0.8 * (-1.0) ** np.arange(number)  # neighbours that are not alike
    finding = judged(draws, observed)
    assert finding.level == level and bool(finding.remedy) == (level != "good")
    assert ("is not ruled out" if number == 3 else "is ruled out") in finding.message
    assert int(finding.message.split("%")[-2].split()[-1]) == pytest.approx(
        100 * 0.05 ** (1 / number), abs=2
    )


def test_a_forecast_that_takes_its_errors_for_one_is_worth_one_value():
    """Data near its middle hold all together, by luck or not: nobody can say."""
    rng = np.random.default_rng(0)
    finding = judged(sharing(rng, (DRAWS, 30), 0.95), 0.2 * rng.normal(size=30))
    assert (
        finding.level == "inconclusive"
        and "hold 30 of 30 values (100%), worth about 1" in finding.message
    )


def test_a_forecast_without_spread_that_misses_is_bad():
    """Its CRPS is infinitely far from what it expects, which overflowed."""
    finding = judged(np.zeros((DRAWS, 30)), np.ones(30))
    assert finding.level == "bad" and "hold 0 of 30 values" in finding.message
    assert "inf" not in finding.message


def test_both_sides_count_beside_replicates(monkeypatch):
    """Coverage and distance are two looks, so that one of them alone has to be as odd as in half of
    a hundredth.
    """
    rng = np.random.default_rng(0)
    draws, observed = held(rng, 20, 30, 0.95)
    monkeypatch.setattr("bayes_dasl.verdict.coverage.share_beyond", lambda replicates, value: 0.007)
    assert judged(draws, observed).level == "inconclusive"
    monkeypatch.setattr("bayes_dasl.verdict.coverage.share_beyond", lambda replicates, value: 0.004)
    assert judged(draws, observed).level == "warning"


@pytest.mark.parametrize(("inside", "level"), [(14, "bad"), (16, "warning")])
def test_less_than_half_in_the_intervals_is_bad(monkeypatch, inside, level):
    monkeypatch.setattr("bayes_dasl.verdict.coverage.share_beyond", lambda replicates, value: 0.004)
    # Errors that are all one are worth one value, so that nothing but the replicates finds them
    # odd.
    finding = judged(*held(np.random.default_rng(0), inside, 30, 1.0))
    assert finding.level == level, finding
