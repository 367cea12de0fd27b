/*
 * The emulated architectural PMU: MSRs, counting, overflow
 *
 * Intel's Architectural Performance Monitoring, version 2 or 5: SDM volume 3B,
 * chapter "Performance Monitoring".  One cycle per instruction.
 *
 * Counting follows from the MSRs and from which physical counters there are:
 * that is worked out when they change, and kept in X86PMUConfig.
 *
 * Counters live in their MSRs as of the last settlement.  From there on the
 * budgets in pmu-budget.h tell what has been counted.  To settle is to add
 * that to the counters; to grant is to allow what ends one event before the
 * nearest overflow; to fill is to put as much of that into the words that are
 * counted down as they hold.  The event that overflows always runs in a final
 * block, after which the main loop calls x86_pmu_retire_event().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "cpu.h"
#include "exec/helper-proto.h"
#include "accel/tcg/cpu-loop.h"
#include "tcg/insn-start-words.h"
#include "hw/i386/apic.h"
#include "system/tcg.h"
#include "tcg/helper-tcg.h"
#include "tcg/pmu.h"
#include "tcg/pmu-events.h"
#include "pebs.h"
#include "pebs-record.h"

/* Granted of what no counter counts */
#define PMU_UNLIMITED           (INT64_MAX / 4)

/*
 * Counters at both privilege levels share their distance between two budgets
 * where those differ: all but 1/16 goes to where the vCPU is now.
 */
#define PMU_SHARE_SHIFT         4

/* IA32_PERFEVTSELx */
#define EVTSEL_EVENT            0x000000ffull
#define EVTSEL_UMASK            0x0000ff00ull
#define EVTSEL_USR              (1ull << 16)
#define EVTSEL_OS               (1ull << 17)
#define EVTSEL_EDGE             (1ull << 18)
#define EVTSEL_PC               (1ull << 19)
#define EVTSEL_INT              (1ull << 20)
#define EVTSEL_ENABLE           (1ull << 22)
#define EVTSEL_INV              (1ull << 23)
#define EVTSEL_CMASK_SHIFT      24
#define EVTSEL_CMASK_LENGTH     8
#define EVTSEL_VALID            (0xffffffffull & ~(1ull << 21))

/* IA32_FIXED_CTR_CTRL, per counter */
#define FIXED_OS                0x1
#define FIXED_USR               0x2
#define FIXED_PMI               0x8
#define FIXED_VALID             0xbull

/* IA32_PERF_GLOBAL_STATUS */

#define STATUS_COND_CHGD        (1ull << 63)
/* Version 4: LBR_Frz, CTR_Frz, ASCI, OVF_Uncore.  CTR_Frz stops counting. */
#define STATUS_VERSION4         (0xfull << 58)
#define STATUS_CTR_FRZ          (1ull << 59)

/* IA32_DEBUGCTL */

#define DEBUGCTL_LBR            (1ull << 0)
#define DEBUGCTL_BTF            (1ull << 1)
#define DEBUGCTL_FREEZE_LBRS    (1ull << 11)
#define DEBUGCTL_FREEZE_PERFMON (1ull << 12)
#define DEBUGCTL_FREEZE_IN_SMM  (1ull << 14)
/* There are no branch records here, and no single-stepping by branches. */
#define DEBUGCTL_DROPPED        (DEBUGCTL_LBR | DEBUGCTL_BTF | \
                                 DEBUGCTL_FREEZE_LBRS)
#define DEBUGCTL_KEPT           (DEBUGCTL_FREEZE_PERFMON | \
                                 DEBUGCTL_FREEZE_IN_SMM)

#define LD_LAT_VALID            0xffffull

/* What has been counted down since the words were filled */
typedef struct PMUTally {
    int64_t gone[PMU_SETS][PMU_WORDS];
} PMUTally;

#define FOREACH_COUNTER(counters, bit)                                    \
    for (uint64_t todo = (counters);                                      \
         todo && ((bit) = ctz64(todo), true); todo &= todo - 1)

static uint64_t counter_mask(void)
{
    return MAKE_64BIT_MASK(0, PMU_COUNTER_BITS);
}

static unsigned gp_counters(CPUX86State *env)
{
    return x86_cpu_pmu_gp_counters(env_archcpu(env));
}

/* What PERF_CAPABILITIES offers, for the MSRs that depend on it */
static uint64_t capabilities(CPUX86State *env)
{
    return env->features[FEAT_PERF_CAPABILITIES];
}

static bool has_version4(CPUX86State *env)
{
    return x86_cpu_tcg_pmu_version(env_archcpu(env)) >= 4;
}

static bool has_pebs(CPUX86State *env)
{
    return capabilities(env) & PERF_CAP_PEBS_FORMAT;
}

static bool has_baseline(CPUX86State *env)
{
    return capabilities(env) & PERF_CAP_PEBS_BASELINE;
}

/* The counters that exist, as bits of IA32_PERF_GLOBAL_CTRL. */
static uint64_t counters_mask(CPUX86State *env)
{
    return MAKE_64BIT_MASK(0, gp_counters(env)) |
           (MAKE_64BIT_MASK(0, MAX_FIXED_COUNTERS) << PEBS_FIXED_BASE);
}

/*
 * The counters that sample.  Without baseline the upper half of
 * IA32_PEBS_ENABLE isn't about fixed counters: it enables load latency, which
 * changes nothing here.
 */
static uint64_t pebs_counters(CPUX86State *env)
{
    return env->msr_pebs_enable &
           (has_baseline(env) ? counters_mask(env)
                              : MAKE_64BIT_MASK(0, gp_counters(env)));
}

