"""Doses in NONMEM's layout against superposed closed forms: values, gradients, refusals."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import BayesDaslError, DataError, ModelError
from bayes_dasl.layers.layer import start_of
from bayes_dasl.random import paths, realise

TOLERANCE = 1e-9
TIMES = np.array([0.0, 0.5, 1.5, 3.0, 4.3, 5.0, 6.2, 9.0, 12.0, 13.3, 17.5, 24.0])
PARAMETERS = {"ka": 1.3, "k": 0.2, "lag": 0.7, "share": 0.8, "lasting": 2.5}
INTO = ("gut", "blood")

# A subject for each kind of event, so that one program serves all.
PLAIN = """id,time,amt,cmt,evid,rate,dur,addl,ii,ss
1,0,100,2,1,0,0,0,0,0
1,3,40,1,1,0,0,2,4,0
2,0,100,2,1,20,0,0,0,0
2,2,40,2,1,0,1.5,3,5,0
3,0,100,1,1,0,0,5,2,0
3,5,0,1,3,0,0,0,0,0
3,9,70,2,4,0,6,0,0,0
3,12,30,1,4,0,0,0,0,0
4,1,90,2,1,0,9,0,0,0
4,4,0,2,3,0,0,0,0,0
5,1,60,1,1,-2,0,1,6,0
"""
STEADY = """id,time,amt,cmt,evid,rate,dur,addl,ii,ss
1,0,100,2,1,0,0,0,8,1
1,4,50,2,1,0,0,0,6,2
2,0,100,1,1,0,5.6,2,6,1
3,3,0,2,1,30,0,0,0,1
"""


def table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))


class Oral(bd.Module):
    ka: bd.Scalar
    k: bd.Scalar

    def __call__(self, t, y, u):
        return {"gut": -self.ka * y["gut"], "blood": self.ka * y["gut"] - self.k * y["blood"]}


def population(text, p, equations=Oral, **options):
    given = bd.dosing.doses(
        table(text), INTO, subject="id", lag={"gut": p["lag"]}, bioavailability={"blood": p["share"]},
        duration={"gut": p["lasting"]},
    )  # fmt: skip
    options = {"rtol": TOLERANCE, "atol": TOLERANCE} | options
    one = bd.ODE(equations(p["ka"], p["k"]), {"gut": 0.0, "blood": 0.0}, doses=given, **options)
    return bd.Each(one, given.members)


def at_times(start=0.0):
    return bd.inputs(xr.Dataset({}, {"time": TIMES}), start=start)


def response(since, p, into, lasting):
    """The blood after a unit dose, at once or over a time."""
    ka, k = p["ka"], p["k"]
    since = np.maximum(since, 0.0)
    if into == "blood":
        whole = lambda s: -np.expm1(-k * s) / k  # noqa: E731
        at_once = np.exp(-k * since)
    else:
        both = ka / (ka - k)
        whole = lambda s: both * (-np.expm1(-k * s) / k + np.expm1(-ka * s) / ka)  # noqa: E731
        at_once = both * (np.exp(-k * since) - np.exp(-ka * since))
    return (
        (whole(since) - whole(np.maximum(since - lasting, 0.0))) / lasting if lasting else at_once
    )


def superposed(doses, p):
    """Each of (begin, amount, lasting, into, since, until) by itself."""
    total = np.zeros(len(TIMES))
    for begin, amount, lasting, into, since, until in doses:
        counts = (max(begin, since) <= TIMES) & (until > TIMES)
        total += np.where(counts, amount * response(TIMES - begin, p, into, lasting), 0.0)
    return total


def given(begin, amount, into, lasting=0.0, since=-np.inf, until=np.inf):
    return (begin, amount, lasting, into, since, until)


def plain(p):
    lag, share = p["lag"], p["share"]
    return [
        [given(0, 100 * share, "blood")] + [given(t + lag, 40, "gut") for t in (3, 7, 11)],
        [given(0, 100 * share, "blood", 100 * share / 20)]
        + [given(t, 40 * share, "blood", 1.5) for t in (2, 7, 12, 17)],
        [given(t + lag, 100, "gut", until=5.0) for t in (0, 2, 4)]
        + [given(9, 70 * share, "blood", 6.0, until=12.0), given(12 + lag, 30, "gut")],
        [given(1, 90 * share, "blood", 9.0, until=4.0)],
        [given(t + lag, 60, "gut", p["lasting"]) for t in (1, 7)],
    ]


def steady(p):
    lag, share, ever = p["lag"], p["share"], range(1, 300)
    return [
        [given(-8 * k, 100 * share, "blood") for k in (0, *ever)]
        + [given(4, 50 * share, "blood")]
        + [given(4 - 6 * k, 50 * share, "blood", since=4.0) for k in ever],
        [given(lag - 6 * k, 100, "gut", 5.6) for k in (-2, -1, 0, *ever)],
        [given(3 - 2000, 30 * 2000, "blood", 2000.0, since=3.0)],
    ]


WEIGHTS = np.random.default_rng(0).normal(size=(len(TIMES), 5))


def slopes(cases):
    """Of the weighted sum of what is predicted, by finite differences of the closed form."""

    def total(p):
        return sum(WEIGHTS[:, i] @ superposed(doses, p) for i, doses in enumerate(cases(p)))

    step = 1e-5
    return {
        name: (total(PARAMETERS | {name: v + step}) - total(PARAMETERS | {name: v - step}))
        / (2 * step)
        for name, v in PARAMETERS.items()
    }


def check(text, cases, **options):
    """Values to 1e-6 and gradients, by one program."""

    def weighted(p):
        prediction = population(text, p, **options)(at_times())
        blood = prediction.values["blood"]
        return jnp.sum(WEIGHTS[:, : blood.shape[1]] * blood), prediction

    found, prediction = jax.jit(jax.grad(weighted, has_aux=True))(PARAMETERS)
    assert bool(prediction.ok)
    for i, doses in enumerate(cases(PARAMETERS)):
        np.testing.assert_allclose(
            prediction.values["blood"][:, i], superposed(doses, PARAMETERS), atol=1e-6
        )
    for name, exact in slopes(cases).items():
        assert float(found[name]) == pytest.approx(exact, rel=1e-6, abs=1e-5), name


class TestEvents:
    def test_doses_infusions_repeats_and_resets(self):
        check(PLAIN, plain)

    @pytest.mark.slow
    def test_by_a_stiff_solver(self):
        check(PLAIN, plain, solver="rodas5p")

    @pytest.mark.slow
    def test_steady_states(self):
        check(STEADY, steady)

    @pytest.mark.thorough
    def test_a_steady_state(self):
        """Of one subject, without a gradient; the lag makes an infusion go on over the record."""
        lag, amount = bd.shared(dist.Uniform(0.0, 2.0), "lag"), 100.0
        text = "time,amt,dur,ii,ss\n0,100,5.6,6,1\n"
        one = bd.ODE(Oral(1.3, 0.2), {"gut": 0.0, "blood": 0.0}, doses=bd.dosing.doses(table(text), "gut", lag={"gut": lag}),
                     rtol=TOLERANCE, atol=TOLERANCE)  # fmt: skip
        prediction = jax.jit(lambda lag: realise(one, {"lag": lag})(at_times()))(0.7)
        expected = superposed(
            [given(0.7 - 6 * k, amount, "gut", 5.6) for k in range(300)], PARAMETERS
        )
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["blood"], expected, atol=1e-6)

    @pytest.mark.slow
    def test_a_steady_state_of_a_nonlinear_equation(self):
        """Enzyme-limited elimination, against eighty doses one by one."""

        class Limited(bd.Module):
            most: bd.Scalar

            def __call__(self, t, y, u):
                return {"blood": -self.most * y["blood"] / (3.0 + y["blood"])}

        def solve(text, times, most):
            one = bd.ODE(
                Limited(most),
                {"blood": 0.0},
                doses=bd.dosing.doses(table(text), "blood"),
                rtol=1e-9,
                atol=1e-9,
            )
            found = one(bd.inputs(xr.Dataset({}, {"time": times}), start=one.start))
            return found.values["blood"], found.ok

        times = np.array([0.0, 1.0, 5.0, 11.0])
        steady = lambda most: solve("time,amt,ii,ss\n0,10,6,1\n", times, most)  # noqa: E731
        (values, ok), slope = jax.jit(
            lambda m: (steady(m), jax.grad(lambda m: steady(m)[0][2])(m))
        )(4.0)
        long, fine = jax.jit(lambda m: solve("time,amt,ii,addl\n0,10,6,60\n", times + 60 * 6.0, m))(
            4.0
        )
        assert bool(ok) and bool(fine)
        np.testing.assert_allclose(values[:3], long[:3], rtol=1e-6)
        step = 1e-4
        ahead, behind = (jax.jit(steady)(4.0 + s)[0][2] for s in (step, -step))
        assert float(slope) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-5)

    @pytest.mark.thorough
    def test_two_doses_of_one_state_at_one_time_move_together(self):
        """The derivative by a time in which both share is that of one dose of their sum."""

        def last(time):
            decay, jump = (
                lambda t, y, u: {"y": -0.5 * y["y"]},
                bd.Jump(jnp.stack([time, time]), {"y": 2.0}),
            )
            one = bd.ODE(decay, {"y": 1.0}, jumps=jump, rtol=TOLERANCE, atol=TOLERANCE)
            return one(at_times()).values["y"][5]

        assert float(jax.jit(jax.grad(last))(2.0)) == pytest.approx(
            0.5 * 4.0 * np.exp(-0.5 * 3.0), rel=1e-6
        )


class TestODE:
    def test_starts_at_the_first_time_of_the_table(self):
        given = bd.dosing.doses(table("time,amt\n-2,5\n"), "gut")
        assert start_of(bd.ODE(Oral(1.0, 0.1), {"gut": 0.0, "blood": 0.0}, doses=given)) == -2.0
        with pytest.raises(ModelError, match="begins at -2, before the start at 0"):
            bd.ODE(Oral(1.0, 0.1), {"gut": 0.0, "blood": 0.0}, doses=given, start=0.0)

    def test_refusals(self):
        given = bd.dosing.doses(table("time,amt\n0,5\n"), "gut")
        with pytest.raises(ModelError, match="doses go into 'gut', but the states are blood"):
            bd.ODE(lambda t, y, u: y, {"blood": 0.0}, doses=given)
        with pytest.raises(ModelError, match="'gut', which is an array"):
            bd.ODE(
                lambda t, y, u: y,
                {"gut": np.zeros(2)},
                lambda t, y, u: {"a": y["gut"][0]},
                doses=given,
            )

    def test_not_doses(self, unchecked):
        with pytest.raises(ModelError, match="doses must be what"):
            bd.ODE(lambda t, y, u: y, {"blood": 0.0}, doses=5.0)

    @pytest.mark.thorough
    def test_lags_are_unknown_numbers_of_the_model(self):
        lag = bd.population(dist.LogNormal(0.0, 0.5), 0.3)
        share = bd.shared(dist.Uniform(0, 1), "share")
        read = bd.dosing.doses(table(PLAIN), INTO, subject="id", lag={"gut": lag}, bioavailability={"gut": share},
                        duration={"gut": 2.0})  # fmt: skip
        one = bd.ODE(Oral(1.0, bd.between(0.1, 1.0)), {"gut": 0.0, "blood": 0.0}, doses=read)
        model = bd.Model(bd.Each(one, read.members), {"blood": bd.NormalNoise(0.1)})
        found = paths(model)
        assert found["layer.layer.doses.lag.gut"].dims == {"subject": (1.0, 2.0, 3.0, 4.0, 5.0)}
        assert "share" in found and "lag" in str(bd.describe(model))


GOOD = """id,time,amt,cmt,evid,rate,dur,addl,ii,ss
1,0,100,1,1,0,0,0,0,0
1,4,.,.,0,.,.,.,.,.
2,0,100,2,1,0,0,3,8,1
"""


def changed(row, into=INTO, **options):
    """Another first row."""
    text = "\n".join([GOOD.splitlines()[0], row, *GOOD.splitlines()[2:]])
    return lambda: bd.dosing.doses(table(text), into, **({"subject": "id"} | options))


def frame(text, into=INTO, **options):
    return lambda: bd.dosing.doses(table(text), into, **options)


BAD = {
    "an unknown compartment": (
        changed("1,0,100,3,1,0,0,0,0,0"),
        "the dose in row 0 goes to the compartment 3",
    ),
    "no compartment": (
        changed("1,0,100,,1,0,0,0,0,0"),
        "the dose in row 0 goes to the compartment nan",
    ),
    "no column of compartments": (frame("time,amt\n0,1\n"), "no column 'cmt'"),
    "no column of amounts": (frame("time,cmt\n0,1\n"), "no column 'amt' for amounts"),
    "no dose": (frame("time,amt,cmt\n0,0,1\n"), "the table has no dose"),
    "a missing amount": (changed("1,0,,1,1,0,0,0,0,0"), "in row 0 amt is missing"),
    "a negative amount": (changed("1,0,-5,1,1,0,0,0,0,0"), "in row 0 amt is negative"),
    "an amount of zero": (changed("1,0,0,1,1,0,0,0,0,0"), "in row 0 amt is 0"),
    "text as amount": (
        changed("1,0,much,1,1,0,0,0,0,0"),
        "'amt' is 'much' in row 0, which is no number",
    ),
    "an amount that is no dose": (
        changed("1,0,100,1,0,0,0,0,0,0"),
        "amt is 100 in row 0, but evid 0",
    ),
    "an unknown event": (changed("1,0,100,1,7,0,0,0,0,0"), "evid is 7 in row 0"),
    "repeats without interval": (
        changed("1,0,100,1,1,0,0,2,0,0"),
        "in row 0 addl is given, but the interval",
    ),
    "half a repeat": (changed("1,0,100,1,1,0,0,0.5,8,0"), "in row 0 addl is no whole number"),
    "negative repeats": (changed("1,0,100,1,1,0,0,-1,8,0"), "in row 0 addl is no whole number"),
    "a negative interval": (changed("1,0,100,1,1,0,0,0,-8,0"), "in row 0 ii is negative"),
    "a steady state without interval": (
        changed("1,0,100,1,1,0,0,0,0,1"),
        "in row 0 ss is given, but the interval",
    ),
    "an unknown steady state": (changed("1,0,100,1,1,0,0,0,8,3"), "in row 0 ss is neither"),
    "a long infusion at a steady state": (
        changed("1,0,100,1,1,0,9,0,8,1"),
        "lasts longer than the interval",
    ),
    "a negative rate": (changed("1,0,100,1,1,-5,0,0,0,0"), "in row 0 rate is negative"),
    "a negative duration": (changed("1,0,100,1,1,0,-5,0,0,0"), "in row 0 dur is negative"),
    "rate and duration": (changed("1,0,100,1,1,5,5,0,0,0"), "in row 0 rate and dur are both given"),
    "an endless infusion that repeats": (changed("1,0,0,1,1,5,0,2,0,1"), "in row 0 addl"),
    "an unknown duration": (
        changed("1,0,100,1,1,-2,0,0,0,0"),
        "the duration of doses into 'gut' is unknown",
    ),
    "a missing time": (changed("1,,100,1,1,0,0,0,0,0"), "the time in 'time' is missing in row 0"),
    "times that fall": (
        changed("1,9,100,1,1,0,0,0,0,0"),
        "time falls from 9.0 in row 0 to 4.0 in row 1",
    ),
    "dates": (frame("time,amt\n2004-02-29,1\n", "gut"), "the times of doses in 'time' are dates"),
    "no subject": (changed(",0,100,1,1,0,0,0,0,0"), "the subject in 'id' is missing in row 0"),
    "a lag of another state": (
        frame("time,amt\n0,1\n", "gut", lag={"blood": 1.0}),
        "lag is given for 'blood'",
    ),
    "a lag that is no number": (
        frame("time,amt\n0,1\n", "gut", lag={"gut": "1"}),
        "lag.'gut'. must be a number",
    ),
    "units that cannot be converted": (
        frame("time,amt\n0,1\n", "gut", units={"amt": "mg"}, to={"amt": "L"}),
        "'amt' is in 'mg', which cannot be converted to 'L'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables(kind):
    call, message = BAD[kind]
    with pytest.raises(BayesDaslError, match=message) as caught:
        call()
    assert isinstance(caught.value, (DataError, ModelError))


def test_columns_in_any_case_words_as_compartments_and_units():
    pytest.importorskip("pint")
    text = "ID,TIME,AMT,CMT,RATE,ADDL,II\nBo,0,1,gut,0,1,12\nBo,60,2,blood,4,0,0\nAnn,30,3,blood,0,0,0\n"
    read = bd.dosing.doses(
        table(text),
        INTO,
        subject="id",
        units={"time": "min", "amt": "g"},
        to={"time": "hour", "amt": "mg"},
    )
    gut, blood = read.given
    assert (gut.into, blood.into) == INTO and read.members == ("Ann", "Bo")
    np.testing.assert_allclose(gut.time.one[1], [0.0, 0.2])
    np.testing.assert_allclose(blood.rate.one[1], [4000.0 * 60])
    np.testing.assert_allclose(blood.amount.one[0], [3000.0])
    # A plan for some of them alone is of the same people.
    assert bd.dosing.doses(table("id,time,amt\nBo,0,1\n"), "gut", subject="id").members == ("Bo",)


def test_one_dict_of_names_and_one_of_units_serve_data_and_doses():
    """Columns that a table of doses lacks, or that only data read, may have names and units too."""
    pytest.importorskip("pint")
    text = "who,clock,given (g),DV\n1,0,2,\n1,30,,5\n2,0,3,\n2,60,,4\n"
    names = {"clock": "time", "given": "amt", "DV": "conc", "absent": "x"}
    units = {"time": "min", "conc": "mg/L"}
    to = {"time": "hour", "amt": "mg"}
    absent = {"weight": "kg"}
    read = bd.dosing.doses(
        table(text), "gut", subject="who", names=names, units=units | absent, to=to
    )
    np.testing.assert_array_equal(read.given[0].amount.one[:, 0], [2000.0, 3000.0])
    found = bd.from_table(table(text), "DV", subject="who", names=names, units=units)
    np.testing.assert_array_equal(found["time"], [30.0, 60.0])
    assert found["conc"].attrs["units"] == "mg/L"


def test_they_are_shown_in_a_line():
    given = bd.dosing.doses(table(PLAIN), INTO, subject="id", duration={"gut": 2.5})
    assert repr(given) == "<doses of 5 subjects into gut, blood, from time 0 on>"
    assert (
        repr(bd.dosing.doses(table("time,amt\n1,5\n"), "gut"))
        == "<doses of one subject into gut, from time 1 on>"
    )


def test_parquet_is_read_as_the_same_table_in_csv(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "doses.csv").write_text(PLAIN, encoding="utf-8")
    table(PLAIN).to_parquet(tmp_path / "doses.parquet")
    read, expected = (bd.dosing.doses(tmp_path / name, INTO, subject="id", duration={"gut": 2.5})
                      for name in ("doses.parquet", "doses.csv"))  # fmt: skip
    assert jax.tree.structure(read) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, read, expected)


def test_mdv_says_nothing_of_doses():
    text = "id,time,amt,cmt,mdv\n1,0,100,1,1\n1,2,0,1,0\n1,3,0,1,1\n1,4,50,2,0\n"
    read, expected = (
        bd.dosing.doses(frame, INTO, subject="id")
        for frame in (table(text), table(text).drop(columns="mdv"))
    )
    jax.tree.map(np.testing.assert_array_equal, read, expected)
    np.testing.assert_array_equal(
        [float(given.amount.one[0, 0]) for given in read.given], [100.0, 50.0]
    )


def test_theophylline(shared_file):
    file = shared_file("data/pk/theo_sd.csv")
    read = bd.dosing.doses(file, "gut", subject="ID")
    (given,) = read.given
    assert read.start == 0.0 and len(read.members) == 12
    assert float(given.amount.one[0, 0]) == pytest.approx(319.992)
    warfarin = bd.dosing.doses(shared_file("data/pk/nlmixr2_warfarin.csv"), "gut", subject="id")
    assert len(warfarin.members) == 32 and warfarin.given[0].time.one.shape == (32, 1)
