/* One call: what the caller gives, and how rows, parts and scratch are laid out.
 *
 * A part owns some sequences for all of time, so parts never wait for one another; or, where there are few sequences
 * for each thread and large weights, which every thread would read again, all threads work on one part: each multiplies
 * by its own columns of the weights and computes its own rows of what is pointwise, and they meet in between. A thread
 * then has a copy of the part of its own (`member` of `members`). Sequences are sorted, longest first: those still running at step t
 * are the first rows of the step. Rows of a part are numbered step by step; `offset[t]` is the first row of step t.
 *
 * What the caller holds over time is a row for each (step, sequence), steps and sequences some distance apart; or, packed,
 * those rows alone that a sequence has, step by step, of sequences that are sorted by length. `begin[t]` says how many
 * steps lie before step t, or packed how many rows. The tables N_*, SIZE_OF_* and so on are rendered from the Plan. */

typedef struct {
    long member, members; /* of the threads that work on it */
    long steps; /* of its longest sequence */
    long count; /* sequences */
    long row;   /* its first row on the tape */
    long *batch, *length, *offset;
    real *tape; /* row 0 of the part; without training only the current chunk is there */
    real *now[N_STATES + 1], *next[N_STATES + 1]; /* states, or their gradients */
    real *temp[N_TEMPS + 1];
    real *step[N_STEPS + 1]; /* vectors of the step, the same for all its rows */
    real *x, *out, *grad_x; /* rows of the current chunk, from `chunk` on; `out` if the caller's is bfloat16 */
    long chunk;
    real *grad_vector[N_VECTORS + 1], *grad_scalar[N_SCALARS + 1], *grad_matrix[N_MATRICES + 1];
    const real **rows;
    real *halves; /* rows of a product as pairs */
    real *left, *right;
} Part;

typedef void Parallel(void (*)(void *), void *, unsigned, unsigned);
typedef int TeamSize(void);

typedef struct {
    long size[N_SYMBOLS];
    struct { const real *value; long row; real *grad; } matrix[N_MATRICES + 1];
    struct { const real *value; real *grad; } vector[N_VECTORS + 1];
    struct { const real *value; real *grad; } scalar[N_SCALARS + 1];
    long steps, batch, threads, flags, reverse, rows, parts, chunk; /* rows: of x */
    const void *x; long x_step, x_batch; /* of real, or if NARROW is set of bfloat16, as is out */
    void *out; long out_step, out_batch;
    const int64_t *length;
    long *begin;
    real *tape;
    real *kept_steps; long kept_step; /* the vectors of a step that stay for backward, and how far steps are apart */
    Parallel *parallel; TeamSize *team_size;
    struct { const real *start; long start_batch; real *final; const real *grad_final; long grad_final_batch; real *grad_start; } state[N_STATES + 1];
    struct { const real *value; long step, batch; } mask[N_MASKS + 1];
    real *statistic[N_STATISTICS + 1]; /* [steps][size] */
    const real *grad_out; long grad_out_step, grad_out_batch;
    real *grad_x; long grad_x_step, grad_x_batch;
    long column[N_COLUMNS + 1], row_size; /* offsets within a row of the tape, and its size */
    real *bias, *zeros; /* one row of the tape with each accumulator's bias; a row of zeros */
    real *vector_padded[N_VECTORS + 1];
    real *panels[N_RUNS + 1];
    Part *part;
    long deepest; /* steps of the deepest product */
    long together; /* all threads work on part 0 */
    char *arena; /* scratch; 0 while it is measured */
    size_t used;
    _Alignas(64) long waiting; /* where threads meet */
    _Alignas(64) long round;
} Job;

static void *carve(Job *g, size_t bytes) {
    void *p = g->arena ? g->arena + g->used : 0;
    g->used += (bytes + 127) / 64 * 64;
    return p;
}
#define CARVE(g, type, count) ((type *)carve(g, sizeof(type) * (size_t)(count)))