uint64_t *x86_pmu_counter(CPUX86State *env, unsigned bit)
{
    return bit < PEBS_FIXED_BASE ? &env->msr_gp_counters[bit]
                                 : &env->msr_fixed_counters[bit -
                                                            PEBS_FIXED_BASE];
}

static unsigned current_priv(CPUX86State *env)
{
    return env->hflags & HF_CPL_MASK ? PMU_PRIV_USR : PMU_PRIV_OS;
}

/* TB flags of the current privilege level */
static uint32_t current_flags(CPUX86State *env)
{
    return env->pmu.tb_flags[env->hflags & HF_CPL_MASK];
}

/* What @code counts on the CPU model that the guest sees; NULL: nothing */
static const PMUEventCode *find_code(CPUX86State *env, uint16_t code)
{
    return pmu_find_event(x86_cpu_family(env->cpuid_version),
                          x86_cpu_model(env->cpuid_version), code);
}

static PMUEvent find_event(CPUX86State *env, uint16_t code)
{
    const PMUEventCode *found = find_code(env, code);
    PMUEvent ev = { .kind = PMU_NO_KIND, .less = PMU_NO_KIND,
                    .more = PMU_NO_KIND };

    /* SDM, MSR_PEBS_LD_LAT_THRESHOLD: what takes longer than that counts. */
    if (!found || (found->part == PMU_ABOVE_THRESHOLD &&
                   env->msr_pebs_ld_lat >= PMU_LOAD_LATENCY)) {
        return ev;
    }
    ev.kind = found->kind;
    if (found->part == PMU_NOT_TAKEN) {
        ev.less = PMU_COND_TAKEN;
    }
    return ev;
}

/*
 * CMASK makes a counter count the cycles with at least so many events, INV
 * those with fewer.  A cycle has one instruction, and that is an event or
 * not.  EDGE changes nothing: each event is a pulse of its own.
 */
static void apply_cmask(uint64_t evtsel, PMUEvent *ev)
{
    unsigned cmask = extract64(evtsel, EVTSEL_CMASK_SHIFT,
                               EVTSEL_CMASK_LENGTH);

    if (cmask == 0) {
        return;
    }
    if (!(evtsel & EVTSEL_INV)) {
        if (cmask > 1) {
            ev->kind = PMU_NO_KIND;
        }
        return;
    }
    if (cmask > 1 || ev->kind == PMU_NO_KIND) {
        ev->kind = PMU_INSN;
        ev->less = PMU_NO_KIND;
    } else if (ev->kind == PMU_INSN) {
        ev->kind = PMU_NO_KIND;
    } else {
        ev->more = ev->less;
        ev->less = ev->kind;
        ev->kind = PMU_INSN;
    }
}

static PMUEvent gp_event(CPUX86State *env, unsigned counter)
{
    uint64_t evtsel = env->msr_gp_evtsel[counter];
    PMUEvent ev = find_event(env, evtsel & (EVTSEL_EVENT | EVTSEL_UMASK));

    apply_cmask(evtsel, &ev);
    if (evtsel & EVTSEL_ENABLE) {
        ev.privs = (evtsel & EVTSEL_OS ? PMU_PRIV_OS : 0) |
                   (evtsel & EVTSEL_USR ? PMU_PRIV_USR : 0);
    }
    return ev;
}

/* Instructions, cycles and reference cycles are all the same here. */
static PMUEvent fixed_event(CPUX86State *env, unsigned counter)
{
    uint64_t ctrl = env->msr_fixed_ctr_ctrl >> (counter * 4);

    return (PMUEvent) {
        .privs = (ctrl & FIXED_OS ? PMU_PRIV_OS : 0) |
                 (ctrl & FIXED_USR ? PMU_PRIV_USR : 0),
        .kind = PMU_INSN,
        .less = PMU_NO_KIND,
        .more = PMU_NO_KIND,
    };
}

static PMUEvent *counter_event(CPUX86State *env, unsigned bit)
{
    return &env->pmu_config.event[pmc_index(bit)];
}

/* ---- what the MSRs come down to ---- */

static bool is_frozen(CPUX86State *env)
{
    return (env->msr_global_status & STATUS_CTR_FRZ) ||
           ((env->hflags & HF_SMM_MASK) &&
            (env->msr_debugctl & DEBUGCTL_FREEZE_IN_SMM));
}

/* Read what each counter is set to.  Returns those that are switched on. */
static uint64_t decode_events(CPUX86State *env)
{
    uint64_t on = 0;
    unsigned bit;

    if (!x86_cpu_has_tcg_pmu(env_archcpu(env)) || is_frozen(env)) {
        return 0;
    }
    FOREACH_COUNTER(env->msr_global_ctrl & counters_mask(env), bit) {
        PMUEvent *ev = counter_event(env, bit);

        *ev = bit < PEBS_FIXED_BASE ? gp_event(env, bit)
                                    : fixed_event(env, bit - PEBS_FIXED_BASE);
        on |= ev->privs ? BIT_ULL(bit) : 0;
    }
    return on;
}

/*
 * The physical counters that can count what virtual counter @bit does: an event
 * that a fixed counter has may be counted there or by any GP counter.
 */
static uint64_t able_counters(CPUX86State *env, unsigned bit)
{
    const uint64_t gp = MAKE_64BIT_MASK(0, PMC_GP);
    const PMUEventCode *found;

    if (bit == PEBS_FIXED_BASE + 2) {
        return BIT_ULL(bit);    /* CPU_CLK_UNHALTED.REF_TSC */
    }
    if (bit >= PEBS_FIXED_BASE) {
        return gp | BIT_ULL(bit);
    }
    found = find_code(env, env->msr_gp_evtsel[bit]);
    return found ? found->counters : gp;
}

