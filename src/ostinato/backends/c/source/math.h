/* Elementwise functions. NaN and infinities pass through as in the C library. */

/* exp(x) - 1 = s * p + (s - 1) with s = 2^n and p = exp(r) - 1, |r| <= ln(2) / 2 (Cody and Waite's reduction). */
INLINE void exp_parts(vec x, vec *scale, vec *p) {
#if REAL_BITS == 64
    const vec magic = splat(6755399441055744.0);
    const vec n = (x * splat(1.4426950408889634) + magic) - magic;
    const vec r = (x - n * splat(0x1.62e42fefa0000p-1)) - n * splat(0x1.cf79abc9e3b39p-40);
    vec q = splat(1.0 / 6227020800.0);
    const real c[] = {1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0,
                      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,     1.0 / 6.0, 0.5};
#pragma GCC unroll 16
    for (int i = 0; i < 11; i++) q = q * r + splat(c[i]);
    *p = r + r * r * q;
    *scale = (vec)((__builtin_convertvector(n, ivec) + isplat(1023)) << 52);
#else
    const vec magic = splat(12582912.0f);
    const vec n = (x * splat(1.44269504f) + magic) - magic;
    const vec r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
    vec q = splat(1.0f / 5040.0f);
    const real c[] = {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f};
#pragma GCC unroll 16
    for (int i = 0; i < 5; i++) q = q * r + splat(c[i]);
    *p = r + r * r * q;
    *scale = (vec)((__builtin_convertvector(n, ivec) + isplat(127)) << 23);
#endif
}

#if REAL_BITS == 64
#define EXP_LOW ((real)-708.0)
#define EXP_HIGH ((real)709.0)
#define TANH_HIGH ((real)20.0)
#else
#define EXP_LOW -87.0f
#define EXP_HIGH 88.0f
#define TANH_HIGH 9.5f
#endif

/* exp of what stays within the range of numbers after clamping; NaN passes */
INLINE vec exp_clamped(vec x) {
    vec scale, p;
    exp_parts(x, &scale, &p);
    return scale * p + scale;
}

INLINE vec v_exp(vec x) {
    /* clamping to the range keeps 2^n representable; the ends are finished by a second factor */
    const vec low = splat(EXP_LOW), high = splat(EXP_HIGH);
    const vec inside = choose(x < low, low, choose(x > high, high, x));
    const vec over = choose((x > high) | (x < low), x - inside, splat(0));
    const vec bounded = choose(over > splat(40), splat(40), choose(over < splat(-40), splat(-40), over));
    return exp_clamped(inside) * exp_clamped(bounded);
}

INLINE vec v_sigmoid(vec x) {
    const vec low = splat(EXP_LOW), high = splat(EXP_HIGH);
    const vec minus = -x;
    const vec inside = splat(1) / (splat(1) + exp_clamped(choose(minus < low, low, choose(minus > high, high, minus))));
    return choose(minus > high, splat(0), inside);
}

INLINE vec v_tanh(vec x) {
    vec scale, p;
    const vec high = splat(TANH_HIGH), inside = choose(x > high, high, choose(x < -high, -high, x));
    exp_parts(inside + inside, &scale, &p);
    const vec less_one = scale * p + (scale - splat(1)); /* exp(2x) - 1, accurate near 0 */
    return less_one / (less_one + splat(2));
}

#if REAL_BITS == 64
#define EACH(name, call)                                     \
    static vec name(vec x) {                                 \
        for (int i = 0; i < LANES; i++) x[i] = call(x[i]);   \
        return x;                                            \
    }
#else
#define EACH(name, call)                                     \
    static vec name(vec x) {                                 \
        for (int i = 0; i < LANES; i++) x[i] = call##f(x[i]); \
        return x;                                            \
    }
#endif
EACH(v_sin, sin)
EACH(v_cos, cos)
EACH(v_floor, floor)
EACH(v_log, log)
EACH(v_log1p, log1p)
EACH(v_sqrt, sqrt)

INLINE vec v_abs(vec x) { return choose(x < splat(0), -x, choose(x == splat(0), splat(0), x)); }
INLINE vec v_relu(vec x) { return choose(x < splat(0), splat(0), x); }
INLINE vec v_softplus(vec x) { return v_relu(x) + v_log1p(v_exp(-v_abs(x))); }
INLINE vec v_maximum(vec a, vec b) { return choose(a > b, a, choose(a <= b, b, a + b)); }
INLINE vec v_minimum(vec a, vec b) { return choose(a < b, a, choose(a >= b, b, a + b)); }
static vec v_pow(vec x, double exponent) {
    for (int i = 0; i < LANES; i++) x[i] = (real)pow((double)x[i], exponent);
    return x;
}
