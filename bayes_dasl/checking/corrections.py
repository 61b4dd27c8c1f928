"""The effect of learned corrections on observables, under the prior."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._findings import Finding
from .._jax.trace import parted
from ..inference.problem import Problem
from ..layers._corrected import amplified, is_corrected
from ..prediction.predictive import Draws, map_over_draws
from ..random import realise

_DRAWS = 64
_BATCH = 16
# Smallest number of draws for a finding.
_FEW = 20
# A correction that one draw in twenty makes so many times as large as the science is too large.
_LARGE = 100.0
_TOO_LARGE = (
    "the correction may replace the science: give bd.corrected the ODE, whose units it then knows, "
    "or a smaller share="
)


def corrections(problem: Problem, draws: Draws) -> Iterator[Finding]:
    """Yield, for each observable, a finding on the effect of the corrections of a hybrid model.

    The effect is the relative change of the observable by the corrections, under the prior.

    Args:
        problem: the posterior.
        draws: prior draws, by path.
    """
    model = problem.model
    if not is_corrected(model.layer):
        return
    some = {path: np.asarray(v)[:_DRAWS] for path, v in draws.items()}

    def of(draw):
        # Predict with the corrections, and with corrections times 0. The change of each observable
        # is rms(with - without) / rms(without).
        realised = realise(model, draw)

        def scaled(factor):
            layer = amplified(realised.layer, factor)
            return eqx.tree_at(lambda m: m.layer, realised, layer).predict(problem.inputs)

        both = jax.vmap(scaled)(jnp.array([1.0, 0.0]))
        root = lambda v: jnp.sqrt(jnp.mean(v**2))  # noqa: E731
        pairs = [both.values[name] for name in model.observables]
        moved = jnp.stack([root(a - b) / root(b) for a, b in pairs])
        return jnp.where(both.ok.all(), moved, jnp.nan)

    one, held, _ = parted(of, {path: v[0] for path, v in some.items()})
    moved = np.asarray(map_over_draws(one, held, some, batch=_BATCH))
    for name, shares in zip(model.observables, moved.T, strict=True):
        known = shares[np.isfinite(shares)]
        if known.size < _FEW:
            continue
        middle, most = np.quantile(known, [0.5, 0.95])
        large = middle > 1 or most > _LARGE
        yield Finding(
            "warning" if large else "good",
            f"correction of {name}",
            f"under the prior it moves {name} by {middle:.2g} of what the science says in the "
            f"median draw, by {most:.2g} in one of twenty",
            _TOO_LARGE,
        )
