/* The derivative of one call. */

/* rows [first, first + count) of the part, from step t: the operand of a weight gradient */
static void operand_rows(const Job *g, const Part *p, const Outer *o, long first, long count, long t, const real **rows) {
    for (long r = first; r < first + count; r++) {
        while (r >= p->offset[t + 1]) t++;
        const long k = r - p->offset[t];
        if (o->operand == AT_X) *rows++ = x_row(g, p, t, k);
        else if (o->operand == AT_STATE) *rows++ = history(g, p, o->index, t - 1, k);
        else *rows++ = tape_row(g, p, t, k) + g->column[o->index];
    }
}

/* gradients of the weight matrices: the share [part, part + 1) / shares of each matrix's rows, over some tape rows */
static void add_weight_grads(Job *g, Part *p, long first, long count, long t, real *const *target, real *left, real *right,
                             const real **rows, long share, long shares) {
    const Outer *packed = 0;
    for (int i = 0; i < N_OUTER; i++) {
        const Outer *o = &OUTER[i];
        if (!target[o->matrix]) continue;
        const long high = matrix_rows(g, o->matrix), wide = matrix_columns(g, o->matrix);
        const long tiles = (high + TILE_ROWS - 1) / TILE_ROWS;
        const long from = least(high, tiles * share / shares * TILE_ROWS);
        const long to = least(high, tiles * (share + 1) / shares * TILE_ROWS);
        if (!packed || o->operand != packed->operand || o->index != packed->index) {
            operand_rows(g, p, o, first, count, t, rows);
            pack_operand(count, rows, wide, right);
            packed = o;
        }
        add_outer(count, p->tape + first * g->row_size + g->column[o->column], g->row_size, from, to, right, wide,
                  target[o->matrix], panels_of(wide) * PANEL, left);
    }
}

INLINE const real *grad_final(const Job *g, const Part *p, int s, long k) {
    return g->state[s].grad_final ? g->state[s].grad_final + p->batch[k] * g->state[s].grad_final_batch : 0;
}

static void backward_chunk(Job *g, Part *p, long t0, long t1) {
    const long width = row_of(g->size[SIZE_OF_X]), rows = p->offset[t1] - p->offset[t0];
    const long first = share(p, rows, 0), last = share(p, rows, 1);
    real *base = tape_row(g, p, t0, 0);
    if ((g->flags & WANT_INPUT) && DEFERRED_TO > DEFERRED_FROM) {
        for (int i = DEFERRED_FROM; i < DEFERRED_TO; i++)
            run(g, p, i, last - first, base + first * g->row_size + g->column[ENTRIES[RUNS[i].first].column], g->row_size,
                0, p->grad_x + first * width, width, 0, 1);
        for (long r = first, t = t0; r < last; r++) {
            while (r >= p->offset[t + 1] - p->offset[t0]) t++;
            const long k = r - (p->offset[t] - p->offset[t0]);
            memcpy(g->grad_x + row_at(g, p, t, k, g->grad_x_step, g->grad_x_batch), p->grad_x + r * width,
                   sizeof(real) * (size_t)g->size[SIZE_OF_X]);
        }
    }
    if (!(g->flags & WANT_PARAMS)) return;
    for (int i = 0; i < N_BIAS_GRADS; i++) {
        real *to = p->grad_vector[BIAS_GRADS[i][0]];
        const real *from = base + g->column[BIAS_GRADS[i][1]];
        const long n = column_width(g, BIAS_GRADS[i][1]);
        for (long j = 0; j < n; j += LANES) {
            vec sum = load(to + j);
            for (long r = first; r < last; r++) sum += load(from + r * g->row_size + j);
            store(to + j, sum);
        }
    }
    if (!(g->flags & SHARED_OUTER))
        for (long r = 0; r < rows; r += OUTER_COUNT)
            add_weight_grads(g, p, p->offset[t0] + r, least(OUTER_COUNT, rows - r), t0, p->grad_matrix, p->left, p->right,
                             p->rows, 0, 1);
}

/* how many values the gradient of a matrix has; none if it is not wanted: the matrix is fixed */
INLINE long grad_values(const Job *g, int m) {
    return g->matrix[m].grad ? matrix_rows(g, m) * panels_of(matrix_columns(g, m)) * PANEL : 0;
}
static void clear_grads(const Job *g, const Part *p) {
    for (int m = 0; m < N_MATRICES; m++)
        if (g->matrix[m].grad) memset(p->grad_matrix[m], 0, sizeof(real) * (size_t)grad_values(g, m));
}

static void backward_part(Job *g, long j) {
    Part *p = &g->part[j];
    if (!(g->flags & SHARED_OUTER))
        clear_grads(g, p);
    for (long t1 = p->steps, t0; t1 > 0; t1 = t0) {
        t0 = t1 - 1;
        while (t0 > 0 && p->offset[t1] - p->offset[t0 - 1] <= g->chunk) t0--;
        p->chunk = p->offset[t0];
        meet(g, p);
        for (long t = t1 - 1; t >= t0; t--) {
            const long n = active(p, t);
            for (long k = most(active(p, t + 1), share(p, n, 0)); k < share(p, n, 1); k++) /* whose last step this is */
                for (int s = 0; s < N_STATES; s++)
                    copy_row(p->now[s] + k * state_row(g, s), grad_final(g, p, s, k), g->size[SIZE_OF_STATE[s]],
                             state_row(g, s));
            slots_backward(g, p, t, n);
            swap_states(p);
        }
        meet(g, p);
        backward_chunk(g, p, t0, t1);
    }
    for (long k = share(p, p->count, 0); k < share(p, p->count, 1); k++) {
        for (int s = 0; s < N_STATES; s++) {
            const long n = g->size[SIZE_OF_STATE[s]];
            const real *last = p->length[k] ? p->now[s] + k * state_row(g, s) : grad_final(g, p, s, k);
            if (g->state[s].grad_start) copy_row(g->state[s].grad_start + p->batch[k] * n, last, n, n);
        }
        for (long t = p->length[k]; (g->flags & WANT_INPUT) && t < padded_steps(g); t++)
            memset(g->grad_x + t * g->grad_x_step + p->batch[k] * g->grad_x_batch, 0, sizeof(real) * (size_t)g->size[SIZE_OF_X]);
    }
}

