/*
 * The memory that the BPF program reports into, and that a client reads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_MEMORY_H
#define TOOLS_I386_PEBS_MEMORY_H

#include <bpf/bpf.h>
#include <unistd.h>
#include "../../include/system/pebs-helper.h"

/*
 * A frozen map can't be written through any file descriptor.  The BPF program
 * still can; mmap() of a read-only descriptor would be refused, as it isn't
 * shared memory to the kernel.
 */
static inline int pebs_create_memory(unsigned slots)
{
    LIBBPF_OPTS(bpf_map_create_opts, options,
                .map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP);
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "pebs_reports", sizeof(__u32),
                            sizeof(struct PebsHelperSlot), slots, &options);

    if (fd >= 0 && bpf_map_freeze(fd) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

#endif