/* this thread's share of so many rows: from its `share` to the next one's */
INLINE long share(const Part *p, long rows, long next) {
    return p->members == 1 ? rows * next : rows * (p->member + next) / p->members;
}
INLINE long active(const Part *p, long t) { return t < p->steps ? p->offset[t + 1] - p->offset[t] : 0; }
INLINE long position(const Job *g, const Part *p, long t, long k) { return g->reverse ? p->length[k] - 1 - t : t; }
INLINE real *tape_row(const Job *g, const Part *p, long t, long k) { return p->tape + (p->offset[t] + k) * g->row_size; }
/* in what a caller holds: steps (packed: rows) so far apart, and sequences */
INLINE long row_at(const Job *g, const Part *p, long t, long k, long step, long batch) {
    return g->begin[position(g, p, t, k)] * step + p->batch[k] * batch;
}
INLINE long x_at(const Job *g, const Part *p, long t, long k) { return row_at(g, p, t, k, g->x_step, g->x_batch); }
INLINE long out_at(const Job *g, const Part *p, long t, long k) { return row_at(g, p, t, k, g->out_step, g->out_batch); }
INLINE const real *x_row(const Job *g, const Part *p, long t, long k) { return (const real *)g->x + x_at(g, p, t, k); }
INLINE real *out_row(const Job *g, const Part *p, long t, long k) {
    if (g->flags & NARROW) return p->out + (p->offset[t] + k - p->chunk) * row_of(g->size[SIZE_OF_OUT]);
    return (real *)g->out + out_at(g, p, t, k);
}
INLINE const real *mask_row(const Job *g, const Part *p, int m, long t, long k) {
    return g->mask[m].value + row_at(g, p, t, k, g->mask[m].step, g->mask[m].batch);
}
/* vector i of step t: in training the first of them lie on the tape */
INLINE real *step_vector(const Job *g, const Part *p, long t, int i) {
    return p->step[i] + (i < KEPT_STEPS ? t * g->kept_step : 0);
}
/* where backward finds state s after step t; t = -1 is the start */
enum { IN_OUT = -1, IN_X = -2, NOWHERE = -3, BEFORE = -4 };
INLINE const real *history(const Job *g, const Part *p, int s, long t, long k) {
    for (; t >= 0 && HISTORY[s] <= BEFORE; t--) s = BEFORE - HISTORY[s]; /* it is another one before the step */
    if (t < 0) return g->state[s].start ? g->state[s].start + p->batch[k] * g->state[s].start_batch : g->zeros;
    if (HISTORY[s] == IN_X) return x_row(g, p, t, k);
    return HISTORY[s] < 0 ? out_row(g, p, t, k) : tape_row(g, p, t, k) + g->column[HISTORY[s]];
}
/* of x: where it stays, unless products are still added to it */
INLINE real *grad_x_row(const Job *g, const Part *p, long t, long k) {
    if (DEFERRED_TO > DEFERRED_FROM) return p->grad_x + (p->offset[t] + k - p->chunk) * row_of(g->size[SIZE_OF_X]);
    if (!(g->flags & WANT_INPUT)) return p->grad_x;
    return g->grad_x + row_at(g, p, t, k, g->grad_x_step, g->grad_x_batch);
}
/* steps at which x and out have a row for every sequence, also past its end */
INLINE long padded_steps(const Job *g) { return g->flags & PACKED ? 0 : g->steps; }

