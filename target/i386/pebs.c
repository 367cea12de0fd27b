/*
 * Intel PEBS for guests: what both accelerators share
 *
 * The properties, the CPUID and MSR bits that they come down to, and the state
 * that migrates.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/accel.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "cpu-internal.h"
#include "migration/vmstate.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/system.h"
#include "system/tcg.h"
#include "kvm/kvm_i386.h"
#include "kvm/pebs.h"
#include "pebs-record.h"
#include "pebs.h"

/*
 * TCG's PMU: Architectural Performance Monitoring, version 2, as KVM has it.
 * Baseline goes with version 5, as in all hardware that has it: below, bits 32
 * and up of IA32_PEBS_ENABLE are no fixed counters but enable load latency,
 * and Linux's intel_pmu_pebs_enable() tells the two apart by the version.
 */
#define TCG_PMU_VERSION             2
#define TCG_PMU_VERSION_BASELINE    5
#define TCG_PMU_GP_COUNTERS         8
#define TCG_PMU_COUNTER_BITS        48
#define TCG_PMU_EVENTS              7
/* Leaf 0xA, EBX: no caches (bits 3 and 4), no branch prediction (bit 6) */
#define TCG_PMU_EVENTS_MISSING      0x58
#define CPUID_A_EDX_ANYTHREAD_GONE  (1u << 15)

#define MISC_ENABLE_EMON            (1ull << 7)
#define MISC_ENABLE_BTS_UNAVAIL     (1ull << 11)
#define MISC_ENABLE_PEBS_UNAVAIL    (1ull << 12)

/* Of all the models below */
#define TCG_PEBS_FORMAT             4

/*
 * CPU models whose hardware has PEBS with adaptive records and all counters,
 * and the CPUID model of that hardware.  Icelake-Server shows 134 in its
 * first versions, which is another CPU's.
 */
static const struct {
    const char *name;
    int model;
} pebs_models[] = {
    { "Icelake-Server", 106 },
    { "SapphireRapids", 143 },
    { "GraniteRapids",  173 },
    { "Snowridge",      134 },
};

bool x86_cpu_has_pebs(const X86CPU *cpu)
{
    return cpu->pebs == ON_OFF_AUTO_ON;
}

bool x86_cpu_has_tcg_pmu(const X86CPU *cpu)
{
    return tcg_enabled() && cpu->enable_pmu && cpu->pebs != ON_OFF_AUTO_AUTO;
}

/*
 * Whether the guest sees something else than stock QEMU's PMU.
 * x86_cpu_pebs_expand() sets the number for PEBS and for TCG's PMU.
 */
static bool has_own_pmu(const X86CPU *cpu)
{
    return cpu->pmu_gp_counters;
}

/* Whether the guest sees a PMU whose counters can be fewer. */
static bool has_pmu(const X86CPU *cpu)
{
    return kvm_enabled() ? cpu->enable_pmu : x86_cpu_has_tcg_pmu(cpu);
}

static unsigned max_gp_counters(void)
{
    return kvm_enabled() ? kvm_pmu_gp_counters() : TCG_PMU_GP_COUNTERS;
}

unsigned x86_cpu_pmu_gp_counters(const X86CPU *cpu)
{
    return cpu->pmu_gp_counters ? cpu->pmu_gp_counters : max_gp_counters();
}

unsigned x86_cpu_pebs_format(const X86CPU *cpu)
{
    return extract64(cpu->env.features[FEAT_PERF_CAPABILITIES],
                     PERF_CAP_PEBS_FORMAT_SHIFT,
                     PERF_CAP_PEBS_FORMAT_LENGTH);
}

bool x86_cpu_pebs_baseline(const X86CPU *cpu)
{
    return cpu->env.features[FEAT_PERF_CAPABILITIES] & PERF_CAP_PEBS_BASELINE;
}

unsigned x86_cpu_tcg_pmu_version(const X86CPU *cpu)
{
    return x86_cpu_pebs_baseline(cpu) ? TCG_PMU_VERSION_BASELINE
                                      : TCG_PMU_VERSION;
}

static int find_model(const X86CPU *cpu)
{
    const char *name = x86_cpu_builtin_model(cpu);

    for (int i = 0; name && i < ARRAY_SIZE(pebs_models); i++) {
        if (g_str_equal(pebs_models[i].name, name)) {
            return i;
        }
    }
    return -1;
}

const char *x86_pebs_cpu_with_model(unsigned model)
{
    for (int i = 0; i < ARRAY_SIZE(pebs_models); i++) {
        if (pebs_models[i].model == model) {
            return pebs_models[i].name;
        }
    }
    return NULL;
}

