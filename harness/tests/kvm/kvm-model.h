/*
 * What the parts of the model of a host share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef KVM_MODEL_H
#define KVM_MODEL_H

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BIT(n)              (1ull << (n))
#define MASK(n)             ((n) >= 64 ? ~0ull : BIT(n) - 1)
#define ARRAY_SIZE(a)       (sizeof(a) / sizeof((a)[0]))

#pragma GCC visibility push(hidden)

typedef struct Host {
    uint64_t kernel;                /* 601 is Linux 6.1 */
    uint64_t amd, family, model, stepping;
    uint64_t pmu_version;           /* of the CPU, not KVM's */
    uint64_t gp, fixed;
    uint64_t vpmu;                  /* enable_pmu, hybrid CPUs excluded */
    uint64_t perf_caps;             /* kvm_caps.supported_perf_cap */
    uint64_t pebs_msrs;             /* the CPU has the MSRs of PEBS */
    uint64_t no_ds;                 /* Intel's CPU lacks DS in CPUID */
    uint64_t hypervisor;            /* it is itself a guest, and told so */
    uint64_t hybrid;                /* it has two types of cores */
    uint64_t mediated;              /* enable_mediated_pmu */
    uint64_t addr_bits;             /* of linear addresses */
    uint64_t ds_area_by_cr4;        /* IA32_DS_AREA: by the vCPU's CR4.LA57 */
    uint64_t lvtpc_stays;           /* a PMI doesn't mask LVTPC */
    uint64_t sev;                   /* sev_enabled: there is a /dev/sev */
    uint64_t tdx;                   /* enable_tdx */
    /* perf: see perf-model.c */
    uint64_t perf_paranoid, perf_no_rdpmc, perf_watchdog;
    uint64_t perf_busy, perf_busy_event, perf_busy_opens;
} Host;

extern Host host;

__attribute__((noreturn, format(printf, 1, 2)))
void die(const char *format, ...);

/* One line of the log */
__attribute__((format(printf, 1, 2)))
void note(const char *format, ...);

/* perf_event_open(2): a file descriptor, or -errno */
int perf_model_open(const struct perf_event_attr *attr, pid_t pid, int cpu,
                    int group_fd, unsigned long flags);

/* Whether it was one of perf's, which is closed. */
bool perf_model_close(int fd);

/* KVM pins an event of its own for a counter of the calling vCPU. */
void perf_model_pin_for_guest(uint64_t config, unsigned precise);

#pragma GCC visibility pop

#endif
