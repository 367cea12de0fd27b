/*
 * A model of /dev/kvm, as far as a virtual PMU needs it
 *
 * Preloaded into an unmodified QEMU, it answers open("/dev/kvm") and the
 * ioctls of what that returns, so that negotiation, MSR traffic and migration
 * of guest PEBS can be tested on a machine whose KVM has no PMU, or that has no
 * KVM.  No guest runs: KVM_RUN sleeps until it is kicked.
 *
 *   KVM_MODEL_HOST=FILE    the host and its kernel: lines of «key value», see
 *                          hosts/; without it the model stays out of the way
 *   KVM_MODEL_LOG=FILE     one line for each ioctl, and for each MSR in one; of the
 *                          model or, without KVM_MODEL_HOST, for what is asked
 *                          of the machine's own KVM: see record()
 *   KVM_MODEL_GUEST=FILE   what the guest does, see guest_command()
 *
 * It is as strict as the kernel about: which MSRs of the PMU exist, which
 * values they take (IA32_PERF_CAPABILITIES above all), that CPUID comes before
 * them, that neither changes after the first KVM_RUN, that KVM_SET_MSRS stops
 * at the first that is refused, and that KVM_CAP_PMU_CAPABILITY comes before
 * the first vCPU.  Each rule names the function of Linux's arch/x86/kvm that it
 * is taken from.  It reads the same in Linux 6.1.192, 6.12.117 and 7.3-rc7, the
 * three that were read, unless the rule says otherwise: «6.12 on» means the
 * second and third of these, and nothing about those between.
 *
 * host_cpuid() of QEMU runs the CPUID instruction, which no library can
 * answer.  The model puts a jump to its own answer there, found by the symbol
 * table, so that QEMU sees one and the same host all over.
 *
 * The host's perf, perf_event_open(2), is in perf-model.c; KVM's own events are
 * made there once, for the counters that the guest's script has enabled.
 *
 * Left out: guest code, memory (the dirty log is always clean), interrupt
 * controllers but for LVTPC, IRR and ISR, SMM, nested virtualization, Hyper-V,
 * Xen, LBRs, MSR filters, AMD's PMU, and of encrypted guests (SEV, TDX) all but
 * that there is one.  Other state is kept as the bytes that were set, unchecked,
 * and other MSRs as plain values.  CPUID features beside those of the PMU are
 * some common subset.
 *
 * It is held against the machine's own KVM with probe.py, and with replay.py
 * for what QEMU asked of that, see test-offer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS      /* open() and open64() are to be two functions */
#include "kvm-model.h"
#include <linux/kvm_para.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/psp-sev.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef KVM_CAP_PMU_CAPABILITY
#define KVM_CAP_PMU_CAPABILITY 212
#define KVM_PMU_CAP_DISABLE 1
#endif

/* Newer than Debian 12's headers: capabilities, and numbers of ioctls */
#ifndef KVM_CAP_VM_TYPES
#define KVM_CAP_USER_MEMORY2        231
#define KVM_CAP_MEMORY_ATTRIBUTES   233
#define KVM_CAP_GUEST_MEMFD         234
#define KVM_CAP_VM_TYPES            235
#define KVM_MEMORY_ATTRIBUTE_PRIVATE    BIT(3)
#endif
#define SET_USER_MEMORY_REGION2     0x49
#define SET_MEMORY_ATTRIBUTES       0xd2
#define CREATE_GUEST_MEMFD          0xd4

/* KVM_X86_DEFAULT_VM, KVM_X86_TDX_VM */
#define VM_DEFAULT          0
#define VM_TDX              5

#define MSR_TSC             0x10
#define MSR_APICBASE        0x1b
#define APICBASE_ENABLE     BIT(11)
#define MSR_MISC_ENABLE     0x1a0
#define MSR_PERFCTR0        0xc1
#define MSR_EVNTSEL0        0x186
#define MSR_FIXED_CTR0      0x309
#define MSR_PERF_CAPS       0x345
#define MSR_FIXED_CTRL      0x38d
#define MSR_GLOBAL_STATUS   0x38e
#define MSR_GLOBAL_CTRL     0x38f
#define MSR_GLOBAL_OVF_CTRL 0x390
#define MSR_PEBS_ENABLE     0x3f1
#define MSR_PEBS_DATA_CFG   0x3f2
#define MSR_PMC0            0x4c1
#define MSR_DS_AREA         0x600

#define CAP_LBR_FMT         0x3full
#define CAP_PEBS_FORMAT     0xf00ull
#define CAP_FW_WRITES       BIT(13)
#define CAP_PEBS_BASELINE   BIT(14)
/* PERF_CAP_PEBS_MASK: 7.3 has bit 17, 6.12 hasn't */
#define CAP_PEBS_MASK       (0xfc0ull | CAP_PEBS_BASELINE | \
                             (host.kernel >= 703 ? BIT(17) : 0))

#define MISC_PMU_RO         (BIT(11) | BIT(12))
#define MISC_EMON           BIT(7)
#define STATUS_OVF_BUF      BIT(62)
#define STATUS_COND_CHGD    BIT(63)
#define EVTSEL_ADAPTIVE     BIT(34)
#define EVTSEL_INT          BIT(20)
#define EVTSEL_ENABLE       BIT(22)
#define FIXED_LEVELS        3ull    /* of a counter's field */
#define FIXED_INT           8ull
#define CR4_LA57            BIT(12)

#define MEDIATED_PMU \
    "/sys/module/kvm_intel/parameters/enable_mediated_pmu"

#define MAX_IO_MSRS         256     /* x86.c */
#define MAX_GP              8       /* KVM_MAX_NR_INTEL_GP_COUNTERS */
#define MAX_FIXED           3       /* KVM_MAX_NR_FIXED_COUNTERS */
#define FIXED_BIT           32      /* KVM_FIXED_PMC_BASE_IDX */
#define MAX_MSRS            512
#define MAX_FD              1024
#define MAX_VCPU            64

/* ---- the host and its kernel ---- */

Host host;

static const struct {
    const char *key;
    uint64_t *value;
} host_keys[] = {
    { "kernel", &host.kernel }, { "amd", &host.amd },
    { "family", &host.family }, { "model", &host.model },
    { "stepping", &host.stepping }, { "pmu_version", &host.pmu_version },
    { "gp", &host.gp }, { "fixed", &host.fixed }, { "vpmu", &host.vpmu },
    { "perf_caps", &host.perf_caps }, { "pebs_msrs", &host.pebs_msrs },
    { "addr_bits", &host.addr_bits }, { "sev", &host.sev },
    { "ds_area_by_cr4", &host.ds_area_by_cr4 },
    { "lvtpc_stays", &host.lvtpc_stays }, { "mediated", &host.mediated },
    { "hypervisor", &host.hypervisor }, { "hybrid", &host.hybrid },
    { "no_ds", &host.no_ds }, { "tdx", &host.tdx },
    { "perf_paranoid", &host.perf_paranoid },
    { "perf_no_rdpmc", &host.perf_no_rdpmc },
    { "perf_watchdog", &host.perf_watchdog }, { "perf_busy", &host.perf_busy },
    { "perf_busy_event", &host.perf_busy_event },
    { "perf_busy_opens", &host.perf_busy_opens },
};

void die(const char *format, ...)
{
    va_list arguments;

    fputs("kvm-model: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(97);
}

static void set_host_key(const char *key, uint64_t value)
{
    for (size_t i = 0; i < ARRAY_SIZE(host_keys); i++) {
        if (!strcmp(host_keys[i].key, key)) {
            *host_keys[i].value = value;
            return;
        }
    }
    die("unknown key «%s»", key);
}

/* What vmx_get_perf_capabilities() can't have left in, no such host is */
static void check_host(const char *path)
{
    uint64_t allowed = CAP_LBR_FMT | CAP_PEBS_MASK | CAP_FW_WRITES;

    if (host.perf_caps & ~allowed) {
        die("%s: no KVM of this kernel offers 0x%llx", path,
            (unsigned long long)(host.perf_caps & ~allowed));
    }
    if (host.mediated && (host.kernel < 703 ||
                          (host.perf_caps & ~CAP_FW_WRITES))) {
        die("%s: a mediated PMU comes with 7.3, without LBRs and PEBS", path);
    }
}

static void read_host(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256], key[64], value[64];

    if (!file) {
        die("%s: %s", path, strerror(errno));
    }
    while (fgets(line, sizeof(line), file)) {
        if (line[0] != '#' && sscanf(line, "%63s %63s", key, value) == 2) {
            set_host_key(key, strtoull(value, NULL, 0));
        }
    }
    fclose(file);
    check_host(path);
}

/* PEBS is offered: vmx_pebs_supported() */
static bool offers_pebs(void)
{
    return host.vpmu && (host.perf_caps & CAP_PEBS_FORMAT);
}

/* ---- the log ---- */

static int log_fd = -1;

void note(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;

    if (log_fd < 0) {
        return;
    }
    va_start(arguments, format);
    length = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    /* One write with O_APPEND: lines of several threads don't mix. */
    if (write(log_fd, line, length) != length) {
        die("the log can't be written");
    }
}

/* ---- CPUID ---- */