static void place_counters(CPUX86State *env, uint64_t on)
{
    const X86CPU *cpu = env_archcpu(env);
    uint64_t able[PMC_COUNTERS];
    unsigned bit;

    FOREACH_COUNTER(on, bit) {
        able[pmc_index(bit)] = able_counters(env, bit);
        /* Without baseline, PEBS is for GP counters. */
        if ((pebs_counters(env) & BIT_ULL(bit)) && !has_baseline(env)) {
            able[pmc_index(bit)] &= MAKE_64BIT_MASK(0, PMC_GP);
        }
    }
    pmc_map_place(&env->pmu_config.map, on, able, cpu->pmc_claimed,
                  cpu->pmc_displaced);
}

static uint64_t mapped_counters(CPUX86State *env)
{
    return pmc_map_virtual(&env->pmu_config.map, PMC_ALL);
}

/* PEBS counters of @on that can't sample where they are */
static uint64_t suspended_counters(CPUX86State *env, uint64_t on)
{
    uint64_t crossed = pmc_map_crossed(&env->pmu_config.map, on);

    return pebs_counters(env) & ((on & ~mapped_counters(env)) |
                                 (tcg_pebs_slow_path() ? 0 : crossed));
}

static uint64_t make_report(CPUX86State *env, uint64_t on, uint64_t suspended)
{
    uint64_t report = suspended ? PEBS_REPORT_SUSPENDED : 0;
    unsigned bit;

    FOREACH_COUNTER(on & pebs_counters(env), bit) {
        unsigned index = pmc_index(bit);
        unsigned physical = env->pmu_config.map.physical[index];

        report |= (uint64_t)(physical == PMC_NONE ? PEBS_REPORT_UNMAPPED :
                             PEBS_REPORT_MAPPED + physical)
                  << (index * PEBS_REPORT_LENGTH);
    }
    return report;
}

static PMULevel event_level(const PMUEvent *ev)
{
    PMULevel level = pmu_kind_level(ev->kind);

    if (ev->less != PMU_NO_KIND) {
        level = MAX(level, pmu_kind_level(ev->less));
    }
    if (ev->more != PMU_NO_KIND) {
        level = MAX(level, pmu_kind_level(ev->more));
    }
    return level;
}

/* Choose the modes of blocks, one per privilege level. */
static void choose_modes(CPUX86State *env)
{
    PMULevel level[2] = { PMU_LEVEL_NONE, PMU_LEVEL_NONE };
    unsigned any = 0, all = PMU_PRIV_OS | PMU_PRIV_USR;
    unsigned bit;

    FOREACH_COUNTER(env->pmu_config.counting, bit) {
        const PMUEvent *ev = counter_event(env, bit);

        any |= ev->privs;
        all &= ev->privs;
        for (unsigned usr = 0; usr < 2; usr++) {
            if (ev->privs & (usr ? PMU_PRIV_USR : PMU_PRIV_OS)) {
                level[usr] = MAX(level[usr], event_level(ev));
            }
        }
    }
    env->pmu.tb_flags[0] = level[0] << HF_PMU_LEVEL_SHIFT |
                           (any != all && any ? HF_PMU_PRIVATE_MASK : 0);
    for (unsigned cpl = 1; cpl <= 3; cpl++) {
        env->pmu.tb_flags[cpl] = level[1] << HF_PMU_LEVEL_SHIFT;
    }
}

/* Work out what is counted, after the MSRs or the claims have changed. */
static void configure(CPUX86State *env)
{
    uint64_t on = decode_events(env), suspended, counting;
    unsigned bit;

    place_counters(env, on);
    suspended = suspended_counters(env, on);
    counting = on & mapped_counters(env) & ~suspended;
    FOREACH_COUNTER(counting, bit) {
        if (counter_event(env, bit)->kind == PMU_NO_KIND) {
            counting &= ~BIT_ULL(bit);
        }
    }
    env->pmu_config.counting = counting;
    choose_modes(env);
    x86_pebs_publish(env_archcpu(env), make_report(env, on, suspended));
}

/* ---- counting ---- */

/* Whether CPL 0 has a set of its own, the second. */
static bool has_private_set(CPUX86State *env)
{
    return pmu_flags_set(env->pmu.tb_flags[0]);
}

static int64_t *budget_word(CPUX86State *env, unsigned set, unsigned word)
{
    return set == 0 && word == 0 ? &env_cpu(env)->neg.retire_budget
                                 : &env->pmu.left[set][word];
}

static uint64_t word_lane(uint64_t word, PMUKind kind)
{
    return extract64(word, pmu_kind_shift(kind), pmu_kind_length(kind));
}

static void tally(CPUX86State *env, PMUTally *t)
{
    for (unsigned set = 0; set < PMU_SETS; set++) {
        for (unsigned word = 0; word < PMU_WORDS; word++) {
            t->gone[set][word] = env->pmu.filled[set][word] -
                                 *budget_word(env, set, word);
        }
    }
}

/* Take out what the block at @ra has settled but hasn't retired yet. */
static void tally_unretired(CPUX86State *env, PMUTally *t, uintptr_t ra)
{
    uint64_t data[INSN_START_WORDS];
    unsigned set = pmu_flags_set(current_flags(env));
    PMULevel level = pmu_flags_level(current_flags(env));

    if (!cpu_unwind_state_data(env_cpu(env), ra, data)) {
        return;
    }
    for (unsigned word = 0; word < PMU_WORDS; word++) {
        t->gone[set][word] -= pmu_packed_word(data[2], word, level);
    }
}

/* Whether @ev counts what is counted down in @set. */
static bool event_in_set(CPUX86State *env, const PMUEvent *ev,
                         unsigned set)
{
    if (!has_private_set(env)) {
        return set == 0;
    }
    return ev->privs & (set ? PMU_PRIV_OS : PMU_PRIV_USR);
}

