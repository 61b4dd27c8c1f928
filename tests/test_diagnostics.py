"""Each fault gives its finding with a remedy; a good run gives none."""

import dataclasses
import json
import re
import time

import numpy as np
import pytest
import xarray as xr
from arviz_stats import bfmi, ess, rhat
from scipy.optimize import brentq
from trees import make_fc, make_post

from bayes_dasl import diagnose
from bayes_dasl._findings import nested_finding
from bayes_dasl.inference.descent.adam import Descended
from bayes_dasl.inference.descent.members import Kept, Proposals, point_estimate
from bayes_dasl.verdict import Diagnosis, Finding


def levels(diagnosis, subject):
    """Levels of the findings whose subject contains the words."""
    return {finding.level for finding in diagnosis.findings if subject in finding.subject}


def replaced(post, group, **arrays):
    """The posterior with new values of some variables of a group."""
    dataset = post[group].to_dataset()
    for name, values in arrays.items():
        dataset[name] = dataset[name].copy(data=values)
    groups = {name: node.to_dataset() for name, node in post.children.items()}
    return xr.DataTree.from_dict(groups | {group: dataset, "/": post.to_dataset()})


def test_a_good_run_is_good():
    diagnosis = diagnose(make_post(draws=500), make_fc())
    assert diagnosis.level == "good", str(diagnosis)
    assert not any(finding.remedy for finding in diagnosis.findings)
    looked_at = "The model fits what was looked at: training data."
    assert diagnosis.verdict == f"The sampling can be trusted: every check passed. {looked_at}"
    subjects = " ".join(finding.subject for finding in diagnosis.findings)
    for word in ("R-hat", "effective sample size", "BFMI", "divergences", "solver failures"):
        assert word in subjects


FAULTS = [
    ({"divergences": 3}, "divergences", {"warning"}),
    ({"divergences": 30}, "divergences", {"bad"}),
    ({"stuck_chain": 2}, "stuck chain", {"bad"}),
    ({"stuck_chain": 2}, "R-hat of science parameters", {"bad"}),
    ({"stuck_chain": 2}, "R-hat of trajectories", {"bad"}),
    ({"autocorrelation": 0.8}, "effective sample size of science", {"bad"}),
    ({"autocorrelation": 0.55}, "effective sample size of science", {"warning"}),
    ({"interrupted": True}, "interrupted run", {"warning"}),
    ({"chains": 1}, "single chain", {"warning"}),
    ({"draws": 6}, "mixing of science parameters", {"bad"}),
    ({"failures": 3}, "solver failures", {"good", "warning"}),
    ({"failures": 150}, "solver failures", {"good", "warning"}),
    ({"prior_failures": 50}, "solver failures", {"good", "warning"}),
]


@pytest.mark.parametrize(("fault", "subject", "expected"), FAULTS)
def test_each_fault_has_its_finding_and_a_remedy(fault, subject, expected):
    diagnosis = diagnose(make_post(**({"draws": 300} | fault)))
    assert levels(diagnosis, subject) == expected, str(diagnosis)
    assert diagnosis.level != "good"
    assert subject in diagnosis.verdict or diagnosis.level not in expected
    for finding in diagnosis.findings:
        assert bool(finding.remedy) == (finding.level != "good"), finding


@pytest.mark.parametrize(
    ("fault", "subject", "told"),
    [
        ({"divergences": 1}, "divergences", "1 of 4000 draws (0.025 %): too few to matter"),
        ({"failures": 1}, "solver failures", "cut short 1 of 4000 posterior draws (0.025 %"),
        ({"prior_failures": 1}, "solver failures", "failed in 1 of 500 prior draws (0.2 %"),
    ],
)
def test_one_odd_draw_of_thousands_is_told_and_is_no_fault(fault, subject, told):
    diagnosis = diagnose(make_post(draws=1000, network=False, **fault))
    assert diagnosis.sampling == "good" and levels(diagnosis, subject) == {"good"}, str(diagnosis)
    assert told in str(diagnosis)


@pytest.mark.parametrize(
    ("fault", "subject"),
    [({"divergences": 5}, "divergences"), ({"failures": 5}, "solver failures")],
)
def test_from_a_thousandth_on_odd_transitions_are_a_fault(fault, subject):
    assert "warning" in levels(diagnose(make_post(draws=1000, network=False, **fault)), subject)