static uint32_t cpuid_version(void)
{
    uint32_t family = host.family > 15 ? 15 : host.family;

    return (host.family - family) << 20 | (host.model >> 4) << 16 |
           family << 8 | (host.model & 15) << 4 | host.stepping;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Leaf 0xA */
static void cpuid_pmu(unsigned version, unsigned gp, unsigned fixed,
                      uint32_t out[4])
{
    memset(out, 0, 4 * sizeof(*out));
    if (version) {
        out[0] = version | gp << 8 | 48 << 16 | 7 << 24;
        out[3] = fixed | 48 << 5 | 1u << 15;
    }
}

/* __do_cpuid_func(), case 0xa, with the caps of kvm_init_pmu_capability() */
static void cpuid_vpmu(uint32_t out[4])
{
    cpuid_pmu(host.vpmu && !host.amd ? least(host.pmu_version, 2) : 0,
              least(host.gp, MAX_GP), least(host.fixed, MAX_FIXED), out);
}

#define CPUID_1_EDX_DS      (1u << 21)
#define CPUID_1_ECX_DTES64  (1u << 2)
#define CPUID_1_ECX_PDCM    (1u << 15)
#define CPUID_1_ECX_HYPER   (1u << 31)
#define CPUID_7_ECX_LA57    (1u << 16)
#define CPUID_7_EDX_HYBRID  (1u << 15)

static bool cpuid_leaf(uint32_t leaf, uint32_t index, uint32_t out[4])
{
    static const char intel[] = "GenuntelineI", amd[] = "AuthcAMDenti";

    memset(out, 0, 4 * sizeof(*out));
    switch (leaf) {
    case 0:
        out[0] = 0x16;
        memcpy(&out[1], host.amd ? amd : intel, 12);
        return true;
    case 1:
        out[0] = cpuid_version();
        out[1] = 8 << 8;
        out[2] = 0x76fa3203;
        out[3] = 0x0783fbff;
        return true;
    case 6:
        out[0] = 4;
        return true;
    case 7:
        if (index == 0) {
            out[1] = 0x018c07a9;
            out[2] = host.addr_bits == 57 ? CPUID_7_ECX_LA57 : 0;
        }
        return index == 0;
    case 0xd:
        switch (index) {
        case 0:
            out[0] = 7;
            out[1] = out[2] = 832;
            return true;
        case 1:
            out[0] = 1;
            return true;
        case 2:
            out[0] = 256;
            out[1] = 576;
            return true;
        }
        return false;
    case 0x80000000:
        out[0] = host.sev ? 0x8000001f : 0x80000008;
        return true;
    case 0x80000001:
        out[2] = 0x121;
        out[3] = 0x2c100800;
        return true;
    case 0x80000008:
        out[0] = 46 | host.addr_bits << 8;
        return true;
    case 0x8000001f:
        out[0] = host.sev ? 3 : 0;              /* SME, SEV */
        out[1] = host.sev ? 51 | 1 << 6 : 0;    /* the C bit, bits it costs */
        return host.sev;
    default:
        return false;
    }
}

/* What the instruction would say; takes the place of QEMU's function. */
static void model_host_cpuid(uint32_t leaf, uint32_t index, uint32_t *eax,
                             uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    uint32_t out[4], *to[] = { eax, ebx, ecx, edx };

    if (leaf == 0xa) {
        cpuid_pmu(host.pmu_version, host.gp, host.fixed, out);
    } else {
        cpuid_leaf(leaf, index, out);
    }
    if (leaf == 1) {
        out[2] |= host.hypervisor ? CPUID_1_ECX_HYPER : 0;
        if (!host.amd && !host.no_ds) {
            out[2] |= CPUID_1_ECX_DTES64 | CPUID_1_ECX_PDCM;
            out[3] |= CPUID_1_EDX_DS;
        }
    } else if (leaf == 7 && host.hybrid) {
        out[3] |= CPUID_7_EDX_HYBRID;
    }
    for (int i = 0; i < 4; i++) {
        if (to[i]) {
            *to[i] = out[i];
        }
    }
}

static void add_entry(struct kvm_cpuid2 *cpuid, uint32_t max, uint32_t leaf,
                      uint32_t index, const uint32_t out[4])
{
    if (cpuid->nent < max) {
        cpuid->entries[cpuid->nent] = (struct kvm_cpuid_entry2) {
            .function = leaf, .index = index,
            .flags = leaf == 7 || leaf == 0xd ?
                     KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = out[0], .ebx = out[1], .ecx = out[2], .edx = out[3],
        };
    }
    cpuid->nent++;
}

/* vmx_set_cpu_caps() */
static void add_pmu_features(uint32_t out[4])
{
    if (offers_pebs()) {
        out[3] |= CPUID_1_EDX_DS;
        out[2] |= CPUID_1_ECX_DTES64;
    }
    if (host.vpmu && !host.amd) {
        out[2] |= CPUID_1_ECX_PDCM;
    }
}

static bool in_range(uint32_t index, uint32_t base, unsigned count)
{
    return index >= base && index - base < count;
}

/* kvm_dev_ioctl_get_cpuid() */
static int get_supported_cpuid(struct kvm_cpuid2 *cpuid)
{
    static const struct {
        uint32_t leaf, index;
    } leaves[] = {
        { 0, 0 }, { 1, 0 }, { 6, 0 }, { 7, 0 }, { 0xd, 0 }, { 0xd, 1 },
        { 0xd, 2 }, { 0x80000000, 0 }, { 0x80000001, 0 }, { 0x80000008, 0 },
    };
    uint32_t max = cpuid->nent, out[4];

    cpuid->nent = 0;
    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
        cpuid_leaf(leaves[i].leaf, leaves[i].index, out);
        if (leaves[i].leaf == 1) {
            add_pmu_features(out);
        }
        add_entry(cpuid, max, leaves[i].leaf, leaves[i].index, out);
    }
    cpuid_vpmu(out);
    add_entry(cpuid, max, 0xa, 0, out);
    memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
    out[0] = KVM_CPUID_FEATURES;
    add_entry(cpuid, max, KVM_CPUID_SIGNATURE, 0, out);
    memset(out, 0, sizeof(out));
    out[0] = 0x0100007b;
    add_entry(cpuid, max, KVM_CPUID_FEATURES, 0, out);
    return cpuid->nent > max ? -E2BIG : 0;
}

/* ---- objects behind file descriptors ---- */

typedef struct Msr {
    uint32_t index;
    uint64_t value;
} Msr;

typedef struct Pmu {
    unsigned version, gp, fixed;
    uint64_t gp_mask, fixed_mask;
    uint64_t evtsel_rsvd, fixed_ctrl_rsvd, global_ctrl_rsvd, status_rsvd;
    uint64_t pebs_enable_rsvd, data_cfg_rsvd;
} Pmu;

/* A piece of state that is kept as it was set */
typedef struct Blob {
    unsigned number;
    uint32_t key;
    size_t size;
    void *bytes;
    struct Blob *next;
} Blob;

typedef struct Vcpu Vcpu;

typedef struct Vm {
    bool pmu_on;
    bool sev;
    bool tdx;
    unsigned vcpus;
    Blob *blobs;
    pthread_mutex_t lock;
} Vm;

struct Vcpu {
    Vm *vm;
    unsigned id;
    struct kvm_run *run;
    bool has_run;
    struct kvm_cpuid2 *cpuid;
    uint64_t perf_caps, misc_enable;
    Pmu pmu;
    Msr msrs[MAX_MSRS];
    unsigned nmsrs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    Blob *blobs;
    /* struct kvm_pmu: counters by their index in IA32_PERF_GLOBAL_CTRL */
    uint64_t reprogram_pmi;
    uint64_t running;       /* perf_event is there and isn't paused */
    uint64_t precise;       /* perf_event->attr.precise_ip */
    uint64_t intr;          /* pmc->intr */
    bool pmi_requested;     /* KVM_REQ_PMI */
    /* the guest, see guest_command() */
    uint64_t overflow_at_exit;
    bool write_at_exit, pends_at_exit, early_ack, lingers;
};

typedef enum Kind { NONE, DEV, VM, VCPU, SEV } Kind;

static const char *const kinds[] = { "", "kvm", "vm", "vcpu", "sev" };

static struct {
    Kind kind;
    void *object;
} fds[MAX_FD];

static int new_fd(int fd, Kind kind, void *object)
{
    if (fd < 0 || fd >= MAX_FD) {
        die("too many file descriptors");
    }
    fds[fd].object = object;
    fds[fd].kind = kind;
    return fd;
}

static Blob *find_blob(Blob **list, unsigned number, uint32_t key, size_t size)
{
    for (Blob *blob = *list; blob; blob = blob->next) {
        if (blob->number == number && blob->key == key) {
            return blob;
        }
    }
    Blob *blob = calloc(1, sizeof(*blob));

    *blob = (Blob) { number, key, size, calloc(1, size), *list };
    *list = blob;
    return blob;
}

/* State that is kept as bytes: what gets it, what sets it */
static const struct {
    Kind kind;
    unsigned long get, set;
} kept[] = {
    { VCPU, KVM_GET_SREGS, KVM_SET_SREGS },
    { VCPU, KVM_GET_REGS, KVM_SET_REGS },
    { VCPU, KVM_GET_FPU, KVM_SET_FPU },
    { VCPU, KVM_GET_XSAVE, KVM_SET_XSAVE },
    { VCPU, KVM_GET_XCRS, KVM_SET_XCRS },
    { VCPU, KVM_GET_MP_STATE, KVM_SET_MP_STATE },
    { VCPU, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS },
    { VM, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP },
    { VM, KVM_GET_PIT2, KVM_SET_PIT2 },
    { VM, KVM_GET_CLOCK, KVM_SET_CLOCK },
};

