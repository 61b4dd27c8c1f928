"""Tidy tables: what they become, and what is said of bad ones."""

import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ReadError

GOOD = """ID,TIME,DV,WT,SEX
1,0.5,4.2,60,f
1,2,3.1,60,f
2,0.5,5.0,80,m
2,4,.,80,m
2,8,1.0,80,m
"""


def table(text: str = GOOD) -> pd.DataFrame:
    from io import StringIO

    return pd.read_csv(StringIO(text), na_values=["."])


@pytest.fixture
def written(tmp_path):
    """A text as a CSV file."""

    def write(text: str, name: str = "table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


class TestGood:
    def test_subjects_times_and_covariates(self, written):
        found = bd.from_table(
            written(GOOD), "dv", subject="id", covariates=("wt", "sex"), names={"DV": "conc"}
        )
        expected = xr.Dataset(
            {
                "conc": (("time", "subject"), [[4.2, 5.0], [3.1, np.nan], [np.nan, 1.0]]),
                "WT": ("subject", [60.0, 80.0]),
                "SEX_f": ("subject", [1.0, 0.0]),
                "SEX_m": ("subject", [0.0, 1.0]),
            },
            {"time": [0.5, 2.0, 8.0], "subject": [1.0, 2.0]},
            {"columns": '{"conc": "DV"}'},
        )
        xr.testing.assert_identical(found, expected)
        xr.testing.assert_identical(bd.from_table(table(), "DV", subject="ID", covariates=("WT", "SEX"),
                                                  names={"DV": "conc"}), expected)  # fmt: skip

    def test_the_table_that_is_given_stays_as_it_is(self):
        given = table().rename(columns={"DV": " DV "})
        before = given.copy()
        bd.from_table(given, "DV", subject="ID")
        pd.testing.assert_frame_equal(given, before)

    def test_a_series_with_forcings_in_several_columns(self):
        found = bd.from_table(
            table("day,rain,flow,level\n0,2,0.5,1\n1,0,,2\n2,1,0.4,\n"),
            ("flow", "level"),
            time="day",
            forcings="rain",
        )
        assert dict(found.sizes) == {"time": 3}
        np.testing.assert_array_equal(found["rain"], [2.0, 0.0, 1.0])
        np.testing.assert_array_equal(found["flow"], [0.5, np.nan, 0.4])

    def test_forcings_go_on_where_nothing_was_observed_and_keep_their_gaps(self):
        found = bd.from_table(
            table("day,rain,q\n2001-01-01,2,0.5\n2001-01-02,7,\n2001-01-03,,0.4\n2001-01-04,1,\n"), "q", time="day",
            forcings="rain",
        )  # fmt: skip
        np.testing.assert_array_equal(found["rain"], [2.0, 7.0, np.nan, 1.0])
        np.testing.assert_array_equal(found["q"], [0.5, np.nan, 0.4, np.nan])
        np.testing.assert_array_equal(
            bd.data.fill_gaps(found, rain="last")["rain"], [2.0, 7.0, 7.0, 1.0]
        )
        each = bd.from_table(table("id,time,rain,dv\n1,0,2,0.5\n1,1,7,\n1,2,3,0.4\n2,0,5,1\n"), "dv", subject="id",
                             forcings="rain")  # fmt: skip
        np.testing.assert_array_equal(each["rain"], [[2.0, 5.0], [7.0, np.nan], [3.0, np.nan]])

    def test_several_observables_in_one_column(self):
        text = "id,time,dv,dvid\n1,0,1,cp\n1,0,90,pca\n1,2,3,cp\n2,2,80,pca\n"
        found = bd.from_table(table(text), "dv", observable="dvid", subject="id")
        np.testing.assert_array_equal(found["cp"], [[1.0, np.nan], [3.0, np.nan]])
        np.testing.assert_array_equal(found["pca"], [[90.0, np.nan], [np.nan, 80.0]])
        coded = table(text).replace({"dvid": {"cp": 1, "pca": 2}}).astype({"dvid": int})
        xr.testing.assert_identical(
            bd.from_table(coded, "dv", observable="dvid", subject="id", names={1: "cp", 2: "pca"}),
            found,
        )

    def test_replicates_have_rows_of_their_own(self):
        text = "id,time,dv\n1,0,1\n1,0,2\n2,0,3\n2,1,4\n"
        found = bd.from_table(table(text), "dv", subject="id", replicates=True)
        np.testing.assert_array_equal(found["time"], [0.0, 0.0, 1.0])
        np.testing.assert_array_equal(found["dv"], [[1.0, 3.0], [2.0, np.nan], [np.nan, 4.0]])

    def test_censored_values_and_known_errors(self):
        text = "time,dv,bq,lloq,se\n0,3,0,0.5,0.1\n1,0,1,0.5,0.2\n2,9,-1,8,0.3\n"
        found = bd.from_table(table(text), "dv", censored="bq", limit="lloq", error="se")
        np.testing.assert_array_equal(found["dv"], [3.0, 0.5, 8.0])
        np.testing.assert_array_equal(found["dv_censored"], [0.0, 1.0, -1.0])
        np.testing.assert_array_equal(found["dv_error"], [0.1, 0.2, 0.3])

    @pytest.mark.parametrize(
        ("text", "units"),
        [
            ("time (min),conc [ug/L]\n30,500\n60,250\n", {}),
            ("time,conc\n30,500\n60,250\n", {"time": "min", "conc": "ug/L"}),
            (
                "time,conc,unit,clock\n30,500,ug/L,min\n60,0.25,mg/L,min\n",
                {"time": "clock", "conc": "unit"},
            ),
        ],
    )
    def test_units_are_converted_at_the_edge(self, text, units):
        pytest.importorskip("pint")
        found = bd.from_table(table(text), "conc", units=units, to={"time": "hour", "conc": "mg/L"})
        np.testing.assert_allclose(found["time"], [0.5, 1.0])
        np.testing.assert_allclose(found["conc"], [0.5, 0.25])
        assert found["conc"].attrs["units"] == "mg/L" and found["time"].attrs["units"] == "hour"

    def test_a_unit_may_be_called_as_a_column_is(self):
        pytest.importorskip("pint")
        text = "cycle,capacity,Ah\n1,2.0,7\n2,1.9,8\n"
        found = bd.from_table(
            table(text), "capacity", time="cycle", units={"cycle": "cycle", "capacity": "Ah"}
        )
        assert (found["time"].attrs["units"], found["capacity"].attrs["units"]) == ("cycle", "Ah")

    @pytest.mark.parametrize(
        ("cells", "options"),
        [
            (("04.01.2015", "13.01.2015"), {"date_format": "%d.%m.%Y"}),
            (("20150104", "20150113"), {"date_format": "%Y%m%d"}),
            (("04012015", "13012015"), {"date_format": "%d%m%Y"}),
            (("2015-01-04", "2015-01-13"), {}),
            (("2015-01-04 01:00+01:00", "2015-01-13T02:00+02:00"), {}),
        ],
    )
    def test_dates_in_several_ways(self, written, cells, options):
        text = f"date,flow\n{cells[0]},1\n{cells[1]},2\n"
        found = bd.from_table(written(text), "flow", time="date", **options)
        np.testing.assert_array_equal(
            found["time"], np.array(["2015-01-04", "2015-01-13"], "M8[ns]")
        )

    def test_whole_numbers_with_a_unit_are_numbers(self):
        found = bd.from_table(
            table("s,dv\n20200130,1\n20200131,2\n"), "dv", time="s", units={"time": "s"}
        )
        np.testing.assert_array_equal(found["time"], [20200130.0, 20200131.0])
        rows = bd.from_table(
            pd.DataFrame({"row": np.arange(200001, 200021), "dv": 1.0}), "dv", time="row"
        )
        assert rows["time"].dtype == float

    def test_a_clock_that_is_changed_in_between(self):
        """In Berlin 02:00 was 03:00 on 29 March 2020: hours by UTC are even."""
        text = ["2020-03-29T00:30+01:00", "2020-03-29T01:30+01:00", "2020-03-29T03:30+02:00"]
        zoned = pd.to_datetime(text, utc=True).tz_convert("Europe/Berlin")
        for cells in (text, [pd.Timestamp(cell) for cell in text], zoned):
            found = bd.from_table(pd.DataFrame({"time": cells, "dv": [1.0, 2.0, 3.0]}), "dv")
            np.testing.assert_array_equal(np.diff(found["time"]), np.timedelta64(1, "h"))
            assert found["time"].values[0] == np.datetime64("2020-03-28T23:30")

    @pytest.mark.parametrize("kind", [pd.Series, lambda cells: pd.Series(cells).astype(object)])
    def test_periods_are_their_begin(self, kind):
        months = pd.period_range("2020-01", periods=3, freq="M")
        found = bd.from_table(pd.DataFrame({"time": kind(months), "dv": [1.0, 2.0, 3.0]}), "dv")
        np.testing.assert_array_equal(
            found["time"], np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "M8[ns]")
        )

    @pytest.mark.parametrize(
        ("missing", "kept"), [(-9999, [1.0, np.nan, -99.0]), ((-9999, -99), [1.0, np.nan, np.nan])]
    )
    def test_numbers_that_stand_for_a_missing_value(self, missing, kept):
        text = "time,dv,rain,se\n-9999,1,-9999,0.1\n0,-9999,2,-9999\n1,-99,3,0.2\n"
        found = bd.from_table(table(text), "dv", forcings="rain", error="se", missing=missing)
        np.testing.assert_array_equal(found["dv"], kept)
        np.testing.assert_array_equal(found["rain"], [np.nan, 2.0, 3.0])
        np.testing.assert_array_equal(found["time"], [-9999.0, 0.0, 1.0])

    def test_texts_that_stand_for_a_missing_value(self, written):
        found = bd.from_table(written("time,dv\n0,1\n1,ND\n2,-\n"), "dv", missing=("ND", "-"))
        np.testing.assert_array_equal(found["dv"], [1.0])

    def test_words_become_names_of_python(self):
        text = "id,time,dv,Apgar Ind,Sex\n1,0,1,>= 5,m\n2,0,2,< 5,m\n3,0,3,>=5,f\n4,0,4,5 %,f\n"
        found = bd.from_table(table(text), "dv", subject="id", covariates=("Apgar Ind", "Sex"))
        names = {str(name) for name in found if name != "dv"}
        assert names == {
            "Apgar_Ind_ge_5",
            "Apgar_Ind_ge_5_2",
            "Apgar_Ind_lt_5",
            "Apgar_Ind_5_percent",
            "Sex_m",
            "Sex_f",
        }
        assert all(name.isidentifier() for name in names)
        np.testing.assert_array_equal(
            found["Apgar_Ind_ge_5"] + found["Apgar_Ind_ge_5_2"], [1.0, 0.0, 1.0, 0.0]
        )
        assert (
            found["Apgar_Ind_lt_5"].attrs["long_name"] == "Apgar Ind < 5"
            and not found["Sex_m"].attrs
        )

    def test_large_numbers_of_subjects_stay_apart(self):
        ids = [2**60 + 1, 2**60 + 2]
        found = bd.from_table(
            pd.DataFrame({"id": ids, "time": 0.0, "dv": [1.0, 2.0]}), "dv", subject="id"
        )
        assert found["subject"].values.tolist() == list(map(str, ids))

    def test_units_of_the_whole_table_are_taken_whatever_is_read(self):
        table = pd.DataFrame(
            {"time": [0.0, 1.0], "DV": [1.0, 2.0], "amt": [10.0, 0.0], "wt": [70.0, 70.0]}
        )
        units = {"dv": "mg/L", "time": "h", "amt": "mg", "wt": "kg"}
        found = bd.from_table(table, "DV", units=units)
        assert (found["DV"].attrs["units"], found["time"].attrs["units"]) == ("mg/L", "h")

    def test_errors_of_a_scale_with_an_offset_are_differences(self):
        pytest.importorskip("pint")
        found = bd.from_table(table("time,temp,se\n0,10,2\n"), "temp", error="se", units={"temp": "degC"},
                              to={"temp": "kelvin"})  # fmt: skip
        np.testing.assert_allclose([found["temp"][0], found["temp_error"][0]], [283.15, 2.0])

    @pytest.mark.parametrize(
        ("header", "units"),
        [
            ("time,conc [mg/L],bq,lloq [ug/L],se [ug/L]", {}),
            ("time,conc,bq,lloq,se", {"conc": "mg/L", "lloq": "ug/L", "se": "ug/L"}),
            ("time,conc,bq,lloq,se", {"conc": "mg/L", "lloq": "ug/L", "conc_error": "ug/L"}),
            ("time,conc,bq,lloq,se", {"conc": "mg/L", "lloq": "of_lloq", "se": "of_se"}),
        ],
    )
    @pytest.mark.parametrize("to", [{}, {"conc": "g/L"}])
    def test_errors_and_limits_may_be_in_units_of_their_own(self, header, units, to):
        pytest.importorskip("pint")
        rows = "0,3,0,500,100,ug/L,ug/L\n1,0,1,500,200,ug/L,ug/L\n"
        if "of_se" in units.values():
            rows = "0,3,0,500,100,ug/L,ug/L\n1,0,1,0.5,0.2,mg/L,mg/L\n"
        text = f"{header},of_se,of_lloq\n{rows}"
        found = bd.from_table(
            table(text), "conc", censored="bq", limit="lloq", error="se", units=units, to=to
        )
        scale = 1e-3 if to else 1.0
        np.testing.assert_allclose(found["conc"], np.array([3.0, 0.5]) * scale)
        np.testing.assert_allclose(found["conc_error"], np.array([0.1, 0.2]) * scale)
        assert found["conc"].attrs["units"] == (to or {"conc": "mg/L"})["conc"]

    @pytest.mark.parametrize("header", ["se (n=3)", "se [-]", "se"])
    def test_what_is_no_unit_in_the_header_of_an_error_says_none(self, header):
        found = bd.from_table(table(f"time,conc [mg/L],{header}\n0,3,0.1\n"), "conc", error="se")
        assert float(found["conc_error"][0]) == 0.1

    def test_each_observable_of_a_long_table_has_its_own_units(self):
        text = "time,what,dv,unit\n0,conc,3,mg/L\n0,temp,20,degC\n"
        found = bd.from_table(table(text), "dv", observable="what", units={"dv": "unit"})
        assert {name: found[name].attrs["units"] for name in ("conc", "temp")} == {
            "conc": "mg/L",
            "temp": "degC",
        }

    def test_dates(self):
        found = bd.from_table(table("date,flow\n2004-02-28,1\n2004-02-29,2\n"), "flow", time="date")
        assert found["time"].dtype.kind == "M"

    def test_subjects_with_names(self):
        found = bd.from_table(
            table(GOOD.replace("\n1,", "\nBo,").replace("\n2,", "\nAnn,")), "dv", subject="id"
        )
        assert found["subject"].values.tolist() == ["Ann", "Bo"]
        np.testing.assert_array_equal(found["DV"].sel(subject="Bo").dropna("time"), [4.2, 3.1])

    def test_rows_of_doses_are_no_observations(self):
        text = "id,time,amt,dv,evid\n1,0,100,0,1\n1,1,0,3,0\n1,1,100,0,1\n1,2,0,2,0\n"
        found = bd.from_table(table(text), "dv", subject="id")
        np.testing.assert_array_equal(found["dv"], [[3.0], [2.0]])
        without = bd.from_table(table(text).drop(columns="evid"), "dv", subject="id")
        xr.testing.assert_identical(found, without)

    def test_rows_with_mdv_1_are_no_observations(self):
        text = "id,time,amt,dv,mdv\n1,0,100,0,1\n1,1,0,3,0\n1,2,0,9,1\n1,3,.,2,.\n"
        found = bd.from_table(table(text), "dv", subject="id")
        np.testing.assert_array_equal(found["time"], [1.0, 3.0])
        np.testing.assert_array_equal(found["dv"], [[3.0], [2.0]])
        both = table(text).assign(evid=[1, 0, 0, 0])
        xr.testing.assert_identical(bd.from_table(both, "dv", subject="id"), found)

    @pytest.mark.parametrize("name", ["table.parquet", "table.PQ"])
    @pytest.mark.parametrize("kinds", [pd.DataFrame.copy, pd.DataFrame.convert_dtypes])
    def test_parquet_is_read_as_the_same_table_in_csv(self, written, tmp_path, name, kinds):
        pytest.importorskip("pyarrow")
        kinds(table()).to_parquet(tmp_path / name)
        options = {"subject": "id", "covariates": ("wt", "sex")}
        found = bd.from_table(tmp_path / name, "dv", **options)
        xr.testing.assert_identical(found, bd.from_table(written(GOOD), "dv", **options))


