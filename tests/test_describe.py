"""A model as a tree: everything that is inferred stands in it, with prior, shape,
units and group.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.random import paths
from case_studies import lynx_hare

MODEL = lynx_hare.study().model


def entries(node, path=""):
    for entry in node.entries:
        yield f"{path}{entry.name}", entry
    for child in node.children:
        yield from entries(child, f"{path}{child.name}.")


def test_every_random_leaf_is_there_with_its_prior_shape_units_and_group():
    said = {path: e for path, e in entries(bd.describe(MODEL).root) if e.random}
    leaves = paths(MODEL)
    assert set(said) == set(leaves)
    for path, leaf in leaves.items():
        assert (said[path].shape, said[path].units, said[path].group) == (
            leaf.shape,
            leaf.units,
            leaf.group,
        ), path
    assert said["layer.vector_field.science.birth"].what == "LogNormal(-0.602, 0.514)"


def test_the_number_of_unknowns_is_that_of_the_problem():
    assert bd.describe(MODEL).unknowns == sum(
        int(np.prod(leaf.shape, dtype=int)) for leaf in paths(MODEL).values()
    )


def test_the_text_shows_the_tree():
    text = str(bd.describe(MODEL))
    assert "vector_field: Residual  relative=True" in text
    assert "birth ~ LogNormal(-0.602, 0.514)  [1/year]  science" in text
    assert "weight ~ Normal(0, 0.224…0.707)  shape (2, 22)  network" in text
    assert "solver=Tsit5" in text
    assert text.endswith("55 unknown numbers")


def test_a_known_number_shows_its_value():
    known = eqx.tree_at(
        lambda m: m.layer.vector_field.science.birth, MODEL, 0.55, is_leaf=lambda x: False
    )
    assert "birth = 0.55  [1/year]" in str(bd.describe(known))
    assert bd.describe(known).unknowns == 54


def test_the_diagram_names_every_part():
    figure = bd.describe(MODEL).draw()
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert "46 weights in 2 arrays" in drawn
    assert {"Model", "layer: ODE", "closure: Network", "noise"} <= {
        text.strip(": ") for text in drawn
    }
    boxes = [patch.get_bbox() for patch in figure.axes[0].patches]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_part_can_be_described():
    network = bd.Network(
        eqx.nn.MLP(1, 1, 3, 1, key=jax.random.key(0)), ("t",), ("y",), scale=dist.HalfNormal(1.0)
    )
    assert bd.describe(network).unknowns == 11


def test_what_is_no_model_is_refused(unchecked):
    with pytest.raises(ModelError, match=r"describe takes a bd\.Model or a part of one, not dict"):
        bd.describe({})  # type: ignore[arg-type]


def test_a_latent_path_is_said_to_be_one():
    layer = bd.equations.SDE(
        lambda t, y, u: {"x": -y["x"]}, {"x": dist.HalfNormal(1.0)}, {"x": 1.0}, grid=(0.0, 1.0, 4)
    )
    text = str(bd.describe(layer))
    assert "x ~ Normal(0, 1)  shape (4,)  latent" in text
    assert "x ~ HalfNormal(1)  science" in text


class Pair(NamedTuple):
    first: Any
    second: Any


class Holder(bd.Module):
    held: Any


@pytest.mark.parametrize(
    ("held", "unknowns", "line"),
    [
        (Pair(dist.HalfNormal(1.0), 2.0), 1, "first ~ HalfNormal(1)"),
        (jnp.zeros(0), 0, "held = no numbers  shape (0,)"),
        (jax.random.key(0), 0, "held="),
        (np.array(["a"]), 0, "held="),
        (1 + 2j, 0, "held = 1+2j"),
        (jnp.ones(3) * 1j, 0, "held = known complex numbers  shape (3,)"),
        (jnp.asarray([True, False]), 0, "held = known numbers"),
        (np.full(3, 300.0), 0, "held = known numbers, all 300  shape (3,)"),
    ],
)
def test_odd_values_are_shown_too(held, unknowns, line):
    found = bd.describe(Holder(held))
    assert found.unknowns == unknowns
    assert line in str(found)
    found.draw()


def test_what_a_support_fixes_is_not_counted_and_a_sphere_is_as_it_stands():
    one_each = {
        "matrix": dist.LKJ(3),
        "shares": dist.Dirichlet(jnp.ones(3)),
        "sphere": dist.ProjectedNormal(jnp.ones(3)),
    }
    counted = {name: bd.describe(Holder(prior)).unknowns for name, prior in one_each.items()}
    assert counted == {"matrix": 3, "shares": 2, "sphere": 3}


def test_a_distribution_without_a_name_is_refused():
    hidden = Holder(jax.tree_util.Partial(max, dist.HalfNormal(1.0)))
    with pytest.raises(
        ModelError,
        match=r"a distribution lies at \.held.*, inside an object whose parts have no names",
    ):
        bd.describe(hidden)