@pytest.mark.thorough
def test_the_same_findings_are_absent_or_good_without_the_fault():
    sound = diagnose(make_post(draws=400))
    for _, subject, _ in FAULTS:
        assert levels(sound, subject) <= {"good"}, subject


@pytest.mark.thorough("1.009-good", "1.049-warning", "1.051-bad")
@pytest.mark.parametrize(
    ("highest", "level"), [(1.009, "good"), (1.011, "warning"), (1.049, "warning"), (1.051, "bad")]
)
def test_rhat_is_good_below_1_01_and_bad_from_1_05(highest, level):
    """One chain apart by just so much; 1.01 is the bound of Vehtari et al. (2021)."""
    post = make_post(draws=2000, network=False)
    birth = post["posterior"]["birth"]

    def moved(shift):
        return birth + shift * float(birth.std()) * (birth["chain"] == 0)

    shift = brentq(
        lambda s: float(rhat(moved(s).to_dataset(name="x"))["x"]) - highest, 0.0, 1.0, xtol=1e-4
    )
    post = replaced(post, "posterior", birth=moved(shift).transpose(*birth.dims).values)
    (finding,) = [f for f in diagnose(post).findings if f.subject == "R-hat of science parameters"]
    assert f"highest {highest:.3f} (birth)" in finding.message
    assert finding.level == level


@pytest.mark.thorough
def test_the_worst_of_many_quantities_may_be_worse_by_chance():
    """Chains that agree: of two hundred points that say different things one has an R-hat above
    1.01.
    """
    post = make_post(draws=250, network=False)
    points = np.random.default_rng(2).normal(size=(4, 250, 200))
    mean = xr.Dataset({"hare": (("chain", "draw", "time"), points)}, {"time": np.arange(200.0)})
    groups = {name: node.to_dataset() for name, node in post.children.items()} | {
        "conditional_mean": mean
    }
    [finding] = [
        f
        for f in diagnose(xr.DataTree.from_dict(groups)).findings
        if f.subject == "R-hat of trajectories"
    ]
    assert float(finding.message.split()[1]) > 1.01
    assert finding.level == "good"
    assert "good below 1.014 for 200 of them" in finding.message


def test_figures_agree_with_arviz():
    post = make_post(draws=500, network=False)
    dataset = post["posterior"].to_dataset()
    text = str(diagnose(post))
    assert f"highest {float(rhat(dataset).to_array().max()):.3f} (" in text
    bulk = min(float(value) for value in ess(dataset, method="bulk").data_vars.values())
    tail = min(float(value) for value in ess(dataset, method="tail", prob=0.05).data_vars.values())
    assert f"lowest bulk {bulk:.0f} (" in text
    assert f"and tail {tail:.0f} (" in text
    energy = bfmi(post["sample_stats"].to_dataset()[["energy"]])["energy"]
    assert f"lowest {float(energy.min()):.2f} (chain" in text


def test_the_stuck_chain_is_named():
    for chain in range(4):
        diagnosis = diagnose(make_post(stuck_chain=chain))
        (finding,) = (f for f in diagnosis.findings if f.subject == "stuck chain")
        assert f"chain {chain} sits away" in finding.message


def test_a_chain_apart_in_its_density_alone_is_named():
    post = make_post()
    lp = post["sample_stats"]["lp"].values.copy()
    lp[1] -= 50.0
    diagnosis = diagnose(replaced(post, "sample_stats", lp=lp))
    assert "chain 1 sits away" in str(diagnosis)


def test_a_chain_that_stands_still_is_named():
    post = make_post()
    birth = post["posterior"]["birth"].values.copy()
    birth[3] = np.median(birth)
    diagnosis = diagnose(replaced(post, "posterior", birth=birth))
    assert "chain 3" in str(diagnosis)


def test_two_chains_that_disagree_are_both_named():
    assert "chains 0, 1 sit in different places" in str(
        diagnose(make_post(chains=2, stuck_chain=1))
    )


@pytest.mark.thorough
def test_slow_chains_are_not_called_stuck():
    # Over few effective draws good chains differ by chance: they are short, not stuck.
    for seed in range(10):
        diagnosis = diagnose(make_post(seed, draws=60, autocorrelation=0.5, network=False))
        assert not levels(diagnosis, "stuck"), str(diagnosis)


