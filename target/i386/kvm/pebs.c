/*
 * Intel PEBS for KVM guests
 *
 * What this host's KVM offers, the MSRs, the PMI that migration would lose, and
 * which path PEBS takes.  Under KVM nothing of it can be chosen: the kernel
 * takes the PEBS bits of IA32_PERF_CAPABILITIES as it offers them, or none, and
 * only from a vCPU that looks right to it.  QEMU ends in kvm_buf_set_msrs() if
 * the kernel refuses an MSR, so each rule of Linux's vmx_set_msr() is checked
 * here first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "host-cpu.h"
#include "hw/core/boards.h"
#include "hw/i386/apic_internal.h"
#include "system/kvm.h"
#include "system/pebs-observer.h"
#include "kvm_i386.h"
#include "../pebs.h"
#include "pebs.h"
#include "trace.h"

/* Below, the PMU has no global stop, and KVM offers no PEBS. */
#define PMU_VERSION_MIN             2

/*
 * From this version on hardware keeps the guest's PEBS and the host's apart.
 * Below, intel_guest_get_msrs() switches IA32_PEBS_ENABLE to 0 at each entry.
 */
#define PMU_VERSION_ISOLATED        5

/* Registers of struct kvm_lapic_state stand 16 bytes apart. */
#define LAPIC_IRR                   0x20
#define LAPIC_LVTPC                 0x34

static uint32_t supported_cpuid(uint32_t leaf, int reg)
{
    return kvm_arch_get_supported_cpuid(kvm_state, leaf, 0, reg);
}

uint64_t kvm_pebs_perf_capabilities(void)
{
    uint64_t offered = kvm_arch_get_supported_msr_feature(
                           kvm_state, MSR_IA32_PERF_CAPABILITIES);

    return offered & PERF_CAP_PEBS_FORMAT ? offered & PERF_CAP_PEBS_MASK : 0;
}

unsigned kvm_pmu_gp_counters(void)
{
    return extract32(supported_cpuid(0xa, R_EAX), 8, 8);
}

static unsigned pebs_format(uint64_t perf_capabilities)
{
    return extract64(perf_capabilities, PERF_CAP_PEBS_FORMAT_SHIFT,
                     PERF_CAP_PEBS_FORMAT_LENGTH);
}

/*
 * The host, in the order in which a reason makes those below it pointless
 */

static bool check_guest_is_open(uint32_t *obstacles, Error **errp)
{
    if (current_machine && current_machine->cgs) {
        *obstacles = BIT(PEBS_OBSTACLE_CONFIDENTIAL_GUEST);
        error_setg(errp, "pebs=on is not supported in a confidential guest: "
                   "remove pebs=on or confidential-guest-support=");
        return false;
    }
    return true;
}

/* kvm_pmu_deliver_pmi() does nothing without lapic_in_kernel(). */
static bool check_irqchip(uint32_t *obstacles, Error **errp)
{
    if (!kvm_irqchip_in_kernel()) {
        *obstacles = BIT(PEBS_OBSTACLE_IRQCHIP);
        error_setg(errp, "pebs=on needs the local APIC in the kernel, which "
                   "delivers its interrupts: remove kernel-irqchip=off");
        return false;
    }
    return true;
}

static bool check_host_vendor(uint32_t *obstacles, Error **errp)
{
    char vendor[CPUID_VENDOR_SZ + 1];

    x86_cpu_vendor_words2str(vendor, supported_cpuid(0, R_EBX),
                             supported_cpuid(0, R_EDX),
                             supported_cpuid(0, R_ECX));
    if (!g_str_equal(vendor, CPUID_VENDOR_INTEL)) {
        *obstacles = BIT(PEBS_OBSTACLE_VENDOR);
        error_setg(errp, "pebs=on needs an Intel host for KVM, this one is "
                   "'%s': use -accel tcg", vendor);
        return false;
    }
    return true;
}

/* kvm_init_pmu_capability() has several reasons and tells none of them. */
static bool check_vpmu(uint32_t *obstacles, Error **errp)
{
    if ((supported_cpuid(0xa, R_EAX) & 0xff) < PMU_VERSION_MIN) {
        *obstacles = BIT(PEBS_OBSTACLE_VPMU);
        error_setg(errp, "KVM has no virtual PMU here; one of: module "
                   "parameter kvm.enable_pmu=0, a hybrid host CPU, a host "
                   "that is itself a guest without a PMU: enable it or use "
                   "-accel tcg");
        return false;
    }
    return true;
}

/*
 * kvm_probe_msr_to_save() lists the MSRs of PEBS if this kernel's KVM knows
 * them and the host has them, no matter whether guests can get them.
 */