/* The first of these */
static struct kvm_sregs *vcpu_sregs(Vcpu *vcpu)
{
    return find_blob(&vcpu->blobs, 0, 0, sizeof(struct kvm_sregs))->bytes;
}

/* ---- MSRs ---- */

static uint64_t *msr_slot(Vcpu *vcpu, uint32_t index)
{
    for (unsigned i = 0; i < vcpu->nmsrs; i++) {
        if (vcpu->msrs[i].index == index) {
            return &vcpu->msrs[i].value;
        }
    }
    if (vcpu->nmsrs == MAX_MSRS) {
        die("too many MSRs");
    }
    vcpu->msrs[vcpu->nmsrs] = (Msr) { index, 0 };
    return &vcpu->msrs[vcpu->nmsrs++].value;
}

static const struct kvm_cpuid_entry2 *guest_leaf(Vcpu *vcpu, uint32_t leaf)
{
    for (uint32_t i = 0; vcpu->cpuid && i < vcpu->cpuid->nent; i++) {
        if (vcpu->cpuid->entries[i].function == leaf) {
            return &vcpu->cpuid->entries[i];
        }
    }
    return NULL;
}

static bool guest_has_ds(Vcpu *vcpu)
{
    const struct kvm_cpuid_entry2 *leaf = guest_leaf(vcpu, 1);

    return leaf && (leaf->edx & CPUID_1_EDX_DS);
}

static bool guest_has_ecx(Vcpu *vcpu, uint32_t bit)
{
    const struct kvm_cpuid_entry2 *leaf = guest_leaf(vcpu, 1);

    return leaf && (leaf->ecx & bit);
}

/* vcpu_get_perf_capabilities() */
static uint64_t guest_perf_caps(Vcpu *vcpu)
{
    return guest_has_ecx(vcpu, CPUID_1_ECX_PDCM) ? vcpu->perf_caps : 0;
}

/* cpuid_model_is_consistent(); x86_model() of lib/cpu.c */
static bool model_is_consistent(Vcpu *vcpu)
{
    const struct kvm_cpuid_entry2 *leaf = guest_leaf(vcpu, 1);
    unsigned family, model;

    if (!leaf) {
        return false;
    }
    family = leaf->eax >> 8 & 15;
    model = leaf->eax >> 4 & 15;
    if (family >= 6) {
        model += (leaf->eax >> 16 & 15) << 4;
    }
    return model == host.model;
}

/* intel_pmu_refresh(), its last part */
static void refresh_pebs(Vcpu *vcpu, uint64_t counters_rsvd)
{
    Pmu *pmu = &vcpu->pmu;
    uint64_t caps = guest_perf_caps(vcpu);

    if (!(caps & CAP_PEBS_FORMAT)) {
        return;
    }
    if (caps & CAP_PEBS_BASELINE) {
        pmu->pebs_enable_rsvd = counters_rsvd;
        pmu->evtsel_rsvd &= ~EVTSEL_ADAPTIVE;
        pmu->data_cfg_rsvd = ~0xff00000full;
        for (unsigned i = 0; i < pmu->fixed; i++) {
            pmu->fixed_ctrl_rsvd &= ~(BIT(32) << (i * 4));
        }
    } else {
        pmu->pebs_enable_rsvd = ~MASK(pmu->gp);
    }
}

/*
 * intel_pmu_refresh(); what is set in IA32_PERF_GLOBAL_CTRL: 6.12 on, in
 * kvm_pmu_refresh()
 */
static void intel_refresh(Vcpu *vcpu)
{
    const struct kvm_cpuid_entry2 *leaf = guest_leaf(vcpu, 0xa);
    Pmu *pmu = &vcpu->pmu;
    uint64_t counters_rsvd;

    pmu->version = leaf ? leaf->eax & 0xff : 0;
    if (!pmu->version) {
        return;
    }
    pmu->gp = least(leaf->eax >> 8 & 0xff, least(host.gp, MAX_GP));
    pmu->gp_mask = MASK(least(leaf->eax >> 16 & 0xff, 48));
    if (pmu->version > 1) {
        pmu->fixed = least(leaf->edx & 0x1f, least(host.fixed, MAX_FIXED));
        pmu->fixed_mask = MASK(least(leaf->edx >> 5 & 0xff, 48));
    }
    for (unsigned i = 0; i < pmu->fixed; i++) {
        pmu->fixed_ctrl_rsvd &= ~(0xbull << (i * 4));
    }
    counters_rsvd = ~(MASK(pmu->gp) | MASK(pmu->fixed) << 32);
    pmu->global_ctrl_rsvd = counters_rsvd;
    pmu->status_rsvd = counters_rsvd & ~(STATUS_OVF_BUF | STATUS_COND_CHGD);
    refresh_pebs(vcpu, counters_rsvd);
    if (pmu->version > 1 && pmu->gp && host.kernel >= 612) {
        *msr_slot(vcpu, MSR_GLOBAL_CTRL) = MASK(pmu->gp);
    }
}

/* kvm_pmu_reset(): the MSRs of PEBS stay. */
static void reset_pmu(Vcpu *vcpu)
{
    for (unsigned i = 0; i < vcpu->pmu.gp; i++) {
        *msr_slot(vcpu, MSR_PERFCTR0 + i) = 0;
        *msr_slot(vcpu, MSR_EVNTSEL0 + i) = 0;
    }
    for (unsigned i = 0; i < vcpu->pmu.fixed; i++) {
        *msr_slot(vcpu, MSR_FIXED_CTR0 + i) = 0;
    }
    *msr_slot(vcpu, MSR_FIXED_CTRL) = 0;
    *msr_slot(vcpu, MSR_GLOBAL_CTRL) = 0;
    *msr_slot(vcpu, MSR_GLOBAL_STATUS) = 0;
    vcpu->running = 0;
}

/* kvm_pmu_refresh(); 6.1 resets nothing, and allows it after KVM_RUN */
static void refresh(Vcpu *vcpu)
{
    if (vcpu->has_run && host.kernel >= 612) {
        die("KVM_BUG_ON(kvm_vcpu_has_run(vcpu)) in kvm_pmu_refresh()");
    }
    if (host.kernel >= 612) {
        reset_pmu(vcpu);
    }
    vcpu->pmu = (Pmu) {
        .evtsel_rsvd = 0xffffffff00200000ull, .fixed_ctrl_rsvd = ~0ull,
        .global_ctrl_rsvd = ~0ull, .status_rsvd = ~0ull,
        .pebs_enable_rsvd = ~0ull, .data_cfg_rsvd = ~0ull,
    };
    if (vcpu->vm->pmu_on && !host.amd) {
        intel_refresh(vcpu);
    }
}

/* kvm_pmu_is_valid_msr() and intel_is_valid_msr() */
static bool is_pmu_msr(Vcpu *vcpu, uint32_t index)
{
    uint64_t caps = guest_perf_caps(vcpu);
    const Pmu *pmu = &vcpu->pmu;

    switch (index) {
    case MSR_GLOBAL_STATUS:
    case MSR_GLOBAL_CTRL:
    case MSR_GLOBAL_OVF_CTRL:
    case MSR_FIXED_CTRL:
        return pmu->version > 1;
    case MSR_PEBS_ENABLE:
        return caps & CAP_PEBS_FORMAT;
    case MSR_DS_AREA:
        return guest_has_ds(vcpu);
    case MSR_PEBS_DATA_CFG:
        /* Sic: the format isn't shifted before it is compared with 3. */
        return (caps & CAP_PEBS_BASELINE) && (caps & CAP_PEBS_FORMAT) > 3;
    default:
        return in_range(index, MSR_PERFCTR0, pmu->gp) ||
               in_range(index, MSR_EVNTSEL0, pmu->gp) ||
               in_range(index, MSR_FIXED_CTR0, pmu->fixed) ||
               ((caps & CAP_FW_WRITES) && in_range(index, MSR_PMC0, pmu->gp));
    }
}

/*
 * is_noncanonical_msr_address() goes by the host's width, 6.12 on; 6.1's
 * is_noncanonical_address() goes by the vCPU's CR4.LA57.
 */
static bool is_canonical(Vcpu *vcpu, uint64_t address)
{
    unsigned bits = !host.ds_area_by_cr4 ? host.addr_bits :
                    vcpu_sregs(vcpu)->cr4 & CR4_LA57 ? 57 : 48;

    return (uint64_t)((int64_t)(address << (64 - bits)) >> (64 - bits)) ==
           address;
}

/* Counters that are to be reprogrammed if this is written */
static uint64_t reprogrammed(Vcpu *vcpu, uint32_t index, uint64_t value)
{
    uint64_t changed = *msr_slot(vcpu, index) ^ value, counters = 0;

    switch (index) {
    case MSR_GLOBAL_CTRL:           /* reprogram_counters() */
    case MSR_PEBS_ENABLE:
        return changed;
    case MSR_FIXED_CTRL:            /* reprogram_fixed_counters() */
        for (unsigned i = 0; i < vcpu->pmu.fixed; i++) {
            counters |= changed >> 4 * i & 15 ? BIT(FIXED_BIT + i) : 0;
        }
        return counters;
    default:                        /* intel_pmu_set_msr() */
        return in_range(index, MSR_EVNTSEL0, vcpu->pmu.gp) && changed ?
               BIT(index - MSR_EVNTSEL0) : 0;
    }
}

/*
 * kvm_pmu_set_msr() and intel_pmu_set_msr(); true if it is taken.  6.1 takes
 * any IA32_PERF_GLOBAL_STATUS from its host.
 */
