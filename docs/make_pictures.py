"""The pictures of the README and the docs, from a run of the lynx–hare study.

Run: `uv run bayes-dasl run lynx-hare && uv run python docs/make_pictures.py runs/lynx-hare`
"""

import sys
from pathlib import Path

import bayes_dasl as bd
from bayes_dasl.plots import plot_decomposition, plot_forecast
from case_studies import lynx_hare

ASSETS = Path(__file__).parent / "assets"


def main(folder: Path) -> None:
    mixed, fc = bd.load(folder / "mixture.nc"), bd.load(folder / "forecast.nc")
    train, test = bd.split(lynx_hare.load(), time=fc.attrs["train_end"])
    parts = bd.decompose(fc)
    pictures = {
        "forecast-hare": plot_forecast(mixed, train, test, "hare"),
        "decomposition-hare": plot_decomposition(parts, "hare", fc.attrs["train_end"]),
        "describe": bd.describe(lynx_hare.study().model).draw(),
    }
    ASSETS.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        figure.savefig(ASSETS / f"{name}.png", dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
