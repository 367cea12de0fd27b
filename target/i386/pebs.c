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
#include "cpu.h"
#include "migration/vmstate.h"
#include "system/kvm.h"
#include "system/tcg.h"
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

unsigned x86_cpu_pmu_gp_counters(const X86CPU *cpu)
{
    return cpu->pmu_gp_counters ? cpu->pmu_gp_counters : TCG_PMU_GP_COUNTERS;
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

/* A property that only means something beside pebs=on */
static bool check_companions(X86CPU *cpu, Error **errp)
{
    const char *name = cpu->pebs_format ? "pebs-format" :
                       cpu->pebs_baseline != ON_OFF_AUTO_AUTO ?
                       "pebs-baseline" : NULL;

    if (name && !x86_cpu_has_pebs(cpu)) {
        error_setg(errp, "%s needs pebs=on", name);
        return false;
    }
    if (cpu->pmu_gp_counters &&
        !(cpu->enable_pmu && cpu->pebs != ON_OFF_AUTO_AUTO)) {
        error_setg(errp, "pmu-gp-counters needs pebs=on, or pmu=on,pebs=off");
        return false;
    }
    if (cpu->pmu_gp_counters > TCG_PMU_GP_COUNTERS) {
        error_setg(errp, "pmu-gp-counters=%u is more than the %d that TCG has",
                   cpu->pmu_gp_counters, TCG_PMU_GP_COUNTERS);
        return false;
    }
    return true;
}

static bool check_feature(X86CPU *cpu, FeatureWord word, uint64_t bit,
                          const char *name, Error **errp)
{
    if ((cpu->env.user_features[word] & bit) &&
        !(cpu->env.features[word] & bit)) {
        error_setg(errp, "pebs=on needs %s, which is switched off: remove "
                   "%s=off", name, name);
        return false;
    }
    return true;
}

static bool check_features(X86CPU *cpu, Error **errp)
{
    if (!(cpu->env.features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM)) {
        error_setg(errp, "pebs=on needs a 64-bit CPU: remove lm=off or use "
                   "another -cpu model");
        return false;
    }
    return check_feature(cpu, FEAT_1_EDX, CPUID_DTS, "ds", errp) &&
           check_feature(cpu, FEAT_1_ECX, CPUID_EXT_DTES64, "dtes64", errp) &&
           check_feature(cpu, FEAT_1_ECX, CPUID_EXT_PDCM, "pdcm", errp);
}

static bool prepare_tcg(X86CPU *cpu, Error **errp)
{
    g_autofree char *name = cpu_model_from_type(object_get_typename(
                                                    OBJECT(cpu)));
    int i = find_model(cpu);

    if (i < 0) {
        error_setg(errp, "CPU model '%s' has no PEBS that a guest can use "
                   "(adaptive records, format 4)", name);
        error_append_hint(errp, "Use -cpu Icelake-Server, SapphireRapids, "
                          "GraniteRapids or Snowridge.\n");
        return false;
    }
    if (cpu->model_set &&
        object_property_get_int(OBJECT(cpu), "model", NULL) !=
        pebs_models[i].model) {
        error_setg(errp, "pebs=on presents '%s' as CPUID model %d, which is "
                   "what its hardware has: remove model=", name,
                   pebs_models[i].model);
        return false;
    }
    if (cpu->pebs_format == 0) {
        cpu->pebs_format = TCG_PEBS_FORMAT;
    } else if (cpu->pebs_format != 4 && cpu->pebs_format != 5) {
        error_setg(errp, "pebs-format=%u is not known to TCG: use 4 or 5",
                   cpu->pebs_format);
        return false;
    }
    return object_property_set_int(OBJECT(cpu), "model", pebs_models[i].model,
                                   errp);
}

static bool accelerator_has_pmu(Error **errp)
{
    if (tcg_enabled()) {
        return true;
    }
    if (kvm_enabled()) {
        error_setg(errp, "pebs=on is not supported with KVM yet: use "
                   "-accel tcg");
    } else {
        error_setg(errp, "pebs=on is not supported with accelerator '%s': use "
                   "-accel tcg", current_accel_name());
    }
    return false;
}

bool x86_pebs_offered(X86PebsOffer *offer, Error **errp)
{
    if (!accelerator_has_pmu(errp)) {
        return false;
    }
    *offer = (X86PebsOffer) {
        .format = TCG_PEBS_FORMAT,
        .baseline = true,
        .gp_counters = TCG_PMU_GP_COUNTERS,
    };
    return true;
}

bool x86_pebs_is_watched(const X86CPU *cpu)
{
    return x86_cpu_has_tcg_pmu(cpu);
}

bool x86_cpu_pebs_prepare(X86CPU *cpu, Error **errp)
{
    if (x86_cpu_has_pebs(cpu)) {
        if (cpu->pmu_off) {
            error_setg(errp, "pebs=on needs the PMU: remove pmu=off");
            return false;
        }
        if (!accelerator_has_pmu(errp) || !prepare_tcg(cpu, errp) ||
            !check_features(cpu, errp)) {
            return false;
        }
        cpu->enable_pmu = true;
    }
    if (x86_cpu_has_tcg_pmu(cpu)) {
        cpu->env.cpuid_min_level = MAX(cpu->env.cpuid_min_level, 0xa);
    }
    return check_companions(cpu, errp);
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

/* A guest takes its PMU from the boot CPU's CPUID and uses it on all vCPUs. */
static bool check_same_as_others(const X86CPU *cpu, Error **errp)
{
    const X86CPU *first = first_cpu ? X86_CPU(first_cpu) : NULL;

    if (!first) {
        return true;
    }
    return check_same_switch("pebs", x86_cpu_has_pebs(cpu),
                             x86_cpu_has_pebs(first), errp) &&
           check_same_switch("pmu", x86_cpu_has_tcg_pmu(cpu),
                             x86_cpu_has_tcg_pmu(first), errp) &&
           check_same_number("pmu-gp-counters", x86_cpu_pmu_gp_counters(cpu),
                             x86_cpu_pmu_gp_counters(first), errp) &&
           check_same_number("pebs-format", x86_cpu_pebs_format(cpu),
                             x86_cpu_pebs_format(first), errp) &&
           check_same_switch("pebs-baseline", x86_cpu_pebs_baseline(cpu),
                             x86_cpu_pebs_baseline(first), errp);
}

static bool expose_tcg_pmu(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;
    uint64_t caps = PERF_CAP_FW_WRITES;

    if (x86_cpu_has_pebs(cpu)) {
        /* A legacy "-ds" has only been applied by the expansion of features. */
        if (!check_features(cpu, errp)) {
            return false;
        }
        caps |= PERF_CAP_PEBS_TRAP | PERF_CAP_PEBS_ARCH_REG |
                (uint64_t)cpu->pebs_format << PERF_CAP_PEBS_FORMAT_SHIFT;
        if (cpu->pebs_baseline != ON_OFF_AUTO_OFF) {
            caps |= PERF_CAP_PEBS_BASELINE;
        }
        env->features[FEAT_1_EDX] |= CPUID_DTS;
        env->features[FEAT_1_ECX] |= CPUID_EXT_DTES64;
    }
    env->features[FEAT_1_ECX] |= CPUID_EXT_PDCM;
    env->features[FEAT_PERF_CAPABILITIES] |= caps;
    return true;
}

bool x86_cpu_pebs_expose(X86CPU *cpu, Error **errp)
{
    if (x86_cpu_has_tcg_pmu(cpu) && !expose_tcg_pmu(cpu, errp)) {
        return false;
    }
    return check_same_as_others(cpu, errp);
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

static bool pebs_needed(void *opaque)
{
    return x86_cpu_has_pebs(opaque);
}

static int pebs_post_load(void *opaque, int version_id)
{
    if (!x86_cpu_has_pebs(opaque)) {
        error_report("The guest has PEBS: start the destination with pebs=on");
        return -EINVAL;
    }
    return 0;
}

const VMStateDescription vmstate_x86_pebs = {
    .name = "cpu/pebs",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = pebs_needed,
    .post_load = pebs_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(env.msr_ds_area, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_enable, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_data_cfg, X86CPU),
        VMSTATE_UINT64(env.msr_pebs_ld_lat, X86CPU),
        VMSTATE_END_OF_LIST()
    }
};
