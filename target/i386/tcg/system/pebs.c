/*
 * PEBS under TCG: records into guest memory
 *
 * The DS area is reached as the hardware does it, through the guest's paging
 * with supervisor rights, at whatever instruction a counter overflows: SDM
 * volume 3B, "Processor Event-Based Sampling (PEBS)".  Nothing here may fault,
 * stop at a watchpoint or touch a device.  What can't be reached costs the
 * record.
 *
 * The hardware's side knows physical counters: it makes a record in a staging
 * buffer, and reloads from a shadow of the reset values.  Between it and the
 * guest stands the slow path, which fills the shadow and rewrites the record;
 * on the fast path it has nothing to do.  No physical index gets past it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "cpu.h"
#include "exec/target_page.h"
#include "exec/tlb-flags.h"
#include "accel/tcg/probe.h"
#include "tcg/helper-tcg.h"
#include "tcg/pmu.h"
#include "pebs.h"
#include "pebs-record.h"
#include "trace.h"

/* A span of guest memory, a host pointer for each page that it touches */
#define SPAN_PAGES 3
QEMU_BUILD_BUG_ON(PEBS_RECORD_MAX_SIZE > (SPAN_PAGES - 1) * 4096);
QEMU_BUILD_BUG_ON(PMC_FIXED_BIT != PEBS_FIXED_BASE);

/*
 * Memory auxiliary info: SDM, "Data Source Encoding for Load Latency Record"
 * and "Layout of Data Linear Address, Data Source and Latency for Stores"
 */
#define AUX_L1_HIT  (1ull << 0)     /* of a load, encoding 1 of bits 3:0 */
#define AUX_LOCKED  (1ull << 5)

typedef struct GuestSpan {
    vaddr address;
    size_t size;
    void *host[SPAN_PAGES];
} GuestSpan;

/* Bytes of the span from @done on that lie in one page. */
static size_t span_piece(const GuestSpan *span, size_t done)
{
    vaddr address = span->address + done;

    return MIN(span->size - done, -(address | TARGET_PAGE_MASK));
}

/*
 * Find the memory behind a span; no byte of it is accessed.  All that a
 * supervisor could do without SMAP is allowed.
 */
static bool span_probe(CPUX86State *env, GuestSpan *span, vaddr address,
                       size_t size, MMUAccessType access_type)
{
    int mmu_idx = env->hflags & HF_LMA_MASK ? MMU_KNOSMAP64_IDX
                                            : MMU_KNOSMAP32_IDX;
    int error_code = env->error_code;
    bool ok = true;
    size_t done, piece;
    int page = 0;

    span->address = address;
    span->size = size;
    for (done = 0; ok && done < size; done += piece) {
        CPUTLBEntryFull *full;
        int flags;

        piece = span_piece(span, done);
        flags = probe_access_full_mmu(env, address + done, piece, access_type,
                                      mmu_idx, &span->host[page++], &full);
        ok = !(flags & (TLB_INVALID_MASK | TLB_MMIO | TLB_DISCARD_WRITE));
    }
    /* A pending exception still needs its own. */
    env->error_code = error_code;
    return ok;
}

static void span_write(const GuestSpan *span, const uint8_t *bytes)
{
    size_t done, piece;
    int page = 0;

    for (done = 0; done < span->size; done += piece) {
        piece = span_piece(span, done);
        memcpy(span->host[page++], bytes + done, piece);
    }
}

static void span_read(const GuestSpan *span, uint8_t *bytes)
{
    size_t done, piece;
    int page = 0;

    for (done = 0; done < span->size; done += piece) {
        piece = span_piece(span, done);
        memcpy(bytes + done, span->host[page++], piece);
    }
}

static bool guest_read(CPUX86State *env, vaddr address, uint8_t *bytes,
                       size_t size)
{
    GuestSpan span;

    if (!span_probe(env, &span, address, size, MMU_DATA_LOAD)) {
        return false;
    }
    span_read(&span, bytes);
    return true;
}