/* TCG's PMU comes with any value of "pebs" but auto, for those who ask. */
static void ask_for_counters(X86CPU *cpu)
{
    if (tcg_enabled() && cpu->enable_pmu && cpu->pmu_gp_counters &&
        cpu->pebs == ON_OFF_AUTO_AUTO) {
        cpu->pebs = ON_OFF_AUTO_OFF;
    }
}

/* A property that only means something beside another */
static bool check_companions(X86CPU *cpu, Error **errp)
{
    const char *name = cpu->pebs_format ? "pebs-format" :
                       cpu->pebs_baseline != ON_OFF_AUTO_AUTO ?
                       "pebs-baseline" : NULL;

    if (name && !x86_cpu_has_pebs(cpu)) {
        error_setg(errp, "%s needs pebs=on", name);
        return false;
    }
    if (cpu->pmu_gp_counters && !has_pmu(cpu)) {
        error_setg(errp, "pmu-gp-counters needs the PMU: use pmu=on or "
                   "pebs=on");
        return false;
    }
    if (cpu->pmu_gp_counters && cpu->pmu_gp_counters > max_gp_counters()) {
        error_setg(errp, "pmu-gp-counters=%u is more than the %u that %s has",
                   cpu->pmu_gp_counters, max_gp_counters(),
                   kvm_enabled() ? "KVM" : "TCG");
        return false;
    }
    return true;
}

static bool check_feature(X86CPU *cpu, FeatureWord word, uint64_t bit,
                          const char *name, Error **errp)
{
    if (cpu->env.user_features[word] & ~cpu->env.features[word] & bit) {
        error_setg(errp, "pebs=on needs %s, which is switched off: remove "
                   "%s=off", name, name);
        return false;
    }
    return true;
}

static bool check_long_mode(X86CPU *cpu, Error **errp)
{
    if (!(cpu->env.features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM)) {
        error_setg(errp, "pebs=on needs a 64-bit CPU: remove lm=off or use "
                   "another -cpu model");
        return false;
    }
    return true;
}

/* UINT32_MAX: as high as it takes */
static bool check_level(X86CPU *cpu, Error **errp)
{
    if (cpu->env.cpuid_level < 0xa) {
        error_setg(errp, "%s needs CPUID leaf 10: remove level=%u",
                   x86_cpu_has_pebs(cpu) ? "pebs=on" : "pmu=on",
                   cpu->env.cpuid_level);
        return false;
    }
    return true;
}

static bool check_features(X86CPU *cpu, Error **errp)
{
    return check_feature(cpu, FEAT_1_EDX, CPUID_DTS, "ds", errp) &&
           check_feature(cpu, FEAT_1_ECX, CPUID_EXT_DTES64, "dtes64", errp) &&
           check_feature(cpu, FEAT_1_ECX, CPUID_EXT_PDCM, "pdcm", errp);
}

/* The CPUID model of the hardware that pebs_models[@i] stands for */
static bool present_model(X86CPU *cpu, int i, Error **errp)
{
    if (cpu->model_set &&
        object_property_get_int(OBJECT(cpu), "model", NULL) !=
        pebs_models[i].model) {
        error_setg(errp, "pebs=on presents '%s' as CPUID model %d, which is "
                   "what its hardware has: remove model=",
                   pebs_models[i].name, pebs_models[i].model);
        return false;
    }
    return object_property_set_int(OBJECT(cpu), "model", pebs_models[i].model,
                                   errp);
}

static char *model_name(const X86CPU *cpu)
{
    return cpu_model_from_type(object_get_typename(OBJECT(cpu)));
}

/*
 * Software finds the architectural PMU by CPUID leaf 0xA alone, so that any
 * model of Intel's may have it, as under KVM; but nobody looks there on a CPU
 * of another vendor.
 */
static bool check_vendor(X86CPU *cpu, Error **errp)
{
    g_autofree char *name = model_name(cpu), *vendor = NULL;

    if (IS_INTEL_CPU(&cpu->env)) {
        return true;
    }
    vendor = object_property_get_str(OBJECT(cpu), "vendor", &error_abort);
    error_setg(errp, "TCG's PMU is Intel's, and CPU model '%s' shows the "
               "vendor '%s': use -cpu Icelake-Server or another model of "
               "Intel's, without vendor=", name, vendor);
    return false;
}