@pytest.mark.thorough
def test_weights_of_a_network_are_never_judged():
    # Several sets of them say the same.
    apart, alike = (diagnose(make_post(draws=500, split_weights=split)) for split in (True, False))
    assert str(apart) == str(alike)
    assert apart.level == "good"


def test_a_vector_field_with_a_network_is_judged():
    post = make_post(draws=500)
    rates = np.random.default_rng(0).normal(size=(4, 500, 3))
    rates[1, :, 2] += 4.0
    field = xr.Dataset(
        {"hare": (("chain", "draw", "time"), rates)}, coords={"time": [0.0, 1.0, 2.0]}
    )
    groups = {name: node.to_dataset() for name, node in post.children.items()}
    both = xr.DataTree.from_dict(groups | {"vector_field": field, "/": post.to_dataset()})
    diagnosis = diagnose(both)
    assert levels(diagnosis, "R-hat of vector field") == {"bad"}
    assert "hare at time 2" in str(diagnosis)
    assert levels(diagnosis, "stuck chain") == {"bad"}


@pytest.mark.thorough
def test_the_vector_field_along_the_forecast_is_judged():
    """Chains that agree where the data were may say different things of where the forecast goes."""
    post, fc = make_post(draws=500), make_fc(draws=500)
    rates = np.random.default_rng(0).normal(size=(4, 500, 2, 3))
    dims, at = ("chain", "draw", "path", "time"), {"path": [0, 1], "time": [0.0, 1.0, 2.0]}
    fc["vector_field"] = xr.DataTree(xr.Dataset({"hare": (dims, rates)}, at))
    assert levels(diagnose(post, fc), "vector field") == {"good"}
    rates[1, :, 1, 2] += 4.0
    fc["vector_field"] = xr.DataTree(xr.Dataset({"hare": (dims, rates)}, at))
    diagnosis = diagnose(post, fc)
    assert levels(diagnosis, "R-hat of vector field along the forecast") == {"bad"}
    assert "hare at path 1, time 2" in str(diagnosis)


def descended(stopped_early):
    nothing = np.zeros((2, 3))
    return Descended(nothing, nothing[:, None], {}, {}, 500, stopped_early)


def kept(members, failed, stuck):
    return Kept(np.arange(members) >= failed + stuck, failed, stuck)


def proposals(lost):
    return Proposals(np.zeros((50, 3)), np.zeros(50), lost, 100)


@pytest.mark.thorough("said3-descent-levels_expected3-")
@pytest.mark.parametrize(
    ("said", "subject", "levels_expected", "words"),
    [
        (
            [point_estimate("one draw says nothing")],
            "point estimate",
            {"warning"},
            "one draw says nothing; .*bd.NUTS",
        ),
        (
            descended(False).findings,
            "descent",
            {"warning"},
            "the loss still fell after 500 steps; .*allow more steps",
        ),
        (descended(True).findings, "descent", set(), ""),
        (descended(None).findings, "descent", set(), ""),  # all steps were to be taken
        ([kept(10, 1, 0).finding], "ensemble", {"good"}, "9 of 10 members; 1 failed"),
        (
            [kept(10, 0, 2).finding],
            "ensemble",
            {"good"},
            "8 of 10 members; to 2 the data are far less likely",
        ),
        (
            [kept(10, 1, 2).finding],
            "ensemble",
            {"warning"},
            "7 of 10 members; 1 failed; to 2 the .*allow more steps",
        ),
        (proposals(0).findings, "lost draws", set(), ""),
        (
            proposals(20).findings,
            "lost draws",
            {"good"},
            "20 of 100 draws have no finite log density",
        ),
        (
            proposals(21).findings,
            "lost draws",
            {"warning"},
            "21 of 100 draws .*narrower than the approximation",
        ),
    ],
)
def test_draws_that_are_no_chains_are_judged_by_how_they_were_made(
    said, subject, levels_expected, words
):
    post = make_post(draws=50, chains=2, network=False)
    held = json.dumps([dataclasses.asdict(finding) for finding in said])
    post.attrs |= {"draws_are": "members", "markov": 0, "findings": held}
    diagnosis = diagnose(post)
    assert levels(diagnosis, subject) == levels_expected
    assert re.search(words, str(diagnosis))
    assert all(bool(finding.remedy) == (finding.level != "good") for finding in said)
    assert "R-hat" not in str(diagnosis)
    post.attrs["markov"] = 1
    diagnosis = diagnose(post)
    assert "R-hat" in str(diagnosis)
    assert levels(diagnosis, subject) == levels_expected


