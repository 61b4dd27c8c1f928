"""Lynx and hare with a residual network of 22 weights in the growth rates: 30 unknown numbers.

Compared are the 8 science parameters and the 42 points of the two trajectories, not the weights,
which are not identified one by one.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_dasl as bd
from case_studies import lynx_hare

from . import Case, lynx_hare as plain, positive, solve

SCALE = 0.1
CLOSURE = f"{plain.FIELD}.closure.module.layers"
WEIGHTS = {  # name: (path, shape, standard deviation under the prior)
    "weight_1": (f"{CLOSURE}.0.weight", (4, 2), 2**-0.5),
    "bias_1": (f"{CLOSURE}.0.bias", (4,), 1.0),
    "weight_2": (f"{CLOSURE}.1.weight", (2, 4), 4**-0.5),
    "bias_2": (f"{CLOSURE}.1.bias", (2,), 1.0),
}
SCIENCE = {
    "birth": (0.2, 1.5),
    "predation": (0.005, 0.1),
    "death": (0.2, 1.5),
    "growth": (0.005, 0.1),
}
PARAMETERS = {
    name: path.replace(plain.FIELD, f"{plain.FIELD}.science")
    for name, path in plain.PARAMETERS.items()
} | {name: path for name, (path, _, _) in WEIGHTS.items()}


def medians(post) -> dict[str, np.ndarray]:
    """Predictions of our result: the median of each datum, from its mean exp(log z + s² / 2)."""
    mean, scales = post["conditional_mean"], post["posterior"]
    return {
        f"{name}_median": mean[name].values
        / np.exp(scales[f"{name}.scale"].values[..., None] ** 2 / 2)
        for name in ("hare", "lynx")
    }


def case(rtol: float, atol: float) -> Case:
    data = lynx_hare.load()
    pelts = np.stack([data["hare"].values, data["lynx"].values], 1)
    ranges = {name: bd.between(*limits) for name, limits in SCIENCE.items()}
    inputs = bd.standardise(data, "hare", "lynx")
    centre, width = np.array(list(inputs.values())).T
    first, times = np.log([30.0, 5.0]), np.arange(21.0)
    perceptron = eqx.nn.MLP(
        2, 2, width_size=4, depth=1, activation=jax.nn.tanh, key=jax.random.key(0)
    )
    closure = bd.Network(perceptron, inputs=inputs, outputs=("hare", "lynx"), scale=SCALE)
    layer = bd.ODE(
        bd.Residual(lynx_hare.LotkaVolterra(**ranges), closure, relative=True),
        {name: dist.LogNormal(m, 0.5) for name, m in zip(("hare", "lynx"), first, strict=True)},
        rtol=rtol,
        atol=atol,
    )
    model = bd.Model(
        layer, {name: bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)) for name in ("hare", "lynx")}
    )
    priors = {name: (float(p.loc), float(p.scale)) for name, p in ranges.items()}

    def rates(t, y, arguments):
        rate, weights = arguments
        hidden = jnp.tanh(weights["weight_1"] @ ((y - centre) / width) + weights["bias_1"])
        closure = SCALE * (weights["weight_2"] @ hidden + weights["bias_2"])
        science = jnp.stack([rate[0] - rate[1] * y[1], rate[3] * y[0] - rate[2]])
        return y * (science + closure)

    def by_hand():
        rate = jnp.stack(
            [numpyro.sample(name, dist.LogNormal(*prior)) for name, prior in priors.items()]
        )
        start = [
            numpyro.sample(f"{n}_start", dist.LogNormal(m, 0.5))
            for n, m in zip(data, first, strict=True)
        ]
        scale = [numpyro.sample(f"{name}_scale", dist.LogNormal(-1.0, 1.0)) for name in data]
        weights = {
            name: numpyro.sample(name, dist.Normal(0.0, sd).expand(shape).to_event(len(shape)))
            for name, (_, shape, sd) in WEIGHTS.items()
        }
        y = positive(solve(rates, jnp.stack(start), times, (rate, weights), rtol=rtol, atol=atol))
        for i, name in enumerate(("hare", "lynx")):
            numpyro.deterministic(f"{name}_median", y[:, i])
            numpyro.sample(name, dist.LogNormal(jnp.log(y[:, i]), scale[i]), obs=pelts[:, i])

    known = plain.stan_data(rtol, atol)
    known |= {"prior": list(priors.values()), "first": first.tolist(), "scale_of_closure": SCALE}
    known |= {"centre": centre.tolist(), "width": width.tolist()}
    return Case(
        name="hybrid",
        title="Lynx and hare with a residual network, 8 parameters and 22 weights",
        model=model,
        data=data,
        by_hand=by_hand,
        stan_data=known,
        parameters=PARAMETERS,
        weights=tuple(WEIGHTS),
        trajectories=medians,
        outputs=("hare_median", "lynx_median"),
    )