static uint64_t kind_count(CPUX86State *env, const PMUTally *t, unsigned set,
                           PMUKind kind)
{
    if (kind == PMU_NO_KIND) {
        return 0;
    }
    return env->pmu.gone[set][kind] +
           word_lane(t->gone[set][pmu_kind_word(kind)], kind);
}

static uint64_t event_count(CPUX86State *env, const PMUEvent *ev,
                            const PMUTally *t)
{
    uint64_t count = 0;

    for (unsigned set = 0; set < PMU_SETS; set++) {
        if (event_in_set(env, ev, set)) {
            count += kind_count(env, t, set, ev->kind) -
                     kind_count(env, t, set, ev->less) +
                     kind_count(env, t, set, ev->more);
        }
    }
    return count;
}

/* Nothing has been counted down that the counters don't have. */
static void forget(CPUX86State *env)
{
    memset(env->pmu.gone, 0, sizeof(env->pmu.gone));
    for (unsigned set = 0; set < PMU_SETS; set++) {
        for (unsigned word = 0; word < PMU_WORDS; word++) {
            env->pmu.filled[set][word] = *budget_word(env, set, word);
        }
    }
}

/* Returns the counters that have overflowed. */
static uint64_t settle(CPUX86State *env, const PMUTally *t)
{
    uint64_t overflowed = 0;
    unsigned bit;

    FOREACH_COUNTER(env->pmu_config.counting, bit) {
        uint64_t *counter = x86_pmu_counter(env, bit);
        uint64_t value = *counter +
                         event_count(env, counter_event(env, bit), t);

        if (value > counter_mask()) {
            overflowed |= BIT_ULL(bit);
        }
        *counter = value & counter_mask();
    }
    forget(env);
    return overflowed;
}

/* The kinds that are counted down at either privilege level. */
static unsigned kinds_in_use(CPUX86State *env)
{
    PMULevel os = pmu_flags_level(env->pmu.tb_flags[0]);
    PMULevel usr = pmu_flags_level(env->pmu.tb_flags[3]);

    return pmu_level_kinds(MAX(os, usr));
}

/*
 * Fill the words of @set with as much of what is granted as they hold.  The
 * rest is for the next time.
 */
static void fill(CPUX86State *env, unsigned set)
{
    unsigned kinds = kinds_in_use(env);
    uint64_t words[PMU_WORDS] = { };
    PMUTally t;

    tally(env, &t);
    for (unsigned kind = 0; kind < kinds; kind++) {
        unsigned word = pmu_kind_word(kind);
        int64_t *gone = &env->pmu.gone[set][kind];
        int64_t rest;

        *gone += word_lane(t.gone[set][word], kind);
        rest = env->pmu.granted[set][kind] - *gone;
        tcg_debug_assert(rest >= 0);
        words[word] |= MIN(rest, pmu_kind_max(kind)) << pmu_kind_shift(kind);
    }
    for (unsigned word = 0; word < PMU_WORDS; word++) {
        *budget_word(env, set, word) = words[word];
        env->pmu.filled[set][word] = words[word];
    }
}

/* Lower what is granted of @kind in @set to @events, if it is more. */
static void grant_at_most(CPUX86State *env, unsigned set, PMUKind kind,
                          int64_t events)
{
    int64_t *granted = &env->pmu.granted[set][kind];

    *granted = MIN(*granted, events);
}

static void grant_event(CPUX86State *env, const PMUEvent *ev, int64_t events)
{
    unsigned here = current_priv(env) == PMU_PRIV_OS;
    bool private = has_private_set(env);

    if (private && ev->privs == (PMU_PRIV_OS | PMU_PRIV_USR)) {
        int64_t share = events >> PMU_SHARE_SHIFT;

        grant_at_most(env, here, ev->kind, events - share);
        grant_at_most(env, !here, ev->kind, share);
    } else {
        grant_at_most(env, private && ev->privs == PMU_PRIV_OS, ev->kind,
                      events);
    }
}

/* Call with nothing counted down that the counters don't have. */
static void grant(CPUX86State *env)
{
    unsigned kinds = kinds_in_use(env);
    unsigned bit;

    for (unsigned set = 0; set < PMU_SETS; set++) {
        for (unsigned kind = 0; kind < kinds; kind++) {
            env->pmu.granted[set][kind] = PMU_UNLIMITED;
        }
    }
    FOREACH_COUNTER(env->pmu_config.counting, bit) {
        grant_event(env, counter_event(env, bit),
                    counter_mask() - *x86_pmu_counter(env, bit));
    }
    fill(env, 0);
    if (has_private_set(env)) {
        fill(env, 1);
    }
}

void x86_pmu_settle(CPUX86State *env)
{
    PMUTally t;

    tally(env, &t);
    settle(env, &t);
    grant(env);
}

static void restart(CPUX86State *env)
{
    configure(env);
    forget(env);
    grant(env);
}

void x86_pmu_remap(CPUX86State *env)
{
    x86_pmu_settle(env);
    restart(env);
}

void x86_pmu_give_back(CPUX86State *env, uint32_t tb_flags, uint64_t packed)
{
    unsigned set = pmu_flags_set(tb_flags);
    PMULevel level = pmu_flags_level(tb_flags);

    for (unsigned word = 0; word < PMU_WORDS; word++) {
        *budget_word(env, set, word) += pmu_packed_word(packed, word, level);
    }
}

/* ---- overflow ---- */

