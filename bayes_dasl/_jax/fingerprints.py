"""Fingerprints of traced programs: hashes that are the same in every process."""

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

# By primitive, the parameters of an equation that can change its values. Derivative rules and
# devices cannot.
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
# Methods of a class that are not hashed. An object's parts are read from the object itself, so its
# constructor does not matter.
_CONSTRUCTORS = {"__init__", "__new__", "__post_init__", "__check_init__", "__init_subclass__"}
_CONSTRUCTORS |= {"__repr__", "__str__", "__eq__", "__hash__", "__replace__"}


def fingerprint_of(function: Callable[..., Any], *examples: Any, beside: Any = None) -> str:
    """Return the SHA-256 hash of a traced function and of a further object.

    Equinox's runtime checks are ignored. The program may call Python functions while it runs. They
    are hashed by their code, default arguments, closure and the globals that they name. For a
    function of an installed package, globals are ignored. A module that is imported inside a
    function is hashed by its name only.

    Args:
        function: a function that JAX can trace.
        examples: example arguments: arrays, or their shapes.
        beside: any object that is hashed together with the program.

    Returns:
        64 hexadecimal digits.

    Raises:
        UnreadableError: if an object that the program uses in Python cannot be hashed.
    """
    closed = unchecked(jax.make_jaxpr(function)(*examples))
    try:
        return _Reader().of((closed, beside)).hex()
    except RecursionError as error:
        raise UnreadableError(
            "what the model calls in Python holds something too deep to be read"
        ) from error


class _Reader:
    """Computes the hashes of all objects that a traced program may contain, each one once."""

    def __init__(self):
        # The object and its hash, by the `id` of the object.
        self._known: dict[int, tuple[Any, bytes]] = {}

    def of(self, x: Any) -> bytes:
        """Return the hash of any object."""
        if isinstance(x, _PLAIN):
            return _hash(type(x).__name__, repr(x))
        if id(x) not in self._known:
            # An object may contain itself. Inside itself it has a constant hash.
            self._known[id(x)] = x, _hash("again")
            self._known[id(x)] = x, self._read(x)
        return self._known[id(x)][1]

    def _all(self, kind: str, parts: Any) -> bytes:
        """Return the hash of several objects in order, with the text `kind` before them."""
        return _hash(kind, *map(self.of, parts))

    def _read(self, x: Any) -> bytes:
        """Compute the hash of an object, by its type."""
        # A tracer is an operand of an equation, which hashes it too.
        if isinstance(x, Tracer):
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
            return _hash("place")
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
        """Hash an array by its dtype, shape and values."""
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return self._all("key", (str(jax.random.key_impl(x)), jax.random.key_data(x)))
        values = np.asarray(x)
        if values.dtype.hasobject:
            return self._all("objects", (values.shape, values.ravel().tolist()))
        return _hash(
            "array", str(values.dtype), str(values.shape), np.ascontiguousarray(values).tobytes()
        )

    def _jaxpr(self, x: Any) -> bytes:
        """Hash a jaxpr: its constants, then the name, operands and parameters of each equation."""
        inner = open_program(x)
        # Variables have no names: number them in the order in which they first occur.
        numbers: dict[Any, int] = {}
        parts: list[str | bytes] = [self.of(list(getattr(x, "consts", ())))]

        def add(kind: str, atoms: Any) -> None:
            parts.append(kind)
            for atom in atoms:
                if isinstance(atom, Literal):
                    parts.append(self.of(atom.val))
                else:
                    parts.append(str(numbers.setdefault(atom, len(numbers))))
                parts.append(str(atom.aval))

        add("arguments", (*inner.constvars, *inner.invars))
        for equation in inner.eqns:
            add(equation.primitive.name, equation.invars)
            params = equation.params
            names = _meaningful(equation.primitive.name, params)
            parts += [self._all(name, (params[name],)) for name in names]
            add("to", equation.outvars)
        add("results", inner.outvars)
        return _hash("jaxpr", *parts)

    def _function(self, f: types.FunctionType) -> bytes:
        """Hash a function: its code, defaults and closure.

        A user's function is also hashed by the globals that it names.
        """
        cells = [_contents(cell) for cell in f.__closure__ or ()]
        parts = [f.__code__, f.__defaults__, f.__kwdefaults__, cells]
        if not _installed(f.__code__.co_filename):
            parts.append(_globals_of(f))
        return self._all("function", parts)

    def _code(self, code: types.CodeType) -> bytes:
        """Hash the compiled code of a function with its names and constants."""
        calls = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        held = code.co_names, code.co_varnames, code.co_consts, code.co_exceptiontable
        return self._all("code", (code.co_code, *calls, *held))

    def _class(self, c: type) -> bytes:
        """Hash a class: by its name if it comes from a library, else by its bases and methods."""
        if _from_a_library(c):
            return _hash("class", c.__module__, c.__qualname__)
        own = {name: value for name, value in vars(c).items() if _is_behaviour(name, value)}
        return self._all("own class", (c.__bases__, own))

    def _object(self, x: Any) -> bytes:
        """Hash an object of any other type.

        A pytree is hashed by its parts, and a jitted function by the function that it wraps. Any
        other object is hashed by the state that pickle would store.

        Raises:
            UnreadableError: if the object cannot be pickled.
        """
        parts, tree = jtu.tree_flatten(x, is_leaf=lambda part: part is not x)
        if not jtu.treedef_is_leaf(tree):
            return self._all("node", (tree.node_data(), parts))
        # A jitted function, for example.
        if _from_a_library(type(x)) and hasattr(x, "__wrapped__"):
            return self._all(type(x).__name__, (x.__wrapped__,))
        try:
            reduce = copyreg.dispatch_table.get(type(x))
            found = reduce(x) if reduce else x.__reduce_ex__(4)
        # A user's object may raise anything.
        except Exception as error:
            raise UnreadableError(
                f"the model calls Python while it runs, and there holds a {type(x).__name__} that "
                f"cannot be read ({error}): so it cannot be told from another model. Give it "
                "numbers, arrays and functions instead"
            ) from error
        if isinstance(found, str):
            return _hash("global", str(getattr(x, "__module__", "")), found)
        return self._all("object", (list(p) if isinstance(p, Iterator) else p for p in found))


