/* Products of rows with packed matrices.
 *
 * A matrix is packed into panels of PANEL columns: panel[k][PANEL], so that the innermost loop reads it in order. A tile
 * of up to TILE_ROWS rows and one to four panels stays in registers over the whole of k. */

#define AHEAD 16 /* steps of k to fetch ahead within a panel */
#define LARGE_WEIGHTS ((long)1 << 20)
#define DEPTH 512 /* of a panel at a time: PANEL * DEPTH values stay in the second-level cache */

/* target[rows][wide * LANES] = start[rows][wide * LANES] + a[rows][depth] @ panels; the first `vectors` of each row
 * are written. What a start is read beyond them is not used: scratch has room for it.
 * Rows are addressed from every third one, (base), (base + row), (base + 2 row), so that few registers hold addresses. */
INLINE void tile(const int rows, const int wide, long depth, const real *a, const long a_row, const long a_depth,
                 const real *packed, const long panel_size, const real *start, long start_row, real *target,
                 long target_row, long vectors, const real *next, long next_step) {
    vec sum[TILE_ROWS][8]; /* what is not used takes no register */
    const real *base[(TILE_ROWS + 2) / 3];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i += 3) base[i / 3] = a + i * a_row;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++) sum[i][v] = load(start + i * start_row + v * LANES);
    for (long k = 0; k < depth; k++) {
        vec b[8];
        if (wide <= 2) {
            __builtin_prefetch(next);
            __builtin_prefetch(next + LANES);
            next += next_step;
        } else {
#pragma GCC unroll 8
            for (int v = 0; v < wide; v++)
                __builtin_prefetch(packed + AHEAD * PANEL + (v / 2) * panel_size + (v % 2) * LANES);
        }
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++) b[v] = load(packed + (v / 2) * panel_size + (v % 2) * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vec left = spread_left(&base[i / 3][(i % 3) * a_row]);
#pragma GCC unroll 8
            for (int v = 0; v < wide; v++) sum[i][v] = multiply_add(left, b[v], sum[i][v]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < rows; i += 3) base[i / 3] += a_depth;
        packed += PANEL;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++)
            if (v < vectors) store(target + i * target_row + v * LANES, sum[i][v]);
}

/* One function for each height and width in vectors: a panel, half of one where a matrix ends in its middle; low tiles take
 * more panels, to have enough independent sums. */
#define TILE(rows, wide)                                                                                          \
    static __attribute__((noinline)) void tile_##rows##_##wide(                                                   \
        long depth, const real *a, long a_row, const real *packed, long panel_size, const real *start,             \
        long start_row, real *target, long target_row, long vectors, const real *next, long next_step) {           \
        tile(rows, wide, depth, a, a_row, 1, packed, panel_size, start, start_row, target, target_row, vectors,    \
             next, next_step);                                                                                    \
    }
typedef void tile_function(long, const real *, long, const real *, long, const real *, long, real *, long, long,
                           const real *, long);
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
TILES(1) TILES(2) TILES(3) TILES(4)
#if TILE_ROWS >= 6
TILES(5) TILES(6)
#endif
#if TILE_ROWS >= 8
TILES(7) TILES(8)
#endif
#if TILE_ROWS >= 12
TILES(9) TILES(10) TILES(11) TILES(12)
TILE(1, 8) TILE(2, 8) TILE(3, 8) TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif

static tile_function *const ONE_PANEL[][2] = {
    {0, 0}, {tile_1_1, tile_1_2}, {tile_2_1, tile_2_2}, {tile_3_1, tile_3_2}, {tile_4_1, tile_4_2},
#if TILE_ROWS >= 6
    {tile_5_1, tile_5_2}, {tile_6_1, tile_6_2},
#endif
#if TILE_ROWS >= 8
    {tile_7_1, tile_7_2}, {tile_8_1, tile_8_2},
#endif
#if TILE_ROWS >= 12
    {tile_9_1, tile_9_2}, {tile_10_1, tile_10_2}, {tile_11_1, tile_11_2}, {tile_12_1, tile_12_2},
#endif
};
#if TILE_ROWS >= 12
#define WIDE_ROWS 6
static tile_function *const WIDE[] = {0, tile_1_8, tile_2_8, tile_3_8, tile_4_4, tile_5_4, tile_6_4};
static const int WIDE_PANELS[] = {0, 4, 4, 4, 2, 2, 2};
#endif