static bool wants_pmi(CPUX86State *env, uint64_t counters)
{
    for (; counters; counters &= counters - 1) {
        unsigned bit = ctz64(counters);

        if (bit < PEBS_FIXED_BASE) {
            if (env->msr_gp_evtsel[bit] & EVTSEL_INT) {
                return true;
            }
        } else if (env->msr_fixed_ctr_ctrl >> ((bit - PEBS_FIXED_BASE) * 4) &
                   FIXED_PMI) {
            return true;
        }
    }
    return false;
}

/* The access that a record of @counters reports; 0 if there was none */
static uint64_t sampled_address(CPUX86State *env, uint64_t counters)
{
    switch (counter_event(env, ctz64(counters))->kind) {
    case PMU_STORE:
        return env->pmu.store_address;
    case PMU_LOAD:
        return env->pmu.load_address;
    default:
        return env->pmu.load_address ?: env->pmu.store_address;
    }
}

static void deliver_pmi(CPUX86State *env)
{
    X86CPU *cpu = env_archcpu(env);

    if (cpu->apic_state) {
        BQL_LOCK_GUARD();
        apic_deliver_pmi(cpu->apic_state);
    }
}

/*
 * The PEBS counters of @overflowed, and those that overflowed in SMM, where a
 * record has to wait: SMM's address space is not the guest's, and the DS area
 * is known by linear addresses of what SMM has interrupted.
 */
static uint64_t take_due_samples(CPUX86State *env, uint64_t overflowed)
{
    uint64_t due = overflowed & pebs_counters(env);

    if (env->hflags & HF_SMM_MASK) {
        env->pebs_armed |= due;
        return 0;
    }
    /* What the SMI handler has switched off makes no record any more. */
    due |= env->pebs_armed & pebs_counters(env) & env->pmu_config.counting;
    env->pebs_armed = 0;
    return due;
}

/*
 * SDM volume 3B, "Freezing LBR and Performance Counters on PMI", and for
 * version 4 "Enhanced Support for Freezing on PMI": what is frozen stays so
 * until the guest writes the MSR.
 */
static void freeze_on_pmi(CPUX86State *env)
{
    if (!(env->msr_debugctl & DEBUGCTL_FREEZE_PERFMON)) {
        return;
    }
    if (has_version4(env)) {
        env->msr_global_status |= STATUS_CTR_FRZ;
    } else {
        env->msr_global_ctrl = 0;
    }
    configure(env);
}

void x86_pmu_retire_event(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    uint64_t overflowed, sampled;
    bool pmi = false;
    PMUTally t;

    env->pmu.noting = false;
    tally(env, &t);
    overflowed = settle(env, &t);
    sampled = take_due_samples(env, overflowed);
    if (sampled) {
        pmi = x86_pebs_record(env, sampled, sampled_address(env, sampled));
    }
    overflowed &= ~pebs_counters(env);
    env->msr_global_status |= overflowed;
    pmi |= wants_pmi(env, overflowed);

    if (pmi) {
        freeze_on_pmi(env);
    }
    grant(env);
    if (pmi) {
        deliver_pmi(env);
    }
}

/* The instruction at @ip is looked at when it has retired. */
static void note_event(CPUX86State *env, uint64_t ip)
{
    env->pmu.ip = ip;
    env->pmu.load_address = 0;
    env->pmu.store_address = 0;
    env->pmu.noting = false;
    env_cpu(env)->neg.retire_event = true;
}

/* Count one instruction that no block has counted. */
static void retire_one(CPUX86State *env, unsigned cpl, uint64_t packed,
                       uint64_t ip)
{
    uint32_t tb_flags = env->pmu.tb_flags[cpl];
    unsigned set = pmu_flags_set(tb_flags);
    PMULevel level = pmu_flags_level(tb_flags);

    for (unsigned word = 0; word < PMU_WORDS; word++) {
        int64_t *left = budget_word(env, set, word);

        *left -= pmu_packed_word(packed, word, level);
        if (*left & PMU_GUARDS) {
            note_event(env, ip);
        }
    }
}

void x86_pmu_retire_interrupt(CPUX86State *env, unsigned cpl, uint64_t ip)
{
    CPUState *cs = env_cpu(env);

    retire_one(env, cpl, pmu_packed_one(PMU_INSN) |
                         pmu_packed_one(PMU_BRANCH) |
                         pmu_packed_one(PMU_FAR), ip);
    /* Not from generated code, so the main loop won't look. */
    if (cs->neg.retire_event) {
        cs->neg.retire_event = false;
        x86_pmu_retire_event(cs);
    }
}

/*
 * The block that begins is looked at when it has retired; its last instruction
 * lies @offset bytes in.
 */
void helper_pmu_final(CPUX86State *env, uint32_t offset)
{
    note_event(env, env->eip + offset);
}

/*
 * RSM is the last of its block and leaves for the main loop, which makes the
 * records that have waited.  They name the instruction that SMM returns to, as
 * no address of SMM's is the guest's to know.
 */
void x86_pmu_smm_changed(CPUX86State *env)
{
    if (env->msr_debugctl & DEBUGCTL_FREEZE_IN_SMM) {
        x86_pmu_remap(env);
    }
    if (!(env->hflags & HF_SMM_MASK) &&
        (env->pebs_armed || env_cpu(env)->neg.retire_event)) {
        note_event(env, env->eip);
    }
}

/* How many instructions no budget that @tb counts down stands in the way of. */
static unsigned smallest_budget(CPUX86State *env, const TranslationBlock *tb)
{
    unsigned set = pmu_flags_set(tb->flags);
    unsigned kinds = pmu_level_kinds(pmu_flags_level(tb->flags));
    unsigned least = UINT_MAX;

    for (unsigned kind = 0; kind < kinds; kind++) {
        least = MIN(least, word_lane(*budget_word(env, set,
                                                  pmu_kind_word(kind)), kind));
    }
    return least;
}

