"""Log densities of missing and censored data; log distribution functions exact in both tails."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammainc, gammaincc, gammaln, log_ndtr
from jaxtyping import Array, Bool, Float

# Steps of a continued fraction: about the square root of the largest count is needed.
_STEPS = 300
# The number that replaces zero in logarithms and divisions.
_TINY = 1e-300
# Below this probability JAX's functions underflow, and the logarithm is computed directly.
_DEEP = 1e-250
_DEEP_STEPS = 50
# Bounds beyond this number of standard deviations are clipped, which changes nothing.
_BEYOND = 1e8

type Tails = tuple[Float[Array, "..."], Float[Array, "..."]]
"""The logarithms of P(Y ≤ value) and P(Y > value)."""


def has_tails(law: dist.Distribution) -> bool:
    """Return whether the distribution function of a distribution is known.

    Returns:
        True if `log_tails` and `log_between` can be computed.
    """
    if isinstance(law, dist.ZeroInflatedProbs):
        return has_tails(law.base_dist)
    return (
        hasattr(law, "log_tails")
        or type(law) in _TAILS
        or type(law).cdf is not dist.Distribution.cdf
    )


def log_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    """Return the logarithms of P(Y ≤ value) and P(Y > value).

    Args:
        law: the distribution of Y.
        value: the values.

    Returns:
        Both logarithms, in the shape that law and value broadcast to.
    """
    if hasattr(law, "log_tails"):
        return law.log_tails(value)
    if type(law) in _TAILS:
        return _TAILS[type(law)](law, value)
    below = jnp.clip(law.cdf(value), _TINY, 1 - 1e-16)
    return jnp.log(below), jnp.log1p(-below)


def log_between(
    law: Any, low: Float[Array, "..."], high: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return the logarithm of P(low ≤ Y ≤ high); either end may be infinite.

    Args:
        law: the distribution of Y.
        low: the lower ends.
        high: the upper ends.

    Returns:
        The log probability, in the shape that law and ends broadcast to.
    """
    # 1. Replace infinite ends by finite ones, so that no gradient is infinite.
    no_low = jnp.isneginf(low)
    no_high = jnp.isposinf(high)
    middle = jnp.where(no_low, jnp.where(no_high, 0.0, high), low)
    low = jnp.where(no_low, middle, low)
    high = jnp.where(no_high, middle, high)
    # 2. P(Y < low) of a count is P(Y ≤ low - 1).
    up_to_low, beyond_low = log_tails(law, low - 1 if law.support.is_discrete else low)
    up_to_high, beyond_high = log_tails(law, high)
    # 3. Subtract in the tail with the smaller probabilities, where the difference is more exact:
    #    log(P₁ - P₂) = log P₁ + log(1 - exp(-(log P₁ - log P₂))).
    upper = beyond_low < up_to_high
    larger = jnp.where(upper, beyond_low, up_to_high)
    smaller = jnp.where(upper, beyond_high, up_to_low)
    both = ~(no_low | no_high) & (larger > smaller)
    gap = jnp.where(both, larger - smaller, 1.0)
    inside = jnp.where(both, larger + jax.nn.log1mexp(gap), -jnp.inf)
    # 4. With one end infinite, a single tail is the answer.
    one_sided = jnp.where(no_low, jnp.where(no_high, 0.0, up_to_high), beyond_low)
    return jnp.where(no_low | no_high, one_sided, inside)


def seen_and_filled(
    values: Float[Array, "time ..."],
) -> tuple[Bool[Array, "time ..."], Float[Array, "time ..."]]:
    """Return which data were observed, and the data with 1 in place of NaN.

    Returns:
        Flags and data, in the shape of the data.
    """
    # A gradient passes through both branches of `where`, so NaN must not reach a log density.
    # The support of every noise holds 1.
    seen = ~jnp.isnan(values)
    return seen, jnp.where(seen, values, 1.0)


