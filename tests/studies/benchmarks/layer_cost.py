"""What a gradient of each layer costs against its solve, and what memory a long solve takes.

Run: `uv run python -m tests.studies.benchmarks.layer_cost`

The layers are those of the recovery suite, and its finite volumes also with the solver that the
docs advise. Each program takes 16 prior draws at once; the gradient is that of the log density in
all random leaves, in reverse and in forward mode. Times are medians of `--laps`. The memory is the
scratch space that the compiled gradient of a long ODE asks for, with the default adjoint. Two
tables in Markdown.
"""

import argparse
import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.layers import with_adjoint
from bayes_dasl.random import realise

from ..recovery.case import Case
from ..recovery.layers import LAYERS
from ..timing import lap_times

BATCH = 16
LENGTHS = (100, 400, 1600, 6400, 25600)


def median_ms(program, positions, laps: int) -> float:
    return 1e3 * float(np.median(lap_times(program, positions, laps)))


def costs(case, laps: int) -> tuple[int, float, float, float]:
    """Unknown numbers, and milliseconds of the solve, the reverse and the forward gradient, for 16
    draws.
    """
    problem = pose(case.model, case.data(0))
    positions = problem.prior(BATCH, key=jax.random.key(0))
    solve = jax.jit(jax.vmap(problem.log_density))
    reverse = jax.jit(jax.vmap(jax.value_and_grad(problem.log_density)))
    tangents = jax.jit(
        jax.vmap(jax.jacfwd(with_adjoint(problem, diffrax.ForwardMode()).log_density))
    )
    return problem.dimension, *(median_ms(p, positions, laps) for p in (solve, reverse, tangents))


class Oscillator(bd.Module):
    frequency: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": y["v"], "v": -(self.frequency**2) * y["x"]}


def memory(end: float, max_steps: int) -> tuple[int, int]:
    """Steps taken, and bytes of scratch space of the compiled gradient."""
    data = xr.Dataset({"x": ("time", [0.0])}, {"time": [end]})
    layer = bd.ODE(
        Oscillator(dist.LogNormal(0.0, 0.1)), {"x": 1.0, "v": 0.0}, lambda t, y, u: {"x": y["x"]}, start=0.0,
        max_steps=max_steps,
    )  # fmt: skip
    problem = pose(bd.Model(layer, bd.NormalNoise(1.0)), data)
    program = jax.jit(jax.grad(problem.log_density)).lower(jnp.zeros(1)).compile()
    known = realise(layer, {"vector_field.frequency": jnp.ones(())})
    return int(known(problem.inputs).stats["steps"]), int(
        program.memory_analysis().temp_size_in_bytes
    )


def with_chebyshev() -> list[Case]:
    """The cases of finite volumes with stabilised steps."""
    return [
        dataclasses.replace(
            case,
            name=f"{case.name}, Chebyshev(8)",
            model=eqx.tree_at(lambda model: model.layer.solver, case.model, bd.pde.Chebyshev(8)),
        )
        for case in LAYERS
        if "finite volume" in case.name
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.layer_cost", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--laps", type=int, default=9)
    parser.add_argument("--only", default="", help="layers whose name has this in it")
    asked = parser.parse_args()
    print("| layer | unknown | solve, ms | reverse | forward | the better one |")
    print("|---|---|---|---|---|---|")
    for case in (*LAYERS, *with_chebyshev()):
        if asked.only in case.name:
            unknown, solve, back, ahead = costs(case, asked.laps)
            print(f"| {case.name} | {unknown} | {solve:.2f} | {back / solve:.1f} | "
                f"{ahead / solve:.1f} | "
                  f"{min(back, ahead) / solve:.1f} |", flush=True)  # fmt: skip
    print("\n| steps | scratch memory, KiB |\n|---|---|")
    for end in LENGTHS:
        steps, size = memory(end / 4.0, 4 * end)
        print(f"| {steps} | {size / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    main()
