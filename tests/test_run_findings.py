"""What an engine says of its own run becomes a finding: modes, warm-up, approximations, evidence,
the solver.
"""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Curve
from trees import make_post

import bayes_dasl as bd
from bayes_dasl.engines.many_chain import many_chain as many_chain
from bayes_dasl.engines.smc import smc as smc
from bayes_dasl.engines.svi import svi as svi
from bayes_dasl.inference import pose
from bayes_dasl.inference.nuts import nuts as nuts


class Square(Curve):
    """y = root² + level: two modes of the same height. No solver, so that compilation is short."""

    root: bd.Scalar
    level: bd.Scalar

    def y(self, times):
        return self.root**2 + self.level + 0.0 * times


DATA = xr.Dataset({"y": ("time", np.full(6, 2.25))}, {"time": np.arange(6.0)})
ENGINE = bd.NUTS(draws=100)


def square(root):
    return bd.Model(Square(root, dist.Normal(0.0, 0.1)), bd.NormalNoise(scale=0.1))


@pytest.fixture(scope="module")
def two_modes():
    return bd.fit(square(dist.Normal(0.0, 2.0)), DATA, ENGINE, key=1)


@pytest.fixture(scope="module")
def one_mode():
    return bd.fit(square(dist.Normal(1.5, 0.3)), DATA, bd.NUTS(draws=300), key=1)


def found(post, subject):
    return [finding for finding in bd.diagnose(post).findings if finding.subject == subject]


@pytest.mark.thorough
def test_modes_are_kept_with_their_density(two_modes):
    modes = two_modes["modes"].to_dataset()
    assert dict(modes.sizes) == {"mode": 2} == {"mode": two_modes.attrs["modes"]}
    assert sorted(np.sign(modes["root"].values)) == [-1, 1]
    np.testing.assert_allclose(modes["root"] ** 2 + modes["level"], 2.25, atol=0.01)
    flat = jnp.stack(
        [jnp.asarray(modes[name].values) for name in ("root", "level")], axis=1
    )  # in the layer's order
    density = pose(square(dist.Normal(0.0, 2.0)), DATA).log_density
    np.testing.assert_allclose(jax.vmap(density)(flat), modes["lp"], rtol=1e-6)
    assert modes["root"].attrs["path"] == "layer.root"


@pytest.mark.thorough
def test_each_draw_has_the_number_of_its_mode(two_modes):
    number = two_modes["sample_stats"]["mode"]
    assert number.dims == ("chain", "draw")
    root = two_modes["modes"]["root"].values[number.values]
    np.testing.assert_array_equal(np.sign(root), np.sign(two_modes["posterior"]["root"]))
    assert len(np.unique(number)) == 2


@pytest.mark.thorough
def test_chains_in_several_modes_are_named(two_modes, tmp_path):
    [finding] = found(two_modes, "modes")
    assert finding.level == "bad" == bd.diagnose(two_modes).level
    assert "chains stay in 2 modes, so that their weights mean nothing" in finding.message
    assert "bd.engines.SMC()" in finding.remedy
    modes, number = two_modes["modes"], two_modes["sample_stats"]["mode"].values
    for i in range(2):
        root, lp = float(modes["root"][i]), float(modes["lp"][i])
        chains = ", ".join(str(chain) for chain in range(4) if (number[chain] == i).all())
        assert f"root = {root:.3g} (log density {lp:.4g}, chains {chains})" in finding.message
    loaded = bd.load(bd.save(two_modes, tmp_path / "post.nc"))
    assert found(loaded, "modes") == [finding]


@pytest.mark.thorough
def test_a_warm_up_that_never_settled_is_a_finding(two_modes, one_mode):
    [finding] = found(two_modes, "warm-up")
    assert finding.level == "warning"
    assert "after 2000 draws" in finding.message
    assert two_modes.attrs["warmup_settled"] == 0
    assert one_mode.attrs["warmup_settled"] == 1
    assert found(one_mode, "warm-up") == []