static bool prepare_tcg(X86CPU *cpu, Error **errp)
{
    int i = find_model(cpu);

    if (i < 0) {
        g_autofree char *name = model_name(cpu);

        error_setg(errp, "CPU model '%s' has no PEBS that a guest can use "
                   "(adaptive records, format 4)", name);
        error_append_hint(errp, "Use -cpu Icelake-Server, SapphireRapids, "
                          "GraniteRapids or Snowridge.\n");
        return false;
    }
    if (cpu->pebs_format == 0) {
        cpu->pebs_format = TCG_PEBS_FORMAT;
    } else if (cpu->pebs_format != 4 && cpu->pebs_format != 5) {
        error_setg(errp, "pebs-format=%u is not known to TCG: use 4 or 5",
                   cpu->pebs_format);
        return false;
    }
    return present_model(cpu, i, errp);
}

/* Any CPU model will do for KVM that shows what the host's CPU does. */
static bool present_known_model(X86CPU *cpu, Error **errp)
{
    int i = find_model(cpu);

    return i < 0 || present_model(cpu, i, errp);
}

static bool no_pmu(Error **errp)
{
    error_setg(errp, "pebs=on is not supported with accelerator '%s': use "
               "-accel tcg", current_accel_name());
    return false;
}

static bool prepare_accel(X86CPU *cpu, Error **errp)
{
    if (tcg_enabled()) {
        return prepare_tcg(cpu, errp);
    }
    if (kvm_enabled()) {
        return present_known_model(cpu, errp) && kvm_pebs_prepare(cpu, errp);
    }
    return no_pmu(errp);
}

static bool observe_tcg(const X86CPU *cpu, X86PebsObservation *seen)
{
    const CPUX86State *env = &cpu->env;

    *seen = (X86PebsObservation) {
        .source = PEBS_PATH_SOURCE_TCG,
        .report = qatomic_read(&cpu->pebs_report),
        .fast_records = qatomic_read(&env->pebs_fast_records),
        .slow_records = qatomic_read(&env->pebs_slow_records),
        .dropped_records = qatomic_read(&env->pebs_dropped_records),
    };
    return true;
}

static bool observe_kvm(const X86CPU *cpu, X86PebsObservation *seen)
{
    PebsObservation kvm;

    if (!kvm_pebs_observe_vcpu(cpu, &kvm)) {
        return false;
    }
    *seen = (X86PebsObservation) {
        .source = PEBS_PATH_SOURCE_KVM_HELPER,
        .report = kvm.report,
        .entries = kvm.entries,
        .active_entries = kvm.active_entries,
        .suspended_entries = kvm.suspended_entries,
    };
    return true;
}

bool x86_pebs_observe(const X86CPU *cpu, X86PebsObservation *seen)
{
    return x86_cpu_has_pebs(cpu) &&
           (kvm_enabled() ? observe_kvm(cpu, seen) : observe_tcg(cpu, seen));
}

bool x86_pebs_is_polled(void)
{
    return kvm_enabled() && kvm_pebs_is_observed();
}

static bool prepare_pebs(X86CPU *cpu, Error **errp)
{
    if (!prepare_accel(cpu, errp)) {
        return false;
    }
    /* After what the accelerator says: TDX switches the PMU off itself. */
    if (cpu->pmu_off) {
        error_setg(errp, "pebs=on needs the PMU: remove pmu=off");
        return false;
    }
    cpu->enable_pmu = true;
    return check_long_mode(cpu, errp) && check_features(cpu, errp);
}

static uint64_t pebs_capabilities(const X86CPU *cpu)
{
    if (kvm_enabled()) {
        return kvm_pebs_perf_capabilities();
    }
    return PERF_CAP_PEBS_TRAP | PERF_CAP_PEBS_ARCH_REG |
           (uint64_t)cpu->pebs_format << PERF_CAP_PEBS_FORMAT_SHIFT |
           (cpu->pebs_baseline != ON_OFF_AUTO_OFF ? PERF_CAP_PEBS_BASELINE : 0);
}

uint64_t x86_cpu_pebs_features(const X86CPU *cpu, FeatureWord word)
{
    bool pebs = x86_cpu_has_pebs(cpu), tcg_pmu = x86_cpu_has_tcg_pmu(cpu);

    if (!pebs && !tcg_pmu) {
        return 0;
    }
    switch (word) {
    case FEAT_1_EDX:
        return pebs ? CPUID_DTS : 0;
    case FEAT_1_ECX:
        return CPUID_EXT_PDCM | (pebs ? CPUID_EXT_DTES64 : 0);
    case FEAT_PERF_CAPABILITIES:
        return (pebs ? pebs_capabilities(cpu) : 0) |
               (tcg_pmu ? PERF_CAP_SMM_FREEZE | PERF_CAP_FW_WRITES : 0);
    default:
        return 0;
    }
}