/*
 * The next block, a final one of at most @insns instructions.  Interrupts wait
 * until it has ended, when the main loop looks for them: to get here takes as
 * long as many a block, so they would come right before an overflow much more
 * often than elsewhere.  An SMI doesn't wait: firmware relies on that of an
 * OUT coming right behind it.  With icount all come when they are due.
 */
static uint32_t final_cflags(CPUState *cs, uint32_t cflags, unsigned insns)
{
    cflags &= ~CF_COUNT_MASK;
    cflags |= CF_NO_GOTO_TB | CF_NO_GOTO_PTR | MIN(insns, CF_COUNT_MASK);
    if (!(cflags & CF_USE_ICOUNT) &&
        !cpu_test_interrupt(cs, CPU_INTERRUPT_SMI)) {
        cflags |= CF_NOIRQ;
    }
    return cflags;
}

/*
 * Fill the budgets that @tb counts down.  If they don't cover it then either,
 * the next is a final block, which ends behind the first instruction that they
 * may not cover; new ones are granted after that.
 */
bool x86_pmu_budget_exit(CPUState *cs, const TranslationBlock *tb)
{
    CPUX86State *env = cpu_env(cs);
    uint32_t cflags = tb_cflags(tb) & ~CF_INVALID;
    /* A final block is let run its last instruction. */
    unsigned insns = tb->icount - (pmu_is_final(cflags, tb->icount) ? 1 : 0);
    unsigned fit;

    if (smallest_budget(env, tb) >= insns) {
        return false;
    }
    fill(env, pmu_flags_set(tb->flags));
    fit = smallest_budget(env, tb);
    if (fit < insns) {
        cflags = final_cflags(cs, cflags, fit + 1);
    }
    cs->cflags_next_tb = cflags;
    return true;
}

/* ---- MSRs ---- */

/* The counter's value now, in the middle of the block at @ra. */
static uint64_t read_counter(CPUX86State *env, unsigned bit, uintptr_t ra)
{
    uint64_t value = *x86_pmu_counter(env, bit);
    PMUTally t;

    if (env->pmu_config.counting & BIT_ULL(bit)) {
        tally(env, &t);
        tally_unretired(env, &t, ra);
        value += event_count(env, counter_event(env, bit), &t);
    }
    return value & counter_mask();
}

X86PMUAccess x86_pmu_rdpmc(CPUX86State *env, uint32_t selector,
                           uint64_t *value, uintptr_t ra)
{
    bool fixed = selector & (1u << 30);
    uint32_t counter = selector & ~(1u << 30);

    if (!x86_cpu_has_tcg_pmu(env_archcpu(env))) {
        return X86_PMU_NOT_MINE;
    }
    if (counter >= (fixed ? MAX_FIXED_COUNTERS : gp_counters(env))) {
        return X86_PMU_FAULT;
    }
    *value = read_counter(env, counter + (fixed ? PEBS_FIXED_BASE : 0), ra);
    return X86_PMU_DONE;
}

static bool is_gp_msr(CPUX86State *env, uint32_t index, uint32_t base)
{
    return index >= base && index < base + gp_counters(env);
}

/* The counter that @index reads and writes, or -1. */
static int msr_counter(CPUX86State *env, uint32_t index)
{
    if (is_gp_msr(env, index, MSR_P6_PERFCTR0)) {
        return index - MSR_P6_PERFCTR0;
    }
    if (is_gp_msr(env, index, MSR_IA32_PMC0) &&
        (capabilities(env) & PERF_CAP_FW_WRITES)) {
        return index - MSR_IA32_PMC0;
    }
    if (index >= MSR_CORE_PERF_FIXED_CTR0 &&
        index < MSR_CORE_PERF_FIXED_CTR0 + MAX_FIXED_COUNTERS) {
        return index - MSR_CORE_PERF_FIXED_CTR0 + PEBS_FIXED_BASE;
    }
    return -1;
}

static uint64_t status_mask(CPUX86State *env)
{
    return counters_mask(env) | PEBS_STATUS_OVF_BUF | STATUS_COND_CHGD |
           (has_version4(env) ? STATUS_VERSION4 : 0);
}

/* IA32_PERF_GLOBAL_INUSE: SDM, "Architectural Performance Monitoring 4" */
static uint64_t global_inuse(CPUX86State *env)
{
    uint64_t in_use = 0, pmi = 0;

    for (unsigned i = 0; i < gp_counters(env); i++) {
        in_use |= env->msr_gp_evtsel[i] & EVTSEL_EVENT ? BIT_ULL(i) : 0;
        pmi |= env->msr_gp_evtsel[i] & EVTSEL_INT;
    }
    for (unsigned i = 0; i < MAX_FIXED_COUNTERS; i++) {
        uint64_t ctrl = env->msr_fixed_ctr_ctrl >> (i * 4);

        if (ctrl & (FIXED_OS | FIXED_USR)) {
            in_use |= BIT_ULL(PEBS_FIXED_BASE + i);
        }
        pmi |= ctrl & FIXED_PMI;
    }
    return in_use | (pmi ? BIT_ULL(63) : 0);
}

/*
 * An MSR that is a plain store: where it is kept and which bits may be set.
 * Without the feature that brings it, it doesn't exist.
 */
