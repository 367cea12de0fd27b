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
#include "qemu/error-report.h"
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

#define CPUID_7_EDX_HYBRID          (1u << 15)

#define MEDIATED_PMU \
    "/sys/module/kvm_intel/parameters/enable_mediated_pmu"

/* Registers of struct kvm_lapic_state stand 16 bytes apart. */
#define LAPIC_ISR                   0x10
#define LAPIC_TMR                   0x18
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

static uint32_t this_cpuid(uint32_t leaf, int reg)
{
    uint32_t regs[4];

    host_cpuid(leaf, 0, &regs[R_EAX], &regs[R_EBX], &regs[R_ECX],
               &regs[R_EDX]);
    return regs[reg];
}

/* Of the CPU itself: KVM's own is capped at 2. */
static unsigned this_pmu_version(void)
{
    return extract32(this_cpuid(0xa, R_EAX), 0, 8);
}

/* The CPUs for which perf's intel_pmu_init() sets pebs_ept */
static bool cpu_is_known(void)
{
    static const uint8_t models[] = {
        106, 108,               /* Ice Lake server, Ice Lake-D */
        143, 207,               /* Sapphire Rapids, Emerald Rapids */
        173, 174,               /* Granite Rapids, Granite Rapids-D */
    };

    return memchr(models, x86_cpu_model(supported_cpuid(1, R_EAX)),
                  sizeof(models));
}

/*
 * A hypervisor sets CPUID leaf 1, ECX[31], which no CPU does.  Where it hides
 * that, a PMU below the version that the CPU's model has shows it.
 */
static bool host_is_guest(void)
{
    return (this_cpuid(1, R_ECX) & CPUID_EXT_HYPERVISOR) ||
           (cpu_is_known() && this_pmu_version() < PMU_VERSION_ISOLATED);
}

/*
 * kvm_init_pmu_capability() has several reasons and tells none of them.  The
 * CPU shows two: X86_FEATURE_HYBRID_CPU is its CPUID bit, and a guest without
 * leaf 0xA has no PMU to hand on.
 */
static void set_no_vpmu_error(uint32_t *obstacles, Error **errp)
{
    if (host_is_guest() && this_pmu_version() < PMU_VERSION_MIN) {
        *obstacles = BIT(PEBS_OBSTACLE_NESTED);
        error_setg(errp, "The host is itself a guest, and its hypervisor gives "
                   "it no PMU: run QEMU on the physical host or use "
                   "-accel tcg");
    } else if (this_cpuid(7, R_EDX) & CPUID_7_EDX_HYBRID) {
        *obstacles = BIT(PEBS_OBSTACLE_CPU);
        error_setg(errp, "KVM has no virtual PMU on a hybrid CPU, which this "
                   "host's is: use another host or -accel tcg");
    } else {
        *obstacles = BIT(PEBS_OBSTACLE_VPMU) | BIT(PEBS_OBSTACLE_OTHER);
        error_setg(errp, "KVM has no virtual PMU here; one of: module "
                   "parameter kvm.enable_pmu=0, a host kernel that can't use "
                   "its own: enable it or use -accel tcg");
    }
}

static bool check_vpmu(uint32_t *obstacles, Error **errp)
{
    if ((supported_cpuid(0xa, R_EAX) & 0xff) < PMU_VERSION_MIN) {
        set_no_vpmu_error(obstacles, errp);
        return false;
    }
    return true;
}

/*
 * kvm_probe_msr_to_save() lists the MSRs of PEBS if this kernel's KVM knows
 * them and the CPU has them, no matter whether guests can get them.
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

/*
 * KVM_CAP_X86_TRIPLE_FAULT_EVENT came with guest PEBS, in Linux 6.0.  An older
 * kernel to which a distribution added PEBS lists the MSR; that isn't listed in
 * a guest to which its hypervisor gave no PEBS.
 */
