/* Rules of vector packing: how well a request for CPUs and memory suits a host. vector_fit.py says what each formula is;
 * the results here are the same to the bit (every operation is rounded as written, as in scores.h).
 */
#ifndef HOSTLER_VECTOR_FIT_H
#define HOSTLER_VECTOR_FIT_H

#include <math.h>
#include <stdint.h>

#include "clones.h"

/* The host columns that the rules read. */
typedef struct {
    const double *vcpus_total, *cpu_ratio, *vcpus_used, *ram_total_mb, *ram_ratio, *free_ram_mb;
} hostler_figures;

/* What a formula asks of a host: vCPUs and GiB; weight: of each of the two resources. */
typedef struct {
    double asked[2], weight[2];
} hostler_wish;

enum { HOSTLER_DOT_PRODUCT, HOSTLER_L2_NORM, HOSTLER_COSINE, HOSTLER_DELTA_PERP };

static inline double hostler_part(double amount, double capacity) {
    return capacity > 1e-6 ? amount / capacity : 0.0;
}

static inline void hostler_read_figures(const hostler_figures *f, int64_t i, double *capacity, double *used) {
    capacity[0] = f->vcpus_total[i] * f->cpu_ratio[i];
    capacity[1] = f->ram_total_mb[i] * f->ram_ratio[i] / 1024.0;
    used[0] = f->vcpus_used[i];
    used[1] = (f->ram_total_mb[i] - f->free_ram_mb[i]) / 1024.0;
}

static inline double hostler_dot_product(const hostler_figures *f, int64_t i, const hostler_wish *w) {
    double c[2], u[2];
    hostler_read_figures(f, i, c, u);
    return w->weight[0] * hostler_part(c[0] - u[0], c[0]) * hostler_part(w->asked[0], c[0]) +
           w->weight[1] * hostler_part(c[1] - u[1], c[1]) * hostler_part(w->asked[1], c[1]);
}

static inline double hostler_l2_norm(const hostler_figures *f, int64_t i, const hostler_wish *w) {
    double c[2], u[2];
    hostler_read_figures(f, i, c, u);
    double cpus = hostler_part(c[0] - u[0] - w->asked[0], c[0]), memory = hostler_part(c[1] - u[1] - w->asked[1], c[1]);
    return -(w->weight[0] * cpus * cpus + w->weight[1] * memory * memory);
}

static inline double hostler_cosine(const hostler_figures *f, int64_t i, const hostler_wish *w) {
    double c[2], u[2];
    hostler_read_figures(f, i, c, u);
    double cpus = u[0] + w->asked[0], memory = u[1] + w->asked[1];
    double lengths = sqrt((c[0] * c[0] + c[1] * c[1]) * (cpus * cpus + memory * memory));
    return lengths != 0.0 ? (c[0] * cpus + c[1] * memory) / lengths : 0.0;
}

/* Of (cpus, memory) from the line along the capacity. */
static inline double hostler_distance(const double *c, double cpus, double memory) {
    double length = c[0] * c[0] + c[1] * c[1];
    double along = length != 0.0 ? (c[0] * cpus + c[1] * memory) / length : 0.0;
    double x = cpus - along * c[0], y = memory - along * c[1];
    return sqrt(x * x + y * y);
}

static inline double hostler_delta_perp(const hostler_figures *f, int64_t i, const hostler_wish *w) {
    double c[2], u[2];
    hostler_read_figures(f, i, c, u);
    return hostler_distance(c, u[0], u[1]) - hostler_distance(c, u[0] + w->asked[0], u[1] + w->asked[1]);
}

static inline double hostler_fit(int formula, const hostler_figures *f, int64_t i, const hostler_wish *w) {
    switch (formula) {
    case HOSTLER_DOT_PRODUCT:
        return hostler_dot_product(f, i, w);
    case HOSTLER_L2_NORM:
        return hostler_l2_norm(f, i, w);
    case HOSTLER_COSINE:
        return hostler_cosine(f, i, w);
    default:
        return hostler_delta_perp(f, i, w);
    }
}

/* out[i]: the formula's value for row i, at most maxval */
HOSTLER_CLONES
static void hostler_fit_all(int formula, const hostler_figures *figures, const hostler_wish *wish, int64_t n, double maxval,
                            double *restrict out) {
    const hostler_figures f = *figures;
    const hostler_wish w = *wish;
    if (formula == HOSTLER_DOT_PRODUCT) {
        for (int64_t i = 0; i < n; i++) {
            out[i] = hostler_dot_product(&f, i, &w);
        }
    } else if (formula == HOSTLER_L2_NORM) {
        for (int64_t i = 0; i < n; i++) {
            out[i] = hostler_l2_norm(&f, i, &w);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            out[i] = hostler_fit(formula, &f, i, &w);
        }
    }
    if (maxval < INFINITY) {
        for (int64_t i = 0; i < n; i++) {
            out[i] = out[i] > maxval ? maxval : out[i];
        }
    }
}

/* load: mean of used / capacity over the hosts, 1 where there is none. Rows of stage 255 are no hosts. Row i is added to sum
 * i % 8, and these eight are added up at the end. */
HOSTLER_CLONES
static void hostler_mean_load(const hostler_figures *figures, const uint8_t *restrict stage, int64_t n, double *load) {
    const hostler_figures f = *figures;
    double cpus[8] = {0.0}, memory[8] = {0.0}, part[2][64];
    int64_t hosts = 0;
    for (int64_t first = 0; first < n; first += 64) {
        int64_t count = n - first < 64 ? n - first : 64;
        for (int64_t i = 0; i < count; i++) {
            double c[2], u[2];
            hostler_read_figures(&f, first + i, c, u);
            part[0][i] = stage[first + i] == 255 ? 0.0 : hostler_part(u[0], c[0]);
            part[1][i] = stage[first + i] == 255 ? 0.0 : hostler_part(u[1], c[1]);
            hosts += stage[first + i] != 255;
        }
        for (int64_t i = count; i < 64; i++) {
            part[0][i] = part[1][i] = 0.0;
        }
        for (int i = 0; i < 64; i += 8) {
            for (int k = 0; k < 8; k++) {
                cpus[k] += part[0][i + k];
                memory[k] += part[1][i + k];
            }
        }
    }
    double sum[2] = {0.0, 0.0};
    for (int i = 0; i < 8; i++) {
        sum[0] += cpus[i];
        sum[1] += memory[i];
    }
    load[0] = hosts ? sum[0] / (double)hosts : 1.0;
    load[1] = hosts ? sum[1] / (double)hosts : 1.0;
}

#endif
