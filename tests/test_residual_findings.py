"""Do findings on residuals name the right side, the right member, and a remedy that the model can
take?
"""

import json
import operator

import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.verdict import remedies
from bayes_dasl.verdict.adequacy import adequacy_findings
from bayes_dasl.verdict.remedies import Noise
from bayes_dasl.verdict.residuals import NUMBER, Members, residual_findings
from tests.studies.false_alarms import levels_of_members, residual_alarms

VALUES, DRAWS = 200, 300
NORMAL = Noise("NormalNoise", "Normal", -1.0)


def judged(errors, noise=NORMAL, **more):
    """Findings on residuals of 200 data with these errors, where the model says that they are
    standard normal.
    """
    rng = np.random.default_rng(1)
    mean = np.zeros((DRAWS, VALUES))
    drawn = rng.normal(size=mean.shape)
    found = residual_findings("y", drawn, errors, mean, np.ones(mean.shape), NUMBER, noise, **more)
    return {finding.subject: finding for finding in found}


def skewed(seed=0):
    """Standardised gamma errors, of skewness 1."""
    return (np.random.default_rng(seed).gamma(4.0, size=VALUES) - 4.0) / 2.0


@pytest.mark.parametrize("sign", [1, -1])
def test_skewness_has_a_sign_in_the_message_and_the_remedy(sign):
    found = judged(sign * skewed(), Noise("NormalNoise", "Normal", 0.1))[
        "symmetry of residuals of y"
    ]
    assert f"their skewness is {'' if sign > 0 else '-'}1." in found.message
    assert ("bd.LogNormalNoise" in found.remedy) == (sign > 0)
    assert f"far {'above' if sign > 0 else 'below'} what is predicted" in found.remedy


def test_a_skewness_that_the_model_draws_itself_is_usual_and_its_lack_is_not():
    """Log-normal noise has a skewness of its own: symmetric data lie below it."""
    rng = np.random.default_rng(0)
    centre, sd = np.exp(0.5**2 / 2), np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
    drawn = np.exp(0.5 * rng.normal(size=(DRAWS, VALUES)))
    for observed, odd in (
        (np.exp(0.5 * rng.normal(size=VALUES)), False),
        (centre + sd * rng.normal(size=VALUES), True),
    ):
        noise = Noise("LogNormalNoise", "LogNormal", 0.1)
        mean = np.full(drawn.shape, centre)
        found = residual_findings(
            "y", drawn, observed, mean, np.full(drawn.shape, sd), NUMBER, noise
        )
        symmetry = [f for f in found if f.subject == "symmetry of residuals of y"]
        assert bool(symmetry) == odd
        assert all(
            "bd.noise.BoxCoxNoise" in f.remedy and "bd.LogNormalNoise" not in f.remedy
            for f in symmetry
        )


KINDS = {
    "normal": Noise("NormalNoise", "Normal", 0.1),
    "normal, zeros": Noise("NormalNoise", "Normal", 0.0),
    "normal, negative": Noise("NormalNoise", "Normal", -1.0),
    "combined": Noise("CombinedNoise", "Normal", 0.1),
    "log-normal": Noise("LogNormalNoise", "LogNormal", 0.1),
    "student": Noise("StudentTNoise", "StudentT", -1.0),
    "box-cox": Noise("BoxCoxNoise", "BoxCoxNormal", 0.1),
    "correlated": Noise("CorrelatedNoise", "Normal", 0.1, correlated=True),
    "correlated, negative": Noise("CorrelatedNoise", "Normal", -1.0, correlated=True),
    "correlated log": Noise("CorrelatedLogNoise", "LogNormal", 0.1, correlated=True),
    "poisson": Noise("PoissonNoise", "Poisson", 0.0),
    "negative binomial": Noise("NegativeBinomialNoise", "NegativeBinomial2", 0.0),
    "binomial": Noise("BinomialNoise", "BinomialProbs", 0.0),
    "hurdle": Noise("HurdleNoise", "Hurdle(LogNormal)", 0.0),
    "censored": Noise("Censored", "CensoredLaw(LogNormal)", 0.1),
    "filtered": Noise("NormalNoise", "Normal", 0.1, filtered=True),
    "not said": Noise(),
}


def all_remedies(noise):
    sides = (True, False)
    found = [remedies.larger(noise), remedies.ordered(noise), remedies.heavy_tailed(noise)]
    found += [remedies.skewed(noise, above=side) for side in sides]
    found += [remedies.uneven(noise, grow=side) for side in sides]
    return [*found, remedies.own_scales(noise, "subject")]


@pytest.mark.parametrize("kind", KINDS)
def test_no_remedy_names_a_noise_that_the_model_has_or_cannot_have(kind):
    noise = KINDS[kind]
    said = " ".join(all_remedies(noise))
    if noise.kind not in (
        "BoxCoxNoise",
        "StudentTNoise",
        "Censored",
        "HurdleNoise",
    ):  # of these more or less is said
        assert not noise.kind or f"bd.{noise.kind}" not in said
    assert "bd.LogNormalNoise" not in said or (noise.lowest > 0 and not noise.logarithmic)
    assert (
        "bd.filtering.CorrelatedLogNoise" not in said
        or (noise.correlated and noise.lowest > 0)
        or noise.logarithmic
    )
    continuous = (
        "LogNormalNoise",
        "StudentTNoise",
        "CombinedNoise",
        "BoxCoxNoise",
        "CorrelatedNoise",
    )
    if noise.counts:
        assert not any(f"bd.{other}" in said for other in continuous)
    else:
        assert "Binomial" not in said and "Poisson" not in said
    if noise.filtered:
        assert not any(
            f"bd.{other}" in said for other in (*continuous, "VaryingScale", "CorrelatedLogNoise")
        )
    if noise.correlated:
        assert "StudentT" not in said and "BoxCox" not in said and "bd.LogNormalNoise" not in said
    if kind in ("hurdle", "censored"):
        assert "bd.Correlated" not in said and "bd.StudentTNoise" not in said