static bool kernel_lists_msr(uint32_t index)
{
    struct kvm_msr_list count = {};
    g_autofree struct kvm_msr_list *list = NULL;

    kvm_ioctl(kvm_state, KVM_GET_MSR_INDEX_LIST, &count);
    list = g_malloc0(sizeof(*list) + count.nmsrs * sizeof(list->indices[0]));
    list->nmsrs = count.nmsrs;
    if (kvm_ioctl(kvm_state, KVM_GET_MSR_INDEX_LIST, list) < 0) {
        return false;
    }
    for (unsigned i = 0; i < list->nmsrs; i++) {
        if (list->indices[i] == index) {
            return true;
        }
    }
    return false;
}

/* KVM_CAP_PMU_CAPABILITY is older than guest PEBS, but not much. */
static bool kernel_knows_pebs(void)
{
    return kvm_check_extension(kvm_state, KVM_CAP_PMU_CAPABILITY) > 0 &&
           kernel_lists_msr(MSR_IA32_PEBS_ENABLE);
}

/* vmx_pebs_supported() has several reasons and tells none of them. */
static void set_no_offer_error(uint32_t *obstacles, Error **errp)
{
    unsigned model = x86_cpu_model(supported_cpuid(1, R_EAX));

    if (!kernel_knows_pebs()) {
        *obstacles = BIT(PEBS_OBSTACLE_KERNEL);
        error_setg(errp, "The host's kernel has no PEBS for guests: use "
                   "Linux 6.0 or newer, or -accel tcg");
    } else if (x86_pebs_cpu_with_model(model)) {
        *obstacles = BIT(PEBS_OBSTACLE_MEDIATED_VPMU) |
                     BIT(PEBS_OBSTACLE_OTHER);
        error_setg(errp, "KVM offers no PEBS here; one of: module parameter "
                   "kvm_intel.enable_mediated_pmu=1, PEBS switched off by the "
                   "firmware: change it or use -accel tcg");
    } else {
        *obstacles = BIT(PEBS_OBSTACLE_CPU) |
                     BIT(PEBS_OBSTACLE_MEDIATED_VPMU);
        error_setg(errp, "KVM offers no PEBS here; one of: a host CPU before "
                   "Ice Lake server (its CPUID model is %u), module parameter "
                   "kvm_intel.enable_mediated_pmu=1: change it or use "
                   "-accel tcg", model);
    }
}

static bool check_offer(uint32_t *obstacles, Error **errp)
{
    if (!kvm_pebs_perf_capabilities()) {
        set_no_offer_error(obstacles, errp);
        return false;
    }
    return true;
}

/*
 * KVM caps the version that it tells at 2, so that only the CPU itself can be
 * asked.
 */
static bool check_isolation(uint32_t *obstacles, Error **errp)
{
    uint32_t eax;

    host_cpuid(0xa, 0, &eax, NULL, NULL, NULL);
    if ((eax & 0xff) < PMU_VERSION_ISOLATED) {
        *obstacles = BIT(PEBS_OBSTACLE_NESTED);
        error_setg(errp, "The host is itself a guest, with version %u of the "
                   "PMU, where KVM's PEBS never samples: run QEMU on the "
                   "physical host or use -accel tcg", eax & 0xff);
        return false;
    }
    return true;
}

static bool check_host_features(uint32_t *obstacles, Error **errp)
{
    uint32_t edx = supported_cpuid(1, R_EDX), ecx = supported_cpuid(1, R_ECX);
    const char *missing = !(edx & CPUID_DTS) ? "DS" :
                          !(ecx & CPUID_EXT_DTES64) ? "DTES64" :
                          !(ecx & CPUID_EXT_PDCM) ? "PDCM" : NULL;

    if (missing) {
        *obstacles = BIT(PEBS_OBSTACLE_KERNEL);
        error_setg(errp, "KVM offers PEBS without the CPUID bit %s: update "
                   "the host's kernel or use -accel tcg", missing);
    }
    return !missing;
}

bool kvm_pebs_probe(KvmPebsOffer *offer, uint32_t *obstacles, Error **errp)
{
    if (!check_guest_is_open(obstacles, errp) ||
        !check_irqchip(obstacles, errp) ||
        !check_host_vendor(obstacles, errp) ||
        !check_vpmu(obstacles, errp) ||
        !check_offer(obstacles, errp) ||
        !check_isolation(obstacles, errp) ||
        !check_host_features(obstacles, errp)) {
        return false;
    }
    *offer = (KvmPebsOffer) {
        .perf_capabilities = kvm_pebs_perf_capabilities(),
        .gp_counters = kvm_pmu_gp_counters(),
        .cpuid_version = supported_cpuid(1, R_EAX),
        .cpuid_0xa = {
            supported_cpuid(0xa, R_EAX), supported_cpuid(0xa, R_EBX),
            supported_cpuid(0xa, R_ECX), supported_cpuid(0xa, R_EDX),
        },
    };
    trace_kvm_pebs_offer(offer->perf_capabilities, offer->gp_counters,
                         x86_cpu_model(offer->cpuid_version));
    return true;
}

