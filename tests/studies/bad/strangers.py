"""Files from strangers: run folders that name code, files that reach beyond themselves, names that
are formulas.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.commands import _load_run, _load_study
from bayes_dasl.study.scores import table_of

_EXECUTED = 'from pathlib import Path\n\nPath(__file__).with_name("executed").touch()\n'


def _folder_that_names(*, inside: bool) -> bool:
    """Whether the file that a run folder names was executed; the folder is refused."""
    outside = Path(tempfile.mkdtemp())
    folder = outside / "run"
    folder.mkdir()
    strange = (folder if inside else outside) / "strange.py"
    strange.write_text(_EXECUTED, encoding="utf-8")
    (folder / "study.json").write_text(
        json.dumps({"study": "strange", "key": 0, "source": str(strange)})
    )
    with contextlib.chdir(tempfile.mkdtemp()):
        try:
            _load_run(folder, trust=False)
        finally:
            assert not strange.with_name("executed").exists(), "the file was executed"
    return False


def _our_study_comes_first() -> bool:
    working = Path(tempfile.mkdtemp())
    (working / "case_studies").mkdir()
    (working / "case_studies" / "lynx_hare.py").write_text(_EXECUTED, encoding="utf-8")
    with contextlib.chdir(working):
        return (
            _load_study("lynx-hare").label == "hybrid"
            and not (working / "case_studies" / "executed").exists()
        )


def _formulas_are_quoted() -> bool:
    sizes = {"time": [0.0, 1.0], "site": ["=HYPERLINK(1)", "@SUM(1)"]}
    draws = xr.Dataset(
        {"flow": (("chain", "draw", "time", "site"), np.ones((1, 9, 2, 2)), {"units": "+m/s"})},
        sizes,
    )
    cells = table_of(xr.DataTree.from_dict({"predictions": draws})).replace("\n", ",").split(",")
    return not any(cell.startswith(("=", "+", "@")) for cell in cells)


def _loaded(made: Callable[[h5py.File, Path], object]) -> xr.DataTree:
    """A netCDF file that reaches for the secret beside it."""
    folder = Path(tempfile.mkdtemp())
    secret, path = folder / "secret.h5", folder / "strange.nc"
    with h5py.File(secret, "w") as file:
        file["rate"] = [1.0]
    with h5py.File(path, "w") as file:
        made(file, secret)
    return bd.load(path)


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((1,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "rate", (1,))
    file.create_virtual_dataset("posterior/rate", layout)


def _external_link(file: h5py.File, secret: Path) -> None:
    file["posterior/rate"] = h5py.ExternalLink(str(secret), "/rate")


CASES = {
    "a run folder that names a file elsewhere": lambda: _folder_that_names(inside=False),
    "a run folder that names a file of its own": lambda: _folder_that_names(inside=True),
    "a study of the working directory named as one of ours": _our_study_comes_first,
    "names that are formulas of a spreadsheet": _formulas_are_quoted,
    "a file that claims 298 GiB": lambda: _loaded(
        lambda file, secret: file.create_dataset(
            "posterior/rate", (200_000, 200_000), "f8", chunks=True
        )
    ),
    "a file in external storage": lambda: _loaded(
        lambda file, secret: file.create_dataset(
            "posterior/rate", (6,), "u1", external=[(str(secret), 0, 6)]
        )
    ),
    "a file with an external link": lambda: _loaded(_external_link),
    "a file with a virtual dataset": lambda: _loaded(_virtual),
}
