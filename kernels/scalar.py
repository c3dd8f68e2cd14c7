"""exp, expm1, log, log1p, tanh, sigmoid, softplus, normal_pdf and normal_cdf of a float32 or float64, for hot loops.

Ranges are reduced to a polynomial, whose chain is fused multiply-adds; everything else is plain arithmetic and selects.
So LLVM vectorises a loop of them, and the bits depend neither on the machine nor on its mathematical library.
Every formula is written once: `constant` and `polynomial` pick the numbers for the type of their first argument.
exp takes a vector of `vectors` too.

NaN gives NaN. Results below the smallest normal number are flushed to 0, because subnormals are slow; only log1p,
expm1 and tanh, which are x for tiny x, keep them. The largest error measured, in units of the last place (float32:
every 61st bit pattern against float64; float64: a million arguments against 64-bit mantissas, 56,000 against mpmath for
normal_pdf and normal_cdf) is

           exp   expm1  log   log1p  tanh  sigmoid  softplus  normal_pdf  normal_cdf
  float32  0.64  1.35   0.83  1.39   1.91  1.48     1.67      2.53        4.19
  float64  0.65  1.57   0.78  1.37   1.93  1.45     1.64      2.59        4.15

Coefficients: minimax polynomials by the Remez exchange in 60 digits, then rounded to the dtype; the error beside each
is that of the rounded coefficients, relative to the function they serve. Highest power first.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from hotloop.kernels.jit import inner, jit
from hotloop.kernels.simd import bits_to_float, build_cast, build_fma, cast, float_to_bits, fma, like_of, number_of

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2: degree 5, error 2^-28.8; degree 10, error 2^-59.9 (of expm1).
EXP_32 = (
    0.0001984589616768062, 0.0013940627686679363, 0.008333389647305012, 0.041666362434625626, 0.1666666567325592, 0.5,
)  # fmt: skip
EXP_64 = (
    2.0875323514495894e-09, 2.5108977429592664e-08, 2.7557402638124505e-07, 2.7557244378471606e-06,
    2.4801587172582473e-05, 0.00019841269885961476, 0.0013888888888962325, 0.008333333333321693, 0.04166666666666651,
    0.16666666666666677, 0.5,
)  # fmt: skip

# (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2 <= (sqrt(2) - 1)^4: degree 2, error 2^-30.2; degree 6, error 2^-59.5.
LOG_32 = (0.29870694875717163, 0.3997758626937866, 0.6666677594184875)
LOG_64 = (
    0.14795484394791086, 0.1531409995805649, 0.18183562265460085, 0.222221986157794, 0.28571428741936816,
    0.39999999999416924, 0.6666666666666734,
)  # fmt: skip

# (a + 5) exp(a^2/2) Phi(-a) in t = (a - 5)/(a + 5): a <= 13.3, degree 10, error 2^-26.5; a <= 38.7, degree 22, 2^-53.2.
CDF_32 = (
    0.00010710278729675338, 0.0006613997393287718, -0.0008398559875786304, -0.003058752743527293, 0.020791731774806976,
    -0.069106824696064, 0.16502176225185394, -0.3135339915752411, 0.49530553817749023, -0.6653825044631958,
    0.7691930532455444,
)  # fmt: skip
CDF_64 = (
    -2.96322065187605e-10, 1.4489642076880332e-09, 7.93557833244121e-09, -8.343046533046481e-09,
    -6.60246384389699e-08, 4.093860920489224e-08, 4.32913882189599e-07, -3.3557596714218965e-07,
    -2.768977700338823e-06, 3.9804003881249655e-06, 1.6681052942666796e-05, -4.976265887977101e-05,
    -5.93756780356241e-05, 0.0005448990340177085, -0.0007978694074739055, -0.002993376766765721, 0.020795066800787455,
    -0.06911863870656673, 0.16502036617033977, -0.3135331566712963, 0.49530561596997724, -0.6653825028900567,
    0.769193049750063,
)  # fmt: skip

INF = float("inf")
NAN = float("nan")
LN2_32, LN2_REST_32 = 0.6931471824645996, -1.904654323148236e-09  # ln(2) rounded, and what that left
LN2_64, LN2_REST_64 = 0.6931471805599453, 2.3190468138462996e-17
SMALLEST_32, SMALLEST_64 = 2.0**-126, 2.0**-1022  # the smallest normal numbers
INTEGER_32, INTEGER_64 = 1.5 * 2.0**23, 1.5 * 2.0**52  # x + this has round(x) in its lowest bits


@intrinsic
def constant(typing: Any, x: Any, single: Any, double: Any) -> Any:
    """`single` as a float32 (int32) if x is one, else `double` as a float64 (int64)."""
    which = 1 if number_of(x).bitwidth == 32 else 2

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return build_cast(context, builder, args[which], signature.args[which], x)

    return x(x, single, double), codegen


@intrinsic
def polynomial(typing: Any, x: Any, single: Any, double: Any) -> Any:
    """Horner's rule in fused multiply-adds over the coefficients for the dtype of x, highest power first."""
    which = 1 if number_of(x).bitwidth == 32 else 2

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[which]
        numbers = [builder.extract_value(args[which], i) for i in range(kind.count)]
        coefficients = [build_cast(context, builder, number, kind.dtype, x) for number in numbers]
        total = coefficients[0]
        for coefficient in coefficients[1:]:
            total = build_fma(builder, total, args[0], coefficient)
        return total

    return x(x, single, double), codegen