/*
 * The guest
 */

static bool check_guest_vendor(const X86CPU *cpu, Error **errp)
{
    if (!IS_INTEL_CPU(&cpu->env)) {
        error_setg(errp, "pebs=on needs an Intel CPU in the guest, too: "
                   "remove vendor=");
        return false;
    }
    return true;
}

/*
 * cpuid_model_is_consistent() compares the model alone, but with another
 * family the guest would take another driver.
 */
static bool check_guest_model(X86CPU *cpu, uint32_t host, Error **errp)
{
    uint32_t guest = cpu->env.cpuid_version;
    const char *right = x86_pebs_cpu_with_model(x86_cpu_model(host));
    g_autofree char *name = NULL, *remedy = NULL;

    if (x86_cpu_family(guest) == x86_cpu_family(host) &&
        x86_cpu_model(guest) == x86_cpu_model(host)) {
        return true;
    }
    name = cpu_model_from_type(object_get_typename(OBJECT(cpu)));
    if (X86_CPU_GET_CLASS(cpu)->max_features ||
        (right && g_strcmp0(x86_cpu_builtin_model(cpu), right) == 0)) {
        remedy = g_strdup("remove family= and model=");
    } else {
        remedy = g_strdup_printf("use -cpu %s", right ?: "host");
    }
    error_setg(errp, "pebs=on needs the host's CPUID family %u and model %u, "
               "'%s' shows %u and %u: %s",
               x86_cpu_family(host), x86_cpu_model(host), name,
               x86_cpu_family(guest), x86_cpu_model(guest), remedy);
    return false;
}

static bool check_format(const X86CPU *cpu, uint64_t offered, Error **errp)
{
    if (cpu->pebs_format && cpu->pebs_format != pebs_format(offered)) {
        error_setg(errp, "pebs-format=%u is not what KVM offers here: use "
                   "pebs-format=%u", cpu->pebs_format, pebs_format(offered));
        return false;
    }
    return true;
}

static bool check_baseline(const X86CPU *cpu, uint64_t offered, Error **errp)
{
    bool baseline = offered & PERF_CAP_PEBS_BASELINE;

    if (cpu->pebs_baseline == ON_OFF_AUTO_ON && !baseline) {
        error_setg(errp, "pebs-baseline=on is not what KVM offers here: use "
                   "pebs-baseline=off or -accel tcg");
        return false;
    }
    if (cpu->pebs_baseline == ON_OFF_AUTO_OFF && baseline) {
        error_setg(errp, "pebs-baseline=off is not what KVM offers here, and "
                   "it can't be left out: use pebs-baseline=on");
        return false;
    }
    return true;
}

bool kvm_pebs_prepare(X86CPU *cpu, Error **errp)
{
    KvmPebsOffer offer;
    uint32_t obstacles;

    return kvm_pebs_probe(&offer, &obstacles, errp) &&
           check_guest_vendor(cpu, errp) &&
           check_guest_model(cpu, offer.cpuid_version, errp) &&
           check_format(cpu, offer.perf_capabilities, errp) &&
           check_baseline(cpu, offer.perf_capabilities, errp);
}

/*
 * State
 */

/*
 * The MSRs of a vCPU with PEBS, as intel_is_valid_msr() has it; that which
 * enables the others comes last.
 */
static unsigned pebs_msrs(const X86CPU *cpu, uint32_t msrs[3])
{
    unsigned count = 0;

    if (!x86_cpu_has_pebs(cpu)) {
        return 0;
    }
    msrs[count++] = MSR_IA32_DS_AREA;
    if (cpu->env.features[FEAT_PERF_CAPABILITIES] & PERF_CAP_PEBS_BASELINE) {
        msrs[count++] = MSR_PEBS_DATA_CFG;
    }
    msrs[count++] = MSR_IA32_PEBS_ENABLE;
    return count;
}

static uint64_t *msr_value(X86CPU *cpu, uint32_t index)
{
    switch (index) {
    case MSR_IA32_DS_AREA:
        return &cpu->env.msr_ds_area;
    case MSR_PEBS_DATA_CFG:
        return &cpu->env.msr_pebs_data_cfg;
    case MSR_IA32_PEBS_ENABLE:
        return &cpu->env.msr_pebs_enable;
    default:
        g_assert_not_reached();
    }
}