def _hash(*parts: str | bytes) -> bytes:
    """Return the SHA-256 hash of several texts or bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # With its length before it, no part can run into the next one.
        digest.update(len(data).to_bytes(8) + data)
    return digest.digest()


def _meaningful(primitive: str, params: dict[str, Any]) -> list[str]:
    """Return the names of the parameters of an equation that can change its values.

    Args:
        primitive: the name of the equation's primitive.
        params: the parameters of the equation.
    """
    wanted = _MEANING.get(primitive)
    return sorted(params) if wanted is None or not params.keys() >= set(wanted) else list(wanted)


def _installed(file: str) -> bool:
    """Whether a file belongs to Python, an installed package or this package, and not to a user."""
    parts = Path(file).parts
    known = (
        "site-packages" in parts or "dist-packages" in parts or file.startswith(("<frozen", _OURS))
    )
    return known or file.startswith(_LIBRARIES)


def _from_a_library(c: type) -> bool:
    """Whether a class is defined in Python, an installed package or this package."""
    file = getattr(sys.modules.get(c.__module__), "__file__", None)
    return c.__module__.split(".")[0] in sys.stdlib_module_names or bool(file and _installed(file))


def _contents(cell: types.CellType) -> Any:
    """Return the value of a captured variable, or "empty" if it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:  # a variable without a value yet
        return "empty"


def _outer_names(code: types.CodeType) -> set[str]:
    """Return the global and attribute names in the code of a function and its inner functions."""
    inner = [_outer_names(held) for held in code.co_consts if isinstance(held, types.CodeType)]
    return set(code.co_names).union(*inner)


def _globals_of(f: types.FunctionType) -> dict[str, Any]:
    """Return the globals that a function names.

    A module of the user is replaced by those of its members that the function names.
    """
    names = sorted(_outer_names(f.__code__))
    return _named_members(f.__globals__, names)


def _named_members(
    held: dict[str, Any], names: list[str], around: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Return the named members of a namespace, with `_opened` applied to each.

    Args:
        held: the namespace.
        names: the wanted names.
        around: the modules that enclose the namespace, which are not opened again.
    """
    return {name: _opened(held[name], names, around) for name in names if name in held}


def _opened(value: Any, names: list[str], around: tuple[Any, ...]) -> Any:
    """Return the named members of a module of the user; anything else is returned unchanged."""
    module = isinstance(value, types.ModuleType) and value not in around
    if not module or _installed(getattr(value, "__file__", None) or _OURS):
        return value
    return _named_members(vars(value), names, (*around, value))


def _is_behaviour(name: str, value: Any) -> bool:
    """Whether an entry of a class can change how its objects behave."""
    if name.startswith("__") and name.endswith("__"):
        return isinstance(value, types.FunctionType) and name not in _CONSTRUCTORS
    slots = types.GetSetDescriptorType, types.MemberDescriptorType
    return not name.startswith("_abc_") and not isinstance(value, slots)
