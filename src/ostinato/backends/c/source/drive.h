/* Forward and backward of one call, over the tables and the pointwise loops rendered above. */

INLINE long matrix_rows(const Job *g, int m) { return g->size[MATRIX_SIZE[m][0]]; }
INLINE long matrix_columns(const Job *g, int m) { return g->size[MATRIX_SIZE[m][1]]; }
INLINE long column_width(const Job *g, int c) { return padded(g->size[SIZE_OF_COLUMN[c]]); }
INLINE long state_row(const Job *g, int s) { return row_of(g->size[SIZE_OF_STATE[s]]); }

/* A packed product: its tape columns stand together. */
static long run_width(const Job *g, const Run *r) {
    long width = 0;
    for (int e = r->first; e < r->first + r->count; e++) width += column_width(g, ENTRIES[e].column);
    return width;
}
static long run_depth(const Job *g, const Run *r) {
    return r->transposed ? run_width(g, r) : matrix_columns(g, ENTRIES[r->first].matrix);
}
static long run_columns(const Job *g, const Run *r) {
    return r->transposed ? matrix_columns(g, ENTRIES[r->first].matrix) : run_width(g, r);
}

static void pack_entry(Job *g, long task) {
    for (int i = 0; i < N_RUNS; i++) {
        const Run *r = &RUNS[i];
        if (!g->panels[i]) continue;
        if (task >= r->count) {
            task -= r->count;
            continue;
        }
        const int e = r->first + (int)task, m = ENTRIES[e].matrix;
        const long at = g->column[ENTRIES[e].column] - g->column[ENTRIES[r->first].column];
        if (r->transposed)
            pack_columns(g->matrix[m].value, g->matrix[m].row, matrix_rows(g, m), matrix_columns(g, m), g->panels[i],
                         run_depth(g, r), at);
        else
            pack_rows(g->matrix[m].value, g->matrix[m].row, matrix_rows(g, m), matrix_columns(g, m), g->panels[i], at);
        return;
    }
}

static void pack_all(Job *g) {
    long tasks = 0;
    size_t values = 0;
    for (int i = 0; i < N_RUNS; i++) {
        if (!g->panels[i]) continue;
        tasks += RUNS[i].count;
        values += (size_t)(run_columns(g, &RUNS[i]) * run_depth(g, &RUNS[i]));
    }
    each(g, pack_entry, tasks, values);
}

/* What both directions share: padded vectors, biases, panels of the runs from `first` to `last`. */
static void carve_shared(Job *g, int first, int last, int skip_from, int skip_to) {
    g->bias = CARVE(g, real, g->row_size + PANEL);
    long widest = 1;
    for (int i = 0; i < N_SYMBOLS; i++) widest = most(widest, g->size[i]);
    g->zeros = CARVE(g, real, padded(widest) + PANEL);
    for (int v = 0; v < N_VECTORS; v++) g->vector_padded[v] = CARVE(g, real, padded(g->size[SIZE_OF_VECTOR[v]]));
    for (int i = first; i < last; i++) {
        if ((g->flags & UNPACKED) || (i >= skip_from && i < skip_to)) continue;
        g->panels[i] = CARVE(g, real, panels_of(run_columns(g, &RUNS[i])) * PANEL * steps_of(run_depth(g, &RUNS[i])));
        g->deepest = most(g->deepest, steps_of(run_depth(g, &RUNS[i])));
    }
    if (!g->arena) return;
    memset(g->zeros, 0, sizeof(real) * (size_t)(padded(widest) + PANEL));
    memset(g->bias, 0, sizeof(real) * (size_t)(g->row_size + PANEL));
    for (int v = 0; v < N_VECTORS; v++) {
        const long n = g->size[SIZE_OF_VECTOR[v]];
        memcpy(g->vector_padded[v], g->vector[v].value, sizeof(real) * (size_t)n);
        memset(g->vector_padded[v] + n, 0, sizeof(real) * (size_t)(padded(n) - n));
    }
    for (int i = 0; i < N_BIASES; i++) {
        real *to = g->bias + g->column[BIASES[i][0]];
        const real *from = g->vector_padded[BIASES[i][1]];
        for (long j = 0; j < g->size[SIZE_OF_VECTOR[BIASES[i][1]]]; j++) to[j] += from[j];
    }
}