/* Another vCPU that sees the new index sees the record before it. */
static void store_index(const GuestSpan *span, uint64_t index)
{
    uint64_t bytes = cpu_to_le64(index);

    if (span_piece(span, 0) == sizeof(bytes) &&
        QEMU_PTR_IS_ALIGNED(span->host[0], sizeof(bytes))) {
        qatomic_store_release((uint64_t *)span->host[0], bytes);
    } else {
        /* The record is complete before any byte of the index changes. */
        smp_wmb();
        span_write(span, (uint8_t *)&bytes);
    }
}

/*
 * Write a record at the index of the DS area and advance the index, if the
 * record fits.  Every page is probed before the first byte is written.
 */
static bool write_record(CPUX86State *env, PebsDsArea *ds,
                         const uint8_t *record, size_t size)
{
    GuestSpan data, index;

    if (!span_probe(env, &data, ds->index, size, MMU_DATA_STORE) ||
        !span_probe(env, &index, env->msr_ds_area + PEBS_DS_INDEX,
                    sizeof(ds->index), MMU_DATA_STORE)) {
        return false;
    }
    ds->index += size;
    span_write(&data, record);
    store_index(&index, ds->index);
    return true;
}

static bool is_adaptive(const CPUX86State *env, unsigned bit)
{
    if (bit < PEBS_FIXED_BASE) {
        return env->msr_gp_evtsel[bit] & PMU_EVTSEL_ADAPTIVE;
    }
    return env->msr_fixed_ctr_ctrl >> ((bit - PEBS_FIXED_BASE) * 4) &
           PMU_FIXED_ADAPTIVE;
}

static uint64_t adaptive_counters(const CPUX86State *env, uint64_t counters)
{
    uint64_t adaptive = 0;

    for (; counters; counters &= counters - 1) {
        if (is_adaptive(env, ctz64(counters))) {
            adaptive |= counters & -counters;
        }
    }
    return adaptive;
}

/* Nothing misses a cache here. */
static uint64_t data_source(const CPUX86State *env, uint64_t address)
{
    if (!address) {
        return 0;
    }
    return AUX_L1_HIT | (env->pmu.locked ? AUX_LOCKED : 0);
}

static void take_sample(CPUX86State *env, PebsSample *s, uint64_t address)
{
    s->ip = env->pmu.ip;
    s->tsc = cpu_get_tsc(env) + env->tsc_offset;
    s->mem.address = address;
    s->mem.latency = address ? PMU_LOAD_LATENCY : 0;
    s->mem.aux = data_source(env, address);
    s->mem.tsx = 0;
    s->retire_latency = 0;
    s->lbr = NULL;
    s->lbr_count = 0;
    s->gpr.flags = cpu_compute_eflags(env);
    s->gpr.ip = env->eip;
    for (int i = 0; i < CPU_NB_REGS; i++) {
        s->gpr.regs[i] = env->regs[i];
        s->xmm[i][0] = env->xmm_regs[i].ZMM_Q(0);
        s->xmm[i][1] = env->xmm_regs[i].ZMM_Q(1);
    }
}

/* ---- the hardware's side: physical counters ---- */

/* Reset values by physical counter, as the hardware finds them */
typedef struct PebsShadow {
    uint64_t present;               /* bits of IA32_PERF_GLOBAL_CTRL */
    uint64_t reset[PMC_COUNTERS];
} PebsShadow;

/* Make one record for all of @physical.  Returns its size. */
static size_t make_record(CPUX86State *env, uint8_t *staging, size_t length,
                          uint64_t physical, uint64_t data_cfg,
                          uint64_t address)
{
    PebsSample sample QEMU_UNINITIALIZED;

    sample.applicable_counters = physical;
    take_sample(env, &sample, address);
    return pebs_record_encode(staging, length, data_cfg, &sample);
}

/* After a record, or in its place, a counter starts over. */
static void reload(CPUX86State *env, uint64_t physical,
                   const PebsShadow *shadow)
{
    const PMCMap *map = &env->pmu_config.map;

    physical &= shadow->present;
    for (; physical; physical &= physical - 1) {
        uint64_t virtual = pmc_map_virtual(map, physical & -physical);

        *x86_pmu_counter(env, ctz64(virtual)) =
            extract64(shadow->reset[pmc_index(ctz64(physical))], 0,
                      PMU_COUNTER_BITS);
    }
}

/* ---- the slow path ---- */

