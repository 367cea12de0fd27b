/*
 * Intel PEBS: codec for the DS save area and for PEBS records
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Bytes and offsets only: nothing here knows a CPU, touches guest memory,
 * allocates, or keeps state.  Everything in memory is little-endian; host
 * byte order does not matter.
 *
 * Sources: Intel SDM vol. 3B, "BTS and DS Save Area" ("64 Bit Format of the
 * DS Save Area"), "Adaptive PEBS" (its groups, MSR_PEBS_DATA_CFG); Linux
 * arch/x86/include/asm/intel_ds.h (struct debug_store), perf_event.h
 * (struct pebs_basic and its fellows), arch/x86/events/intel/ds.c.
 */
#ifndef I386_PEBS_RECORD_H
#define I386_PEBS_RECORD_H

/*
 * Counters are numbered as the bits of IA32_PEBS_ENABLE, IA32_PERF_GLOBAL_CTRL
 * and a record's applicable counters: GP counter i is i, fixed counter j is
 * PEBS_FIXED_BASE + j.
 */
#define PEBS_FIXED_BASE         32
#define PEBS_MAX_FIXED          16
#define PEBS_MAX_GP             32  /* PEBS format 5 and later */
#define PEBS_MAX_GP_FORMAT4     8   /* PEBS formats up to 4 */

/* ---- DS save area, 64-bit layout ---- */

/* Byte offsets from IA32_DS_AREA */
enum {
    PEBS_DS_BTS_BASE            = 0x00,
    PEBS_DS_BTS_INDEX           = 0x08,
    PEBS_DS_BTS_MAXIMUM         = 0x10,
    PEBS_DS_BTS_THRESHOLD       = 0x18,
    PEBS_DS_BASE                = 0x20,
    PEBS_DS_INDEX               = 0x28,
    PEBS_DS_MAXIMUM             = 0x30,
    PEBS_DS_THRESHOLD           = 0x38,
    PEBS_DS_RESET               = 0x40, /* first counter reset slot */
};

/* The PEBS management fields: this many bytes from PEBS_DS_BASE on */
#define PEBS_DS_MANAGEMENT_SIZE (PEBS_DS_RESET - PEBS_DS_BASE)

/* All values are guest linear addresses */
typedef struct PebsDsArea {
    uint64_t buffer_base;
    uint64_t index;               /* where the next record goes */
    uint64_t absolute_maximum;    /* first byte past the buffer */
    uint64_t interrupt_threshold; /* PMI when the index reaches it */
} PebsDsArea;

typedef enum PebsDsRoom {
    PEBS_DS_WRITE,      /* the record fits at the index */
    PEBS_DS_FULL,       /* it would pass the absolute maximum: not written */
    PEBS_DS_MALFORMED,  /* base <= index <= absolute maximum does not hold */
} PebsDsRoom;

/**
 * pebs_ds_reset_offset: where a counter's reset value is kept
 * @counter: counter number, see above
 * @format: PERF_CAPABILITIES.PEBS_FORMAT
 *
 * A slot is 8 bytes; cut its value to the counter's width before use.
 * GP counter i has slot i.  Fixed counter j has slot 8 + j in formats up to 4
 * and slot 32 + j from format 5 on (ds.c: intel_pmu_pebs_enable()).
 *
 * Returns: byte offset from IA32_DS_AREA, or 0 (never a reset slot) when
 * this format has no such counter.
 */
uint32_t pebs_ds_reset_offset(unsigned counter, unsigned format);

/**
 * pebs_ds_decode: read the PEBS management fields
 * @ds: filled in
 * @bytes: PEBS_DS_MANAGEMENT_SIZE bytes, read from IA32_DS_AREA + PEBS_DS_BASE
 */
void pebs_ds_decode(PebsDsArea *ds, const uint8_t *bytes);

/**
 * pebs_ds_check: may a record be written at the index?
 * @ds: management fields, as the guest left them: any values
 * @size: bytes of the record, at least PEBS_BASIC_SIZE
 *
 * With PEBS_DS_WRITE, neither @ds->index + @size nor any address before it
 * wraps around.  Whether addresses are canonical, mapped and writable is for
 * the caller to find out.
 */
PebsDsRoom pebs_ds_check(const PebsDsArea *ds, uint64_t size);

