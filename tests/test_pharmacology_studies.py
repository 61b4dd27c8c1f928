"""Warfarin and erlotinib: what the models are given is what stands in the files."""

import numpy as np
import pandas as pd
import pytest

from case_studies import erlotinib, warfarin


@pytest.fixture
def pharmacology(shared_file, monkeypatch):
    """The folder of the files of both studies."""
    folder = shared_file("data/pk/nlmixr2_warfarin.csv").parent
    monkeypatch.setenv("BAYES_DASL_DATA", str(folder.parent))
    return folder


def given(model):
    """The doses of a model: when and how much, `(member, dose)`."""
    drug = getattr(model.layer.layer.vector_field, "drug", model.layer.layer)
    (doses,) = drug.doses.given
    return np.asarray(doses.time), np.asarray(doses.amount)


def test_warfarin_is_what_the_file_says(pharmacology):
    rows = pd.read_csv(pharmacology / "nlmixr2_warfarin.csv")
    data, seen = warfarin.load(), rows[rows["evid"] == 0]
    assert (
        data["subject"].values.tolist() == sorted(rows["id"].unique().tolist())
        and data.sizes["subject"] == 32
    )
    for name, number, units in (("cp", 251, "mg/L"), ("pca", 232, "%")):
        of = seen[seen["dvid"] == name]
        assert int(data[name].notnull().sum()) == number == len(of)
        assert float(data[name].sum()) == pytest.approx(of["dv"].sum(), rel=1e-12)
        assert data[name].attrs["units"] == units
    assert data["wt"].sel(subject=33).item() == 62.0 and data["wt"].attrs["units"] == "kg"
    assert data["cp"].sel(subject=9, time=3.0).values.tolist() == [
        12.7,
        8.0,
    ]  # of two samples each is kept
    assert data["time"].attrs["units"] == "h"


@pytest.mark.thorough
def test_everyone_took_one_dose_of_warfarin_at_the_start(pharmacology):
    rows = pd.read_csv(pharmacology / "nlmixr2_warfarin.csv")
    time, amount = given(warfarin.model_of(warfarin.load()))
    assert time.shape == (32, 1) and not time.any()
    np.testing.assert_array_equal(amount[:, 0], rows[rows["evid"] == 1].sort_values("id")["amt"])


@pytest.mark.thorough
def test_the_study_of_warfarin_can_be_fitted(pharmacology):
    study = warfarin.study()
    study.refuse_bad_input()
    assert study.train["time"].max() == 72.0 and study.test["time"].min() == 96.0
    assert given(warfarin.model_of(study.data.sel(subject=[9.0, 5.0])))[1].tolist() == [
        [60.0],
        [75.0],
    ]


def test_erlotinib_is_what_the_files_say(pharmacology):
    data = erlotinib.load()
    rows = pd.concat(
        [
            pd.read_csv(file)
            for file in pharmacology.glob("chi_lxf_*.csv")
            if "single" not in file.name
        ]
    )
    assert (
        data["subject"].values.tolist() == sorted(rows["ID"].unique().tolist())
        and data.sizes["subject"] == 30
    )
    for name, called, number in (
        ("volume", "Tumour volume", 397),
        ("concentration", "Plasma concentration", 30),
    ):
        of = rows.loc[rows["Observable"] == called, "Value"].dropna()
        assert int(data[name].notnull().sum()) == number == len(of)
        assert float(data[name].sum()) == pytest.approx(of.sum(), rel=1e-12)
    assert {
        n: v.attrs["units"] for n, v in data.variables.items() if "units" in v.attrs
    } == erlotinib.UNITS


@pytest.mark.thorough
def test_each_mouse_has_its_own_doses_of_erlotinib(pharmacology):
    mice = erlotinib.load()["subject"].values
    _, amount = given(erlotinib.model_of(mice))
    doses = {
        arm: (amount[np.isin(mice, erlotinib.mice_of(arm))] > 0).sum(axis=1)
        for arm in erlotinib.ARMS
    }
    assert [doses[arm].tolist() for arm in ("control", "low", "medium")] == [
        [0] * 8,
        [14] * 8,
        [14] * 8,
    ]
    assert sorted(doses["high"].tolist()) == [
        6,
        9,
        9,
        9,
        9,
        9,
    ]  # dosing was interrupted, and one mouse died
    time, amount = given(erlotinib.model_of([11, 163]))
    assert time[0, :6].tolist() == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    np.testing.assert_allclose(amount[0, :6], [3.3, 3.1, 3.1, 3.1, 2.9, 2.9])


@pytest.mark.thorough
def test_the_study_of_erlotinib_holds_the_high_dose_out(pharmacology):
    study = erlotinib.study()
    study.refuse_bad_input()
    high = study.data["subject"].isin(erlotinib.mice_of("high"))
    for name in ("volume", "concentration"):
        assert not study.train[name].isel(subject=high).notnull().any()
        assert not study.test[name].isel(subject=~high).notnull().any()
        whole = study.train[name].fillna(0.0) + study.test[name].fillna(0.0)
        assert whole.equals(study.data[name].fillna(0.0))