def test_the_words_of_remedies_are_names_of_the_package():
    said = (
        " ".join(each for noise in KINDS.values() for each in all_remedies(noise))
        .replace(",", " ")
        .replace(";", " ")
    )
    names = {word.strip("().").split("(")[0] for word in said.split() if "bd." in word}
    assert names and all(operator.attrgetter(name.partition("bd.")[2])(bd) for name in names)


def by_subject(post, fc):
    return {f.subject: f for f in adequacy_findings(post, fc, None, {})}


@pytest.mark.parametrize("seed", range(3))
def test_a_scale_that_differs_between_members_is_named_and_not_taken_for_tails(seed):
    scales = np.where(np.arange(9) == 4, 4.0, 1.0)
    found = by_subject(*levels_of_members(np.random.default_rng(seed), [60] * 9, scales))
    told = found.pop("scale of y differs between members")
    assert (
        told.level == "bad"
        and "for subject 4" in told.message
        and "bd.varying(dist.HalfNormal(1.0))" in told.remedy
    )
    assert not found


def test_a_twofold_difference_is_a_warning():
    scales = np.array([1.0, 2.0] * 5)
    found = by_subject(*levels_of_members(np.random.default_rng(0), [80] * 10, scales))
    assert {s: f.level for s, f in found.items()} == {
        "scale of y differs between members": "warning"
    }


def test_other_faults_show_beside_different_scales_and_name_a_member():
    post, fc = levels_of_members(np.random.default_rng(0), [60] * 3, np.array([1.0, 4.0, 1.0]))
    observed = post["observed_data"].to_dataset()
    y = observed["y"].values.copy()
    y[:, 2] += 3.0 * np.sin(np.arange(60) / 8)
    post["observed_data"] = xr.DataTree(observed.assign(y=(("time", "subject"), y)))
    found = by_subject(post, fc)
    assert "scale of y differs between members" in found
    assert found["order of residuals of y"].message.endswith("; most of subject 2")


@pytest.mark.parametrize(
    ("numbers", "phi"),
    [([40] * 9, 0.0), ([8, 12, 20, 80] * 3, 0.0), ([40] * 9, 0.6)],
    ids=["even", "uneven", "serial"],
)
def test_one_scale_of_all_members_is_left_alone(numbers, phi):
    """Also where a fit takes much from the few data of a member, and where residuals are serially
    correlated.
    """
    alarms = residual_alarms(numbers, np.ones(len(numbers)), phi=phi, replicates=12)
    alarms.pop("order of residuals of y", None)
    assert sum(alarms.values()) <= 1 / 12


def test_what_a_fit_takes_is_no_difference_of_scales():
    """Six numbers of each member take half of the variance of twelve data and a tenth of that of
    sixty.
    """
    raised = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        own, centre, of = [], [], []
        for member, number in enumerate([12, 60] * 12):
            basis = np.linalg.qr(rng.normal(size=(number, 6)))[0]
            y = rng.normal(size=number)
            centre.append((basis @ (basis.T @ y))[None] + rng.normal(size=(DRAWS, 6)) @ basis.T)
            own.append(y)
            of += [member] * number
        mean, y = np.concatenate(centre, axis=1), np.concatenate(own)
        members = Members("subject", tuple(map(str, range(24))), np.array(of))
        drawn = mean + rng.normal(size=mean.shape)
        found = residual_findings(
            "y", drawn, y, mean, np.ones(mean.shape), NUMBER + 1, NORMAL, members
        )
        raised += any(f.subject == "scale of y differs between members" for f in found)
    assert raised == 0


def test_forcings_that_were_filled_in_the_period_come_first():
    rng = np.random.default_rng(0)
    post, fc = levels_of_members(rng, [40] * 4, np.array([1.0, 1.0, 1.0, 8.0]))
    rain = np.arange(60.0)
    rain[[3, 4, 50]] = np.nan
    filled = bd.data.fill_gaps(
        xr.Dataset({"rain": ("time", rain)}, {"time": np.arange(60.0)}), rain="last"
    )
    assert json.loads(filled["rain"].attrs["filled_between"]) == [[3.0, 4.0], [50.0, 50.0]]
    post["constant_data"] = xr.DataTree(filled.isel(time=slice(0, 40)))
    (found,) = [f for f in adequacy_findings(post, fc, None, {}) if f.level != "good"]
    begin = (
        "first see whether filled values of a forcing explain it: rain (1 gap in the period of the "
        "fit; in all 3 of 60"
    )
    assert found.remedy.startswith(begin) and ". Else let the scale" in found.remedy
    post["constant_data"] = xr.DataTree(filled.isel(time=slice(5, 40)))
    (found,) = [f for f in adequacy_findings(post, fc, None, {}) if f.level != "good"]
    assert found.remedy.startswith("let the scale")