/**
 * pebs_ds_threshold_reached: has the index come to the interrupt threshold?
 * @ds: management fields; ask after advancing @ds->index past a record
 *
 * Linux asks for a PMI per record by a threshold one record past the base, so
 * equality counts (ds.c: pebs_update_threshold()).  A threshold above the
 * absolute maximum is never reached.
 */
bool pebs_ds_threshold_reached(const PebsDsArea *ds);

/* ---- PEBS_DATA_CFG: the groups of an adaptive record ---- */

#define PEBS_DATACFG_MEMINFO    (1ULL << 0)
#define PEBS_DATACFG_GP         (1ULL << 1)
#define PEBS_DATACFG_XMMS       (1ULL << 2)
#define PEBS_DATACFG_LBRS       (1ULL << 3)
#define PEBS_DATACFG_GROUPS     0x0fULL

#define PEBS_DATACFG_LBR_SHIFT  24
#define PEBS_DATACFG_LBR_MASK   (0xffULL << PEBS_DATACFG_LBR_SHIFT)

/**
 * pebs_data_cfg_mask: bits that WRMSR to PEBS_DATA_CFG must accept
 * @format: PERF_CAPABILITIES.PEBS_FORMAT
 * @groups: what this CPU can record, of PEBS_DATACFG_GROUPS
 *
 * All other bits are reserved.  The number of LBR entries is only valid with
 * the LBR group.  With all groups this is 0xff00000f, the mask of KVM.  The
 * counter group that format 6 adds is not supported.
 *
 * Returns: the mask; 0 for a format that has no adaptive records.
 */
uint64_t pebs_data_cfg_mask(unsigned format, uint64_t groups);

/* ---- records, PEBS format 4 and later ---- */

/* Sizes in bytes.  The groups follow one another in this order. */
#define PEBS_BASIC_SIZE         32
#define PEBS_MEMINFO_SIZE       32
#define PEBS_GPRS_SIZE          144
#define PEBS_XMMS_SIZE          256
#define PEBS_LBR_ENTRY_SIZE     24
#define PEBS_MAX_LBRS           256
#define PEBS_RECORD_MAX_SIZE    (PEBS_BASIC_SIZE + PEBS_MEMINFO_SIZE + \
                                 PEBS_GPRS_SIZE + PEBS_XMMS_SIZE + \
                                 PEBS_MAX_LBRS * PEBS_LBR_ENTRY_SIZE)

/* Byte offsets in the basic group, so in every record */
enum {
    PEBS_BASIC_FORMAT           = 0x00,
    PEBS_BASIC_IP               = 0x08,
    PEBS_BASIC_COUNTERS         = 0x10,
    PEBS_BASIC_TSC              = 0x18,
};

/* Fields of the quadword at PEBS_BASIC_FORMAT */
#define PEBS_FORMAT_GROUPS_MASK   0xffffffffULL /* PEBS_DATA_CFG in force */
#define PEBS_FORMAT_LATENCY_SHIFT 32    /* 16 bits: retire latency */
#define PEBS_FORMAT_SIZE_SHIFT    48    /* 16 bits: bytes of the record */

typedef struct PebsLbr {
    uint64_t from;
    uint64_t to;
    uint64_t info;
} PebsLbr;

/* What one record can hold, all groups */
typedef struct PebsSample {
    /* basic */
    uint64_t ip;                    /* of the instruction that caused it */
    uint64_t applicable_counters;
    uint64_t tsc;
    uint16_t retire_latency;        /* 0 without PEBS_TIMING_INFO */
    /* memory access */
    struct {
        uint64_t address;
        uint64_t aux;
        uint64_t latency;
        uint64_t tsx;
    } mem;
    /* after the instruction */
    struct {
        uint64_t flags;
        uint64_t ip;
        uint64_t regs[16];          /* AX CX DX BX SP BP SI DI R8 ... R15 */
    } gpr;
    uint64_t xmm[16][2];            /* low quadword first */
    /* Newest first; entries beyond @lbr_count are written as zeros */
    const PebsLbr *lbr;
    unsigned lbr_count;
} PebsSample;

/* Where the groups of a record lie: byte offsets, 0 for an absent group */
typedef struct PebsLayout {
    uint16_t mem;
    uint16_t gpr;
    uint16_t xmm;
    uint16_t lbr;
    uint16_t lbr_count;
    uint16_t size;
} PebsLayout;

