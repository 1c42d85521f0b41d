"""A small C program that measures how fast this machine multiplies and adds."""

from __future__ import annotations

__all__ = ["FMA_SOURCE"]

FMA_SOURCE = r"""
/* The highest rate at which this machine multiplies and adds: independent chains of fused
   multiply-adds that stay in registers. Prints GFLOP/s of argv[1] threads together. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / 4)
/* Enough chains to hide the latency of the unit, few enough that none is spilled. */
#define CHAINS 12
#define TURNS 32000000L

typedef float vec __attribute__((vector_size(BYTES)));

static pthread_barrier_t line;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct { float scale, shift, out; double begin, end; } job;

static void *work(void *argument) {
    job *j = argument;
    vec a[CHAINS], m = (vec){0} + j->scale, s = (vec){0} + j->shift;
    for (int k = 0; k < CHAINS; k++) a[k] = (vec){0} + (float)k;
    pthread_barrier_wait(&line);
    j->begin = now();
    for (long n = 0; n < TURNS; n++)
        for (int k = 0; k < CHAINS; k++) a[k] = a[k] * m + s;
    j->end = now();
    float sum = 0;
    for (int k = 0; k < CHAINS; k++)
        for (int l = 0; l < LANES; l++) sum += a[k][l];
    j->out = sum;
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1) return 2;
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    job *jobs = calloc((size_t)threads, sizeof *jobs);
    if (!ids || !jobs) return 3;
    double best = 0;
    volatile float sink = 0;
    for (int turn = 0; turn < 5; turn++) {
        pthread_barrier_init(&line, NULL, (unsigned)threads);
        for (int i = 0; i < threads; i++) {
            jobs[i].scale = 0.999f;
            jobs[i].shift = (float)argc * 1e-3f;
            if (pthread_create(&ids[i], NULL, work, &jobs[i])) return 4;
        }
        double begin = 0, end = 0;
        for (int i = 0; i < threads; i++) {
            pthread_join(ids[i], NULL);
            if (i == 0 || jobs[i].begin < begin) begin = jobs[i].begin;
            if (i == 0 || jobs[i].end > end) end = jobs[i].end;
            sink += jobs[i].out;
        }
        pthread_barrier_destroy(&line);
        double rate = 2.0 * LANES * CHAINS * (double)TURNS * threads / (end - begin) * 1e-9;
        if (rate > best) best = rate;
    }
    printf("%.1f\n", best);
    return 0;
}
"""
