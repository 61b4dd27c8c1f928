"""Forces between two atoms from how far gases are from ideal: argon and hydrogen, fitted warm and
forecast cold.

The second virial coefficient is an integral over the pair potential, with its first quantum
correction. Potentials of textbooks are fitted to what was measured of warm gases; the hybrid has
the attraction that theory knows, and corrects a wall that theory does not.
What matters is the cold end, where the well of the potential decides, and the well itself, which is
known.

Data: measured second virial coefficients with their errors, by the Combustion-Transport-Analysis
group, CC BY 4.0; pair energies of argon: K. T. Tang & J. P. Toennies, J. Chem. Phys. 118, 4976
(2003), in the RGC10 set of Psi4.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import UNSEEN, band, bars, finished, panels

FIELD = "molecular physics"
RUN_TIME = "7 min"
DATA = ("molecular/virial_allAr.txt",)

VOLUME = 2 * np.pi * 0.602214  # cm³/mol for each Å³
HARTREE, BOHR = 315775.02, 0.52917721  # K and Å
UNIT_R = 3.0  # Å
FAR = 9.0  # Å, beyond which the energy is small and smooth
PER_KELVIN = 503.2195  # K for each kcal/mol
UNIT = "1000/K"


@dataclasses.dataclass(frozen=True)
class Gas:
    """Where its data are, and what is thought of its atoms beforehand.

    `quantum` is ħ² / (24 · reduced mass · Boltzmann's constant) in K Å²; `nearest` a distance in Å
    that no pair comes to in these data, below which forms of potentials may fall again; `depth` and
    `size` of Lennard-Jones's well are in K and Å. It is fitted from `warm` K on, judged below
    `cold`. `dispersion` are the coefficients of attraction that theory has for it, C6, C8 and C10,
    in atomic units, `within` by which of their logarithms it knows them; `smeared` is as for
    `Virial`.
    """

    file: str
    quantum: float
    nearest: float
    warm: float
    cold: float
    depth: tuple[float, float]
    size: tuple[float, float]
    dispersion: tuple[float, float, float]
    smeared: bool = False
    within: tuple[float, float, float] = (0.02, 0.1, 0.2)


WIDER = (0.05, 0.3, 0.5)
"""By which the logarithms of C6, C8 and C10 are known where the latter two are by rules of thumb.
"""

GASES = {
    "argon": Gas(
        "molecular/virial_allAr.txt", 0.1012, 2.2, 250.0, 150.0, (65.0, 220.0), (2.8, 4.1), (64.3, 1623.0, 49060.0)
    ),
    "hydrogen": Gas(
        "molecular/virial_allH2.txt", 2.005, 1.8, 100.0, 60.0, (15.0, 75.0), (2.4, 3.5), (12.06, 220.0, 5300.0), True
    ),
    "nitrogen": Gas(
        "molecular/virial_allN2.txt", 0.1443, 2.4, 175.0, 105.0, (45.0, 150.0), (2.8, 4.3), (73.3, 1850.0, 57200.0),
        within=WIDER,
    ),
    "methane": Gas(
        "molecular/virial_allCH4.txt", 0.2520, 2.4, 260.0, 155.0, (70.0, 230.0), (2.8, 4.4), (129.6, 3270.0, 101100.0),
        within=WIDER,
    ),
}  # fmt: skip
"""The dispersion of argon: Tang & Toennies (2003), who have it from Kumar & Meath (1985); of
hydrogen, Meyer (1976). Of nitrogen and methane, which count as round here, C6 is that of Margoliash
& Meath (1978) and Thomas & Meath (1977), C8 has its ratio to C6 from argon, and C10 is 49/40 C8² /
C6 (Starkschall & Gordon 1972)."""


class LennardJones(bd.Module):
    r"""$U(r) = 4\epsilon\left((\sigma/r)^{12} - (\sigma/r)^6\right)$. Source: Jones (1924)."""

    depth: bd.Scalar = bd.field(units="K")
    size: bd.Scalar = bd.field(units="Å")

    def energy(self, r):
        ratio = (self.size / r) ** 6
        return 4 * (ratio**2 - ratio) * self.depth


class Morse(bd.Module):
    r"""$U(r) = \epsilon\left(e^{-2a(r - r_m)} - 2 e^{-a(r - r_m)}\right)$. Source: Morse (1929)."""

    depth: bd.Scalar = bd.field(units="K")
    minimum: bd.Scalar = bd.field(units="Å")
    steepness: bd.Scalar = bd.field(units="1/Å")

    def energy(self, r):
        fall: Any = jnp.exp(self.steepness * (self.minimum - r))
        return self.depth * (fall**2 - 2 * fall)


class TangToennies(bd.Module):
    r"""$U(r) = A e^{-br} - \sum_{n=3}^5 f_{2n}(br)\, C_{2n} / r^{2n}$, with damping $f$.

    The coefficients are those of r in units of 3 Å, so that they are all of one size, in K. Source:
    Tang & Toennies (1984).
    """

    wall: bd.Scalar = bd.field(units="K")
    steepness: bd.Scalar = bd.field(units="1/Å")
    c6: bd.Scalar = bd.field(units="K")
    c8: bd.Scalar = bd.field(units="K")
    c10: bd.Scalar = bd.field(units="K")

    def repulsion(self, r):
        fall: Any = jnp.exp(self.steepness * (UNIT_R - r))
        return self.wall * fall

    def attraction(self, r):
        x, shorter = self.steepness * r, UNIT_R / r
        each: dict[int, Any] = {6: self.c6, 8: self.c8, 10: self.c10}
        term: Any = jnp.exp(-x)
        damping, found = 1 - term, 0.0
        for power in range(1, 11):
            term = term * x / power
            damping = damping - term
            if power in each:
                found = found + damping * each[power] * shorter**power
        return found

    def energy(self, r):
        return self.repulsion(r) - self.attraction(r)


class Hybrid(bd.Module):
    r"""The attraction of theory, and a wall of which theory says only that it is about exponential.

    $U(r) = e^{g(r)} A e^{-br} - \sum_{n=3}^5 f_{2n}(br)\, C_{2n} / r^{2n}$, with an unknown
    function g.
    """

    science: TangToennies
    factor: bd.Basis

    def energy(self, r):
        factor = self.factor(0.0, {}, {"r": r})["factor"]
        return factor * self.science.repulsion(r) - self.science.attraction(r)


def _slope(function: Callable[[Any], Any], r: Any) -> tuple[Any, Any]:
    """What a function of one number is, and its slope, forward: a smaller program than backward."""
    return jax.jvp(function, (r,), (jnp.ones_like(r),))


class Virial(bd.Module):
    r"""The second virial coefficient with the first quantum correction of Wigner and Kirkwood, or,
    `smeared`, that of Feynman and Hibbs, which is for light molecules in the cold, where the series
    of the former diverges.

    $B = 2\pi N_A \int \left(1 - e^{-U/T} + \frac{q}{T^3} e^{-U/T} U'^2\right) r^2\,dr$, or
    $B
    = 2\pi N_A \int \left(1 - e^{-V/T}\right) r^2\,dr, \quad V = U + \frac{q}{T} \left(U'' + 2 U' /
    r\right)$

    Energies and T are in K, B in cm³/mol. It runs along the coldness, 1000/T, so that what is
    forecast comes after what is fitted. Source: Wigner (1932), Kirkwood (1933); Feynman & Hibbs
    (1965).
    """

    potential: Any
    quantum: float
    nearest: float
    smeared: bool = eqx.field(default=False, static=True)

    def __call__(self, t, y, u):
        kelvin = 1000.0 / t

        def bound(r):
            both = lambda r: _slope(self.potential.energy, r)  # noqa: E731
            if self.smeared:
                (energy, slope), (_, bend) = _slope(both, r)
                energy = energy + self.quantum / kelvin * (bend + 2 * slope / r)
            else:
                energy, slope = both(r)
            boltzmann = jnp.exp(jnp.minimum(-energy / kelvin, 60.0))
            expanded = 0.0 if self.smeared else self.quantum / kelvin**3 * boltzmann * slope**2
            return r**2 * (1 - boltzmann + expanded)

        near = bd.equations.integrate(bound, self.nearest, FAR, nodes=8, panels=10)
        far = bd.equations.integrate(bound, FAR, math.inf, nodes=10, scale=FAR)
        return {"b": VOLUME * (self.nearest**3 / 3 + near + far)}


def potentials(gas: Gas) -> dict[str, Callable[[], Any]]:
    """Makers of potentials with priors, by name."""
    middle, width = (math.sqrt(a * b) for a, b in (gas.depth, gas.size))
    reach = 2 ** (1 / 6)

    def lennard_jones():
        return LennardJones(bd.between(*gas.depth), bd.between(*gas.size))

    def morse():
        minimum = bd.between(reach * gas.size[0], reach * gas.size[1])
        return Morse(bd.between(*gas.depth), minimum, bd.between(1.0, 3.0))

    def tang_toennies(spread=(0.5, 0.5, 0.5)):
        sizes = (
            HARTREE * c * (BOHR / UNIT_R) ** power
            for power, c in zip((6, 8, 10), gas.dispersion, strict=True)
        )
        return TangToennies(
            dist.LogNormal(math.log(10 * middle), 1.0),
            bd.between(2.5, 5.0),
            *(dist.LogNormal(math.log(size), sd) for size, sd in zip(sizes, spread, strict=True)),
        )

    def theory():
        # Of argon C6 is known to a per cent or two, C8 to some ten, C10 to twenty.
        return tang_toennies(gas.within)

    def hybrid():
        family = bd.bases.HilbertGP(
            0.7 * width, 1.8 * width, 20, amplitude=dist.HalfNormal(SELDOM_A_TENTH)
        )
        return Hybrid(theory(), bd.Basis(family, "r", "factor", positive=True))

    return {
        "Lennard-Jones": lennard_jones,
        "hybrid": hybrid,
        "theory": theory,
        "Morse": morse,
        "Tang-Toennies": tang_toennies,
    }


def model(gas: Gas, potential: Any) -> bd.Model:
    """A potential, observed with errors that are known up to a factor."""
    law = Virial(potential, gas.quantum, gas.nearest, gas.smeared)
    layer = bd.Algebraic(law, index="coldness", units={"b": "cm^3/mol"})
    error = bd.noise.PerDatum("b_error", factor=dist.LogNormal(0.0, 0.5))
    return bd.Model(layer, bd.NormalNoise(known_error=error))


def load(gas: Gas) -> xr.Dataset:
    """What was measured, from warm to cold."""
    table = pd.read_csv(path_of(gas.file), sep=r"\s+", names=["kelvin", "b", "b_error"])
    table = table.assign(coldness=1000.0 / table["kelvin"]).sort_values("coldness", kind="stable")
    columns = {
        name: ("coldness", table[name].to_numpy(), {"units": "cm^3/mol"})
        for name in ("b", "b_error")
    }
    return xr.Dataset(
        columns, {"coldness": ("coldness", table["coldness"].to_numpy(), {"units": UNIT})}
    )


def below(data: xr.Dataset, kelvin: float) -> xr.Dataset:
    """The data of gases colder than that."""
    return data.isel(coldness=np.flatnonzero(data["coldness"].values > 1000.0 / kelvin))


SELDOM_A_TENTH = 0.1 / 2.7
"""A half-normal size of that scale is one that a function seldom, once in twenty, exceeds a tenth
with.
"""

DISTANCES = np.linspace(2.8, 6.0, 641)


def well(model: bd.Model) -> dict[str, Any]:
    """How deep the potential is, and where: its depth in K, its minimum in Å."""
    energies = energy_at(model, DISTANCES)
    lowest = jnp.argmin(energies)
    return {"depth": -energies[lowest], "minimum": jnp.asarray(DISTANCES)[lowest]}


PUBLISHED = (
    (3.1875, 0.63637), (3.375, -0.01138), (3.5625, -0.23729), (3.65625, -0.27458), (3.75, -0.28517),
    (3.84375, -0.27957), (3.9375, -0.26471), (4.125, -0.2235), (4.3125, -0.1808), (4.5, -0.14343), (4.875, -0.08883),
    (5.25, -0.0556), (5.625, -0.03568), (6.0, -0.02355), (6.375, -0.01596), (6.75, -0.01109), (7.5, -0.0057),
    (8.25, -0.00314),
)  # fmt: skip
"""Two atoms of argon by theory: distances in Å, energies in kcal/mol (Tang & Toennies 2003, RGC10
of Psi4).
"""


def published() -> pd.DataFrame:
    """Pair energies of argon as they are published: distances `r` in Å, energies in K."""
    r, energy = np.asarray(PUBLISHED).T
    return pd.DataFrame({"r": r, "energy": PER_KELVIN * energy})


def models(gas: Gas, train: xr.Dataset) -> dict[str, Callable[[], bd.Model]]:
    """Makers of all models of a gas by name, those without any potential too."""
    made = potentials(gas)
    found = {name: lambda make=make: model(gas, make()) for name, make in made.items()}

    # Down to which temperature is to be forecast is known to all of them.
    unseen = load(gas).sel(coldness=slice(1000.0 / gas.warm + 1e-9, None))
    every = xr.concat([train, unseen.assign(b=np.nan * unseen["b"])], "coldness")

    def competitor(name):
        return bd.baselines.named(model(gas, made["Lennard-Jones"]()), every, name)[name]

    return found | {
        name: lambda name=name: competitor(name) for name in ("fixed", "mlp", "gaussian_process")
    }


def picture(run: Run) -> Figure:
    """The potential that warm argon tells, beside the published one; and what it says of cold
    argon.
    """
    study, distances = run.study, np.linspace(3.2, 7.0, 191)
    cold = study.data["coldness"].values > 1000.0 / GASES["argon"].warm
    fig, (left, right) = panels()
    for place, name in enumerate(("Lennard-Jones", "hybrid")):
        post, fc = (bd.load(run.path(name, file)) for file in ("posterior.nc", "forecast.nc"))
        energies = bd.evaluate(
            study.models[name], post, lambda m: {"energy": energy_at(m, distances)}
        )["energy"]
        off = fc["predictions"].dataset["b"] - study.data["b"].values
        band(left, distances, energies, name, place)
        bars(
            right,
            1000.0 / study.data["coldness"].values[cold],
            off.isel(coldness=cold),
            name,
            place,
        )
    theory = published().query("3.2 < r < 7")
    left.plot(theory["r"], theory["energy"], label="Tang and Toennies 2003, not fitted", **UNSEEN)
    left.set(xlabel="distance (Å)", ylabel="energy of a pair (K)", ylim=(-160, 120))
    right.axhline(0.0, color="black", lw=0.8)
    right.set(xlabel="temperature (K)", ylabel="forecast less measured (cm³/mol)", ylim=(-60, 60))
    return finished(fig)


def energy_at(model: bd.Model, distances: np.ndarray) -> jax.Array:
    """The energies of pairs at distances in Å, in K."""
    layer: Any = model.layer
    return jax.vmap(layer.function.potential.energy)(jnp.asarray(distances))


ENGINE = bd.NUTS(chains=2, draws=1500)
BLOCKS, SHARES = 5, (0.1, 0.25, 0.5, 0.75, 1.0)


def tasks(quick: bool) -> list[dict]:
    """A fit of each model to all warm data but a fifth of them, and of some to fewer; for nitrogen
    and methane, which were added later, of those that know a potential."""
    some = ["Lennard-Jones", "hybrid", "theory", "mlp"]
    every = [*some, "fixed", "Morse", "gaussian_process"]
    if quick:
        return bd.many.combinations(gas=["argon"], model=every, share=[1.0], block=[0])
    blocks = range(BLOCKS)
    found = bd.many.combinations(gas=["argon", "hydrogen"], model=every, share=[1.0], block=blocks)
    found += bd.many.combinations(gas=["argon"], model=some, share=SHARES[:-1], block=blocks)
    known = ["Lennard-Jones", "hybrid", "theory", "fixed", "Morse"]
    found += bd.many.combinations(
        gas=["nitrogen", "methane"], model=known, share=[1.0], block=blocks
    )
    return found + bd.many.combinations(
        gas=[*GASES], model=["Tang-Toennies"], share=[1.0], block=[0, 1]
    )


def row(gas: str, model: str, share: float, block: int) -> dict:
    """What a model that was fitted to warm gas says of cold gas, and of the well."""
    known = GASES[gas]
    data = load(known)
    warm, _ = bd.split(data, coldness=1000.0 / known.warm)
    train = thinned(warm, share, block)
    ahead = {"cold": below(data, known.cold)}
    made = models(known, train)[model]()
    network = model in ("mlp", "gaussian_process")
    engine = bd.DeepEnsemble(members=10) if model == "mlp" else ENGINE
    return bd.many.measure(made, train, ahead, engine, derived=None if network else well, key=block)


def thinned(warm: xr.Dataset, share: float, block: int) -> xr.Dataset:
    """The warm data without a fifth of them, every fifth, and of these a share, evenly spread."""
    kept = np.flatnonzero(np.arange(warm.sizes["coldness"]) % BLOCKS != block)
    return warm.isel(
        coldness=kept[np.linspace(0, len(kept) - 1, round(share * len(kept))).round().astype(int)]
    )


def summary(rows: pd.DataFrame) -> dict:
    """Errors in the cold, the well, and how models differ from Lennard-Jones's on the same data."""
    table = bd.many.tidy(rows)
    by = ["gas", "share", "model"]
    what = ["rmse", "crps", "log_score", "coverage_90", "fit_s", "memory_mb"]
    whole = table.query("share == 1.0")
    found = {"Cold gas": bd.many.medians(table, what, by=by)}
    for gas, part in whole.groupby("gas"):
        if "Lennard-Jones" in part["model"].values:
            differences = bd.many.paired(
                part, "crps", between="model", against="Lennard-Jones", over=["block"]
            )
            found[f"CRPS of cold {gas}, less Lennard-Jones"] = differences.sort_values("difference")
    if not (wells := bd.many.tidy(rows, "derived").query("share == 1.0")).empty:
        found["Wells"] = bd.many.medians(
            wells, ["low", "median", "high"], by=["gas", "model", "quantity"]
        )
    return found


def study() -> bd.Study:
    """The study that `bayes-dasl run molecules` runs: argon."""
    gas = GASES["argon"]
    made = {name: model(gas, make()) for name, make in potentials(gas).items()}
    return bd.Study(
        name="molecules",
        title="Argon's pair potential from second virial coefficients",
        model=made.pop("hybrid"),
        label="hybrid",
        competitors=made,
        data=load(gas),
        split=1000.0 / gas.warm,
        engine=ENGINE,
        derived=well,
        mix=False,  # rows of many laboratories are no series
        options=bd.ReportOptions(
            source="second virial coefficients, Combustion-Transport-Analysis group",
            licence="CC BY 4.0",
        ),
    )
