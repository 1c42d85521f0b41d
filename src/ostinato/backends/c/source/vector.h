/* Vectors: GCC's vector extensions, no intrinsics. `real` is float or double. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_ROWS 12 /* 12 x 2 accumulators, 2 of a panel, the rest for addresses and broadcasts: 32 registers */
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE_ROWS 6 /* 16 registers */
#else
#define VECTOR_BYTES 16
#if defined(__aarch64__)
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
#endif

#if REAL_BITS == 64
typedef double real;
typedef int64_t whole;
#else
typedef float real;
typedef int32_t whole;
#endif

#define LANES ((long)(VECTOR_BYTES / sizeof(real)))
#define PANEL (2 * LANES) /* columns of a panel: two vectors */
#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef whole ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef real unaligned_vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

INLINE vec load(const real *p) { return *(const unaligned_vec *)p; }
INLINE void store(real *p, vec v) { *(unaligned_vec *)p = v; }
INLINE vec splat(real a) { return a - (vec){0}; }
INLINE ivec isplat(whole a) { return a - (ivec){0}; }

#if defined(__clang__)
/* GCC's function, which clang lacks. Only packing and sums over lanes ask for it, no inner loop. */
INLINE vec shuffled(vec a, vec b, ivec order) {
    vec v;
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++) v[l] = order[l] < LANES ? a[order[l]] : b[order[l] - LANES];
    return v;
}
#define __builtin_shuffle shuffled
#endif

/* The last, partial vector of a row. Scratch is padded to whole vectors, and its padding is always 0. */
INLINE vec load_part(const real *p, long lanes) {
    vec v = {0};
    memcpy(&v, p, (size_t)lanes * sizeof(real));
    return v;
}
/* lanes [at, at + LANES) of a row of so many values, 0 beyond them */
INLINE vec load_until(const real *row, long at, long count) {
    if (at + LANES <= count) return load(row + at);
    return at < count ? load_part(row + at, count - at) : splat(0);
}
INLINE void store_part(real *p, vec v, long lanes) { memcpy(p, &v, (size_t)lanes * sizeof(real)); }
INLINE vec first_lanes(vec v, long lanes) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return (vec)((ivec)v & (lane < isplat((whole)lanes)));
}

/* what is left of a row of so many values behind its whole vectors, in the last lanes, and 0 before it */
INLINE vec load_end(const real *row, long count) {
    if (count < LANES) return load_part(row, count);
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return (vec)((ivec)load(row + count - LANES) & (lane >= isplat((whole)(LANES - count % LANES))));
}

#if REAL_BITS == 32
typedef uint32_t uvec __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t narrow_vec __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef narrow_vec unaligned_narrow_vec __attribute__((aligned(2), may_alias));

/* bfloat16 is the upper half of a float32 */
INLINE vec widened(narrow_vec v) { return (vec)(__builtin_convertvector(v, uvec) << 16); }
/* the nearest bfloat16, ties to even; NaN stays NaN */
INLINE narrow_vec narrowed(vec v) {
    const uvec bits = (uvec)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const uvec number = (uvec)(v == v);
    return __builtin_convertvector((rounded & number) | (quiet & ~number), narrow_vec);
}
#endif

INLINE vec choose(ivec condition, vec a, vec b) { return (vec)(((ivec)a & condition) | ((ivec)b & ~condition)); }

INLINE real lanes_total(vec v) {
    real sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

INLINE long padded(long n) { return (n + LANES - 1) / LANES * LANES; }
/* How far rows lie apart: an odd number of vectors, so that a column of rows uses every set of the caches. */
INLINE long row_of(long n) { return padded(n) / LANES % 2 ? padded(n) : padded(n) + LANES; }
INLINE long panels_of(long n) { return (n + PANEL - 1) / PANEL; }
INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }
