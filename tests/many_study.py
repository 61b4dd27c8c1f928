"""A study file that stands alone, whose tasks need no fit."""

import dataclasses
import os
import sys

import equinox as eqx
import matplotlib.pyplot as plt
import pandas as pd

import bayes_dasl as bd


@dataclasses.dataclass
class Power:
    """A class of the file, which workers must find."""

    exponent: int

    def of(self, number: int) -> int:
        return number**self.exponent


class Raised(bd.Module):
    """A module of Equinox, with a class of the file in it, a base and `super()`."""

    power: Power = eqx.field(static=True)
    scale: bd.Scalar = 1.0

    def of(self, number: int) -> int:
        return self.power.of(number)


class Shifted(Raised):
    offset: bd.Scalar = 0.0

    def of(self, number: int) -> int:
        return super().of(number) + int(self.offset)


def tasks(quick: bool) -> list[dict]:
    return bd.many.combinations(number=range(2 if quick else 4), exponent=[2, 3])


def row(number: int, exponent: int) -> dict:
    if number == 3 and os.environ.get("MANY_STUDY_FAILS"):
        raise ValueError("three is too many")
    return {"power": Shifted(Power(exponent)).of(number)}


def summary(rows: pd.DataFrame) -> dict:
    figure, axes = plt.subplots()
    axes.plot(rows["number"], rows["power"])
    plt.close(figure)
    return {"Largest powers": rows.groupby("exponent")[["power"]].max(), "Powers": figure}


if __name__ == "__main__":  # as a script that does its own tasks
    print(
        bd.many.run_many(row, tasks(quick=True), sys.argv[1], workers=2, retries=0)[
            "power"
        ].tolist()
    )
