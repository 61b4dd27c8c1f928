"""Remedies for residuals that differ from the noise of the model.

They never propose the present noise, or a noise that the model cannot have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

# Classes of `bd.noise` that wrap another noise.
_AROUND = ("Censored", "HurdleNoise", "ZeroInflatedNoise")


class Noise(NamedTuple):
    """Properties of the noise of an observable, from a forecast and the data.

    Args:
        kind: the class of the noise; "" if the forecast does not state it.
        family: the distribution of a datum, with any inner distribution, such as
            `CensoredLaw(LogNormal)`.
        lowest: the lowest datum.
        correlated: whether the distribution of a datum depends on earlier data.
        filtered: whether the layer predicts a variance too, so that the noise must be normal.
        varies: whether a parameter of the noise depends on time, predictions or forcings, or is
            known for each datum.
    """

    kind: str = ""
    family: str = ""
    lowest: float = -np.inf
    correlated: bool = False
    filtered: bool = False
    varies: bool = False

    @classmethod
    def of(cls, fc: xr.DataTree, name: str, observed: np.ndarray) -> Noise:
        """Read the properties of the noise of an observable from a forecast and data.

        Args:
            fc: the forecast.
            name: the observable.
            observed: the data, `(datum,)`.

        Returns:
            The properties.
        """
        said = fc["conditional_mean"][name].attrs
        held = fc["noise"].to_dataset().data_vars.values() if "noise" in fc.children else ()
        families = [
            str(v.attrs.get("distribution", "")) for v in held if v.attrs.get("observable") == name
        ]
        flags = {field: bool(said.get(field, 0)) for field in ("correlated", "filtered", "varies")}
        lowest = float(np.nanmin(observed)) if np.isfinite(observed).any() else -np.inf
        return cls(str(said.get("noise", "")), "".join(families[:1]), lowest, **flags)

    def has(self, *words: str) -> bool:
        """Return whether the noise's class or distribution name contains one of these words.

        Returns:
            Whether it does; names of an inner noise count, too.
        """
        return any(word in self.kind or word in self.family for word in words)

    @property
    def counts(self) -> bool:
        """Whether the data are counts."""
        return self.has("Poisson", "Binomial")

    @property
    def logarithmic(self) -> bool:
        """Whether the noise is normal on the log scale."""
        return self.has("LogNormal", "CorrelatedLog")

    @property
    def box_cox(self) -> bool:
        """Whether the noise is normal on a Box–Cox scale."""
        return self.has("BoxCox")

    def inside(self, other: str) -> str:
        """Return a proposed noise in words, inside the wrapper of the present noise if it has one.

        Returns:
            The noise in words.
        """
        return f"{other} inside bd.noise.{self.kind}" if other and self.kind in _AROUND else other


def larger(noise: Noise) -> str:
    """Return the remedy for residuals that are larger than the noise.

    Returns:
        The remedy in words.
    """
    if noise.counts:
        return _either(_overdispersed(noise), "look for what the model misses")
    return "let the scale of the noise be unknown, or look for what the model misses"


def ordered(noise: Noise) -> str:
    """Return the remedy for residuals that are serially correlated.

    Returns:
        The remedy in words.
    """
    missing = "the model misses something that the data follow: a term or a forcing"
    # Only plain continuous noise has a correlated counterpart.
    if noise.correlated or noise.filtered or noise.counts or noise.kind in _AROUND or noise.box_cox:
        return missing
    kind = (
        "bd.filtering.CorrelatedLogNoise" if noise.logarithmic else "bd.filtering.CorrelatedNoise"
    )
    return f"{missing}; or the noise is correlated ({kind})"


def heavy_tailed(noise: Noise) -> str:
    """Return the remedy for heavy-tailed residuals.

    Returns:
        The remedy in words.
    """
    other = ""
    if noise.counts:
        other = _overdispersed(noise)
    elif noise.has("StudentT"):
        other = "fewer degrees of freedom of bd.StudentTNoise"
    elif not (noise.correlated or noise.filtered or noise.logarithmic or noise.box_cox):
        other = "bd.StudentTNoise"
    return _look("some data lie far out", noise.inside(other))


def skewed(noise: Noise, *, above: bool) -> str:
    """Return the remedy for residuals that are more skewed than the noise.

    Args:
        noise: the present noise.
        above: whether the residuals have the longer tail above; otherwise below.

    Returns:
        The remedy in words.
    """
    if above:
        with_zeros = "bd.noise.BoxCoxNoise with a shift, as some data are zero"
        other = _wider_above(noise, with_zeros if noise.lowest == 0 else "")
    else:
        other = _narrower_above(noise, "bd.noise.BoxCoxNoise, which is less skewed")
    return _look(
        f"some data lie far {'above' if above else 'below'} what is predicted", noise.inside(other)
    )


def uneven(noise: Noise, *, grow: bool) -> str:
    """Return the remedy for residuals whose size depends on the prediction.

    Args:
        noise: the present noise.
        grow: whether residuals grow with the prediction; otherwise they shrink.

    Returns:
        The remedy in words.
    """
    combined = noise.has("Combined")
    if grow:
        other = _wider_above(noise, "" if combined else "bd.CombinedNoise")
    elif noise.has("NegativeBinomial"):
        other = "bd.PoissonNoise"
    elif combined:
        other = "bd.NormalNoise"
    else:
        hurdle = noise.kind == "HurdleNoise"
        other = _narrower_above(noise, "bd.noise.BoxCoxNoise" if hurdle else "bd.CombinedNoise")
    # A scale that already varies, or follows from the noise itself, cannot vary otherwise.
    free = not (noise.counts or noise.filtered or noise.varies or combined)
    varying = "a bd.noise.VaryingScale" if free else ""
    choices = [choice for choice in (noise.inside(other), varying) if choice]
    if not choices:
        return f"look for what the model misses where {'much' if grow else 'little'} is predicted"
    return (
        f"take noise that grows {'' if grow else 'less '}with the prediction: "
        f"{', or '.join(choices)}"
    )


def own_scales(noise: Noise, dim: str) -> str:
    """Return the remedy for residuals whose scale differs between groups of a population.

    Args:
        noise: the present noise.
        dim: the dimension of the groups, such as "subject".

    Returns:
        The remedy in words.
    """
    if noise.counts:
        own = _overdispersed(noise) or "an over-dispersion that is bd.varying"
        return f"take {own}, or look for what the model misses of some {dim}s"
    return (
        f"let the scale of the noise be one of each {dim}, such as "
        "bd.varying(dist.HalfNormal(1.0)), or look for what "
        f"the model misses of some {dim}s"
    )


def _wider_above(noise: Noise, not_positive: str) -> str:
    """Return a noise that is wider for large predictions; "" if data and layer allow none.

    Args:
        noise: the present noise.
        not_positive: the proposal for independent noise if some data are not positive.
    """
    if noise.counts:
        return _overdispersed(noise)
    if noise.box_cox:
        return "a smaller power of bd.noise.BoxCoxNoise"
    # A filter needs normal noise, and log-normal noise grows already.
    if noise.filtered or noise.logarithmic:
        return ""
    if noise.lowest > 0:
        return "bd.filtering.CorrelatedLogNoise" if noise.correlated else "bd.LogNormalNoise"
    return "" if noise.correlated else not_positive


def _narrower_above(noise: Noise, instead_of_logs: str) -> str:
    """Return a noise that is narrower for large predictions; "" if the present one is symmetric.

    Args:
        noise: the present noise.
        instead_of_logs: the proposal in place of independent log-normal noise.
    """
    if noise.box_cox:
        return "a larger power of bd.noise.BoxCoxNoise"
    if not noise.logarithmic:
        return ""
    return "bd.filtering.CorrelatedNoise" if noise.correlated else instead_of_logs


def _overdispersed(noise: Noise) -> str:
    """Return a noise of counts with a larger variance; "" if the present one is overdispersed."""
    if noise.has("NegativeBinomial", "BetaBinomial"):
        return ""
    return "bd.noise.BetaBinomialNoise" if noise.has("Binomial") else "bd.NegativeBinomialNoise"


def _look(said: str, other: str) -> str:
    """Return a remedy: check some data, or take another noise.

    Args:
        said: what is conspicuous about some data, in words.
        other: the other noise; "" if there is none.
    """
    return (
        f"{said}: check these data, or "
        f"{f'take {other}' if other else 'look for what the model misses'}"
    )


def _either(other: str, else_: str) -> str:
    """Return a remedy that proposes a noise, if there is one, or else `else_`."""
    return f"take {other}, or {else_}" if other else else_