/* rows of numbers as rows of pairs */
static void pair_up(long rows, long depth, const real *source, long source_row, real *target,
                    long target_row) {
    for (long r = 0; r < rows; r++)
        for (long k = 0; k < steps_of(depth); k += LANES) /* a row of pairs has room for whole vectors */
            store(target + r * target_row + k, steps_at(source + r * source_row, k, depth));
}

/* its panels from the share `part` of `parts` to the next one; `paired`: the source is rows of pairs already */
static void run(const Job *g, const Part *p, int index, long rows, const real *source, long source_row, int paired,
                real *target, long target_row, long part, long parts) {
    const Run *r = &RUNS[index];
    const long first = g->column[ENTRIES[r->first].column];
    if (g->panels[index]) {
        const real *start = r->accumulate ? target : r->transposed ? g->zeros : g->bias + first;
        const long columns = run_columns(g, r), depth = steps_of(run_depth(g, r)), panels = panels_of(columns);
        const long from = panels * part / parts * PANEL, to = least(columns, panels * (part + 1) / parts * PANEL);
        if (to <= from) return;
        if (HALF && !paired) {
            pair_up(rows, run_depth(g, r), source, source_row, p->halves, row_of(depth));
            source = p->halves, source_row = row_of(depth);
        }
        multiply(rows, to - from, depth, source, source_row, g->panels[index] + from * depth, start + from,
                 r->accumulate ? target_row : 0, target + from, target_row);
        return;
    }
    for (int e = r->first; e < r->first + r->count; e++) {
        const int m = ENTRIES[e].matrix, c = ENTRIES[e].column;
        real *to = target + g->column[c] - first;
        if (!r->accumulate)
            for (long k = 0; k < rows; k++)
                memcpy(to + k * target_row, g->bias + g->column[c], sizeof(real) * (size_t)column_width(g, c));
        multiply_unpacked(rows, g->matrix[m].value, matrix_rows(g, m), g->matrix[m].row, matrix_columns(g, m), source,
                          source_row, to, target_row);
    }
}

/* a product within a step */
static void step_run(const Job *g, Part *p, int index, long t, long n) {
    const Run *r = &RUNS[index];
    real *row = tape_row(g, p, t, 0), *columns = row + g->column[ENTRIES[r->first].column];
    const real *source = columns;
    real *target = columns;
    long source_row = g->row_size, target_row = g->row_size;
    if (r->source == AT_STATE) source = p->now[r->source_index], source_row = state_row(g, r->source_index);
    if (r->source == AT_COLUMN) source = row + g->column[r->source_index];
    if (r->target == AT_TEMP) target = p->temp[r->target_index], target_row = row_of(g->size[SIZE_OF_TEMP[r->target_index]]);
    if (r->target == AT_GRAD_STATE) target = p->next[r->target_index], target_row = state_row(g, r->target_index);
    run(g, p, index, n, source, source_row, 0, target, target_row, p->member, p->members);
}

static void swap_states(Part *p) {
    for (int s = 0; s < N_STATES; s++) {
        real *other = p->now[s];
        p->now[s] = p->next[s];
        p->next[s] = other;
    }
}

static void copy_row(real *to, const real *from, long count, long width) {
    if (from) memcpy(to, from, sizeof(real) * (size_t)count);
    else memset(to, 0, sizeof(real) * (size_t)count);
    if (width > count) memset(to + count, 0, sizeof(real) * (size_t)(width - count));
}

/* a part's, or a thread's, share of the gradients of vectors and scalars */
static void carve_sums(Job *g, Part *p) {
    for (int v = 0; v < N_VECTORS; v++) {
        const long n = padded(g->size[SIZE_OF_VECTOR[v]]);
        p->grad_vector[v] = CARVE(g, real, n);
        if (g->arena) memset(p->grad_vector[v], 0, sizeof(real) * (size_t)n);
    }
    for (int v = 0; v < N_SCALARS; v++) {
        p->grad_scalar[v] = CARVE(g, real, LANES);
        if (g->arena) memset(p->grad_scalar[v], 0, sizeof(real) * (size_t)LANES);
    }
}

