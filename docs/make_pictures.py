"""The pictures of the README and the docs, from runs of the case studies.

Run: `uv run bayes-dasl run NAME` for lynx-hare, influenza, fluids, turbulence, ethanol, molecules,
climate, climate-models, climate-regions, and then
`uv run python docs/make_pictures.py runs/lynx-hare runs/fluids runs/turbulence` and so on, a folder
for each.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.plots import plot_decomposition, plot_forecast
from bayes_dasl.study import Run, module_of
from case_studies import influenza

ASSETS = Path(__file__).parent / "assets"


def of_lynx_hare(folder: Path) -> dict[str, Figure]:
    fc = bd.load(folder / "forecast.nc")
    return {
        "decomposition-hare": plot_decomposition(bd.decompose(fc), "hare", fc.attrs["train_end"])
    }


def of_influenza(folder: Path) -> dict[str, Figure]:
    study = influenza.study()
    train, test = bd.split(study.data, time=study.split)
    fc = bd.load(folder / "forecast.nc")
    return {"influenza": plot_forecast(fc, train, test, "in_bed")}


OWN = {"lynx-hare": of_lynx_hare, "influenza": of_influenza}
"""How the pictures of studies without a `picture` are drawn."""


def main(folders: list[Path]) -> None:
    ASSETS.mkdir(exist_ok=True)
    for folder in folders:
        name = folder.name
        if name in OWN:
            pictures = OWN[name](folder)
        else:
            module = module_of(name)
            pictures = {f"gallery-{name}": module.picture(Run(module.study(), folder))}
        for file, figure in pictures.items():
            figure.savefig(ASSETS / f"{file}.png", dpi=160)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
