/*
 * Tests of the PEBS record and DS area codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Three kinds: records spelled out byte for byte from the tables of the SDM;
 * properties over all layouts, against a decoder of this file's own; and
 * edges: each truncated length, each boundary of the DS area.
 */
#include "qemu/osdep.h"
#include "target/i386/pebs-record.h"

#define ALL_GROUPS 16
#define CANARY 0xc5

/* ---- a second decoder: a cursor, after how Linux walks the groups ---- */

typedef struct Cursor {
    const uint8_t *at;
    const uint8_t *end;
    bool broken;
} Cursor;

typedef struct Seen {
    uint64_t format_size, ip, counters, tsc;
    uint64_t address, aux, latency, tsx_tuning;
    uint64_t flags, gprs_ip, ax, cx, dx, bx, sp, bp, si, di;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t xmm[32];
    uint64_t lbr[3 * 256];
    unsigned nr_lbr;
} Seen;

static uint64_t take(Cursor *c)
{
    uint64_t v;

    if (c->end - c->at < 8) {
        c->broken = true;
        return 0;
    }
    v = (uint64_t)c->at[0] | (uint64_t)c->at[1] << 8 |
        (uint64_t)c->at[2] << 16 | (uint64_t)c->at[3] << 24 |
        (uint64_t)c->at[4] << 32 | (uint64_t)c->at[5] << 40 |
        (uint64_t)c->at[6] << 48 | (uint64_t)c->at[7] << 56;
    c->at += 8;
    return v;
}

static void take_gprs(Cursor *c, Seen *o)
{
    uint64_t *in_order[] = {
        &o->flags, &o->gprs_ip, &o->ax, &o->cx, &o->dx, &o->bx,
        &o->sp, &o->bp, &o->si, &o->di, &o->r8, &o->r9,
        &o->r10, &o->r11, &o->r12, &o->r13, &o->r14, &o->r15,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(in_order); i++) {
        *in_order[i] = take(c);
    }
}

/* Returns the bytes walked over, 0 if they aren't what the record says */
static size_t walk(const uint8_t *record, size_t len, Seen *o)
{
    Cursor c = { record, record + len, false };

    memset(o, 0, sizeof(*o));
    o->format_size = take(&c);
    o->ip = take(&c);
    o->counters = take(&c);
    o->tsc = take(&c);
    if (o->format_size & 1) {
        o->address = take(&c);
        o->aux = take(&c);
        o->latency = take(&c);
        o->tsx_tuning = take(&c);
    }
    if (o->format_size & 2) {
        take_gprs(&c, o);
    }
    for (int i = 0; (o->format_size & 4) && i < 32; i++) {
        o->xmm[i] = take(&c);
    }
    if (o->format_size & 8) {
        o->nr_lbr = 1 + (o->format_size >> 24 & 255);
        for (unsigned i = 0; i < 3 * o->nr_lbr; i++) {
            o->lbr[i] = take(&c);
        }
    }
    if (c.broken || c.at - record != (ptrdiff_t)(o->format_size >> 48)) {
        return 0;
    }
    return c.at - record;
}

/* ---- helpers ---- */

static uint64_t random64(void)
{
    return (uint64_t)(uint32_t)g_test_rand_int() << 32 |
           (uint32_t)g_test_rand_int();
}

static void random_fill(void *p, size_t bytes)
{
    uint8_t *b = p;

    for (size_t i = 0; i < bytes; i++) {
        b[i] = g_test_rand_int();
    }
}

/* A PEBS_DATA_CFG from its parts; @lbrs is the number of entries less one */
static uint64_t make_cfg(unsigned groups, unsigned lbrs)
{
    return groups | (uint64_t)lbrs << 24;
}

static void random_sample(PebsSample *s, PebsLbr *lbr, unsigned lbr_count)
{
    random_fill(s, sizeof(*s));
    random_fill(lbr, lbr_count * sizeof(*lbr));
    s->lbr = lbr;
    s->lbr_count = lbr_count;
}

/* Each field has a value of its own, so that none can stand for another */
static void plain_sample(PebsSample *s)
{
    memset(s, 0, sizeof(*s));
    s->ip = 0xffffffff81000123;
    s->applicable_counters = 0x0000000100000002;
    s->tsc = 0x1122334455667788;
    s->mem.address = 0x00007f0011223344;
    s->mem.aux = 0xa1;
    s->mem.latency = 0xb2;
    s->mem.tsx = 0xc3;
    s->gpr.flags = 0x246;
    s->gpr.ip = 0xffffffff81000126;
    for (unsigned i = 0; i < 16; i++) {
        s->gpr.regs[i] = 0x0101010101010101 * (i + 1);
        s->xmm[i][0] = 0x1000 + i;
        s->xmm[i][1] = 0x2000 + i;
    }
}

