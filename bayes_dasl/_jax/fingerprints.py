"""Fingerprints of traced programs: the same in every process, different for each program."""

import copyreg
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np
from jax.core import AbstractValue, Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from ..errors import UnreadableError
from .trace import open_program, unchecked

# Of these equations nothing else changes a value: neither rules of derivatives nor where a program
# runs do.
_MEANING = {
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "checkpoint": ("jaxpr",),
    "remat2": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "custom_vjp_call_jaxpr": ("fun_jaxpr",),
    "remat_opt": ("fwd_jaxpr", "num_consts", "num_res"),
    "linear_call": ("callee", "num_callee_consts", "num_res"),
    "debug_callback": (),
    "debug_print": (),
}
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(Ellipsis),
    type(NotImplemented),
    np.dtype,
)
_LIBRARIES = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
# What an object is made of is seen in the object itself.
_CONSTRUCTORS = {"__init__", "__new__", "__post_init__", "__check_init__", "__init_subclass__"}
_CONSTRUCTORS |= {"__repr__", "__str__", "__eq__", "__hash__", "__replace__"}


def fingerprint_of(function: Callable[..., Any], *examples: Any, beside: Any = None) -> str:
    """SHA-256 of a traced function, without Equinox's runtime checks, and of what is `beside` it.

    Python that the program calls while it runs counts by its code, the variables that it closes
    over and the globals that it names, as far as they are the user's; functions of installed
    packages count by their own code alone. What a function imports within itself counts by its
    name.

    Args:
        function: a function that JAX can trace.
        examples: arrays, or their shapes, that it could be called with.
        beside: anything else that tells one program from another.

    Raises:
        UnreadableError: where an object that the program uses in Python cannot be read.
    """
    closed = unchecked(jax.make_jaxpr(function)(*examples))
    try:
        return _Reader().of((closed, beside)).hex()
    except RecursionError as error:
        raise UnreadableError(
            "what the model calls in Python holds something too deep to be read"
        ) from error


class _Reader:
    """Hashes of whatever a traced program may hold; each object is read once."""

    def __init__(self):
        self._known: dict[int, tuple[Any, bytes]] = {}

    def of(self, x: Any) -> bytes:
        if isinstance(x, _PLAIN):
            return _hash(type(x).__name__, repr(x))
        if id(x) not in self._known:
            self._known[id(x)] = x, _hash("again")  # for what contains itself
            self._known[id(x)] = x, self._read(x)
        return self._known[id(x)][1]

    def _all(self, kind: str, parts: Any) -> bytes:
        return _hash(kind, *map(self.of, parts))

    def _read(self, x: Any) -> bytes:
        if isinstance(x, Tracer):  # an operand of the equation that holds it, and seen there
            return _hash("traced", str(x.aval))
        if isinstance(x, (np.ndarray, np.generic, jax.Array)):
            return self._array(x)
        if isinstance(x, (ClosedJaxpr, Jaxpr)):
            return self._jaxpr(x)
        if isinstance(x, jtu.PyTreeDef):
            return self._all("tree", (x.num_leaves, x.node_data(), *x.children()))
        if isinstance(x, (set, frozenset)):
            return _hash("set", *sorted(map(self.of, x)))
        if isinstance(x, (dict, types.MappingProxyType)):
            return self._all("dict", [part for item in x.items() for part in item])
        if isinstance(x, (list, tuple)):
            return self._all(type(x).__name__, x)
        if isinstance(x, (AbstractValue, jax.ShapeDtypeStruct)):
            return _hash("shape", str(x))
        if isinstance(x, (jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh)):
            return _hash("place")  # where a program runs changes nothing
        if isinstance(x, types.FunctionType):
            return self._function(x)
        if isinstance(x, types.MethodType):
            return self._all("method", (x.__func__, x.__self__))
        if isinstance(x, types.CodeType):
            return self._code(x)
        if isinstance(x, type):
            return self._class(x)
        if isinstance(x, types.ModuleType):
            return _hash("module", x.__name__)
        if isinstance(x, Primitive):
            return _hash("primitive", x.name)
        if isinstance(x, property):
            return self._all("property", (x.fget,))
        return self._object(x)

    def _array(self, x: Any) -> bytes:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return self._all("key", (str(jax.random.key_impl(x)), jax.random.key_data(x)))
        values = np.asarray(x)
        if values.dtype.hasobject:
            return self._all("objects", (values.shape, values.ravel().tolist()))
        return _hash(
            "array", str(values.dtype), str(values.shape), np.ascontiguousarray(values).tobytes()
        )

    def _jaxpr(self, x: Any) -> bytes:
        inner = open_program(x)
        numbers: dict[Any, int] = {}
        parts: list[str | bytes] = [self.of(list(getattr(x, "consts", ())))]

        def add(kind: str, atoms: Any) -> None:
            parts.append(kind)
            for atom in atoms:
                literal = isinstance(atom, Literal)
                parts.append(
                    self.of(atom.val) if literal else str(numbers.setdefault(atom, len(numbers)))
                )
                parts.append(str(atom.aval))

        add("arguments", (*inner.constvars, *inner.invars))
        for equation in inner.eqns:
            add(equation.primitive.name, equation.invars)
            params = equation.params
            parts += [
                self._all(name, (params[name],))
                for name in _meaning(equation.primitive.name, params)
            ]
            add("to", equation.outvars)
        add("results", inner.outvars)
        return _hash("jaxpr", *parts)

    def _function(self, f: types.FunctionType) -> bytes:
        cells = [_contents(cell) for cell in f.__closure__ or ()]
        parts = [f.__code__, f.__defaults__, f.__kwdefaults__, cells]
        if not _installed(f.__code__.co_filename):
            parts.append(_named(f))
        return self._all("function", parts)

    def _code(self, code: types.CodeType) -> bytes:
        calls = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        held = code.co_names, code.co_varnames, code.co_consts, code.co_exceptiontable
        return self._all("code", (code.co_code, *calls, *held))

    def _class(self, c: type) -> bytes:
        if _from_a_library(c):
            return _hash("class", c.__module__, c.__qualname__)
        own = {name: value for name, value in vars(c).items() if _counts(name, value)}
        return self._all("own class", (c.__bases__, own))

    def _object(self, x: Any) -> bytes:
        """By the parts of a pytree, the function that is wrapped, or what would be pickled."""
        parts, tree = jtu.tree_flatten(x, is_leaf=lambda part: part is not x)
        if not jtu.treedef_is_leaf(tree):
            return self._all("node", (tree.node_data(), parts))
        if _from_a_library(type(x)) and hasattr(x, "__wrapped__"):  # such as a jitted function
            return self._all(type(x).__name__, (x.__wrapped__,))
        try:
            reduce = copyreg.dispatch_table.get(type(x))
            found = reduce(x) if reduce else x.__reduce_ex__(4)
        except Exception as error:  # whatever an object of a user may raise
            raise UnreadableError(
                f"the model calls Python while it runs, and there holds a {type(x).__name__} that "
                "cannot be read "
                f"({error}): so it cannot be told from another model. Give it numbers, arrays and "
                "functions instead"
            ) from error
        if isinstance(found, str):
            return _hash("global", str(getattr(x, "__module__", "")), found)
        return self._all("object", (list(p) if isinstance(p, Iterator) else p for p in found))