@intrinsic
def select(typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` if the condition holds else `no`, both computed; Python's own `if` may stay a branch."""
    kind = like_of(types.boolean, yes)
    return yes(kind, yes, yes), lambda context, builder, signature, args: builder.select(*args)


@inner
def _scale(y: Any, t: Any) -> Any:
    """y 2^n with n in the lowest bits of t: an addition to the exponent, for normal y and result."""
    bits = float_to_bits(y)
    return bits_to_float(cast(bits + (float_to_bits(t) << constant(bits, 23, 52)), bits))


@inner
def _reduce(x: Any) -> Any:
    """x = n ln(2) + r (Cody and Waite): t, which has n in its lowest bits, and exp(r) - 1 = high + low, high exact."""
    integer = constant(x, INTEGER_32, INTEGER_64)
    t = fma(x, cast(1.4426950408889634, x), integer)
    n = t - integer
    high = fma(n, constant(x, -LN2_32, -LN2_64), x)
    low = n * constant(x, -LN2_REST_32, -LN2_REST_64)
    r = high + low
    return t, high, fma(r * r, polynomial(r, EXP_32, EXP_64), low)


@inner
def _expm1(x: Any) -> Any:
    """exp(x) - 1 for x in the middle of the range; halves keep 2^n finite."""
    t, high, low = _reduce(x)
    half = _scale(cast(0.5, x), t)
    return cast(2.0, x) * fma(high + low, half, half - cast(0.5, x))


@inner
def _split(x: Any) -> Any:
    """x = 2^n m with sqrt(1/2) <= m < sqrt(2), for normal x > 0: the integer n and m."""
    bits = float_to_bits(x)
    shift = constant(bits, 23, 52)
    n = cast(bits - constant(bits, 0x3F3504F3, 0x3FE6A09E667F3BCD), bits) >> shift
    return types.int32(n), bits_to_float(cast(bits - (n << shift), bits))


@inner
def _log(n: Any, f: Any) -> Any:
    """n ln(2) + log(1 + f) = n ln(2) + f - f^2/2 + s (f^2/2 + R(s^2)), s = f/(2 + f) (after FreeBSD's e_log.c)."""
    s = f / (cast(2.0, f) + f)
    z = s * s
    h = cast(0.5, f) * f * f
    rest = fma(s, fma(z, polynomial(z, LOG_32, LOG_64), h), n * constant(f, LN2_REST_32, LN2_REST_64))
    return fma(n, constant(f, LN2_32, LN2_64), f - (h - rest))


@inner
def _ratio(a: Any, b: Any, c: Any) -> Any:
    """a/(b + c) for b >= |c|: one step of Newton puts back the rounding errors of the sum and of the quotient."""
    d = b + c
    q = cast(1.0, a) / d
    y = a * q
    return fma(fma(-y, c - (d - b), fma(-y, d, a)), q, y)


@inner
def _flush(y: Any) -> Any:
    """0 for a subnormal y >= 0."""
    return select(y < constant(y, SMALLEST_32, SMALLEST_64), cast(0.0, y), y)


@inner
def _bell(a: Any) -> Any:
    """exp(-a^2/2) with the rounding error of the square put back: it would cost hundreds of ulp in the tail."""
    square = a * a
    y = exp(cast(-0.5, a) * square)
    return fma(y, cast(-0.5, a) * fma(a, a, -square), y)


@jit
def exp(x: Any) -> Any:
    """Exponential: 2^n exp(r), x = n ln(2) + r, |r| <= ln(2)/2; inf beyond the largest number.

    Source: Cody and Waite, Software Manual for the Elementary Functions, 1980.
    """
    t, high, low = _reduce(x)
    one = cast(1.0, x)
    y = one + high
    y = _scale(y + ((high - (y - one)) + low), t)
    y = select(x < constant(x, -87.33654022216797, -708.3964185322641), cast(0.0, x), y)
    return select(x <= constant(x, 88.72283172607422, 709.782712893384), y, x + cast(INF, x))


@jit
def expm1(x: Any) -> Any:
    """exp(x) - 1 without cancellation near 0: 2^n (exp(r) - 1) + (2^n - 1)."""
    lowest = cast(-40.0, x)
    y = _expm1(select(x < lowest, lowest, x))
    return select(x <= constant(x, 88.72283172607422, 709.782712893384), y, x + cast(INF, x))


@jit
def log(x: Any) -> Any:
    """Natural logarithm: n ln(2) + log(m), x = 2^n m, sqrt(1/2) <= m < sqrt(2); -inf at 0, NaN below."""
    small = x < constant(x, SMALLEST_32, SMALLEST_64)
    n, m = _split(select(small, x * constant(x, 2.0**25, 2.0**54), x))
    y = _log(cast(n, x) - select(small, constant(x, 25.0, 54.0), cast(0.0, x)), m - cast(1.0, x))
    y = select(x < cast(INF, x), y, x)
    return select(x > cast(0.0, x), y, select(x == cast(0.0, x), cast(-INF, x), cast(NAN, x)))


@jit
def log1p(x: Any) -> Any:
    """log(1 + x) without cancellation near 0: the rounding error of 1 + x goes into the reduced argument.

    -inf at -1, NaN below.
    """
    one = cast(1.0, x)
    u = one + x
    error = x - (u - one)
    n, m = _split(u)
    bits = float_to_bits(x)
    twice = bits_to_float(cast((constant(bits, 128, 1024) - n) << constant(bits, 23, 52), bits))  # 2^(1 - n)
    y = _log(cast(n, x), fma(cast(0.5, x) * error, twice, m - one))
    y = select(x < cast(INF, x), y, x)
    return select(x > -one, y, select(x == -one, cast(-INF, x), cast(NAN, x)))


@jit
def tanh(x: Any) -> Any:
    """Hyperbolic tangent, -e/(2 + e) with e = exp(-2 |x|) - 1; exactly +-1 far out."""
    a, limit, zero, two = abs(x), cast(20.0, x), cast(0.0, x), cast(2.0, x)
    e = _expm1(-two * select(a > limit, limit, a))
    y = _ratio(e, two, e)
    return select(x > zero, -y, select(x < zero, y, x))


@jit
def sigmoid(x: Any) -> Any:
    """Logistic function 1/(1 + exp(-x)); for x < 0 as exp(x)/(1 + exp(x)). Exactly 0 and 1 far out."""
    e, one = exp(-abs(x)), cast(1.0, x)
    return _ratio(select(x < cast(0.0, x), e, one), one, e)


@jit
def softplus(x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    return select(x > cast(0.0, x), x, cast(0.0, x)) + log1p(exp(-abs(x)))


@jit
def normal_pdf(x: Any) -> Any:
    """Density of the standard normal distribution, exp(-x^2/2)/sqrt(2 pi)."""
    a, limit = abs(x), constant(x, 14.0, 39.0)
    return _flush(cast(0.3989422804014327, x) * _bell(select(a > limit, limit, a)))


@jit
def normal_cdf(x: Any) -> Any:
    """Standard normal distribution function Phi, relatively accurate in the lower tail too.

    Phi(-a) = exp(-a^2/2) P(t)/(a + 5), t = (a - 5)/(a + 5) = 2 a/(a + 5) - 1; Phi(a) = 1 - Phi(-a).
    Source: the variable t is that of Shepherd and Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x,
    Mathematics of Computation 36, 1981.
    """
    a, limit = abs(x), constant(x, 14.0, 39.0)
    a = select(a > limit, limit, a)
    one = cast(1.0, x)
    q = one / (a + cast(5.0, x))
    tail = _flush(_bell(a) * (q * polynomial(fma(cast(2.0, x), a * q, -one), CDF_32, CDF_64)))
    return select(x > cast(0.0, x), one - tail, tail)