/* `bound` is what a layer has, `call` what a call brings; the other side of this is kernel.py */
static void read_arguments(Job *g, const int64_t *bound, const int64_t *call, int backward) {
    memset(g, 0, sizeof *g);
#define NUMBER(field) g->field = (long)*a++
#define POINTER(field) g->field = (void *)(intptr_t)*a++
    const int64_t *a = bound;
    for (int i = 0; i < N_SYMBOLS; i++) NUMBER(size[i]);
    for (int m = 0; m < N_MATRICES; m++) { POINTER(matrix[m].value); NUMBER(matrix[m].row); }
    for (int v = 0; v < N_VECTORS; v++) POINTER(vector[v].value);
    for (int v = 0; v < N_SCALARS; v++) POINTER(scalar[v].value);
    a = call;
    NUMBER(steps); NUMBER(batch); NUMBER(threads); NUMBER(reverse); NUMBER(flags);
    POINTER(x); NUMBER(x_step); NUMBER(x_batch);
    POINTER(out); NUMBER(out_step); NUMBER(out_batch);
    POINTER(length); POINTER(parallel); POINTER(team_size); POINTER(tape);
    for (int m = 0; m < N_MASKS; m++) { POINTER(mask[m].value); NUMBER(mask[m].step); NUMBER(mask[m].batch); }
    if (!backward) {
        for (int s = 0; s < N_STATES; s++) { POINTER(state[s].start); NUMBER(state[s].start_batch); POINTER(state[s].final); }
        for (int i = 0; i < N_STATISTICS; i++) POINTER(statistic[i]);
    } else {
        POINTER(grad_out); NUMBER(grad_out_step); NUMBER(grad_out_batch);
        POINTER(grad_x); NUMBER(grad_x_step); NUMBER(grad_x_batch);
        for (int s = 0; s < N_STATES; s++) {
            POINTER(state[s].start); NUMBER(state[s].start_batch);
            POINTER(state[s].grad_final); NUMBER(state[s].grad_final_batch); POINTER(state[s].grad_start);
        }
        for (int m = 0; m < N_MATRICES; m++) POINTER(matrix[m].grad);
        for (int v = 0; v < N_VECTORS; v++) POINTER(vector[v].grad);
        for (int v = 0; v < N_SCALARS; v++) POINTER(scalar[v].grad);
    }
#undef NUMBER
#undef POINTER
    long at = 0;
    for (int c = 0; c < N_COLUMNS; c++) {
        g->column[c] = at;
        at += padded(g->size[SIZE_OF_COLUMN[c]]);
    }
    if (at * (long)sizeof(real) / VECTOR_BYTES % 2 == 0) at += LANES; /* so that a column of rows uses every cache set */
    g->row_size = at;
    g->rows = padded_steps(g) * g->batch;
    for (long b = 0; (g->flags & PACKED) && b < g->batch; b++) g->rows += (long)g->length[b];
}

typedef struct { int64_t length; long batch; } Sequence;
static int longer_first(const void *a, const void *b) {
    const Sequence *m = a, *n = b;
    return m->length != n->length ? (m->length > n->length ? -1 : 1) : (m->batch > n->batch) - (m->batch < n->batch);
}

/* The longest sequence that is left goes to the part with the fewest rows so far; a part has room for as many as each
 * would get by number. */
static void deal_out(Job *g, const Sequence *order, long *owner, long parts) {
    const long room = (g->batch + parts - 1) / parts;
    for (long i = 0; i < g->batch; i++) {
        Part *to = 0;
        for (Part *p = g->part; p < g->part + parts; p++)
            if (p->count < room && (!to || p->row < to->row)) to = p;
        to->count++;
        to->row += (long)order[i].length;
        owner[i] = to - g->part;
    }
}