/* Compare with hex text; blanks are for the reader */
static void assert_bytes(const uint8_t *got, size_t len, const char *text)
{
    size_t i = 0;

    for (const char *t = text; *t;) {
        if (*t == ' ') {
            t++;
            continue;
        }
        g_assert_cmpuint(i, <, len);
        g_assert_cmphex(got[i], ==, (unsigned)(g_ascii_xdigit_value(t[0]) * 16 +
                                               g_ascii_xdigit_value(t[1])));
        t += 2;
        i++;
    }
    g_assert_cmpuint(i, ==, len);
}

static void assert_same_mem(const PebsSample *a, const Seen *b)
{
    g_assert_cmphex(a->mem.address, ==, b->address);
    g_assert_cmphex(a->mem.aux, ==, b->aux);
    g_assert_cmphex(a->mem.latency, ==, b->latency);
    g_assert_cmphex(a->mem.tsx, ==, b->tsx_tuning);
}

static void assert_same_gpr(const PebsSample *a, const Seen *b)
{
    const uint64_t regs[16] = {
        b->ax, b->cx, b->dx, b->bx, b->sp, b->bp, b->si, b->di,
        b->r8, b->r9, b->r10, b->r11, b->r12, b->r13, b->r14, b->r15,
    };

    g_assert_cmphex(a->gpr.flags, ==, b->flags);
    g_assert_cmphex(a->gpr.ip, ==, b->gprs_ip);
    for (int i = 0; i < 16; i++) {
        g_assert_cmphex(a->gpr.regs[i], ==, regs[i]);
    }
}

/* The sample that went in, or came out, against the second decoder */
static void assert_same(const PebsSample *a, const Seen *b)
{
    g_assert_cmphex(a->ip, ==, b->ip);
    g_assert_cmphex(a->applicable_counters, ==, b->counters);
    g_assert_cmphex(a->tsc, ==, b->tsc);
    g_assert_cmphex(a->retire_latency, ==, b->format_size >> 32 & 0xffff);
    if (b->format_size & 1) {
        assert_same_mem(a, b);
    }
    if (b->format_size & 2) {
        assert_same_gpr(a, b);
    }
    for (int i = 0; (b->format_size & 4) && i < 32; i++) {
        g_assert_cmphex(a->xmm[i / 2][i % 2], ==, b->xmm[i]);
    }
}

/* ---- records byte for byte ---- */

#define BASIC_BYTES(format, size)                                       \
    format " 0000 " size                /* format, latency, size */     \
    " 23010081 ffffffff"                /* IP */                        \
    " 02000000 01000000"                /* counters: GP 1, fixed 0 */   \
    " 88776655 44332211"                /* TSC */

#define MEM_BYTES                                                       \
    " 44332211 007f0000"                /* address */                   \
    " a1000000 00000000"                /* aux */                       \
    " b2000000 00000000"                /* latency */                   \
    " c3000000 00000000"                /* TSX */

#define GPR_BYTES                                                       \
    " 46020000 00000000"                /* flags */                     \
    " 26010081 ffffffff"                /* IP */                        \
    " 01010101 01010101"                /* AX */                        \
    " 02020202 02020202"                /* CX */                        \
    " 03030303 03030303"                /* DX */                        \
    " 04040404 04040404"                /* BX */                        \
    " 05050505 05050505"                /* SP */                        \
    " 06060606 06060606"                /* BP */                        \
    " 07070707 07070707"                /* SI */                        \
    " 08080808 08080808"                /* DI */                        \
    " 09090909 09090909"                /* R8 */                        \
    " 0a0a0a0a 0a0a0a0a"                /* R9 */                        \
    " 0b0b0b0b 0b0b0b0b"                /* R10 */                       \
    " 0c0c0c0c 0c0c0c0c"                /* R11 */                       \
    " 0d0d0d0d 0d0d0d0d"                /* R12 */                       \
    " 0e0e0e0e 0e0e0e0e"                /* R13 */                       \
    " 0f0f0f0f 0f0f0f0f"                /* R14 */                       \
    " 10101010 10101010"                /* R15 */

