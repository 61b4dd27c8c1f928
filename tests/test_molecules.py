"""Potentials of two atoms and what they mean for a gas, against what is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import molecules
from case_studies.molecules import (
    BOHR,
    GASES,
    HARTREE,
    PER_KELVIN,
    UNIT_R,
    Hybrid,
    LennardJones,
    TangToennies,
    Virial,
)

SIZE = 3.405  # Å
CORE = 2 * np.pi * 0.602214 * SIZE**3 / 3


@pytest.mark.parametrize(
    ("warmth", "reduced"), [(1.0, -2.5381), (2.0, -0.62763), (5.0, 0.24334), (20.0, 0.52538)]
)
def test_a_lennard_jones_gas_has_the_virial_coefficients_of_the_tables(warmth, reduced):
    """J. O. Hirschfelder, C. F. Curtiss & R. B. Bird, Molecular Theory of Gases and Liquids (1954),
    table I-B.
    """
    law = Virial(LennardJones(120.0, SIZE), 0.0, 1.8)
    found = law(jnp.asarray(1000.0 / (120.0 * warmth)), {}, {})["b"] / CORE
    assert found == pytest.approx(reduced, abs=2e-3)


def test_quantum_mechanics_makes_cold_gas_more_repulsive():
    classical, quantum = (
        Virial(LennardJones(120.0, SIZE), q, 1.8) for q in (0.0, GASES["argon"].quantum)
    )
    more = lambda t: float(quantum(t, {}, {})["b"] - classical(t, {}, {})["b"])  # noqa: E731
    cold, warm = more(jnp.asarray(1000.0 / 100.0)), more(jnp.asarray(1000.0 / 300.0))
    assert (
        cold > 9 * warm > 0
    )  # by the third power of the temperature, were it not for the atoms' own


@pytest.mark.parametrize(
    ("name", "mass"),
    [("argon", 39.948), ("hydrogen", 2.016), ("nitrogen", 28.013), ("methane", 16.043)],
)
def test_numbers_of_the_gases_are_those_of_their_molecules(name, mass):
    gas = GASES[name]
    # ħ² / (24 µ k) by the constants of 2019, of which the mass of a pair is half that of a
    # molecule.
    assert gas.quantum == pytest.approx(
        1.054572e-34**2 / (12 * mass * 1.660539e-27 * 1.380649e-23) * 1e20, rel=0.002
    )
    c6, c8, c10 = gas.dispersion
    assert c10 == pytest.approx(49 / 40 * c8**2 / c6, rel=0.1)  # Starkschall & Gordon (1972)
    made = molecules.potentials(gas)
    assert {*made} == {"Lennard-Jones", "hybrid", "theory", "Morse", "Tang-Toennies"}
    deep = molecules.well(molecules.model(gas, LennardJones(gas.depth[1], gas.size[1])))
    assert float(deep["depth"]) == pytest.approx(gas.depth[1], rel=1e-3)


def test_where_the_series_of_wigner_and_kirkwood_diverges_a_smeared_potential_does_not():
    """Lennard-Jones's numbers of hydrogen, of warm gas: at 30 K the measured coefficient is about
    -86 cm³/mol.
    """
    law = lambda smeared: Virial(LennardJones(36.7, 2.96), GASES["hydrogen"].quantum, 1.5, smeared)  # noqa: E731
    at = lambda kelvin, smeared: float(law(smeared)(jnp.asarray(1000.0 / kelvin), {}, {})["b"])  # noqa: E731
    assert at(300.0, True) == pytest.approx(
        at(300.0, False), abs=0.3
    )  # both are the first order there
    assert at(30.0, True) == pytest.approx(-86.0, abs=2.0) and at(30.0, False) > -55.0
    assert GASES["hydrogen"].smeared and not GASES["argon"].smeared


def argon() -> TangToennies:
    """As Tang & Toennies (2003) have it: A = 748.3 and b = 2.031 in atomic units."""
    c6, c8, c10 = (
        HARTREE * c * (BOHR / UNIT_R) ** n
        for n, c in zip((6, 8, 10), GASES["argon"].dispersion, strict=True)
    )
    steep = 2.031 / BOHR
    return TangToennies(HARTREE * 748.3 * np.exp(-steep * UNIT_R), steep, c6, c8, c10)


def test_tang_and_toennies_potential_of_argon_is_that_of_quantum_chemistry():
    curve = molecules.published()
    outside = curve["r"].to_numpy() > 3.5
    found = np.asarray(jax.vmap(argon().energy)(jnp.asarray(curve["r"].to_numpy())))
    np.testing.assert_allclose(found[outside], curve["energy"].to_numpy()[outside], rtol=0.01)


# Of Morse, whose walls are the softest, about what is fitted: depths, minima and the least
# steepness.
SOFT = {
    "argon": (134.0, 3.94, 1.3),
    "hydrogen": (30.0, 3.5, 1.3),
    "nitrogen": (99.0, 4.37, 1.2),
    "methane": (153.0, 4.46, 1.2),
}
HOTTEST = {
    "argon": 1223.2,
    "hydrogen": 500.0,
    "nitrogen": 748.2,
    "methane": 673.4,
}  # K, of the data


@pytest.mark.parametrize("name", [*SOFT])
def test_no_pair_comes_nearer_than_the_nearest_in_the_hottest_gas(name):
    """To 0.02 cm³/mol, far less than laboratories differ by."""
    gas, at = GASES[name], jnp.asarray(1000.0 / HOTTEST[name])
    shape = LennardJones(*(np.sqrt(low * high) for low, high in (gas.depth, gas.size)))
    for potential in (shape, molecules.Morse(*SOFT[name]), *([argon()] if name == "argon" else [])):
        close, closer = (
            Virial(potential, gas.quantum, near, gas.smeared)
            for near in (gas.nearest, gas.nearest - 0.4)
        )
        assert float(close(at, {}, {})["b"]) == pytest.approx(
            float(closer(at, {}, {})["b"]), abs=0.02
        )


def test_where_nothing_corrects_the_wall_the_hybrid_is_theory():
    r = jnp.asarray(3.6)
    family = bd.bases.HilbertGP(2.4, 6.0, 4, length=1.0, amplitude=0.1)
    hybrid = Hybrid(argon(), bd.Basis(family, "r", "factor", weights=np.zeros(4), positive=True))
    assert hybrid.energy(r) == pytest.approx(argon().energy(r))
    softer = eqx.tree_at(lambda h: h.factor.weights, hybrid, -0.5 * jnp.ones(4))
    assert softer.energy(r) < hybrid.energy(r)


def test_the_well_is_found():
    made = molecules.model(GASES["argon"], LennardJones(120.0, SIZE))
    found = molecules.well(made)
    assert found["depth"] == pytest.approx(120.0, rel=1e-3)
    assert found["minimum"] == pytest.approx(2 ** (1 / 6) * SIZE, abs=0.006)
    deepest = molecules.published()["energy"].min()
    assert deepest / PER_KELVIN == pytest.approx(-0.28517)


@pytest.fixture
def measured(shared_file, monkeypatch):
    monkeypatch.setenv(
        "BAYES_DASL_DATA", str(shared_file("data/molecular/virial_allAr.txt").parents[1])
    )


@pytest.mark.usefixtures("measured")
def test_the_data_run_from_warm_to_cold_and_blocks_leave_out_a_fifth():
    data = molecules.load(GASES["argon"])
    assert data.sizes["coldness"] == 269 and (np.diff(data["coldness"]) >= 0).all()
    warm, _ = bd.split(data, coldness=4.0)
    blocks = [
        molecules.thinned(warm, 1.0, block)["coldness"].values for block in range(molecules.BLOCKS)
    ]
    assert all(len(block) in (104, 105) for block in blocks)
    assert molecules.thinned(warm, 0.25, 0).sizes["coldness"] == 26
    assert (1000 / molecules.below(data, 150.0)["coldness"] < 150.0).all()


@pytest.mark.thorough("Lennard-Jones", "theory", "Morse", "Tang-Toennies", "fixed", "mlp")
@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "name", ["Lennard-Jones", "hybrid", "theory", "Morse", "Tang-Toennies", "fixed", "mlp"]
)
def test_every_model_of_the_study_predicts_warm_gas(name):
    gas = GASES["argon"]
    train = molecules.thinned(bd.split(molecules.load(gas), coldness=4.0)[0], 0.25, 0)
    made = molecules.models(gas, train)[name]()
    drawn = draw_prior(made, 1, key=jax.random.key(0))
    realised = realise(made, {path: values[0] for path, values in drawn.items()})
    found = eqx.filter_jit(realised.layer)(made.inputs(train))
    assert bool(found.ok) and found.values["b"].shape == (26,)
