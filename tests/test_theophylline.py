"""The case study of theophylline: what is fitted and left out, and that its model is the closed
form.
"""

import jax
import numpy as np
import pytest

from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import theophylline

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def data(shared_file, monkeypatch):
    monkeypatch.setenv("BAYES_DASL_DATA", str(shared_file("data/pk/theo_sd.csv").parents[1]))


def test_the_first_eight_hours_of_all_are_fitted():
    study = theophylline.study()
    study.refuse_bad_input()
    assert set(study.models) == {"additive", "combined"}
    assert dict(study.data.sizes) == {"time": 78, "subject": 12}
    counts = [int(part["conc"].notnull().sum()) for part in (study.train, study.test)]
    assert counts == [96, 36] and float(study.test["time"].min()) > 8.0


def test_a_forecast_of_the_first_draw_is_the_closed_form():
    rows = theophylline.records()
    chosen = [3.0, 9.0]
    model, data = theophylline.model(subjects=chosen), theophylline.load().sel(subject=chosen)
    drawn = {
        path: values[0] for path, values in draw_prior(model, 1, key=jax.random.key(0)).items()
    }
    inputs = model.inputs(data)
    found = jax.jit(lambda drawn: realise(model, drawn).predict(inputs).values["conc"])(drawn)
    ka, ke, cl = (np.asarray(drawn[kind]) for kind in ("absorption", "elimination", "clearance"))
    dose = rows.loc[rows["AMT"] > 0].set_index("ID").loc[chosen, "AMT"].to_numpy()
    assert np.all((dose > 3.0) & (dose < 6.0))  # mg/kg
    t = data["time"].values[:, None]
    by_hand = dose * ka * ke / (cl * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t))
    np.testing.assert_allclose(found, by_hand, rtol=1e-6, atol=1e-9)
