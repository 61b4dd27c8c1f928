"""Energies and forces of ethanol by quantum chemistry: a force field and a network, fitted cool and
forecast hot.

A force field knows which atoms are bonded and that bonds, angles and torsions go back to where they
rest. The hybrid adds a network of the same internal coordinates, so that it too goes by the shape
of the molecule alone, and forces are the slopes of one energy. What is forecast are geometries of
energies that the fit has not seen.

Data: 11 011 geometries, B3LYP, of QM-22: J. M. Bowman, C. Qu, R. Conte, A. Nandi, P. L. Houston &
Q. Yu, J. Chem. Phys. 156, 240901 (2022), Apache 2.0.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import cache
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
from ._pictures import bars, finished, panels

FIELD = "molecular physics"
RUN_TIME = "3 min"
DATA = ("molecular/qm22_Ethanol.npz",)

FILE = "molecular/qm22_Ethanol.npz"
HARTREE, BOHR = 627.5095, 0.52917721  # kcal/mol and Å
ENERGY, FORCE, LENGTH = "kcal/mol", "kcal/mol/angstrom", "angstrom"
COOL, HOT = 25.0, 50.0
"""Geometries below the first energy are fitted, those above the second are the hardest that are
forecast.
"""
HOTTEST = f"above {HOT:g}"

ELEMENTS = "CCOHHHHHH"
BONDED = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7), (2, 8))
ATOMS = len(ELEMENTS)
POSITIONS = tuple(f"{axis}_{atom}" for atom in range(ATOMS) for axis in "xyz")


def _neighbours(atom: int) -> list[int]:
    return [other for bond in BONDED if atom in bond for other in bond if other != atom]


CENTRES = (0, 1, 2)
ANGLES = tuple((i, at, j) for at in CENTRES for i, j in itertools.combinations(_neighbours(at), 2))
TORSIONS = tuple(
    (i, a, b, j)
    for a, b in BONDED[:2]
    for i in _neighbours(a)
    for j in _neighbours(b)
    if i != b and j != a
)


def _kinds(groups: tuple[tuple[int, ...], ...]) -> tuple[list[str], np.ndarray]:
    """The kinds of bonds, angles or torsions by their elements, and which each is."""
    words = ["".join(ELEMENTS[atom] for atom in group) for group in groups]
    words = [min(word, word[::-1]) for word in words]
    names = sorted({*words})
    return names, np.asarray([names.index(word) for word in words])


(BONDS, _bond), (BENDS, _bend), (TWISTS, _twist) = map(_kinds, (BONDED, ANGLES, TORSIONS))


def _steps(groups: Any, to: int, start: int) -> np.ndarray:
    """The matrix that takes positions to the vectors from one atom of each group to another."""
    of = np.asarray(groups)
    return np.eye(ATOMS)[of[:, to]] - np.eye(ATOMS)[of[:, start]]


_ALONG = _steps(BONDED, 1, 0)
_ARMS = _steps(ANGLES, 0, 1), _steps(ANGLES, 2, 1)
_CHAIN = _steps(TORSIONS, 1, 0), _steps(TORSIONS, 2, 1), _steps(TORSIONS, 3, 2)


def _dot(a: Any, b: Any) -> jax.Array:
    return jnp.sum(a * b, axis=-1)


def lengths(x: jax.Array) -> jax.Array:
    """Of the bonds, in Å, of positions `(atom, 3)`."""
    along = _ALONG @ x
    return jnp.sqrt(_dot(along, along))


def angles(x: jax.Array) -> jax.Array:
    """Cosines of the angles between bonds."""
    one, other = (arm @ x for arm in _ARMS)
    return _dot(one, other) / jnp.sqrt(_dot(one, one) * _dot(other, other))


def torsions(x: jax.Array) -> jax.Array:
    """Cosines of the torsions about bonds: 1 where the ends are on one side, −1 where they are
    opposite.
    """
    a, b, c = (step @ x for step in _CHAIN)
    ab, bc, bb = _dot(a, b), _dot(b, c), _dot(b, b)
    size = (_dot(a, a) * bb - ab**2) * (bb * _dot(c, c) - bc**2)
    return (ab * bc - _dot(a, c) * bb) / jnp.sqrt(jnp.maximum(size, 1e-9))


class ForceField(bd.Module):
    r"""What bonds, angles and torsions store, by their kinds.

    $E
    = E_0 + \sum_\text{bonds} D (1 - e^{-a (r - r_0)})^2 + \sum_\text{angles} \tfrac{k}{2} (\theta -
    \theta_0)^2 + \sum_\text{torsions} \left( V_3 (1 + \cos 3\varphi) + V_1 (1 + \cos\varphi)
    \right)$

    Bonds are as Morse has them, or springs where `springs` says so. Sources: Morse (1929); Cornell
    et al. (1995).
    """

    depth: Any = bd.field(units=ENERGY)
    length: Any = bd.field(units=LENGTH)
    steepness: Any = bd.field(units="1/angstrom")
    stiffness: Any = bd.field(units=ENERGY)
    angle: Any = bd.field(units="rad")
    threefold: Any = bd.field(units=ENERGY)
    onefold: Any = bd.field(units=ENERGY)
    floor: Any = bd.field(units=ENERGY)
    springs: bool = False

    def energy(self, x: jax.Array) -> jax.Array:
        stretched = self.steepness[_bond] * (lengths(x) - self.length[_bond])
        stretch = self.depth[_bond] * (stretched if self.springs else 1 - jnp.exp(-stretched)) ** 2
        bent = jnp.arccos(jnp.clip(angles(x), -1 + 1e-6, 1 - 1e-6)) - self.angle[_bend]
        bend = 0.5 * self.stiffness[_bend] * bent**2
        cosine = torsions(x)
        triple = 4 * cosine**3 - 3 * cosine
        twist = self.threefold[_twist] * (1 + triple) + self.onefold[_twist] * (1 + cosine)
        return self.floor + jnp.sum(stretch) + jnp.sum(bend) + jnp.sum(twist)


class Learned(bd.Module):
    """An energy by a network of the internal coordinates: bonds, angles and torsions."""

    network: bd.Network

    def energy(self, x: jax.Array) -> jax.Array:
        known = dict(zip(self.network.inputs, internal(x), strict=True))
        return self.network(0.0, {}, known)["energy"]


class Sum(bd.Module):
    """Energies add: science and what it lacks."""

    science: Any
    closure: Learned

    def energy(self, x: jax.Array) -> jax.Array:
        return self.science.energy(x) + self.closure.energy(x)


class Floor(bd.Module):
    """An energy that is the same everywhere."""

    floor: Any = bd.field(units=ENERGY)

    def energy(self, x: jax.Array) -> jax.Array:
        return jnp.asarray(self.floor)


def internal(x: jax.Array) -> jax.Array:
    """All internal coordinates of positions: lengths in Å, and cosines."""
    return jnp.concatenate([lengths(x), angles(x), torsions(x)])


UNITS = {"energy": ENERGY, "force": FORCE} | dict.fromkeys(POSITIONS, LENGTH)

NAMES = tuple(
    f"{kind}_{'_'.join(map(str, group))}"
    for kind, groups in (("length", BONDED), ("angle", ANGLES), ("torsion", TORSIONS))
    for group in groups
)
"""Of the internal coordinates."""


class Energies(bd.layers.AbstractLayer):
    """Energies of geometries and the forces on their atoms, the slopes of the energies downhill."""

    potential: Any
    forcings: tuple[str, ...] = eqx.field(default=POSITIONS, static=True, kw_only=True)
    units: Mapping[str, str] = eqx.field(default_factory=lambda: UNITS, static=True, kw_only=True)

    @property
    def index(self):
        return "geometry"

    @property
    def dims(self):
        return {"force": ("atom", "axis")}

    @property
    def outputs(self):
        return ("energy", "force")

    @property
    def pointwise(self):
        return True

    @property
    def trajectories(self):
        return []

    def __call__(self, inputs):
        x = positions(inputs.forced_at_times())
        energy, slope = jax.vmap(jax.value_and_grad(self.potential.energy))(x)
        ok = jnp.all(jnp.isfinite(energy)) & jnp.all(jnp.isfinite(slope))
        return bd.layers.prediction({"energy": energy, "force": -slope}, ok=ok)


def _about(values: list[float], share: float) -> dist.Distribution:
    return dist.LogNormal(jnp.log(jnp.asarray(values)), share).to_event(1)


TEXTBOOK = {
    "CC": (88.0, 1.53, 310.0),
    "CO": (92.0, 1.41, 320.0),
    "CH": (101.0, 1.09, 340.0),
    "HO": (105.0, 0.96, 553.0),
}
"""How strong bonds are (kcal/mol), how long (Å), and how stiff (kcal/mol/Å²), of chemistry books
and AMBER.
"""


def force_field(springs: bool = False) -> ForceField:
    """A force field with priors around textbook values."""
    depth, length, stiff = (
        list(of) for of in zip(*(TEXTBOOK[kind] for kind in BONDS), strict=True)
    )
    steepness = [(k / d) ** 0.5 for k, d in zip(stiff, depth, strict=True)]
    twist = lambda: dist.Normal(jnp.zeros(len(TWISTS)), 0.3).to_event(1)  # noqa: E731
    return ForceField(
        _about(depth, 0.2), _about(length, 0.02), _about(steepness, 0.1), _about([100.0] * len(BENDS), 0.3),
        _about([1.91] * len(BENDS), 0.05), twist(), twist(), dist.Normal(0.0, 5.0), springs=springs,
    )  # fmt: skip


def learned(train: xr.Dataset, size: float) -> Learned:
    """A network of about so many kcal/mol, of coordinates in units of how far they differ in the
    training data.
    """
    seen = np.asarray(jax.vmap(internal)(positions(train)))
    units = zip(seen.mean(axis=0).tolist(), seen.std(axis=0).tolist(), strict=True)
    inputs = dict(zip(NAMES, units, strict=True))
    return Learned(
        bd.Network.mlp(inputs, ("energy",), dist.LogNormal(np.log(size), 0.7), width=24, depth=2)
    )


def _told(size: float) -> bd.CombinedNoise:
    """An error whose size the data tell, and that grows with what is predicted."""
    return bd.CombinedNoise(dist.HalfNormal(size), dist.HalfNormal(0.1))


TOLD = "told by the data"
WEIGHTS: dict[str, dict[str, Any]] = {
    TOLD: {"energy": _told(1.0), "force": _told(5.0)},
    "energies alone": {"energy": _told(1.0)},
    "forces alone": {"force": _told(5.0)},
    "forces once": {"energy": bd.NormalNoise(1.0), "force": bd.NormalNoise(1.0)},
    "forces a hundredfold": {"energy": bd.NormalNoise(1.0), "force": bd.NormalNoise(0.1)},
}
"""The noise, by which a squared error of a force counts so much beside one of an energy: as sizes
say that are unknown, or that are chosen, which intervals and CRPS then hang on; or one of them
alone, and the other is not scored."""


def model(potential: Any, weights: str = TOLD) -> bd.Model:
    """A potential that is observed by its energies and its forces."""
    return bd.Model(Energies(potential), WEIGHTS[weights])


def models(train: xr.Dataset, weights: str = TOLD) -> dict[str, Callable[[], bd.Model]]:
    """Makers of all models by name."""
    made = {
        "force field": force_field,
        "hybrid": lambda: Sum(force_field(), learned(train, 2.0)),
        "network": lambda: Sum(Floor(dist.Normal(10.0, 10.0)), learned(train, 20.0)),
        "springs": lambda: force_field(springs=True),
    }
    found = {name: lambda make=make: model(make(), weights) for name, make in made.items()}
    return found | {"fixed": lambda: bd.baselines.fixed(model(force_field(), weights))}


@cache
def _table() -> dict[str, np.ndarray]:
    """All geometries in the order of their energies, which are told above the lowest."""
    with np.load(path_of(FILE)) as held:
        energy, x, slope = (
            np.asarray(held[name], float) for name in ("E_hartree", "X_ang", "G_hartree_bohr")
        )
    order = np.argsort(energy, kind="stable")
    return {
        "energy": HARTREE * (energy - energy.min())[order],
        "x": x[order],
        "force": -HARTREE / BOHR * slope[order],
    }


def geometries(chosen: np.ndarray) -> xr.Dataset:
    """Energies, forces and positions of geometries, by their places in the order of energies."""
    table, at = _table(), np.sort(chosen)
    flat = table["x"][at].reshape(len(at), -1)
    columns: dict[str, Any] = {
        "energy": ("geometry", table["energy"][at], {"units": ENERGY}),
        "force": (("geometry", "atom", "axis"), table["force"][at], {"units": FORCE}),
    }
    columns |= {
        name: ("geometry", flat[:, i], {"units": LENGTH}) for i, name in enumerate(POSITIONS)
    }
    return xr.Dataset(
        columns, {"geometry": at.astype(float), "atom": np.arange(ATOMS), "axis": np.arange(3)}
    )


def positions(given: Mapping[Any, Any]) -> jax.Array:
    """`(geometry, atom, 3)`, in Å, of data or forcings by name."""
    return jnp.stack([jnp.asarray(given[name]) for name in POSITIONS], axis=-1).reshape(
        -1, ATOMS, 3
    )


def drawn(number: int, ahead: int, seed: int) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """So many cool geometries to fit, and some of each range of energies to forecast."""
    rng, energy = np.random.default_rng(seed), _table()["energy"]
    cool = rng.permutation(np.flatnonzero(energy < COOL))
    cool = cool[(cool == 0) | (energy[cool] > 0)]  # the lowest geometry is there eleven times
    ranges = {
        f"below {COOL:g}": cool[number:],
        f"{COOL:g} to {HOT:g}": rng.permutation(np.flatnonzero((energy >= COOL) & (energy < HOT))),
        HOTTEST: rng.permutation(np.flatnonzero(energy >= HOT)),
    }
    return geometries(cool[:number]), {name: geometries(at[:ahead]) for name, at in ranges.items()}


MASSES = {"C": 12.011, "O": 15.999, "H": 1.008}  # g/mol
ACCELERATION = 4.184e-4  # Å/fs² of one kcal/mol/Å on one g/mol
BOLTZMANN = 1.987204e-3  # kcal/mol/K
STEP, STEPS = 0.25, 4000  # fs: a picosecond in all


_MASS = np.asarray([MASSES[element] for element in ELEMENTS])[:, None]


def thrown(kelvin: float, seed: int) -> np.ndarray:
    """Velocities of the atoms in Å/fs, drawn at a temperature, of a molecule that stays where it
    is: `(atom, 3)`.
    """
    drawn = np.random.default_rng(seed).normal(size=(ATOMS, 3)) * np.sqrt(
        BOLTZMANN * kelvin * ACCELERATION / _MASS
    )
    return drawn - (_MASS * drawn).sum(axis=0) / _MASS.sum()


def kinetic(velocity: Any) -> Any:
    """The energy of velocities in Å/fs, in kcal/mol."""
    return 0.5 * jnp.sum(_MASS * velocity**2) / ACCELERATION


def motion(potential: Any, kelvin: float = 600.0, seed: int = 0) -> dict[str, jax.Array]:
    """Potential and total energy of a molecule that moves freely, by velocity Verlet: `(step,)`, in
    kcal/mol.

    Args:
        potential: what has an `energy` of positions.
        kelvin: the temperature that the velocities at the start are drawn at, in the geometry of
            lowest energy.
        seed: of the velocities.
    """
    slope = jax.value_and_grad(potential.energy)

    def step(state, _):
        x, v, gradient = state
        half = v - 0.5 * STEP * ACCELERATION * gradient / _MASS
        x = x + STEP * half
        energy, gradient = slope(x)
        v = half - 0.5 * STEP * ACCELERATION * gradient / _MASS
        return (x, v, gradient), {"potential": energy, "total": energy + kinetic(v)}

    start = jnp.asarray(_table()["x"][0])
    return jax.lax.scan(
        step, (start, jnp.asarray(thrown(kelvin, seed)), slope(start)[1]), length=STEPS
    )[1]


def conserved(model: bd.Model) -> dict[str, Any]:
    """What becomes of the total energy of a molecule that moves for a picosecond: its drift and how
    far it swings.
    """
    layer: Any = model.layer
    total = motion(layer.potential)["total"]
    time = jnp.linspace(-0.5, 0.5, STEPS)  # ps
    drift = jnp.dot(time, total) / jnp.dot(time, time)
    return {"drift": drift, "swing": jnp.std(total - drift * time)}


ENGINE = bd.DeepEnsemble(
    members=8, descent=bd.Descent(steps=3000, held_out=0.15, reparametrisation="none")
)
NUMBERS, AHEAD = (25, 50, 100, 200, 400), 150


def tasks(quick: bool) -> list[dict]:
    """Each model fitted to 100 geometries, some to fewer and to more, and by other weights of
    energies and forces.
    """
    every = ["force field", "hybrid", "network", "springs", "fixed"]
    if quick:
        return bd.many.combinations(model=every, number=[100], seed=[0])
    found = bd.many.combinations(model=every, number=[100], seed=range(5))
    others = [number for number in NUMBERS if number != 100]
    found += bd.many.combinations(model=every[:3], number=others, seed=range(5))
    weights = [name for name in WEIGHTS if name != TOLD]
    return found + bd.many.combinations(
        model=["hybrid", "network"], number=[100], seed=range(5), weights=weights
    )


def row(model: str, number: int, seed: int, weights: str = TOLD) -> dict:
    """What a model that was fitted to cool geometries says of hotter ones, and whether it keeps the
    energy.
    """
    train, ahead = drawn(number, AHEAD, seed)
    return bd.many.measure(
        models(train, weights)[model](), train, ahead, ENGINE, derived=conserved, key=seed
    )


def summary(rows: pd.DataFrame) -> dict:
    """Errors of energies and forces by range, differences to the force field, and what becomes of
    the energy.
    """
    if "weights" in rows:
        rows = rows.assign(model=rows["model"] + (", " + rows["weights"]).fillna(""))
    table = bd.many.tidy(rows)
    table["of"] = table["observable"] + ", " + table["ahead"]
    by = ["number", "model"]
    titles = {"rmse": "RMSE", "crps": "CRPS", "coverage_90": "Share of data in 90 % intervals"}
    found = {
        title: bd.many.medians(table, score, by=by, across="of") for score, title in titles.items()
    }
    hot = table.query("ahead == @HOTTEST and observable == 'force'")
    for number, part in hot.groupby("number"):
        differences = bd.many.paired(part, "crps", between="model", against="force field")
        found[f"CRPS of hot forces after {number} geometries, less that of the force field"] = (
            differences
        )
    if not (kept := bd.many.tidy(rows, "derived")).empty:
        found["Total energy, kcal/mol over 1 ps"] = bd.many.medians(
            kept, "median", by=by, across="quantity"
        )
    return found


def load() -> xr.Dataset:
    """What `bayes-dasl run ethanol` fits and forecasts:
    100 cool geometries and as many hot ones.
    """
    train, ahead = drawn(100, 100, 0)
    return xr.concat([train, ahead[HOTTEST]], "geometry")


def study() -> bd.Study:
    """The study that `bayes-dasl run ethanol` runs."""
    data = load()
    cool = data.isel(geometry=slice(100))
    made = {
        name: make() for name, make in models(cool).items() if name in ("force field", "hybrid")
    }
    return bd.Study(
        name="ethanol",
        title="Ethanol's energies and forces: hot geometries from cool ones",
        model=made.pop("hybrid"),
        label="hybrid",
        competitors=made,
        data=data,
        split=float(cool["geometry"][-1]) + 0.5,
        engine=ENGINE,
        derived=conserved,
        mix=False,  # geometries are no series
        options=bd.ReportOptions(source="QM-22, B3LYP: Bowman et al. (2022)", licence="Apache-2.0"),
    )


def picture(run: Run) -> Figure:
    """Energies of hot geometries as forecast, beside quantum chemistry; and those of a molecule
    that moves.
    """
    study, hot = run.study, slice(100, None, 3)
    fig, (left, right) = panels()
    computed = study.data["energy"].values[hot]
    for place, name in enumerate(("force field", "hybrid")):
        fc = bd.load(run.path(name, "forecast.nc"))
        draws = fc["predictions"].dataset["energy"].isel(geometry=hot)
        bars(left, computed + 0.3 * (place - 0.5), draws - computed, name, place)
    left.axhline(0.0, color="black", lw=0.8)
    left.set(
        xlabel="energy by quantum chemistry (kcal/mol)", ylabel="forecast less computed (kcal/mol)"
    )
    post = bd.load(run.path("hybrid", "posterior.nc"))
    layer = lambda m: motion(m.layer.potential)  # noqa: E731
    energies = bd.evaluate(study.models["hybrid"], post, layer)
    time = 1e-3 * STEP * np.arange(1, STEPS + 1)
    for name, color in (("potential", bd.plots.BLUE), ("total", "black")):
        right.plot(time, energies[name].values[0, 0], color=color, lw=0.8)
        right.annotate(
            name,
            (1.0, float(energies[name].values[0, 0].max())),
            ha="right",
            va="bottom",
            color=color,
        )
    right.set(xlabel="time (ps)", ylabel="energy of one member (kcal/mol)")
    return finished(fig)
