"""`example_data`: small data sets that come with the package."""

import json
from pathlib import Path
from typing import Any, Literal, overload

import pandas as pd
import xarray as xr

from ..errors import DataError

_FOLDER = Path(__file__).parent / "examples"


@overload
def example_data(name: Literal["heat"]) -> xr.Dataset: ...
@overload
def example_data(name: str | None = None) -> pd.DataFrame: ...
def example_data(name: str | None = None) -> Any:
    """Load a small example, or list the examples.

    Simulated examples are made by `tests/studies/example_data.py` in the repository.

    Args:
        name: the example; without it the examples are listed.

    Returns:
        A table for `bd.from_table`, or a dataset for the field `heat`. Its `attrs` hold `title`,
        `source` and `licence`; those of a table hold `units` by column too. Without a name: a
        table with one row for each example.

    Raises:
        DataError: if there is no such example.

    Example:
        ```python
        table = bd.example_data("tank")
        data = bd.from_table(table, "level", forcings="inflow")
        print(table.attrs["title"], dict(data.sizes))
        ```
    """
    index = json.loads((_FOLDER / "index.json").read_text(encoding="utf-8"))
    if name is None:
        listed = {key: {"rows": of["rows"], "title": of["title"]} for key, of in index.items()}
        return pd.DataFrame.from_dict(listed, orient="index").rename_axis("name")
    if name not in index:
        raise DataError(f"there is no example '{name}'; the examples are {', '.join(index)}")
    about = index[name]
    table = pd.read_csv(_FOLDER / f"{name}.csv", parse_dates=about.pop("dates"))
    dims = about.pop("dims")
    if not dims:
        table.attrs = about
        return table
    units = about.pop("units")
    field = table.set_index(dims).to_xarray().assign_attrs(about)
    for variable in units:
        field[variable].attrs["units"] = units[variable]
    return field
