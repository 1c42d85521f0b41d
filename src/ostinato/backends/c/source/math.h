/* Elementwise functions. NaN and infinities pass through as in the C library. */

#define COUNT(table) ((int)(sizeof table / sizeof *table))

#if REAL_BITS == 64
typedef uint64_t bits;
#define MANTISSA 52
#define BIAS 1023
#else
typedef uint32_t bits;
#define MANTISSA 23
#define BIAS 127
#endif
typedef bits bvec __attribute__((vector_size(VECTOR_BYTES))); /* shifts in zeros, for which there is always an instruction */

/* A number so large that its last bit is 1: added to x it rounds it to n, and ends with the bits of n + BIAS. */
#define ROUNDER ((real)(3 * ((whole)1 << (MANTISSA - 1)) + BIAS))
INLINE vec power_of_2(ivec n_and_bias) { return (vec)(n_and_bias << MANTISSA); }

/* exp(x) - 1 = s * p + (s - 1) with s = 2^n and p = exp(r) - 1, |r| <= ln(2) / 2 (Cody and Waite's reduction). Gives
 * what ends with the bits of n + BIAS. */
INLINE ivec exp_parts(vec x, vec *p) {
    const vec rounded = x * splat((real)1.4426950408889634) + splat(ROUNDER), n = rounded - splat(ROUNDER);
#if REAL_BITS == 64
    const vec r = (x - n * splat(0x1.62e42fefa0000p-1)) - n * splat(0x1.cf79abc9e3b39p-40);
    vec q = splat(1.0 / 6227020800.0);
    const real c[] = {1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0,
                      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,     1.0 / 6.0, 0.5};
#else
    const vec r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
    vec q = splat(1.0f / 5040.0f);
    const real c[] = {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f};
#endif
#pragma GCC unroll 16
    for (int i = 0; i < COUNT(c); i++) q = q * r + splat(c[i]);
    *p = r + r * r * q;
    return (ivec)rounded;
}

#if REAL_BITS == 64
#define EXP_LEAST ((real)-746.0) /* exp of it is 0, of the second no normal number, of the third infinite */
#define EXP_NORMAL ((real)-709.0)
#define EXP_INFINITE ((real)710.0)
#define TANH_HIGH ((real)20.0)
#else
#define EXP_LEAST -104.0f
#define EXP_NORMAL -88.0f
#define EXP_INFINITE 89.0f
#define TANH_HIGH 9.5f
#endif

INLINE vec v_exp(vec x) {
    const vec low = splat(EXP_LEAST), high = splat(EXP_INFINITE);
    vec p;
    const ivec n = exp_parts(choose(x < low, low, choose(x > high, high, x)), &p) - (ivec)splat(ROUNDER);
    /* 2^n in two factors, of which each is a number also where exp(x) is none, or a denormal one */
    const ivec half = (ivec)((bvec)(n + isplat(2 * BIAS)) >> 1) - isplat(BIAS);
    const vec scale = power_of_2(half + isplat(BIAS));
    return (scale * p + scale) * power_of_2(n - half + isplat(BIAS));
}

/* exp(-|x|), which sigmoid and softplus of x and of -x are computed from; 0 where it is less than a normal number */
INLINE vec exp_down(vec x) {
    const vec low = splat(EXP_NORMAL), down = (vec)((ivec)x | (ivec)splat((real)-0.0));
    vec p;
    const vec scale = power_of_2(exp_parts(choose(down < low, low, down), &p)); /* 0 at the end: n + BIAS is */
    return scale * p + scale;
}
INLINE vec sigmoid_of(vec x, vec down) {
    const vec part = splat(1) / (splat(1) + down);
    return choose(x < splat(0), down * part, part);
}

INLINE vec v_tanh(vec x) {
    vec p;
    const vec high = splat(TANH_HIGH), inside = choose(x > high, high, choose(x < -high, -high, x));
    const vec scale = power_of_2(exp_parts(inside + inside, &p));
    const vec less_one = scale * p + (scale - splat(1)); /* exp(2x) - 1, accurate near 0 */
    return less_one / (less_one + splat(2));
}

/* log(1 + f) - f for 1 + f between the roots of 1/2 and 2: log(1 + f) = 2 artanh(s), whose series in s^2 ends soon. */
INLINE vec log_rest(vec f) {
#if REAL_BITS == 64
    const real c[] = {2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3};
    vec q = splat(2.0 / 21);
#else
    const real c[] = {2.0f / 7, 2.0f / 5, 2.0f / 3};
    vec q = splat(2.0f / 9);
#endif
    const vec s = f / (f + splat(2)), z = s * s, half = splat((real)0.5) * f * f;
#pragma GCC unroll 16
    for (int i = 0; i < COUNT(c); i++) q = q * z + splat(c[i]);
    return s * (half + z * q) - half;
}

#if REAL_BITS == 64
#define ROOT_HALF 0x3fe6a09e667f3bcd /* the bits of it, and of 1 */
#define ONE_BITS 0x3ff0000000000000
#define LN2_HIGH 6.93147180369123816490e-01 /* so few bits that any power's multiple is exact */
#define LN2_LOW 1.90821492927058770002e-10
#define LEAST_NORMAL 0x1p-1022
#else
#define ROOT_HALF 0x3f3504f3
#define ONE_BITS 0x3f800000
#define LN2_HIGH 6.9313812256e-01f
#define LN2_LOW 9.0580006145e-06f
#define LEAST_NORMAL 0x1p-126f
#endif