void kvm_pebs_put_msrs(X86CPU *cpu)
{
    uint32_t msrs[3];
    unsigned count = pebs_msrs(cpu, msrs);

    for (unsigned i = 0; i < count; i++) {
        uint64_t value = *msr_value(cpu, msrs[i]);

        trace_kvm_pebs_put_msr(CPU(cpu)->cpu_index, msrs[i], value);
        kvm_msr_entry_add(cpu, msrs[i], value);
    }
}

void kvm_pebs_get_msrs(X86CPU *cpu)
{
    uint32_t msrs[3];
    unsigned count = pebs_msrs(cpu, msrs);

    for (unsigned i = 0; i < count; i++) {
        kvm_msr_entry_add(cpu, msrs[i], 0);
    }
}

void kvm_pebs_got_msr(X86CPU *cpu, uint32_t index, uint64_t value)
{
    trace_kvm_pebs_got_msr(CPU(cpu)->cpu_index, index, value);
    *msr_value(cpu, index) = value;
}

/*
 * The PMI
 *
 * __kvm_perf_overflow() sets bit 62 of IA32_PERF_GLOBAL_STATUS and requests a
 * PMI, which is no state that could be read: KVM_RUN can return with it
 * undelivered.  As long as the bit is set no other PMI is requested, so that a
 * guest without this one never empties its buffer again.
 */

static uint32_t *lapic_register(struct kvm_lapic_state *lapic, unsigned number)
{
    return (uint32_t *)(lapic->regs + number * 16);
}

static bool pmi_was_lost(const X86CPU *cpu, uint32_t lvtpc)
{
    const CPUX86State *env = &cpu->env;

    /* kvm_apic_local_deliver() masks LVTPC when it delivers. */
    return (env->msr_global_status & PEBS_STATUS_OVF_BUF) &&
           !(lvtpc & APIC_LVT_MASKED) &&
           !env->nmi_pending && !env->nmi_injected;
}

/* As kvm_apic_local_deliver() does it */
static bool deliver_pmi(X86CPU *cpu, struct kvm_lapic_state *lapic)
{
    uint32_t *lvtpc = lapic_register(lapic, LAPIC_LVTPC);
    unsigned vector = *lvtpc & APIC_VECTOR_MASK;

    switch ((*lvtpc & APIC_LVT_DELIV_MOD) >> APIC_LVT_DELIV_MOD_SHIFT) {
    case APIC_DM_NMI:
        cpu->env.nmi_pending = 1;
        break;
    case APIC_DM_FIXED:
        *lapic_register(lapic, LAPIC_IRR + vector / 32) |= 1u << vector % 32;
        break;
    default:
        return false;
    }
    *lvtpc |= APIC_LVT_MASKED;
    return true;
}

int kvm_pebs_replay_pmi(X86CPU *cpu)
{
    struct kvm_lapic_state lapic;
    uint32_t lvtpc;
    int ret;

    if (!x86_cpu_has_pebs(cpu)) {
        return 0;
    }
    ret = kvm_vcpu_ioctl(CPU(cpu), KVM_GET_LAPIC, &lapic);
    if (ret < 0) {
        return ret;
    }
    lvtpc = *lapic_register(&lapic, LAPIC_LVTPC);
    if (!pmi_was_lost(cpu, lvtpc) || !deliver_pmi(cpu, &lapic)) {
        return 0;
    }
    trace_kvm_pebs_replay_pmi(CPU(cpu)->cpu_index, lvtpc);
    return kvm_vcpu_ioctl(CPU(cpu), KVM_SET_LAPIC, &lapic);
}

/*
 * The path
 *
 * qemu-pebs-helper reports in the words of pebs-report.h, so that nothing is
 * left to translate.  A vCPU's slot is its cpu_index.
 */

void kvm_pebs_observe(const char *helper, unsigned max_cpus)
{
    pebs_observer_start(helper, max_cpus);
}

bool kvm_pebs_is_observed(void)
{
    return pebs_observer_started();
}

void kvm_pebs_thread_started(X86CPU *cpu)
{
    if (x86_cpu_has_pebs(cpu)) {
        pebs_observer_watch(CPU(cpu)->cpu_index, CPU(cpu)->thread_id);
    }
}

void kvm_pebs_thread_ended(X86CPU *cpu)
{
    pebs_observer_watch(CPU(cpu)->cpu_index, 0);
}

bool kvm_pebs_observe_vcpu(const X86CPU *cpu, PebsObservation *seen)
{
    return pebs_observer_read(CPU(cpu)->cpu_index, seen);
}