static uint64_t *stored_msr(CPUX86State *env, uint32_t index, uint64_t *valid)
{
    if (is_gp_msr(env, index, MSR_P6_EVNTSEL0)) {
        *valid = EVTSEL_VALID | (has_baseline(env) ? PMU_EVTSEL_ADAPTIVE : 0);
        return &env->msr_gp_evtsel[index - MSR_P6_EVNTSEL0];
    }
    switch (index) {
    case MSR_CORE_PERF_FIXED_CTR_CTRL:
        *valid = 0;
        for (unsigned i = 0; i < MAX_FIXED_COUNTERS; i++) {
            *valid |= (FIXED_VALID |
                       (has_baseline(env) ? PMU_FIXED_ADAPTIVE : 0))
                      << (i * 4);
        }
        return &env->msr_fixed_ctr_ctrl;
    case MSR_CORE_PERF_GLOBAL_CTRL:
        *valid = counters_mask(env);
        return &env->msr_global_ctrl;
    case MSR_IA32_PEBS_ENABLE:
        *valid = x86_cpu_pebs_enable_mask(env_archcpu(env));
        return has_pebs(env) ? &env->msr_pebs_enable : NULL;
    case MSR_PEBS_DATA_CFG:
        *valid = pebs_data_cfg_mask(x86_cpu_pebs_format(env_archcpu(env)),
                                    TCG_PEBS_GROUPS);
        return has_baseline(env) ? &env->msr_pebs_data_cfg : NULL;
    case MSR_PEBS_LD_LAT_THRESHOLD:
        *valid = LD_LAT_VALID;
        return has_pebs(env) ? &env->msr_pebs_ld_lat : NULL;
    default:
        return NULL;
    }
}

X86PMUAccess x86_pmu_rdmsr(CPUX86State *env, uint32_t index, uint64_t *value,
                           uintptr_t ra)
{
    uint64_t *stored, valid;
    int counter;

    if (!x86_cpu_has_tcg_pmu(env_archcpu(env))) {
        return X86_PMU_NOT_MINE;
    }
    counter = msr_counter(env, index);
    if (counter >= 0) {
        *value = read_counter(env, counter, ra);
        return X86_PMU_DONE;
    }
    stored = stored_msr(env, index, &valid);
    if (stored) {
        *value = *stored;
        return X86_PMU_DONE;
    }
    switch (index) {
    case MSR_CORE_PERF_GLOBAL_STATUS:
        *value = env->msr_global_status;
        return X86_PMU_DONE;
    case MSR_IA32_DEBUGCTL:
        *value = env->msr_debugctl;
        return X86_PMU_DONE;
    case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
        *value = 0;
        return X86_PMU_DONE;
    case MSR_CORE_PERF_GLOBAL_STATUS_SET:
        *value = 0;
        return has_version4(env) ? X86_PMU_DONE : X86_PMU_NOT_MINE;
    case MSR_CORE_PERF_GLOBAL_INUSE:
        *value = global_inuse(env);
        return has_version4(env) ? X86_PMU_DONE : X86_PMU_NOT_MINE;
    case MSR_IA32_PERF_CAPABILITIES:
        *value = capabilities(env);
        return env->features[FEAT_1_ECX] & CPUID_EXT_PDCM ? X86_PMU_DONE
                                                          : X86_PMU_FAULT;
    case MSR_IA32_DS_AREA:
        if (!has_pebs(env)) {
            return X86_PMU_NOT_MINE;
        }
        *value = env->msr_ds_area;
        return X86_PMU_DONE;
    default:
        return X86_PMU_NOT_MINE;
    }
}

/*
 * The legacy alias of a GP counter takes 32 bits and extends their sign, the
 * full-width one and a fixed counter take all: SDM, "Full-Width Writes to
 * Performance Counter Registers"; KVM's intel_pmu_set_msr().
 */
static bool counter_write_value(CPUX86State *env, uint32_t index,
                                uint64_t *value)
{
    if (is_gp_msr(env, index, MSR_P6_PERFCTR0)) {
        *value = (int64_t)(int32_t)*value;
    } else if (is_gp_msr(env, index, MSR_IA32_PMC0) &&
               (*value & ~counter_mask())) {
        return false;
    }
    *value &= counter_mask();
    return true;
}

static bool set_msr(CPUX86State *env, uint32_t index, uint64_t value)
{
    int counter = msr_counter(env, index);
    uint64_t *stored, valid;

    if (counter >= 0) {
        *x86_pmu_counter(env, counter) = value;
        return true;
    }
    stored = stored_msr(env, index, &valid);
    if (stored) {
        *stored = value;
        configure(env);
        return true;
    }
    switch (index) {
    case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
        env->msr_global_status &= ~value;
        configure(env);
        return true;
    case MSR_CORE_PERF_GLOBAL_STATUS_SET:
        env->msr_global_status |= value;
        configure(env);
        return true;
    case MSR_IA32_DEBUGCTL:
        env->msr_debugctl = value & ~DEBUGCTL_DROPPED;
        configure(env);
        return true;
    case MSR_IA32_DS_AREA:
        env->msr_ds_area = value;
        return true;
    default:
        return false;
    }
}

/* Whether @index may be written with @value, which may be adjusted. */
static X86PMUAccess check_write(CPUX86State *env, uint32_t index,
                                uint64_t *value)
{
    uint64_t valid;

    if (msr_counter(env, index) >= 0) {
        return counter_write_value(env, index, value) ? X86_PMU_DONE
                                                      : X86_PMU_FAULT;
    }
    if (stored_msr(env, index, &valid)) {
        return *value & ~valid ? X86_PMU_FAULT : X86_PMU_DONE;
    }
    switch (index) {
    case MSR_CORE_PERF_GLOBAL_STATUS:
    case MSR_IA32_PERF_CAPABILITIES:
        return X86_PMU_FAULT;
    case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
        return *value & ~status_mask(env) ? X86_PMU_FAULT : X86_PMU_DONE;
    case MSR_CORE_PERF_GLOBAL_STATUS_SET:
        if (!has_version4(env)) {
            return X86_PMU_NOT_MINE;
        }
        return *value & ~status_mask(env) ? X86_PMU_FAULT : X86_PMU_DONE;
    case MSR_CORE_PERF_GLOBAL_INUSE:
        return has_version4(env) ? X86_PMU_FAULT : X86_PMU_NOT_MINE;
    case MSR_IA32_DS_AREA:
        if (!has_pebs(env)) {
            return X86_PMU_NOT_MINE;
        }
        return x86_cpu_ds_area_valid(env_archcpu(env), *value)
               ? X86_PMU_DONE : X86_PMU_FAULT;
    case MSR_IA32_DEBUGCTL:
        return *value & ~(DEBUGCTL_KEPT | DEBUGCTL_DROPPED) ? X86_PMU_FAULT
                                                            : X86_PMU_DONE;
    default:
        return X86_PMU_NOT_MINE;
    }
}