def test_draws_that_are_no_chains_and_of_which_nothing_is_said_are_not_trusted():
    post = make_post(draws=50, chains=2, network=False)
    post.attrs |= {"draws_are": "somebody's", "markov": 0, "findings": "[]"}
    diagnosis = diagnose(post)
    assert levels(diagnosis, "spread of the draws") == {"warning"}
    assert "every check passed" not in diagnosis.verdict


def test_a_descent_says_how_it_ended():
    assert descended(False).facts == {"descent_steps": 500, "descent_stopped": 0}
    assert descended(True).facts == {"descent_steps": 500, "descent_stopped": 1}
    assert descended(None).facts == {"descent_steps": 500}
    assert kept(10, 1, 2).facts == {"members": 10, "members_failed": 1, "members_stuck": 2}
    assert kept(10, 1, 2).draws_are == "members (7 of 10 kept)"
    assert proposals(20).facts == {"proposals": 100, "proposals_failed": 20}


def test_low_energy_mixing_is_found():
    post = make_post()
    energy = np.cumsum(np.random.default_rng(1).normal(size=(4, 200)), axis=1)
    diagnosis = diagnose(replaced(post, "sample_stats", energy=energy))
    assert levels(diagnosis, "BFMI") == {"bad"}


@pytest.mark.thorough
def test_solver_failures_are_counted_by_group_in_the_verdict():
    post = make_post(draws=250, prior_failures=50, failures=10)
    verdict = diagnose(post, make_fc(draws=250, failures=20)).verdict
    assert "50 of 500 prior draws (10 %, sample_stats_prior)" in verdict
    assert "10 of 1000 posterior draws (1 %, sample_stats)" in verdict
    assert "20 of 1000 forecast draws (2 %, sample_stats_predictions)" in verdict
    assert verdict.count(".") == 2
    assert "forecast draws" not in diagnose(post).verdict
    assert "solver" not in diagnose(make_post()).verdict


@pytest.mark.thorough
def test_failures_of_the_prior_alone_do_not_condemn_the_posterior():
    assert diagnose(make_post(draws=500, prior_failures=250)).level == "warning"
    assert diagnose(make_post(draws=500), make_fc(failures=100)).level == "bad"


def test_a_trajectory_that_meets_a_failing_solve_is_counted_once():
    post = make_post(failures=100)
    diverging = post["sample_stats"]["solver_failure"].values
    diagnosis = diagnose(replaced(post, "sample_stats", diverging=diverging))
    assert levels(diagnosis, "divergences") == {"good"}
    assert diagnosis.level == "warning"


@pytest.mark.parametrize(
    ("asked", "said"), [(0.8, "(0.95)"), (0.95, "(0.99)"), (0.99, "tighten the prior")]
)
def test_the_remedy_for_divergences_is_a_rate_that_the_fit_did_not_have(asked, said):
    post = make_post()
    diverging = np.arange(800).reshape(4, 200) % 10 == 0
    post = replaced(post, "sample_stats", diverging=diverging)
    post.attrs["engine"] = f"NUTS(chains=4, target_acceptance={asked}, max_tree_depth=10)"
    (found,) = (f for f in diagnose(post).findings if f.subject == "divergences")
    assert said in found.remedy
    assert found.level == "bad"
    assert "raise" not in found.remedy or asked < 0.99


def test_everything_failed():
    diagnosis = diagnose(make_post(failures=800), make_fc(failures=800))
    assert diagnosis.level == "bad"
    assert "800 of 800 forecast draws (100 %" in diagnosis.verdict


def test_where_only_the_noise_is_unknown_the_trajectories_need_not_move():
    post = make_post(draws=400)
    means = {
        name: np.broadcast_to(v[:1, :1], v.shape)
        for name, v in post["conditional_mean"].data_vars.items()
    }
    still = replaced(post, "conditional_mean", **means)
    assert "every draw is the same" in str(diagnose(still))
    layer = [
        name
        for name, v in still["posterior"].data_vars.items()
        if v.attrs["path"].startswith("layer.")
    ]
    still["posterior"] = still["posterior"].to_dataset().drop_vars(layer)
    diagnosis = diagnose(still)
    assert "trajectories" not in str(diagnosis)
    assert diagnosis.level == "good"


