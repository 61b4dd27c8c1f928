"""Draws to and from a DataTree and a file, and what is read in a fresh Python process."""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError, ReadError, WriteError
from bayes_dasl.prediction import (
    check_belongs,
    draws_dataset,
    draws_of,
    names,
    series_dataset,
    signature,
)
from bayes_dasl.random import paths

ROOT = Path(__file__).resolve().parents[1]


def unknown():
    return dist.LogNormal(-0.6, 0.5)


class Growth(bd.Module):
    rate: bd.Scalar = bd.field(units="1/day")

    def __call__(self, t, y, u):
        return {name: self.rate * value for name, value in y.items()}


class Shrinkage(Growth):
    pass


def model(field=Growth, *, noise=("hare", "lynx"), width=3):
    net = eqx.nn.MLP(1, 1, width, 1, key=jax.random.key(0))
    hybrid = bd.Residual(field(unknown()), bd.Network(net, ("hare",), ("hare",)))
    layer = bd.ODE(hybrid, {"hare": unknown(), "lynx": 1.0}, units={"hare": "kg"})
    return bd.Model(layer, {name: bd.LogNormalNoise(unknown()) for name in noise})


def draws_by_path(of, chains=2, length=3):
    rng = np.random.default_rng(0)
    return {
        path: rng.normal(size=(chains, length, *leaf.shape)) for path, leaf in paths(of).items()
    }


def posterior(of, draws):
    groups = {
        "posterior": draws_dataset(of, draws),
        "observed_data": xr.Dataset(),
        "constant_data": xr.Dataset(),
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["signature"] = signature(of)
    return tree


class TestNames:
    def test_are_short(self):
        assert list(names(model()).values())[:2] == ["rate", "layers.0.weight"]

    def test_do_not_clash_with_observables(self):
        assert names(model())["layer.initial.hare"] == "initial.hare"

    def test_tell_the_noises_apart(self):
        found = names(model())
        assert [found[f"noise.{name}.scale"] for name in ("hare", "lynx")] == [
            "hare.scale",
            "lynx.scale",
        ]


class TestDraws:
    def test_carry_units_group_and_prior(self):
        dataset = draws_dataset(model(), draws_by_path(model()))
        assert dataset["rate"].attrs == {
            "path": "layer.vector_field.science.rate",
            "group": "science",
            "units": "1/day",
            "prior": "LogNormal(-0.6, 0.5)",
            "pooled": 0,
            "lower": 0.0,
        }
        assert dataset["initial.hare"].attrs["units"] == "kg"
        weight = dataset["layers.0.weight"]
        assert weight.dims == ("chain", "draw", "layers.0.weight_dim_0", "layers.0.weight_dim_1")
        assert (weight.attrs["group"], weight.attrs["prior"]) == ("network", "Normal(0, 1)")
        assert {d: dataset[d].values.tolist() for d in ("chain", "draw")} == {
            "chain": [0, 1],
            "draw": [0, 1, 2],
        }

    def test_come_back_by_path(self):
        draws = draws_by_path(model())
        back = draws_of(model(), posterior(model(), draws))
        assert list(back) == list(draws)
        for path, values in draws.items():
            np.testing.assert_array_equal(back[path], values.reshape(-1, *values.shape[2:]))

    def test_series_keep_the_units_of_the_data(self):
        data = xr.Dataset({"hare": ("time", [1.0, 2.0], {"units": "kg"})}, {"time": [0.0, 1.0]})
        series = series_dataset(
            {"hare": np.ones((1, 4, 2)), "total": np.ones((1, 4, 2))}, data["time"], data
        )
        assert series["hare"].dims == ("chain", "draw", "time")
        assert (series["hare"].attrs, series["total"].attrs) == ({"units": "kg"}, {})


class TestBelongs:
    post = posterior(model(), draws_by_path(model()))

    def test_the_order_of_observables_does_not_count(self):
        check_belongs(model(noise=("lynx", "hare")), self.post)

    def test_to_an_equal_model_whatever_its_priors(self):
        other = eqx.tree_at(lambda m: m.layer.initial["hare"], model(), dist.Gamma(2.0, 1.0))
        check_belongs(other, self.post)

    def test_what_is_shared_belongs_by_its_name_wherever_it_stands(self):
        def shares(layer):
            rate = bd.shared(dist.LogNormal(0.0, 1.0), "rate")
            return bd.Model(layer(Growth(rate)), bd.LogNormalNoise(0.1))

        of_steps = shares(lambda growth: bd.Difference(growth, {"hare": 1.0, "lynx": 1.0}))
        of_rates = shares(lambda growth: bd.ODE(growth, {"hare": 1.0, "lynx": 1.0}))
        check_belongs(of_steps, posterior(of_rates, draws_by_path(of_rates)))

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (
                model(noise=("hare",)),
                "only the posterior has noise.lynx.scale; the posterior's observables",
            ),
            (
                model(Shrinkage),
                "science.rate is .*Growth.* in the posterior and .*Shrinkage.* in the model",
            ),
            (
                model(width=4),
                r"layers.0.weight is \[\[3, 1\], .* in the posterior and \[\[4, 1\], ",
            ),
            (
                eqx.tree_at(lambda m: m.layer.initial["lynx"], model(), unknown()),
                "only the model has .*initial.lynx",
            ),
        ],
    )
    def test_not_to_another_model(self, other, message):
        with pytest.raises(MismatchError, match=message):
            draws_of(other, self.post)

    @pytest.mark.parametrize(
        "post", [xr.DataTree(), xr.DataTree.from_dict({"prior": xr.Dataset()})]
    )
    def test_no_posterior(self, post):
        with pytest.raises(MismatchError, match="no group 'posterior'"):
            check_belongs(model(), post)


