/* Products of bfloat16 numbers with float32 sums, where the processor multiplies them.
 *
 * A number of two halves (a pair) stands where a `real` stands elsewhere: k and k + 1 of the depth side by side. So tiles,
 * panels and their addresses are those of float32 with half the depth; only what multiplies differs, and what packs. */

#if defined(HALF_PRODUCTS) && defined(__AVX512BF16__)
#define HALF 1
#include <immintrin.h>

typedef whole may_alias_whole __attribute__((may_alias));

INLINE vec spread_left(const real *p) { return (vec)isplat(*(const may_alias_whole *)p); }
INLINE vec multiply_add(vec a, vec b, vec sum) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

/* The nearest bfloat16 of each, ties to even: of `first` in the lower half of the vector, of `second` in the upper one. NaN
 * stays NaN; what is below the normal numbers becomes 0, as it does in the product. */
INLINE vec halves(vec first, vec second) { return (vec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }
/* a pair of each lane of `first` and of `second` */
INLINE vec pairs(vec first, vec second) {
    short order[2 * LANES];
    for (int l = 0; l < LANES; l++) order[2 * l] = (short)l, order[2 * l + 1] = (short)(l + LANES);
    return (vec)_mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)halves(first, second));
}
/* steps [k, k + LANES) of a row of so many numbers, 0 beyond them: neighbours become pairs */
INLINE vec steps_at(const real *row, long k, long depth) {
    return halves(load_until(row, 2 * k, depth), load_until(row, 2 * k + LANES, depth));
}
#else
#define HALF 0
INLINE vec spread_left(const real *p) { return splat(*p); }
INLINE vec multiply_add(vec a, vec b, vec sum) { return sum + a * b; }
INLINE vec steps_at(const real *row, long k, long depth) { return load_until(row, k, depth); }
#endif

/* so many steps of k as `depth` numbers make */
INLINE long steps_of(long depth) { return HALF ? (depth + 1) / 2 : depth; }
