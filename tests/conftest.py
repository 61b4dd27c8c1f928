"""What every test shares: quiet back ends, cached compilation, checked shapes, the data beside the
project.
"""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

os.environ.setdefault("MPLBACKEND", "Agg")
# Python without its .pyc files compiles some 2500 modules each time it starts: eleven seconds of
# every process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Compilation is most of a test's time; JAX reads these when it is first imported. Each worker has a
# folder of its own, whatever the process that started it has, since JAX does not write a program in
# one go.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "jax" / WORKER)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Programs run once or twice here: to compile them well takes longer than to run them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
NO_MOVES = "while-loop-invariant-code-motion,while-loop-constant-sinking"
os.environ.setdefault("XLA_FLAGS", f"--xla_disable_hlo_passes={NO_MOVES}")
# Tracing makes millions of small objects that live for long: looking them through takes a tenth of
# a test's time.
gc.set_threshold(200_000, 20, 100)

# Shapes and types of public signatures are checked here only, so that users pay nothing.
# `Pushed` is annotated with NumPy's arrays but holds JAX's inside jit, so its module is left out.
# The others walk through whole programs: half a million calls in ten tests, whose checks took a
# seventh of their time. What goes to workers by value must hold no checker.
UNCHECKED = {
    *("bayes_dasl.prediction.predictive", "bayes_dasl._jax.trace", "bayes_dasl._jax.fingerprints"),
    "bayes_dasl.many.many",
}
FILES = (ROOT / "bayes_dasl").rglob("[!_]*.py"), (ROOT / "bayes_dasl").rglob("_[!_]*.py")
PACKAGE = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for files in FILES for path in files
}
jaxtyping.install_import_hook(sorted(PACKAGE - UNCHECKED), "typecheck.checked")


def pytest_addoption(parser):
    parser.addoption(
        "--thorough",
        action="store_true",
        default=None,
        help="run the tests that are marked so, too",
    )
    parser.addoption(
        "--quick",
        action="store_false",
        dest="thorough",
        help="leave them out where files are named, too",
    )


def pytest_configure(config):
    """Whoever works at a file runs all of its tests."""
    if config.option.thorough is None:
        config.option.thorough = any(Path(arg.partition("::")[0]).is_file() for arg in config.args)


def pytest_report_header(config):
    return (
        "tests: all"
        if config.option.thorough
        else "tests: the quick ones; --thorough, or a file by name, for all"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked as thorough: a test, or the cases of it that the mark names; `slow`
    is for -m to say.
    """
    if config.option.thorough:
        return
    kept, left_out, unseen = [], [], {}
    for item in items:
        marks = list(item.iter_markers("thorough"))
        cases = {case for mark in marks for case in mark.args}
        case = item.callspec.id if hasattr(item, "callspec") else None
        unseen.setdefault(item.nodeid.partition("[")[0], set(cases)).discard(case)
        leave = marks and (not cases or case in cases) and item.get_closest_marker("slow") is None
        (left_out if leave else kept).append(item)
    stale = {name: cases for name, cases in unseen.items() if cases}
    if stale and not config.getoption("lf", False) and not any("::" in arg for arg in config.args):
        message = f"marked as thorough, but no cases of their tests: {stale}"
        print(message, file=sys.stderr)  # a worker's error loses its text
        raise pytest.UsageError(message)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def _absent(path: Path) -> None:
    """Skip the test for want of `path`, or fail it where the shared files are said to be there."""
    reason = f"{path.relative_to(SHARED.parent)} is not beside the project"
    if os.environ.get("BAYES_DASL_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def shared() -> Path:
    """The folder `../shared`: reference results and data sets that the repository does not hold."""
    if not SHARED.is_dir():
        _absent(SHARED)
    return SHARED


@pytest.fixture
def shared_file(shared: Path) -> Callable[[str], Path]:
    """A file of `../shared`, by its path in there: `shared_file("reference/draws.csv")`."""

    def find(name: str) -> Path:
        path = shared / name
        if not path.is_file():
            _absent(path)
        return path

    return find


@pytest.fixture(autouse=True)
def _compiled_well(request):
    """A slow test draws for minutes: there it pays to compile well."""
    if request.node.get_closest_marker("slow") is None:
        yield
        return
    import jax

    held = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", held)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures that are laid out but not drawn, where only the words of a page count."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, buffer, **_: buffer.write(b"<svg/>"))


@pytest.fixture
def unchecked():
    """Without the type checker of the tests, which would refuse such input itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
