/* Products of bfloat16 numbers with float32 sums, where the processor multiplies them.
 *
 * A number of two halves (a pair) stands where a `real` stands elsewhere: k and k + 1 of the depth side by side. So tiles,
 * panels and their addresses are those of float32 with half the depth; only what multiplies differs, and what packs. */

#if defined(HALF_PRODUCTS) && defined(__AVX512BF16__)
#define HALF 1
#include <immintrin.h>

typedef whole may_alias_whole __attribute__((may_alias));
typedef uint16_t half_vec __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t uvec __attribute__((vector_size(VECTOR_BYTES)));
typedef half_vec unaligned_half_vec __attribute__((aligned(2), may_alias));

INLINE vec spread_left(const real *p) { return (vec)isplat(*(const may_alias_whole *)p); }
INLINE vec multiply_add(vec a, vec b, vec sum) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

/* the nearest bfloat16, ties to even, in the upper half of each lane; NaN stays NaN */
INLINE uvec nearest_half(vec v) {
    const uvec bits = (uvec)v, rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return (uvec)choose(v == v, (vec)rounded, (vec)(bits | 0x400000));
}
INLINE vec pairs(vec first, vec second) {
    return (vec)((nearest_half(first) >> 16) | (nearest_half(second) & 0xffff0000u));
}
/* neighbours become pairs */
INLINE void store_halves(uint16_t *to, vec v) {
    *(unaligned_half_vec *)to = __builtin_convertvector(nearest_half(v) >> 16, half_vec);
}
INLINE uint16_t half_of(real a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return a != a ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
#else
#define HALF 0
INLINE vec spread_left(const real *p) { return splat(*p); }
INLINE vec multiply_add(vec a, vec b, vec sum) { return sum + a * b; }
#endif

/* so many steps of k as `depth` numbers make */
INLINE long steps_of(long depth) { return HALF ? (depth + 1) / 2 : depth; }