/* Room for the rows of a product as pairs. In a share of the work a thread has rows of a chunk, or all of a step. */
static void carve_halves(Job *g, Part *p) {
    if (HALF) p->halves = CARVE(g, real, (most(g->chunk, g->batch) + 1) * (row_of(g->deepest) + LANES));
}

static void carve_parts(Job *g, int backward) {
    const int in_place = backward ? BACKWARD_IN_PLACE : FORWARD_IN_PLACE;
    for (long j = 0; j < g->parts; j++) {
        Part none = {0}, *p = g->arena ? &g->part[j] : &none;
        if (j && g->together) {
            if (g->arena) *p = g->part[0];
            carve_halves(g, p);
            if (backward) carve_sums(g, p);
            continue;
        }
        const long count = g->arena ? p->count : g->together ? g->batch : (g->batch + g->parts - 1) / g->parts;
        const long rows = most(g->chunk, count) + 1;
        carve_halves(g, p);
        for (int s = 0; s < N_STATES; s++) {
            p->now[s] = CARVE(g, real, count * state_row(g, s) + 1);
            p->next[s] = in_place ? p->now[s] : CARVE(g, real, count * state_row(g, s) + 1);
        }
        long kept = 0;
        for (int i = 0; i < N_STEPS; i++) {
            const long size = padded(g->size[SIZE_OF_STEP[i]]);
            if (i < KEPT_STEPS && (g->flags & TRAINING)) p->step[i] = g->kept_steps + kept, kept += size;
            else p->step[i] = CARVE(g, real, size);
        }
        for (int i = 0; i < (backward ? N_TEMPS : FORWARD_TEMPS); i++)
            p->temp[i] = CARVE(g, real, count * row_of(g->size[SIZE_OF_TEMP[i]]) + 1);
        const long width = row_of(g->size[SIZE_OF_X]);
        if (!backward) {
            p->x = CARVE(g, real, rows * width);
            if (g->flags & NARROW) p->out = CARVE(g, real, rows * row_of(g->size[SIZE_OF_OUT]));
            if (!(g->flags & TRAINING)) p->tape = CARVE(g, real, rows * g->row_size);
            else p->tape = g->tape + p->row * g->row_size;
            continue;
        }
        p->tape = g->tape + p->row * g->row_size;
        p->grad_x = CARVE(g, real, DEFERRED_TO > DEFERRED_FROM ? rows * width : width);
        carve_sums(g, p);
    }
}

static long chunk_end(const Job *g, const Part *p, long t0) {
    long t = t0 + 1;
    while (t < p->steps && p->offset[t + 1] - p->offset[t0] <= g->chunk) t++;
    return t;
}

/* whether rows of x are gathered as pairs */
INLINE int x_paired(const Job *g) { return HALF && !(g->flags & UNPACKED); }

/* a row of x as its products read it */
static void gather_x(const Job *g, const Part *p, long t, long k, real *to) {
    const long depth = g->size[SIZE_OF_X];
#if REAL_BITS == 32
    if (g->flags & NARROW) {
        const uint16_t *from = (const uint16_t *)g->x + x_at(g, p, t, k);
        if (x_paired(g)) {
            memcpy(to, from, sizeof *from * (size_t)depth);
            if (depth % 2) memset((char *)to + sizeof *from * (size_t)depth, 0, sizeof *from);
            return;
        }
        for (long j = 0; j < depth; j += LANES) {
            narrow_vec v = {0};
            memcpy(&v, from + j, sizeof *from * (size_t)least(LANES, depth - j));
            store(to + j, widened(v));
        }
        return;
    }
#endif
    if (x_paired(g)) pair_up(1, depth, x_row(g, p, t, k), 0, to, 0);
    else memcpy(to, x_row(g, p, t, k), sizeof(real) * (size_t)depth);
}

