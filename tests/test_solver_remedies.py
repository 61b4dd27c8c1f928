"""Where solves fail, only settings that the layer has are advised."""

import json

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.layers import solver_settings
from bayes_dasl.scores.failures import failure_findings

ODE = bd.ODE(lambda t, y, u: {"c": -y["c"]}, {"c": 1.0})
ROOT = bd.Implicit(lambda t, y, u: {"c": y["c"] ** 2 - t}, {"c": 0.5})
FORMULA = bd.Algebraic(lambda t, y, u: {"c": np.sqrt(1 - t)})
STEPS = bd.Difference(lambda t, y, u: {"c": 0.5 * y["c"]}, {"c": 1.0})
MEMBERS = bd.Each(
    bd.ODE(lambda t, y, u: {"c": -y["c"]}, {"c": bd.varying(dist.LogNormal(0.0, 1.0))}), [0, 1]
)
ALL = ("max_steps", "rtol", "solver")


@pytest.mark.parametrize(
    ("layer", "settings"), [(ODE, ALL), (MEMBERS, ALL), (ROOT, ALL[:2]), (FORMULA, ()), (STEPS, ())]
)
def test_settings_are_those_of_the_layer(layer, settings):
    assert solver_settings(layer) == settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ALL,
            "else raise the solver's max_steps, loosen its tolerances or use a stiff solver such "
            "as 'rodas5p'",
        ),
        (ALL[:2], "else raise the solver's max_steps or loosen its tolerances"),
        (
            (),
            "else see where the equations are not finite: at what they divide by, or take a root "
            "or logarithm of",
        ),
    ],
)
def test_a_remedy_names_what_the_layer_has(settings, said):
    failed = xr.Dataset({"ok": (("chain", "draw"), np.arange(200)[None] > 20)})
    post = xr.DataTree.from_dict({"posterior": xr.Dataset(), "sample_stats_prior": failed})
    post.attrs["solver_settings"] = json.dumps(settings)
    (found,) = failure_findings(post, None)
    assert found.level == "warning" and found.remedy.endswith(said)