INLINE vec v_log(vec x) {
    const ivec denormal = x < splat(LEAST_NORMAL);
    const vec normal = choose(denormal, x * splat((real)0x1p53), x);
    const bvec moved = (bvec)((ivec)normal + isplat(ONE_BITS - ROOT_HALF));
    const vec n = __builtin_convertvector((ivec)(moved >> MANTISSA) - isplat(BIAS), vec);
    const vec e = n - choose(denormal, splat(53), splat(0));
    const vec f = (vec)((ivec)(moved & (((bits)1 << MANTISSA) - 1)) + isplat(ROOT_HALF)) - splat(1);
    const vec found = e * splat(LN2_HIGH) + (f + (e * splat(LN2_LOW) + log_rest(f)));
    const vec some = choose(x < splat(INFINITY), found, x);
    return choose(x > splat(0), some, choose(x == splat(0), splat(-INFINITY), splat(NAN)));
}

/* log(1 + x) for x from 0 to 1 */
INLINE vec log1p_of_part(vec x) {
    const ivec high = x > splat((real)0.41421356);
    const vec f = choose(high, (x - splat(1)) * splat((real)0.5), x);
    const vec low = choose(high, splat(LN2_LOW), splat(0)), rest = log_rest(f);
    return choose(high, splat(LN2_HIGH), splat(0)) + (f + (low + rest));
}

INLINE vec v_floor(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = REAL_BITS == 64 ? floor(x[i]) : floorf((float)x[i]);
    return x;
}
INLINE vec v_sqrt(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = REAL_BITS == 64 ? sqrt(x[i]) : sqrtf((float)x[i]);
    return x;
}

INLINE vec v_abs(vec x) { return choose(x < splat(0), -x, choose(x == splat(0), splat(0), x)); }
INLINE vec v_relu(vec x) { return choose(x < splat(0), splat(0), x); }
INLINE vec softplus_of(vec x, vec down) { return v_relu(x) + log1p_of_part(down); }
INLINE vec v_maximum(vec a, vec b) { return choose(a > b, a, choose(a <= b, b, a + b)); }
INLINE vec v_minimum(vec a, vec b) { return choose(a < b, a, choose(a >= b, b, a + b)); }

/* sin and cos: x = r + n pi / 2, pi in parts that n times is exact, so far as n has few bits */
#if REAL_BITS == 64
#define TURN_LIMIT 1e6
static const real TURN[] = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69};
static const real SINES[] = {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
                             1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0};
static const real COSINES[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                               1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0};
#else
#define TURN_LIMIT 3000.0f
static const real TURN[] = {0x1.921p+0f, 0x1.f6ap-13f, 0x1.11p-26f, 0x1.68c234p-39f};
static const real SINES[] = {1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6};
static const real COSINES[] = {-1.0f / 3628800, 1.0f / 40320, -1.0f / 720, 1.0f / 24};
#endif

/* The C library's, for numbers so large that they need pi to hundreds of bits. */
static __attribute__((noinline)) vec far_turn(vec x, int quarters) {
    for (int i = 0; i < LANES; i++) {
        const double value = (double)x[i];
        x[i] = (real)(quarters ? cos(value) : sin(value));
    }
    return x;
}

/* sin(x + quarters pi / 2) */
INLINE vec turned(vec x, int quarters) {
    const vec limit = splat(TURN_LIMIT);
    const ivec outside = (x > limit) | (x < -limit);
    whole any = 0;
    for (int i = 0; i < LANES; i++) any |= outside[i];
    if (__builtin_expect(any != 0, 0)) return far_turn(x, quarters);
    const vec magic = splat((real)((whole)3 << (MANTISSA - 1)));
    const vec n = (x * splat((real)0.63661977236758134308) + magic) - magic;
    vec r = x;
#pragma GCC unroll 8
    for (int i = 0; i < COUNT(TURN); i++) r -= n * splat(TURN[i]);
    const vec z = r * r;
    vec s = splat(SINES[0]), c = splat(COSINES[0]);
#pragma GCC unroll 16
    for (int i = 1; i < COUNT(SINES); i++) s = s * z + splat(SINES[i]);
#pragma GCC unroll 16
    for (int i = 1; i < COUNT(COSINES); i++) c = c * z + splat(COSINES[i]);
    const ivec quadrant = __builtin_convertvector(n, ivec) + isplat(quarters);
    const vec one = choose((quadrant & isplat(1)) == isplat(1), splat(1) - (splat((real)0.5) * z - z * z * c), r + r * z * s);
    return choose((quadrant & isplat(2)) == isplat(2), -one, one);
}
INLINE vec v_sin(vec x) { return choose(x == splat(0), x, turned(x, 0)); }
INLINE vec v_cos(vec x) { return turned(x, 1); }

static vec v_pow(vec x, double exponent) {
    for (int i = 0; i < LANES; i++) x[i] = (real)pow((double)x[i], exponent);
    return x;
}
