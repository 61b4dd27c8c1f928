"""What `import bayes_dasl` loads, and what it leaves alone."""

import inspect
import json
import os
import pydoc
import re
import subprocess
import sys

import pytest

import bayes_dasl as bd
from tests.studies import ROOT

# Each takes a tenth of a second or more, and most users of a process need few of them.
HEAVY = (
    "arviz", "arviz_stats", "blackjax", "haiku", "flax", "jinja2", "matplotlib", "pint", "rich", "scipy.interpolate",
    "scipy.optimize", "scipy.signal", "scipy.stats", "scoringrules", "typer",
)  # fmt: skip

IMPORT = """
import json, sys
import jax, numpyro, diffrax
before = dict(jax.config.values)
import bayes_dasl as bd
bd.from_table, bd.Model, bd.ODE, bd.corrected, bd.fit, bd.forecast, bd.score
loaded = list(sys.modules)
changed = [name for name, value in jax.config.values.items() if before[name] != value]
jax.config.update("jax_num_cpu_devices", 3)  # refused once JAX has computed
found = {"loaded": loaded, "plot": bd.plots.plot_tree.__name__, "changed": changed, "devices": len(jax.devices())}
print(json.dumps(found))
"""


def python(code: str) -> str:
    """What a fresh process prints."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found():
    return json.loads(python(IMPORT))


def test_jax_is_left_as_it_was_but_for_double_precision(found):
    assert found["changed"] == ["jax_enable_x64"]
    assert found["devices"] == 3


def test_the_package_loads_without_jax_which_then_has_double_precision():
    code = "import sys, bayes_dasl; print('jax' in sys.modules); import jax.numpy as np; print(np.ones(1).dtype)"
    assert python(code).split() == ["False", "float64"]


def test_what_the_package_offers_is_listed():
    assert {"fit", "NUTS", "pde"} <= set(bd.__all__) <= set(dir(bd))
    assert not {"study", "model", "np"} & set(bd.__all__)
    assert "class NUTS" in pydoc.plain(pydoc.render_doc(bd))


def test_what_few_need_loads_when_it_is_used(found):
    assert [name for name in HEAVY if name in found["loaded"]] == []
    assert (
        found["plot"] == "plot_tree"
    )  # an attribute of the package, although Matplotlib is loaded for it only now


API = [
    name.rpartition(".")
    for page in (ROOT / "docs" / "reference" / "api").glob("*.md")
    for name in re.findall(r"^::: bayes_dasl\.(\S+)$", page.read_text(encoding="utf-8"), re.M)
]
FLAT = {name for namespace, _, name in API if not namespace}
MODULES = {name for name in bd.__all__ if inspect.ismodule(getattr(bd, name))}


def test_tab_shows_names_for_users_and_no_files():
    assert set(dir(bd)) == FLAT | MODULES


# `bd.errors` holds errors only, which the pages list by its own name.
@pytest.mark.parametrize("namespace", sorted(MODULES - {"errors"}))
def test_tab_in_a_namespace_shows_names_for_users_and_no_files(namespace):
    listed = {name for name in dir(getattr(bd, namespace)) if name[0] != "_"}
    documented = {name for of, _, name in API if of == namespace}
    assert documented <= listed
    # Types of results stand beside what returns them.
    assert listed - documented - FLAT <= {"Check", "Finding"}
