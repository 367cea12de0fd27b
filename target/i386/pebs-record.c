/*
 * Intel PEBS: codec for the DS save area and for PEBS records
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "pebs-record.h"

/* ---- DS save area ---- */

uint32_t pebs_ds_reset_offset(unsigned counter, unsigned format)
{
    /* struct debug_store has 32 GP slots, but Ice Lake's hardware only 8 */
    unsigned gp_slots = format < 5 ? PEBS_MAX_GP_FORMAT4 : PEBS_MAX_GP;
    unsigned slot;

    if (counter < gp_slots) {
        slot = counter;
    } else if (counter >= PEBS_FIXED_BASE &&
               counter < PEBS_FIXED_BASE + PEBS_MAX_FIXED) {
        slot = gp_slots + (counter - PEBS_FIXED_BASE);
    } else {
        return 0;
    }
    return PEBS_DS_RESET + slot * sizeof(uint64_t);
}

void pebs_ds_decode(PebsDsArea *ds, const uint8_t *bytes)
{
    ds->buffer_base = ldq_le_p(bytes + (PEBS_DS_BASE - PEBS_DS_BASE));
    ds->index = ldq_le_p(bytes + (PEBS_DS_INDEX - PEBS_DS_BASE));
    ds->absolute_maximum = ldq_le_p(bytes + (PEBS_DS_MAXIMUM - PEBS_DS_BASE));
    ds->interrupt_threshold =
        ldq_le_p(bytes + (PEBS_DS_THRESHOLD - PEBS_DS_BASE));
}

PebsDsRoom pebs_ds_check(const PebsDsArea *ds, uint64_t size)
{
    if (ds->index < ds->buffer_base || ds->index > ds->absolute_maximum) {
        return PEBS_DS_MALFORMED;
    }
    /* Index + size may wrap around, this cannot */
    if (ds->absolute_maximum - ds->index < size) {
        return PEBS_DS_FULL;
    }
    return PEBS_DS_WRITE;
}

bool pebs_ds_threshold_reached(const PebsDsArea *ds)
{
    return ds->index >= ds->interrupt_threshold;
}

/* ---- PEBS_DATA_CFG ---- */

uint64_t pebs_data_cfg_mask(unsigned format, uint64_t groups)
{
    uint64_t mask = groups & PEBS_DATACFG_GROUPS;

    if (format < 4) {
        return 0;
    }
    if (mask & PEBS_DATACFG_LBRS) {
        mask |= PEBS_DATACFG_LBR_MASK;
    }
    return mask;
}

bool pebs_record_layout(PebsLayout *layout, uint64_t data_cfg)
{
    PebsLayout l = { .size = PEBS_BASIC_SIZE };

    if (data_cfg & ~(PEBS_DATACFG_GROUPS | PEBS_DATACFG_LBR_MASK)) {
        return false;
    }
    if (data_cfg & PEBS_DATACFG_MEMINFO) {
        l.mem = l.size;
        l.size += PEBS_MEMINFO_SIZE;
    }
    if (data_cfg & PEBS_DATACFG_GP) {
        l.gpr = l.size;
        l.size += PEBS_GPRS_SIZE;
    }
    if (data_cfg & PEBS_DATACFG_XMMS) {
        l.xmm = l.size;
        l.size += PEBS_XMMS_SIZE;
    }
    if (data_cfg & PEBS_DATACFG_LBRS) {
        /* The field holds the number of entries less one */
        l.lbr_count =
            ((data_cfg & PEBS_DATACFG_LBR_MASK) >> PEBS_DATACFG_LBR_SHIFT) + 1;
        l.lbr = l.size;
        l.size += l.lbr_count * PEBS_LBR_ENTRY_SIZE;
    }
    *layout = l;
    return true;
}

size_t pebs_record_size(uint64_t data_cfg)
{
    PebsLayout l;

    return pebs_record_layout(&l, data_cfg) ? l.size : 0;
}

/* ---- writing ---- */

