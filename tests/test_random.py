"""A distribution may stand wherever a number could: `sample`, `realise` and what is known of random
leaves.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings, strategies as st
from numpyro.handlers import seed, substitute, trace
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.priors import _sample, draw_prior
from bayes_dasl.random import is_random, paths, realise, sample

EXACT = 10 * np.sqrt(np.finfo(float).eps)


class Pair(bd.Module):
    left: Any
    right: Any


class Decay(bd.Module):
    rate: bd.Scalar = bd.field(units="1/h")
    floor: bd.Scalar = 0.0


class Shifted(dist.Distribution):
    """As a user may write one: it does not tell NumPyro of its fields."""

    support = dist.constraints.real

    def __init__(self, by):
        self.by = by
        super().__init__()

    def sample(self, key, sample_shape=()):
        return self.by + jax.random.normal(key, sample_shape)


NORMAL, VECTOR = dist.Normal(1.0, 2.0), dist.Gamma(2.0, 3.0).expand((3,)).to_event(1)
leaves = st.sampled_from([0.5, 2.0, NORMAL, VECTOR])
trees = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, min_size=1)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def grow(node):
    """The same tree, with a module in place of each tuple."""
    if isinstance(node, tuple):
        return Pair(*map(grow, node))
    if isinstance(node, dict):
        return {name: grow(child) for name, child in node.items()}
    return [grow(child) for child in node] if isinstance(node, list) else node


def flat(tree):
    return jax.tree.leaves(tree, is_leaf=is_random)


class TestRoundTrip:
    @pytest.mark.thorough
    @given(trees, st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_realise_undoes_what_sample_drew(self, tree, key):
        tree = {"root": grow(tree)}
        with trace() as sites, seed(rng_seed=key):
            sampled = sample(tree)
        draw = {name: site["value"] for name, site in sites.items()}
        assert list(draw) == list(paths(tree))
        realised = realise(tree, draw)
        assert jax.tree.structure(realised) == jax.tree.structure(sampled)
        for ours, theirs, before in zip(flat(realised), flat(sampled), flat(tree), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert not is_random(ours)
            assert is_random(before) or ours == before

    @given(trees)
    @settings(max_examples=30, deadline=None)
    def test_every_leaf_keeps_its_own_value(self, tree):
        tree = {"root": grow(tree)}
        values = {
            path: np.full(leaf.shape, float(i))
            for i, (path, leaf) in enumerate(paths(tree).items())
        }
        with substitute(data=values):
            sampled = sample(tree)
        random = [
            leaf
            for leaf, before in zip(flat(sampled), flat(tree), strict=True)
            if is_random(before)
        ]
        assert [float(np.mean(leaf)) for leaf in random] == list(range(len(values)))

    def test_realise_under_vmap(self):
        rates = jnp.asarray([1.0, 2.0])
        doubled = jax.vmap(lambda rate: 2 * realise(Decay(NORMAL), {"rate": rate}).rate)(rates)
        np.testing.assert_array_equal(doubled, 2 * rates)

    def test_a_draw_that_lacks_a_leaf_is_refused(self):
        with pytest.raises(MismatchError, match=r"no value for left.rate; it has rate"):
            realise(Pair(Decay(NORMAL), 1.0), {"rate": jnp.asarray(1.0)})


class TestPaths:
    def test_say_shape_units_and_owners(self):
        found = paths({"pair": Pair(Decay(NORMAL), [1.0, VECTOR])})
        assert list(found) == ["pair.left.rate", "pair.right.1"]
        rate, vector = found.values()
        assert (rate.shape, rate.units, rate.group, rate.owners) == (
            (),
            "1/h",
            "science",
            "dict/Pair/Decay",
        )
        assert (vector.shape, vector.units, vector.distribution) == ((3,), "", VECTOR)

    def test_of_a_tree_without_random_leaves(self):
        assert paths(Pair(1.0, "text")) == {}


class TestScalar:
    @pytest.mark.parametrize(
        "value", [1, 2.5, np.float64(1), np.int64(3), jnp.asarray(1.0), NORMAL]
    )
    def test_takes_one_number(self, value):
        assert Decay(value).rate is value

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.ones(2), r"Decay.rate must be a number .* not an array of shape \(2,\)"),
            (
                VECTOR,
                r"Decay.rate must be a distribution over one number, but this \w+ has shape \(3,\)",
            ),
            (dist.Normal(jnp.zeros(2), 1.0), r"has shape \(2,\)"),
        ],
    )
    def test_refuses_arrays(self, value, message):
        with pytest.raises(ModelError, match=message):
            Decay(value)

    def test_refuses_an_array_in_any_scalar_field(self):
        with pytest.raises(ModelError, match=r"Decay\.floor"):
            Decay(1.0, floor=np.ones(2))


class TestPriorDraws:
    draws = 4000

    def test_follow_their_distributions_independently(self):
        tree = Pair(dist.Normal(1.0, 2.0), [dist.Normal(1.0, 2.0), VECTOR])
        drawn = draw_prior(tree, self.draws, key=jax.random.key(1))
        assert {path: v.shape for path, v in drawn.items()} == {
            "left": (self.draws,),
            "right.0": (self.draws,),
            "right.1": (self.draws, 3),
        }
        columns = [drawn["left"], drawn["right.0"], *drawn["right.1"].T]
        laws = [stats.norm(1, 2)] * 2 + [stats.gamma(2, scale=1 / 3)] * 3
        assert (
            min(stats.kstest(x, law.cdf).pvalue for x, law in zip(columns, laws, strict=True))
            > 1e-3
        )
        correlation = np.corrcoef(columns) - np.eye(5)
        assert np.abs(correlation).max() < 4 / np.sqrt(self.draws)

    def test_a_wrong_spread_is_seen(self):
        drawn = draw_prior({"x": dist.Normal(1.0, 2.4)}, self.draws, key=jax.random.key(1))["x"]
        assert stats.kstest(drawn, stats.norm(1, 2).cdf).pvalue < 1e-3

    def test_the_key_decides(self):
        one, same, other = (
            draw_prior({"x": NORMAL}, 3, key=jax.random.key(k))["x"] for k in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, same)
        assert not np.any(np.asarray(one) == np.asarray(other))

    @pytest.mark.thorough
    def test_few_draws_are_the_first_of_many(self):
        """So that one program serves all numbers of draws, and none changes with how many others
        there are.
        """
        tree = {"x": dist.Normal(1.0, 2.0), "v": dist.Gamma(2.0, 1.0).expand([3]).to_event(1)}
        few, many = (draw_prior(tree, n, key=jax.random.key(0)) for n in (3, 600))
        assert {name: values.shape for name, values in few.items()} == {"x": (3,), "v": (3, 3)}
        for name, values in few.items():
            np.testing.assert_array_equal(values, many[name][:3])

    @pytest.mark.thorough
    def test_each_has_its_own_numbers_whatever_else_is_drawn(self):
        """Distributions of a kind are drawn together,
        and those that a user wrote each by itself.
        """
        every = [
            *(dist.Normal(m, s) for m, s in ((0.0, 1.0), (5.0, 0.1), (-2.0, 3.0))),
            *(dist.Gamma(a, 2.0).expand([2]).to_event(1) for a in (1.0, 30.0)),
            *(Shifted(by) for by in (0.0, 40.0)),
            *(Shifted(by).expand([2]).to_event(1) for by in (0.0, 40.0)),
        ]
        drawn = draw_prior(every, 5, key=jax.random.key(2))
        keys = jax.random.split(jax.random.key(2), len(every))
        for i, (key, distribution) in enumerate(zip(keys, every, strict=True)):
            alone = distribution.sample(key, (512,))[:5]
            np.testing.assert_allclose(drawn[str(i)], alone, rtol=1e-12)

    def test_the_same_distributions_are_compiled_once(self):
        draw_prior({"x": dist.Normal(0.1, 1.0)}, 3, key=jax.random.key(3))
        before = _sample._cache_size()
        draw_prior({"y": dist.Normal(0.1, 1.0)}, 7, key=jax.random.key(7))
        assert _sample._cache_size() == before

    def test_numbers_that_jax_traces(self):
        several = lambda m: [dist.Normal(m, 1.0), dist.Normal(m + 1.0, 1.0), dist.Normal(7.0, 1.0)]  # noqa: E731
        drawn = jax.jit(lambda m: draw_prior(several(m), 3, key=jax.random.key(0)))(2.0)
        for path, values in draw_prior(several(2.0), 3, key=jax.random.key(0)).items():
            np.testing.assert_allclose(drawn[path], values, rtol=1e-12)

    @pytest.mark.thorough
    def test_while_jax_traces(self):
        drawn = jax.jit(lambda key: draw_prior({"x": NORMAL, "y": VECTOR}, 3, key=key))(
            jax.random.key(0)
        )
        assert {name: values.shape for name, values in drawn.items()} == {"x": (3,), "y": (3, 3)}

    def test_of_nothing_random(self):
        assert draw_prior({"x": 1.0}, 3, key=jax.random.key(0)) == {}


class TestBetween:
    @given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6), st.floats(0.05, 0.999))
    @settings(deadline=None)
    def test_positive_range(self, low, ratio, mass):
        prior = bd.between(low, low * ratio, mass)
        law = stats.lognorm(float(prior.scale), scale=math.exp(float(prior.loc)))
        assert isinstance(prior, dist.LogNormal)
        np.testing.assert_allclose(
            law.cdf([low, low * ratio]), [(1 - mass) / 2, (1 + mass) / 2], atol=EXACT
        )

    @given(st.floats(-1e3, -1e-3), st.floats(1e-2, 1e3), st.floats(0.05, 0.999))
    @settings(deadline=None)
    def test_range_that_starts_below_zero(self, low, width, mass):
        prior = bd.between(low, low + width, mass)
        law = stats.norm(float(prior.loc), float(prior.scale))
        assert isinstance(prior, dist.Normal)
        np.testing.assert_allclose(
            law.cdf([low, low + width]), [(1 - mass) / 2, (1 + mass) / 2], atol=EXACT
        )

    def test_holds_95_percent_by_default(self):
        law = stats.norm(*(float(getattr(bd.between(-1.0, 3.0), p)) for p in ("loc", "scale")))
        assert law.cdf(3.0) - law.cdf(-1.0) == pytest.approx(0.95, abs=EXACT)

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((2.0, 1.0), "is no range"),
            ((1.0, 1.0), "is no range"),
            ((math.nan, 1.0), "is no range"),
            ((1.0, math.inf), "is no range"),
            ((1.0, 2.0, 1.0), "mass must lie between 0 and 1"),
            ((1.0, 2.0, 0.0), "mass must lie between 0 and 1"),
            ((0.0, 1.0), "starts at 0"),
        ],
    )
    def test_refuses(self, args, message):
        with pytest.raises(ModelError, match=message):
            bd.between(*args)