#define XMM_BYTES                                                       \
    " 00100000 00000000 00200000 00000000"      /* XMM0 */              \
    " 01100000 00000000 01200000 00000000"                              \
    " 02100000 00000000 02200000 00000000"                              \
    " 03100000 00000000 03200000 00000000"                              \
    " 04100000 00000000 04200000 00000000"                              \
    " 05100000 00000000 05200000 00000000"                              \
    " 06100000 00000000 06200000 00000000"                              \
    " 07100000 00000000 07200000 00000000"                              \
    " 08100000 00000000 08200000 00000000"                              \
    " 09100000 00000000 09200000 00000000"                              \
    " 0a100000 00000000 0a200000 00000000"                              \
    " 0b100000 00000000 0b200000 00000000"                              \
    " 0c100000 00000000 0c200000 00000000"                              \
    " 0d100000 00000000 0d200000 00000000"                              \
    " 0e100000 00000000 0e200000 00000000"                              \
    " 0f100000 00000000 0f200000 00000000"      /* XMM15 */

#define LBR_BYTES                                                       \
    " 11000000 00000000 12000000 00000000 13000000 00000000"            \
    " 21000000 00000000 22000000 00000000 23000000 00000000"

static const PebsLbr two_lbrs[] = {
    { .from = 0x11, .to = 0x12, .info = 0x13 },
    { .from = 0x21, .to = 0x22, .info = 0x23 },
};

typedef struct Known {
    const char *name;
    uint64_t data_cfg;
    const char *bytes;
} Known;

static const Known known[] = {
    { "basic", 0, BASIC_BYTES("00000000", "2000") },
    { "mem", 1, BASIC_BYTES("01000000", "4000") MEM_BYTES },
    { "gpr", 2, BASIC_BYTES("02000000", "b000") GPR_BYTES },
    { "xmm", 4, BASIC_BYTES("04000000", "2001") XMM_BYTES },
    { "lbr", 0x01000008, BASIC_BYTES("08000001", "5000") LBR_BYTES },
    { "mem-xmm", 5, BASIC_BYTES("05000000", "4001") MEM_BYTES XMM_BYTES },
    { "all", 0x0100000f, BASIC_BYTES("0f000001", "0002")
      MEM_BYTES GPR_BYTES XMM_BYTES LBR_BYTES },
    /* The number of entries without the group: reported, nothing else */
    { "count-only", 0x1f000001, BASIC_BYTES("0100001f", "4000") MEM_BYTES },
};

static void test_known(const void *data)
{
    const Known *k = data;
    uint8_t buf[PEBS_RECORD_MAX_SIZE];
    PebsSample s, back;
    uint64_t cfg;
    size_t n;

    plain_sample(&s);
    s.lbr = two_lbrs;
    s.lbr_count = 2;
    n = pebs_record_encode(buf, sizeof(buf), k->data_cfg, &s);
    assert_bytes(buf, n, k->bytes);
    g_assert_cmpint(pebs_record_decode(buf, n, &back, &cfg), ==,
                    PEBS_RECORD_OK);
    g_assert_cmphex(cfg, ==, k->data_cfg);
    g_assert_cmphex(back.ip, ==, s.ip);
}

static void test_retire_latency(void)
{
    uint8_t buf[PEBS_BASIC_SIZE];
    PebsSample s, back;
    uint64_t cfg;

    plain_sample(&s);
    s.retire_latency = 0xbeef;
    g_assert_cmpuint(pebs_record_encode(buf, sizeof(buf), 0, &s), ==, 32);
    assert_bytes(buf, 8, "00000000 efbe 2000");
    g_assert_cmpint(pebs_record_decode(buf, sizeof(buf), &back, &cfg), ==,
                    PEBS_RECORD_OK);
    g_assert_cmphex(back.retire_latency, ==, 0xbeef);
}

/* ---- properties ---- */

static void test_sizes(void)
{
    size_t largest = 0;

    for (unsigned groups = 0; groups < ALL_GROUPS; groups++) {
        for (unsigned lbrs = 0; lbrs < 256; lbrs++) {
            size_t want = 32 + (groups & 1 ? 4 * 8 : 0) +
                          (groups & 2 ? 18 * 8 : 0) +
                          (groups & 4 ? 16 * 16 : 0) +
                          (groups & 8 ? (lbrs + 1) * 3 * 8 : 0);

            g_assert_cmpuint(pebs_record_size(make_cfg(groups, lbrs)), ==,
                             want);
            largest = MAX(largest, want);
        }
    }
    g_assert_cmpuint(largest, ==, PEBS_RECORD_MAX_SIZE);
}

