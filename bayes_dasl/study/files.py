"""Where the command line finds studies: files that define `study()`, and perhaps `tasks()` and
`row()`.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ..errors import ReadError
from ..many.many import ALONE

_PACKAGE = Path(__file__).parents[1]


def study_files() -> dict[str, Path]:
    """Case studies by name: ours, which stand beside the package, then those of the working
    directory.

    Ours come first, so that a folder that somebody else made cannot put its own code in the place
    of a name of ours.
    """
    found: dict[str, Path] = {}
    for folder in (_PACKAGE.parent / "case_studies", Path("case_studies")):
        for path in sorted(folder.glob("[!_]*.py")):
            found.setdefault(path.stem.replace("_", "-"), path)
    return found


def is_trusted(source: str, folder: Path) -> bool:
    """Whether a command may execute a study that only a run folder names, since the folder may be
    somebody else's.

    Args:
        source: the study of the run, as its `study.json` names it: a case study's name, or a Python
            file.
        folder: the run folder.

    Returns:
        False for a Python file outside of the working directory, or inside of the run folder.
    """
    path = Path(source).resolve()
    if (
        not source.endswith(".py") or not path.is_file()
    ):  # a missing file is named where it is loaded
        return True
    return path.is_relative_to(Path.cwd()) and not path.is_relative_to(folder.resolve())


def module_of(name: str) -> ModuleType:
    """The module of a study.

    Args:
        name: that of a case study, or a Python file.

    Raises:
        ReadError: if there is none.
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
    """A file of a package, which may import others of it by `from . import`.

    Raises:
        ReadError: if another package has its name.
    """
    package = path.parent
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))
    module = importlib.import_module(f"{package.name}.{path.stem}")
    if module.__file__ is None or Path(module.__file__).resolve() != path:
        raise ReadError(
            f"{path} cannot be imported: {module.__file__} is {package.name}.{path.stem} already"
        )
    return module


def _alone(path: Path) -> ModuleType:
    name = f"{ALONE}{path.stem}"  # a study called random.py must not shadow another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module
