"""Whether every engine has the same posterior: differences of log density between points, ours, by
hand and Stan's.

Points are prior draws of high density. Log densities are in the unconstrained space with the
Jacobian and known up to a constant, hence the differences. They are compared at the suite's
tolerances, and at tight ones, where the solvers' errors vanish and what is left would be another
model.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import potential_energy, transform_fn

from bayes_dasl.inference import pose
from bayes_dasl.inference.sites import constrained
from bayes_dasl.priors import draw_prior

from . import stan_engine
from .cases import Case, load

CANDIDATES, POINTS = 256, 6
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def good_points(case: Case) -> list[dict[str, np.ndarray]]:
    """The prior draws of highest log density, path → value."""
    problem = pose(case.model, case.data)
    draws = draw_prior(case.model, CANDIDATES, key=jax.random.key(0))
    values = jax.jit(jax.vmap(lambda d: problem.log_density(problem.unconstrain(d))))(draws)
    best = np.argsort(-np.nan_to_num(np.asarray(values), nan=-np.inf, neginf=-1e300))[:POINTS]
    return [{path: np.asarray(v[i]) for path, v in draws.items()} for i in best]


def log_densities(case: Case, points: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Log density at each point by our model, the model by hand and Stan."""
    problem = pose(case.model, case.data)
    named = [{name: point[path] for name, path in case.parameters.items()} for point in points]
    trace = numpyro.handlers.trace(numpyro.handlers.seed(case.by_hand, 0)).get_trace()
    theirs = {name: biject_to(trace[name]["fn"].support) for name in case.parameters}
    inverse = {name: transform.inv for name, transform in theirs.items()}

    @jax.jit
    def own(point):
        """Our log density, with the volume of the peers' transforms in the place of ours."""
        position = problem.unconstrain(point)
        value = problem.log_density(position) - sum(
            constrained(problem.sites, position)[1].values()
        )
        places = ((theirs[name], point[path]) for name, path in case.parameters.items())
        return value + sum(jnp.sum(t.log_abs_det_jacobian(t.inv(y), y)) for t, y in places)

    by_hand = jax.jit(
        lambda point: -potential_energy(case.by_hand, (), {}, transform_fn(inverse, point))
    )
    plain = [{name: v.tolist() for name, v in point.items()} for point in named]
    return {
        "ours": np.array([float(own(point)) for point in points]),
        "by hand": np.array([float(by_hand(point)) for point in named]),
        "stan": np.array(stan_engine.density(centred(case), plain)),
    }


def centred(case: Case) -> Case:
    """The case with nothing left uncentred in Stan, whose log density would count the volume of
    that transform.
    """
    flags = {name: [0] * len(v) for name, v in case.stan_data.items() if name == "not_centred"}
    return dataclasses.replace(case, stan_data=dict(case.stan_data) | flags)


def check(name: str) -> bool:
    """Print the largest relative disagreement of one problem, and whether it is small at tight
    tolerances.
    """
    points = good_points(load(name))
    fine = True
    for label, tolerances in (("as run", {}), ("tight", TIGHT)):
        values = log_densities(load(name, **tolerances), points)
        steps = {engine: v[1:] - v[0] for engine, v in values.items()}
        size = np.maximum(np.abs(steps["ours"]), 1.0)
        worst = {
            e: float(np.max(np.abs(s - steps["ours"]) / size))
            for e, s in steps.items()
            if e != "ours"
        }
        fine &= label != "tight" or max(worst.values()) < 1e-5
        print(
            f"{name:16} {label:7} relative disagreement with ours: "
            + ", ".join(f"{e} {w:.1e}" for e, w in worst.items())
        )
    print(f"{name:16} {'the same posterior' if fine else 'NOT THE SAME POSTERIOR'}", flush=True)
    return fine