class TestFile:
    tree = posterior(model(), draws_by_path(model()))

    def test_round_trip(self, tmp_path):
        path = tmp_path / "new" / "post.nc"
        assert bd.save(self.tree, path) == path
        back = bd.load(path)
        xr.testing.assert_identical(back, self.tree)
        for values in draws_of(model(), back).values():
            assert np.isfinite(values).all()
        path.unlink()  # the draws are in memory: the file is free
        assert [p.name for p in path.parent.iterdir()] == []

    @pytest.mark.parametrize(
        "step", [(Path, "write_bytes"), (os, "fsync"), (os, "replace")], ids=lambda step: step[1]
    )
    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr
    )
    def test_a_failing_write_leaves_the_old_file(self, tmp_path, monkeypatch, step, error):
        path = bd.save(self.tree, tmp_path / "post.nc")
        before = path.read_bytes()

        def tear(target, *rest):
            if step[0] is Path:
                with open(target, "wb") as file:
                    file.write(b"half")
            raise error

        monkeypatch.setattr(*step, tear)
        expected, reason = (
            (KeyboardInterrupt, None)
            if isinstance(error, KeyboardInterrupt)
            else (WriteError, str(path))
        )
        with pytest.raises(expected, match=reason):
            bd.save(self.tree, path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(WriteError, match=r"cannot write .*post\.nc"):
            bd.save(self.tree, tmp_path / "file" / "post.nc")

    def test_a_missing_file(self, tmp_path):
        for path in (tmp_path / "none.nc", tmp_path):
            with pytest.raises(ReadError, match=f"there is no file {path}"):
                bd.load(path)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_a_torn_file(self, tmp_path, share):
        path = bd.save(self.tree, tmp_path / "post.nc")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ReadError, match=f"{path} is torn or not a netCDF file"):
            bd.load(path)

    @pytest.mark.parametrize("where", np.linspace(0.0, 0.999, 25))
    def test_a_flipped_bit(self, tmp_path, where):
        """Also in a number, where HDF5 itself sees nothing wrong."""
        path = bd.save(self.tree, tmp_path / "post.nc")
        written = bytearray(path.read_bytes())
        written[int(where * written.rindex(b"bayes_dasl sha256"))] ^= 4
        path.write_bytes(written)
        with pytest.raises(ReadError, match="its checksum is another than when it was written"):
            bd.load(path)

    @pytest.mark.thorough
    def test_others_read_a_file_of_ours_and_we_read_theirs(self, tmp_path):
        path = bd.save(self.tree, tmp_path / "post.nc")
        with xr.open_datatree(path, engine="h5netcdf") as theirs:
            xr.testing.assert_identical(theirs.load(), self.tree)
        self.tree.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
        xr.testing.assert_identical(bd.load(tmp_path / "theirs.nc"), self.tree)

    @pytest.mark.parametrize(
        "content", [b"chain,draw\n0,1\n", b"CDF\x01" + bytes(64), b"PK\x03\x04" + bytes(64)]
    )
    def test_a_foreign_file(self, tmp_path, content):
        path = tmp_path / "foreign.nc"
        path.write_bytes(content)
        with pytest.raises(ReadError, match=f"{path} is torn or not a netCDF file"):
            bd.load(path)

    def test_a_netcdf_file_that_is_not_ours(self, tmp_path):
        path = tmp_path / "foreign.nc"
        xr.Dataset({"x": ("time", np.arange(3.0))}).to_netcdf(path, engine="h5netcdf")
        with pytest.raises(MismatchError, match="this is no posterior"):
            check_belongs(model(), bd.load(path))


USE = """
import numpyro.distributions as dist, xarray as xr
field = lambda t, y, u: {"y": -y["y"]}
model = bd.Model(bd.ODE(field, {"y": dist.LogNormal(0.0, 1.0)}), bd.NormalNoise(1.0))
data = xr.Dataset({"y": ("time", [1.0, 0.5])}, {"time": [0.0, 1.0]})
"""
CHECK = """
from bayes_dasl.model import check_data
import jax, numpyro
print(check_data(model, data)["y"].dtype, len(jax.devices()))
arviz.summary, jax.numpy.linalg.norm, numpyro.distributions.distribution.Distribution
"""
# A process costs seconds: the one with arviz last is also the one in single precision.
PROGRAMS = {
    "arviz first": "import arviz, bayes_dasl as bd" + USE + CHECK,
    "arviz last": "import bayes_dasl as bd, arviz" + USE + CHECK + "bd.fit(model, data)",
}


@pytest.fixture(scope="module")
def results():
    """Output, errors and exit status of each program; they run side by side."""
    double = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    environments = {"arviz first": double, "arviz last": double | {"JAX_ENABLE_X64": "0"}}
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environments[name],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, program in PROGRAMS.items()
    }
    return {
        name: (*process.communicate(timeout=120), process.returncode)
        for name, process in running.items()
    }


class TestFreshProcess:
    """What depends on the order of imports or on the environment."""

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("name", "dtype"), [("arviz first", "float64"), ("arviz last", "float32")]
    )
    def test_arviz_may_be_imported_before_or_after(self, results, name, dtype):
        """ArviZ puts stand-ins in the place of JAX and NumPyro, whose submodules would then be
        missing.
        """
        out, err, _ = results[name]
        assert out.split() == [dtype, "1"], err

    @pytest.mark.thorough
    def test_double_precision_is_the_default(self, results):
        _, err, code = results["arviz first"]
        assert code == 0, err

    @pytest.mark.thorough
    def test_single_precision_is_refused(self, results):
        _, err, code = results["arviz last"]
        assert code == 1
        assert "BayesDaslError: JAX computes in single precision" in err
        assert "jax.config.update('jax_enable_x64', True)" in err
