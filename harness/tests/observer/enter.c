/*
 * Runs the observer's own BPF program for threads of this process
 *
 * The kernel's test-run facility calls some functions that do nothing, in the
 * thread that asks for it, and runs the programs attached to them.  Attached to
 * one of those instead, the observer's program does all that it does at a VM
 * entry, but for what it finds: no PEBS.  Prints each check that fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pebs-memory.h"
#include "pebs-watch.h"
#include "enter.skeleton.h"

/* Two arguments and a value, as perf_guest_get_msrs() has them */
#define TARGET      "bpf_fentry_test2"
#define SLOTS       3

static struct enter_bpf *program;
static int failures;

static void check(bool good, const char *what)
{
    if (!good) {
        printf("not %s\n", what);
        failures++;
    }
}

static int load(void)
{
    program = enter_bpf__open();
    if (!program ||
        bpf_program__set_attach_target(program->progs.pebs_vm_entry, 0,
                                       TARGET) < 0 ||
        enter_bpf__load(program) < 0 || enter_bpf__attach(program) < 0) {
        fprintf(stderr, "enter: the kernel doesn't take the program: %s\n",
                strerror(errno));
        return 2;
    }
    return 0;
}

static int add_client(unsigned number)
{
    int fd = pebs_create_memory(SLOTS);

    check(bpf_map__update_elem(program->maps.clients, &number, sizeof(number),
                               &fd, sizeof(fd), 0) == 0, "added");
    return fd;
}

static void watch(__u64 key, unsigned client, unsigned slot)
{
    struct pebs_place place = { client, slot };

    check(bpf_map__update_elem(program->maps.watched, &key, sizeof(key),
                               &place, sizeof(place), 0) == 0, "watched");
}

static void unwatch(__u64 key)
{
    check(bpf_map__delete_elem(program->maps.watched, &key, sizeof(key),
                               0) == 0, "unwatched");
}

static __u64 self(void)
{
    return (__u64)getpid() << 32 | syscall(SYS_gettid);
}

static void enter(void)
{
    LIBBPF_OPTS(bpf_test_run_opts, options);

    check(bpf_prog_test_run_opts(
              bpf_program__fd(program->progs.pebs_vm_entry), &options) == 0,
          "run");
}

static void check_slots(const struct PebsHelperSlot *a,
                        const struct PebsHelperSlot *b)
{
    enter();
    check(a[1].entries == 0, "silent about a thread nobody watches");
    watch(self(), 0, 1);
    enter();
    enter();
    check(a[1].entries == 2, "two reports in the slot");
    check(a[1].report == 0 && a[1].active_entries == 0 &&
          a[1].suspended_entries == 0, "of no active counter");
    check(a[0].entries == 0 && a[2].entries == 0,
          "nothing in the slots beside it");
    check(b[1].entries == 0, "nothing in the other client's memory");
    unwatch(self());
    enter();
    check(a[1].entries == 2, "silent when it isn't watched any more");
}

static void check_limits(const struct PebsHelperSlot *a)
{
    /* Another process's thread of this number */
    watch(self() + (1ull << 32), 0, 2);
    enter();
    check(a[2].entries == 0, "silent about a number used again");
    watch(self(), 0, SLOTS);
    enter();
    watch(self(), PEBS_MAX_CLIENTS - 1, 0);
    enter();
    watch(self(), PEBS_MAX_CLIENTS, 0);
    enter();
    check(a[0].entries == 0 && a[2].entries == 0,
          "silent about places that aren't there");
}

static void check_read_only(int fd)
{
    const size_t size = SLOTS * sizeof(struct PebsHelperSlot);
    void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    struct PebsHelperSlot value = {};
    __u32 slot = 0;

    check(memory != MAP_FAILED, "mapped");
    check(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ==
          MAP_FAILED, "refused: mmap() for writing");
    check(mprotect(memory, size, PROT_READ | PROT_WRITE) < 0,
          "refused: mprotect() for writing");
    check(bpf_map_update_elem(fd, &slot, &value, 0) < 0,
          "refused: an update of the map");
}

int main(void)
{
    const size_t size = SLOTS * sizeof(struct PebsHelperSlot);
    struct PebsHelperSlot *a, *b;
    int first, second;

    if (load()) {
        return 2;
    }
    first = add_client(0);
    second = add_client(1);
    a = mmap(NULL, size, PROT_READ, MAP_SHARED, first, 0);
    b = mmap(NULL, size, PROT_READ, MAP_SHARED, second, 0);
    if (a == MAP_FAILED || b == MAP_FAILED) {
        printf("not mapped\n");
        return 1;
    }
    check_slots(a, b);
    check_limits(a);
    check_read_only(first);
    return failures != 0;
}
