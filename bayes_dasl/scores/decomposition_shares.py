"""The parts of the predictive variance, and a table of their shares."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import xarray as xr

from ..data.dates import from_attribute, in_words

GROUPS = ("science", "network")
PROCESS = "process"
KNOWN = "split_known"
# Parts that add up to the total variance, and names of the thirds of the times after the fit.
_PARTS = ("aleatoric", *GROUPS, PROCESS, "interaction", "unknown")
_THIRDS = ("near", "middle", "far")


class Decomposition(xr.Dataset):
    """The parts of the predictive variance, an `xarray.Dataset` that prints as a table of shares.

    Args:
        data_vars: the parts `(observable, time, …)` by name.
        coords: the coordinates of the forecast.
        attrs: `failed_draws`, `share_error`, and the first and last fitted time `train_start` and
            `train_end`.
    """

    __slots__ = ()

    def shares(self) -> pd.DataFrame:
        """Return the shares of the predictive variance in per cent, by observable and horizon.

        In each row of the forecast, the share of a part is its variance divided by the total. The
        table has the mean over rows, so that shares add up to 100. A negative share is an
        interaction of groups that carry the same information.

        Returns:
            A row for each observable and horizon. The horizon "fitted" has the rows up to the end
            of the fitted data; "near", "middle" and "far" are the thirds of the later rows. If the
            end of the fitted data is unknown, they are the thirds of all rows. `from` and `to` are
            the first and the last row, and `rows` is the number of values with a known variance.
            Science and network are lower bounds if `unknown` is not zero.
        """
        index = str(next(dim for dim in self["total"].dims if dim != "observable"))
        table = []
        for name in self["observable"].values:
            own = self.sel(observable=name)
            for horizon, rows in _horizons(self, index).items():
                shares = _mean_shares(own.isel({index: rows}), index)
                table.append({"observable": name, "horizon": horizon, **shares})
        return pd.DataFrame(table).set_index(["observable", "horizon"])

    def __repr__(self) -> str:
        if not _is_whole(self):
            return super().__repr__()
        table = self.shares().to_string(float_format="{:.0f}".format, na_rep="–")
        variances = f"{', '.join(map(str, self.data_vars))}: variances {dict(self.sizes)}"
        return f"{_TITLE}\n{table}{_notes_on_shares(self)}\n{variances}"

    def _repr_html_(self) -> str:
        if not _is_whole(self):
            return super()._repr_html_()
        table = self.shares().to_html(float_format="{:.0f}".format, na_rep="–")
        notes = html.escape(_notes_on_shares(self).strip())
        return f"<p>{html.escape(_TITLE)}</p>{table}<p>{notes}</p>"


_TITLE = "Shares of the predictive variance in per cent, mean over rows"


def _is_whole(parts: xr.Dataset) -> bool:
    """Return whether all parts are present, as they are not in a selection or a mean."""
    if not {"total", "aleatoric", "epistemic"} <= {*parts.data_vars}:
        return False
    dims = parts["total"].dims
    return len(dims) > 1 and dims[0] == "observable" and "observable" in parts.coords


def _notes_on_shares(parts: xr.Dataset) -> str:
    """Return the notes below the table of shares."""
    said = []
    if KNOWN in parts and not bool((parts[KNOWN] | parts["epistemic"].isnull()).all()):
        said.append("Where a share is unknown, science and network are what they explain at least.")
    if lost := parts.attrs.get("failed_draws", 0):
        said.append(f"{lost} failed draws are left out.")
    return "".join(f"\n{each}" for each in said)


def _horizons(parts: xr.Dataset, index: str) -> dict[str, np.ndarray]:
    """Return the rows of each horizon: the rows of the fit, and the thirds of the other rows."""
    rows = np.arange(parts.sizes[index])
    end = from_attribute(parts.attrs, "train_end")
    fitted = np.zeros(len(rows), bool)
    if end is not None and index in parts.coords:
        fitted = parts[index].values <= end
    found = {"fitted": rows[fitted]} if fitted.any() else {}
    ahead = rows[~fitted]
    if not ahead.size:
        return found
    # One row is "near", and two rows are "near" and "far".
    thirds = np.array_split(ahead, min(len(_THIRDS), len(ahead)))
    names = _THIRDS
    if len(thirds) < len(_THIRDS):
        names = ["near", "far"][: len(thirds)]
    return found | dict(zip(names, thirds, strict=True))


def _mean_shares(parts: xr.Dataset, index: str) -> dict[str, object]:
    """Return a row of the table of shares for one observable and horizon.

    Shares are means over rows and places with a known, positive variance.
    """
    when = parts[index].values if index in parts.coords else np.arange(parts.sizes[index])
    held = {name: part.values.ravel() for name, part in _parts_of_total(parts).items()}
    # Shares are unknown in rows without variance.
    whole = np.sum([*held.values()], axis=0)
    known = np.isfinite(whole) & (whole > 0)
    shares = {
        name: 100 * float((values[known] / whole[known]).mean()) if known.any() else np.nan
        for name, values in held.items()
    }
    return {"from": in_words(when[0]), "to": in_words(when[-1]), "rows": int(known.sum()), **shares}


def _parts_of_total(parts: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the parts that add up to the total variance, by name."""
    if "network" in parts:
        return {name: parts[name] for name in _PARTS if name in parts}
    epistemic = parts["epistemic"]
    found = {"aleatoric": parts["aleatoric"]}
    # Without a network, parameters have the rest of the epistemic variance.
    if "forcing" in parts:
        found["forcing"] = parts["forcing"]
        found["parameters"] = epistemic - parts["forcing"]
    elif PROCESS in parts:
        found["parameters"] = epistemic - parts[PROCESS] - parts["unknown"]
        found[PROCESS] = parts[PROCESS]
        found["unknown"] = parts["unknown"]
    else:
        found["epistemic"] = epistemic
    return found
