/*
 * Fuzzer of the PEBS record and DS area codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first byte of an input chooses what the rest is: a buffer of records as
 * a guest may have left it, the parts of a record to encode, or DS management
 * fields.  Every call gets memory of exactly the size it is told, so that the
 * address sanitizer sees the first byte too many.
 */
#include "qemu/osdep.h"
#include "target/i386/pebs-record.h"

#define CHECK(cond) do { if (!(cond)) { __builtin_trap(); } } while (0)

static void *copy(const void *data, size_t len)
{
    void *p = malloc(len);

    CHECK(p || !len);
    if (len) {
        memcpy(p, data, len);
    }
    return p;
}

/* Fills @dst from the input, the rest with zeros */
static void take(void *dst, size_t want, const uint8_t **data, size_t *len)
{
    size_t n = want < *len ? want : *len;

    memset(dst, 0, want);
    if (n) {
        memcpy(dst, *data, n);
    }
    *data += n;
    *len -= n;
}

/* Decoded, then encoded: the same bytes */
static void check_decode(const uint8_t *record, size_t size)
{
    PebsSample s;
    PebsLbr lbr[PEBS_MAX_LBRS];
    uint64_t cfg;
    uint8_t *again;

    if (pebs_record_decode(record, size, &s, &cfg) != PEBS_RECORD_OK) {
        CHECK(!pebs_record_lbr(record, size, 0, &lbr[0]));
        return;
    }
    CHECK(s.lbr_count <= PEBS_MAX_LBRS);
    for (unsigned i = 0; i < s.lbr_count; i++) {
        CHECK(pebs_record_lbr(record, size, i, &lbr[i]));
    }
    CHECK(!pebs_record_lbr(record, size, s.lbr_count, &lbr[0]));
    s.lbr = lbr;
    CHECK(pebs_record_size(cfg) == size);
    again = malloc(size);
    CHECK(again);
    CHECK(pebs_record_encode(again, size, cfg, &s) == size);
    CHECK(!memcmp(again, record, size));
    free(again);
}

/* Renamed: these 8 bytes, no others */
static void check_rename(const uint8_t *record, size_t size)
{
    uint8_t *other = copy(record, size);
    uint64_t was, is;

    CHECK(pebs_record_get_counters(record, size, &was));
    CHECK(pebs_record_set_counters(other, size, ~was));
    CHECK(pebs_record_get_counters(other, size, &is) && is == ~was);
    CHECK(!memcmp(other, record, PEBS_BASIC_COUNTERS));
    CHECK(!memcmp(other + PEBS_BASIC_TSC, record + PEBS_BASIC_TSC,
                  size - PEBS_BASIC_TSC));
    CHECK(pebs_record_set_counters(other, size, was));
    CHECK(!memcmp(other, record, size));
    free(other);
}

static void fuzz_buffer(const uint8_t *data, size_t len)
{
    uint8_t *buf = copy(data, len);
    size_t offset = 0, size;
    PebsSample s;
    PebsLbr lbr;
    uint64_t v;
    PebsResult result;

    while ((result = pebs_record_at(buf, len, offset, &size)) ==
           PEBS_RECORD_OK) {
        uint8_t *record;

        CHECK(size >= PEBS_BASIC_SIZE && size <= len - offset);
        record = copy(buf + offset, size);
        check_decode(record, size);
        check_rename(record, size);
        free(record);
        offset += size;
    }
    CHECK((result == PEBS_RECORD_END) == (offset == len));
    if (len && result == PEBS_RECORD_MALFORMED && offset == 0) {
        CHECK(pebs_record_decode(buf, len, &s, &v) == PEBS_RECORD_MALFORMED);
        CHECK(!pebs_record_get_counters(buf, len, &v));
        CHECK(!pebs_record_set_counters(buf, len, 0));
        CHECK(!pebs_record_lbr(buf, len, 0, &lbr));
        CHECK(!memcmp(buf, data, len));
    }
    free(buf);
}

