"""Study files: Python files that define `study()`, and perhaps `tasks()` and `row()`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ..errors import ReadError
from ..many.many import ALONE

_PACKAGE = Path(__file__).parents[1]


def study_files() -> dict[str, Path]:
    """Return case studies by name: the package's own, then those in the working directory.

    The order matters: a folder from somebody else must not replace the code of a known name.

    Returns:
        The files by name.
    """
    found: dict[str, Path] = {}
    for folder in (_PACKAGE.parent / "case_studies", Path("case_studies")):
        for path in sorted(folder.glob("[!_]*.py")):
            found.setdefault(path.stem.replace("_", "-"), path)
    return found


def is_trusted(source: str, folder: Path) -> bool:
    """Whether a command may execute the study that a run folder from anybody names.

    Args:
        source: the study in the run's `study.json`: the name of a case study, or a Python file.
        folder: the run folder.

    Returns:
        False for a Python file outside of the working directory, or inside of the run folder.
    """
    path = Path(source).resolve()
    # Loading a missing file gives a better message.
    if not source.endswith(".py") or not path.is_file():
        return True
    return path.is_relative_to(Path.cwd()) and not path.is_relative_to(folder.resolve())


def module_of(name: str) -> ModuleType:
    """Import a study file.

    Args:
        name: name of a case study, or a Python file.

    Returns:
        The module.

    Raises:
        ReadError: if there is no such file.
    """
    path = Path(name) if name.endswith(".py") else study_files().get(name)
    if path is None or not path.is_file():
        known = ", ".join(study_files()) or "none"
        raise ReadError(
            f"there is no study '{name}'; known are {known}, or give a Python file that defines "
            "study()"
        )
    path = path.resolve()
    return _of_package(path) if (path.parent / "__init__.py").is_file() else _alone(path)


def _of_package(path: Path) -> ModuleType:
    """Import a file of a package, which may use relative imports.

    Raises:
        ReadError: if another package has the same name.
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
    """Import a file that is in no package."""
    # A study called random.py must not shadow another module.
    name = f"{ALONE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
