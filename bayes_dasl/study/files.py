"""Study files: Python files that define `study()`, and optionally `tasks()` and `row()`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ..errors import ReadError
from ..many.many import ALONE

_PACKAGE = Path(__file__).parents[1]


def study_files() -> dict[str, Path]:
    """Find the case studies of the package, and those in `case_studies` of the working directory.

    A case study of the package takes precedence over a file of the same name in the working
    directory. Otherwise a folder from somebody else could replace the code of a known name.

    Returns:
        The Python files by name of the case study.
    """
    found: dict[str, Path] = {}
    for folder in (_PACKAGE.parent / "case_studies", Path("case_studies")):
        for path in sorted(folder.glob("[!_]*.py")):
            found.setdefault(path.stem.replace("_", "-"), path)
    return found


def is_trusted(source: str, folder: Path) -> bool:
    """Whether a command may execute the study file named in a run folder of unknown origin.

    Args:
        source: the entry `source` of the run's `study.json`: the name of a case study, or a Python
            file.
        folder: the run folder.

    Returns:
        False for a Python file that lies outside the working directory or inside the run folder.
    """
    path = Path(source).resolve()
    # A missing file is refused later, with a better message.
    if not source.endswith(".py") or not path.is_file():
        return True
    return path.is_relative_to(Path.cwd()) and not path.is_relative_to(folder.resolve())


def module_of(name: str) -> ModuleType:
    """Import a study file.

    Args:
        name: name of a case study, or path of a Python file.

    Returns:
        The module.

    Raises:
        ReadError: if there is no such case study or file.
    """
    path = Path(name) if name.endswith(".py") else study_files().get(name)
    if name.endswith(".py") and not Path(name).is_file():
        raise ReadError(f"no such file: {name}")
    if path is None:
        known = ", ".join(study_files()) or "none"
        raise ReadError(
            f"there is no study '{name}'; known are {known}, or give a Python file that defines "
            "study()"
        )
    return module_of_path(path)


def is_ours(path: Path) -> bool:
    """Whether a study file is a case study of the package."""
    return path.is_relative_to(_PACKAGE.parent / "case_studies")


def module_of_path(path: Path) -> ModuleType:
    """Import a Python file.

    Args:
        path: the file, which exists.

    Returns:
        The module.
    """
    path = path.resolve()
    return _of_package(path) if (path.parent / "__init__.py").is_file() else _alone(path)


def _of_package(path: Path) -> ModuleType:
    """Import a file that belongs to a package, and so may use relative imports.

    Raises:
        ReadError: if another package of the same name was imported before.
    """
    package = path.parent
    # Relative imports need the package itself to be importable.
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))
    module = importlib.import_module(f"{package.name}.{path.stem}")
    if module.__file__ is None or Path(module.__file__).resolve() != path:
        raise ReadError(
            f"{path} cannot be imported: {module.__file__} is {package.name}.{path.stem} already"
        )
    return module


def _alone(path: Path) -> ModuleType:
    """Import a file that belongs to no package; it may import files beside it."""
    # Last, so that a file called random.py does not replace another module.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    # A study called random.py must not shadow another module.
    name = f"{ALONE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look up their module in `sys.modules`.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
