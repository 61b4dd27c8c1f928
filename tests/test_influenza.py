"""The boarding school: the data as published, and what SIR and SEIR must hold."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import bayes_dasl as bd
from case_studies import influenza


def test_the_data_are_those_of_the_table(shared_file):
    table = pd.read_csv(shared_file("data/epidemiology/influenza_england_1978_school.csv"))
    data = influenza.load()
    assert list(table["in_bed"]) == influenza.IN_BED
    days = (data["time"].values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    np.testing.assert_array_equal(days, table["date"])


@pytest.mark.parametrize("equations", [influenza.SIR(1.7, 2.1), influenza.SEIR(1.7, 2.1, 1.4)])
def test_who_leaves_is_who_recovers(equations):
    states = {"S": 500.0, "E": 40.0, "I": 100.0}
    rates = equations(0.0, states, {})
    assert float(sum(rates.values())) == pytest.approx(-100.0 / 2.1, rel=1e-12)


@pytest.mark.thorough
def test_the_final_size():
    """Kermack and McKendrick: log(S(∞) / S(0)) = −R₀ (N − S(∞)) / N, where N is all who were not
    immune.
    """
    layer = bd.ODE(
        influenza.SIR(1.0, 2.0), {"S": 762.0, "I": 1.0}, lambda t, y, u: {"left": y["S"]}, start=0.0
    )
    model = bd.Model(layer, bd.NormalNoise(1.0))
    at = (
        pd.Series([300.0], index=pd.Index([300.0], name="time"), name="left").to_frame().to_xarray()
    )
    left = float(model.layer(model.inputs(at)).values["left"][-1])
    assert np.log(left / 762.0) == pytest.approx(-2.0 * (763.0 - left) / 763.0, rel=1e-4)


@pytest.mark.thorough
def test_the_study_reports_the_reproduction_number():
    study = influenza.study()
    assert study.split == "1978-01-29" and len(study.train["time"]) == 8
    prior = bd.evaluate(study.model, None, study.derived)
    assert set(prior) == {"R0"} and bool(jnp.all(prior["R0"].values > 0))