static void hide_pebs(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;

    env->features[FEAT_1_EDX] &=
        ~(CPUID_DTS & ~env->user_features[FEAT_1_EDX]);
    env->features[FEAT_1_ECX] &=
        ~(CPUID_EXT_DTES64 & ~env->user_features[FEAT_1_ECX]);
    env->features[FEAT_PERF_CAPABILITIES] &= ~PERF_CAP_PEBS_MASK;
}

/* What the user has switched off stays so. */
static void add_features(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;

    for (FeatureWord w = 0; w < FEATURE_WORDS; w++) {
        env->features[w] |=
            x86_cpu_pebs_features(cpu, w) & ~env->user_features[w];
    }
}

/* Management reads here what was negotiated, to pin it. */
static void tell_negotiated(X86CPU *cpu)
{
    cpu->pmu_gp_counters = x86_cpu_pmu_gp_counters(cpu);
    if (x86_cpu_has_pebs(cpu)) {
        cpu->pebs_format = x86_cpu_pebs_format(cpu);
        cpu->pebs_baseline = x86_cpu_pebs_baseline(cpu) ? ON_OFF_AUTO_ON
                                                        : ON_OFF_AUTO_OFF;
    }
}

static bool expose_pmu(X86CPU *cpu, Error **errp)
{
    if (!check_level(cpu, errp) ||
        (x86_cpu_has_tcg_pmu(cpu) && !check_vendor(cpu, errp))) {
        return false;
    }
    cpu->env.cpuid_min_level = MAX(cpu->env.cpuid_min_level, 0xa);
    add_features(cpu);
    tell_negotiated(cpu);
    return true;
}

bool x86_cpu_pebs_expand(X86CPU *cpu, Error **errp)
{
    if (x86_cpu_has_pebs(cpu) && !prepare_pebs(cpu, errp)) {
        return false;
    }
    ask_for_counters(cpu);
    if (!check_companions(cpu, errp)) {
        return false;
    }
    if (cpu->pebs != ON_OFF_AUTO_AUTO) {
        hide_pebs(cpu);
    }
    if (x86_cpu_has_pebs(cpu) || x86_cpu_has_tcg_pmu(cpu)) {
        return expose_pmu(cpu, errp);
    }
    return true;
}

static bool check_same_switch(const char *name, bool mine, bool others,
                              Error **errp)
{
    if (mine != others) {
        error_setg(errp, "%s=%s differs from the machine's other vCPUs: use "
                   "%s=%s", name, mine ? "on" : "off", name,
                   others ? "on" : "off");
    }
    return mine == others;
}

static bool check_same_number(const char *name, unsigned mine, unsigned others,
                              Error **errp)
{
    if (mine != others) {
        error_setg(errp, "%s=%u differs from the machine's other vCPUs: use "
                   "%s=%u", name, mine, name, others);
    }
    return mine == others;
}

static bool has_feature(const X86CPU *cpu, FeatureWord word, uint64_t bit)
{
    return cpu->env.features[word] & bit;
}

static bool check_same_feature(const char *name, FeatureWord word, uint64_t bit,
                               const X86CPU *cpu, const X86CPU *first,
                               Error **errp)
{
    return check_same_switch(name, has_feature(cpu, word, bit),
                             has_feature(first, word, bit), errp);
}

/* TCG's PMU takes two properties: name the one that differs. */
static bool check_same_tcg_pmu(const X86CPU *cpu, const X86CPU *first,
                               Error **errp)
{
    if (x86_cpu_has_tcg_pmu(cpu) == x86_cpu_has_tcg_pmu(first)) {
        return true;
    }
    if (cpu->enable_pmu == first->enable_pmu) {
        error_setg(errp, "pebs=%s differs from the machine's other vCPUs: use "
                   "pebs=%s", OnOffAuto_str(cpu->pebs),
                   OnOffAuto_str(first->pebs));
        return false;
    }
    return check_same_switch("pmu", cpu->enable_pmu, first->enable_pmu, errp);
}

static bool check_same_pebs(const X86CPU *cpu, const X86CPU *first,
                            Error **errp)
{
    return check_same_switch("pebs", x86_cpu_has_pebs(cpu),
                             x86_cpu_has_pebs(first), errp) &&
           check_same_tcg_pmu(cpu, first, errp) &&
           check_same_number("pmu-gp-counters", x86_cpu_pmu_gp_counters(cpu),
                             x86_cpu_pmu_gp_counters(first), errp) &&
           check_same_number("pebs-format", x86_cpu_pebs_format(cpu),
                             x86_cpu_pebs_format(first), errp) &&
           check_same_switch("pebs-baseline", x86_cpu_pebs_baseline(cpu),
                             x86_cpu_pebs_baseline(first), errp);
}