static bool set_pmu_msr(Vcpu *vcpu, uint32_t index, uint64_t value,
                        bool by_host)
{
    const Pmu *pmu = &vcpu->pmu;

    switch (index) {
    case MSR_GLOBAL_STATUS:
        if (!by_host || (host.kernel >= 612 && (value & pmu->status_rsvd))) {
            return false;
        }
        break;
    case MSR_GLOBAL_OVF_CTRL:
        if (value & pmu->status_rsvd) {
            return false;
        }
        if (!by_host) {
            *msr_slot(vcpu, MSR_GLOBAL_STATUS) &= ~value;
        }
        return true;
    case MSR_GLOBAL_CTRL:
        if (value & pmu->global_ctrl_rsvd) {
            return false;
        }
        break;
    case MSR_FIXED_CTRL:
        if (value & pmu->fixed_ctrl_rsvd) {
            return false;
        }
        break;
    case MSR_PEBS_ENABLE:
        if (value & pmu->pebs_enable_rsvd) {
            return false;
        }
        break;
    case MSR_PEBS_DATA_CFG:
        if (value & pmu->data_cfg_rsvd) {
            return false;
        }
        break;
    case MSR_DS_AREA:
        if (!is_canonical(vcpu, value)) {
            return false;
        }
        break;
    default:
        if (in_range(index, MSR_EVNTSEL0, pmu->gp)) {
            if (value & pmu->evtsel_rsvd) {
                return false;
            }
        } else if (in_range(index, MSR_PMC0, pmu->gp)) {
            if (value & ~pmu->gp_mask) {
                return false;
            }
            index = index - MSR_PMC0 + MSR_PERFCTR0;
        } else if (in_range(index, MSR_PERFCTR0, pmu->gp)) {
            value = (by_host ? value : (uint64_t)(int32_t)value) &
                    pmu->gp_mask;
        } else {
            value &= pmu->fixed_mask;
        }
    }
    vcpu->reprogram_pmi |= reprogrammed(vcpu, index, value);
    *msr_slot(vcpu, index) = value;
    return true;
}

/*
 * vmx_set_msr(), case MSR_IA32_PERF_CAPABILITIES: up to 6.12 it wants a PMU,
 * and PDCM in 7.3
 */
static bool perf_caps_valid(Vcpu *vcpu, uint64_t value)
{
    bool has_pmu = host.kernel >= 703 ?
                   guest_has_ecx(vcpu, CPUID_1_ECX_PDCM) :
                   vcpu->pmu.version != 0;

    if (host.amd) {
        return value == 0;      /* kvm_set_msr_common(): none is supported */
    }
    if (value && !has_pmu) {
        return false;
    }
    if ((value & CAP_LBR_FMT) &&
        ((value & CAP_LBR_FMT) != (host.perf_caps & CAP_LBR_FMT) ||
         !model_is_consistent(vcpu))) {
        return false;
    }
    if ((value & CAP_PEBS_FORMAT) &&
        ((value & CAP_PEBS_MASK) !=
         (host.perf_caps & CAP_PEBS_MASK) ||
         !guest_has_ds(vcpu) || !guest_has_ecx(vcpu, CPUID_1_ECX_DTES64) ||
         !model_is_consistent(vcpu))) {
        return false;
    }
    /* kvm_set_msr_common() */
    return !(value & ~host.perf_caps);
}

static bool set_perf_caps(Vcpu *vcpu, uint64_t value, bool by_host)
{
    if (!by_host || !perf_caps_valid(vcpu, value)) {
        return false;
    }
    if (vcpu->perf_caps != value) {
        vcpu->perf_caps = value;
        refresh(vcpu);
    }
    return true;
}

/* kvm_set_msr_common(), case MSR_IA32_MISC_ENABLE */
static bool set_misc_enable(Vcpu *vcpu, uint64_t value, bool by_host)
{
    if (!by_host) {
        if ((vcpu->misc_enable ^ value) & MISC_PMU_RO) {
            return false;
        }
        value = (value & ~MISC_EMON) | (vcpu->misc_enable & MISC_EMON);
    }
    vcpu->misc_enable = value;
    return true;
}