X86PMUAccess x86_pmu_wrmsr(CPUX86State *env, uint32_t index, uint64_t value,
                           uintptr_t ra)
{
    X86PMUAccess access;
    PMUTally t;

    if (!x86_cpu_has_tcg_pmu(env_archcpu(env))) {
        return X86_PMU_NOT_MINE;
    }
    access = check_write(env, index, &value);
    if (access != X86_PMU_DONE) {
        return access;
    }

    tally(env, &t);
    tally_unretired(env, &t, ra);
    settle(env, &t);
    set_msr(env, index, value);
    grant(env);
    retire_one(env, env->hflags & HF_CPL_MASK, pmu_packed_one(PMU_INSN),
               env->eip);
    return X86_PMU_DONE;
}

/* ---- what was loaded ---- */

static bool check_loaded(uint32_t index, uint64_t value, uint64_t valid,
                         Error **errp)
{
    if (value & ~valid) {
        error_setg(errp, "The guest's PMU state is invalid: MSR 0x%" PRIx32
                   " is 0x%" PRIx64, index, value);
        return false;
    }
    return true;
}

static bool check_loaded_counters(CPUX86State *env, Error **errp)
{
    for (unsigned i = 0; i < MAX_GP_COUNTERS; i++) {
        uint64_t valid = i < gp_counters(env) ? counter_mask() : 0;

        if (!check_loaded(MSR_P6_PERFCTR0 + i, env->msr_gp_counters[i], valid,
                          errp)) {
            return false;
        }
    }
    for (unsigned i = 0; i < MAX_FIXED_COUNTERS; i++) {
        if (!check_loaded(MSR_CORE_PERF_FIXED_CTR0 + i,
                          env->msr_fixed_counters[i], counter_mask(), errp)) {
            return false;
        }
    }
    return true;
}

static bool check_loaded_selects(CPUX86State *env, Error **errp)
{
    for (unsigned i = 0; i < MAX_GP_COUNTERS; i++) {
        uint64_t valid;

        if (!stored_msr(env, MSR_P6_EVNTSEL0 + i, &valid)) {
            valid = 0;
        }
        if (!check_loaded(MSR_P6_EVNTSEL0 + i, env->msr_gp_evtsel[i], valid,
                          errp)) {
            return false;
        }
    }
    return true;
}

static bool check_loaded_stored(CPUX86State *env, Error **errp)
{
    static const uint32_t stored[] = {
        MSR_CORE_PERF_FIXED_CTR_CTRL, MSR_CORE_PERF_GLOBAL_CTRL,
        MSR_IA32_PEBS_ENABLE, MSR_PEBS_DATA_CFG, MSR_PEBS_LD_LAT_THRESHOLD,
    };

    for (int i = 0; i < ARRAY_SIZE(stored); i++) {
        uint64_t valid, *value = stored_msr(env, stored[i], &valid);

        if (value && !check_loaded(stored[i], *value, valid, errp)) {
            return false;
        }
    }
    return true;
}

static bool check_loaded_state(CPUX86State *env, Error **errp)
{
    return check_loaded_counters(env, errp) &&
           check_loaded_selects(env, errp) &&
           check_loaded_stored(env, errp) &&
           check_loaded(MSR_CORE_PERF_GLOBAL_STATUS, env->msr_global_status,
                        status_mask(env), errp) &&
           check_loaded(MSR_CORE_PERF_GLOBAL_OVF_CTRL,
                        env->msr_global_ovf_ctrl, 0, errp) &&
           check_loaded(MSR_IA32_DEBUGCTL, env->msr_debugctl, DEBUGCTL_KEPT,
                        errp) &&
           /* No MSR: what waits for the end of SMM, by PEBS_ENABLE's bits */
           check_loaded(MSR_IA32_PEBS_ENABLE, env->pebs_armed,
                        counters_mask(env), errp);
}

static void clear_state(CPUX86State *env)
{
    memset(env->msr_gp_counters, 0, sizeof(env->msr_gp_counters));
    memset(env->msr_gp_evtsel, 0, sizeof(env->msr_gp_evtsel));
    memset(env->msr_fixed_counters, 0, sizeof(env->msr_fixed_counters));
    env->msr_fixed_ctr_ctrl = 0;
    env->msr_global_ctrl = 0;
    env->msr_global_status = 0;
    env->msr_global_ovf_ctrl = 0;
    env->msr_debugctl = 0;
    env->msr_pebs_enable = 0;
    env->msr_pebs_data_cfg = 0;
    env->msr_pebs_ld_lat = 0;
    env->pebs_armed = 0;
}

bool x86_pmu_loaded(CPUX86State *env, Error **errp)
{
    bool ok = !x86_cpu_has_tcg_pmu(env_archcpu(env)) ||
              check_loaded_state(env, errp);

    if (!ok) {
        /* A machine whose load has failed may be let run all the same. */
        clear_state(env);
    }
    restart(env);
    return ok;
}
