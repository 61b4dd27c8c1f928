"""Synthetic results: DataTrees with the layout that `fit` and `forecast` return, made by NumPy."""

from __future__ import annotations

import numpy as np
import xarray as xr

UNITS = "thousand pelts"
LONG_NAMES = {"hare": "hare pelts", "lynx": "lynx pelts"}
CENTRES = {"hare": 30.0, "lynx": 25.0}
TRAIN_TIMES = np.arange(1900.0, 1913.0)
TEST_TIMES = np.arange(1913.0, 1921.0)
NOISE_SCALE = 0.25
SCIENCE = {  # name: (full path, units, location and scale of the log)
    "birth": ("layer.vector_field.science.birth", "1/year", -0.60, 0.15),
    "predation": ("layer.vector_field.science.predation", "1/(thousand pelts year)", -3.6, 0.2),
    "death": ("layer.vector_field.science.death", "1/year", -0.22, 0.15),
    "growth": ("layer.vector_field.science.growth", "1/(thousand pelts year)", -3.7, 0.2),
    "initial.hare": ("layer.initial.hare", UNITS, 3.4, 0.1),
    "initial.lynx": ("layer.initial.lynx", UNITS, 1.8, 0.1),
    "hare.scale": ("noise.hare.scale", "", -1.4, 0.15),
    "lynx.scale": ("noise.lynx.scale", "", -1.4, 0.15),
}
WEIGHTS = {
    "layers.0.weight": (4, 2),
    "layers.0.bias": (4,),
    "layers.1.weight": (2, 4),
    "layers.1.bias": (2,),
}


def curve(observable: str, time: np.ndarray) -> np.ndarray:
    """Return a smooth cycle of about ten years; the lynx follow the hares."""
    lag = 0.0 if observable == "hare" else 2.0
    return CENTRES[observable] * np.exp(0.7 * np.sin(2 * np.pi * (time - 1901.0 - lag) / 9.6))


