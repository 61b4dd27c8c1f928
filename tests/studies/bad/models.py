"""Models that are not well formed: priors, layers, noise, networks, hybrids, engines."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_dasl as bd

from .given import Decay, Decayed, closed, data, fit, model, rate


def three() -> dist.Distribution:
    return dist.LogNormal(np.zeros(3), 1.0)


def _network(inputs=("y",), outputs=("y",), **options):
    return bd.Network.mlp(inputs, outputs, width=3, depth=1, **options)


class Bound(bd.Module):
    """A class whose default is a prior."""

    rate: bd.Scalar = dist.LogNormal(-1.0, 0.5)

    def __call__(self, t, y, u):
        return {name: -self.rate * value for name, value in y.items()}


class Twice(bd.Module):
    one: Bound
    two: Bound

    def __call__(self, t, y, u):
        return {"y": self.one(t, y, u)["y"] + self.two(t, y, u)["y"]}


def _one_prior_twice():
    shared = rate()
    return model(Decay(shared), initial={"y": shared})


def _one_module_twice():
    part = Decay(rate())
    return model(Twice(part, part))


def _one_network_twice():
    network = _network()
    return model(
        bd.multiscale.Coupling({"a": network, "b": network}, (), {"a": ("y",), "b": ("z",)}),
        initial={"y": 1.0, "z": 1.0},
    )


def _one_noise_twice():
    noise = bd.NormalNoise(dist.HalfNormal(1.0))
    layer = bd.Algebraic(lambda t, y, u: {"a": t, "b": -t})
    return bd.Model(layer, {"a": noise, "b": noise})


def _the_default_of_a_class_twice() -> bool:
    from bayes_dasl.random import paths

    return len(paths(model(Twice(Bound(), Bound())))) == 2


def _one_known_number_twice() -> bool:
    known = jnp.asarray(0.3)
    return (
        model(Decay(known), noise=bd.NormalNoise(dist.HalfNormal(1.0)), initial={"y": known})
        is not None
    )


def _one_prior_of_weights() -> bool:
    """A function that returns one object for all arrays of a shape."""
    from bayes_dasl.random import paths

    each = dist.Normal(0.0, 1.0).expand((3,)).to_event(1)

    def prior(name, w):
        return each if w.shape == (3,) else dist.Normal(0.0, 1.0).expand(w.shape).to_event(w.ndim)

    network = bd.Network.mlp(("y",), ("y",), width=3, depth=2, prior=prior)
    return len(paths(model(network))) == 6


def _a_copy_is_no_second_place() -> bool:
    return (
        bool(jax.tree.map(lambda x: x, model()).layer is not None)
        and bd.check(model(), data()).level != "bad"
    )


def _kalman(**options):
    options = {"diffusion": {"y": 0.1}, "initial_sd": {}} | options
    return model(of=bd.filtering.Kalman, **options)


def _sde(**options):
    return model(of=bd.equations.SDE, **{"diffusion": {"y": 0.1}, "grid": (0.0, 5.0, 10)} | options)


def _shot(**options):
    options = {
        "knots": (2.0,),
        "segments": {"y": dist.LogNormal(np.zeros(1), 1.0)},
        "gap": 0.1,
    } | options
    return bd.Model(bd.equations.MultipleShooting(model().layer, **options), bd.NormalNoise(0.1))


CASES = {
    # priors
    "nothing random": lambda: fit(model(Decay(0.5))),
    "a discrete prior": lambda: model(Decay(dist.Poisson(2.0))),
    "a known number as a distribution": lambda: model(Decay(dist.Delta(0.5))),
    "a masked prior": lambda: model(Decay(rate().mask(False))),
    "a prior masked in part": lambda: closed(rate().mask(np.asarray(True))),
    "an improper prior": lambda: model(
        Decay(dist.ImproperUniform(dist.constraints.positive, (), ()))
    ),
    "a unit distribution": lambda: model(Decay(dist.Unit(0.0))),
    "a prior of a prior": lambda: model(Decay(dist.Normal(dist.Normal(0.0, 1.0), 1.0))),
    "a prior of a prior, by its rate": lambda: model(Decay(dist.Exponential(dist.HalfNormal(1.0)))),
    "a prior of a prior, unchecked": lambda: model(
        Decay(dist.Exponential(dist.HalfNormal(1.0), validate_args=False))
    ),
    "a prior of a negative scale": lambda: model(Decay(dist.Normal(0.0, -1.0))),
    "a prior whose ends are reversed": lambda: model(Decay(dist.Uniform(2.0, 1.0))),
    "a prior over three numbers": lambda: Decay(three()),
    "a prior over three numbers, unchecked": lambda: fit(
        model(initial={"y": three()}, observe=lambda t, y, u: {"y": y["y"]})
    ),
    "text for a number": lambda: Decay("fast"),
    "None for a number": lambda: Decay(None),
    "an array for a number": lambda: Decay(np.ones(2)),
    "a class of distributions for a number": lambda: Decay(dist.Normal),
    "a list for a number": lambda: Decay([1.0]),
    "a range reversed": lambda: bd.between(2.0, 1.0),
    "a range from zero": lambda: bd.between(0.0, 1.0),
    "a range of no width": lambda: bd.between(1.0, 1.0),
    "a range to infinity": lambda: bd.between(1.0, np.inf),
    "a range of text": lambda: bd.between("a", "b"),
    "a range with more mass than all": lambda: bd.between(1.0, 2.0, mass=1.5),
    # one object in two places
    "one prior in two places": _one_prior_twice,
    "one module in two places": _one_module_twice,
    "one network in two places": _one_network_twice,
    "one noise for two observables": _one_noise_twice,
    "the default of a class in two places": _the_default_of_a_class_twice,
    "one known number in two places": _one_known_number_twice,
    "one prior of two arrays of weights": _one_prior_of_weights,
    "a copy of a model": _a_copy_is_no_second_place,
    # noise
    "noise that is none": lambda: model(noise=0.1),
    "noise that is a class": lambda: model(noise=bd.NormalNoise),
    "noise of what is not predicted": lambda: model(noise={"z": bd.NormalNoise(0.1)}),
    "noise of nothing": lambda: fit(model(noise={})),
    "a normal prior of a scale": lambda: bd.NormalNoise(dist.Normal(0.0, 1.0)),
    "a scale that is negative": lambda: bd.NormalNoise(-0.1),
    "a scale that is zero": lambda: bd.LogNormalNoise(0.0),
    "a scale of three numbers": lambda: bd.NormalNoise(three()),
    "negative degrees of freedom": lambda: bd.StudentTNoise(0.1, -4.0),
    "degrees of freedom that may be negative": lambda: bd.StudentTNoise(0.1, dist.Normal(4.0, 3.0)),
    "a concentration that may be negative": lambda: bd.NegativeBinomialNoise(dist.Normal(4.0, 3.0)),
    "a typical scale that may be negative": lambda: bd.noise.VaryingScale(
        dist.Normal(0.0, 1.0), _network(("t",))
    ),
    "the head of a scale that is none": lambda: bd.noise.VaryingScale(0.1, 3.0),
    "a scale that varies under a filter": lambda: model(
        of=bd.filtering.Kalman,
        diffusion={"y": 0.1},
        initial_sd={},
        noise=bd.NormalNoise(bd.noise.VaryingScale(0.1, _network(("t",)))),
    ),
    "counts under a filter": lambda: fit(
        model(of=bd.filtering.Kalman, diffusion={"y": 0.1}, initial_sd={}, noise=bd.PoissonNoise()),
        data(y=np.ones(6)),
    ),
    # layers and solvers
    "a layer that is none": lambda: bd.Model(Decay(rate()), bd.NormalNoise(0.1)),
    "a layer that is a class": lambda: bd.Model(bd.ODE, bd.NormalNoise(0.1)),
    "a vector field that is none": lambda: model(3.0),
    "a vector field of two arguments": lambda: fit(
        model(lambda t, y: {"y": -y["y"]}, bd.NormalNoise(rate()))
    ),
    "a vector field that returns nothing": lambda: fit(
        model(lambda t, y, u: None, bd.NormalNoise(rate()))
    ),
    "rates of another state": lambda: fit(
        model(lambda t, y, u: {"x": y["y"]}, bd.NormalNoise(rate()))
    ),
    "rates of another shape": lambda: fit(
        model(lambda t, y, u: {"y": jnp.ones(2)}, bd.NormalNoise(rate()))
    ),
    "rates that are text": lambda: fit(
        model(lambda t, y, u: {"y": "fast"}, bd.NormalNoise(rate()))
    ),
    "an equation that asks for an unknown state": lambda: fit(
        model(lambda t, y, u: {"y": y["z"]}, bd.NormalNoise(rate()))
    ),
    "an equation that asks for an unknown forcing": lambda: fit(
        model(lambda t, y, u: {"y": u["z"]}, bd.NormalNoise(rate()))
    ),
    "an equation that decides by a value": lambda: fit(
        model(lambda t, y, u: {"y": -1.0 if y["y"] > 0 else 1.0}, bd.NormalNoise(rate()))
    ),
    "an equation that is never a number": lambda: bd.check(
        model(lambda t, y, u: {"y": jnp.log(-1.0 - y["y"] ** 2)}, bd.NormalNoise(rate())), data()
    ),
    "no state": lambda: model(initial={}),
    "initial states in a list": lambda: model(initial=[2.0]),
    "an initial state that is NaN": lambda: bd.check(model(initial={"y": np.nan}), data()),
    "observe that is none": lambda: model(observe={"z": 1}),
    "forcings that are no names": lambda: model(forcings=5),
    "an interpolation that is unknown": lambda: model(
        forcings=("u",), interpolation={"u": "quintic"}
    ),
    "an interpolation of no forcing": lambda: model(interpolation={"u": "step"}),
    "a solver that is unknown": lambda: model(solver="euler5"),
    "a solver of fixed steps": lambda: model(solver=diffrax.Euler()),
    "a solver that is a class": lambda: model(solver=diffrax.Tsit5),
    "a tolerance of zero": lambda: model(rtol=0.0),
    "a tolerance that is text": lambda: model(rtol="fine"),
    "half a step": lambda: model(max_steps=10.5),
    "a start that is random": lambda: model(start=dist.Normal(0.0, 1.0)),
    "a start that is text": lambda: model(start="now"),
    "a start that is NaN": lambda: model(start=np.nan),
    "a dose before the data": lambda: fit(model(jumps=bd.Jump(-1.0, {"y": 1.0}))),
    "a dose before the data, checked": lambda: bd.check(
        model(jumps=bd.Jump(-1.0, {"y": 1.0})), data()
    ),
    "a dose that may come before the data": lambda: bd.check(
        model(jumps=bd.Jump(dist.Normal(0.0, 1.0), {"y": 1.0})), data()
    ),
    "a dose of an unknown state": lambda: model(jumps=bd.Jump(1.0, {"z": 1.0})),
    "doses of another number than times": lambda: bd.Jump([1.0, 2.0], {"y": [1.0, 2.0, 3.0]}),
    "a dose at NaN": lambda: bd.Jump(np.nan, {"y": 1.0}),
    "a dose of nothing": lambda: bd.Jump(1.0, {}),
    "jumps that are none": lambda: model(jumps=5),
    "a knot after the data": lambda: fit(_shot(knots=(9.0,))),
    "a knot before the start": lambda: fit(_shot(knots=(-1.0,))),
    "knots that fall": lambda: _shot(knots=(2.0, 1.0)),
    "a gap of zero": lambda: _shot(gap=0.0),
    "a gap that is random": lambda: _shot(gap=dist.HalfNormal(1.0)),
    "segments of another number": lambda: _shot(segments={"y": three()}),
    "a grid that ends before the data": lambda: fit(_sde(grid=(0.0, 3.0, 6))),
    "a grid of no steps": lambda: _sde(grid=(0.0, 5.0, 0)),
    "diffusion of an unknown state": lambda: _sde(diffusion={"z": 0.1}),
    "no diffusion at all": lambda: _sde(diffusion={}),
    "a deviation of the start that is negative": lambda: _kalman(initial_sd={"y": -1.0}),
    "a deviation of the start that may be negative": lambda: _kalman(
        initial_sd={"y": dist.Normal(0.0, 1.0)}
    ),
    "a deviation of an unknown state": lambda: _kalman(initial_sd={"z": 1.0}),
    "a formula that returns a number": lambda: bd.Model(
        bd.Algebraic(lambda t, y, u: t), bd.NormalNoise(rate())
    ),
    "a grid of no cells": lambda: bd.pde.Grid(x=(0.0, 1.0, 0)),
    "a grid reversed": lambda: bd.pde.Grid(x=(1.0, 0.0, 8)),
    "a boundary-value problem on a point": lambda: bd.equations.BoundaryValue(
        lambda x, y, u: {"y": 0.0}, lambda a, b, u: {"y": 0.0}, {"y": 0.0}, domain=(1.0, 1.0)
    ),
    "a constraint that is none": lambda: bd.Model(
        model().layer, bd.NormalNoise(0.1), constraints={"mass": 3.0}
    ),
    "constraints in a list": lambda: bd.Model(
        model().layer, bd.NormalNoise(0.1), constraints=[lambda v, i: v["y"]]
    ),
    "a constraint named after a dimension": lambda: bd.Model(
        model().layer, bd.NormalNoise(0.1), constraints={"draw": lambda v, i: v["y"]}
    ),
    "an integral over nothing": lambda: bd.equations.integrate(lambda x: x, np.inf, 1.0),
    "an integral by half a node": lambda: bd.equations.integrate(lambda x: x, 0.0, 1.0, nodes=2.5),
    # networks and hybrids
    "a network with other inputs than names": lambda: bd.Network(
        eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), ("y",), ("y",)
    ),
    "a network with other outputs than names": lambda: bd.Network(
        eqx.nn.MLP(1, 2, 3, 1, key=jax.random.key(0)), ("y",), ("y",)
    ),
    "a network that is none": lambda: bd.Network(3.0, ("y",), ("y",)),
    "a network of one name": lambda: bd.Network.mlp("y", "y"),
    "a network that reads what is not there": lambda: fit(model(_network(("z",)))),
    "a network of an unknown layer": lambda: _network(random=("layers.9",)),
    "a network of negative scale": lambda: _network(scale=-1.0),
    "a network of a prior of another shape": lambda: _network(
        prior=lambda name, w: dist.Normal(0.0, 1.0)
    ),
    "a network of no width": lambda: bd.Network.mlp(("y",), ("y",), width=0, depth=1),
    "a network by a key of text": lambda: bd.Network.mlp(("y",), ("y",), key="a"),
    "an input with no width": lambda: _network({"y": (0.0, 0.0)}),
    "a correction of an unknown state": lambda: fit(
        model(bd.Residual(Decay(rate()), _network(outputs=("z",))))
    ),
    "a correction that is none": lambda: bd.Residual(Decay(rate()), 3.0),
    "a correction orthogonal to nothing random": lambda: bd.Residual(
        Decay(0.5), _network(), orthogonal=data()
    ),
    "models side by side that are one": lambda: bd.Parallel({"a": Decay(rate())}),
    "shares that do not sum to one": lambda: bd.Parallel(
        {"a": Decay(rate()), "b": Decay(rate())}, [0.5, 0.6]
    ),
    "a total of an unknown state": lambda: fit(
        model(bd.hybrid.Conserve(Decay(rate()), {"mass": {"z": 1.0, "y": 1.0}}))
    ),
    "a basis with two inputs": lambda: bd.Basis(bd.bases.BSpline(0.0, 1.0, 4), ("a", "b"), "y"),
    "a basis reversed": lambda: bd.bases.BSpline(1.0, 0.0, 4),
    "a link to an unknown part": lambda: bd.multiscale.Coupling(
        {"a": Decay(rate())}, bd.multiscale.Link("a.y", "b.x"), {"a": ("y",)}
    ),
    "a layer as a correction": lambda: bd.Residual(Decayed(rate()), closed().layer),
    "a layer as a vector field": lambda: fit(model(closed().layer)),
    # engines
    "an engine that is a class": lambda: fit(engine=bd.NUTS),
    "an engine that is a name": lambda: fit(engine="nuts"),
    "no draws": lambda: bd.NUTS(draws=0),
    "negative draws": lambda: bd.NUTS(draws=-5),
    "half a chain": lambda: bd.NUTS(chains=1.5),
    "a warm-up that is too short": lambda: bd.NUTS(warmup=3),
    "an acceptance of one": lambda: bd.NUTS(target_acceptance=1.0),
    "a start that is unknown": lambda: bd.NUTS(start="prior"),
    "a guide that is unknown": lambda: bd.engines.SVI("normal"),
    "few particles": lambda: bd.engines.SMC(particles=1),
    "an ensemble of none": lambda: bd.DeepEnsemble(members=0),
    "a descent of negative steps": lambda: bd.Descent(steps=-1),
    "a held-out share of all": lambda: bd.Descent(held_out=1.0),
    "uneven superchains": lambda: bd.engines.ManyChain(chains=100),
    "a device that is unknown": lambda: fit(device="tpu9"),
    "a check by a class": lambda: bd.check(model(), data(), bd.NUTS),
    "a check by a key of text": lambda: bd.check(closed(), data(), key="seven"),
}