@pytest.mark.thorough
def test_one_mode_is_no_finding(one_mode):
    assert found(one_mode, "modes") == []
    assert "mode" not in one_mode["sample_stats"]
    assert one_mode["modes"].sizes["mode"] == 1
    assert bd.diagnose(one_mode).level != "bad", bd.diagnose(one_mode)


def moded(number, post=None):
    """A posterior whose draws are near modes of these numbers, for every chain and draw."""
    post = make_post() if post is None else post
    shape = post["posterior"].sizes["chain"], post["posterior"].sizes["draw"]
    stats = (
        post["sample_stats"]
        .to_dataset()
        .assign(mode=(("chain", "draw"), np.broadcast_to(number, shape)))
    )
    post["sample_stats"] = xr.DataTree(stats)
    birth = ("mode", [0.5, 0.9, 0.7], {"group": "science"})
    weight = ("mode", [0.0, 9.0, 0.0], {"group": "network"})
    post["modes"] = xr.DataTree(
        xr.Dataset({"birth": birth, "w": weight, "lp": ("mode", [-10.0, -11.0, -12.0])})
    )
    return post


def test_all_draws_near_one_of_several_modes():
    [finding] = found(moded(1), "modes")
    assert finding.level == "good"
    assert finding.message.startswith(
        "3 modes were started from; all draws are near one: birth = 0.9 (log density -11,"
    )