/* MSRs beside the PMU's that this model has, as plain values */
static bool is_plain_msr(uint32_t index)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        { 0x10, 0x12 }, { 0x1b, 0x1b }, { 0x34, 0x34 }, { 0x3b, 0x3b },
        { 0x48, 0x48 }, { 0x8b, 0x8b }, { 0xfe, 0xfe }, { 0x10a, 0x10a },
        { 0x174, 0x176 }, { 0x179, 0x17b }, { 0x200, 0x20f },
        { 0x250, 0x250 }, { 0x258, 0x259 }, { 0x268, 0x26f },
        { 0x277, 0x277 }, { 0x2ff, 0x2ff }, { 0x400, 0x47f },
        { 0x6e0, 0x6e0 },
        { 0x4b564d00, 0x4b564d08 }, { 0xc0000080, 0xc0000084 },
        { 0xc0000100, 0xc0000103 }, { 0xc0010015, 0xc0010015 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        if (index >= ranges[i].first && index <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* msrs_to_save_base, emulated_msrs_all: those of the plain ones */
static const uint32_t listed_msrs[] = {
    0x174, 0x175, 0x176, 0xc0000081, 0xc0000083, 0xc0000102, 0xc0000084,
    0xc0000082, MSR_TSC, 0x277, 0xc0000103, 0x48, 0x3b, 0x6e0, 0x10a,
    MSR_PERF_CAPS, MSR_MISC_ENABLE, 0x17a, 0x17b, 0x34, 0x8b, 0xc0010015,
    0x4b564d00, 0x4b564d01, 0x11, 0x12, 0x4b564d02, 0x4b564d03, 0x4b564d04,
};

/*
 * kvm_init_msr_lists(), kvm_probe_msr_to_save(): the CPU is asked whether it
 * has the MSR, not whether a guest may have it.
 */
static unsigned list_msrs(uint32_t *indices, unsigned max)
{
    uint32_t all[128];
    unsigned count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(listed_msrs); i++) {
        all[count++] = listed_msrs[i];
    }
    if (host.vpmu && !host.amd) {
        for (unsigned i = 0; i < host.fixed && i < MAX_FIXED; i++) {
            all[count++] = MSR_FIXED_CTR0 + i;
        }
        all[count++] = MSR_FIXED_CTRL;
        all[count++] = MSR_GLOBAL_STATUS;
        all[count++] = MSR_GLOBAL_CTRL;
        if (host.kernel < 612) {            /* 6.1 */
            all[count++] = MSR_GLOBAL_OVF_CTRL;
        }
        if (host.kernel >= 600 && host.pebs_msrs) {
            all[count++] = MSR_PEBS_ENABLE;
            all[count++] = MSR_DS_AREA;
            all[count++] = MSR_PEBS_DATA_CFG;
        }
        for (unsigned i = 0; i < host.gp && i < MAX_GP; i++) {
            all[count++] = MSR_PERFCTR0 + i;
            all[count++] = MSR_EVNTSEL0 + i;
        }
    }
    memcpy(indices, all, least(count, max) * sizeof(*all));
    return count;
}

/*
 * kvm_is_advertised_msr(), kvm_is_msr_to_save() in 6.1: the host may write 0 to
 * these, and read 0.
 */
static bool is_listed(uint32_t index)
{
    uint32_t all[128];
    unsigned count = list_msrs(all, ARRAY_SIZE(all));

    for (unsigned i = 0; i < count; i++) {
        if (all[i] == index) {
            return true;
        }
    }
    return false;
}

/*
 * The first two counters, which are older than the architectural PMU: without
 * one they take any value, and are 0.  kvm_set_msr_common(), …get_msr_common()
 */
static bool is_p6_msr(uint32_t index)
{
    return in_range(index, MSR_PERFCTR0, 2) || in_range(index, MSR_EVNTSEL0, 2);
}

static bool set_msr(Vcpu *vcpu, uint32_t index, uint64_t value, bool by_host)
{
    switch (index) {
    case MSR_PERF_CAPS:
        return set_perf_caps(vcpu, value, by_host);
    case MSR_MISC_ENABLE:
        return set_misc_enable(vcpu, value, by_host);
    }
    if (is_pmu_msr(vcpu, index)) {
        return set_pmu_msr(vcpu, index, value, by_host);
    }
    if (is_plain_msr(index)) {
        *msr_slot(vcpu, index) = value;
        return true;
    }
    /* The last by kvm_do_msr_access() */
    return is_p6_msr(index) || (by_host && !value && is_listed(index));
}

static bool get_msr(Vcpu *vcpu, uint32_t index, uint64_t *value)
{
    switch (index) {
    case MSR_PERF_CAPS:
        *value = vcpu->perf_caps;
        return true;
    case MSR_MISC_ENABLE:
        *value = vcpu->misc_enable;
        return true;
    case MSR_GLOBAL_OVF_CTRL:
        *value = 0;
        return is_pmu_msr(vcpu, index);
    }
    if (in_range(index, MSR_PMC0, MAX_GP) && is_pmu_msr(vcpu, index)) {
        index = index - MSR_PMC0 + MSR_PERFCTR0;
    }
    if (is_pmu_msr(vcpu, index) || is_plain_msr(index)) {
        *value = *msr_slot(vcpu, index);
        return true;
    }
    *value = 0;
    return is_p6_msr(index) || is_listed(index);    /* kvm_do_msr_access() */
}

/* do_set_msr(), 6.12 on: a feature MSR doesn't change once the vCPU has run. */
static bool do_set_msr(Vcpu *vcpu, uint32_t index, uint64_t value)
{
    if (vcpu->has_run && host.kernel >= 612 && index == MSR_PERF_CAPS &&
        value != vcpu->perf_caps) {
        return false;
    }
    return set_msr(vcpu, index, value, true);
}

/* msr_io(), __msr_io() */
static int set_msrs(Vcpu *vcpu, const struct kvm_msrs *msrs)
{
    uint32_t i;

    if (msrs->nmsrs >= MAX_IO_MSRS) {
        return -E2BIG;
    }
    for (i = 0; i < msrs->nmsrs; i++) {
        bool taken = do_set_msr(vcpu, msrs->entries[i].index,
                                msrs->entries[i].data);

        note("vcpu%u wrmsr 0x%x 0x%llx %s", vcpu->id, msrs->entries[i].index,
             msrs->entries[i].data, taken ? "ok" : "refused");
        if (!taken) {
            break;
        }
    }
    return i;
}

static int get_msrs(Vcpu *vcpu, struct kvm_msrs *msrs)
{
    uint32_t i;

    if (msrs->nmsrs >= MAX_IO_MSRS) {
        return -E2BIG;
    }
    for (i = 0; i < msrs->nmsrs; i++) {
        uint64_t value;
        bool there = get_msr(vcpu, msrs->entries[i].index, &value);

        msrs->entries[i].data = value;
        note("vcpu%u rdmsr 0x%x 0x%llx %s", vcpu->id, msrs->entries[i].index,
             msrs->entries[i].data, there ? "ok" : "refused");
        if (!there) {
            break;
        }
    }
    return i;
}

/* kvm_arch_dev_ioctl(): feature MSRs, by do_get_feature_msr() */
static int get_feature_msrs(struct kvm_msrs *msrs)
{
    uint32_t i;

    for (i = 0; i < msrs->nmsrs; i++) {
        switch (msrs->entries[i].index) {
        case MSR_PERF_CAPS:
            msrs->entries[i].data = host.vpmu ? host.perf_caps : 0;
            break;
        case 0x8b:
        case 0x10a:
            msrs->entries[i].data = 0;
            break;
        default:
            return i;
        }
        note("kvm rdmsr 0x%x 0x%llx", msrs->entries[i].index,
             msrs->entries[i].data);
    }
    return i;
}

/* ---- the guest ---- */

#define LAPIC(vcpu, offset) (*(uint32_t *)((vcpu)->lapic.regs + (offset)))
#define LVTPC               0x340
#define ISR                 0x100
#define IRR                 0x200
#define LVT_MASKED          BIT(16)
#define LVT_MODE(lvt)       ((lvt) >> 8 & 7)
#define MODE_FIXED          0
#define MODE_NMI            4

/*
 * kvm_apic_local_deliver().  All that were read mask LVTPC, which is since «KVM:
 * x86: Mask LVTPC when handling a PMI»: the host's file says where it stays.
 */
static void deliver_pmi(Vcpu *vcpu)
{
    uint32_t lvtpc = LAPIC(vcpu, LVTPC), vector = lvtpc & 0xff;

    if ((lvtpc & LVT_MASKED) ||
        !(*msr_slot(vcpu, MSR_APICBASE) & APICBASE_ENABLE)) {
        return;
    }
    if (LVT_MODE(lvtpc) == MODE_NMI) {
        vcpu->events.nmi.pending = 1;
    } else if (LVT_MODE(lvtpc) == MODE_FIXED) {
        LAPIC(vcpu, IRR + vector / 32 * 16) |= BIT(vector % 32);
    } else {
        die("a PMI by another mode than NMI and fixed is left out");
    }
    if (!host.lvtpc_stays) {
        LAPIC(vcpu, LVTPC) |= LVT_MASKED;
    }
}

/* What the guest's handler does, as Linux's intel_pmu_handle_irq() */
static void handle_pmi(Vcpu *vcpu, const char *how)
{
    uint64_t *status = msr_slot(vcpu, MSR_GLOBAL_STATUS);

    note("guest vcpu%u %s status 0x%llx lvtpc 0x%x", vcpu->id, how,
         (unsigned long long)*status, LAPIC(vcpu, LVTPC));
    *status = 0;
    LAPIC(vcpu, LVTPC) &= ~LVT_MASKED;
}

/*
 * The handler is entered, and comes to an end unless the guest lingers; in that
 * case it does when the guest is entered next, on whatever host.
 */
static bool start_handler(Vcpu *vcpu, const char *how)
{
    if (vcpu->early_ack) {
        LAPIC(vcpu, LVTPC) &= ~LVT_MASKED;
    }
    if (vcpu->lingers) {
        note("guest vcpu%u lingers in its %s lvtpc 0x%x", vcpu->id, how,
             LAPIC(vcpu, LVTPC));
        return true;
    }
    handle_pmi(vcpu, how);
    return false;
}

/* The handler blocks NMIs until it ends. */
static void take_nmi(Vcpu *vcpu)
{
    if (vcpu->events.nmi.masked) {
        handle_pmi(vcpu, "nmi");
        vcpu->events.nmi.masked = 0;
    }
    if (vcpu->events.nmi.pending) {
        vcpu->events.nmi.pending = 0;
        vcpu->events.nmi.masked = start_handler(vcpu, "nmi");
    }
}

static void take_vector(Vcpu *vcpu)
{
    uint32_t vector = LAPIC(vcpu, LVTPC) & 0xff, bit = BIT(vector % 32);
    uint32_t *irr = &LAPIC(vcpu, IRR + vector / 32 * 16);
    uint32_t *isr = &LAPIC(vcpu, ISR + vector / 32 * 16);

    if (*isr & bit) {
        handle_pmi(vcpu, "interrupt");
        *isr &= ~bit;
    }
    if (*irr & bit) {
        *irr &= ~bit;
        *isr |= start_handler(vcpu, "interrupt") ? bit : 0;
    }
}

static void take_interrupts(Vcpu *vcpu)
{
    take_nmi(vcpu);
    if (LVT_MODE(LAPIC(vcpu, LVTPC)) == MODE_FIXED) {
        take_vector(vcpu);
    }
}

/* pmc_event_is_allowed(), without filters */
static uint64_t allowed_counters(Vcpu *vcpu)
{
    uint64_t allowed = 0;

    for (unsigned i = 0; i < vcpu->pmu.gp; i++) {
        if (*msr_slot(vcpu, MSR_EVNTSEL0 + i) & EVTSEL_ENABLE) {
            allowed |= BIT(i);
        }
    }
    for (unsigned i = 0; i < vcpu->pmu.fixed; i++) {
        if (*msr_slot(vcpu, MSR_FIXED_CTRL) >> 4 * i & FIXED_LEVELS) {
            allowed |= BIT(FIXED_BIT + i);
        }
    }
    return allowed & *msr_slot(vcpu, MSR_GLOBAL_CTRL);
}

static bool wants_interrupt(Vcpu *vcpu, unsigned i)
{
    return i < FIXED_BIT ?
           *msr_slot(vcpu, MSR_EVNTSEL0 + i) & EVTSEL_INT :
           *msr_slot(vcpu, MSR_FIXED_CTRL) >> 4 * (i - FIXED_BIT) & FIXED_INT;
}

/* kvm_pmu_handle_event(), reprogram_counter(), pmc_reprogram_counter() */
static void handle_event(Vcpu *vcpu)
{
    uint64_t allowed = allowed_counters(vcpu);
    uint64_t pebs = *msr_slot(vcpu, MSR_PEBS_ENABLE);

    for (unsigned i = 0; i < 64; i++) {
        uint64_t bit = BIT(i);

        if (!(vcpu->reprogram_pmi & bit)) {
            continue;
        }
        vcpu->running = (vcpu->running & ~bit) | (allowed & bit);
        vcpu->precise = (vcpu->precise & ~bit) | (pebs & bit);
        if (wants_interrupt(vcpu, i) || (pebs & bit)) {
            vcpu->intr |= bit;
        } else {
            vcpu->intr &= ~bit;
        }
    }
    vcpu->reprogram_pmi = 0;
}

/*
 * __kvm_perf_overflow() in a PMI; that one passes over counters that are about
 * to be reprogrammed in 6.1, and from 6.12 on its caller kvm_perf_overflow()
 */
static void overflow(Vcpu *vcpu, unsigned i)
{
    uint64_t *status = msr_slot(vcpu, MSR_GLOBAL_STATUS), bit = BIT(i);
    bool skip_pmi = false;

    if (!(vcpu->running & bit) || (vcpu->reprogram_pmi & bit)) {
        note("guest vcpu%u overflow of %u is passed over", vcpu->id, i);
        return;
    }
    vcpu->reprogram_pmi |= bit;
    if (vcpu->precise & bit) {
        skip_pmi = *status & STATUS_OVF_BUF;
        *status |= STATUS_OVF_BUF;
    } else {
        *status |= bit;
    }
    if ((vcpu->intr & bit) && !skip_pmi) {
        vcpu->pmi_requested = true;
        note("guest vcpu%u pmi requested", vcpu->id);
    }
}

/*
 * One line of the guest's script, run when a vCPU is first entered:
 *
 *   VCPU wrmsr INDEX VALUE
 *   VCPU cr4 VALUE
 *   VCPU lvtpc VALUE
 *   VCPU overflow COUNTER  at each exit, if it runs; with PEBS that fills the
 *                          buffer.  A PMI is delivered at the next entry.
 *   VCPU write             at each exit before that, of the counters' MSRs
 *   VCPU pend              at each exit an NMI, or LVTPC's vector, is pending
 *   VCPU linger            handlers of PMIs haven't read the status at the exit
 *   VCPU early-ack         they unmask LVTPC first, and not at their end
 */
static void guest_command(Vcpu *vcpu, const char *line)
{
    char command[16] = "", words[2][32] = { "0", "0" };
    uint64_t one, two;
    unsigned id;

    if (sscanf(line, "%u %15s %31s %31s", &id, command, words[0],
               words[1]) < 2 || id != vcpu->id) {
        return;
    }
    one = strtoull(words[0], NULL, 0);
    two = strtoull(words[1], NULL, 0);
    if (!strcmp(command, "wrmsr")) {
        note("guest vcpu%u wrmsr 0x%llx 0x%llx %s", id,
             (unsigned long long)one, (unsigned long long)two,
             set_msr(vcpu, one, two, false) ? "ok" : "#GP");
    } else if (!strcmp(command, "cr4")) {
        vcpu_sregs(vcpu)->cr4 = one;
    } else if (!strcmp(command, "lvtpc")) {
        LAPIC(vcpu, LVTPC) = one;
    } else if (!strcmp(command, "overflow")) {
        vcpu->overflow_at_exit |= BIT(one);
    } else if (!strcmp(command, "write")) {
        vcpu->write_at_exit = true;
    } else if (!strcmp(command, "pend")) {
        vcpu->pends_at_exit = true;
    } else if (!strcmp(command, "linger")) {
        vcpu->lingers = true;
    } else if (!strcmp(command, "early-ack")) {
        vcpu->early_ack = true;
    } else {
        die("the guest can't «%s»", line);
    }
}

static void run_script(Vcpu *vcpu)
{
    const char *path = getenv("KVM_MODEL_GUEST");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        guest_command(vcpu, line);
    }
    if (file) {
        fclose(file);
    }
}

