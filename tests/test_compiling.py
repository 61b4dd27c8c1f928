"""What XLA is told to leave out, by a look at the loops of a program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl._jax import Program, compiled, steady_share
from bayes_dasl.inference.sharding import Sharded
from tests.studies.timing import printed


def share(function, *arguments):
    return steady_share(jax.make_jaxpr(function)(*arguments))


def turns(body, x):
    return jax.lax.fori_loop(0, x.astype(int), lambda i, y: body(y), x)


def of_a_scan(body, x):
    return jax.lax.scan(lambda y, _: (body(y), y), x, None, length=5)


def of_a_map(body, x):
    return jax.lax.map(body, jnp.arange(3.0) + x)


def nested(body, x):
    return turns(lambda y: turns(body, y), x)


LOOPS = pytest.mark.parametrize("loop", [turns, of_a_scan, of_a_map, nested])


@LOOPS
def test_what_stays_the_same_in_a_loop_is_seen(loop):
    work = lambda rate: lambda y: y + jnp.exp(rate) * y  # noqa: E731
    assert share(lambda x, rate: loop(work(rate), x), 1.0, 2.0) > 0.3


@LOOPS
def test_what_changes_is_not(loop):
    assert share(lambda x, rate: loop(lambda y: y + jnp.exp(rate * y), x), 1.0, 2.0) == 0


def test_what_a_loop_hands_on_as_it_is_stays_the_same():
    def pair(x, rate):
        return jax.lax.fori_loop(
            0, 5, lambda i, held: (held[0] + jnp.exp(held[1]), held[1]), (x, rate)
        )

    assert share(pair, 1.0, 2.0) > 0.3


def test_what_a_called_function_works_out_anew_is_seen():
    inner = jax.jit(lambda y, rate: y + jnp.exp(rate))
    assert share(lambda x, rate: turns(lambda y: inner(y, rate), x), 1.0, 2.0) > 0.3


def test_an_array_counts_for_its_elements():
    many = lambda x, rates: turns(lambda y: y * jnp.sum(2.0 * rates) + jnp.exp(y), x)  # noqa: E731
    assert share(many, 1.0, np.ones(1000)) > 0.99
    assert 0.1 < share(many, 1.0, np.ones(2)) < 0.9


def test_what_is_done_once_is_not_steady():
    assert share(lambda x, rate: turns(jnp.sin, x) + jnp.exp(rate), 1.0, 2.0) == 0


def test_inner_loops_count_for_more():
    """The same dear function: once in each turn of the outer loop, and once in each turn of the
    inner one.
    """

    def outside(x, rate):
        return turns(lambda y: turns(jnp.sin, y) + jnp.exp(rate), x)

    def inside(x, rate):
        return turns(lambda y: turns(lambda z: jnp.sin(z) + jnp.exp(rate), y), x)

    assert share(inside, 1.0, 2.0) > 4 * share(outside, 1.0, 2.0) > 0


def root(rate):
    """By Newton's method, so many steps."""
    return jax.lax.while_loop(
        lambda z: jnp.abs(z * z - rate) > 1e-9, lambda z: (z + rate / z) / 2, 1.0
    )


def product(rate):
    return jax.lax.fori_loop(0, 30, lambda i, p: jnp.exp(p * rate), 1.0)


def choice(rate):
    return jax.lax.cond(rate > 0, lambda r: jnp.exp(jnp.sin(jnp.tanh(r))), lambda r: r, rate)


@pytest.mark.parametrize("whole", [root, product, choice])
def test_a_loop_or_a_branch_that_stays_the_same_is_moved_as_a_whole(whole):
    assert share(lambda x, rate: turns(lambda y: y + whole(rate), x), 1.0, 2.0) > 0.8
    assert share(lambda x, rate: turns(lambda y: y + whole(rate * y), x), 1.0, 2.0) < 0.1


