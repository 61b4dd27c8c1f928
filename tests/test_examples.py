"""Every example in a docstring runs, on one small decay that is fitted once."""

import inspect
import re
import types

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd

FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
FIRST = [
    "fit",
    "forecast",
    "evaluate",
    "save",
    "load",
    "from_table",
    "split",
    "standardise",
    "check",
    "describe",
    "ODE",
    "Algebraic",
    "Difference",
    "Model",
    "Network",
    "Residual",
    "corrected",
    "between",
    "shared",
    "population",
    "Basis",
    "report",
    "NormalNoise",
    "NUTS",
    "DeepEnsemble",
]
"""The most used public names: each has an example."""


def public():
    """All public functions and classes by their name in `bd`."""
    flat = {name: getattr(bd, name) for name in bd.__all__}
    modules = {name: value for name, value in flat.items() if isinstance(value, types.ModuleType)}
    spaces = {"": flat} | {f"{name}.": vars(module) for name, module in modules.items()}
    for prefix, space in spaces.items():
        for name, value in space.items():
            if name[0] != "_" and getattr(value, "__module__", "").startswith("bayes_dasl"):
                yield f"{prefix}{name}", value


def examples():
    found = {}
    for name, value in public():
        for code in FENCE.findall(inspect.getdoc(value) or ""):
            found.setdefault(inspect.cleandoc(code), name)
    return found


EXAMPLES = examples()


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


@pytest.fixture(scope="module")
def known():
    """What examples take as given: a model, its data, a posterior and a forecast."""
    times = np.linspace(0.0, 8.0, 17)
    values = 2.0 * np.exp(-0.4 * times) + 0.05 * np.random.default_rng(0).normal(size=times.size)
    data = xr.Dataset({"y": ("time", values)}, {"time": times})
    train, test = bd.split(data, time=6.0)
    model = bd.Model(
        bd.ODE(Decay(bd.between(0.1, 1.0)), {"y": 2.0}), bd.NormalNoise(bd.between(0.01, 0.3))
    )
    tails = bd.Model(model.layer, bd.StudentTNoise(bd.between(0.01, 0.3)))
    models, posts = {"science": model, "hybrid": tails}, {}
    for name, each in models.items():
        posts[name] = bd.fit(
            each, train, bd.NUTS(chains=2, warmup=100, draws=100), key=0, progress=False
        )
    post = posts["science"]
    fc = bd.forecast(model, post, data)
    return {
        **{"data": data, "train": train, "test": test, "model": model, "post": post, "fc": fc},
        **{"models": models, "posts": posts},
    }


LONG = {
    *("compare", "weighting.leave_future_out", "weighting.model_weights"),
    *("DeepEnsemble", "update", "mixture", "diagnose"),
}
CASES = [
    pytest.param(code, id=name, marks=[pytest.mark.thorough] * (name in LONG))
    for code, name in EXAMPLES.items()
]


@pytest.mark.parametrize("code", CASES)
def test_an_example_runs(code, known, tmp_path, monkeypatch):
    given = {
        "bd": bd,
        "np": np,
        "pd": pd,
        "xr": xr,
        "dist": dist,
        "Decay": Decay,
        "folder": tmp_path,
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<example>", "exec"), given | known | {"__name__": "example"})


@pytest.mark.parametrize("name", FIRST)
def test_a_name_that_many_use_has_an_example(name):
    assert FENCE.search(inspect.getdoc(getattr(bd, name)) or "")
