"""Daily rain and flow on the page *From a table to a forecast* run as they stand, and say what is
so.
"""

import re

import numpy as np
import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "old" / "from-a-table.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Daily rain and flow")[1].split("\n## ")[0]


BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
BEFORE_THE_FIT = 2


def run(blocks, folder):
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks:
            exec(compile(block, "docs/from-a-table.md", "exec"), names)
    return names


def test_a_table_with_dates_becomes_data(tmp_path):
    """The first steps alone; the whole page is run by the slow tests."""
    found = run(BLOCKS[:BEFORE_THE_FIT], tmp_path)
    assert found["data"]["time"].dtype.kind == "M"
    said = "4 of 304 values filled by climatology, at most 4 in a row"
    assert found["data"]["rain"].attrs["filled"] == said and said in SECTION
    assert found["train"]["time"].values[-1] == np.datetime64("2001-08-31")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """All names that the section defines, after it has run in a folder of its own."""
    return run(BLOCKS, tmp_path_factory.mktemp("daily"))


@pytest.mark.slow
def test_dates_go_from_the_table_to_the_forecast(page):
    assert page["fc"]["predictions"]["time"].values[-1] == np.datetime64("2001-10-31")
    assert page["fc"].attrs["train_end"] == "2001-08-31"


@pytest.mark.slow
def test_the_fit_finds_what_the_table_was_made_of(page):
    """But for the rain of four days, which nobody knows."""
    post = page["post"]["posterior"]
    for name, truth in (("share", 0.08), ("half", 30.0), ("scale", 0.15)):
        assert abs(float(post[name].mean()) - truth) < 4 * float(post[name].std()), name
    assert page["bd"].score(page["fc"], page["test"]).loc["flow", "coverage_90"] > 0.8


@pytest.mark.slow
def test_futures(page):
    dry, usual = (
        page["futures"][name]["predictions"]["flow"].isel(time=-1).median()
        for name in ("dry", "usual")
    )
    assert float(dry) < float(usual)
    assert 0.3 < float((page["parts"]["forcing"] / page["parts"]["total"]).isel(time=-1)) < 1.0
