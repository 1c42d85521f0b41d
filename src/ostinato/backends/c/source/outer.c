/* Weight gradients: sums of outer products over many rows. */

/* Rows of a matrix are few at its end, and a vector's matrix has one; a matrix may be half a panel wide. */
#define LOW_ROWS 4
typedef void outer_function(long, const real *, const real *, real *, long);
#define OUTER_TILE(name, rows, wide)                                                                              \
    static __attribute__((noinline)) void name(long count, const real *left, const real *right, real *target,      \
                                               long target_row) {                                                 \
        tile(rows, wide, count, left, 1, TILE_ROWS, right, 0, target, target_row, target, target_row, wide,        \
             right + AHEAD * PANEL, PANEL);                                                                       \
    }
OUTER_TILE(outer_one_1, 1, 1) OUTER_TILE(outer_one_2, 1, 2)
OUTER_TILE(outer_low_1, LOW_ROWS, 1) OUTER_TILE(outer_low_2, LOW_ROWS, 2)
OUTER_TILE(outer_tile_1, TILE_ROWS, 1) OUTER_TILE(outer_tile_2, TILE_ROWS, 2)

static outer_function *outer_of(long rows, int whole) {
    if (rows == 1) return whole ? outer_one_2 : outer_one_1;
    if (rows <= LOW_ROWS) return whole ? outer_low_2 : outer_low_1;
    return whole ? outer_tile_2 : outer_tile_1;
}

/* A tile's sums lie in as many rows of the gradient, far apart: asked for while the tile before it is multiplied. */
INLINE void fetch_tile(const real *target, long target_row) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int v = 0; v < PANEL; v += 64 / (int)sizeof(real)) __builtin_prefetch(target + i * target_row + v, 1);
}

/* packed[panel][row][PANEL] from `count` rows at row(r) = values + offset[r], `width` wide */
void pack_operand(long count, const real *const *rows, long width, real *packed) {
#if HALF
    for (long p = 0; p < panels_of(width); p++) {
        const long w = least(PANEL, width - p * PANEL);
        real *to = packed + p * steps_of(count) * PANEL;
        for (long r = 0; r < count; r += 2, to += PANEL)
            for (long c = 0; c < PANEL; c += LANES) {
                const vec second = r + 1 < count ? load_until(rows[r + 1] + p * PANEL, c, w) : splat(0);
                store(to + c, pairs(load_until(rows[r] + p * PANEL, c, w), second));
            }
    }
#else
    for (long p = 0; p < panels_of(width); p++) {
        const long w = least(PANEL, width - p * PANEL);
        real *to = packed + p * count * PANEL;
        for (long r = 0; r < count; r++, to += PANEL) {
            const real *from = rows[r] + p * PANEL;
            if (w == PANEL) {
                store(to, load(from));
                store(to + LANES, load(from + LANES));
            } else {
                memcpy(to, from, sizeof(real) * (size_t)w);
                memset(to + w, 0, sizeof(real) * (size_t)(PANEL - w));
            }
        }
    }
#endif
}

/* target[m][panels] += Σ over rows of gradient[row][m] * operand[row]; m from `first` to `last`.
 * `left` has room for count * OUTER_ROWS values (and a tile more); the target has room for whole panels. */
void add_outer(long count, const real *gradient, long gradient_row, long first, long last, const real *operand,
                      long width, real *target, long target_row, real *left) {
    const long block = OUTER_ROWS / TILE_ROWS * TILE_ROWS, steps = steps_of(count);
    for (long m0 = first; m0 < last; m0 += block) {
        const long m1 = least(last, m0 + block), tiles = (m1 - m0 + TILE_ROWS - 1) / TILE_ROWS;
        for (long i = 0; i < tiles; i++) {
            const real *g = gradient + m0 + i * TILE_ROWS;
            real *to = left + i * steps * TILE_ROWS;
#if HALF
            for (long r = 0; r < count; r += 2, to += TILE_ROWS, g += 2 * gradient_row)
                for (long j = 0; j < TILE_ROWS; j += LANES)
                    store(to + j, pairs(load(g + j), r + 1 < count ? load(g + gradient_row + j) : splat(0)));
#else
            for (long r = 0; r < count; r++, to += TILE_ROWS, g += gradient_row)
                for (long j = 0; j < TILE_ROWS; j += LANES) /* whole vectors; the next row overwrites what is too much */
                    store(to + j, load(g + j));
#endif
        }
        for (long p = 0; p < panels_of(width); p++)
            for (long i = 0; i < tiles; i++) {
                const long m = m0 + i * TILE_ROWS, high = least(TILE_ROWS, m1 - m);
                real *to = target + m * target_row + p * PANEL;
                if (i + 1 < tiles) fetch_tile(to + TILE_ROWS * target_row, target_row);
                else if (p + 1 < panels_of(width)) fetch_tile(target + m0 * target_row + (p + 1) * PANEL, target_row);
                outer_function *add = outer_of(high, padded(width) > p * PANEL + LANES);
                if (high == TILE_ROWS || high == LOW_ROWS || high == 1) {
                    add(steps, left + i * steps * TILE_ROWS, operand + p * steps * PANEL, to, target_row);
                } else { /* rows beyond the matrix go to a tile of their own */
                    real edge[TILE_ROWS * PANEL];
                    memset(edge, 0, sizeof edge);
                    add(steps, left + i * steps * TILE_ROWS, operand + p * steps * PANEL, edge, PANEL);
                    for (long j = 0; j < high; j++)
                        for (long c = 0; c < PANEL; c++) to[j * target_row + c] += edge[j * PANEL + c];
                }
            }
    }
}