/* pmc_get_pebs_precise_level(), with vmx_pebs_pdist_cpu[], …pdir_cpu[] */
static unsigned precise_level(unsigned i)
{
    bool pdist = host.model == 143;
    bool pdir = pdist || host.model == 106 || host.model == 108;

    return (i == 0 && pdist) || (i == FIXED_BIT && pdir) ? 3 : 1;
}

/*
 * pmc_reprogram_counter(): for each counter that runs an event of perf.  Later
 * changes are left out.
 */
static void pin_events(Vcpu *vcpu)
{
    static const uint32_t fixed[MAX_FIXED] = { 0x00c0, 0x003c, 0x0300 };

    for (unsigned i = 0; i < 64; i++) {
        if (vcpu->running & BIT(i)) {
            perf_model_pin_for_guest(
                i < FIXED_BIT ? *msr_slot(vcpu, MSR_EVNTSEL0 + i) :
                                fixed[i - FIXED_BIT],
                vcpu->precise & BIT(i) ? precise_level(i) : 0);
        }
    }
}

static void enter_guest(Vcpu *vcpu)
{
    bool first = !vcpu->has_run;

    if (vcpu->pmi_requested) {
        vcpu->pmi_requested = false;
        deliver_pmi(vcpu);
    }
    take_interrupts(vcpu);
    if (first) {
        vcpu->has_run = true;
        note("vcpu%u first KVM_RUN", vcpu->id);
        run_script(vcpu);
    }
    handle_event(vcpu);
    if (first) {
        pin_events(vcpu);
    }
}

/* From elsewhere than the PMU */
static void pend(Vcpu *vcpu)
{
    uint32_t lvtpc = LAPIC(vcpu, LVTPC), vector = lvtpc & 0xff;

    if (LVT_MODE(lvtpc) == MODE_NMI) {
        vcpu->events.nmi.pending = 1;
    } else {
        LAPIC(vcpu, IRR + vector / 32 * 16) |= BIT(vector % 32);
    }
}

static void leave_guest(Vcpu *vcpu)
{
    if (vcpu->write_at_exit) {
        vcpu->reprogram_pmi |= vcpu->running;
    }
    for (unsigned i = 0; i < 64; i++) {
        if (vcpu->overflow_at_exit & BIT(i)) {
            overflow(vcpu, i);
        }
    }
    if (vcpu->pends_at_exit) {
        pend(vcpu);
    }
}

static void be_in_guest(Vcpu *vcpu)
{
    const struct timespec tick = { .tv_nsec = 1000000 };
    volatile __u8 *immediate_exit = &vcpu->run->immediate_exit;

    enter_guest(vcpu);
    while (!*immediate_exit && nanosleep(&tick, NULL) == 0) {
    }
    leave_guest(vcpu);
    vcpu->run->exit_reason = KVM_EXIT_INTR;
}

/* kvm_arch_vcpu_ioctl_run(), with post_kvm_run_save() */
static int run(Vcpu *vcpu)
{
    if (!vcpu->run->immediate_exit) {
        be_in_guest(vcpu);
    }
    vcpu->run->apic_base = *msr_slot(vcpu, MSR_APICBASE);
    return -EINTR;
}

/* ---- ioctls ---- */

/* kvm_set_cpuid(): after KVM_RUN only what stands there already */
static int set_cpuid(Vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
    size_t size = sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]);

    note("vcpu%u KVM_SET_CPUID2", vcpu->id);
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];

        if (leaf->function == 1 || leaf->function == 0xa) {
            note("vcpu%u cpuid 0x%x 0x%x 0x%x 0x%x 0x%x", vcpu->id,
                 leaf->function, leaf->eax, leaf->ebx, leaf->ecx, leaf->edx);
        }
    }
    if (vcpu->has_run) {
        return memcmp(vcpu->cpuid, cpuid, size) ? -EINVAL : 0;
    }
    free(vcpu->cpuid);
    vcpu->cpuid = memcpy(malloc(size), cpuid, size);
    refresh(vcpu);                  /* kvm_vcpu_after_set_cpuid() */
    return 0;
}

/* kvm_caps.supported_vm_types */
static unsigned vm_types(void)
{
    return BIT(VM_DEFAULT) | (host.tdx ? BIT(VM_TDX) : 0);
}

static int check_extension(unsigned long extension)
{
    switch (extension) {
    case KVM_CAP_VM_TYPES:
        return vm_types();
    case KVM_CAP_USER_MEMORY2:
    case KVM_CAP_GUEST_MEMFD:
        return host.tdx;
    case KVM_CAP_MEMORY_ATTRIBUTES:
        return host.tdx ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
    case KVM_CAP_EXIT_HYPERCALL:    /* KVM_EXIT_HYPERCALL_VALID_MASK */
        return BIT(KVM_HC_MAP_GPA_RANGE);
    case KVM_CAP_PMU_CAPABILITY:    /* kvm_vm_ioctl_check_extension() */
        return host.kernel >= 518 && host.vpmu ? KVM_PMU_CAP_DISABLE : 0;
    case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
        return host.kernel >= 600;
    case KVM_CAP_IRQ_ROUTING:
        return 4096;
    case KVM_CAP_MCE:
        return 32;
    case KVM_CAP_NR_MEMSLOTS:
        return 32764;
    case KVM_CAP_NR_VCPUS:
    case KVM_CAP_MAX_VCPUS:
    case KVM_CAP_MAX_VCPU_ID:
        return MAX_VCPU;
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
    case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
    case KVM_CAP_INTERNAL_ERROR_DATA:
    case KVM_CAP_IOEVENTFD:
    case KVM_CAP_IOEVENTFD_ANY_LENGTH:
    case KVM_CAP_SET_TSS_ADDR:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_X86_ROBUST_SINGLESTEP:
    case KVM_CAP_ADJUST_CLOCK:
    case KVM_CAP_SET_IDENTITY_MAP_ADDR:
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_IRQFD:
    case KVM_CAP_IRQFD_RESAMPLE:
    case KVM_CAP_IRQ_INJECT_STATUS:
    case KVM_CAP_PIT2:
    case KVM_CAP_PIT_STATE2:
    case KVM_CAP_REINJECT_CONTROL:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_GET_TSC_KHZ:
    case KVM_CAP_TSC_DEADLINE_TIMER:
    case KVM_CAP_SYNC_MMU:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_CHECK_EXTENSION_VM:
    case KVM_CAP_SPLIT_IRQCHIP:
    case KVM_CAP_X2APIC_API:
    case KVM_CAP_SET_BOOT_CPU_ID:
    case KVM_CAP_VAPIC:
    case KVM_CAP_BINARY_STATS_FD:
    case KVM_CAP_GET_MSR_FEATURES:
        return 1;
    default:
        return 0;
    }
}

