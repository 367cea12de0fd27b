/*
 * Writes first inputs for fuzz-pebs-record into a directory: buffers of
 * records of every mix of groups, which a fuzzer would be long in finding
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <stdio.h>
#include "target/i386/pebs-record.h"

static bool save(const char *dir, const char *name, unsigned n,
                 const uint8_t *data, size_t len)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s-%u", dir, name, n);
    f = fopen(path, "wb");
    if (!f) {
        perror(path);
        return false;
    }
    if (fwrite(data, 1, len, f) != len) {
        perror(path);
        fclose(f);
        return false;
    }
    return fclose(f) == 0;
}

int main(int argc, char **argv)
{
    static const uint64_t lbrs[] = { 0, 3, 31 };
    static uint8_t buf[1 + 2 * PEBS_RECORD_MAX_SIZE];
    PebsSample s = { .ip = 0x401000, .applicable_counters = 1, .tsc = 7 };

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    for (unsigned i = 0; i < 3 * 16; i++) {
        uint64_t cfg = i % 16 | lbrs[i / 16] << PEBS_DATACFG_LBR_SHIFT;
        size_t n = 1;

        /* A buffer of two records: this one and the shortest */
        buf[0] = 0;
        n += pebs_record_encode(buf + n, sizeof(buf) - n, cfg, &s);
        n += pebs_record_encode(buf + n, sizeof(buf) - n, 0, &s);
        if (!save(argv[1], "records", i, buf, n)) {
            return 1;
        }
        /* Parts of a record: PEBS_DATA_CFG, then room and what follows */
        memset(buf, 0x11, sizeof(buf));
        buf[0] = 1;
        for (unsigned b = 0; b < 8; b++) {
            buf[1 + b] = cfg >> 8 * b;
        }
        buf[9] = buf[10] = 0;
        if (!save(argv[1], "sample", i, buf, 256 + 32 * i)) {
            return 1;
        }
    }
    /* Management fields: base, index, maximum, threshold; record size */
    memset(buf, 0, 64);
    buf[0] = 2;
    buf[1 + 1] = 0x10;
    buf[9 + 1] = 0x10;
    buf[17 + 1] = 0x20;
    buf[25 + 1] = 0x11;
    buf[33] = 0x20;
    return save(argv[1], "ds", 0, buf, 49) ? 0 : 1;
}