static void check_groups(const PebsSample *a, const PebsSample *b,
                         uint64_t cfg)
{
    CHECK(a->ip == b->ip && a->tsc == b->tsc);
    CHECK(a->applicable_counters == b->applicable_counters);
    CHECK(a->retire_latency == b->retire_latency);
    if (cfg & PEBS_DATACFG_MEMINFO) {
        CHECK(!memcmp(&a->mem, &b->mem, sizeof(a->mem)));
    }
    if (cfg & PEBS_DATACFG_GP) {
        CHECK(!memcmp(&a->gpr, &b->gpr, sizeof(a->gpr)));
    }
    if (cfg & PEBS_DATACFG_XMMS) {
        CHECK(!memcmp(a->xmm, b->xmm, sizeof(a->xmm)));
    }
}

static void check_lbrs(const uint8_t *record, size_t size, unsigned count,
                       const PebsSample *s)
{
    static const PebsLbr none;
    PebsLbr e;

    for (unsigned i = 0; i < count; i++) {
        const PebsLbr *want = i < s->lbr_count ? &s->lbr[i] : &none;

        CHECK(pebs_record_lbr(record, size, i, &e));
        CHECK(!memcmp(&e, want, sizeof(e)));
    }
}

/* Encoded, then decoded: the same sample */
static void fuzz_sample(const uint8_t *data, size_t len)
{
    PebsSample s, back;
    PebsLbr lbr[PEBS_MAX_LBRS];
    uint64_t cfg, cfg_back;
    uint16_t room, given;
    size_t size, n;
    uint8_t *buf;

    take(&cfg, sizeof(cfg), &data, &len);
    take(&room, sizeof(room), &data, &len);
    take(&given, sizeof(given), &data, &len);
    take(&s, sizeof(s), &data, &len);
    take(lbr, sizeof(lbr), &data, &len);
    s.lbr = lbr;
    s.lbr_count = given % (PEBS_MAX_LBRS + 1);

    size = pebs_record_size(cfg);
    /* Mostly room enough; else one of the lengths that are too short */
    n = room & 1 || !size ? room % (PEBS_RECORD_MAX_SIZE + 64) : size;
    buf = malloc(n);
    CHECK(buf || !n);
    if (pebs_record_encode(buf, n, cfg, &s)) {
        CHECK(size && n >= size);
        CHECK(pebs_record_decode(buf, n, &back, &cfg_back) == PEBS_RECORD_OK);
        CHECK(cfg_back == cfg);
        check_groups(&s, &back, cfg);
        check_lbrs(buf, n, back.lbr_count, &s);
        check_rename(buf, size);
    } else {
        CHECK(!size || n < size);
    }
    free(buf);
}

static void fuzz_ds(const uint8_t *data, size_t len)
{
    uint8_t bytes[PEBS_DS_MANAGEMENT_SIZE];
    uint8_t *exact;
    uint32_t counter, format, offset;
    uint64_t size;
    PebsDsArea ds;

    take(bytes, sizeof(bytes), &data, &len);
    take(&size, sizeof(size), &data, &len);
    take(&counter, sizeof(counter), &data, &len);
    take(&format, sizeof(format), &data, &len);

    exact = copy(bytes, sizeof(bytes));
    pebs_ds_decode(&ds, exact);
    free(exact);
    if (pebs_ds_check(&ds, size) == PEBS_DS_WRITE) {
        CHECK(ds.index >= ds.buffer_base);
        CHECK(ds.index + size >= ds.index);
        CHECK(ds.index + size <= ds.absolute_maximum);
        ds.index += size;
        CHECK(pebs_ds_threshold_reached(&ds) ==
              (ds.index >= ds.interrupt_threshold));
    }
    /* The area is at most one page (Linux: struct debug_store) */
    offset = pebs_ds_reset_offset(counter, format);
    CHECK(offset == 0 || offset >= PEBS_DS_RESET);
    CHECK(offset % 8 == 0 && offset < 4096);
    CHECK((pebs_data_cfg_mask(format, size) & ~0xff00000fULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        fuzz_buffer(data + 1, len - 1);
        break;
    case 1:
        fuzz_sample(data + 1, len - 1);
        break;
    default:
        fuzz_ds(data + 1, len - 1);
        break;
    }
    return 0;
}
