"""Short names are the shortest unambiguous suffixes, and paths lead where their names say."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import pytest
from hypothesis import given, strategies as st

import bayes_dasl as bd
from bayes_dasl._jax import FrozenDict, child, dotted, key_name, nodes_along, short_names

part = st.sampled_from(["layer", "initial", "hare", "scale", "0", "12"])
name = st.lists(part, min_size=1, max_size=4).map(".".join)
names = st.lists(name, unique=True, max_size=8)


def ends_with(name, suffix):
    return name == suffix or name.endswith(f".{suffix}")


class TestShortNames:
    @given(names, st.sets(name))
    def test_are_distinct_suffixes(self, names, reserved):
        short = short_names(names, reserved)
        assert list(short) == names
        assert len(set(short.values())) == len(names)
        assert all(ends_with(name, s) for name, s in short.items())

    @given(names, st.sets(name))
    def test_are_the_shortest_that_may_be_used(self, names, reserved):
        for name, short in short_names(names, reserved).items():
            pieces = name.split(".")
            suffixes = [".".join(pieces[i:]) for i in reversed(range(len(pieces)))]
            usable = [
                s
                for s in suffixes
                if not s.split(".")[0].isdigit()
                and s not in reserved
                and not any(ends_with(other, s) for other in names if other != name)
            ]
            assert short == (usable[0] if usable else name)

    @given(names, st.randoms())
    def test_do_not_depend_on_the_order(self, names, random):
        shuffled = random.sample(names, len(names))
        assert short_names(shuffled) == short_names(names)

    def test_of_a_model(self):
        long = [
            "layer.vector_field.birth",
            "layer.initial.hare",
            "noise.hare.scale",
            "noise.lynx.scale",
        ]
        assert list(short_names(long).values()) == ["birth", "hare", "hare.scale", "lynx.scale"]
        assert short_names(long, reserved=["hare"])["layer.initial.hare"] == "initial.hare"

    def test_start_with_a_word(self):
        assert short_names(["net.layers.0", "net.layers.1"]) == {
            "net.layers.0": "layers.0",
            "net.layers.1": "layers.1",
        }


class Branch(bd.Module):
    twigs: list[Any]
    leaf: float = 1.0


class TestPaths:
    tree = Branch([{"a": 2.0, "b": (3.0, 4.0)}, Branch([5.0])])

    def test_names(self):
        found = [dotted(path) for path, _ in jtu.tree_flatten_with_path(self.tree)[0]]
        assert found == [
            "twigs.0.a",
            "twigs.0.b.0",
            "twigs.0.b.1",
            "twigs.1.twigs.0",
            "twigs.1.leaf",
            "leaf",
        ]

    def test_lead_to_their_leaves(self):
        for path, leaf in jtu.tree_flatten_with_path(self.tree)[0]:
            nodes = list(nodes_along(self.tree, path))
            assert nodes[0][0] is self.tree
            assert child(*nodes[-1]) == leaf

    def test_cannot_run_through_what_has_no_keys(self):
        for follow in (lambda: key_name(object()), lambda: child([1], object())):
            with pytest.raises(TypeError, match="cannot run through object"):
                follow()


class TestFrozenDict:
    ab, ba = FrozenDict(a=1, b=2), FrozenDict(b=2, a=1)

    def test_equal_ones_have_one_hash(self):
        assert self.ab == FrozenDict(self.ab)
        assert hash(self.ab) == hash(FrozenDict(self.ab))
        assert self.ab == {"a": 1, "b": 2}
        assert self.ab != FrozenDict(a=1, b=3)

    def test_the_order_counts(self):
        assert self.ab != self.ba

    def test_a_compiled_function_sees_the_order(self):
        """Two networks that take their inputs in another order are two programs."""

        @jax.jit
        def first(tree):
            return jnp.asarray(next(iter(tree.labels.values())))

        assert [int(first(Labelled(d))) for d in (self.ab, self.ba)] == [1, 2]


class Labelled(bd.Module):
    labels: FrozenDict = eqx.field(static=True)