def test_modes_without_draws_are_told():
    [finding] = found(moded(np.arange(4)[:, None] // 2), "modes")
    assert "chains stay in 2 of 3 modes" in finding.message
    assert finding.message.endswith("; without draws: birth = 0.7 (log density -12)")


def test_modes_are_described_by_what_separates_them():
    """Modes of `death` are further apart as numbers, but next to nothing in units of how wide they
    are.
    """
    post = moded(np.arange(4)[:, None] // 2)
    number = post["sample_stats"]["mode"].values
    held, rng = post["posterior"].to_dataset(), np.random.default_rng(0)
    held["birth"] = held["birth"].copy(
        data=np.array([0.5, 0.9])[number] + 1e-3 * rng.normal(size=number.shape)
    )
    held["death"] = held["death"].copy(
        data=np.array([1.0, 9.0])[number] + 20.0 * rng.normal(size=number.shape)
    )
    post["posterior"] = xr.DataTree(held)
    death = ("mode", [1.0, 9.0, 5.0], {"group": "science"})
    post["modes"] = xr.DataTree(post["modes"].to_dataset().assign(death=death))
    [finding] = found(post, "modes")
    assert "birth = 0.9 (log density" in finding.message and "death" not in finding.message


def weighed(errors):
    """The posterior of particles in two modes with weights."""
    post = moded(np.arange(200) % 100 // 75)
    modes = post["modes"].to_dataset().isel(mode=[0, 1])
    weights = {"mode_weight": ("mode", [0.75, 0.25]), "mode_weight_se": ("mode", errors)}
    post["modes"] = xr.DataTree(modes.assign(weights))
    post.attrs["draws_are"] = "populations of particles"
    return post


@pytest.mark.parametrize(
    ("errors", "level"),
    [
        ([0.02, 0.02], "good"),
        ([0.1, 0.1], "warning"),
        ([0.2, 0.2], "bad"),
        ([np.nan] * 2, "warning"),
    ],
)
def test_weights_of_modes_are_told_with_their_errors(errors, level):
    [finding] = found(weighed(errors), "modes")
    assert finding.level == level
    error = "" if np.isnan(errors[0]) else f" ± {errors[0]:.1%}"
    assert f"birth = 0.5 (weight 75.0%{error}, log density -10)" in finding.message


def test_particles_have_no_chains_starts_or_warm_up():
    """A run of particles that stands apart, few particles, and a single run."""
    for post in (
        make_post(stuck_chain=2),
        make_post(draws=6),
        make_post(chains=1),
        make_post(autocorrelation=0.9),
    ):
        chains = str(bd.diagnose(post))
        post.attrs["draws_are"] = "populations of particles"
        post["sample_stats"] = xr.DataTree(
            post["sample_stats"].to_dataset().drop_vars("energy")
        )  # none has momentum
        particles = str(bd.diagnose(post))
        assert "chain" in chains and not re.search("chain|start|warm", particles), particles


def test_chains_that_all_move_between_modes():
    [finding] = found(moded(np.arange(200) % 100 // 75), "modes")
    assert finding.level == "good"
    assert (
        "every chain moves between 2 of 3 modes: birth = 0.5 (log density -10, chains 0, 1, 2, 3)"
        in finding.message
    )
    assert "birth = 0.9 (log density -11, 25% of the draws)" in finding.message


def test_modes_that_chains_travel_freely_between_are_one():
    """Climbs that end at several points of one mode: independent draws change between these at
    every turn.
    """
    rng = np.random.default_rng(0)
    for share in (0.5, 0.05, 0.002):
        number = (rng.uniform(size=(4, 200)) < share).astype(int)
        [finding] = found(moded(number), "modes")
        assert finding.message.startswith(
            "2 modes were started from; all draws are near one: birth = 0.5"
        ), share
    every = rng.integers(0, 3, (4, 200))
    assert found(moded(every), "modes") == []
    every[2] = 1  # one chain sits in one of them
    assert found(moded(every, make_post(stuck_chain=2)), "modes")[0].level == "bad"


def test_chains_in_modes_of_the_weights_alone():
    """They disagree neither on the science nor on the trajectories, as permuted hidden units do."""
    [finding] = found(moded(np.array([[0], [1], [0], [2]])), "modes")
    assert finding.level == "good"
    assert "say the same of the science and the trajectories" in finding.message
    number = np.zeros((4, 200), int)
    number[1], number[2, ::2] = 1, 1  # one chain elsewhere, one that moves
    assert found(moded(number, make_post(stuck_chain=1)), "modes")[0].level == "bad"


GUIDE = {
    "svi_steps": 900,
    "proposals": 16000,
    "pareto_k": 0.2,
    "resampled": 1,
    "converged": 1,
    "modes": 1,
    "modes_missed": 0,
}
SHORT = {"superchains": 2, "nested_rhat": 1.004}
ENERGY = SHORT | {"energy_variance_per_dimension": 1e-4, "energy_variance_bound": 5e-4}
EVIDENCE = {"log_evidence": -33.456, "log_evidence_se": 0.1}
PARTICLES = EVIDENCE | {"effective_share": 0.9}
of_a_guide = functools.partial(svi.findings, guide="mean_field")
CASES = [
    (nuts.findings, {"warmup_settled": 0, "warmup_draws": 2000}, "warm-up", ["warning"], "2000 "
        "draws"),
    (nuts.findings, {"warmup_settled": 1, "warmup_draws": 300}, "warm-up", [], ""),
    (of_a_guide, GUIDE, "variational guide", ["good"], r"k-hat 0.20, good below 0.70; its draws "
        r"are resampled"),
    (of_a_guide, GUIDE | {"pareto_k": 0.93, "resampled": 0}, "variational guide", ["bad"],
     "k-hat 0.93.*left as they are"),
    (of_a_guide, GUIDE | {"pareto_k": np.inf, "resampled": 0}, "variational guide", ["bad"], "k-hat inf"),
    (of_a_guide, GUIDE | {"converged": 0}, "variational guide", ["good", "warning"],
     "the ELBO still rose after 900 steps"),
    (of_a_guide, GUIDE, "modes", [], ""),
    (of_a_guide, GUIDE | {"modes": 3}, "modes", [], ""),
    (of_a_guide, GUIDE | {"modes": 3, "modes_missed": 2}, "modes", ["warning"],
     "2 of 3 modes that were found hold no draw of the guide.*bd.engines.SMC"),
    (of_a_guide, GUIDE, "log evidence", [], ""),
    (of_a_guide, GUIDE | EVIDENCE, "log evidence", ["good"], "-33.46 with a standard error of 0.1"),
    (smc.findings, PARTICLES, "log evidence", ["good"], "-33.46 with a standard error of 0.1"),
    (smc.findings, PARTICLES | {"log_evidence_se": 0.5}, "log evidence", ["warning"], "more "
        "particles"),
    (smc.findings, PARTICLES | {"log_evidence_se": 2.0}, "log evidence", ["bad"], "more particles"),
    (smc.findings, {"log_evidence": -33.456, "effective_share": 0.9}, "log evidence", ["warning"],
     "-33.46, of one run.*several runs"),
    (smc.findings, PARTICLES | {"effective_share": 0.45}, "moves of the particles", ["warning"],
     "the particles are worth only 45% as many.*allow more moves .*moves='hamiltonian'"),
    (smc.findings, PARTICLES | {"effective_share": 0.55}, "moves of the particles", [], ""),
    (smc.findings, PARTICLES | {"effective_share": 0.55, "modes": 2}, "moves of the particles", [], ""),
    (smc.findings, PARTICLES | {"effective_share": 0.45, "modes": 2}, "moves of the particles", ["warning"],
     "the particles of a mode are worth only 45% .*; remedy: take more particles"),
    (smc.findings, PARTICLES | {"effective_share": 0.45, "gradients": 9}, "moves of the particles", ["warning"],
     r"remedy: take more particles, or allow more moves \(most_moves\)$"),
    (functools.partial(svi.findings, guide="full_rank"), GUIDE | {"resampled": 0}, "variational guide", ["bad"],
     r"remedy: take a richer guide \(flow\), or"),
    (functools.partial(svi.findings, guide="flow"), GUIDE | {"resampled": 0}, "variational guide", ["bad"],
     "remedy: take bd.NUTS"),
    (many_chain.findings, SHORT, "nested R-hat", ["good"], "1.004, good below 1.01"),
    (many_chain.findings, SHORT | {"nested_rhat": 1.011}, "nested R-hat", ["warning"], "longer "
        "warm-up"),
    (many_chain.findings, SHORT | {"nested_rhat": 1.03}, "nested R-hat", ["warning"], "longer "
        "warm-up"),
    (many_chain.findings, SHORT | {"nested_rhat": np.inf}, "nested R-hat", ["bad"], "longer "
        "warm-up"),
    (many_chain.findings, SHORT, "energy variance", [], ""),
    (many_chain.findings, ENERGY, "energy variance", ["good"], "0.0001 for each dimension, at most "
        "0.0005"),
    (many_chain.findings, ENERGY | {"energy_variance_per_dimension": 1e-2}, "energy variance", ["bad"],
     "0.01 .*'chees'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good():
    return make_post(draws=500, network=False)


def test_a_run_without_such_facts_has_no_such_findings(good):
    subjects = {finding.subject for finding in bd.diagnose(good).findings}
    assert not subjects & ({subject for _, _, subject, *_ in CASES} | {"solver accuracy", "update"})


@pytest.mark.parametrize(("findings", "facts", "subject", "levels", "words"), CASES)
def test_a_fact_of_the_run_is_a_finding(findings, facts, subject, levels, words):
    said = [finding for finding in findings(facts) if finding.subject == subject]
    assert [finding.level for finding in said] == levels
    assert all(bool(finding.remedy) == (finding.level != "good") for finding in said)
    assert re.search(words, "; ".join(map(str, said)))


@pytest.mark.parametrize(
    ("findings", "facts", "subject", "levels", "words"),
    [CASES[i] for i in (0, 1, 4, 5, 7, 9, 12, 13, 18, 22)],
)
def test_a_finding_of_the_run_is_one_of_the_diagnosis(
    good, findings, facts, subject, levels, words
):
    post = good.copy()
    post.attrs |= facts | {
        "findings": json.dumps([dataclasses.asdict(finding) for finding in findings(facts)])
    }
    diagnosis = bd.diagnose(post)
    found = [finding for finding in diagnosis.findings if finding.subject == subject]
    assert [finding.level for finding in found] == levels
    assert all(bool(finding.remedy) == (finding.level != "good") for finding in found)
    assert re.search(words, "; ".join(map(str, found)))
    assert diagnosis.level == next(
        (level for level in ("bad", "warning") if level in levels), "good"
    )


@pytest.mark.thorough
def test_a_warm_up_as_long_as_was_asked_for_is_no_finding():
    """Even if it never settled: chains in two modes do not agree."""
    post = bd.fit(square(dist.Normal(0.0, 2.0)), DATA, bd.NUTS(warmup=50, draws=25), key=1)
    assert post.attrs["warmup_settled"] == 0
    assert found(post, "warm-up") == []


@pytest.mark.thorough
def test_short_chains_are_judged_by_their_nested_rhat():
    post = make_post(chains=64, draws=20)
    assert any(finding.subject.startswith("R-hat") for finding in bd.diagnose(post).findings)
    post.attrs |= {"nested_rhat": 1.004, "superchains": 8}
    found = {finding.subject: finding.level for finding in bd.diagnose(post).findings}
    assert not any(subject.startswith("R-hat") for subject in found)
    assert found["nested R-hat of trajectories"] == "good"


def test_superchains_apart_in_a_trajectory_are_bad():
    post = make_post(chains=64, draws=20)
    post.attrs |= {"nested_rhat": 1.004, "superchains": 8}
    mean = post["conditional_mean"]["hare"]
    post["conditional_mean"]["hare"] = mean + 10 * mean.std() * (mean["chain"] < 8)
    found = {finding.subject: finding.level for finding in bd.diagnose(post).findings}
    assert found["nested R-hat of trajectories"] == "bad"


CHECKED = {
    "pareto_k": 0.1,
    "largest_shift_sd": 0.01,
    "parameter": "birth",
    "factor": 100.0,
    "failures": 0,
    "draws": 200,
}


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (
            {},
            "good",
            r"at 100 times finer tolerances .* at most 0\.01 sd \(birth\), "
            r"PSIS k-hat 0\.10; good below 0\.05 sd and 0\.57$",
        ),
        (
            {"largest_shift_sd": 0.06},
            "warning",
            r"0\.06 sd.*check_solver\(model, post, correct=True\)",
        ),
        ({"largest_shift_sd": 0.6}, "bad", "fit again with tighter rtol and atol, before all else"),
        ({"failures": 3}, "warning", "the finer solve failed in 3 of 200 draws"),
        (
            {"pareto_k": 0.6},
            "bad",
            "k-hat 0.60; good below 0.05 sd and 0.57; remedy: fit again with tighter rtol and atol",
        ),
        ({"pareto_k": np.inf, "largest_shift_sd": np.inf}, "bad", "fit again"),
    ],
)
def test_the_check_of_the_solver_is_a_finding(good, facts, level, words):
    post = good.copy()
    post["solver_check"] = xr.DataTree(xr.Dataset(attrs=CHECKED | facts))
    diagnosis = bd.diagnose(post)
    [finding] = [finding for finding in diagnosis.findings if finding.subject == "solver accuracy"]
    assert finding.level == level == diagnosis.level
    assert re.search(words, str(finding))


def test_a_correction_is_said_to_be_done(good):
    found = {
        "pareto_k": 0.3,
        "largest_shift_sd": 0.2,
        "parameter": "rate",
        "failures": 0,
        "factor": 100.0,
    }
    found |= {"draws": 2000, "corrected": 1, "effective_draws": 1500.0}
    post = good.copy()
    post["solver_check"] = xr.DataTree(xr.Dataset(attrs=found))
    (finding,) = [f for f in bd.diagnose(post).findings if f.subject == "solver accuracy"]
    assert finding.level == "good"
    assert "corrected by weights worth 1500 of 2000 draws" in finding.message
    post["solver_check"].attrs["corrected"] = 0
    (finding,) = [f for f in bd.diagnose(post).findings if f.subject == "solver accuracy"]
    assert finding.level == "warning"
    assert "correct=True" in finding.remedy