/* What else migrates of it */
static bool check_same_shown(const X86CPU *cpu, const X86CPU *first,
                             Error **errp)
{
    return check_same_feature("pdcm", FEAT_1_ECX, CPUID_EXT_PDCM, cpu, first,
                              errp) &&
           check_same_feature("full-width-write", FEAT_PERF_CAPABILITIES,
                              PERF_CAP_FW_WRITES, cpu, first, errp) &&
           check_same_number("family", x86_cpu_family(cpu->env.cpuid_version),
                             x86_cpu_family(first->env.cpuid_version), errp) &&
           check_same_number("model", x86_cpu_model(cpu->env.cpuid_version),
                             x86_cpu_model(first->env.cpuid_version), errp);
}

/* A guest takes its PMU from the boot CPU's CPUID and uses it on all vCPUs. */
static bool check_same_as_others(const X86CPU *cpu, Error **errp)
{
    const X86CPU *first = first_cpu ? X86_CPU(first_cpu) : NULL;

    if (!first) {
        return true;
    }
    if (has_own_pmu(cpu) || has_own_pmu(first)) {
        return check_same_pebs(cpu, first, errp) &&
               check_same_shown(cpu, first, errp);
    }
    return (cpu->pebs == ON_OFF_AUTO_AUTO && first->pebs == ON_OFF_AUTO_AUTO) ||
           check_same_pebs(cpu, first, errp);
}

void x86_cpu_tcg_pmu_cpuid(const X86CPU *cpu, uint32_t *eax, uint32_t *ebx,
                           uint32_t *ecx, uint32_t *edx)
{
    unsigned version = x86_cpu_tcg_pmu_version(cpu);

    *eax = version | x86_cpu_pmu_gp_counters(cpu) << 8 |
           TCG_PMU_COUNTER_BITS << 16 | TCG_PMU_EVENTS << 24;
    *ebx = TCG_PMU_EVENTS_MISSING;
    /* Which fixed counters there are, from version 5 on */
    *ecx = version >= 5 ? MAKE_64BIT_MASK(0, MAX_FIXED_COUNTERS) : 0;
    *edx = MAX_FIXED_COUNTERS | TCG_PMU_COUNTER_BITS << 5 |
           CPUID_A_EDX_ANYTHREAD_GONE;
}

static uint64_t misc_enable_bits(const X86CPU *cpu)
{
    return MISC_ENABLE_EMON | MISC_ENABLE_BTS_UNAVAIL |
           (x86_cpu_has_pebs(cpu) ? 0 : MISC_ENABLE_PEBS_UNAVAIL);
}

void x86_cpu_pebs_reset(X86CPU *cpu)
{
    if (x86_cpu_has_tcg_pmu(cpu)) {
        /* SDM volume 3A, "Processor State After Reset" */
        cpu->env.msr_global_ctrl =
            MAKE_64BIT_MASK(0, x86_cpu_pmu_gp_counters(cpu));
    }
    if (cpu->enable_pmu && cpu->pebs != ON_OFF_AUTO_AUTO) {
        cpu->env.msr_ia32_misc_enable |= misc_enable_bits(cpu);
    }
}

/*
 * As KVM's kvm_set_msr_common(): BTS_UNAVAIL and PEBS_UNAVAIL don't change,
 * writes to EMON are ignored.
 */
bool x86_cpu_pmu_misc_enable_valid(const X86CPU *cpu, uint64_t *value)
{
    const uint64_t fixed = MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL;

    if (!x86_cpu_has_tcg_pmu(cpu)) {
        return true;
    }
    *value |= MISC_ENABLE_EMON;
    return !((*value ^ cpu->env.msr_ia32_misc_enable) & fixed);
}

/*
 * Migration
 *
 * What the guest was shown goes ahead, before the source is stopped, so that a
 * destination that shows something else is no loss.  It is the same for all
 * vCPUs, therefore sent once.
 */

typedef struct ShownPmu {
    X86CPU *parent;
    /* pebs=on: its MSRs come with the vCPU */
    bool pebs;
    /* IA32_PERF_CAPABILITIES */
    uint64_t perf_capabilities;
    uint32_t family;
    uint32_t model;
    /* CPUID leaf 0xA */
    uint32_t pmu[4];
} ShownPmu;