static void put_quads(uint8_t *p, const uint64_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        stq_le_p(p + i * sizeof(*v), v[i]);
    }
}

static void put_basic(uint8_t *p, uint64_t data_cfg, uint64_t size,
                      const PebsSample *s)
{
    uint64_t format = (data_cfg & PEBS_FORMAT_GROUPS_MASK) |
                      ((uint64_t)s->retire_latency <<
                       PEBS_FORMAT_LATENCY_SHIFT) |
                      (size << PEBS_FORMAT_SIZE_SHIFT);

    stq_le_p(p + PEBS_BASIC_FORMAT, format);
    stq_le_p(p + PEBS_BASIC_IP, s->ip);
    stq_le_p(p + PEBS_BASIC_COUNTERS, s->applicable_counters);
    stq_le_p(p + PEBS_BASIC_TSC, s->tsc);
}

static void put_mem(uint8_t *p, const PebsSample *s)
{
    stq_le_p(p + 0, s->mem.address);
    stq_le_p(p + 8, s->mem.aux);
    stq_le_p(p + 16, s->mem.latency);
    stq_le_p(p + 24, s->mem.tsx);
}

static void put_gpr(uint8_t *p, const PebsSample *s)
{
    stq_le_p(p + 0, s->gpr.flags);
    stq_le_p(p + 8, s->gpr.ip);
    put_quads(p + 16, s->gpr.regs, 16);
}

static void put_xmm(uint8_t *p, const PebsSample *s)
{
    for (int i = 0; i < 16; i++) {
        put_quads(p + i * 16, s->xmm[i], 2);
    }
}

static void put_lbr(uint8_t *p, unsigned count, const PebsSample *s)
{
    static const PebsLbr none;

    for (unsigned i = 0; i < count; i++, p += PEBS_LBR_ENTRY_SIZE) {
        const PebsLbr *e = s->lbr && i < s->lbr_count ? &s->lbr[i] : &none;

        stq_le_p(p + 0, e->from);
        stq_le_p(p + 8, e->to);
        stq_le_p(p + 16, e->info);
    }
}

size_t pebs_record_encode(uint8_t *buf, size_t len, uint64_t data_cfg,
                          const PebsSample *s)
{
    PebsLayout l;

    if (!pebs_record_layout(&l, data_cfg) || len < l.size) {
        return 0;
    }
    put_basic(buf, data_cfg, l.size, s);
    if (l.mem) {
        put_mem(buf + l.mem, s);
    }
    if (l.gpr) {
        put_gpr(buf + l.gpr, s);
    }
    if (l.xmm) {
        put_xmm(buf + l.xmm, s);
    }
    if (l.lbr) {
        put_lbr(buf + l.lbr, l.lbr_count, s);
    }
    return l.size;
}

/* ---- reading ---- */

PebsResult pebs_record_at(const uint8_t *buf, size_t len, size_t offset,
                          size_t *size)
{
    size_t n;

    if (offset == len) {
        return PEBS_RECORD_END;
    }
    if (offset > len || len - offset < PEBS_BASIC_SIZE) {
        return PEBS_RECORD_MALFORMED;
    }
    n = ldq_le_p(buf + offset + PEBS_BASIC_FORMAT) >> PEBS_FORMAT_SIZE_SHIFT;
    if (n < PEBS_BASIC_SIZE || n % sizeof(uint64_t) || n > len - offset) {
        return PEBS_RECORD_MALFORMED;
    }
    *size = n;
    return PEBS_RECORD_OK;
}

static void get_quads(uint64_t *v, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = ldq_le_p(p + i * sizeof(*v));
    }
}

static void get_basic(PebsSample *s, const uint8_t *p)
{
    s->retire_latency =
        ldq_le_p(p + PEBS_BASIC_FORMAT) >> PEBS_FORMAT_LATENCY_SHIFT;
    s->ip = ldq_le_p(p + PEBS_BASIC_IP);
    s->applicable_counters = ldq_le_p(p + PEBS_BASIC_COUNTERS);
    s->tsc = ldq_le_p(p + PEBS_BASIC_TSC);
}