/* Which part has which sequences: neighbours if all are equally long. */
static void share_out(Job *g) {
    const long B = g->batch, P = g->together ? 1 : g->parts;
    Sequence *order = CARVE(g, Sequence, B + 1);
    g->part = CARVE(g, Part, g->parts);
    g->begin = CARVE(g, long, g->steps + 1);
    long *owner = CARVE(g, long, B + 1), *batch = CARVE(g, long, B + 1), *length = CARVE(g, long, B + 1);
    long *offset = CARVE(g, long, P * (g->steps + 1));
    if (!g->arena) return;
    memset(g->part, 0, sizeof(Part) * (size_t)g->parts);
    for (long i = 0; i < B; i++) order[i] = (Sequence){g->length ? g->length[i] : g->steps, i};
    if (g->length) {
        qsort(order, (size_t)B, sizeof *order, longer_first);
        deal_out(g, order, owner, P);
    }
    for (long t = 0, begin = 0, running = B; t < g->steps; t++) {
        while ((g->flags & PACKED) && running && g->length[running - 1] <= t) running--;
        g->begin[t] = begin;
        begin += g->flags & PACKED ? running : 1;
    }
    long done = 0, row = 0;
    for (long j = 0; j < P; j++) {
        Part *p = &g->part[j];
        p->members = 1;
        p->batch = batch + done;
        p->length = length + done;
        p->offset = offset + j * (g->steps + 1);
        const long first = B * j / P, last = B * (j + 1) / P;
        p->count = 0;
        for (long i = g->length ? 0 : first; i < (g->length ? B : last); i++)
            if (!g->length || owner[i] == j) p->batch[p->count++] = order[i].batch;
        for (long k = 0; k < p->count; k++) p->length[k] = g->length ? (long)g->length[p->batch[k]] : g->steps;
        p->steps = p->count ? p->length[0] : 0;
        p->row = row;
        long running = p->count;
        p->offset[0] = 0;
        for (long t = 0; t < p->steps; t++) {
            while (running && p->length[running - 1] <= t) running--;
            p->offset[t + 1] = p->offset[t] + running;
        }
        row += p->steps ? p->offset[p->steps] : 0;
        done += p->count;
    }
}

/* A team of threads takes pieces of work until none is left. */
typedef struct { void (*work)(Job *, long); Job *job; long count, taken; } Team;

static void member(void *data) {
    Team *team = data;
    for (long i; (i = __atomic_fetch_add(&team->taken, 1, __ATOMIC_RELAXED)) < team->count;) team->work(team->job, i);
}
static void *member_thread(void *data) {
    member(data);
    return 0;
}

#define MOST_THREADS 64 /* where the pool cannot be had */

/* A team costs some microseconds: as much as moving so many values. */
#define WORTH_A_TEAM 32768

static void each(Job *g, void (*work)(Job *, long), long count, size_t values) {
    Team team = {work, g, count, 0};
    const long threads = values < WORTH_A_TEAM ? 1 : least(g->threads, count);
    if (threads <= 1) {
        member(&team);
    } else if (g->parallel) { /* the pool of threads that torch already has */
        g->parallel(member, &team, (unsigned)threads, 0);
    } else {
        pthread_t other[MOST_THREADS];
        long started = 0;
        while (started < least(threads, MOST_THREADS) - 1 && !pthread_create(&other[started], 0, member_thread, &team)) started++;
        member(&team);
        for (long i = 0; i < started; i++) pthread_join(other[i], 0);
    }
}

