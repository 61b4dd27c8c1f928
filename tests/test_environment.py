"""pyproject.toml, environment.yml, README.md and .ci/run say the same thing."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.studies.structure import design_rows

ROOT = Path(__file__).resolve().parents[1]
TEST_COMMAND = "pip install uv && uv run pytest"
BY_CONDA = {"python", "pip", "c-compiler", "cxx-compiler"}
"""All that conda-forge need have: other packages may be older there than pyproject.toml asks for.
"""


def bounds(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """Version bounds by package."""
    parsed = [Requirement(line) for line in requirements]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def by_conda(environment: dict[str, Any]) -> list[str]:
    """The packages that conda installs itself."""
    return [entry for entry in environment["dependencies"] if isinstance(entry, str)]


def by_pip(environment: dict[str, Any]) -> list[str]:
    """The packages that pip installs, without the project."""
    lines = [
        line
        for entry in environment["dependencies"]
        if isinstance(entry, dict)
        for line in entry["pip"]
    ]
    return [line for line in lines if line != "-e ."]


def differences(pyproject: dict[str, Any], environment: dict[str, Any]) -> dict[str, tuple]:
    """Packages that differ: the requirement in pyproject.toml and that in environment.yml.

    The project installs its runtime packages itself, so pip lists those of development, with their
    extras.
    """

    def named(lines):
        return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}

    wanted = named(pyproject["dependency-groups"]["dev"])
    wanted["python"] = Requirement("python" + pyproject["project"]["requires-python"])
    found = named(by_pip(environment))
    found |= {
        n: r for n, r in named(by_conda(environment)).items() if n == "python" or n not in BY_CONDA
    }
    names = wanted.keys() | found.keys()
    return {n: (wanted.get(n), found.get(n)) for n in names if wanted.get(n) != found.get(n)}


@pytest.fixture
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def environment() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment_equals_pyproject(pyproject, environment):
    assert differences(pyproject, environment) == {}


def test_conda_installs_python_and_compilers_alone(environment):
    assert set(bounds(by_conda(environment))) == BY_CONDA
    (section,) = [entry for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert section["pip"][0] == "-e ."


@pytest.mark.parametrize(
    ("old", "new", "package"),
    [
        ("python>=3.12", "python>=3.11", "python"),
        (None, "tensorflow>=2", "tensorflow"),
        (None, "jax>=0.11.2", "jax"),
    ],
)
def test_a_difference_in_what_conda_installs_is_seen(pyproject, environment, old, new, package):
    lines = [e for e in environment["dependencies"] if e != old] + ([new] if new else [])
    assert set(differences(pyproject, {"dependencies": lines})) == {package}


@pytest.mark.parametrize(
    ("old", "new", "package"),
    [
        ("flax>=0.12", "flax>=0.11", "flax"),
        ("pyarrow>=18.0", None, "pyarrow"),
        ("mkdocstrings[python]>=1.0", "mkdocstrings>=1.0", "mkdocstrings"),
        (None, "tensorflow>=2", "tensorflow"),
    ],
)
def test_a_difference_in_what_pip_installs_is_seen(pyproject, environment, old, new, package):
    lines = [line for line in by_pip(environment) if line != old] + ([new] if new else [])
    changed = [*by_conda(environment), {"pip": ["-e .", *lines]}]
    assert set(differences(pyproject, {"dependencies": changed})) == {package}


def test_every_direct_package_is_pinned_within_its_bounds(pyproject):
    project = pyproject["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    direct = bounds([*project["dependencies"], *extras, *pyproject["dependency-groups"]["dev"]])
    pins = bounds(pyproject["tool"]["uv"]["constraint-dependencies"])
    assert direct.keys() <= pins.keys()
    for name, allowed in direct.items():
        (pin,) = pins[name]
        assert pin.operator == "=="
        assert allowed.contains(pin.version), f"{name}: {pin.version} is not {allowed}"


def test_pins_name_packages_and_versions_only(pyproject):
    pins = [Requirement(line) for line in pyproject["tool"]["uv"]["constraint-dependencies"]]
    assert all(pin.url is None and len(pin.specifier) == 1 for pin in pins)


def test_no_lock_file_is_tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "*.lock"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert tracked.stdout == ""


def test_readme_is_short_and_its_test_command_is_what_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 120
    assert TEST_COMMAND in readme
    assert f'test_command="{TEST_COMMAND}"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_rows_of_the_architecture_are_those_of_the_contract(pyproject):
    contract = pyproject["tool"]["importlinter"]["contracts"][0]
    assert [modules for _, modules in design_rows(ROOT)] == [
        row.split(" | ") for row in contract["layers"]
    ]


def test_the_citation_and_the_source_archive_keep_up(pyproject):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pyproject["project"]["version"]
    assert citation["license"] == pyproject["project"]["license"]
    included = {
        path.strip("/")
        for path in pyproject["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    }
    assert all((ROOT / name).exists() for name in included)
    tracked = {
        "bayes_dasl",
        "case_studies",
        "docs",
        "tests",
        ".ci",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "CHANGELOG.md",
    }
    assert tracked <= included


def test_the_workflow_runs_what_everyone_runs():
    workflow = yaml.safe_load(
        (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    )
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    each_night = " ${{ github.event_name == 'schedule' && '--thorough' || '' }}"
    assert [step["run"] for step in steps if "run" in step] == [".ci/run" + each_night]


def readme_imports() -> set[str]:
    """The packages that README's examples import."""
    code = "\n".join(
        re.findall(
            r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
        )
    )
    nodes = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in nodes]
    return {str(name).partition(".")[0] for name in names}


def test_an_installed_package_has_what_readme_imports(pyproject):
    ours = {name for name in readme_imports() if (ROOT / name).is_dir()}
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert ours and ours <= set(wheel["packages"]) == {
        "bayes_dasl",
        "case_studies",
    }
    assert "force-include" not in wheel


@pytest.mark.slow
def test_a_wheel_lists_and_imports_the_case_studies(tmp_path):
    build = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "bayes_dasl",
        "case_studies",
    }
    asked = (
        "import case_studies.catchment, case_studies.lynx_hare as m; print(m.__file__); "
        "from bayes_dasl.cli import app; app(['list'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(installed))
    assert "lynx-hare" in done.stdout
