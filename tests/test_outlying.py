"""Is a member that lies far from all others named, and are sound populations left alone?"""

import re

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_dasl.verdict.outlying import outlying_findings
from tests.studies.false_alarms import population, posterior

MEMBERS = [f"m{i}" for i in range(12)]


def judged(logs, *, sd=0.02, spread=None, law="normal", **attributes):
    """What is said of members with these logarithms, each told to within `sd`."""
    rng = np.random.default_rng(0)
    spread = np.abs(0.5 * rng.normal(size=(500, 1)))
    each = (
        rng.normal(size=(500, len(logs)))
        if law == "normal"
        else rng.standard_t(2, (500, len(logs)))
    )
    prior, draws = (
        0.5 * rng.normal(size=(500, 1)) + spread * each,
        logs + sd * rng.normal(size=(400, len(logs))),
    )
    attributes = {"lower": 0.0, "pooled": 1} | attributes
    at = {"subject": MEMBERS[: len(logs)]}
    groups = {
        name: xr.Dataset(
            {"amp": (("chain", "draw", "subject"), np.exp(values)[None], attributes)}, at
        )
        for name, values in (("prior", prior), ("posterior", draws))
    }
    return list(outlying_findings(xr.DataTree.from_dict(groups)))


def members(seed, number=12):
    return 0.2 * np.random.default_rng(seed).normal(size=number)


def test_the_member_and_its_distance_are_told():
    logs = members(1)
    logs[4] = 3.0
    (found,) = judged(logs)
    others = np.delete(logs, 4)
    apart = (3.0 - others.mean()) / others.std(ddof=1)
    assert (found.level, found.aspect, found.subject) == ("warning", "model", "outlying amp")
    said = re.search(
        r"subject m4 lies (\S+) standard deviations of its logarithm .* where (\S+) are",
        found.message,
    )
    assert said, found.message
    told, usual = said.groups()
    assert float(told) == pytest.approx(apart, rel=0.1)
    # The largest of twelve is at its median where each exceeds it in one of 12 / log 2 cases.
    each = stats.t(10).isf(np.log(2) / 12 / 2) * np.sqrt(1 + 1 / 11)
    assert float(usual) == pytest.approx(each, rel=0.1)


def test_sound_populations_are_left_alone():
    """At most one of a thousand, and none of two hundred: of log-normal members told to 2 %."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        assert not list(outlying_findings(posterior(rng, population(rng, 1), pooled=True)))


def test_a_law_with_heavy_tails_may_put_a_member_far_out():
    logs = members(1)
    logs[4] = 3.0
    assert not judged(logs, law="heavy")


@pytest.mark.parametrize("change", [{"pooled": 0}, {"members": 4}])
def test_members_that_nothing_holds_together_and_few_are_not_judged(change):
    logs = members(1, change.pop("members", 12))
    logs[2] = 3.0
    assert not judged(logs, **change)