/* the outputs of a chunk, if the caller's are bfloat16 */
static void give_out(const Job *g, const Part *p, long t0, long rows) {
#if REAL_BITS == 32
    const long width = g->size[SIZE_OF_OUT];
    for (long r = share(p, rows, 0), t = t0; r < share(p, rows, 1); r++) {
        while (r >= p->offset[t + 1] - p->offset[t0]) t++;
        const long k = r - (p->offset[t] - p->offset[t0]);
        const real *from = out_row(g, p, t, k);
        uint16_t *to = (uint16_t *)g->out + out_at(g, p, t, k);
        long j = 0;
        for (; j + LANES <= width; j += LANES) *(unaligned_narrow_vec *)(to + j) = narrowed(load(from + j));
        const narrow_vec rest = narrowed(load_until(from, j, width));
        memcpy(to + j, &rest, sizeof *to * (size_t)(width - j));
    }
#endif
}

/* what does not wait for the state: products of x, and biases */
static void forward_chunk(Job *g, Part *p, long t0, long rows) {
    const long width = row_of(g->size[SIZE_OF_X]), first = share(p, rows, 0), last = share(p, rows, 1);
    real *base = tape_row(g, p, t0, 0) + first * g->row_size;
    if (HOIST_TO > HOIST_FROM)
        for (long r = first, t = t0; r < last; r++) {
            while (r >= p->offset[t + 1] - p->offset[t0]) t++;
            gather_x(g, p, t, r - (p->offset[t] - p->offset[t0]), p->x + r * width);
        }
    for (int i = HOIST_FROM; i < HOIST_TO; i++)
        run(g, p, i, last - first, p->x + first * width, width, x_paired(g), base + g->column[ENTRIES[RUNS[i].first].column],
            g->row_size, 0, 1);
    for (int i = 0; i < N_FILLS; i++)
        for (long r = 0; r < last - first; r++)
            memcpy(base + r * g->row_size + g->column[FILLS[i]], g->bias + g->column[FILLS[i]],
                   sizeof(real) * (size_t)column_width(g, FILLS[i]));
}

static void keep_final(const Job *g, const Part *p, long k) {
    for (int s = 0; s < N_STATES; s++) {
        const long n = g->size[SIZE_OF_STATE[s]];
        memcpy(g->state[s].final + p->batch[k] * n, p->now[s] + k * state_row(g, s), sizeof(real) * (size_t)n);
    }
}

static void forward_part(Job *g, long j) {
    Part *p = &g->part[j];
    real *scratch_tape = p->tape;
    const long bytes = g->flags & NARROW ? 2 : (long)sizeof(real);
    for (long k = share(p, p->count, 0); k < share(p, p->count, 1); k++) {
        for (int s = 0; s < N_STATES; s++)
            copy_row(p->now[s] + k * state_row(g, s), history(g, p, s, -1, k), g->size[SIZE_OF_STATE[s]], state_row(g, s));
        if (!p->length[k]) keep_final(g, p, k);
        for (long t = p->length[k]; t < padded_steps(g); t++) /* past a sequence's end */
            memset((char *)g->out + (t * g->out_step + p->batch[k] * g->out_batch) * bytes, 0,
                   (size_t)(bytes * g->size[SIZE_OF_OUT]));
    }
    for (long t0 = 0, t1; t0 < p->steps; t0 = t1) {
        t1 = chunk_end(g, p, t0);
        if (!(g->flags & TRAINING)) p->tape = scratch_tape - p->offset[t0] * g->row_size;
        p->chunk = p->offset[t0];
        meet(g, p);
        forward_chunk(g, p, t0, p->offset[t1] - p->offset[t0]);
        for (long t = t0; t < t1; t++) {
            const long n = active(p, t);
            if (g->flags & TRAINING) slots_forward(g, p, t, n);
            else slots_infer(g, p, t, n);
            swap_states(p);
            if (BY_COLUMNS && active(p, t + 1) < n) meet(g, p);
            for (long k = most(active(p, t + 1), share(p, n, 0)); k < share(p, n, 1); k++) keep_final(g, p, k);
        }
        if (!(g->flags & NARROW)) continue;
        meet(g, p);
        give_out(g, p, t0, p->offset[t1] - p->offset[t0]);
    }
}