def read(text=GOOD, **options):
    return lambda write: bd.from_table(write(text), **({"value": "dv", "subject": "id"} | options))


def changed(old, new, **options):
    assert old in GOOD
    return read(GOOD.replace(old, new), **options)


TWO = "id,time,dv,what\n1,0,1,cp\n1,0,90,pca\n"
FLAGS = "id,time,dv,bq,lloq,se\n1,0,3,0,.,0.1\n1,1,.,1,.,0.1\n"
BAD = {
    "no file": (lambda write: bd.from_table("nowhere.csv", "dv"), "there is no file nowhere.csv"),
    "another kind of file": (
        lambda write: bd.from_table(write("a", "t.xlsx"), "dv"),
        "t.xlsx is neither CSV nor Parquet",
    ),
    "no table": (lambda write: bd.from_table({"dv": [1]}, "dv"), "a pandas DataFrame, or the path"),
    "an empty file": (read(""), "no rows"),
    "a header alone": (read("id,time,dv\n"), "no rows"),
    "semicolons": (read("id;time;dv\n1;0;1\n"), "separated by semicolons"),
    "a row with too many cells": (changed("2,3.1,60,f", "2,3,1,60,f"), "is no table: .*line 3"),
    "two columns of one name": (read("id,time,dv,dv\n1,0,1,2\n"), "two columns 'dv'"),
    "a column in two roles": (read(value="time"), "'TIME' is named for values and for times"),
    "an unknown column": (
        read(value="conc"),
        "no column 'conc' for values; its columns are ID, TIME, DV, WT, SEX",
    ),
    "a name of two columns": (
        read("id,time,dv (mg),dv [%]\n1,0,1,2\n"),
        "may all be meant by 'dv'",
    ),
    "no value": (read(value=()), "value must name the column"),
    "text among numbers": (
        changed("4.2", "lost"),
        "'DV' is 'lost' in line 2, which is no number: leave the cell empty",
    ),
    "below a limit, in text": (
        changed("4.2", "<0.5"),
        "'<0.5' in line 2.*: write the limit 0.5 there, 1 in a column",
    ),
    "a comma of thousands or of decimals": (
        changed("4.2", '"1,500"'),
        r"'1,500' in line 2, which is no number: read the table first, if commas separate "
        r"thousands, by "
        r"pandas.read_csv\(…, thousands=','\); if it is the comma of decimals, by "
        r"pandas.read_csv\(…, decimal=','\)",
    ),
    "commas of thousands": (
        changed("4.2", '"1,500,000"'),
        "by pandas.read_csv.…, thousands=','. first",
    ),
    "a comma of thousands beside a point": (
        changed("4.2", '"1,500.5"'),
        "by pandas.read_csv.…, thousands=','. first",
    ),
    "a comma that another cell tells": (
        read('id,time,dv\n1,0,"1,500"\n1,1,"1,5"\n'),
        "'1,500' in line 2.* by pandas.read_csv.…, decimal=','. first",
    ),
    "points of thousands and a decimal comma": (
        changed("4.2", '"1.500,25"'),
        "by pandas.read_csv.…, thousands='.', decimal=','. first",
    ),
    "days first": (
        read("date,dv\n04.01.2015,1\n13.01.2015,2\n", subject=None, time="date"),
        r"'date' is '04.01.2015' in line 2, which may be a date: say how dates are written, by "
        r"date_format='%d.%m.%Y'$",
    ),
    "days or months first": (
        read("date,dv\n04/01/2015,1\n05/01/2015,2\n", subject=None, time="date"),
        r"by date_format='%d/%m/%Y' or date_format='%m/%d/%Y'$",
    ),
    "dates with hours": (
        read("date,dv\n4 Jan 2015 13:30,1\n5 Jan 2015 01:30,2\n", subject=None, time="date"),
        "by date_format='%d %b %Y %H:%M'$",
    ),
    "dates that are written in two ways": (
        read("date,dv\n04.01.2015,1\n2015/01/05,2\n", subject=None, time="date"),
        "'04.01.2015' in line 2, which may be a date: but '2015/01/05' in line 3 is not written "
        "alike",
    ),
    "a date that is not in the format": (
        read(
            "date,dv\n04.01.2015,1\n32.01.2015,2\n",
            subject=None,
            time="date",
            date_format="%d.%m.%Y",
        ),
        "'date' is '32.01.2015' in line 3, which is not written as date_format='%d.%m.%Y'",
    ),
    "a format that is none": (
        read("date,dv\n04.01.2015,1\n", subject=None, time="date", date_format="%Q"),
        "date_format='%Q' cannot be read",
    ),
    "dates as whole numbers": (
        read("date,dv\n20200130,1\n20200131,2\n20200201,3\n", subject=None, time="date"),
        "whole numbers such as 20200130, which all are dates if read so: say date_format='%Y%m%d', "
        "or, if they are "
        "numbers, their unit",
    ),
    "months as whole numbers": (
        read("date,dv\n202012,1\n202101,2\n", subject=None, time="date"),
        "say date_format='%Y%m', or",
    ),
    "an offset from UTC in one row": (
        read("date,dv\n2020-01-01T00:00+01:00,1\n2020-01-02T00:00,2\n", subject=None, time="date"),
        "'date' has an offset from UTC in line 2, .* but none in line 3, '2020-01-02T00:00': write "
        "all times with one",
    ),
    "a subject in two ways": (
        read("id,time,dv\n01,0,1\n01,1,2\n1,0,3\n"),
        "'id' is '01' in line 2 and '1' in line 4, which are one number: write each subject in one "
        "way, or, if they "
        "are two, with a letter",
    ),
    "a decimal comma": (changed("4.2", '"4,2"'), "'4,2' in line 2.*decimal=','"),
    "an infinite value": (changed("4.2", "inf"), "'DV' is infinite in line 2"),
    "a row after a blank line": (read("id,time,dv\n\n1,0,x\n"), "in line 3"),
    "a missing time": (changed("1,2,3.1", "1,,3.1"), "the time in 'TIME' is missing in line 3"),
    "text as time": (
        changed("1,2,3.1", "1,noon,3.1"),
        "'TIME' is 'noon' in line 3, which is no number",
    ),
    "a date that is none": (
        read("time,dv\n2004-02-29,1\n2005-02-29,1\n", subject=None),
        "'2005-02-29' in line 3, which is no date",
    ),
    "an infinite time": (changed("1,2,3.1", "1,inf,3.1"), "'TIME' is infinite in line 3"),
    "times that fall": (
        changed("2,8,1.0", "2,0.1,1.0"),
        "time falls from 0.5 in line 4 to 0.1 in line 6: mend it",
    ),
    "subjects that nobody told apart": (
        read(subject=None),
        "or, if they are of several subjects, .* as subject=",
    ),
    "two values at one time": (
        changed("1,2,3.1", "1,0.5,3.1"),
        "'DV' has two values at time 0.5, in line 2 and line 3",
    ),
    "a missing subject": (changed("1,2,3.1", ",2,3.1"), "the subject in 'ID' is missing in line 3"),
    "no value of a subject": (
        read("id,time,dv\n1,0,1\n2,0,\n2,1,.\n"),
        r"subject 2 has no value at all \(from line 3\)",
    ),
    "no value at all": (read("id,time,dv\n1,0,\n1,1,\n"), "'dv' has no value at all"),
    "a missing observable": (
        read(TWO.replace("cp", ""), observable="what"),
        "the observable in 'what' is missing in line 2",
    ),
    "an observable that is a number": (
        read(TWO.replace("pca", "2").replace("cp", "1"), observable="what"),
        "'what' has the code 1: say what it is called",
    ),
    "several columns of several observables": (
        read(TWO, value=("dv", "time"), time="id", subject=None, observable="what"),
        "there is one column of values",
    ),
    "a covariate that changes": (
        changed("1,2,3.1,60", "1,2,3.1,61", covariates="wt"),
        "'wt' of subject 1 is 60 in line 2 but 61 in line 3",
    ),
    "a missing covariate": (
        changed("1,2,3.1,60", "1,2,3.1,", covariates="wt"),
        "the covariate in 'WT' is missing in line 3",
    ),
    "a covariate of nobody": (read(subject=None, covariates="wt"), "no subject= is given"),
    "a gap in a forcing": (
        read("id,time,dv,rain\n1,0,1,2\n1,1,2,\n", forcings="rain"),
        "the forcing in 'rain' is missing in line 3",
    ),
    "a forcing with two values": (
        read("time,dv,rain\n0,1,2\n0,2,3\n", subject=None, forcings="rain", replicates=True),
        "'rain' has two values at time 0.0, in line 2 and line 3",
    ),
    "an error in per cent of a concentration": (
        read("time,conc [mg/L],se [%]\n0,3,10\n", value="conc", subject=None, error="se"),
        r"'se \[%\]' is in '%', which cannot be converted to 'mg/L'",
    ),
    "an error in units, of a value in unknown ones": (
        read("time,conc,se [mg/L]\n0,3,10\n", value="conc", subject=None, error="se"),
        r"'se \[mg/L\]' is in 'mg/L', but what 'conc' is in is not said: give units=\{'conc'",
    ),
    "an error of zero": (
        read(FLAGS.replace("0.1", "0", 1), error="se"),
        "the error of 'dv' is 0.0 in line 2: it must be positive",
    ),
    "a negative error": (
        read(FLAGS.replace("0.1", "-1", 1), error="se"),
        "the error of 'dv' is -1.0 in line 2",
    ),
    "a missing error": (
        read(FLAGS.replace("0.1", "", 1), error="se"),
        "the error of 'dv' is nan in line 2",
    ),
    "another flag": (
        read(FLAGS.replace("3,0,", "3,2,"), censored="bq"),
        "'bq' is 2 in line 2: a flag is 1",
    ),
    "censored without a limit": (
        read(FLAGS, censored="bq", limit="lloq"),
        "in line 3 is censored, but its limit in 'lloq' is missing",
    ),
    "censored without a value": (
        read(FLAGS, censored="bq"),
        "in line 3 is censored, but its limit in 'dv' is missing",
    ),
    "a limit of nothing": (
        read(FLAGS, limit="lloq"),
        "no column that says which values are censored",
    ),
    "one error for two columns": (
        read("time,a,b,se\n0,1,2,1\n", value=("a", "b"), subject=None, error="se"),
        "which error belongs to which",
    ),
    "an error of no value": (
        read("time,a,b,se\n0,1,2,1\n", value=("a", "b"), subject=None, error={"c": "se"}),
        "error names 'c'",
    ),
    "mixed units": (
        read("time,dv,unit\n0,1,mg/L\n1,2,ug/L\n", subject=None, units={"dv": "unit"}),
        "'dv' is in 'mg/L' in line 2 but in 'ug/L' in line 3: say which is wanted",
    ),
    "units of another dimension in a row": (
        read(
            "time,dv,unit\n0,1,mg/L\n1,2,mm\n",
            subject=None,
            units={"dv": "unit"},
            to={"dv": "ug/L"},
        ),
        "'dv' is in 'mm' in line 3, which cannot be converted to 'ug/L'",
    ),
    "a missing unit": (
        read("time,dv,unit\n0,1,mg/L\n1,2,\n", subject=None, units={"dv": "unit"}),
        "the unit of 'dv' in 'unit' is missing in line 3",
    ),
    "another dimension": (
        read(units={"dv": "mg"}, to={"dv": "L"}, names={"dv": "dv"}),
        "'dv' is in 'mg', which cannot be converted to 'L'",
    ),
    "units that nobody states": (
        read(to={"DV": "mg"}),
        "'DV' is wanted in 'mg', but what 'DV' is in is not said",
    ),
    "units of nothing": (read(to={"x": "mg"}), "units are wanted of 'x'"),
    "units of a column that is not there": (
        read(units={"DVs": "mg"}),
        "units are given of 'DVs', but columns are ",
    ),
    "a unit that is none": (read(units={"DV": "mg/"}), "'mg/' is no unit"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables(kind, written, unchecked):
    pytest.importorskip("pint")
    call, message = BAD[kind]
    with pytest.raises((DataError, ReadError), match=message):
        call(written)


def test_rows_of_a_frame_are_called_by_their_label():
    frame = table(GOOD.replace("4.2", "lost")).set_axis([10, 20, 30, 40, 50])
    with pytest.raises(DataError, match="in row 10, which is no number"):
        bd.from_table(frame, "dv", subject="id")


def test_rows_of_parquet_are_called_by_their_label(tmp_path):
    pytest.importorskip("pyarrow")
    table(GOOD.replace("4.2", "lost")).set_axis(list("abcde")).to_parquet(
        tmp_path / "table.parquet"
    )
    with pytest.raises(DataError, match="in row a, which is no number"):
        bd.from_table(tmp_path / "table.parquet", "dv", subject="id")


def test_a_torn_parquet_file(written):
    pytest.importorskip("pyarrow")
    with pytest.raises(ReadError, match=r"torn\.parquet cannot be read as Parquet"):
        bd.from_table(written(GOOD, "torn.parquet"), "dv")


def test_parquet_without_pyarrow(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"Parquet is read by pyarrow: pip install 'bayes-dasl\[parquet\]'"
    ):
        bd.from_table(written(GOOD, "table.parquet"), "dv")


def test_theophylline_and_warfarin(shared_file):
    theo = bd.from_table(
        shared_file("data/pk/theo_sd.csv"),
        "DV",
        subject="ID",
        covariates="WT",
        names={"DV": "conc"},
    )
    assert (
        dict(theo.sizes) == {"time": 78, "subject": 12} and int(theo["conc"].notnull().sum()) == 132
    )
    file = shared_file("data/pk/nlmixr2_warfarin.csv")
    with pytest.raises(
        DataError, match=r"'cp' has two values at time 3.0, in line 151 and line 152"
    ):
        bd.from_table(file, "dv", observable="dvid", subject="id")
    both = bd.from_table(
        file, "dv", observable="dvid", subject="id", covariates=("wt", "sex"), replicates=True
    )
    assert int(both["cp"].notnull().sum()) + int(both["pca"].notnull().sum()) == 483
    assert both["sex_male"].sum() + both["sex_female"].sum() == 32