def _hash(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8) + data)
    return digest.digest()


def _meaning(primitive: str, params: dict[str, Any]) -> list[str]:
    wanted = _MEANING.get(primitive)
    return sorted(params) if wanted is None or not params.keys() >= set(wanted) else list(wanted)


def _installed(file: str) -> bool:
    """Whether a file belongs to Python, an installed package or this one,
    whose versions are known.
    """
    parts = Path(file).parts
    known = (
        "site-packages" in parts or "dist-packages" in parts or file.startswith(("<frozen", _OURS))
    )
    return known or file.startswith(_LIBRARIES)


def _from_a_library(c: type) -> bool:
    file = getattr(sys.modules.get(c.__module__), "__file__", None)
    return c.__module__.split(".")[0] in sys.stdlib_module_names or bool(file and _installed(file))


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put into it
        return "empty"


def _names(code: types.CodeType) -> set[str]:
    """All names that a function, and those inside it, look up elsewhere."""
    inner = [
        _names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
    ]
    return set(code.co_names).union(*inner)


def _named(f: types.FunctionType) -> dict[str, Any]:
    """The globals that a function of the user names, and of the user's modules what it names of
    them.
    """
    names = sorted(_names(f.__code__))
    return {name: _of_it(f.__globals__[name], names) for name in names if name in f.__globals__}


def _of_it(value: Any, names: list[str], around: tuple[Any, ...] = ()) -> Any:
    """Of a module of the user, and of those inside of it, what has one of these names; anything
    else as it is.
    """
    module = isinstance(value, types.ModuleType) and value not in around
    if not module or _installed(getattr(value, "__file__", None) or _OURS):
        return value
    held = vars(value)
    return {name: _of_it(held[name], names, (*around, value)) for name in names if name in held}


def _counts(name: str, value: Any) -> bool:
    """Whether something in the body of a class says what its objects do."""
    if name.startswith("__") and name.endswith("__"):
        return isinstance(value, types.FunctionType) and name not in _CONSTRUCTORS
    slots = types.GetSetDescriptorType, types.MemberDescriptorType
    return not name.startswith("_abc_") and not isinstance(value, slots)
