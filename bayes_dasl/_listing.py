"""Names that `<Tab>` shows in a namespace such as `bd.noise`."""

import sys
from collections.abc import Callable

# Names that stand in a namespace for other modules of the package only.
_INNER = {
    *("AbstractCrossCorrelation", "AbstractHybrid", "AbstractLinear", "Model", "Read"),
    *("check_engine", "is_linear", "linear_parts", "rows_of", "solver_settings", "summarised"),
    "with_adjoint",
}
# Modules for users within a namespace.
_MODULES = ("metrics",)


def listed(namespace: str) -> Callable[[], list[str]]:
    """Return the `__dir__` of a namespace, which lists names for users and no files or imports.

    Args:
        namespace: its `__name__`.
    """

    def names() -> list[str]:
        held = vars(sys.modules[namespace]).items()
        return [name for name, value in held if name in _MODULES or _is_ours(name, value)]

    return names


def _is_ours(name: str, value: object) -> bool:
    """Whether a name is public, and its value defined in this package; modules are defined
    nowhere.
    """
    home = str(getattr(value, "__module__", ""))
    ours = home.startswith("bayes_dasl.") and home != "bayes_dasl.errors"
    return ours and name not in _INNER and not name.startswith("_")