static void get_shown(X86CPU *cpu, ShownPmu *shown)
{
    CPUX86State *env = &cpu->env;

    shown->pebs = x86_cpu_has_pebs(cpu);
    shown->perf_capabilities = env->features[FEAT_PERF_CAPABILITIES];
    shown->family = x86_cpu_family(env->cpuid_version);
    shown->model = x86_cpu_model(env->cpuid_version);
    cpu_x86_cpuid(env, 0xa, 0, &shown->pmu[0], &shown->pmu[1], &shown->pmu[2],
                  &shown->pmu[3]);
}

static bool check_shown(const char *what, uint64_t source, uint64_t here,
                        Error **errp)
{
    if (source != here) {
        error_setg(errp, "The guest's PMU differs: %s is 0x%" PRIx64 " at "
                   "the source and 0x%" PRIx64 " here: use the same CPU model "
                   "and properties%s", what, source, here,
                   kvm_enabled() ? ", kernel and host CPU" : "");
    }
    return source == here;
}

static bool check_shown_pebs(const X86CPU *cpu, bool source, Error **errp)
{
    if (source && !x86_cpu_has_pebs(cpu)) {
        error_setg(errp, "The guest's PEBS differs: pebs=on at the source and "
                   "pebs=%s here: start the destination with pebs=on",
                   OnOffAuto_str(cpu->pebs));
        return false;
    }
    if (!source && x86_cpu_has_pebs(cpu)) {
        error_setg(errp, "The guest's PEBS differs: pebs=on here, but not at "
                   "the source: start the destination with pmu=on,pebs=off");
        return false;
    }
    return true;
}

/* pmu-gp-counters= and pmu=on give TCG's PMU, too. */
static bool check_shown_pmu(const X86CPU *cpu, unsigned gp_counters,
                            Error **errp)
{
    if (!has_own_pmu(cpu)) {
        error_setg(errp, "The guest's PMU differs: pmu-gp-counters=%u at the "
                   "source is not set here: start the destination with "
                   "pmu=on,pmu-gp-counters=%u", gp_counters, gp_counters);
        return false;
    }
    return true;
}

static int shown_pre_save(void *opaque)
{
    ShownPmu *shown = opaque;

    get_shown(shown->parent, shown);
    return 0;
}

static bool shown_post_load(void *opaque, int version_id, Error **errp)
{
    const ShownPmu *source = opaque;
    ShownPmu here;

    get_shown(source->parent, &here);
    return check_shown_pebs(source->parent, source->pebs, errp) &&
           check_shown_pmu(source->parent, extract32(source->pmu[0], 8, 8),
                           errp) &&
           check_shown("the CPUID family", source->family, here.family,
                       errp) &&
           check_shown("the CPUID model", source->model, here.model, errp) &&
           check_shown("IA32_PERF_CAPABILITIES", source->perf_capabilities,
                       here.perf_capabilities, errp) &&
           check_shown("CPUID leaf 0xA, EAX,", source->pmu[0], here.pmu[0],
                       errp) &&
           check_shown("CPUID leaf 0xA, EBX,", source->pmu[1], here.pmu[1],
                       errp) &&
           check_shown("CPUID leaf 0xA, ECX,", source->pmu[2], here.pmu[2],
                       errp) &&
           check_shown("CPUID leaf 0xA, EDX,", source->pmu[3], here.pmu[3],
                       errp);
}

static const VMStateDescription vmstate_shown = {
    .name = "x86-pebs-shown/values",
    .pre_save = shown_pre_save,
    .post_load_errp = shown_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(pebs, ShownPmu),
        VMSTATE_UINT64(perf_capabilities, ShownPmu),
        VMSTATE_UINT32(family, ShownPmu),
        VMSTATE_UINT32(model, ShownPmu),
        VMSTATE_UINT32_ARRAY(pmu, ShownPmu, 4),
        VMSTATE_END_OF_LIST()
    }
};

static bool own_pmu_needed(void *opaque)
{
    return has_own_pmu(opaque);
}

static const VMStateDescription vmstate_x86_pebs_shown = {
    .name = "x86-pebs-shown",
    .version_id = 1,
    .minimum_version_id = 1,
    .early_setup = true,
    .needed = own_pmu_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_WITH_TMP(X86CPU, ShownPmu, vmstate_shown),
        VMSTATE_END_OF_LIST()
    }
};

