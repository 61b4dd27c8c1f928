"""Whether the fine grid of the turbulence study resolves its least viscous flow: the same field on
twice as many cells.

Run: `uv run python -m tests.studies.turbulence_grid` (some four minutes)

It prints, for each time, how far apart the two flows are when cut to what the coarse grid
transports, as a share of the size of the vorticity.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr

import bayes_dasl as bd
from case_studies import turbulence
from case_studies.turbulence import BOX, COARSE, FINE, SPIN_UP, STEP, UNTIL, grid, layer

FLOW = turbulence.flows(0)["half the viscosity"]
_solve = eqx.filter_jit(lambda layer, given: layer(given).values["vorticity"])


def solved(cells: int, start, times) -> np.ndarray:
    """The flow on so many cells along each axis from a field on, `(time, x, y)`."""
    asked = bd.inputs(xr.Dataset(coords={"time": times}), start=0.0)
    return np.asarray(_solve(layer(FLOW, cells, jnp.asarray(start), tolerance=1e-5), asked))


def finer(field: np.ndarray) -> np.ndarray:
    """A field on twice as many cells, with the waves that it has, at the centres of these cells."""
    cells = len(field)
    waves = np.fft.fftfreq(cells, 1 / cells).astype(int)
    shift = np.exp(1j * waves * (BOX / (4 * cells) - BOX / (2 * cells)))
    found = np.zeros((2 * cells, 2 * cells), complex)
    found[np.ix_(waves, waves)] = np.fft.fft2(field) * np.outer(shift, shift)
    return 4 * np.fft.ifft2(found).real


def main() -> None:
    spun = solved(FINE, turbulence.still(FLOW), [SPIN_UP])[0]
    times, coarse = np.arange(STEP, UNTIL + STEP / 2, STEP), grid(COARSE)
    both = []
    for cells, start in ((FINE, spun), (2 * FINE, finer(spun))):
        every = solved(cells, start, times)
        both.append(
            np.stack(
                [bd.pde.truncated(coarse, bd.pde.coarsen(w, grid(cells), coarse)) for w in every]
            )
        )
    for time, one, two in zip(times, *both, strict=True):
        print(f"{time:.2f}: {np.sqrt(np.mean((one - two) ** 2)) / two.std():.4f}")


if __name__ == "__main__":
    main()