static void round_trip(uint64_t cfg, const PebsSample *s)
{
    size_t size = pebs_record_size(cfg);
    g_autofree uint8_t *buf = g_malloc(size);
    g_autofree Seen *seen = g_new(Seen, 1);
    PebsSample back;
    uint64_t cfg_back;
    PebsLbr e;

    g_assert_cmpuint(pebs_record_encode(buf, size, cfg, s), ==, size);
    g_assert_cmpuint(walk(buf, size, seen), ==, size);
    g_assert_cmphex(seen->format_size & 0xffffffff, ==, cfg);
    assert_same(s, seen);

    g_assert_cmpint(pebs_record_decode(buf, size, &back, &cfg_back), ==,
                    PEBS_RECORD_OK);
    g_assert_cmphex(cfg_back, ==, cfg);
    g_assert_null(back.lbr);
    g_assert_cmpuint(back.lbr_count, ==, seen->nr_lbr);
    assert_same(&back, seen);

    for (unsigned i = 0; i < seen->nr_lbr; i++) {
        bool given = s->lbr && i < s->lbr_count;

        g_assert_true(pebs_record_lbr(buf, size, i, &e));
        g_assert_cmphex(e.from, ==, seen->lbr[3 * i]);
        g_assert_cmphex(e.to, ==, seen->lbr[3 * i + 1]);
        g_assert_cmphex(e.info, ==, seen->lbr[3 * i + 2]);
        g_assert_cmphex(e.from, ==, given ? s->lbr[i].from : 0);
        g_assert_cmphex(e.to, ==, given ? s->lbr[i].to : 0);
        g_assert_cmphex(e.info, ==, given ? s->lbr[i].info : 0);
    }
    g_assert_false(pebs_record_lbr(buf, size, seen->nr_lbr, &e));
    g_assert_false(pebs_record_lbr(buf, size, UINT_MAX, &e));
}

static void test_round_trip(void)
{
    g_autofree PebsLbr *lbr = g_new(PebsLbr, PEBS_MAX_LBRS);
    PebsSample s;

    for (int i = 0; i < 4000; i++) {
        unsigned given = (uint32_t)g_test_rand_int() % (PEBS_MAX_LBRS + 1);

        random_sample(&s, lbr, given);
        round_trip(make_cfg(i % ALL_GROUPS, g_test_rand_int() & 255), &s);
        s.lbr = NULL;
        round_trip(make_cfg(i % ALL_GROUPS, g_test_rand_int() & 255), &s);
    }
}

/* What decode does not find in a record is zero, not what was there before */
static void test_decode_clears(void)
{
    uint8_t buf[PEBS_BASIC_SIZE];
    PebsSample s, back, want;
    uint64_t cfg;

    plain_sample(&s);
    pebs_record_encode(buf, sizeof(buf), 0, &s);
    memset(&back, CANARY, sizeof(back));
    pebs_record_decode(buf, sizeof(buf), &back, &cfg);
    memset(&want, 0, sizeof(want));
    want.ip = s.ip;
    want.applicable_counters = s.applicable_counters;
    want.tsc = s.tsc;
    g_assert_cmpmem(&back, sizeof(back), &want, sizeof(want));
}

/* Neither side touches a byte outside the record, at any alignment */
static void test_stays_inside(void)
{
    uint8_t buf[PEBS_RECORD_MAX_SIZE + 32];
    PebsSample s;

    plain_sample(&s);
    for (unsigned groups = 0; groups < ALL_GROUPS; groups++) {
        for (unsigned shift = 0; shift < 8; shift++) {
            size_t size = pebs_record_size(make_cfg(groups, 3));

            memset(buf, CANARY, sizeof(buf));
            g_assert_cmpuint(pebs_record_encode(buf + 8 + shift, size,
                                                make_cfg(groups, 3), &s),
                             ==, size);
            for (size_t i = 0; i < sizeof(buf); i++) {
                if (i < 8 + shift || i >= 8 + shift + size) {
                    g_assert_cmphex(buf[i], ==, CANARY);
                }
            }
        }
    }
}

/* Exact allocations: a sanitizer sees the first byte too many */
static void refuse_truncated(const uint8_t *record, size_t size, size_t len)
{
    g_autofree uint8_t *cut = g_malloc(MAX(len, 1));
    g_autofree uint8_t *before = g_malloc(MAX(len, 1));
    PebsResult want = len ? PEBS_RECORD_MALFORMED : PEBS_RECORD_END;
    PebsSample s;
    PebsLbr e;
    uint64_t v = 0x5a;
    size_t n = 0x5a;

    g_assert_cmpuint(len, <, size);
    memcpy(cut, record, len);
    memcpy(before, record, len);
    g_assert_cmpint(pebs_record_at(cut, len, 0, &n), ==, want);
    g_assert_cmpuint(n, ==, 0x5a);
    g_assert_false(pebs_record_get_counters(cut, len, &v));
    g_assert_cmphex(v, ==, 0x5a);
    g_assert_false(pebs_record_set_counters(cut, len, ~0ULL));
    g_assert_cmpmem(cut, len, before, len);
    g_assert_false(pebs_record_lbr(cut, len, 0, &e));
    g_assert_cmpint(pebs_record_decode(cut, len, &s, &v), ==,
                    PEBS_RECORD_MALFORMED);
    g_assert_cmphex(s.ip, ==, 0);
    g_assert_cmphex(v, ==, 0);
}