bool x86_cpu_ds_area_valid(const X86CPU *cpu, uint64_t address)
{
    bool la57 = cpu->env.features[FEAT_7_0_ECX] & CPUID_7_0_ECX_LA57;

    return sextract64(address, 0, la57 ? 57 : 48) == address;
}

uint64_t x86_cpu_pebs_enable_mask(const X86CPU *cpu)
{
    uint64_t gp = x86_cpu_has_pebs(cpu) ?
                  MAKE_64BIT_MASK(0, x86_cpu_pmu_gp_counters(cpu)) : 0;

    if (x86_cpu_pebs_baseline(cpu)) {
        return gp | MAKE_64BIT_MASK(0, MAX_FIXED_COUNTERS) << 32;
    }
    /* Load latency, a bit for each GP counter; KVM doesn't have that. */
    return kvm_enabled() ? gp : gp | gp << 32;
}

static uint64_t pebs_data_cfg_valid(X86CPU *cpu)
{
    return x86_cpu_pebs_baseline(cpu) ?
           pebs_data_cfg_mask(x86_cpu_pebs_format(cpu), TCG_PEBS_GROUPS) : 0;
}

static bool check_loaded(const char *what, uint64_t value, bool valid,
                         Error **errp)
{
    if (!valid) {
        error_setg(errp, "The guest's PEBS state is invalid: %s is 0x%" PRIx64,
                   what, value);
    }
    return valid;
}

static bool check_loaded_msrs(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;

    if (kvm_enabled()) {
        return kvm_pebs_check_loaded(cpu, errp);
    }
    return check_loaded("IA32_DS_AREA", env->msr_ds_area,
                        x86_cpu_ds_area_valid(cpu, env->msr_ds_area), errp) &&
           check_loaded("IA32_PEBS_ENABLE", env->msr_pebs_enable,
                        !(env->msr_pebs_enable &
                          ~x86_cpu_pebs_enable_mask(cpu)),
                        errp) &&
           check_loaded("MSR_PEBS_DATA_CFG", env->msr_pebs_data_cfg,
                        !(env->msr_pebs_data_cfg & ~pebs_data_cfg_valid(cpu)),
                        errp);
}

static bool pebs_post_load(void *opaque, int version_id, Error **errp)
{
    X86CPU *cpu = opaque;

    if (!has_own_pmu(cpu)) {
        error_setg(errp, "The guest's PMU differs: pebs= or pmu-gp-counters= "
                   "at the source is not set here: start the destination with "
                   "the same CPU properties");
        return false;
    }
    if (!check_loaded_msrs(cpu, errp)) {
        /* qemu_loadvm_state() puts the state even so, which KVM has to take. */
        cpu->env.msr_ds_area = 0;
        cpu->env.msr_pebs_enable = 0;
        cpu->env.msr_pebs_data_cfg = 0;
        return false;
    }
    cpu->pebs_loaded = true;
    return true;
}

/* A source with stock QEMU's PMU, or none, sends nothing that could tell so. */
bool x86_cpu_pebs_loaded(X86CPU *cpu)
{
    bool loaded = cpu->pebs_loaded;

    cpu->pebs_loaded = false;
    if (loaded || !has_own_pmu(cpu)) {
        return true;
    }
    if (x86_cpu_has_pebs(cpu)) {
        error_report("The guest's PEBS differs: pebs=on is not set at the "
                     "source, but here: start the destination without pebs=on");
    } else {
        error_report("The guest's PMU differs: pmu-gp-counters=%u is not set "
                     "at the source, but here: start the destination without "
                     "pmu-gp-counters= and pebs=off", cpu->pmu_gp_counters);
    }
    return false;
}

const VMStateDescription vmstate_x86_pebs = {
    .name = "cpu/pebs",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = own_pmu_needed,
    .post_load_errp = pebs_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(env.msr_ds_area, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_enable, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_data_cfg, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_ld_lat, X86CPU),
        VMSTATE_END_OF_LIST()
    }
};

static bool tcg_pmu_needed(void *opaque)
{
    X86CPU *cpu = opaque;

    return cpu->env.msr_debugctl || cpu->env.pebs_armed;
}

const VMStateDescription vmstate_x86_tcg_pmu = {
    .name = "cpu/tcg-pmu",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = tcg_pmu_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(env.msr_debugctl, X86CPU),
        VMSTATE_UINT64(env.pebs_armed, X86CPU),
        VMSTATE_END_OF_LIST()
    }
};

static void register_shown(void *cpu)
{
    vmstate_register(NULL, 0, &vmstate_x86_pebs_shown, cpu);
}