def test_a_condition_is_part_of_its_loop():
    def program(x, rate):
        return jax.lax.while_loop(lambda y: y < jnp.exp(rate), jnp.sin, x)

    assert share(program, 1.0, 2.0) > 0.3


def test_a_scan_counts_for_its_length():
    def program(length):
        def body(y):
            return jax.lax.scan(lambda z, _: (z + jnp.sin(z), None), y, None, length=length)[0]

        return lambda x, rate: turns(lambda y: body(y) + jnp.exp(rate), x)

    assert share(program(2), 1.0, 2.0) > 100 * share(program(1000), 1.0, 2.0) > 0


@pytest.mark.parametrize("of", [jnp.linalg.cholesky, lambda m: m @ m])
def test_what_is_done_with_matrices_counts_for_more_than_their_size(of):
    def program(x, matrix):
        return jax.lax.fori_loop(0, 5, lambda i, y: jnp.sin(y) + of(matrix), x)

    small, large = (share(program, np.ones((n, n)), np.eye(n)) for n in (4, 100))
    assert large > 0.8 > small


@pytest.mark.parametrize("said", ["here", "y is {}"])
def test_what_has_no_result_costs_nothing(said):
    def body(y):
        jax.debug.print(said, *([y] if "{" in said else []))
        return jnp.sin(y)

    assert share(lambda x: turns(body, x), 1.0) == 0


@pytest.mark.parametrize(
    "rate", [lambda r: r, jnp.exp], ids=["nothing to move", "something to move"]
)
def test_programs_compute_what_they_say(rate):
    def program(x, r):
        return turns(lambda y: y + jnp.cos(rate(r) * y), x)

    found = compiled(program, 3.0, jax.ShapeDtypeStruct((), float))(
        jnp.asarray(3.0), jnp.asarray(0.3)
    )
    np.testing.assert_allclose(found, program(jnp.asarray(3.0), 0.3), rtol=1e-12)


@pytest.mark.parametrize(("turning", "moved"), [(20, True), (200, False)])
def test_only_what_is_worth_it_is_moved_out(turning, moved, monkeypatch):
    """A twentieth and a two hundredth of the work."""
    asked, whole = [], jax.stages.Lowered.compile

    def noted(lowered, options=None):
        asked.append(options)
        return whole(lowered, options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)

    def program(x, r):
        return turns(lambda y: y * jnp.exp(r) + jnp.sum(jnp.cos(y * np.ones(turning))), x)

    compiled(program, 3.0, 0.3)
    (options,) = asked
    assert ("code-motion" not in str(options)) is moved


@pytest.mark.thorough
def test_xla_knows_the_moves_by_these_names():
    """An unknown name is passed over in silence. The tests' own XLA moves nothing, so that this one
    has its own.
    """
    job = """
import jax, jax.numpy as jnp
from bayes_dasl._jax.compiling import NO_MOVES
program = jax.jit(lambda x, r: jax.lax.fori_loop(0, 9, lambda i, y: jnp.sin(y) * jnp.exp(r), x)).lower(1.0, 2.0)
usual, again, without = (program.compile(options).as_text() for options in (None, None, NO_MOVES))
print(usual == again, usual == without)
"""
    assert printed(job, XLA_FLAGS="", JAX_DISABLE_MOST_OPTIMIZATIONS="0") == "True False"


def test_a_program_is_the_same_whatever_arrays_it_holds(monkeypatch):
    texts, compile_ = [], jax.stages.Lowered.compile

    def noted(lowered, options=None):
        texts.append(lowered.as_text())
        return compile_(lowered, options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    for rates in (jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])):
        run = Sharded(lambda x, rates=rates: jnp.sum(x * rates), 2)
        np.testing.assert_allclose(run(np.ones((2, 1))), rates.sum())
        again = Program(lambda x, rates=rates: jnp.sum(x * rates))
        assert (
            again.shapes(1.0).shape == ()
            and again(1.0) == rates.sum()
            and again(np.ones(2)) == rates.sum()
        )
    assert len(texts) == 2 and texts[0] == texts[1]