static int dev_ioctl(unsigned long request, void *argument)
{
    struct kvm_msr_list *list = argument;
    unsigned room;

    switch (request) {
    case KVM_GET_API_VERSION:
        return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
        return check_extension((unsigned long)argument);
    case KVM_GET_VCPU_MMAP_SIZE:
        return 3 * 4096;
    case KVM_GET_SUPPORTED_CPUID:
        return get_supported_cpuid(argument);
    case KVM_GET_MSR_INDEX_LIST:
        room = list->nmsrs;
        list->nmsrs = list_msrs(list->indices, room);
        return list->nmsrs > room ? -E2BIG : 0;
    case KVM_GET_MSR_FEATURE_INDEX_LIST:
        room = list->nmsrs;
        list->nmsrs = 3;
        if (room < 3) {
            return -E2BIG;
        }
        memcpy(list->indices, (uint32_t[]) { 0x8b, 0x10a, MSR_PERF_CAPS }, 12);
        return 0;
    case KVM_GET_MSRS:
        return get_feature_msrs(argument);
    case KVM_X86_GET_MCE_CAP_SUPPORTED:
        *(uint64_t *)argument = BIT(8) | BIT(24);   /* MCG_CTL_P, MCG_SER_P */
        return 0;
    case KVM_CREATE_VM: {
        Vm *vm;

        /* kvm_is_vm_type_supported() */
        if (!(vm_types() >> (unsigned long)argument & 1)) {
            return -EINVAL;
        }
        vm = calloc(1, sizeof(*vm));
        vm->tdx = (unsigned long)argument == VM_TDX;
        vm->pmu_on = host.vpmu;     /* kvm_arch_init_vm() */
        pthread_mutex_init(&vm->lock, NULL);
        return new_fd(eventfd(0, EFD_CLOEXEC), VM, vm);
    }
    default:
        return -ENOTTY;
    }
}

/* kvm_stats_read(): one cumulative number, which is 1 */
static int stats_fd(const char *name)
{
    struct {
        struct kvm_stats_header header;
        char id[48];
        struct kvm_stats_desc desc;
        char name[48];
        uint64_t value;
    } __attribute__((packed)) file = {
        .header = {
            .name_size = sizeof(file.name), .num_desc = 1,
            .id_offset = offsetof(typeof(file), id),
            .desc_offset = offsetof(typeof(file), desc),
            .data_offset = offsetof(typeof(file), value),
        },
        .desc = { .flags = KVM_STATS_TYPE_CUMULATIVE, .size = 1 },
        .value = 1,
    };
    int fd = memfd_create("kvm-stats", MFD_CLOEXEC);

    strncpy(file.name, name, sizeof(file.name) - 1);
    if (pwrite(fd, &file, sizeof(file), 0) != sizeof(file)) {
        die("no memory for statistics");
    }
    return fd;
}

static int create_vcpu(Vm *vm, unsigned long id)
{
    int fd = memfd_create("kvm-vcpu", MFD_CLOEXEC);
    Vcpu *vcpu = calloc(1, sizeof(*vcpu));

    if (ftruncate(fd, 3 * 4096) < 0) {
        die("no memory for a vCPU");
    }
    vcpu->vm = vm;
    vcpu->id = id;
    vcpu->run = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    vcpu->misc_enable = MISC_PMU_RO;                /* kvm_vcpu_reset() */
    /* kvm_arch_vcpu_create(), 6.12 on */
    vcpu->perf_caps = host.vpmu && host.kernel >= 612 ? host.perf_caps : 0;
    LAPIC(vcpu, LVTPC) = LVT_MASKED;
    refresh(vcpu);
    vm->vcpus++;
    note("vm KVM_CREATE_VCPU %lu", id);
    return new_fd(fd, VCPU, vcpu);
}

/* kvm_vm_ioctl_enable_cap(), case KVM_CAP_PMU_CAPABILITY */
static int enable_vm_cap(Vm *vm, const struct kvm_enable_cap *cap)
{
    note("vm KVM_ENABLE_CAP %u 0x%llx", cap->cap, cap->args[0]);
    if (cap->cap == KVM_CAP_PMU_CAPABILITY) {
        if (!check_extension(cap->cap) || vm->vcpus ||
            (cap->args[0] & ~(uint64_t)KVM_PMU_CAP_DISABLE)) {
            return -EINVAL;
        }
        vm->pmu_on = !(cap->args[0] & KVM_PMU_CAP_DISABLE);
    }
    return 0;
}

/* struct kvm_tdx_cmd, struct kvm_tdx_capabilities: Linux 6.16 */
struct tdx_command {
    uint32_t id, flags;
    uint64_t data, error;
};

struct tdx_capabilities {
    uint64_t words[256];
    struct kvm_cpuid2 cpuid;
};

/*
 * tdx_vm_ioctl(): KVM_TDX_CAPABILITIES alone, with nothing that a guest could
 * configure.  QEMU comes as far as the realization of its first vCPU.
 */
static int tdx_op(const struct tdx_command *command)
{
    struct tdx_capabilities *capabilities = (void *)(uintptr_t)command->data;

    if (command->id != 0) {         /* KVM_TDX_CAPABILITIES */
        return -EINVAL;
    }
    memset(capabilities, 0, sizeof(*capabilities));
    return 0;
}

/* Memory, of which there is none here: kvm_gmem_create() and its friends */
static int private_memory(unsigned number)
{
    switch (number) {
    case SET_USER_MEMORY_REGION2:
    case SET_MEMORY_ATTRIBUTES:
        return 0;
    case CREATE_GUEST_MEMFD:
        return memfd_create("kvm-gmem", MFD_CLOEXEC);
    default:
        return -ENOTTY;
    }
}

/*
 * svm_mem_enc_ioctl(), as far as the creation of a guest needs it: after this
 * come its vCPUs, and nothing here could measure its memory.
 */
static int encrypt_op(Vm *vm, struct kvm_sev_cmd *command)
{
    if (!command) {                 /* no command: is there encryption? */
        note("vm KVM_MEMORY_ENCRYPT_OP, without one");
        return vm->tdx ? -EFAULT : host.sev ? 0 : -ENOTTY;
    }
    note("vm KVM_MEMORY_ENCRYPT_OP %u", command->id);
    if (vm->tdx) {
        return tdx_op((const void *)command);
    }
    if (!host.sev) {
        return -ENOTTY;
    }
    switch (command->id) {
    case KVM_SEV_INIT:              /* __sev_guest_init() */
        if (vm->vcpus || vm->sev) {
            return -EINVAL;
        }
        vm->sev = true;
        return 0;
    case KVM_SEV_LAUNCH_START:      /* sev_launch_start() */
        return vm->sev ? 0 : -ENOTTY;
    default:
        return -ENOTTY;
    }
}

/* sev_ioctl() of drivers/crypto/ccp/sev-dev.c */
static int sev_ioctl(unsigned long request, struct sev_issue_cmd *command)
{
    if (request != SEV_ISSUE_CMD || command->cmd != SEV_PLATFORM_STATUS) {
        return -ENOTTY;
    }
    memset((void *)(uintptr_t)command->data, 0,
           sizeof(struct sev_user_data_status));
    command->error = 0;
    return 0;
}

static int vm_ioctl(Vm *vm, unsigned long request, void *argument)
{
    switch (request) {
    case KVM_CHECK_EXTENSION:
        return check_extension((unsigned long)argument);
    case KVM_CREATE_VCPU:
        return create_vcpu(vm, (unsigned long)argument);
    case KVM_GET_STATS_FD:
        return stats_fd("remote_tlb_flush");
    case KVM_ENABLE_CAP:
        return enable_vm_cap(vm, argument);
    case KVM_SET_TSS_ADDR:
    case KVM_SET_IDENTITY_MAP_ADDR:
    case KVM_CREATE_IRQCHIP:
    case KVM_CREATE_PIT2:
    case KVM_SET_USER_MEMORY_REGION:
    case KVM_SET_GSI_ROUTING:
    case KVM_IRQFD:
    case KVM_IOEVENTFD:
    case KVM_SET_BOOT_CPU_ID:
    case KVM_REINJECT_CONTROL:
    case KVM_SIGNAL_MSI:
    case KVM_SET_NR_MMU_PAGES:
        return 0;
    case KVM_MEMORY_ENCRYPT_OP:
        return encrypt_op(vm, argument);
    case KVM_MEMORY_ENCRYPT_REG_REGION:     /* sev_mem_enc_register_region() */
        return vm->sev ? 0 : -ENOTTY;
    case KVM_IRQ_LINE_STATUS:
        ((struct kvm_irq_level *)argument)->status = 1;
        return 0;
    case KVM_GET_DIRTY_LOG:     /* QEMU's buffer is zeroed */
        return 0;
    default:
        return vm->tdx ? private_memory(_IOC_NR(request)) : -ENOTTY;
    }
}

static int vcpu_ioctl(Vcpu *vcpu, unsigned long request, void *argument)
{
    switch (request) {
    case KVM_RUN:
        return run(vcpu);
    case KVM_SET_CPUID2:
        return set_cpuid(vcpu, argument);
    case KVM_SET_MSRS:
        return set_msrs(vcpu, argument);
    case KVM_GET_MSRS:
        return get_msrs(vcpu, argument);
    case KVM_GET_LAPIC:
        memcpy(argument, &vcpu->lapic, sizeof(vcpu->lapic));
        return 0;
    case KVM_SET_LAPIC:
        memcpy(&vcpu->lapic, argument, sizeof(vcpu->lapic));
        note("vcpu%u KVM_SET_LAPIC lvtpc 0x%x", vcpu->id, LAPIC(vcpu, LVTPC));
        return 0;
    case KVM_GET_VCPU_EVENTS:
        memcpy(argument, &vcpu->events, sizeof(vcpu->events));
        return 0;
    case KVM_SET_VCPU_EVENTS: {
        const struct kvm_vcpu_events *events = argument;
        uint8_t pending = vcpu->events.nmi.pending;

        /* kvm_vcpu_ioctl_x86_set_vcpu_events() */
        vcpu->events = *events;
        vcpu->events.flags = 0;
        if (!(events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)) {
            vcpu->events.nmi.pending = pending;
        }
        note("vcpu%u KVM_SET_VCPU_EVENTS nmi %u masked %u", vcpu->id,
             vcpu->events.nmi.pending, vcpu->events.nmi.masked);
        return 0;
    }
    case KVM_GET_TSC_KHZ:
        return 2000000;
    case KVM_SET_TSC_KHZ:
    case KVM_X86_SETUP_MCE:
    case KVM_TPR_ACCESS_REPORTING:
    case KVM_SET_VAPIC_ADDR:
    case KVM_KVMCLOCK_CTRL:
    case KVM_NMI:
    case KVM_SET_SIGNAL_MASK:
    case KVM_SET_GUEST_DEBUG:
        return 0;
    case KVM_GET_STATS_FD:
        return stats_fd("exits");
    default:
        return -ENOTTY;
    }
}

