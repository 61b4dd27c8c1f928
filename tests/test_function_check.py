"""Unknown functions that are too coarse for the data are said to be, and no others: finer families,
and the verdict.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from scipy.optimize import minimize

import bayes_dasl as bd
from bayes_dasl._statistics import Linear, Series
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.inference.linear_residuals import Around
from bayes_dasl.prediction import shortest_lengths
from bayes_dasl.unknown_functions.bases import RBF, BSpline, Fourier, HilbertGP, Polynomial, Product
from bayes_dasl.unknown_functions.lookup import function_names, unknown_functions
from bayes_dasl.updating import function_check
from bayes_dasl.updating.enriched import Enriched, Waves, finer_families
from bayes_dasl.verdict.residuals import share_beyond

X = np.linspace(0.0, 1.0, 200)
U = np.random.default_rng(0).uniform(-1.0, 1.0, 200)
GRID = np.linspace(0.0, 1.0, 200)
FAMILIES = {
    "splines": BSpline(0.0, 1.0, 6),
    "lines": BSpline(0.0, 1.0, 4, degree=1),
    "harmonics": Fourier(0.0, 1.0, 5),
    "a constant": Fourier(0.0, 1.0, 1),
    "polynomials": Polynomial(0.0, 1.0, 3),
    "a level": Polynomial(0.0, 1.0, 0),
    "process": HilbertGP(0.0, 1.0, 8, length=0.3, amplitude=2.0),
}


class Sum(bd.Module):
    """Two unknown functions, of time and of a forcing."""

    of_time: bd.Basis
    of_drive: bd.Basis

    def __call__(self, t, y, u):
        return {"y": self.of_time(t, y, u)["f"] + self.of_drive(t, y, u)["g"]}


def model(of_time: int, of_drive: int = 6) -> bd.Model:
    functions = (
        bd.Basis(BSpline(0.0, 1.0, of_time), "t", "f"),
        bd.Basis(BSpline(-1.0, 1.0, of_drive), "u", "g"),
    )
    return bd.Model(
        bd.Algebraic(Sum(*functions), forcings=("u",)), {"y": bd.NormalNoise(dist.HalfNormal(0.3))}
    )


def data(seed: int = 0) -> xr.Dataset:
    """A bump in time that six splines cannot be, and a parabola over the forcing."""
    values = (
        np.exp(-(((X - 0.4) / 0.04) ** 2))
        + U**2
        + 0.1 * np.random.default_rng(seed).normal(size=200)
    )
    return xr.Dataset({"y": ("time", values), "u": ("time", U)}, {"time": X})


def at_optimum(model: bd.Model, data: xr.Dataset) -> xr.DataTree:
    """A posterior of one draw, at the highest density."""
    problem = pose(model, data)
    downhill = jax.jit(jax.value_and_grad(lambda x: -problem.log_density(x)))
    both = lambda x: tuple(map(np.asarray, downhill(x)))  # noqa: E731
    best = minimize(
        both, np.full(problem.dimension, 0.1), jac=True, method="L-BFGS-B", options={"maxiter": 500}
    ).x
    values = problem.constrain(jnp.asarray(best))
    return posterior(model, data, {path: np.asarray(v)[None, None] for path, v in values.items()})


@functools.cache
def checked(of_time: int) -> xr.DataTree:
    return bd.updating.check_functions(model(of_time), at_optimum(model(of_time), data()))


def features(family) -> np.ndarray:
    return np.asarray(jax.jit(family.unscaled)(GRID))


class TestFinerFamilies:
    @pytest.mark.parametrize("kind", FAMILIES)
    def test_what_a_family_says_a_finer_one_says_too(self, kind):
        family = FAMILIES[kind]
        (finer,) = family.finer(2)
        assert (
            type(finer) is type(family)
            and finer.size > family.size
            and finer.ranges == family.ranges
        )
        coarse, fine = features(family), features(finer)
        assert np.abs(fine @ np.linalg.lstsq(fine, coarse)[0] - coarse).max() < 1e-9
        assert family.finer(1)[0].size == family.size

    @pytest.mark.parametrize(
        ("kind", "waves"),
        [("splines", 3), ("harmonics", 3), ("polynomials", 2), ("process", 4), ("bumps", 3)],
    )
    def test_twice_as_fine_resolves_more(self, kind, waves):
        """Of waves that a family cannot be, a finer one misses far less."""
        family, wave = (
            (FAMILIES | {"bumps": RBF(0.0, 1.0, 6)})[kind],
            np.cos(2 * np.pi * waves * GRID),
        )

        def missed(family):
            known = features(family)
            return np.linalg.norm(known @ np.linalg.lstsq(known, wave)[0] - wave) / np.linalg.norm(
                wave
            )

        assert missed(family) > 0.5 and missed(family.finer(2)[0]) < 0.6 * missed(family)

    def test_a_process_has_half_the_length(self):
        (finer,) = HilbertGP(
            0.0, 1.0, 8, length=0.3, amplitude=2.0, kernel="matern32", boundary=1.4
        ).finer(2)
        assert (finer.length, finer.amplitude, finer.size, finer.kernel, finer.boundary) == (
            0.15,
            1,
            16,
            "matern32",
            1.4,
        )
        assert finer.said == "HilbertGP of size 16 and length 0.15"

    def test_each_input_of_a_product_is_made_finer_by_itself(self):
        finer = Product(FAMILIES["splines"], FAMILIES["harmonics"]).finer(2)
        assert [tuple(family.size for family in each.families) for each in finer] == [
            (9, 5),
            (6, 9),
        ]
        assert finer[0].said == "Product of sizes 9 × 5"

    def test_what_names_no_finer_family_gets_waves_as_long_as_its_inputs_are_wide(self):
        network = bd.Network.mlp({"a": (1.0, 2.0), "b": (0.0, 0.5)}, ("c", "d"))
        waves = finer_families(network)
        assert [each.lengths for each in waves] == [(2.0, 0.5), (1.0, 0.25), (0.5, 0.125)]
        assert all(each.middles == (1.0, 0.0) for each in waves)

    def test_waves_are_a_process(self):
        """Sums of their products are the kernel, within the error of so many waves."""
        a, b = np.random.default_rng(1).normal(size=(2, 30))
        features = Waves((1.0, 0.0), (2.0, 0.5), 20_000)(a, b)
        distance = ((a[:, None] - a) / 2) ** 2 + ((b[:, None] - b) / 0.5) ** 2
        np.testing.assert_allclose(
            features @ features.T, np.exp(-distance / 2), atol=4 / np.sqrt(20_000)
        )


class TestEnriched:
    @pytest.mark.thorough("False")
    @pytest.mark.parametrize("positive", [False, True])
    def test_features_stand_beside_a_basis_or_in_its_exponential(self, positive):
        basis = bd.Basis(
            BSpline(0.0, 1.0, 5), "t", "f", np.arange(5.0), level=2.0, scale=0.5, positive=positive
        )
        finer = (BSpline(0.0, 1.0, 8), BSpline(0.0, 1.0, 14))
        beside = lambda c: Enriched(basis, finer, (c[None, :8], c[None, 8:]))(GRID, {}, {})["f"]  # noqa: E731
        own = basis(GRID, {}, {})["f"]
        np.testing.assert_array_equal(beside(jnp.zeros(22)), own)
        features = jnp.concatenate([family(GRID) for family in finer], axis=1)
        factor = own[:, None] - 2.0 if positive else 1.0
        np.testing.assert_allclose(jax.jacfwd(beside)(jnp.zeros(22)), factor * features, atol=1e-12)

    def test_each_output_of_a_network_has_its_own(self):
        network = bd.random.realise(net := bd.Network.mlp({"t": (0.5, 0.3)}, ("f", "g"), width=3, depth=1),
                                    {p: jnp.ones(leaf.shape) for p, leaf in bd.random.paths(net).items()})  # fmt: skip
        waves = Waves((0.5,), (0.3,), 4)
        coefficients = jnp.stack([jnp.zeros(8), jnp.arange(8.0)])
        own, found = (
            network(GRID, {}, {}),
            Enriched(network, (waves,), (coefficients,))(GRID, {}, {}),
        )
        np.testing.assert_array_equal(found["f"], own["f"])
        np.testing.assert_allclose(found["g"] - own["g"], waves(GRID) @ np.arange(8.0), atol=1e-12)


class TestUnknownFunctions:
    def test_one_that_is_shared_is_one(self):
        both = bd.shared(bd.Basis(BSpline(0.0, 1.0, 6), "t", "f"), "both")

        class Twice(bd.Module):
            one: bd.Basis
            two: bd.Basis

            def __call__(self, t, y, u):
                return {"y": self.one(t, y, u)["f"] + self.two(1 - t, y, u)["f"]}

        ((places, _),) = unknown_functions(bd.Algebraic(Twice(both, both)))
        assert places == ("function.one", "function.two")

    def test_one_that_differs_between_members_is_left_out(self):
        own = bd.Basis(BSpline(0.0, 1.0, 6), "t", "y", level=bd.varying(dist.Normal(0.0, 1.0)))
        assert unknown_functions(bd.Each(bd.Algebraic(own), ["a", "b"])) == []

    def test_they_are_called_by_the_last_two_parts_of_their_paths(self):
        assert function_names(model(6).layer) == ["function.of_time", "function.of_drive"]

    def test_a_known_one_is_none(self):
        assert (
            unknown_functions(bd.Algebraic(bd.Basis(BSpline(0.0, 1.0, 4), "t", "y", np.zeros(4))))
            == []
        )


class TestCheck:
    def test_a_function_that_is_too_coarse_is_named_and_no_other(self):
        found = checked(6)["function_check"].to_dataset()
        assert found["coarse"].to_series().to_dict() == {
            "function.of_time": 1,
            "function.of_drive": 0,
        }
        first = found.sel(function="function.of_time")
        assert (
            first["gain"] > 5 and first["chance"] < 1e-4 and abs(float(first["near"]) - 0.4) < 0.1
        )
        assert str(first["finer"].values) in ("BSpline of size 9", "BSpline of size 15")

    def test_beside_a_coarse_one_a_fine_one_is_judged_with_that_mended(self):
        """Residuals that time explains are not also taken for those of the forcing."""
        found = checked(6)["function_check"].to_dataset().sel(function="function.of_drive")
        assert found["gain"] < 3 and found["chance"] > 0.01

    @pytest.mark.thorough
    def test_a_function_that_is_fine_enough_is_left_alone(self):
        found = checked(40)["function_check"].to_dataset()
        assert not found["coarse"].any() and found["gain"].max() < 2

    def test_the_posterior_is_not_changed(self):
        post = at_optimum(model(6), data())
        before = post.copy(deep=True)
        bd.updating.check_functions(model(6), post)
        assert post.identical(before) and "function_check" not in post.children

    def test_the_verdict_says_so(self, tmp_path):
        coarse = bd.diagnose(bd.load(bd.save(checked(6), tmp_path / "post.nc")))
        (said,) = [finding for finding in coarse.findings if finding.aspect == "model"]
        assert (said.level, said.subject) == ("warning", "unknown function function.of_time")
        assert "too coarse: BSpline of size" in said.message and "most near t = 0." in said.message

    @pytest.mark.thorough
    def test_the_verdict_says_that_functions_are_fine(self):
        (said,) = [
            finding for finding in bd.diagnose(checked(40)).findings if finding.aspect == "model"
        ]
        assert (said.level, said.subject) == ("good", "unknown functions")

    def test_what_was_not_looked_at_is_said(self):
        post = at_optimum(model(6), data())
        post.attrs["unknown_functions"] = json.dumps(function_names(model(6).layer))
        sentence = (
            "function.of_time, function.of_drive is fine enough was not looked at: "
            "bd.updating.check_functions does."
        )
        assert sentence in bd.diagnose(post).verdict
        post["function_check"] = checked(6)["function_check"]
        assert "check_functions" not in bd.diagnose(post).verdict

    def test_without_a_best_position_nothing_is_judged(self):
        post = checked(6).copy(deep=True)
        post["function_check"].attrs["settled"] = 0
        (said,) = [finding for finding in bd.diagnose(post).findings if finding.aspect == "model"]
        assert said.level == "warning" and said.message.startswith("not judged")

    def test_without_an_unknown_function_there_is_nothing_to_check(self):
        line = bd.Model(
            bd.Algebraic(lambda t, y, u: {"y": t}), bd.NormalNoise(dist.HalfNormal(1.0))
        )
        post = posterior(line, data()[["y"]], {"noise.scale": np.ones((1, 2))})
        with pytest.raises(ModelError, match="no function of this model can be checked"):
            bd.updating.check_functions(line, post)

    def test_the_posterior_of_another_model_is_refused(self):
        with pytest.raises(MismatchError, match="belongs to another model"):
            bd.updating.check_functions(model(8), checked(6))


class TestLengths:
    def process(self, **options) -> bd.Model:
        return bd.Model(
            bd.Algebraic(bd.Basis(HilbertGP(0.0, 2.0, 10, **options), "t", "y")),
            bd.NormalNoise(0.1),
        )

    def test_the_shortest_is_that_of_the_source(self):
        """1.75 times the boundary over the number of functions, in units of half the range; half of
        that for twice.
        """
        assert json.loads(shortest_lengths(self.process())) == {
            "length": [pytest.approx(1.75 * 1.5 * 1.0 / 10), 10]
        }
        assert json.loads(shortest_lengths(self.process(length=0.1))) == {}

    @pytest.mark.parametrize(("share", "found"), [(0.4, False), (0.6, True)])
    def test_draws_that_are_shorter_are_said_to_be(self, share, found):
        held = self.process()
        lengths = np.where(np.arange(100) < 100 * share, 0.2, 0.3)
        draws = {"layer.function.family.length": lengths[None], "layer.function.family.amplitude": np.ones((1, 100)),
                 "layer.function.weights": np.zeros((1, 100, 10))}  # fmt: skip
        post = posterior(held, data()[["y"]], draws)
        post.attrs["shortest_lengths"] = shortest_lengths(held)
        said = [
            finding
            for finding in bd.diagnose(post).findings
            if finding.subject == "shortness of length"
        ]
        assert bool(said) == found
        if said:
            assert (
                "60% of the draws lie below 0.263" in said[0].message
                and "a size of 14" in said[0].remedy
            )


class TestSerialCorrelation:
    """Residuals of a spline over time, linear in its weights, in closed form."""

    def lacking(
        self, residuals: np.ndarray, replicates: int = 100
    ) -> tuple[function_check.Test, list[np.ndarray]]:
        number = residuals.size
        at = np.linspace(0.0, 1.0, number)
        slopes, *finer = (
            3.0 * np.asarray(BSpline(0.0, 1.0, size).unscaled(at)) for size in (6, 9, 15)
        )
        noise = np.random.default_rng(9).normal(size=(replicates, number))
        linear = Linear(residuals, slopes, np.zeros(6), np.eye(6), noise)
        series = Series(np.arange(number) - 1, np.ones(number))
        return function_check._test(linear, series), finer

    def chance(self, test: function_check.Test, finer: list[np.ndarray]) -> float:
        gains = [test.gain(along) for along in finer]
        best = max(gains, key=lambda gain: gain.gain)
        return share_beyond(np.max([gain.replicates for gain in gains], axis=0), best.gain)

    def noise(self, seed: int, rho: float, number: int = 100) -> np.ndarray:
        values = np.random.default_rng(seed).normal(size=number)
        for i in range(1, number):
            values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * values[i]
        return values

    def test_it_is_not_taken_for_a_coarse_function(self):
        """Without it in the test,
        four of five such data sets were said to need a finer function.
        """
        tests = [self.lacking(self.noise(seed, 0.7)) for seed in range(6)]
        assert np.median([test.correlation for test, _ in tests]) == pytest.approx(0.6, abs=0.25)
        assert sum(self.chance(*each) < 0.01 for each in tests) <= 1
        white = [
            (test._replace(correlations=(0.0,), lacking=test.lacking[:1]), finer)
            for test, finer in tests
        ]
        assert (
            sum(self.chance(*each) < 1e-3 for each in white) == 0
        )  # replicates are as correlated as the data
        assert np.median([max(test.gain(a).gain for a in finer) for test, finer in white]) > 5

    def test_a_wave_that_a_function_misses_is_still_found(self):
        wave = 3.0 * np.sin(10 * np.pi * np.linspace(0.0, 1.0, 160))
        assert all(
            self.chance(*self.lacking(wave + self.noise(seed, 0.0, 160))) < 0.01
            for seed in range(1)
        )

    def test_independent_residuals_are_judged_as_such(self):
        test, _ = self.lacking(self.noise(1, 0.0))
        assert test.correlations == (0.0,) and test.correlation == 0.0

    def test_whitening_undoes_the_autoregression_also_over_gaps_and_series(self):
        before, steps = np.array([-1, 0, 1, -1, 3]), np.array([1.0, 1.0, 3.0, 1.0, 1.0])
        series, noise = Series(before, steps), np.random.default_rng(0).normal(size=(20_000, 5))
        values = series.correlated(noise, 0.8)
        np.testing.assert_allclose(series.whitened(values.T, 0.8).T, noise, atol=1e-12)
        expected = np.eye(5)
        for i, j, apart in ((0, 1, 1), (1, 2, 3), (0, 2, 4), (3, 4, 1)):
            expected[i, j] = expected[j, i] = 0.8**apart
        np.testing.assert_allclose(np.cov(values.T), expected, atol=4 * np.sqrt(2 / 20_000))
        assert series.log_volume(0.8) == pytest.approx(-0.5 * np.linalg.slogdet(expected)[1])

    def test_the_order_of_data_is_that_of_each_member(self):
        """Gaps are steps over what was not seen, and the first datum of a member has none before
        it.
        """
        level = bd.Basis(BSpline(0.0, 1.0, 4), "t", "y", level=bd.varying(dist.Normal(0.0, 1.0)))
        held = bd.Model(bd.Each(bd.Algebraic(level), [0, 1]), bd.NormalNoise(0.1))
        values = np.ones((4, 2))
        values[1, 0] = np.nan
        problem = pose(
            held,
            xr.Dataset(
                {"y": (("time", "subject"), values)}, {"time": [0.0, 1, 2, 3], "subject": [0, 1]}
            ),
        )
        series = Around(problem, lambda m, c: m, 0, np.zeros(problem.dimension)).series
        assert series.before.tolist() == [-1, -1, 1, 0, 2, 3, 4]
        assert series.steps.tolist() == [1, 1, 1, 2, 1, 1, 1]

    def test_the_verdict_says_so(self):
        post = checked(6).copy(deep=True)
        group = post["function_check"].to_dataset().assign_attrs(correlation=0.8)
        post["function_check"] = xr.DataTree(group.assign(coarse=0 * group["coarse"]))
        (said,) = [finding for finding in bd.diagnose(post).findings if finding.aspect == "model"]
        assert (said.level, said.subject) == ("warning", "unknown functions")
        assert said.message.startswith(
            "residuals are serially correlated (about 0.8 from one datum to the next)"
        )
        assert "bd.filtering.CorrelatedNoise" in said.remedy
