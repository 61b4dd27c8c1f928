"""A molecule's energy goes by its shape alone, its forces are slopes of it, and a molecule that
moves keeps it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import ethanol
from case_studies.ethanol import ANGLES, BONDED, TORSIONS, ForceField


def known(springs=False) -> ForceField:
    """A force field of round numbers."""
    per = lambda names, value: jnp.full(len(names), value)  # noqa: E731
    bonds, bends, twists = ethanol.BONDS, ethanol.BENDS, ethanol.TWISTS
    return ForceField(
        per(bonds, 100.0), per(bonds, 1.2), per(bonds, 2.0), per(bends, 80.0), per(bends, 1.9), per(twists, 0.2),
        per(twists, 0.1), 3.0, springs=springs,
    )  # fmt: skip


@pytest.fixture
def shape() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 3)) + 2.0 * np.arange(9)[:, None] % 5


def test_the_molecule_is_ethanol():
    assert ethanol.BONDS == ["CC", "CH", "CO", "HO"] and ethanol.BENDS == [
        "CCH",
        "CCO",
        "COH",
        "HCH",
        "HCO",
    ]
    assert ethanol.TWISTS == ["CCOH", "HCCH", "HCCO", "HCOH"]
    assert (len(BONDED), len(ANGLES), len(TORSIONS)) == (8, 13, 12)


def test_internal_coordinates_by_hand(shape):
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    long = [np.linalg.norm(shape[i] - shape[j]) for i, j in BONDED]
    open_ = [unit(shape[i] - shape[at]) @ unit(shape[j] - shape[at]) for i, at, j in ANGLES]
    turned = []
    for i, a, b, j in TORSIONS:
        axis = unit(shape[b] - shape[a])
        flat = lambda v, axis=axis: unit(v - (v @ axis) * axis)  # noqa: E731
        turned.append(flat(shape[i] - shape[a]) @ flat(shape[j] - shape[b]))
    np.testing.assert_allclose(
        ethanol.internal(jnp.asarray(shape)), [*long, *open_, *turned], rtol=1e-6
    )


@pytest.mark.parametrize("springs", [False, True])
def test_a_stretched_bond_stores_what_morse_or_a_spring_says(shape, springs):
    field = known(springs)
    along = (shape[8] - shape[2]) / np.linalg.norm(shape[8] - shape[2])
    energy = lambda length: field.energy(jnp.asarray(shape).at[8].set(shape[2] + length * along))  # noqa: E731
    stored = (
        (lambda r: 100 * (2 * r) ** 2) if springs else (lambda r: 100 * (1 - np.exp(-2 * r)) ** 2)
    )
    assert float(energy(1.5) - energy(1.2)) == pytest.approx(stored(0.3), rel=1e-6)


def test_energy_goes_by_the_shape_alone_and_forces_are_its_slopes(shape):
    field = known()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    energy, slope = jax.jit(jax.value_and_grad(field.energy))(jnp.asarray(shape))
    assert float(field.energy(jnp.asarray(shape @ turn.T + 4.0))) == pytest.approx(
        float(energy), rel=1e-9
    )
    np.testing.assert_allclose(slope.sum(axis=0), 0.0, atol=1e-8)
    np.testing.assert_allclose(np.cross(shape, slope).sum(axis=0), 0.0, atol=1e-7)
    moved = 1e-5 * np.random.default_rng(2).normal(size=(9, 3))
    up, down = (float(field.energy(jnp.asarray(shape + sign * moved))) for sign in (1, -1))
    assert up - down == pytest.approx(2 * float(jnp.sum(slope * moved)), rel=1e-5)


@pytest.fixture
def data(shared_file, monkeypatch):
    monkeypatch.setenv(
        "BAYES_DASL_DATA", str(shared_file("data/molecular/qm22_Ethanol.npz").parents[1])
    )
    return ethanol.load()


def test_cool_geometries_come_first_and_hot_ones_are_hot(data):
    energy = data["energy"].values
    assert data.sizes["geometry"] == 200 and np.all(np.diff(data["geometry"]) > 0)
    assert np.all(energy[:100] < ethanol.COOL) and np.all(energy[100:] >= ethanol.HOT)


def test_what_is_forecast_is_not_fitted(data):
    train, ahead = ethanol.drawn(300, 200, seed=3)
    for part in ahead.values():
        assert part.sizes["geometry"] == 200
        fitted, asked = (
            {*map(bytes, ethanol.positions(of).reshape(-1, 27))} for of in (train, part)
        )
        assert len(asked) == 200 and not asked & fitted


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["force field", "hybrid", "network", "springs"])
def test_every_model_predicts_energies_and_forces(data, name):
    model = ethanol.models(data.isel(geometry=slice(100)))[name]()
    drawn = draw_prior(model, 1, key=jax.random.key(0))
    realised = realise(model, {path: values[0] for path, values in drawn.items()})
    found = eqx.filter_jit(lambda layer, inputs: layer(inputs))(realised.layer, model.inputs(data))
    assert bool(found.ok) and found.values["force"].shape == (200, 9, 3)
    if name == "force field":
        # Textbook values already point where quantum chemistry does.
        assert np.corrcoef(np.ravel(found.values["force"]), np.ravel(data["force"]))[0, 1] > 0.8


def test_a_molecule_that_moves_keeps_its_energy(data, monkeypatch):
    swings = []
    for step, steps in ((0.25, 400), (0.125, 800)):
        monkeypatch.setattr(ethanol, "STEP", step)
        monkeypatch.setattr(ethanol, "STEPS", steps)
        total = ethanol.motion(known())["total"]
        swings.append(float(jnp.std(total)))
    assert swings[0] < 0.2 and swings[1] == pytest.approx(swings[0] / 4, rel=0.1)  # of second order


def test_units_of_motion():
    joule, metre, kilogram, avogadro = 4184.0, 1e10, 1e3, 6.02214076e23
    second = 1e15
    assert pytest.approx(joule * metre**2 / second**2 * kilogram, rel=1e-4) == ethanol.ACCELERATION
    energies = [float(ethanol.kinetic(ethanol.thrown(300.0, seed))) for seed in range(200)]
    wanted = (
        1.5 * (9 - 1) * 1.380649e-23 * 300.0 * avogadro / joule
    )  # of the nine atoms one moves as the others say
    assert np.mean(energies) == pytest.approx(wanted, rel=0.06)
    assert np.abs((ethanol._MASS * ethanol.thrown(300.0, 0)).sum(axis=0)).max() < 1e-15


@pytest.mark.parametrize("weights", ethanol.WEIGHTS)
def test_what_a_loss_weighs_is_what_is_observed(data, weights):
    made = ethanol.models(data, weights)["force field"]()
    alone = {"energies alone": {"energy"}, "forces alone": {"force"}}
    assert {*made.observables} == alone.get(weights, {"energy", "force"})


def test_chosen_sizes_weigh_squared_forces_as_often_as_they_say():
    for weights, times in {"forces once": 1, "forces a hundredfold": 100}.items():
        energy, force = (ethanol.WEIGHTS[weights][name].scale for name in ("energy", "force"))
        assert (energy / force) ** 2 == pytest.approx(times)


def test_tables_tell_other_weights_from_the_own():
    score = dict.fromkeys(
        ("rmse", "mae", "crps", "log_score", "coverage_50", "coverage_90", "n"), 0.5
    )
    scores = {ethanol.HOTTEST: {"force": score}}
    row = {"model": "hybrid", "number": 100, "seed": 0, "scores": scores}
    rows = [row, row | {"weights": "forces once"}, row | {"model": "force field"}]
    found = ethanol.summary(pd.DataFrame(rows))["CRPS"]
    assert [name for *_, name in found.index] == ["force field", "hybrid", "hybrid, forces once"]
