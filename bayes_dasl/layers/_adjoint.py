"""How the solvers in a model are differentiated."""

from typing import Any

import diffrax
import jax


def with_adjoint(
    tree: Any, adjoint: diffrax.AbstractAdjoint, instead_of: type[diffrax.AbstractAdjoint] = diffrax.AbstractAdjoint
) -> Any:
    """The tree with another adjoint in place of every one of a kind."""

    def is_adjoint(node):
        return isinstance(node, diffrax.AbstractAdjoint)

    return jax.tree.map(lambda node: adjoint if isinstance(node, instead_of) else node, tree, is_leaf=is_adjoint)