static void get_mem(PebsSample *s, const uint8_t *p)
{
    s->mem.address = ldq_le_p(p + 0);
    s->mem.aux = ldq_le_p(p + 8);
    s->mem.latency = ldq_le_p(p + 16);
    s->mem.tsx = ldq_le_p(p + 24);
}

static void get_gpr(PebsSample *s, const uint8_t *p)
{
    s->gpr.flags = ldq_le_p(p + 0);
    s->gpr.ip = ldq_le_p(p + 8);
    get_quads(s->gpr.regs, p + 16, 16);
}

static void get_xmm(PebsSample *s, const uint8_t *p)
{
    for (int i = 0; i < 16; i++) {
        get_quads(s->xmm[i], p + i * 16, 2);
    }
}

/*
 * The layout of the record at @buf.  A size other than that of the groups
 * means that one of the two is a lie (Linux warns of it in
 * setup_pebs_adaptive_sample_data()).
 */
static PebsResult find_groups(const uint8_t *buf, size_t len, PebsLayout *l,
                              uint64_t *data_cfg)
{
    size_t size;

    if (pebs_record_at(buf, len, 0, &size) != PEBS_RECORD_OK) {
        return PEBS_RECORD_MALFORMED;
    }
    *data_cfg = ldq_le_p(buf + PEBS_BASIC_FORMAT) & PEBS_FORMAT_GROUPS_MASK;
    if (!pebs_record_layout(l, *data_cfg)) {
        return PEBS_RECORD_UNKNOWN;
    }
    return l->size == size ? PEBS_RECORD_OK : PEBS_RECORD_MALFORMED;
}

PebsResult pebs_record_decode(const uint8_t *buf, size_t len, PebsSample *s,
                              uint64_t *data_cfg)
{
    PebsLayout l = { 0 };
    PebsResult result;

    memset(s, 0, sizeof(*s));
    *data_cfg = 0;
    result = find_groups(buf, len, &l, data_cfg);
    if (result == PEBS_RECORD_MALFORMED) {
        *data_cfg = 0;
        return result;
    }
    get_basic(s, buf);
    if (result != PEBS_RECORD_OK) {
        return result;
    }
    if (l.mem) {
        get_mem(s, buf + l.mem);
    }
    if (l.gpr) {
        get_gpr(s, buf + l.gpr);
    }
    if (l.xmm) {
        get_xmm(s, buf + l.xmm);
    }
    s->lbr_count = l.lbr_count;
    return PEBS_RECORD_OK;
}

bool pebs_record_lbr(const uint8_t *buf, size_t len, unsigned n, PebsLbr *lbr)
{
    PebsLayout l;
    uint64_t data_cfg;
    const uint8_t *p;

    if (find_groups(buf, len, &l, &data_cfg) != PEBS_RECORD_OK ||
        n >= l.lbr_count) {
        return false;
    }
    p = buf + l.lbr + n * PEBS_LBR_ENTRY_SIZE;
    lbr->from = ldq_le_p(p + 0);
    lbr->to = ldq_le_p(p + 8);
    lbr->info = ldq_le_p(p + 16);
    return true;
}

/* ---- rewriting, for the slow path ---- */

bool pebs_record_get_counters(const uint8_t *buf, size_t len,
                              uint64_t *counters)
{
    size_t size;

    if (pebs_record_at(buf, len, 0, &size) != PEBS_RECORD_OK) {
        return false;
    }
    *counters = ldq_le_p(buf + PEBS_BASIC_COUNTERS);
    return true;
}

bool pebs_record_set_counters(uint8_t *buf, size_t len, uint64_t counters)
{
    size_t size;

    if (pebs_record_at(buf, len, 0, &size) != PEBS_RECORD_OK) {
        return false;
    }
    stq_le_p(buf + PEBS_BASIC_COUNTERS, counters);
    return true;
}