/* target[rows][columns] = start[rows][columns] + a[rows][depth] @ packed, a row-major and `depth` in steps; target and start
 * are padded to whole vectors. start_row = 0 starts every row from one (a bias, zeros); start may be the target. */
void multiply(long rows, long columns, long depth, const real *a, long a_row, const real *packed,
                     const real *start, long start_row, real *target, long target_row) {
    const long panels = panels_of(columns), panel_size = depth * PANEL;
    const long vectors = padded(columns) / LANES;
    const long blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const int far = panels * panel_size * (long)sizeof(real) > LARGE_WEIGHTS;
    const long step = far ? (PANEL + blocks - 1) / most(blocks, 1) : PANEL; /* all blocks together fetch the next panel */
    if (rows == 0) return;
    for (long k = 0; k < most(depth, 1); k += DEPTH) {
        const long deep = least(DEPTH, depth - k);
        long p = 0;
#ifdef WIDE_ROWS
        if (rows <= WIDE_ROWS)
            for (; p + WIDE_PANELS[rows] <= panels; p += WIDE_PANELS[rows])
                WIDE[rows](deep, a + k, a_row, packed + p * panel_size + k * PANEL, panel_size, start + p * PANEL,
                           start_row, target + p * PANEL, target_row, vectors - 2 * p, 0, 0);
#endif
        for (; p < panels; p++) {
            const real *panel = packed + p * panel_size + k * PANEL;
            const real *next = panel + AHEAD * PANEL;
            if (far) next = p + 1 < panels ? panel + panel_size : k + DEPTH < depth ? packed + (k + DEPTH) * PANEL : packed;
            long row = 0;
            for (long block = 0; block < blocks; block++) {
                const long count = (rows - row + blocks - block - 1) / (blocks - block);
                ONE_PANEL[count][vectors > 2 * p + 1](
                    deep, a + row * a_row + k, a_row, panel, panel_size, start + row * start_row + p * PANEL, start_row,
                    target + row * target_row + p * PANEL, target_row, vectors - 2 * p, next, step);
                row += count;
                if (far) next += deep * step;
            }
        }
        start = target; /* the rest of the depth adds to it */
        start_row = target_row;
    }
}

#define DOT_ROWS (LANES > 8 ? LANES : 8) /* of the matrix at a time: enough independent sums, which fill vectors */