static bool keep(Kind kind, Blob **blobs, unsigned long request, void *argument)
{
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        uint32_t key;
        Blob *blob;

        if (kept[i].kind != kind ||
            (request != kept[i].get && request != kept[i].set)) {
            continue;
        }
        /* The first word of struct kvm_irqchip says which one */
        key = kept[i].get == KVM_GET_IRQCHIP ? *(uint32_t *)argument : 0;
        blob = find_blob(blobs, i, key, _IOC_SIZE(kept[i].get));
        if (request == kept[i].set) {
            memcpy(blob->bytes, argument, blob->size);
        } else {
            memcpy(argument, blob->bytes, blob->size);
            if (key) {
                *(uint32_t *)argument = key;
            }
        }
        return true;
    }
    return false;
}

static int model_ioctl(int fd, unsigned long request, void *argument)
{
    void *object = fds[fd].object;
    int result;

    if (fds[fd].kind == DEV) {
        result = dev_ioctl(request, argument);
    } else if (fds[fd].kind == SEV) {
        result = sev_ioctl(request, argument);
    } else if (fds[fd].kind == VM) {
        Vm *vm = object;

        pthread_mutex_lock(&vm->lock);
        result = keep(VM, &vm->blobs, request, argument) ?
                 0 : vm_ioctl(vm, request, argument);
        pthread_mutex_unlock(&vm->lock);
    } else {
        Vcpu *vcpu = object;

        result = keep(VCPU, &vcpu->blobs, request, argument) ?
                 0 : vcpu_ioctl(vcpu, request, argument);
        if (request == KVM_SET_SREGS) {     /* __set_sregs_common() */
            *msr_slot(vcpu, MSR_APICBASE) = vcpu_sregs(vcpu)->apic_base;
        }
    }
    if (result == -ENOTTY) {
        note("%s unknown ioctl 0x%lx", kinds[fds[fd].kind], request);
    }
    return result;
}

/* ---- the machine's own KVM, for replay.py ---- */

/* Size of what the argument points to, 0 for what is not recorded */
static size_t recorded_size(unsigned long request, const void *argument)
{
    uint32_t count;

    switch (request) {
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_SET_CPUID2:
        memcpy(&count, argument, sizeof(count));
        return sizeof(struct kvm_cpuid2) +
               count * sizeof(struct kvm_cpuid_entry2);
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        memcpy(&count, argument, sizeof(count));
        return sizeof(struct kvm_msrs) + count * sizeof(struct kvm_msr_entry);
    case KVM_GET_MSR_INDEX_LIST:
        memcpy(&count, argument, sizeof(count));
        return sizeof(struct kvm_msr_list) + count * sizeof(uint32_t);
    case KVM_ENABLE_CAP:
        memcpy(&count, argument, sizeof(count));
        return count == KVM_CAP_PMU_CAPABILITY ?
               sizeof(struct kvm_enable_cap) : 0;
    default:
        return 0;
    }
}

static void print_hex(FILE *line, const uint8_t *bytes, size_t size)
{
    fputc(' ', line);
    for (size_t i = 0; i < size; i++) {
        fprintf(line, "%02x", bytes[i]);
    }
}

/* One line: fd, request, result or -errno, and the bytes before and after */
static int record(int fd, unsigned long request, void *argument)
{
    size_t size = recorded_size(request, argument), length;
    uint8_t *before = memcpy(malloc(size + 1), argument, size);
    int result = syscall(SYS_ioctl, fd, request, argument), error = errno;
    char *text;
    FILE *line = open_memstream(&text, &length);

    fprintf(line, "%d 0x%lx %d", fd, request, result < 0 ? -error : result);
    print_hex(line, before, size);
    print_hex(line, argument, size);
    fputc('\n', line);
    fclose(line);
    if (write(log_fd, text, length) != (ssize_t)length) {
        die("the log can't be written");
    }
    free(text);
    free(before);
    errno = error;
    return result;
}

static bool is_recorded(unsigned long request, void *argument)
{
    return !host.kernel && log_fd >= 0 &&
           (request == KVM_CREATE_VM || request == KVM_CREATE_VCPU ||
            recorded_size(request, argument));
}

/* ---- what is preloaded ---- */

static long real_syscall(long number, long a, long b, long c, long d, long e,
                         long f)
{
    static long (*next)(long number, ...);

    if (!next) {
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    }
    return next(number, a, b, c, d, e, f);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;
    int result;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (is_recorded(request, argument)) {
        return record(fd, request, argument);
    }
    if (fd < 0 || fd >= MAX_FD || fds[fd].kind == NONE) {
        return syscall(SYS_ioctl, fd, request, argument);
    }
    result = model_ioctl(fd, request, argument);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

/* module_param() of enable_mediated_pmu, which 6.12 hasn't */
static int open_parameter(void)
{
    int fd;

    if (host.kernel < 703) {
        errno = ENOENT;
        return -1;
    }
    fd = memfd_create("parameter", MFD_CLOEXEC);
    if (write(fd, host.mediated ? "Y\n" : "N\n", 2) != 2 ||
        lseek(fd, 0, SEEK_SET) < 0) {
        die("no memory for a file");
    }
    return fd;
}

static int open_path(const char *path, int flags, mode_t mode)
{
    if (host.kernel && !strcmp(path, "/dev/kvm")) {
        return new_fd(eventfd(0, EFD_CLOEXEC), DEV, NULL);
    }
    if (host.kernel && !strcmp(path, MEDIATED_PMU)) {
        return open_parameter();
    }
    if (host.sev && !strcmp(path, "/dev/sev")) {
        return new_fd(eventfd(0, EFD_CLOEXEC), SEV, NULL);
    }
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...)          \
    {                                                   \
        va_list arguments;                              \
        mode_t mode;                                    \
                                                        \
        va_start(arguments, flags);                     \
        mode = va_arg(arguments, mode_t);               \
        va_end(arguments);                              \
        return open_path(path, flags, mode);            \
    }

OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (fd >= 0 && fd < MAX_FD) {
        fds[fd].kind = NONE;
    }
    perf_model_close(fd);
    return real_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* glibc has no function for perf_event_open(2) */
long syscall(long number, ...)
{
    va_list arguments;
    long a[6], result;

    va_start(arguments, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    if (!host.kernel || number != SYS_perf_event_open) {
        return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    result = perf_model_open((void *)a[0], a[1], a[2], a[3], a[4]);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

/* ---- start ---- */

/* Address of a function in QEMU's own symbol table, 0 if it has none */
static uintptr_t find_symbol(const char *name)
{
    int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/exe", O_RDONLY);
    struct stat stat;
    const uint8_t *file;
    const Elf64_Ehdr *header;
    const Elf64_Shdr *sections;
    uintptr_t found = 0;

    if (fd < 0 || fstat(fd, &stat) < 0) {
        return 0;
    }
    file = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    syscall(SYS_close, fd);
    header = (const Elf64_Ehdr *)file;
    sections = (const Elf64_Shdr *)(file + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        const Elf64_Sym *symbols;
        const char *strings;

        if (sections[i].sh_type != SHT_SYMTAB) {
            continue;
        }
        symbols = (const Elf64_Sym *)(file + sections[i].sh_offset);
        strings = (const char *)file +
                  sections[sections[i].sh_link].sh_offset;
        for (size_t j = 0; j < sections[i].sh_size / sizeof(*symbols); j++) {
            if (!strcmp(strings + symbols[j].st_name, name)) {
                /* The program may be anywhere; where its entry is, is known. */
                found = symbols[j].st_value +
                        (getauxval(AT_ENTRY) - header->e_entry);
            }
        }
    }
    munmap((void *)file, stat.st_size);
    return found;
}

/* MOV RAX, target; JMP RAX */
static void jump_to(uintptr_t from, void *target)
{
    uint8_t code[12] = { 0x48, 0xb8, [10] = 0xff, 0xe0 };
    uintptr_t page = from & ~4095ul;

    memcpy(&code[2], &target, sizeof(target));
    if (mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) {
        die("host_cpuid() can't be replaced: %s", strerror(errno));
    }
    memcpy((void *)from, code, sizeof(code));
    mprotect((void *)page, 8192, PROT_READ | PROT_EXEC);
}

__attribute__((constructor))
static void start(void)
{
    const char *path = getenv("KVM_MODEL_HOST"), *log = getenv("KVM_MODEL_LOG");
    uintptr_t host_cpuid = find_symbol("host_cpuid");

    if (path) {
        read_host(path);
    }
    if (log) {
        log_fd = syscall(SYS_openat, AT_FDCWD, log,
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_fd < 0) {
            die("%s: %s", log, strerror(errno));
        }
    }
    /* Other programs take it from KVM. */
    if (path && host_cpuid) {
        jump_to(host_cpuid, model_host_cpuid);
    }
}
