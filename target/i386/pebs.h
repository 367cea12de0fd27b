/*
 * Intel PEBS for guests: what both accelerators share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_PEBS_H
#define I386_PEBS_H

#include "qemu/bitops.h"
#include "cpu.h"
#include "migration/vmstate.h"
#include "qapi/qapi-types-pebs.h"
#include "pebs-report.h"

/* IA32_PERF_CAPABILITIES */
#define PERF_CAP_PEBS_TRAP          (1ull << 6)
#define PERF_CAP_PEBS_ARCH_REG      (1ull << 7)
#define PERF_CAP_PEBS_FORMAT_SHIFT  8
#define PERF_CAP_PEBS_FORMAT_LENGTH 4
#define PERF_CAP_PEBS_FORMAT        (0xfull << PERF_CAP_PEBS_FORMAT_SHIFT)
#define PERF_CAP_SMM_FREEZE         (1ull << 12)
#define PERF_CAP_FW_WRITES          (1ull << 13)
#define PERF_CAP_PEBS_BASELINE      (1ull << 14)
#define PERF_CAP_PEBS_TIMING_INFO   (1ull << 17)
#define PERF_CAP_PEBS_MASK          (PERF_CAP_PEBS_TRAP | \
                                     PERF_CAP_PEBS_ARCH_REG | \
                                     PERF_CAP_PEBS_FORMAT | \
                                     PERF_CAP_PEBS_BASELINE | \
                                     PERF_CAP_PEBS_TIMING_INFO)

/* IA32_PERF_GLOBAL_STATUS.OvfBuffer: the PEBS buffer wants to be emptied */
#define PEBS_STATUS_OVF_BUF         (1ull << 62)

/*
 * Groups of an adaptive record that TCG lays out, PEBS_DATACFG_*: all, as the
 * hardware and KVM accept them.  There are no LBRs: theirs is zeros.
 */
#define TCG_PEBS_GROUPS             0xfull

/**
 * x86_cpu_pebs_expand: check the PEBS properties, and set what they imply
 *
 * Call while the CPU's features are expanded, once those are set that come from
 * the user and from the CPU model, and before those that others depend on are
 * looked at.  Fails if what is asked for can't be had.
 */
bool x86_cpu_pebs_expand(X86CPU *cpu, Error **errp);

/**
 * x86_cpu_pebs_features: the bits of @word that come with PEBS or TCG's PMU
 *
 * They depend on the properties alone and are in no accelerator's table.
 */
uint64_t x86_cpu_pebs_features(const X86CPU *cpu, FeatureWord word);

/**
 * x86_cpu_pebs_realize: check that the machine's other vCPUs show the same
 *
 * Call in realize after features that the accelerator lacks were taken out.
 */
bool x86_cpu_pebs_realize(X86CPU *cpu, Error **errp);

/* Whether the guest sees PEBS because of pebs=on. */
bool x86_cpu_has_pebs(const X86CPU *cpu);

/* Name of the CPU model whose hardware has this CPUID model, or NULL */
const char *x86_pebs_cpu_with_model(unsigned model);

/* Whether the PMU that the guest sees is TCG's. */
bool x86_cpu_has_tcg_pmu(const X86CPU *cpu);

/* Version of TCG's PMU, as CPUID leaf 0xA has it */
unsigned x86_cpu_tcg_pmu_version(const X86CPU *cpu);

/* How many GP counters the guest sees. */
unsigned x86_cpu_pmu_gp_counters(const X86CPU *cpu);

/* IA32_PERF_CAPABILITIES.PEBS_FORMAT as the guest sees it; 0 without PEBS. */
unsigned x86_cpu_pebs_format(const X86CPU *cpu);

/* IA32_PERF_CAPABILITIES.PEBS_BASELINE as the guest sees it */
bool x86_cpu_pebs_baseline(const X86CPU *cpu);

/* The bits of IA32_PEBS_ENABLE that the guest may set */
uint64_t x86_cpu_pebs_enable_mask(const X86CPU *cpu);

