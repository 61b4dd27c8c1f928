"""Weights of models: by evidence, else by past forecasts, else equal ones;
which of them is said.
"""

import dataclasses
import json

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from by_hand import at_times
from sifting import Sifting
from test_compare import result
from test_evidence import noisy, science, walked, with_sizes

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError
from bayes_dasl.weighting import BayesFactors, weights_by_future_left_out


@dataclasses.dataclass(frozen=True)
class Members(Sifting):
    """A few members that are no chains, as of `bd.DeepEnsemble`."""

    chains: int = 5
    draws: int = 1

    def run(self, problem, *, key, journal, bar):
        return dataclasses.replace(
            super().run(problem, key=key, journal=journal, bar=bar), markov=False
        )


class Line(bd.Module):
    """A straight line through zero."""

    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * t}


class Level(bd.Module):
    """The same at all times."""

    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


def of(formula, index="time"):
    return bd.Model(bd.Algebraic(formula, index=index), bd.NormalNoise(0.5))


LINE = {"line": of(Line(dist.Normal(0.0, 1.0))), "level": of(Level(dist.Normal(0.0, 5.0)))}
DATA = at_times(np.arange(9.0) + 0.3 * np.cos(7.0 * np.arange(9.0)))


@pytest.fixture(scope="module")
def few():
    """Fits of a few members each."""
    return {
        name: bd.fit(model, DATA, Members(), progress=False, key=1) for name, model in LINE.items()
    }


@pytest.fixture(scope="module")
def nested():
    sizes = np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50)))
    models = {"noisy": noisy(), "science": science()}
    return models, {
        name: with_sizes(model, walked(1.0), of=sizes, number=50) for name, model in models.items()
    }


def test_evidence_comes_first_for_a_science_and_what_is_added_to_it(nested, monkeypatch):
    """A study with such models is fitted in `test_mixed_study`."""
    table = pd.DataFrame({"weight": [0.9, 0.1]}, index=["noisy", "science"])
    monkeypatch.setattr(
        weights_by_future_left_out,
        "bayes_factors",
        lambda *given: BayesFactors(table, (), "science"),
    )
    found = bd.weighting.model_weights(
        *nested, past=lambda: pytest.fail("no past forecast is needed")
    )
    assert (
        found.weighed_by == "evidence"
        and found.weights == {"noisy": 0.9, "science": 0.1}
        and not found.why
    )
    assert str(found).startswith("Model weights by evidence\n")


def test_past_forecasts_stand_in_where_draws_do_not_tell_the_evidence(nested):
    models, posts = nested[0], {name: post.copy() for name, post in nested[1].items()}
    posts["noisy"].attrs["markov"] = 0
    past, said = (
        {name: result([level, level]) for name, level in (("noisy", 0.0), ("science", -3.0))},
        [],
    )
    found = bd.weighting.model_weights(models, posts, past=past, say=said.append)
    assert found.weighed_by == "forecasts" and found.weights == bd.compare(past).weights
    assert "the draws of 'noisy' are not those of chains" in found.why and found.why in said[0]
    assert str(found).startswith("Model weights by past forecasts: there is no evidence")
    with pytest.raises(MismatchError, match="not those of chains"):
        bd.weighting.model_weights(models, posts, by="evidence")


@pytest.mark.thorough
def test_a_few_members_are_weighed_by_what_they_forecast_and_mixed(few):
    """The data rise: the line foresees them, the level does not. One window won of one: (1 + 1) /
    (1 + 2).
    """
    found = bd.weighting.model_weights(
        LINE, few, engine=Members(), origins=1, progress=False, key=2
    )
    assert found.weighed_by == "forecasts" and not found.why
    assert found.weights["line"] > 0.6
    at = np.arange(12.0)
    fc = bd.mixture({n: bd.forecast(m, few[n], at, key=3) for n, m in LINE.items()}, found.weights)
    assert json.loads(fc.attrs["mixture"])["line"] == pytest.approx(found.weights["line"], abs=1e-6)


def test_an_engine_is_asked_for_where_another_one_fitted(few):
    with pytest.raises(MismatchError, match="'line' was fitted by Members: say by engine="):
        bd.weighting.model_weights(LINE, few)


def test_equal_weights_where_nothing_is_known_of_the_future(few):
    short = {name: post.isel(time=slice(0, 3)) for name, post in few.items()}
    found = bd.weighting.model_weights(LINE, short, engine=Members())
    assert found.weighed_by == "equal" and found.weights == {"line": 0.5, "level": 0.5}
    assert "the 3 observed times of the training data are too few" in found.why
    assert found.findings[0].level == "warning"
    with pytest.raises(DataError, match="too few"):
        bd.weighting.model_weights(LINE, short, engine=Members(), by="forecasts")
    assert bd.weighting.model_weights(LINE, few, by="equal").weights == found.weights


def test_rows_without_a_future_have_equal_weights():
    data = DATA.rename(time="depth")
    models = {name: of(model.layer.function, "depth") for name, model in LINE.items()}
    posts = {
        name: bd.fit(model, data, Members(), progress=False, key=1)
        for name, model in models.items()
    }
    found = bd.weighting.model_weights(models, posts, engine=Members())
    assert found.weighed_by == "equal" and "rows along 'depth' have no future" in found.why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"by": "stacking"},
            "'evidence', 'forecasts' or 'equal', not 'stacking'",
            id="another way",
        ),
        pytest.param({"models": {"line": LINE["line"]}}, "two models or more", id="one model"),
        pytest.param(
            {"past": {n: result([0.0]) for n in ("a", "b")}},
            "are of a, b, the models are line",
            id="others",
        ),
    ],
)
def test_what_cannot_be_weighed(few, change, message):
    with pytest.raises(MismatchError, match=message):
        bd.weighting.model_weights(**{"models": LINE, "posts": few} | change)