def make_data(
    seed: int = 0,
    *,
    missing: int = 0,
    observables: tuple[str, ...] = ("hare", "lynx"),
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return (train, test); the first `missing` training values and test values are NaN."""
    rng = np.random.default_rng(seed + 1000)

    def part(time: np.ndarray) -> xr.Dataset:
        values = {}
        for name in observables:
            noise = rng.normal(size=time.size)
            values[name] = curve(name, time) * np.exp(NOISE_SCALE * noise)
            values[name][:missing] = np.nan
        return _labelled({name: (("time",), y) for name, y in values.items()}, time)

    return part(TRAIN_TIMES), part(TEST_TIMES)


def make_post(
    seed: int = 0,
    *,
    chains: int = 4,
    draws: int = 200,
    network: bool = True,
    observables: tuple[str, ...] = ("hare", "lynx"),
    divergences: int = 0,
    failures: int = 0,
    prior_failures: int = 0,
    missing: int = 0,
    interrupted: bool = False,
    draws_requested: int | None = None,
    stuck_chain: int | None = None,
    split_weights: bool = False,
    autocorrelation: float = 0.0,
) -> xr.DataTree:
    """Return a posterior as from `fit`.

    `failures` and `prior_failures` count solver failures; `stuck_chain` moves one chain away;
    `split_weights` puts the network's weights, but not the trajectories, in another mode in each
    chain; `autocorrelation` is the lag-one correlation of every draw.
    """
    rng = np.random.default_rng(seed)
    shape = (chains, draws)
    shift = np.zeros((chains, 1))
    if stuck_chain is not None:
        shift[stuck_chain] = 8.0
    science = {name: _ar1(rng, shape, autocorrelation) + shift for name in SCIENCE}
    weights = {
        name: _ar1(rng, (*shape, *size), autocorrelation)
        + (5.0 * np.arange(chains).reshape(chains, 1, *[1] * len(size)) if split_weights else 0.0)
        for name, size in WEIGHTS.items()
        if network
    }
    failed = _spread(rng, shape, failures)
    mean = {
        name: _ensemble(name, TRAIN_TIMES, science["birth"], science["death"], failed)
        for name in observables
    }
    train, _ = make_data(seed, missing=missing, observables=observables)
    prior_shape = (1, 500)
    groups = {
        "/": xr.Dataset(attrs=_provenance(chains, draws, draws_requested, interrupted)),
        "posterior": _parameters(science, weights, widen=1.0),
        "prior": _parameters(
            {name: rng.normal(size=prior_shape) for name in SCIENCE},
            {name: rng.normal(size=(*prior_shape, *WEIGHTS[name])) for name in weights},
            widen=3.0,
        ),
        "sample_stats_prior": xr.Dataset(
            {
                "ok": (("chain", "draw"), ~_spread(rng, prior_shape, prior_failures)),
                "steps": (("chain", "draw"), rng.integers(40, 90, prior_shape)),
            },
            coords=_sample_coords(prior_shape),
        ),
        "sample_stats": _sample_stats(rng, science, failed, divergences),
        "log_likelihood": _labelled(
            {
                name: (("chain", "draw", "time"), _log_density(train[name].values, mean[name]))
                for name in observables
            },
            TRAIN_TIMES,
            shape,
        ),
        "conditional_mean": _labelled(
            {name: (("chain", "draw", "time"), mean[name]) for name in observables},
            TRAIN_TIMES,
            shape,
        ),
        "observed_data": train,
        "constant_data": xr.Dataset(attrs={"start": TRAIN_TIMES[0]}),
    }
    return xr.DataTree.from_dict(groups)


def make_fc(
    seed: int = 0,
    *,
    chains: int = 4,
    draws: int = 200,
    network: bool = True,
    observables: tuple[str, ...] = ("hare", "lynx"),
    failures: int = 0,
    noise_scale: float = NOISE_SCALE,
    train: bool = True,
) -> xr.DataTree:
    """Return a forecast as from `forecast`, over the training times (if `train`) and test times.

    The means follow from `birth` and, with a network, from the sum of its last bias: the other
    leaves of the group `posterior` do nothing. Whole draws fail (`failures`).
    """
    rng = np.random.default_rng(seed + 1)
    time = np.concatenate([TRAIN_TIMES, TEST_TIMES]) if train else TEST_TIMES
    shape, dims = (chains, draws), ("chain", "draw", "time")
    failed = _spread(rng, shape, failures)
    science, weights = rng.normal(size=shape), rng.normal(size=shape) * (1.0 if network else 0.0)
    median = {name: _ensemble(name, time, science, weights, failed) for name in observables}
    variance = noise_scale**2
    fields = {
        "predictions": {
            name: z * np.exp(noise_scale * rng.normal(size=z.shape)) for name, z in median.items()
        },
        "conditional_mean": {name: z * np.exp(variance / 2) for name, z in median.items()},
        "conditional_variance": {
            name: z**2 * np.expm1(variance) * np.exp(variance) for name, z in median.items()
        },
    }
    groups = {
        "/": xr.Dataset(
            attrs={
                "key": seed,
                "train_start": float(TRAIN_TIMES[0]),
                "train_end": float(TRAIN_TIMES[-1]),
                "created": "2026-01-02T03:05:05+00:00",
                "wall_time_s": 1.25,
            }
        ),
        "sample_stats_predictions": xr.Dataset(
            {
                "ok": (("chain", "draw"), ~failed),
                "steps": (("chain", "draw"), rng.integers(60, 140, shape)),
            },
            coords=_sample_coords(shape),
        ),
    }
    for group, values in fields.items():
        variables = {name: (dims, y) for name, y in values.items()}
        groups[group] = _labelled(variables, time, shape)
    groups["posterior"] = _pushed(rng, science, weights if network else None)
    if network:
        groups["exchanged_mean"] = _exchanged(
            time, science.ravel(), weights.ravel(), observables, variance
        )
    return xr.DataTree.from_dict(groups)


def _exchanged(time, science, weights, observables, variance) -> xr.Dataset:
    """Means of the draws with one group kept and the other that of the next draw."""
    sound = np.zeros(science.shape, bool)
    pairs = (science, np.roll(weights, 1)), (np.roll(science, 1), weights)
    means = {
        name: np.stack([_ensemble(name, time, *pair, sound) for pair in pairs])
        * np.exp(variance / 2)
        for name in observables
    }
    coords = {"kept": ["science", "network"], "exchange": np.arange(science.size), "time": time}
    return xr.Dataset(
        {name: (("kept", "exchange", "time"), y) for name, y in means.items()}, coords
    )


def _ensemble(name, time, science, weights, failed) -> np.ndarray:
    """Medians (..., time) that widen with time; NaN where `failed`."""
    lead = np.maximum(time - TRAIN_TIMES[-1], 0.0)
    wave = np.cos(2 * np.pi * time / 9.6)
    exponent = (0.05 + 0.015 * lead) * science[..., None] * wave
    exponent = exponent + (0.02 + 0.01 * lead) * weights[..., None]
    return np.where(failed[..., None], np.nan, curve(name, time) * np.exp(exponent))


def _pushed(rng, science, weights) -> xr.Dataset:
    """Leaves whose `birth` is `science` and whose last bias sums to `weights`, all standard normal
    underneath.
    """
    leaves = {name: rng.normal(size=science.shape) for name in SCIENCE} | {"birth": science}
    if weights is None:
        return _parameters(leaves, {}, widen=1.0)
    network = {name: rng.normal(size=(*science.shape, *size)) for name, size in WEIGHTS.items()}
    other = network["layers.1.bias"][..., 0]
    network["layers.1.bias"] = np.stack([weights + other, weights - other], axis=-1) / np.sqrt(2)
    return _parameters(leaves, network, widen=1.0)


def _labelled(variables, time, shape: tuple[int, int] | None = None) -> xr.Dataset:
    coords = {"time": ("time", time, {"units": "year"})}
    dataset = xr.Dataset(variables, coords=coords | (_sample_coords(shape) if shape else {}))
    for name in dataset.data_vars:
        dataset[name].attrs = {"units": UNITS, "long_name": LONG_NAMES.get(str(name), str(name))}
    return dataset


def _sample_coords(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    return {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}


def _spread(rng, shape, count: int) -> np.ndarray:
    flags = np.zeros(int(np.prod(shape)), bool)
    flags[rng.choice(flags.size, count, replace=False)] = True
    return flags.reshape(shape)


def _ar1(rng, shape, correlation: float) -> np.ndarray:
    draws = rng.normal(size=shape)
    for i in range(1, shape[1]):
        draws[:, i] *= np.sqrt(1 - correlation**2)
        draws[:, i] += correlation * draws[:, i - 1]
    return draws


def _log_density(observed: np.ndarray, mean: np.ndarray) -> np.ndarray:
    residual = (np.log(observed) - np.log(mean)) / NOISE_SCALE
    return -0.5 * residual**2 - np.log(NOISE_SCALE * np.sqrt(2 * np.pi) * observed)


def _parameters(science, weights, *, widen: float) -> xr.Dataset:
    variables = {}
    for name, standard in science.items():
        path, units, location, scale = SCIENCE[name]
        spread = widen * scale
        prior = f"LogNormal({location:.2f}, {3 * scale:.2f})"
        attrs = {"path": path, "group": "science", "units": units, "prior": prior}
        variables[name] = (("chain", "draw"), np.exp(location + spread * standard), attrs)
    for name, standard in weights.items():
        path = f"layer.vector_field.closure.module.{name}"
        attrs = {"path": path, "group": "network", "units": "", "prior": "Normal(0, 0.07)"}
        inner = [f"{name}_dim_{i}" for i in range(standard.ndim - 2)]
        variables[name] = (("chain", "draw", *inner), 0.07 * standard, attrs)
    return xr.Dataset(variables, coords=_sample_coords(science["birth"].shape))


def _sample_stats(rng, science, failed, divergences: int) -> xr.Dataset:
    shape = failed.shape
    deviance = sum(z**2 for z in science.values())
    variables = {
        "diverging": _spread(rng, shape, divergences),
        "n_steps": np.full(shape, 7),
        "acceptance_rate": rng.uniform(0.75, 1.0, shape),
        "energy": 80.0 + 0.5 * deviance + rng.gamma(4.0, 1.0, shape),
        "lp": -80.0 - 0.5 * deviance,
        "step_size": np.full(shape, 0.6),
        "solver_failure": failed,
    }
    dims = ("chain", "draw")
    return xr.Dataset(
        {name: (dims, values) for name, values in variables.items()}, coords=_sample_coords(shape)
    )


def _provenance(chains, draws, requested, interrupted) -> dict[str, str | int | float]:
    requested = draws * (2 if interrupted else 1) if requested is None else requested
    versions = {
        "bayes_dasl": "0.1.0",
        "jax": "0.12.0",
        "numpyro": "0.22.0",
        "diffrax": "0.7.2",
        "blackjax": "1.7.1",
        "python": "3.13.1",
    }
    return {
        "key": 0,
        "engine": f"NUTS(chains={chains}, warmup=300, draws={requested})",
        "created": "2026-01-02T03:04:05+00:00",
        "wall_time_s": 21.5,
        "sampling_time_s": 2.4,
        "data_sha256": "0123456789abcdef" * 4,
        "interrupted": int(interrupted),
        "draws_requested": requested,
        "platform": "Linux",
        "devices": "2 x cpu",
    } | {f"version_{name}": version for name, version in versions.items()}
