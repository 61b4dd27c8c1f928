"""The page *From a table to a forecast* runs as it stands, and its numbers are about right."""

import re

import numpy as np
import pytest
from conftest import ROOT

pytestmark = pytest.mark.thorough

PAGE = (ROOT / "docs" / "old" / "from-a-table.md").read_text(encoding="utf-8")


def blocks(heading):
    """The code under a heading of the second level."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (own,) = (part for part in section if part.startswith(heading))
    return re.findall(r"```python\n(.*?)```", own, re.DOTALL)


def run(heading, folder):
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(heading):
            exec(compile(block, "docs/from-a-table.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def pharmacokinetics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pk")
    return run("Concentrations and doses", folder) | {"folder": folder}


def test_the_table_becomes_data(pharmacokinetics):
    data = pharmacokinetics["data"]
    assert data["conc"].dims == ("time", "subject") and dict(data.sizes) == {
        "time": 4,
        "subject": 8,
    }
    assert data["conc"].attrs["units"] == "mg/L" and data["time"].attrs["units"] == "h"


def test_clearances_are_those_of_the_areas(pharmacokinetics):
    """Dose over area under the curve, by trapezoids and an exponential tail, as far as noise of 25
    % lets.
    """
    data, post = pharmacokinetics["data"], pharmacokinetics["post"]
    found = post["posterior"]["clearance"].median(("chain", "draw")).values
    t = data["time"].values
    by_area = []
    for c in data["conc"].values.T:
        rate = np.log(c[2] / c[3]) / (t[3] - t[2])
        area = np.trapezoid([0, *c[:3]], [0, *t[:3]]) + (c[2] - c[3]) / rate + c[3] / rate
        by_area.append(320.0 / area)
    assert np.median(found / by_area) == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(found, by_area)[0, 1] > 0.6


def test_the_forecast_is_that_of_repeated_doses(pharmacokinetics):
    """What each of eight doses leaves, by the formula at typical draws."""
    post, trough = pharmacokinetics["post"]["posterior"], pharmacokinetics["trough"]
    ka, volume = post["absorption"], post["volume"]
    k = post["clearance"].isel(subject=2) / volume
    since = 84.0 - 12.0 * np.arange(7)
    left = sum(320 / volume * ka / (ka - k) * (np.exp(-k * s) - np.exp(-ka * s)) for s in since)
    mean = left * np.exp(post["scale"] ** 2 / 2)  # of log-normal noise
    assert float(trough.median()) == pytest.approx(float(mean.median()), rel=1e-6)
    assert (pharmacokinetics["folder"] / "person-3.png").stat().st_size > 1000