typedef enum PebsResult {
    PEBS_RECORD_OK,
    PEBS_RECORD_END,        /* the buffer ends where the last record does */
    PEBS_RECORD_MALFORMED,  /* what stands there is no record */
    PEBS_RECORD_UNKNOWN,    /* a record, with groups not known here */
} PebsResult;

/**
 * pebs_record_layout: lay a record out
 * @layout: filled in on success
 * @data_cfg: PEBS_DATA_CFG in force; 0 for an event that is not adaptive,
 *            whose record is the basic group alone
 *
 * The number of LBR entries means nothing without the LBR group.
 *
 * Returns: false if @data_cfg asks for groups that are not known here.
 */
bool pebs_record_layout(PebsLayout *layout, uint64_t data_cfg);

/**
 * pebs_record_size: size of a record
 * @data_cfg: as for pebs_record_layout()
 *
 * Returns: bytes, a multiple of 8 from PEBS_BASIC_SIZE to
 * PEBS_RECORD_MAX_SIZE; 0 if @data_cfg asks for groups not known here.
 */
size_t pebs_record_size(uint64_t data_cfg);

/**
 * pebs_record_encode: write one record
 * @buf: where to, any alignment
 * @len: bytes that may be written there
 * @data_cfg: as for pebs_record_layout()
 * @s: the sample; groups that @data_cfg does not name are not looked at
 *
 * Returns: bytes written, exactly pebs_record_size(); 0, and nothing written,
 * if @len is less than that or the size is 0.
 */
size_t pebs_record_encode(uint8_t *buf, size_t len, uint64_t data_cfg,
                          const PebsSample *s);

/**
 * pebs_record_at: find the record at an offset of a buffer of records
 * @buf: the records, any alignment, any bytes
 * @len: bytes in @buf; none beyond is read
 * @offset: byte offset of a record
 * @size: set to the record's own size with PEBS_RECORD_OK
 *
 * To walk a buffer, start at 0 and add each record's size.  A size below the
 * basic group, not a multiple of 8, or beyond @len is malformed: the walk
 * ends there.  The groups are not looked at.
 *
 * Returns: PEBS_RECORD_OK, PEBS_RECORD_END (only if @offset equals @len)
 * or PEBS_RECORD_MALFORMED.
 */
PebsResult pebs_record_at(const uint8_t *buf, size_t len, size_t offset,
                          size_t *size);

/**
 * pebs_record_decode: read one record
 * @buf: the record's first byte, any alignment
 * @len: bytes in @buf, at least the record
 * @s: cleared, then filled with what the record holds, but for @s->lbr, which
 *     is NULL: use pebs_record_lbr(); @s->lbr_count tells how many there are
 * @data_cfg: set to the groups of the record, as for pebs_record_layout()
 *
 * Returns: PEBS_RECORD_OK; PEBS_RECORD_UNKNOWN (the basic group is decoded
 * and @data_cfg set); or PEBS_RECORD_MALFORMED, also if the record's size is
 * not that of its groups, and for an empty buffer: nothing is decoded.
 */
PebsResult pebs_record_decode(const uint8_t *buf, size_t len, PebsSample *s,
                              uint64_t *data_cfg);

/**
 * pebs_record_lbr: read one LBR entry of a record
 * @buf: the record's first byte
 * @len: bytes in @buf
 * @n: which entry, the newest is 0
 * @lbr: filled in on success
 *
 * Returns: false if the record does not decode or has no such entry.
 */
bool pebs_record_lbr(const uint8_t *buf, size_t len, unsigned n, PebsLbr *lbr);

/**
 * pebs_record_get_counters: read a record's applicable counters
 * @buf: the record's first byte
 * @len: bytes in @buf
 * @counters: set on success
 *
 * Returns: false for a malformed record.
 */
bool pebs_record_get_counters(const uint8_t *buf, size_t len,
                              uint64_t *counters);

/**
 * pebs_record_set_counters: replace a record's applicable counters
 * @buf: the record's first byte
 * @len: bytes in @buf
 * @counters: the new value
 *
 * These 8 bytes are all that names a counter in a record of known groups.
 *
 * Returns: false, and nothing written, for a malformed record.
 */
bool pebs_record_set_counters(uint8_t *buf, size_t len, uint64_t counters);

#endif /* I386_PEBS_RECORD_H */