static void test_truncated(void)
{
    uint8_t record[PEBS_RECORD_MAX_SIZE];
    PebsSample s;

    plain_sample(&s);
    for (unsigned groups = 0; groups < ALL_GROUPS; groups++) {
        uint64_t cfg = make_cfg(groups, 2);
        size_t size = pebs_record_encode(record, sizeof(record), cfg, &s);

        for (size_t len = 0; len < size; len++) {
            g_autofree uint8_t *small = g_malloc(len + 1);

            memset(small, CANARY, len + 1);
            g_assert_cmpuint(pebs_record_encode(small, len, cfg, &s), ==, 0);
            for (size_t i = 0; i <= len; i++) {
                g_assert_cmphex(small[i], ==, CANARY);
            }
            refuse_truncated(record, size, len);
        }
    }
}

static void test_unknown_groups(void)
{
    uint8_t buf[PEBS_BASIC_SIZE];
    uint8_t counters[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    PebsSample s, back;
    PebsLayout l;
    PebsLbr e;
    uint64_t cfg;
    size_t n;

    for (unsigned bit = 0; bit < 64; bit++) {
        bool is_known = bit < 4 || (bit >= 24 && bit < 32);

        plain_sample(&s);
        g_assert_cmpint(pebs_record_layout(&l, 1ULL << bit), ==, is_known);
        if (is_known) {
            continue;
        }
        g_assert_cmpuint(pebs_record_size(1ULL << bit), ==, 0);
        g_assert_cmpuint(pebs_record_encode(buf, sizeof(buf), 1ULL << bit, &s),
                         ==, 0);
        if (bit >= 32) {
            continue;
        }
        /* Such a record can be walked over and renamed, but not taken apart */
        pebs_record_encode(buf, sizeof(buf), 0, &s);
        buf[bit / 8] = 1 << bit % 8;
        g_assert_cmpint(pebs_record_at(buf, sizeof(buf), 0, &n), ==,
                        PEBS_RECORD_OK);
        g_assert_true(pebs_record_set_counters(buf, sizeof(buf),
                                               0x0807060504030201));
        g_assert_cmpmem(buf + 16, 8, counters, 8);
        g_assert_cmpint(pebs_record_decode(buf, sizeof(buf), &back, &cfg), ==,
                        PEBS_RECORD_UNKNOWN);
        g_assert_cmphex(cfg, ==, 1ULL << bit);
        g_assert_cmphex(back.ip, ==, s.ip);
        g_assert_cmphex(back.applicable_counters, ==, 0x0807060504030201);
        g_assert_false(pebs_record_lbr(buf, sizeof(buf), 0, &e));
    }
}

/* ---- the walk ---- */

static void set_size(uint8_t *record, unsigned size)
{
    record[6] = size;
    record[7] = size >> 8;
}

static void test_record_sizes(void)
{
    uint8_t buf[4096] = { 0 };
    PebsSample s;
    uint64_t cfg;
    size_t n;

    for (unsigned size = 0; size <= 0xffff; size++) {
        bool good = size >= 32 && size % 8 == 0 && size <= sizeof(buf);

        set_size(buf, size);
        n = 0;
        g_assert_cmpint(pebs_record_at(buf, sizeof(buf), 0, &n), ==,
                        good ? PEBS_RECORD_OK : PEBS_RECORD_MALFORMED);
        g_assert_cmpuint(n, ==, good ? size : 0);
        /* Format 0 is the basic group alone: any other size is a lie */
        g_assert_cmpint(pebs_record_decode(buf, sizeof(buf), &s, &cfg), ==,
                        size == 32 ? PEBS_RECORD_OK : PEBS_RECORD_MALFORMED);
    }
}

static void test_walk(void)
{
    static const uint64_t cfgs[] = { 0, 0x0f000008, 2, 0x0300000f, 5, 0 };
    uint8_t buf[8192];
    size_t len = 0, offset = 0, n, starts[G_N_ELEMENTS(cfgs)];
    PebsSample s;
    uint64_t counters;

    plain_sample(&s);
    for (unsigned i = 0; i < G_N_ELEMENTS(cfgs); i++) {
        s.applicable_counters = 1ULL << i;
        starts[i] = len;
        len += pebs_record_encode(buf + len, sizeof(buf) - len, cfgs[i], &s);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(cfgs); i++) {
        g_assert_cmpuint(offset, ==, starts[i]);
        g_assert_cmpint(pebs_record_at(buf, len, offset, &n), ==,
                        PEBS_RECORD_OK);
        g_assert_true(pebs_record_get_counters(buf + offset, n, &counters));
        g_assert_cmphex(counters, ==, 1ULL << i);
        offset += n;
    }
    g_assert_cmpint(pebs_record_at(buf, len, offset, &n), ==, PEBS_RECORD_END);

    for (size_t past = len + 1; past < len + 64; past++) {
        g_assert_cmpint(pebs_record_at(buf, len, past, &n), ==,
                        PEBS_RECORD_MALFORMED);
    }
    g_assert_cmpint(pebs_record_at(buf, len, SIZE_MAX, &n), ==,
                    PEBS_RECORD_MALFORMED);
    /* A tail too short for a basic group */
    for (size_t tail = 1; tail < 32; tail++) {
        g_assert_cmpint(pebs_record_at(buf, len + tail, len, &n), ==,
                        PEBS_RECORD_MALFORMED);
    }
    /* The last record has 32 bytes, but says more */
    set_size(buf + starts[5], 40);
    g_assert_cmpint(pebs_record_at(buf, len, starts[5], &n), ==,
                    PEBS_RECORD_MALFORMED);
}

static void test_set_counters(void)
{
    uint8_t buf[PEBS_RECORD_MAX_SIZE], before[PEBS_RECORD_MAX_SIZE];
    g_autofree PebsLbr *lbr = g_new(PebsLbr, PEBS_MAX_LBRS);
    PebsSample s;

    for (int i = 0; i < 1000; i++) {
        uint64_t cfg = make_cfg(i % ALL_GROUPS, g_test_rand_int() & 255);
        uint64_t want = random64(), got;
        size_t size;

        random_sample(&s, lbr, PEBS_MAX_LBRS);
        size = pebs_record_encode(buf, sizeof(buf), cfg, &s);
        memcpy(before, buf, size);
        g_assert_true(pebs_record_get_counters(buf, size, &got));
        g_assert_cmphex(got, ==, s.applicable_counters);
        g_assert_true(pebs_record_set_counters(buf, size, want));
        g_assert_true(pebs_record_get_counters(buf, size, &got));
        g_assert_cmphex(got, ==, want);
        g_assert_cmpmem(buf, 16, before, 16);
        g_assert_cmpmem(buf + 24, size - 24, before + 24, size - 24);
        for (int b = 0; b < 8; b++) {
            g_assert_cmphex(buf[16 + b], ==, want >> 8 * b & 0xff);
        }
    }
}

/* ---- PEBS_DATA_CFG ---- */

static void test_data_cfg_mask(void)
{
    for (unsigned format = 0; format < 4; format++) {
        g_assert_cmphex(pebs_data_cfg_mask(format, ~0ULL), ==, 0);
    }
    for (unsigned format = 4; format <= 6; format++) {
        g_assert_cmphex(pebs_data_cfg_mask(format, 0), ==, 0);
        g_assert_cmphex(pebs_data_cfg_mask(format, PEBS_DATACFG_GP), ==, 2);
        g_assert_cmphex(pebs_data_cfg_mask(format, 7), ==, 7);
        g_assert_cmphex(pebs_data_cfg_mask(format, 8), ==, 0xff000008);
        g_assert_cmphex(pebs_data_cfg_mask(format, 15), ==, 0xff00000f);
        /* Who asks for more gets what there is */
        g_assert_cmphex(pebs_data_cfg_mask(format, ~0ULL), ==, 0xff00000f);
        g_assert_cmphex(pebs_data_cfg_mask(format, ~0xfULL), ==, 0);
    }
    g_assert_cmpuint(pebs_record_size(0xff00000f), ==, PEBS_RECORD_MAX_SIZE);
}

/* ---- DS area ---- */

static void test_ds_decode(void)
{
    uint8_t area[PEBS_DS_RESET];
    PebsDsArea ds;

    /* 64-bit layout: BTS fields first, each byte has its own value */
    for (unsigned i = 0; i < sizeof(area); i++) {
        area[i] = i;
    }
    g_assert_cmpuint(PEBS_DS_MANAGEMENT_SIZE, ==, 32);
    g_assert_cmpuint(PEBS_DS_BASE, ==, 0x20);
    pebs_ds_decode(&ds, area + PEBS_DS_BASE);
    g_assert_cmphex(ds.buffer_base, ==, 0x2726252423222120);
    g_assert_cmphex(ds.index, ==, 0x2f2e2d2c2b2a2928);
    g_assert_cmphex(ds.absolute_maximum, ==, 0x3736353433323130);
    g_assert_cmphex(ds.interrupt_threshold, ==, 0x3f3e3d3c3b3a3938);
}

static void test_ds_reset(void)
{
    /* Format 4, as Ice Lake has it: 8 GP slots, the fixed ones right after */
    g_assert_cmphex(pebs_ds_reset_offset(0, 4), ==, 0x40);
    g_assert_cmphex(pebs_ds_reset_offset(1, 4), ==, 0x48);
    g_assert_cmphex(pebs_ds_reset_offset(7, 4), ==, 0x78);
    g_assert_cmphex(pebs_ds_reset_offset(8, 4), ==, 0);
    g_assert_cmphex(pebs_ds_reset_offset(31, 4), ==, 0);
    g_assert_cmphex(pebs_ds_reset_offset(32, 4), ==, 0x80);
    g_assert_cmphex(pebs_ds_reset_offset(34, 4), ==, 0x90);
    g_assert_cmphex(pebs_ds_reset_offset(47, 4), ==, 0xf8);
    g_assert_cmphex(pebs_ds_reset_offset(48, 4), ==, 0);

    for (unsigned format = 5; format <= 6; format++) {
        g_assert_cmphex(pebs_ds_reset_offset(0, format), ==, 0x40);
        g_assert_cmphex(pebs_ds_reset_offset(7, format), ==, 0x78);
        g_assert_cmphex(pebs_ds_reset_offset(8, format), ==, 0x80);
        g_assert_cmphex(pebs_ds_reset_offset(31, format), ==, 0x138);
        g_assert_cmphex(pebs_ds_reset_offset(32, format), ==, 0x140);
        g_assert_cmphex(pebs_ds_reset_offset(35, format), ==, 0x158);
        g_assert_cmphex(pebs_ds_reset_offset(47, format), ==, 0x1b8);
        g_assert_cmphex(pebs_ds_reset_offset(48, format), ==, 0);
    }
    g_assert_cmphex(pebs_ds_reset_offset(63, 5), ==, 0);
    g_assert_cmphex(pebs_ds_reset_offset(UINT_MAX, 4), ==, 0);
}

typedef struct Room {
    uint64_t base, index, maximum, size;
    PebsDsRoom want;
} Room;

static const Room rooms[] = {
    /* within the buffer */
    { 0x1000, 0x1000, 0x2000, 0x20, PEBS_DS_WRITE },
    { 0x1000, 0x1000, 0x1020, 0x20, PEBS_DS_WRITE },
    { 0x1000, 0x1fe0, 0x2000, 0x20, PEBS_DS_WRITE }, /* ends at the maximum */
    { 0x1000, 0x1fdf, 0x2000, 0x20, PEBS_DS_WRITE },
    { 0, 0, 0x20, 0x20, PEBS_DS_WRITE },
    /* full */
    { 0x1000, 0x1fe1, 0x2000, 0x20, PEBS_DS_FULL },
    { 0x1000, 0x1fff, 0x2000, 0x20, PEBS_DS_FULL },
    { 0x1000, 0x2000, 0x2000, 0x20, PEBS_DS_FULL }, /* index == maximum */
    { 0x1000, 0x1000, 0x1000, 0x20, PEBS_DS_FULL }, /* no buffer at all */
    { 0x1000, 0x1000, 0x101f, 0x20, PEBS_DS_FULL },
    { 0x1000, 0x1000, 0x1040, 0x48, PEBS_DS_FULL },
    { 0, 0, 0, 0x20, PEBS_DS_FULL },
    { 0, 0, 0x1f, 0x20, PEBS_DS_FULL },
    /* malformed */
    { 0x1000, 0x0fff, 0x2000, 0x20, PEBS_DS_MALFORMED },
    { 0x1000, 0, 0x2000, 0x20, PEBS_DS_MALFORMED },
    { 0x1000, 0x2001, 0x2000, 0x20, PEBS_DS_MALFORMED },
    { 0x3000, 0x3000, 0x2000, 0x20, PEBS_DS_MALFORMED },
    { 0x3000, 0x2000, 0x2000, 0x20, PEBS_DS_MALFORMED },
    { 0, 1, 0, 0x20, PEBS_DS_MALFORMED },
    { 0, UINT64_MAX, 0, 0x20, PEBS_DS_MALFORMED },
    { UINT64_MAX, 0, 0, 0x20, PEBS_DS_MALFORMED },
    /* where index + size wraps around */
    { 0, UINT64_MAX - 0x20, UINT64_MAX, 0x20, PEBS_DS_WRITE },
    { 0, UINT64_MAX - 0x1f, UINT64_MAX, 0x20, PEBS_DS_FULL },
    { 0, UINT64_MAX - 1, UINT64_MAX, 0x20, PEBS_DS_FULL },
    { 0, UINT64_MAX, UINT64_MAX, 0x20, PEBS_DS_FULL },
    { 0, UINT64_MAX - 0x1f, 0x1000, 0x20, PEBS_DS_MALFORMED },
    { UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x20, PEBS_DS_FULL },
    { 0, 0, UINT64_MAX, UINT64_MAX, PEBS_DS_WRITE },
    { 0, 1, UINT64_MAX, UINT64_MAX, PEBS_DS_FULL },
};

static void test_ds_check(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rooms); i++) {
        const Room *r = &rooms[i];
        PebsDsArea ds = {
            .buffer_base = r->base,
            .index = r->index,
            .absolute_maximum = r->maximum,
            .interrupt_threshold = random64(),
        };

        if (pebs_ds_check(&ds, r->size) != r->want) {
            g_test_message("entry %u of the table", i);
            g_test_fail();
        }
    }
}