/* Threads that work on one part wait here for one another. */
static void meet(Job *g, const Part *p) {
    if (p->members == 1) return;
    const long round = __atomic_load_n(&g->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&g->waiting, 1, __ATOMIC_ACQ_REL) == p->members) {
        __atomic_store_n(&g->waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&g->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (long spins = 0; __atomic_load_n(&g->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins > 10000) sched_yield(); /* the others may be waiting for this processor */
}

#define MEAN_VECTORS 8

/* target = the mean of so many rows, which is a statistic too if there is a place for it. All sequences are in one part;
 * its members share the columns. */
static void __attribute__((unused)) batch_mean(const Part *p, long n, long width, const real *rows, long row, real *target,
                                                real *statistic) {
    const long vectors = padded(width) / LANES, last = share(p, vectors, 1);
    for (long v = share(p, vectors, 0), count; v < last; v += count) {
        vec sum[MEAN_VECTORS]; /* side by side, since a row is far from the next */
        count = least(MEAN_VECTORS, last - v);
        for (long i = 0; i < MEAN_VECTORS; i++) sum[i] = splat(0);
        if (count == MEAN_VECTORS)
            for (long k = 0; k < n; k++)
                for (long i = 0; i < MEAN_VECTORS; i++) sum[i] += load(rows + k * row + (v + i) * LANES);
        else
            for (long k = 0; k < n; k++)
                for (long i = 0; i < count; i++) sum[i] += load(rows + k * row + (v + i) * LANES);
        for (long i = 0; i < count; i++) {
            const vec mean = sum[i] / splat((real)n);
            const long at = (v + i) * LANES, lanes = width - at;
            store(target + at, first_lanes(mean, lanes));
            if (statistic && lanes < LANES) store_part(statistic + at, mean, lanes);
            else if (statistic) store(statistic + at, mean);
        }
    }
}

/* `work` for every member of part 0, all at the same time. How many there are is known when they have started. */
typedef struct { void (*work)(Job *, long); Job *job; long taken, members; } Together;

static void together_member(void *data) {
    Together *all = data;
    Job *g = all->job;
    const long own = __atomic_fetch_add(&all->taken, 1, __ATOMIC_RELAXED);
    long members = g->parallel ? g->team_size() : 0;
    while (!members)
        if (!(members = __atomic_load_n(&all->members, __ATOMIC_ACQUIRE))) sched_yield();
    g->part[own].member = own;
    g->part[own].members = members;
    all->work(g, own);
}
static void *together_thread(void *data) {
    together_member(data);
    return 0;
}

static void work_together(Job *g, void (*work)(Job *, long)) {
    Together all = {work, g, 0, 0};
    g->waiting = g->round = 0;
    if (g->parallel) {
        g->parallel(together_member, &all, (unsigned)g->parts, 0);
        return;
    }
    pthread_t other[MOST_THREADS];
    long started = 0;
    while (started < least(g->parts, MOST_THREADS) - 1 && !pthread_create(&other[started], 0, together_thread, &all)) started++;
    __atomic_store_n(&all.members, started + 1, __ATOMIC_RELEASE);
    together_member(&all);
    for (long i = 0; i < started; i++) pthread_join(other[i], 0);
}

/* Fresh memory comes in pages, and a fault for each: ask for large ones. */
#define LARGE_PAGE ((size_t)2 << 20)
static void large_pages(void *start, size_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t from = ((uintptr_t)start + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    const uintptr_t to = ((uintptr_t)start + bytes) / LARGE_PAGE * LARGE_PAGE;
    if (start && to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}

/* Scratch lives as long as the calling thread, unless it is large. */
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
typedef struct { size_t size; char *base; } Scratch;
static void free_scratch(void *data) {
    Scratch *s = data;
    free(s->base);
    free(s);
}
static int scratch_is_kept; /* a process has a limited number of keys */
static void make_key(void) { scratch_is_kept = !pthread_key_create(&scratch_key, free_scratch); }
#define KEEP_SCRATCH ((size_t)64 << 20)

static char *scratch(size_t bytes, void **owner) {
    pthread_once(&scratch_once, make_key);
    Scratch *s = scratch_is_kept ? pthread_getspecific(scratch_key) : 0;
    if (!s) {
        if (!(s = calloc(1, sizeof *s))) return 0;
        if (scratch_is_kept) pthread_setspecific(scratch_key, s);
    }
    *owner = s;
    if (s->size < bytes) {
        free(s->base);
        void *base = 0;
        s->size = 0;
        s->base = 0;
        if (posix_memalign(&base, bytes < 2 * LARGE_PAGE ? 64 : LARGE_PAGE, bytes)) {
            if (!scratch_is_kept) free(s);
            return 0;
        }
        large_pages(base, bytes);
        s->base = base;
        s->size = bytes;
    }
#ifdef POISON
    memset(s->base, 0xff, s->size); /* NaN */
#endif
    return s->base;
}
static void release_scratch(void *owner) {
    Scratch *s = owner;
    if (!scratch_is_kept) {
        free_scratch(s);
    } else if (s->size > KEEP_SCRATCH) {
        free(s->base);
        s->base = 0;
        s->size = 0;
    }
}
