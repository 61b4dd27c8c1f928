"""One object in two places would be two unknowns without a word, and what looks like that without
being it.
"""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.layers._priors import check_priors
from bayes_dasl.random import is_random, paths, realise

PRIOR = dist.LogNormal(0.0, 1.0)


class Part(bd.Module):
    rate: bd.Scalar
    level: bd.Scalar = dist.HalfNormal(1.0)

    def __call__(self, t, y, u):
        return {"y": self.level - self.rate * y["y"]}


class Given(eqx.Module):
    """A default of the constructor rather than of a field."""

    rate: dist.Distribution

    def __init__(self, rate=dist.HalfNormal(2.0)):  # noqa: B008
        self.rate = rate


class Two(bd.Module):
    one: object
    two: object


def fresh():
    return dist.LogNormal(0.0, 1.0)


def network():
    return bd.Network.mlp(("y",), ("y",), width=3, depth=1)


def refuse(tree, *said):
    with pytest.raises(ModelError) as caught:
        check_priors(tree)
    for words in said:
        assert words in str(caught.value)


def test_one_distribution_for_two_fields():
    refuse(Two(PRIOR, PRIOR), "'one' and 'two' are one distribution object", "write it twice")
    refuse(Two({"a": PRIOR}, (1.0, PRIOR)), "'one.a' and 'two.1'")


def test_the_largest_part_that_is_shared_is_named():
    part, net = Part(fresh(), fresh()), network()
    refuse(Two(part, part), "'one' and 'two' are one Part object")
    refuse(Two(net, net), "'one' and 'two' are one Network object")
    refuse(Two({"in": part}, Two(part, 1.0)), "'one.in' and 'two.one' are one Part object")
    refuse(
        Two(Part(PRIOR, fresh()), Part(PRIOR, fresh())),
        "'one.rate' and 'two.rate' are one distribution",
    )


def test_when_a_model_is_built_and_when_it_is_used():
    layer = bd.Algebraic(lambda t, y, u: {"y": t})
    with pytest.raises(ModelError, match="are one distribution object"):
        bd.Model(bd.ODE(Part(PRIOR, 1.0), {"y": PRIOR}), bd.NormalNoise(0.1))
    data = xr.Dataset({"y": ("time", np.ones(3))}, {"time": np.arange(3.0)})
    model = bd.Model(bd.ODE(Part(fresh(), 1.0), {"y": fresh()}), bd.NormalNoise(0.1))
    changed = jax.tree.map(lambda x: PRIOR if is_random(x) else x, model, is_leaf=is_random)
    assert "are one distribution object" in str(bd.check(changed, data))
    with pytest.raises(ModelError, match="are one distribution object"):
        bd.fit(changed, data)
    assert bd.Model(layer, bd.NormalNoise(PRIOR)) is not None


def test_defaults_that_nobody_wrote_are_unknowns_of_their_own():
    check_priors(Two(Part(fresh()), Part(fresh())))
    check_priors(Two(Given(), Given()))
    assert len(paths(Two(Part(fresh()), Part(fresh())))) == 4
    refuse(Two(Part(fresh()).level, Part(fresh())), "'one' and 'two.level'")


def test_known_numbers_may_be_shared():
    known = jnp.ones(3)
    check_priors(Two(Two(known, 0.5), Two(known, 0.5)))
    fixed = realise(Part(fresh(), fresh()), {"rate": jnp.ones(()), "level": jnp.ones(())})
    check_priors(Two(fixed, fixed))


def test_copies_and_stacks_are_objects_of_their_own():
    check_priors(Two(PRIOR, copy.copy(PRIOR)))
    check_priors(jax.tree.map(lambda x: x, Two(fresh(), fresh())))
    stacked = eqx.filter_vmap(lambda scale: dist.Normal(0.0, scale))(jnp.ones(3))
    check_priors(Two(stacked, fresh()))


def test_one_prior_of_several_arrays_of_a_network():
    each = dist.Normal(0.0, 1.0).expand((3,)).to_event(1)

    def prior(name, weight):
        return (
            each
            if weight.shape == (3,)
            else dist.Normal(0.0, 1.0).expand(weight.shape).to_event(weight.ndim)
        )

    net = bd.Network.mlp(("y",), ("y",), width=3, depth=2, prior=prior)
    check_priors(net)
    assert len(paths(net)) == 6


def test_hybrids_keep_their_science_once():
    data = xr.Dataset({"y": ("time", np.arange(1.0, 4.0))}, {"time": np.arange(3.0)})
    residual = bd.Residual(Part(fresh(), fresh()), network(), orthogonal=data)
    whole = bd.Parallel({"a": residual, "b": Part(fresh(), fresh())})
    check_priors(whole)
    check_priors(bd.multiscale.Coupling({"a": Part(fresh())}, (), {"a": ("y",)}, {"a": fresh()}))


@pytest.mark.parametrize(
    "prior",
    [
        dist.TruncatedNormal(1.0, 0.5, low=0.0),
        dist.TruncatedNormal(1.0, 0.5, low=0.0, high=2.0),
        dist.Dirichlet(jnp.ones(3)),
        dist.LKJ(3, 1.0),
        dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2), 1.0)),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()),
        dist.StudentT(2.0, 0.0, 1.0),
        dist.Uniform(jnp.zeros(2), jnp.ones(2)).to_event(1),
        dist.Normal(0.0, 1.0).expand((3,)).to_event(1),
        dist.HalfCauchy(1.0),
        dist.VonMises(0.0, 1.0),
        dist.Beta(0.5, 0.5),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_sound_priors_pass(prior):
    check_priors(Two(prior, 1.0))


def test_numbers_that_jax_traces_are_not_looked_at():
    def scale(sd):
        check_priors(Two(dist.Normal(0.0, sd), dist.Uniform(0.0, sd)))
        return bd.NormalNoise(dist.HalfNormal(sd)).scale.scale

    assert float(jax.jit(scale)(2.0)) == 2.0