/* Small values, so that all orders and equalities come up, at both ends */
static void test_ds_check_all(void)
{
    const uint64_t bottom[] = { 0, UINT64_MAX - 11 };

    for (unsigned i = 0; i < 12 * 12 * 12 * 12 * 2; i++) {
        uint64_t b = i % 12, x = i / 12 % 12, m = i / 144 % 12;
        uint64_t size = i / 1728 % 12, at = bottom[i / 20736];
        PebsDsArea ds = { at + b, at + x, at + m, 0 };
        PebsDsRoom want = b > x || x > m ? PEBS_DS_MALFORMED :
                          x + size > m ? PEBS_DS_FULL : PEBS_DS_WRITE;

        g_assert_cmpint(pebs_ds_check(&ds, size), ==, want);
    }
}

static void test_ds_threshold(void)
{
    PebsDsArea ds = { 0x1000, 0x1000, 0x3000, 0x2000 };

    ds.index = 0x1fff;
    g_assert_false(pebs_ds_threshold_reached(&ds));
    ds.index = 0x2000;
    g_assert_true(pebs_ds_threshold_reached(&ds));
    ds.index = 0x2001;
    g_assert_true(pebs_ds_threshold_reached(&ds));

    /* One record per PMI, as Linux sets it up */
    ds.interrupt_threshold = 0x1020;
    ds.index = 0x1000;
    g_assert_false(pebs_ds_threshold_reached(&ds));
    ds.index += 0x20;
    g_assert_true(pebs_ds_threshold_reached(&ds));

    ds.interrupt_threshold = 0;
    ds.index = 0;
    g_assert_true(pebs_ds_threshold_reached(&ds));
    ds.interrupt_threshold = UINT64_MAX;
    ds.index = UINT64_MAX - 1;
    g_assert_false(pebs_ds_threshold_reached(&ds));
    ds.index = UINT64_MAX;
    g_assert_true(pebs_ds_threshold_reached(&ds));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        g_autofree char *path = g_strdup_printf("/pebs/record/known/%s",
                                                known[i].name);

        g_test_add_data_func(path, &known[i], test_known);
    }
    g_test_add_func("/pebs/record/retire-latency", test_retire_latency);
    g_test_add_func("/pebs/record/sizes", test_sizes);
    g_test_add_func("/pebs/record/round-trip", test_round_trip);
    g_test_add_func("/pebs/record/decode-clears", test_decode_clears);
    g_test_add_func("/pebs/record/stays-inside", test_stays_inside);
    g_test_add_func("/pebs/record/truncated", test_truncated);
    g_test_add_func("/pebs/record/unknown-groups", test_unknown_groups);
    g_test_add_func("/pebs/record/own-size", test_record_sizes);
    g_test_add_func("/pebs/record/walk", test_walk);
    g_test_add_func("/pebs/record/set-counters", test_set_counters);
    g_test_add_func("/pebs/data-cfg/mask", test_data_cfg_mask);
    g_test_add_func("/pebs/ds/decode", test_ds_decode);
    g_test_add_func("/pebs/ds/reset-slots", test_ds_reset);
    g_test_add_func("/pebs/ds/room", test_ds_check);
    g_test_add_func("/pebs/ds/room-exhaustive", test_ds_check_all);
    g_test_add_func("/pebs/ds/threshold", test_ds_threshold);

    return g_test_run();
}
