"""Layers in closed form: no solver, so that compilation is short."""

import dataclasses
from abc import abstractmethod
from typing import Any

import jax.numpy as jnp

from bayes_dasl.layers import AbstractLayer, Prediction


class Curve(AbstractLayer):
    """`y` as a function of the times; it cannot fail."""

    forcings = ()
    units = {}  # noqa: RUF012

    @property
    def outputs(self):
        return ("y",)

    @abstractmethod
    def y(self, times): ...

    def __call__(self, inputs):
        return Prediction({"y": self.y(inputs.times)}, jnp.asarray(True), {"steps": jnp.asarray(0)})


class Gaps(Curve):
    """A line whose segments do not meet."""

    gap: Any

    def y(self, times):
        return times

    def __call__(self, inputs):
        return dataclasses.replace(
            super().__call__(inputs), constraint_residuals={"knots": jnp.asarray(self.gap)}
        )