@pytest.mark.thorough
def test_a_parameter_that_never_moved_is_bad_but_a_known_initial_value_is_not():
    post = make_post(draws=400)
    still = diagnose(replaced(post, "posterior", death=np.full((4, 400), 0.8)))
    assert "death never moved" in str(still)
    assert still.level == "bad"
    hare = post["conditional_mean"]["hare"].values.copy()
    hare[..., 0] = 30.0
    assert diagnose(replaced(post, "conditional_mean", hare=hare)).level == "good"


def test_frozen_chains_are_bad():
    post = make_post(network=False)
    frozen = {
        name: np.broadcast_to(values.values[:, :1], (4, 200))
        for name, values in post["posterior"].data_vars.items()
    }
    diagnosis = diagnose(replaced(post, "posterior", **frozen))
    assert levels(diagnosis, "R-hat of science") == {"bad"}
    assert levels(diagnosis, "stuck") == {"bad"}


def test_draws_that_are_not_finite_are_reported():
    post = make_post(draws=400)
    growth = post["posterior"]["growth"].values.copy()
    growth[0, :7] = np.nan
    diagnosis = diagnose(replaced(post, "posterior", growth=growth))
    assert "7 draws are not finite" in str(diagnosis)
    assert diagnosis.level == "bad"


@pytest.mark.parametrize("absent", ["sample_stats", "sample_stats_prior", "conditional_mean"])
def test_groups_that_an_engine_does_not_give_are_passed_over(absent):
    post = make_post(draws=500)
    del post[absent]
    assert diagnose(post).level == "good"


def test_interrupted_run_says_how_far_it_came():
    text = str(diagnose(make_post(draws=120, interrupted=True, draws_requested=1000)))
    assert "stopped after 120 of 1000 draws in each chain" in text
    assert "fit again" in text


@pytest.mark.parametrize("draws", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("chains", [1, 2, 4])
def test_the_shortest_runs_get_a_verdict(chains, draws):
    assert diagnose(make_post(chains=chains, draws=draws, observables=("hare",))).level == "bad"


def test_text_and_dictionary_hold_every_finding():
    findings = (Finding("good", "BFMI", "fine"), Finding("bad", "divergences", "many", "tighten"))
    diagnosis = Diagnosis(findings)
    lines = str(diagnosis).splitlines()
    takes = "a forecast at the times of the data, of at least eight values"
    not_said = f"Whether the model fits was not looked at: that takes {takes}."
    assert (
        lines[0]
        == diagnosis.verdict
        == f"Do not rely on this sampling yet: divergences. {not_said}"
    )
    assert lines[2] == "[bad] divergences: many; remedy: tighten"
    plain = json.loads(json.dumps(diagnose(make_post(divergences=2)).to_dict()))
    assert plain["level"] == "warning"
    assert diagnosis.to_dict()["findings"][1]["remedy"] == "tighten"
    with pytest.raises(AttributeError):
        findings[0].level = "bad"


@pytest.mark.thorough
def test_a_usual_run_is_judged_in_two_seconds():
    post = make_post(draws=1000)
    start = time.process_time()
    diagnose(post)
    assert time.process_time() - start < 2.0


def test_means_that_are_never_finite_are_no_short_chains():
    """As under Cauchy's noise: more draws would change nothing."""
    post = make_post(draws=500)
    without = {
        name: np.full(v.shape, np.inf) for name, v in post["conditional_mean"].data_vars.items()
    }
    found = diagnose(replaced(post, "conditional_mean", **without)).findings
    (mixing,) = (f for f in found if f.subject == "mixing of trajectories")
    assert mixing.message == "0 usable draws in each chain are too few to judge convergence"
    assert (
        mixing.remedy
        == "see why the others are not finite: noise such as Cauchy's has no mean at all"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.012, "highest 1.012, good below 1.011"),
        (1.0109, "highest 1.0109, good below 1.0108"),
        (1.01081, "highest 1.01081, good below 1.01080"),
    ],
)
def test_a_number_beyond_its_bound_does_not_look_like_it(value, said):
    assert nested_finding(value, allowed=1.08).message == said