static bool kernel_knows_pebs(void)
{
    return kvm_check_extension(kvm_state, KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0 ||
           kernel_lists_msr(MSR_IA32_PEBS_ENABLE);
}

/*
 * vmx_pebs_supported() asks for it, where there is one.  A kernel without a
 * mediated PMU has no such parameter.
 */
static bool pmu_is_mediated(void)
{
    g_autofree char *value = NULL;

    return g_file_get_contents(MEDIATED_PMU, &value, NULL, NULL) &&
           value[0] == 'Y';
}

/*
 * vmx_pebs_supported() has several reasons and tells none of them.  Those of
 * which there is evidence come first.  All CPUs with PEBS for guests have
 * version 5 of the PMU or a later one, but some have that and no such PEBS.
 */
static void set_no_offer_error(uint32_t *obstacles, Error **errp)
{
    unsigned model = x86_cpu_model(supported_cpuid(1, R_EAX));

    if (!kernel_knows_pebs()) {
        *obstacles = BIT(PEBS_OBSTACLE_KERNEL);
        error_setg(errp, "The host's kernel has no PEBS for guests: use "
                   "Linux 6.0 or newer, or -accel tcg");
    } else if (pmu_is_mediated()) {
        *obstacles = BIT(PEBS_OBSTACLE_MEDIATED_VPMU);
        error_setg(errp, "KVM offers no PEBS with the mediated PMU: load it "
                   "with kvm_intel.enable_mediated_pmu=0 or use -accel tcg");
    } else if (host_is_guest()) {
        *obstacles = BIT(PEBS_OBSTACLE_NESTED);
        error_setg(errp, "The host is itself a guest, and its hypervisor gives "
                   "it no PEBS that KVM could hand on: run QEMU on the "
                   "physical host or use -accel tcg");
    } else if (this_pmu_version() < PMU_VERSION_ISOLATED) {
        *obstacles = BIT(PEBS_OBSTACLE_CPU);
        error_setg(errp, "The host's CPU (CPUID model %u) has no PEBS for "
                   "guests: use an Ice Lake server or newer, or -accel tcg",
                   model);
    } else if (cpu_is_known()) {
        *obstacles = BIT(PEBS_OBSTACLE_KERNEL) | BIT(PEBS_OBSTACLE_OTHER);
        error_setg(errp, "KVM offers no PEBS here, although this CPU has it; "
                   "one of: the firmware switches it off, the host's kernel "
                   "does: change it or use -accel tcg");
    } else {
        *obstacles = BIT(PEBS_OBSTACLE_CPU) | BIT(PEBS_OBSTACLE_KERNEL) |
                     BIT(PEBS_OBSTACLE_OTHER);
        error_setg(errp, "KVM offers no PEBS here; one of: a host CPU (CPUID "
                   "model %u) without PEBS for guests, a host kernel older "
                   "than that CPU, PEBS switched off by the firmware: change "
                   "it or use -accel tcg", model);
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
 * perf sets pebs_ept for CPUs alone that have version 5: a lower one is what a
 * hypervisor gave, whether or not it lets itself be known.
 */
static bool check_isolation(uint32_t *obstacles, Error **errp)
{
    unsigned version = this_pmu_version();

    if (version < PMU_VERSION_ISOLATED) {
        *obstacles = BIT(PEBS_OBSTACLE_NESTED);
        error_setg(errp, "The host is itself a guest, with version %u of the "
                   "PMU, where KVM's PEBS never samples: run QEMU on the "
                   "physical host or use -accel tcg", version);
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

/* What KVM offers, whether or not a guest should have it */
static bool probe_host(KvmPebsOffer *offer, uint32_t *obstacles, Error **errp)
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
 * Since "KVM: x86/pmu: Disable support for adaptive PEBS"
 * vmx_get_perf_capabilities() masks baseline, and gives these reasons.
 */
static bool refuse_baseline(uint32_t *obstacles, Error **errp)
{
    *obstacles = BIT(PEBS_OBSTACLE_BASELINE_UNSAFE);
    error_setg(errp, "KVM offers baseline here, with which a guest can read "
               "the host's branch records and bypass event filters: update "
               "the host's kernel, or accept that with pebs-baseline=on");
    return false;
}

static bool has_baseline(const KvmPebsOffer *offer)
{
    return offer->perf_capabilities & PERF_CAP_PEBS_BASELINE;
}

bool kvm_pebs_probe(KvmPebsOffer *offer, uint32_t *obstacles, Error **errp)
{
    return probe_host(offer, obstacles, errp) &&
           (!has_baseline(offer) || refuse_baseline(obstacles, errp));
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

/* On a host that masks it */
static bool check_no_baseline(const X86CPU *cpu, Error **errp)
{
    if (cpu->pebs_baseline == ON_OFF_AUTO_ON) {
        error_setg(errp, "pebs-baseline=on is not what KVM offers here: use "
                   "pebs-baseline=off or -accel tcg");
        return false;
    }
    return true;
}

/* On a host that doesn't: KVM takes all or nothing, so ask for consent. */
static bool check_consent(const X86CPU *cpu, uint32_t *obstacles, Error **errp)
{
    switch (cpu->pebs_baseline) {
    case ON_OFF_AUTO_ON:
        warn_report_once("pebs-baseline=on: with this host's kernel the guest "
                         "can read the host's branch records and bypass event "
                         "filters");
        return true;
    case ON_OFF_AUTO_OFF:
        error_setg(errp, "pebs-baseline=off is not what KVM offers here, and "
                   "it can't be left out: use pebs-baseline=on");
        return false;
    default:
        return refuse_baseline(obstacles, errp);
    }
}

bool kvm_pebs_prepare(X86CPU *cpu, Error **errp)
{
    KvmPebsOffer offer;
    uint32_t obstacles;

    return probe_host(&offer, &obstacles, errp) &&
           check_guest_vendor(cpu, errp) &&
           check_guest_model(cpu, offer.cpuid_version, errp) &&
           check_format(cpu, offer.perf_capabilities, errp) &&
           (has_baseline(&offer) ? check_consent(cpu, &obstacles, errp)
                                 : check_no_baseline(cpu, errp));
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

static bool kvm_takes_msr(X86CPU *cpu, uint32_t index, uint64_t value)
{
    struct {
        struct kvm_msrs info;
        struct kvm_msr_entry entries[1];
    } msrs = {
        .info.nmsrs = 1,
        .entries[0] = { .index = index, .data = value },
    };

    return kvm_vcpu_ioctl(CPU(cpu), KVM_SET_MSRS, &msrs) == 1;
}

/*
 * IA32_DS_AREA has to be canonical.  Linux 6.1 goes by CR4.LA57, which is put
 * later: what only that bit allows can't be tried before.  Newer kernels go by
 * the host's width, see max_host_virt_addr_bits(), and so can be asked.
 */
static bool needs_la57(X86CPU *cpu, uint32_t index, uint64_t value)
{
    return index == MSR_IA32_DS_AREA && (cpu->env.cr[4] & CR4_LA57_MASK) &&
           sextract64(value, 0, 48) != value &&
           sextract64(value, 0, 57) == value;
}

static const char *msr_name(uint32_t index)
{
    return index == MSR_IA32_DS_AREA ? "IA32_DS_AREA" :
           index == MSR_PEBS_DATA_CFG ? "MSR_PEBS_DATA_CFG" :
           "IA32_PEBS_ENABLE";
}

/* All three, as KVM takes nothing but 0 for one that the vCPU hasn't. */
bool kvm_pebs_check_loaded(X86CPU *cpu, Error **errp)
{
    static const uint32_t msrs[] = {
        MSR_IA32_DS_AREA, MSR_PEBS_DATA_CFG, MSR_IA32_PEBS_ENABLE,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
        uint64_t value = *msr_value(cpu, msrs[i]);

        if (!kvm_takes_msr(cpu, msrs[i], value) &&
            !needs_la57(cpu, msrs[i], value)) {
            error_setg(errp, "The guest's PEBS state is not what KVM takes "
                       "here: %s is 0x%" PRIx64 ": use a host with the "
                       "source's kernel and CPU", msr_name(msrs[i]), value);
            return false;
        }
    }
    return true;
}

/*
 * The PMI
 *
 * When a buffer's threshold is reached, __kvm_perf_overflow() sets bit 62 of
 * IA32_PERF_GLOBAL_STATUS and requests a PMI.  The request is no state that
 * could be read: KVM_RUN can return before kvm_apic_local_deliver() has made an
 * interrupt of it.  As long as the bit is set no other is requested, so that a
 * guest without this one never empties its buffer again.  Whether the interrupt
 * is raised again on load:
 *
 * - Bit 62 is clear: no, nothing was requested.  That holds for an index beyond
 *   its threshold, too, as kvm_perf_overflow() leaves it where the counter is
 *   about to be reprogrammed, and x86_pmu_handle_guest_pebs() where the host
 *   was no longer in the guest: the hardware tells of it at the next record.
 * - LVTPC is masked, or the local APIC off: no.  KVM drops the request then;
 *   and on delivery it masks LVTPC itself.
 * - An NMI is pending or being injected, or the vector stands in IRR: no, that
 *   is the interrupt, or the guest takes it for one: any NMI runs its handler.
 * - NMIs are blocked, or the vector is in service: no.  The guest is in its
 *   handler, and finds the bit: Linux's intel_pmu_handle_irq() reads the status
 *   until it is 0.  LVTPC may well be unmasked: by a guest that acknowledges
 *   early, or on a kernel from before "KVM: x86: Mask LVTPC when handling a
 *   PMI".  A second interrupt would find nothing and be an "unknown NMI".  What
 *   is lost is a PMI of the handler's last instructions, after it has enabled
 *   the counters.
 * - LVTPC has another mode than NMI and fixed: no.  Nobody handles PMIs so.
 *
 * Else yes.
 */

static uint32_t *lapic_register(struct kvm_lapic_state *lapic, unsigned number)
{
    return (uint32_t *)(lapic->regs + number * 16);
}

/* Of the 256 bits of IRR, ISR or TMR the word that has @vector's */
static uint32_t *vector_word(struct kvm_lapic_state *lapic, unsigned number,
                             unsigned vector)
{
    return lapic_register(lapic, number + vector / 32);
}

static bool pmi_was_requested(const X86CPU *cpu, uint32_t lvtpc)
{
    return (cpu->env.msr_global_status & PEBS_STATUS_OVF_BUF) &&
           !(lvtpc & APIC_LVT_MASKED) &&
           (cpu_get_apic_base(cpu->apic_state) & MSR_IA32_APICBASE_ENABLE);
}

/* In SMM NMIs are blocked anyway: enter_smm() keeps what was before. */
static bool nmis_are_blocked(const CPUX86State *env)
{
    return env->hflags2 & (env->hflags & HF_SMM_MASK ?
                           HF2_SMM_INSIDE_NMI_MASK : HF2_NMI_MASK);
}

/* Those below return false if the guest has the interrupt already. */

static bool raise_nmi(CPUX86State *env)
{
    if (env->nmi_pending || env->nmi_injected || nmis_are_blocked(env)) {
        return false;
    }
    env->nmi_pending = 1;
    return true;
}

/* As __apic_accept_irq() does it */
static bool raise_vector(struct kvm_lapic_state *lapic, unsigned vector)
{
    uint32_t bit = 1u << vector % 32;
    uint32_t *irr = vector_word(lapic, LAPIC_IRR, vector);

    if ((*irr | *vector_word(lapic, LAPIC_ISR, vector)) & bit) {
        return false;
    }
    *vector_word(lapic, LAPIC_TMR, vector) &= ~bit;
    *irr |= bit;
    return true;
}

static bool raise_pmi(X86CPU *cpu, struct kvm_lapic_state *lapic,
                      uint32_t lvtpc)
{
    switch ((lvtpc & APIC_LVT_DELIV_MOD) >> APIC_LVT_DELIV_MOD_SHIFT) {
    case APIC_DM_NMI:
        return raise_nmi(&cpu->env);
    case APIC_DM_FIXED:
        return raise_vector(lapic, lvtpc & APIC_VECTOR_MASK);
    default:
        return false;
    }
}

int kvm_pebs_replay_pmi(X86CPU *cpu)
{
    struct kvm_lapic_state lapic;
    uint32_t *lvtpc = lapic_register(&lapic, LAPIC_LVTPC);
    int ret;

    if (!x86_cpu_has_pebs(cpu)) {
        return 0;
    }
    ret = kvm_vcpu_ioctl(CPU(cpu), KVM_GET_LAPIC, &lapic);
    if (ret < 0) {
        return ret;
    }
    if (!pmi_was_requested(cpu, *lvtpc) || !raise_pmi(cpu, &lapic, *lvtpc)) {
        return 0;
    }
    trace_kvm_pebs_replay_pmi(CPU(cpu)->cpu_index, *lvtpc);
    /* kvm_apic_local_deliver() */
    *lvtpc |= APIC_LVT_MASKED;
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