/* So many rows at a time that their tape stays in the second-level cache; but enough that reading the weights of x pays. */
static void plan_chunk(Job *g) {
    const long fit = (long)(CHUNK_BYTES / sizeof(real)) / most(g->row_size, 1);
    g->chunk = most(96, least(192, fit)) * (g->together ? g->parts : 1);
}

#ifndef TOGETHER_BYTES
#define TOGETHER_BYTES ((size_t)1 << 20) /* what a second-level cache holds */
#endif

/* By sequences; or together, if every thread would read large weights for few sequences. */
static void plan_parts(Job *g) {
    size_t weights = 0;
    for (int i = HOIST_TO; i < STEP_TO; i++)
        weights += (size_t)(run_columns(g, &RUNS[i]) * run_depth(g, &RUNS[i])) * sizeof(real);
    const int few = g->batch > 0 && g->batch < g->threads * TILE_ROWS, large = weights > TOGETHER_BYTES;
    g->together = g->threads > 1 && g->batch > 0 && (ALWAYS_TOGETHER || (few && large)) && !(g->flags & UNPACKED);
    g->parts = g->together ? g->threads : ALWAYS_TOGETHER ? 1 : most(1, least(g->threads, g->batch));
}

static long kept_step(const Job *g) {
    long size = 0;
    for (int i = 0; i < KEPT_STEPS; i++) size += padded(g->size[SIZE_OF_STEP[i]]);
    return size;
}
/* a tape: notes, vectors of the steps, rows */
static void place_steps(Job *g) {
    g->kept_step = kept_step(g);
    g->kept_steps = g->tape + TAPE_NOTES;
    g->tape = g->kept_steps + g->steps * g->kept_step;
}

/* The order of a tape's rows depends on the parts: it says which, since there may be other threads by then. In numbers
   that survive a caller who keeps saved tensors rounded to half precision, and in bounds whatever became of them. */
static void write_parts(Job *g) {
    g->tape[0] = (real)(g->together != 0);
    g->tape[1] = (real)g->parts;
    place_steps(g);
}
static void read_parts(Job *g) {
    const int together = g->tape[0] == 1;
    const real parts = g->tape[1];
    place_steps(g);
    g->together = together && g->threads > 1;
    g->parts = g->together ? g->threads : !together && parts >= 1 && parts <= (real)g->batch ? (long)parts : 1;
}

static void each_part(Job *g, void (*work)(Job *, long)) {
    if (g->together) work_together(g, work);
    else each(g, work, g->parts, SIZE_MAX);
}

int ostinato_forward(const int64_t *bound, const int64_t *call) {
    Job job, *g = &job;
    void *owner = 0;
    read_arguments(g, bound, call, 0);
    const size_t rows = (size_t)g->rows * sizeof(real);
    large_pages(g->out, rows / (g->flags & NARROW ? 2 : 1) * (size_t)g->size[SIZE_OF_OUT]);
    plan_parts(g);
    if (g->flags & TRAINING) {
        large_pages(g->tape, rows * (size_t)g->row_size);
#ifdef POISON
        memset(g->tape, 0xff, rows * (size_t)g->row_size + (size_t)(TAPE_NOTES + g->steps * kept_step(g)) * sizeof(real)); /* NaN */
#endif
        write_parts(g);
    }
    plan_chunk(g);
    for (int pass = 0; pass < 2; pass++) {
        g->used = 0;
        share_out(g);
        carve_shared(g, HOIST_FROM, STEP_TO, 0, 0);
        carve_parts(g, 0);
        if (!pass && !(g->arena = scratch(g->used, &owner))) return 1;
    }
    pack_all(g);
    each_part(g, forward_part);
    release_scratch(owner);
    return 0;
}

#include "backward.h"