/* Let the hardware find the reset value of each of @counters. */
static void map_reset_values(CPUX86State *env, uint64_t counters,
                             PebsShadow *shadow)
{
    const PMCMap *map = &env->pmu_config.map;
    unsigned format = x86_cpu_pebs_format(env_archcpu(env));

    shadow->present = 0;
    for (; counters; counters &= counters - 1) {
        unsigned bit = ctz64(counters);
        unsigned physical = map->physical[pmc_index(bit)];
        uint8_t value[8];

        if (guest_read(env, env->msr_ds_area +
                            pebs_ds_reset_offset(bit, format),
                       value, sizeof(value))) {
            shadow->reset[physical] = ldq_le_p(value);
            shadow->present |= BIT_ULL(pmc_bit(physical));
        }
    }
}

/* Let a record name the guest's counters. */
static void rewrite_record(CPUX86State *env, uint8_t *staging, size_t size)
{
    uint64_t physical;

    pebs_record_get_counters(staging, size, &physical);
    pebs_record_set_counters(staging, size,
                             pmc_map_virtual(&env->pmu_config.map, physical));
}

static bool is_crossed(CPUX86State *env, uint64_t counters)
{
    return pmc_map_crossed(&env->pmu_config.map, counters) != 0;
}

/* ---- */

static void drop_record(CPUX86State *env, uint64_t counters)
{
    qatomic_set(&env->pebs_dropped_records, env->pebs_dropped_records + 1);
    trace_x86_pebs_dropped(env_cpu(env)->cpu_index, env->pmu.ip, counters);
}

static void count_record(CPUX86State *env, uint64_t counters)
{
    uint64_t *records = is_crossed(env, counters) ? &env->pebs_slow_records
                                                  : &env->pebs_fast_records;

    qatomic_set(records, *records + 1);
}

/*
 * One record for all of @counters.  Returns whether the guest has to make
 * room: for lack of it the record is lost, or it is the last that the guest
 * wanted to wait for.
 */
static bool record(CPUX86State *env, PebsDsArea *ds, uint64_t counters,
                   uint64_t data_cfg, uint64_t address)
{
    uint8_t staging[PEBS_RECORD_MAX_SIZE] QEMU_UNINITIALIZED;
    uint64_t physical = pmc_map_physical(&env->pmu_config.map, counters);
    PebsDsRoom room;
    size_t size;

    size = make_record(env, staging, sizeof(staging), physical, data_cfg,
                       address);
    if (is_crossed(env, counters)) {
        rewrite_record(env, staging, size);
    }
    room = pebs_ds_check(ds, size);
    if (room == PEBS_DS_WRITE && write_record(env, ds, staging, size)) {
        count_record(env, counters);
        trace_x86_pebs_record(env_cpu(env)->cpu_index, env->pmu.ip, counters,
                              ds->index);
        return pebs_ds_threshold_reached(ds);
    }
    drop_record(env, counters);
    return room == PEBS_DS_FULL;
}

bool x86_pebs_record(CPUX86State *env, uint64_t counters, uint64_t address)
{
    uint8_t management[PEBS_DS_MANAGEMENT_SIZE];
    uint64_t adaptive = adaptive_counters(env, counters);
    uint64_t basic = counters & ~adaptive;
    PebsShadow shadow QEMU_UNINITIALIZED;
    bool due = false;
    PebsDsArea ds;

    if (!guest_read(env, env->msr_ds_area + PEBS_DS_BASE, management,
                    sizeof(management))) {
        drop_record(env, counters);
        return false;
    }
    pebs_ds_decode(&ds, management);

    if (adaptive) {
        due |= record(env, &ds, adaptive, env->msr_pebs_data_cfg, address);
    }
    if (basic) {
        due |= record(env, &ds, basic, 0, address);
    }
    map_reset_values(env, counters, &shadow);
    reload(env, pmc_map_physical(&env->pmu_config.map, counters), &shadow);

    /*
     * LVTPC is masked from a PMI until the guest has handled it, so there is
     * no need to hold back a second one here.  A PMI that finds it masked is
     * lost: the next record that is due makes up for it.
     */
    if (due) {
        env->msr_global_status |= PEBS_STATUS_OVF_BUF;
    }
    return due;
}