/* the sums of neighbouring lanes: of a, then of b */
INLINE vec pair_sums(vec a, vec b) {
    ivec even, odd;
    for (int l = 0; l < LANES; l++) even[l] = 2 * l, odd[l] = 2 * l + 1;
    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

/* target[count] += the products of so many rows of a matrix, 1 or DOT_ROWS, with the vector `left` */
INLINE void add_dots(const int count, const real *matrix, long matrix_row, long depth, const real *left, real *target) {
    vec sum[DOT_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) sum[i] = splat(0);
    long k = 0;
    for (; k + LANES <= depth; k += LANES) {
        const vec x = load(left + k);
        const real *row = matrix + k;
#pragma GCC unroll 16
        for (int i = 0; i < count; i++, row += matrix_row) sum[i] += x * load(row);
    }
    if (k < depth) {
        const vec x = load_end(left, depth);
        const real *row = matrix;
#pragma GCC unroll 16
        for (int i = 0; i < count; i++, row += matrix_row) sum[i] += x * load_end(row, depth);
    }
    if (count == 1) {
        *target += lanes_total(sum[0]);
        return;
    }
#pragma GCC unroll 4
    for (int width = (int)LANES, pairs = count / 2; width > 1; width /= 2, pairs /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < pairs; i++) sum[i] = pair_sums(sum[2 * i], sum[2 * i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < count / LANES; i++) store(target + i * LANES, load(target + i * LANES) + sum[i]);
}

/* target[rows][matrix rows] += a[rows][depth] @ matrixᵀ straight from the caller's matrix: when there are too few rows
 * to pay for packing */
void multiply_unpacked(long rows, const real *matrix, long matrix_rows, long matrix_row, long depth,
                              const real *a, long a_row, real *target, long target_row) {
    for (long r = 0; r < rows; r++) {
        const real *left = a + r * a_row;
        real *to = target + r * target_row;
        long m = 0;
        for (; m + DOT_ROWS <= matrix_rows; m += DOT_ROWS)
            add_dots(DOT_ROWS, matrix + m * matrix_row, matrix_row, depth, left, to + m);
        for (; m < matrix_rows; m++) add_dots(1, matrix + m * matrix_row, matrix_row, depth, left, to + m);
    }
}

/* Rows become columns. Neighbouring lanes of rows half the matrix apart: bit by bit, the number of the row and that of the
 * column change places. */
INLINE void transpose(vec v[LANES]) {
    ivec low, high;
    for (int l = 0; l < LANES; l++) low[l] = l / 2 + l % 2 * LANES, high[l] = low[l] + LANES / 2;
#pragma GCC unroll 8
    for (int side = LANES; side > 1; side /= 2) {
        vec turned[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            turned[2 * i] = __builtin_shuffle(v[i], v[i + LANES / 2], low);
            turned[2 * i + 1] = __builtin_shuffle(v[i], v[i + LANES / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) v[i] = turned[i];
    }
}

/* Columns [column, column + matrix rows) of the packed matrix become the rows of `matrix`: panels for a @ matrixᵀ.
 * The columns up to the next whole vector become 0. */
void pack_rows(const real *matrix, long matrix_row, long rows, long depth, real *packed, long column) {
    const long steps = steps_of(depth);
    for (long r = 0; r < rows; r += LANES) {
        const long c = column + r, high = least(LANES, rows - r); /* columns of the tape begin at whole vectors */
        real *to = packed + c / PANEL * steps * PANEL + c % PANEL;
        for (long k = 0; k < steps; k += LANES) {
            const long deep = least(LANES, steps - k);
            vec v[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                v[i] = i < high ? steps_at(matrix + (r + i) * matrix_row, k, depth) : splat(0);
            transpose(v);
            if (deep == LANES)
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) store(to + (k + i) * PANEL, v[i]);
            else
                for (int i = 0; i < deep; i++) store(to + (k + i) * PANEL, v[i]);
        }
    }
}

/* Rows [at, at + rows) of the panels become the rows of `matrix`: panels for a @ matrix. Padding becomes 0. */
void pack_columns(const real *matrix, long matrix_row, long rows, long columns, real *packed, long depth, long at) {
#if HALF
    for (long p = 0; p < panels_of(columns); p++) {
        const long width = least(PANEL, columns - p * PANEL);
        real *to = packed + (p * steps_of(depth) + at / 2) * PANEL; /* columns of the tape begin at whole vectors */
        for (long r = 0; r < padded(rows); r += 2, to += PANEL)
            for (long c = 0; c < PANEL; c += LANES) {
                const real *from = matrix + r * matrix_row + p * PANEL;
                const vec first = load_until(from, c, r < rows ? width : 0);
                store(to + c, pairs(first, load_until(from + matrix_row, c, r + 1 < rows ? width : 0)));
            }
    }
#else
    for (long p = 0; p < panels_of(columns); p++) {
        const long width = least(PANEL, columns - p * PANEL);
        real *to = packed + p * depth * PANEL + at * PANEL;
        for (long r = 0; r < padded(rows); r++, to += PANEL) {
            if (r >= rows) {
                memset(to, 0, sizeof(real) * (size_t)PANEL);
                continue;
            }
            memcpy(to, matrix + r * matrix_row + p * PANEL, sizeof(real) * (size_t)width);
            if (width < PANEL) memset(to + width, 0, sizeof(real) * (size_t)(PANEL - width));
        }
    }
#endif
}
