"""Numbers of groups of members: nested, crossed, described, fitted, and of members that the fit has
not seen.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer.util import log_density

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths, realise
from tests.test_hierarchies import assert_the_same, by_hand

SUBJECTS, TIMES = np.arange(8.0), np.array([0.5, 1.0, 2.0, 4.0])
SITES = np.array(["b", "a", "a", "c", "b", "c", "c", "d"])
COUNTRIES = np.array([2, 1, 1, 2, 2, 2, 2, 1])  # a and d lie in the first, b and c in the second
WHERE, IN = (
    np.array([1, 0, 0, 2, 1, 2, 2, 3]),
    np.array([0, 1, 1, 0]),
)  # of each subject its site, of that its country


class Fall(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 4.0 * jnp.exp(-self.rate * t)}


def model(rate, members=SUBJECTS, noise=0.1):
    return bd.Model(bd.Each(bd.Algebraic(Fall(rate)), members), bd.NormalNoise(noise))


def of_sites(sites=SITES):
    return bd.population(bd.between(0.1, 1.0), dist.HalfNormal(0.5), by={"site": sites})


def nested(sites=SITES, countries=COUNTRIES):
    """Subjects within sites within countries."""
    country = bd.population(
        dist.LogNormal(-1.0, 0.5), dist.HalfNormal(0.3), by={"country": countries}
    )
    site = bd.population(country, dist.HalfNormal(0.4), by={"site": sites})
    return bd.population(site, dist.HalfNormal(0.5))


def data():
    rng = np.random.default_rng(1)
    country = np.exp(-1.0 + 0.3 * rng.normal(size=2))
    rate = (country[IN] * np.exp(0.4 * rng.normal(size=4)))[WHERE] * np.exp(
        0.2 * rng.normal(size=8)
    )
    values = 4 * np.exp(-np.outer(TIMES, rate)) + 0.1 * rng.normal(size=(4, 8))
    return xr.Dataset({"y": (("time", "subject"), values)}, {"time": TIMES, "subject": SUBJECTS})


def nested_by_hand():
    typical, between = (
        numpyro.sample("typical", dist.LogNormal(-1.0, 0.5)),
        numpyro.sample("s3", dist.HalfNormal(0.3)),
    )
    country = numpyro.sample(
        "country", dist.LogNormal(jnp.log(typical), between).expand((2,)).to_event(1)
    )
    of_site = dist.LogNormal(jnp.log(country[IN]), numpyro.sample("s2", dist.HalfNormal(0.4)))
    site = numpyro.sample("site", of_site.to_event(1))
    own = dist.LogNormal(jnp.log(site[WHERE]), numpyro.sample("s1", dist.HalfNormal(0.5)))
    rate = numpyro.sample("rate", own.to_event(1))
    numpyro.sample(
        "y", dist.Normal(4 * jnp.exp(-jnp.outer(TIMES, rate)), 0.1), obs=data()["y"].values
    )


NAMES = {
    "rate.center.site.center.country.center": "typical",
    "rate.center.site.center.country.spread": "s3",
    "rate.center.site.center.country": "country",
    "rate.center.site.spread": "s2",
    "rate.center.site": "site",
    "rate.spread": "s1",
    "rate": "rate",
}


class TestNested:
    @pytest.mark.thorough
    def test_the_density_is_that_of_the_hierarchy(self):
        problem = pose(model(nested()), data())
        x = problem.prior(1, key=jax.random.key(0))[0]
        ours = problem.constrain(x)
        theirs = {other: ours[f"layer.layer.function.{name}"] for name, other in NAMES.items()}
        from_us, _ = log_density(
            numpyro.handlers.substitute(problem.model, data=ours), (data(),), {}, {}
        )
        by_theirs, _ = log_density(
            numpyro.handlers.substitute(nested_by_hand, data=theirs), (), {}, {}
        )
        assert float(from_us) == pytest.approx(float(by_theirs), rel=1e-6)

    def test_groups_are_dimensions_and_non_centred(self):
        each = model(nested())
        found = {
            path.removeprefix("layer.layer.function."): leaf for path, leaf in paths(each).items()
        }
        assert list(found) == list(NAMES)
        shown = {name: dict(leaf.dims) for name, leaf in found.items() if leaf.dims}
        assert shown == {
            "rate.center.site.center.country": {"country": (1, 2)},
            "rate.center.site": {"site": ("a", "b", "c", "d")},
            "rate": {"subject": tuple(SUBJECTS)},
        }
        sites = pose(each, data()).sites
        assert all(
            sites[leaf.path].standardised is not None for leaf in found.values() if leaf.dims
        )
        assert "by_site(" in str(bd.describe(each))

    def test_a_number_of_a_site_stands_at_each_of_its_members(self):
        each = model(bd.shared(of_sites(), "rate"))
        assert [(path, dict(leaf.dims)) for path, leaf in paths(each).items()][2:] == [
            ("rate", {"site": ("a", "b", "c", "d")})
        ]
        values = {
            "rate.center": jnp.ones(()),
            "rate.spread": jnp.ones(()),
            "rate": jnp.asarray([0.1, 0.2, 0.3, 0.4]),
        }
        some = data().sel(subject=[7.0, 0.0])
        predicted = jax.jit(lambda v: realise(each, v).predict(each.inputs(some)))(values).values[
            "y"
        ]
        np.testing.assert_allclose(predicted[1], 4 * np.exp([-0.4, -0.2]), rtol=1e-6)

    def test_covariates_of_groups(self):
        beds = np.array([2.0, 1.0, 1.0, 3.0, 2.0, 3.0, 3.0, 4.0])
        slope = bd.shared(dist.Normal(), "slope")
        each = model(bd.population(0.3, 0.1, effect=slope * bd.varying(beds), by={"site": SITES}))
        leaf = paths(each)["layer.layer.function.rate.site"]
        given = leaf.given({"slope": jnp.asarray(0.5)})
        np.testing.assert_allclose(given.loc, np.log(0.3) + 0.5 * np.array([1.0, 2.0, 3.0, 4.0]))

    def test_noise_of_groups(self):
        each = model(
            nested(),
            noise=bd.population(
                dist.LogNormal(-2.0, 0.5), dist.HalfNormal(0.3), by={"site": SITES}
            ),
        )
        assert dict(paths(each)["noise.scale.site"].dims) == {"site": ("a", "b", "c", "d")}


def test_crossed():
    """What subjects of one site have in common times what those of one country have."""
    other = bd.population(1.0, dist.HalfNormal(0.3), by={"country": np.array([1, 2] * 4)})
    each = model(of_sites() * other)
    values = {path: jnp.ones(leaf.shape) for path, leaf in paths(each).items()}
    (site,) = (path for path, leaf in paths(each).items() if "site" in leaf.dims)
    (country,) = (path for path, leaf in paths(each).items() if "country" in leaf.dims)
    values |= {site: jnp.asarray([0.1, 0.2, 0.3, 0.4]), country: jnp.asarray([1.0, 2.0])}
    found = realise(each, values).layer.layer.function.rate
    np.testing.assert_allclose(found, [0.2, 0.2, 0.1, 0.6, 0.2, 0.6, 0.3, 0.8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model(nested(countries=np.arange(8))), "values of 'country', which differ within "
            "site a"),
        (lambda: model(of_sites(SITES[:5])), "8 members, but 5 values of 'site'"),
        (lambda: bd.population(bd.between(1, 2), 0.1, by=SITES), "by must say what groups are"),
        (lambda: of_sites(np.array([1.0, np.nan])), "a number or name for each member"),
        (lambda: bd.varying(np.ones(8), by={"site": SITES}), "known numbers are those of each"),
        (lambda: model(bd.population(bd.population(0.3, dist.HalfNormal()), 0.1, by={"site": SITES})),
         "cannot depend on one of each member"),
        (lambda: model(bd.population(0.3, dist.HalfNormal(), by={"subject": SITES})), "cannot be "
            "called 'subject'"),
        (lambda: model(of_sites() * of_sites(np.where(SITES == "a", "x", "y"))), "'site' are"),
    ],
)  # fmt: skip
def test_refusals(make, message, unchecked):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.fixture(scope="module")
def post():
    return bd.fit(model(nested()), data(), bd.NUTS(chains=2, warmup=200, draws=200), progress=False)


class TestFit:
    @pytest.mark.thorough
    def test_draws_have_the_dimensions_of_the_groups(self, post):
        held = post["posterior"]
        assert held["rate.center.site"].dims == ("chain", "draw", "site")
        assert held["rate.center.site.center.country"].dims == ("chain", "draw", "country")
        assert held["site"].values.tolist() == ["a", "b", "c", "d"]
        shrunk = bd.sensitivity.shrinkage(model(nested()), post)
        assert set(shrunk.data_vars) == {
            "rate",
            "rate.center.site",
            "rate.center.site.center.country",
        }

    @pytest.mark.thorough
    def test_new_members_of_a_known_site_and_of_a_new_one(self, post):
        others = model(
            nested(np.array(["c", "e", "b"]), np.array([2, 2, 2])), members=[3.0, 100.0, 101.0]
        )
        drawn = bd.forecast(others, post, TIMES)["posterior"]
        held = post["posterior"]
        site = held["rate.center.site"]
        np.testing.assert_array_equal(drawn["rate"].sel(subject=3.0), held["rate"].sel(subject=3.0))
        np.testing.assert_array_equal(
            drawn["rate.center.site"].sel(site=["b", "c"]), site.sel(site=["b", "c"])
        )
        country = held["rate.center.site.center.country"].sel(country=2)
        for new, middle, spread in (
            (drawn["rate.center.site"].sel(site="e"), country, held["rate.center.site.spread"]),
            (
                drawn["rate"].sel(subject=100.0),
                drawn["rate.center.site"].sel(site="e"),
                held["rate.spread"],
            ),
            (drawn["rate"].sel(subject=101.0), site.sel(site="b"), held["rate.spread"]),
        ):
            z = (np.log(new) - np.log(middle)) / spread
            error = 1 / np.sqrt(z.size)
            assert abs(float(z.mean())) < 4 * error and abs(
                float(z.std()) - 1
            ) < 4 * error / np.sqrt(2)


@pytest.mark.slow
def test_the_posterior_is_that_of_the_hierarchy_by_hand():
    post = bd.fit(model(nested()), data(), bd.NUTS(draws=2000), progress=False)
    theirs = by_hand(nested_by_hand_non_centred)
    for ours, name in NAMES.items():
        assert_the_same(post["posterior"][ours].values, theirs[name])


def nested_by_hand_non_centred():
    typical, between = (
        numpyro.sample("typical", dist.LogNormal(-1.0, 0.5)),
        numpyro.sample("s3", dist.HalfNormal(0.3)),
    )
    s2, s1 = numpyro.sample("s2", dist.HalfNormal(0.4)), numpyro.sample("s1", dist.HalfNormal(0.5))
    z = [
        numpyro.sample(f"z{i}", dist.Normal().expand((size,)).to_event(1))
        for i, size in enumerate((2, 4, 8))
    ]
    country = numpyro.deterministic("country", typical * jnp.exp(between * z[0]))
    site = numpyro.deterministic("site", country[IN] * jnp.exp(s2 * z[1]))
    rate = numpyro.deterministic("rate", site[WHERE] * jnp.exp(s1 * z[2]))
    numpyro.sample(
        "y", dist.Normal(4 * jnp.exp(-jnp.outer(TIMES, rate)), 0.1), obs=data()["y"].values
    )