/* large weights: every thread has its own rows of the matrices, over all rows of the tape */
static void outer_share(Job *g, long share) {
    const Part *own = &g->part[share];
    for (long j = 0; j < (g->together ? 1 : g->parts); j++) {
        Part *p = &g->part[j];
        const long rows = p->steps ? p->offset[p->steps] : 0;
        long t = 0;
        for (long first = 0; first < rows; first += OUTER_COUNT) {
            while (first >= p->offset[t + 1]) t++;
            add_weight_grads(g, p, first, least(OUTER_COUNT, rows - first), t, g->part[0].grad_matrix, own->left, own->right,
                             own->rows, share, g->parts);
        }
    }
}

static void finish_matrix(Job *g, long m) {
    const long high = matrix_rows(g, (int)m), wide = matrix_columns(g, (int)m), row = panels_of(wide) * PANEL;
    const long copies = (g->flags & SHARED_OUTER) ? 1 : g->parts;
    for (long i = 0; g->matrix[m].grad && i < high; i++) {
        real *to = g->matrix[m].grad + i * wide;
        memcpy(to, g->part[0].grad_matrix[m] + i * row, sizeof(real) * (size_t)wide);
        for (long j = 1; j < copies; j++) {
            const real *from = g->part[j].grad_matrix[m] + i * row;
            for (long k = 0; k < wide; k++) to[k] += from[k];
        }
    }
}

static size_t weights(const Job *g) {
    size_t values = 0;
    for (int m = 0; m < N_MATRICES; m++) values += (size_t)(matrix_rows(g, m) * matrix_columns(g, m));
    return values;
}

static void finish_small(Job *g) {
    for (int v = 0; v < N_VECTORS; v++)
        for (long i = 0; g->vector[v].grad && i < g->size[SIZE_OF_VECTOR[v]]; i++) {
            real sum = 0;
            for (long j = 0; j < g->parts; j++) sum += g->part[j].grad_vector[v][i];
            g->vector[v].grad[i] = sum;
        }
    for (int v = 0; v < N_SCALARS; v++) {
        real sum = 0;
        for (long j = 0; j < g->parts; j++)
            for (long l = 0; l < LANES; l++) sum += g->part[j].grad_scalar[v][l];
        if (g->scalar[v].grad) *g->scalar[v].grad = sum;
    }
}

static void carve_outer(Job *g) {
    long widest = 0, total = 0;
    for (int m = 0; m < N_MATRICES; m++) {
        const long row = panels_of(matrix_columns(g, m)) * PANEL;
        widest = most(widest, row);
        total += grad_values(g, m);
    }
    if (g->together || total * sizeof(real) * (size_t)g->parts > PRIVATE_BYTES) g->flags |= SHARED_OUTER;
    for (long j = 0; j < g->parts; j++) {
        Part none = {0}, *p = g->arena ? &g->part[j] : &none;
        p->rows = CARVE(g, const real *, OUTER_COUNT);
        p->left = CARVE(g, real, OUTER_COUNT * (OUTER_ROWS + TILE_ROWS) + TILE_ROWS + LANES);
        p->right = CARVE(g, real, OUTER_COUNT * widest);
        if (j && (g->flags & SHARED_OUTER)) continue;
        for (int m = 0; m < N_MATRICES; m++)
            if (g->matrix[m].grad) p->grad_matrix[m] = CARVE(g, real, grad_values(g, m));
    }
}

int ostinato_backward(const int64_t *bound, const int64_t *call) {
    Job job, *g = &job;
    void *owner = 0;
    read_arguments(g, bound, call, 1);
    if (g->flags & WANT_INPUT)
        large_pages(g->grad_x, (size_t)(g->rows * g->size[SIZE_OF_X]) * sizeof(real));
    g->flags &= ~(long)UNPACKED;
    read_parts(g);
    plan_chunk(g);
    for (int pass = 0; pass < 2; pass++) {
        g->used = 0;
        share_out(g);
        carve_shared(g, BACKWARD_FROM, DEFERRED_TO, DEFERRED_FROM, (g->flags & WANT_INPUT) ? DEFERRED_FROM : DEFERRED_TO);
        carve_parts(g, 1);
        if (g->flags & WANT_PARAMS) carve_outer(g);
        if (!pass && !(g->arena = scratch(g->used, &owner))) return 1;
    }
    pack_all(g);
    if (!(g->flags & WANT_PARAMS)) g->flags |= SHARED_OUTER; /* no private sums to clear */
    each_part(g, backward_part);
    if (g->flags & WANT_PARAMS) {
        if (g->flags & SHARED_OUTER) {
            clear_grads(g, &g->part[0]);
            each(g, outer_share, g->parts, SIZE_MAX);
        }
        each(g, finish_matrix, N_MATRICES, weights(g));
        finish_small(g);
    }
    release_scratch(owner);
    return 0;
}