/*
 * Whether IA32_DS_AREA takes @address: by the widest linear address that the
 * CPU has, whatever paging is in use (SDM volume 3A, "Canonical Checking").
 */
bool x86_cpu_ds_area_valid(const X86CPU *cpu, uint64_t address);

/* What pebs=on gives a guest */
typedef struct X86PebsOffer {
    /* PERF_CAP_PEBS_MASK of IA32_PERF_CAPABILITIES */
    uint64_t perf_capabilities;
    unsigned gp_counters;
    /* CPUID family and model that a guest shows */
    unsigned family;
    unsigned model;
    /* EAX to EDX */
    uint32_t cpuid_0xa[4];
} X86PebsOffer;

/**
 * x86_pebs_offered: what pebs=on would get with this accelerator and host
 * @offer: filled in if it is supported
 * @obstacles: if not, BIT(PEBS_OBSTACLE_...) of each possible cause
 * @errp: says why it isn't
 *
 * Needs no vCPU, and no machine.
 */
bool x86_pebs_offered(X86PebsOffer *offer, uint32_t *obstacles, Error **errp);

/**
 * x86_pebs_starts: whether a CPU of this class would start with pebs=on
 *
 * Tries it: makes one, and checks what realize does.
 */
bool x86_pebs_starts(ObjectClass *oc);

/* CPUID leaf 0xA of TCG's PMU */
void x86_cpu_tcg_pmu_cpuid(const X86CPU *cpu, uint32_t *eax, uint32_t *ebx,
                           uint32_t *ecx, uint32_t *edx);

/* Reset values of the PMU's MSRs, where they aren't 0 */
void x86_cpu_pebs_reset(X86CPU *cpu);

/*
 * Whether the guest may write *@value to IA32_MISC_ENABLE; sets bits in it
 * that can't be written.
 */
bool x86_cpu_pmu_misc_enable_valid(const X86CPU *cpu, uint64_t *value);

QEMU_BUILD_BUG_ON(PEBS_REPORT_FIXED != MAX_FIXED_COUNTERS);
QEMU_BUILD_BUG_ON(PEBS_REPORT_COUNTERS * PEBS_REPORT_LENGTH > 63);

static inline unsigned pebs_report_counter(uint64_t report, unsigned index)
{
    return extract64(report, index * PEBS_REPORT_LENGTH, PEBS_REPORT_LENGTH);
}

/**
 * x86_pebs_publish: tell those who monitor where the counters are now
 *
 * Call on the vCPU's thread, or with the vCPU stopped.
 */
void x86_pebs_publish(X86CPU *cpu, uint64_t report);

/* What is observed of a vCPU's PEBS counters */
typedef struct X86PebsObservation {
    PebsPathSource source;
    uint64_t report;
    /* TCG: records since QEMU started */
    uint64_t fast_records;
    uint64_t slow_records;
    uint64_t dropped_records;
    /* KVM: VM entries that were watched since QEMU started */
    uint64_t entries;
    uint64_t active_entries;
    uint64_t suspended_entries;
} X86PebsObservation;

/* Returns false if the vCPU has no PEBS, or nobody watches. */
bool x86_pebs_observe(const X86CPU *cpu, X86PebsObservation *seen);

/* Whether nobody tells of new reports, so that they have to be looked for. */
bool x86_pebs_is_polled(void);

/* From realize to unrealize, changes of the path are announced. */
void x86_pebs_watch(X86CPU *cpu);
void x86_pebs_unwatch(X86CPU *cpu);

extern const VMStateDescription vmstate_x86_pebs;
/* What only TCG's PMU has */
extern const VMStateDescription vmstate_x86_tcg_pmu;

/**
 * x86_cpu_pebs_loaded: whether vmstate_x86_pebs came if it had to
 *
 * Call once after each load of the vCPU's state; reports an error.
 */
bool x86_cpu_pebs_loaded(X86CPU *cpu);

#endif
