"""The page *Extending* runs as it stands, and what it writes does what it says."""

import functools
import importlib
import inspect
import re
import types

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.random import realise

BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "docs" / "developers" / "extending.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture(scope="module")
def page():
    """All names that the page defines, after it has run."""
    names = {}
    for block in BLOCKS:
        exec(compile(block, "docs/developers/extending.md", "exec"), names)
    return names


def by_quadrature():
    """Posterior means of both parameters on a grid."""
    doses, dead = (
        np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]),
        np.array([0.04, 0.12, 0.34, 0.70, 0.92, 0.98]),
    )
    half = stats.norm.ppf(0.975)
    lethal, slope = np.meshgrid(
        np.geomspace(1.0, 30.0, 400), np.geomspace(0.2, 8.0, 400), indexing="ij"
    )
    share = 1 / (1 + (doses / lethal[..., None]) ** -slope[..., None])
    log = stats.beta(50 * share, 50 * (1 - share)).logpdf(dead).sum(-1)
    log += stats.norm((np.log(20)) / 2, np.log(20) / (2 * half)).logpdf(np.log(lethal))
    log += stats.norm(0.5, 0.5).logpdf(np.log(slope))
    weights = np.exp(log - log.max())
    return {
        "lethal_dose": (weights * lethal).sum() / weights.sum(),
        "slope": (weights * slope).sum() / weights.sum(),
    }


@pytest.mark.thorough
def test_noise_layer_and_engine_of_ones_own_find_the_posterior(page):
    for post in (page["post"], page["weighed"]):
        for name, exact in by_quadrature().items():
            draws = post["posterior"][name].values
            assert abs(draws.mean() - exact) < 4 * draws.std() / np.sqrt(100), name


@pytest.mark.thorough
def test_data_outside_the_support_are_refused_by_name(page):
    data = page["data"].assign(dead=page["data"]["dead"] + 0.04)
    with pytest.raises(bd.BayesDaslError, match=r"'dead' is 1\.02 at dose 32, which BetaNoise "
        r"rules out: its data "
                       "are greater than 0, less than 1"):  # fmt: skip
        bd.fit(page["model"], data)


@pytest.mark.thorough
def test_the_engine_says_what_its_draws_are_and_can_be_resumed(page, tmp_path):
    weighed = page["weighed"]
    assert weighed.attrs["draws_are"] == "resampled prior draws"
    said = bd.diagnose(weighed)
    assert any(f.subject == "importance sampling" and f.level == "good" for f in said.findings)
    assert "R-hat" not in str(said)
    assert "should take about" in str(
        bd.check(page["model"], page["data"], page["ImportanceSampling"]())
    )
    engine = page["ImportanceSampling"](proposals=2000, draws=50)
    post = bd.fit(page["model"], page["data"], engine, checkpoint=tmp_path, key=3)
    again = bd.resume(page["model"], page["data"], tmp_path)
    np.testing.assert_array_equal(again["posterior"]["slope"], post["posterior"]["slope"])


@pytest.mark.thorough
def test_the_basis_has_the_variance_that_it_says(page):
    x = jnp.linspace(1.0, 9.0, 200)
    features = page["Hats"](0.0, 10.0, 6)(x)
    assert features.shape == (200, 6)
    assert float((features**2).sum(-1).mean()) == pytest.approx(1.0, rel=0.02)
    g = realise(page["unknown"], {"weights.scale": jnp.asarray(0.5), "weights.z": jnp.ones(6)})(
        0.0, {"x": jnp.asarray(3.0)}, {}
    )
    assert np.isfinite(g["g"])


@pytest.mark.thorough
def test_the_figure_has_axes_with_units(page):
    (axes,) = page["figure"].axes
    assert axes.get_xlabel() == "dose (mg/L)" and axes.get_ylabel()


LISTED = [
    name
    for page in (ROOT / "docs" / "reference" / "api").glob("*.md")
    for name in re.findall(
        r"^::: bayes_dasl\.(\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
]
# Diffrax calls these and says what they take.
OF_DIFFRAX = {f"pde.Chebyshev.{name}" for name in ("order", "error_order", "init", "func", "step")}


def test_every_public_name_is_in_the_api_pages():
    listed = set(LISTED)

    def public(module):
        return {
            n
            for n, v in vars(module).items()
            if not n.startswith("_") and not isinstance(v, types.ModuleType)
        }

    wanted = public(bd) | {
        f"{n}.{name}" for n in ("pde", "bases", "plots") for name in public(getattr(bd, n))
    }
    colours = {
        f"plots.{name}" for name in ("BLUE", "LEVELS", "STYLE", "VERMILION")
    }  # in one sentence of the page
    assert sorted(wanted - listed - colours - {"pde.PDE"}) == []


PLACES = (
    "bayes_dasl/**/*.py",
    "case_studies/*.py",
    "docs/**/*.md",
    "docs/*.py",
    "*.md",
    "tests/**/*.py",
)
UNREAL = {
    "golden_fits.py",
    "size.py",
    "test_residual_findings.py",
    "test_size.py",
    "test_studies.py",
}  # look names up, or make them up


def leads_nowhere(name):
    """Whether a dotted name of the package is none."""
    parts, found = name.split("."), bd
    for number, part in enumerate(parts):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(("bayes_dasl", *parts[: number + 1])))
            except ImportError:
                return True
    return False


def test_every_name_that_is_written_somewhere_exists():
    """In code, documentation, case studies and messages."""
    texts = {
        path: path.read_text(encoding="utf-8") for place in PLACES for path in ROOT.glob(place)
    }
    named = {
        (path.name, name)
        for path, text in texts.items()
        if path.name not in UNREAL
        for name in re.findall(
            r"(?<![\w./-])(?:bd|bayes_dasl)((?:\.[A-Za-z_]\w*)+)(?![\w/-])", text
        )
        if not name.endswith(".py")
    }
    assert len(named) > 1000
    wrong = {name for _, name in named if leads_nowhere(name[1:])}
    assert {pair for pair in named if pair[1] in wrong} == set()


def described(doc):
    """The names that have a line under `Args:`."""
    found = re.search(r"^Args:\n((?: {4}.*(?:\n|$))+)", inspect.cleandoc(doc or ""), re.MULTILINE)
    return set(re.findall(r"^ {4}(\w+): ", found[1], re.MULTILINE)) if found else set()


def arguments(function):
    return set(inspect.signature(function).parameters) - {"self"}


def methods(cls):
    """The public methods that a class defines, with all that it and its bases say of their
    arguments.
    """
    for name in vars(cls):
        method = getattr(cls, name)
        if not name.startswith("_") and inspect.isroutine(method):
            yield (
                name,
                method,
                set().union(
                    *(described(getattr(base, name, None).__doc__) for base in cls.__mro__)
                ),
            )


@pytest.mark.parametrize("name", LISTED)
def test_every_argument_has_a_line(name):
    entry = functools.reduce(getattr, name.split("."), bd)
    if not callable(entry) or (inspect.isclass(entry) and issubclass(entry, Exception)):
        return  # a kind of value, or an error, which takes a message
    assert described(entry.__doc__) == arguments(entry)
    for method, function, said in methods(entry) if inspect.isclass(entry) else ():
        assert f"{name}.{method}" in OF_DIFFRAX or arguments(function) <= said, method
