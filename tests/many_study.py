"""A study file that stands alone, whose tasks need no fit."""

import dataclasses
import os

import matplotlib.pyplot as plt
import pandas as pd

import bayes_dasl as bd


@dataclasses.dataclass
class Power:
    """A class of the file, which workers must find."""

    exponent: int

    def of(self, number: int) -> int:
        return number**self.exponent


def tasks(quick: bool) -> list[dict]:
    return bd.combinations(number=range(2 if quick else 4), exponent=[2, 3])


def row(number: int, exponent: int) -> dict:
    if number == 3 and os.environ.get("MANY_STUDY_FAILS"):
        raise ValueError("three is too many")
    return {"power": Power(exponent).of(number)}


def summary(rows: pd.DataFrame) -> dict:
    figure, axes = plt.subplots()
    axes.plot(rows["number"], rows["power"])
    plt.close(figure)
    return {"Largest powers": rows.groupby("exponent")[["power"]].max(), "Powers": figure}