def masked_log_prob(law: Any, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    """Return the log density of each datum under a distribution; 0 where it is missing (NaN).

    Args:
        law: the distribution.
        values: the data.

    Returns:
        The log densities, in the shape of the data.
    """
    seen, filled = seen_and_filled(values)
    return jnp.where(seen, law.log_prob(filled), 0.0)


def censored_log_prob(law: Any, value: Any, low: Any, high: Any) -> Any:
    """Return the log density of measured values, and log P(low ≤ Y ≤ high) of censored ones.

    Args:
        law: the distribution of Y.
        value: the values.
        low: their lower bounds; equal to the upper bounds for measured values.
        high: their upper bounds.

    Returns:
        One number for each value.
    """
    seen = low == high
    # The interval of a measured value is a point: it has no probability and no gradient.
    low = jnp.where(seen, -jnp.inf, low)
    high = jnp.where(seen, jnp.inf, high)
    inside = log_between(law, low, high)
    return jnp.where(seen, law.log_prob(value), inside)


def truncated_moments(low: Float[Array, "..."], high: Float[Array, "..."]) -> tuple[Array, Array]:
    r"""Return mean and variance of a standard normal variable that is truncated to an interval.

    $m = (\varphi(a) - \varphi(b)) / Z, \quad v = 1 + (a \varphi(a) - b \varphi(b)) / Z - m^2$ with
    $Z = \Phi(b) - \Phi(a)$

    Args:
        low: the lower end $a$, possibly infinite.
        high: the upper end $b$, possibly infinite.

    Returns:
        Mean and variance, in the shape that the ends broadcast to.

    Source: Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, section
    10.1.
    """
    low = jnp.clip(low, -_BEYOND, _BEYOND)
    high = jnp.clip(high, -_BEYOND, _BEYOND)
    log_share = log_between(dist.Normal(0.0, 1.0), low, high)
    # Work relative to the density at the nearer bound, so that nothing overflows far out.
    low_is_nearer = jnp.abs(low) < jnp.abs(high)
    near = jnp.where(low_is_nearer, low, high)
    far = jnp.where(low_is_nearer, high, low)
    sign = jnp.where(low_is_nearer, 1.0, -1.0)
    at_near = sign * jnp.exp(-0.5 * jnp.square(near) - 0.5 * math.log(2 * math.pi) - log_share)
    exponent = 0.5 * (near - far) * (near + far)
    mean = -at_near * jnp.expm1(exponent)
    variance = 1.0 + at_near * (near - far * jnp.exp(exponent)) - jnp.square(mean)
    # These limits hold for all intervals. Rounding may exceed them if one is narrow or far out.
    widest = jnp.minimum(1.0, jnp.square(high - low) / 12.0)
    return jnp.clip(mean, low, high), jnp.clip(variance, 0.0, widest)


def _normal_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    z = (value - law.loc) / law.scale
    return log_ndtr(z), log_ndtr(-z)


def _log_normal_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    possible = value > 0
    below, above = _normal_tails(law, jnp.log(jnp.where(possible, value, 1.0)))
    return tails_where(possible, below, above)


def _student_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    z = (value - law.loc) / law.scale
    # P(|Y| > |z|) = I_{ν/(ν + z²)}(ν/2, 1/2).
    # The floor keeps the gradient finite at z = 0, where a square root would follow.
    square = jnp.maximum(jnp.square(z), _TINY)
    outside, _ = log_incomplete_beta(
        law.df / 2, 0.5, law.df / (law.df + square), square / (law.df + square)
    )
    far = outside - jnp.log(2.0)
    near = jnp.log1p(-jnp.exp(far))
    return jnp.where(z < 0, far, near), jnp.where(z < 0, near, far)


def _poisson_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    possible = value >= 0
    a = jnp.floor(jnp.where(possible, value, 0.0)) + 1
    x = jnp.asarray(law.rate, float)
    # 1. P(Y ≥ a) and P(Y < a) are the incomplete gamma functions P(a, x) and Q(a, x).
    beyond = gammainc(a, x)
    up_to = gammaincc(a, x)
    # 2. Where P underflows, its series: x^a e^-x / Γ(a + 1) · Σ_n x^n / ((a + 1)…(a + n)).
    common = a * jnp.log(x) - x - gammaln(a)
    small_rate = jnp.where(beyond < _DEEP, x, 0.5 * a)
    series = jnp.ones_like(a + x)
    term = jnp.ones_like(a + x)
    for n in range(1, _DEEP_STEPS):
        term = term * small_rate / (a + n)
        series = series + term
    # 3. Where Q underflows, its continued fraction (Legendre's), evaluated from its end.
    large_rate = jnp.where(up_to < _DEEP, x, 2 * a + 10)
    fraction = jnp.zeros_like(a + x)
    for n in range(_DEEP_STEPS, 0, -1):
        fraction = n * (n - a) / (large_rate + 2 * n + 1 - a - fraction)
    deep_beyond = common + jnp.log(series / a)
    deep_up_to = common - jnp.log(large_rate + 1 - a - fraction)
    # 4. Take the direct logarithms only where they are needed.
    log_beyond = jnp.where(beyond < _DEEP, deep_beyond, jnp.log(jnp.maximum(beyond, _DEEP)))
    log_up_to = jnp.where(up_to < _DEEP, deep_up_to, jnp.log(jnp.maximum(up_to, _DEEP)))
    return tails_where(possible, log_up_to, log_beyond)


def _negative_binomial_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    possible = value >= 0
    # NumPyro's rate is that of the mixing gamma distribution: concentration over mean.
    rate = jnp.asarray(law.rate, float)
    count = jnp.floor(jnp.where(possible, value, 0.0)) + 1
    tails = log_incomplete_beta(law.concentration, count, rate / (1 + rate), 1 / (1 + rate))
    return tails_where(possible, *tails)


def _binomial_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    trials = jnp.asarray(law.total_count, float)
    inside = (value >= 0) & (value < trials)
    count = jnp.floor(jnp.where(inside, value, 0.0))
    p = jnp.asarray(law.probs)
    up_to, beyond = log_incomplete_beta(jnp.maximum(trials - count, 1.0), count + 1, 1 - p, p)
    return (
        jnp.where(inside, up_to, jnp.where(value < 0, -jnp.inf, 0.0)),
        jnp.where(inside, beyond, jnp.where(value < 0, 0.0, -jnp.inf)),
    )


def _zero_inflated_tails(law: Any, value: Float[Array, "..."]) -> Tails:
    up_to, beyond = log_tails(law.base_dist, value)
    gate = jnp.log(law.gate)
    rest = jnp.log1p(-law.gate)
    return tails_where(value >= 0, jnp.logaddexp(gate, rest + up_to), rest + beyond)


def tails_where(possible: Any, up_to: Any, beyond: Any) -> Tails:
    """Correct the tails of values below the support, where P(Y ≤ value) = 0.

    Args:
        possible: flags of values that are not below the support.
        up_to: the logarithm of P(Y ≤ value).
        beyond: the logarithm of P(Y > value).

    Returns:
        The logarithms of P(Y ≤ value) and P(Y > value).
    """
    return jnp.where(possible, up_to, -jnp.inf), jnp.where(possible, beyond, 0.0)


_TAILS: dict[type, Callable[[Any, Any], Tails]] = {
    dist.Normal: _normal_tails,
    dist.LogNormal: _log_normal_tails,
    dist.StudentT: _student_tails,
    dist.Poisson: _poisson_tails,
    dist.NegativeBinomial2: _negative_binomial_tails,
    dist.BinomialProbs: _binomial_tails,
    dist.ZeroInflatedProbs: _zero_inflated_tails,
}


def log_incomplete_beta(a: Any, b: Any, x: Any, rest: Any) -> Tails:
    r"""Return the logarithms of $I_x(a, b)$ and $1 - I_x(a, b)$, the regularised incomplete beta.

    The smaller of the two is computed by a continued fraction, so that both are exact in the tails.
    Unlike JAX's function, this one has gradients in a and b.

    Args:
        a: the first parameter.
        b: the second parameter.
        x: the argument.
        rest: 1 - x, given separately for precision.

    Returns:
        Both logarithms, in the shape that the arguments broadcast to.

    Source: Press et al., Numerical Recipes, section 6.4.
    """
    a, b, x, rest = (jnp.asarray(v, float) for v in (a, b, x, rest))
    # 1. The fraction converges fast for x < (a + 1) / (a + b + 2). Else use the symmetry
    #    I_x(a, b) = 1 - I_{1-x}(b, a).
    swap = x * (a + b + 2) > a + 1
    a, b = jnp.where(swap, b, a), jnp.where(swap, a, b)
    x, rest = jnp.where(swap, rest, x), jnp.where(swap, x, rest)
    one = jnp.ones_like(a + b + x)

    def away(v: Any) -> Any:
        return jnp.where(jnp.abs(v) < _TINY, _TINY, v)

    # 2. Lentz's method: each step multiplies the fraction by c · d, for two coefficients.
    def step(carry: Any, m: Any) -> Any:
        c, d, log = carry
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / away(1 + numerator * d)
            c = away(1 + numerator / c)
            log = log + jnp.log(c * d)
        return (c, d, log), None

    first = 1 / away(1 - (a + b) * x / (a + 1))
    (_, _, log), _ = jax.lax.scan(
        step, (one, one * first, jnp.log(one * first)), jnp.arange(1.0, _STEPS)
    )
    # 3. log I_x(a, b) = log(x^a (1 - x)^b / (a B(a, b))) + log of the fraction.
    weight = (
        a * jnp.log(x) + b * jnp.log(rest) - jnp.log(a) - gammaln(a) - gammaln(b) + gammaln(a + b)
    )
    small = jnp.minimum(weight + log, -1e-16)
    large = jax.nn.log1mexp(-small)
    return jnp.where(swap, large, small), jnp.where(swap, small, large)
