"""What `import bayes_dasl` loads, and what it leaves alone."""

import json
import subprocess
import sys

import pytest

# Each takes a tenth of a second or more, and most users of a process need few of them.
HEAVY = (
    "arviz", "arviz_stats", "blackjax", "haiku", "flax", "jinja2", "matplotlib", "rich", "scipy.interpolate",
    "scipy.optimize", "scipy.signal", "scipy.stats", "scoringrules", "typer",
)  # fmt: skip

IMPORT = """
import json, sys
import bayes_dasl as bd
loaded = list(sys.modules)
print(json.dumps({"loaded": loaded, "plot": bd.plots.plot_tree.__name__}))
"""


def python(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_few_need_loads_when_it_is_used():
    found = json.loads(python(IMPORT))
    assert [name for name in HEAVY if name in found["loaded"]] == []
    assert found["plot"] == "plot_tree"  # an attribute of the package, although Matplotlib is loaded for it only now


@pytest.mark.parametrize("order", ["arviz, bayes_dasl", "bayes_dasl, arviz"])
def test_arviz_may_be_imported_before_and_after(order):
    """ArviZ puts stand-ins in the place of JAX and NumPyro, whose submodules would then be missing."""
    code = f"import {order}; import jax, numpyro; print(numpyro.distributions.distribution, jax.numpy.linalg)"
    assert "numpyro/distributions/distribution" in python(code).replace("\\", "/")