static void machine_done(Notifier *notifier, void *data)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), register_shown, first_cpu);
}

/*
 * A destination without PEBS knows the section too, so that it can say what
 * differs.  It comes after those that the machine registers when it is done:
 * their numbers in the stream are stock's then, when this guest moves on.
 */
static void register_shown_last(void)
{
    static Notifier notifier = { .notify = machine_done };

    qemu_add_machine_init_done_notifier(&notifier);
}

/* The boot CPU can't be unplugged, nor be the one whose hot-plug fails. */
static void prepare_shown(X86CPU *cpu)
{
    if (first_cpu) {
        return;
    }
    if (has_own_pmu(cpu)) {
        register_shown(cpu);
    } else if (runstate_check(RUN_STATE_INMIGRATE)) {
        register_shown_last();
    }
}

bool x86_cpu_pebs_realize(X86CPU *cpu, Error **errp)
{
    if (x86_cpu_has_tcg_pmu(cpu)) {
        /* Nor can what lbr-fmt= and x-force-features= say be found there. */
        cpu->env.features[FEAT_PERF_CAPABILITIES] &=
            x86_cpu_pebs_features(cpu, FEAT_PERF_CAPABILITIES);
    }
    if (x86_cpu_has_pebs(cpu) && !check_long_mode(cpu, errp)) {
        return false;
    }
    if (!check_same_as_others(cpu, errp)) {
        return false;
    }
    prepare_shown(cpu);
    return true;
}

/*
 * What is offered
 */

/* qemu-system-i386 has no 64-bit CPUs. */
static bool check_target(uint32_t *obstacles, Error **errp)
{
    if (!(x86_cpu_get_supported_feature_word(NULL, FEAT_8000_0001_EDX) &
          CPUID_EXT2_LM)) {
        *obstacles = BIT(PEBS_OBSTACLE_TARGET);
        error_setg(errp, "pebs=on needs 64-bit CPUs: use qemu-system-x86_64");
        return false;
    }
    return true;
}

/* As realize does it; nobody else gets to see this CPU. */
static X86CPU *try_pebs(ObjectClass *oc)
{
    X86CPU *cpu = X86_CPU(object_new_with_class(oc));
    Error *error = NULL;

    if (object_property_set_str(OBJECT(cpu), "pebs", "on", &error)) {
        x86_cpu_expand_features(cpu, &error);
    }
    if (error) {
        error_free(error);
        object_unref(OBJECT(cpu));
        return NULL;
    }
    return cpu;
}

bool x86_pebs_starts(ObjectClass *oc)
{
    X86CPU *cpu = try_pebs(oc);
    bool starts = cpu;

    object_unref(OBJECT(cpu));
    return starts;
}

/* TCG gives the same to all CPU models that have it. */
static void offer_tcg(X86PebsOffer *offer)
{
    X86CPU *cpu = try_pebs(object_class_by_name(
                               X86_CPU_TYPE_NAME("Icelake-Server")));
    ShownPmu shown;

    get_shown(cpu, &shown);
    *offer = (X86PebsOffer) {
        .perf_capabilities = shown.perf_capabilities & PERF_CAP_PEBS_MASK,
        .gp_counters = x86_cpu_pmu_gp_counters(cpu),
        .family = shown.family,
        .model = shown.model,
    };
    memcpy(offer->cpuid_0xa, shown.pmu, sizeof(shown.pmu));
    object_unref(OBJECT(cpu));
}

static void offer_kvm(X86PebsOffer *offer, const KvmPebsOffer *kvm)
{
    *offer = (X86PebsOffer) {
        .perf_capabilities = kvm->perf_capabilities,
        .gp_counters = kvm->gp_counters,
        .family = x86_cpu_family(kvm->cpuid_version),
        .model = x86_cpu_model(kvm->cpuid_version),
    };
    memcpy(offer->cpuid_0xa, kvm->cpuid_0xa, sizeof(kvm->cpuid_0xa));
}

bool x86_pebs_offered(X86PebsOffer *offer, uint32_t *obstacles, Error **errp)
{
    KvmPebsOffer kvm;

    if (!kvm_enabled() && !tcg_enabled()) {
        *obstacles = BIT(PEBS_OBSTACLE_ACCELERATOR);
        return no_pmu(errp);
    }
    if (!check_target(obstacles, errp)) {
        return false;
    }
    if (tcg_enabled()) {
        offer_tcg(offer);
        return true;
    }
    if (!kvm_pebs_probe(&kvm, obstacles, errp)) {
        return false;
    }
    offer_kvm(offer, &kvm);
    return true;
}
