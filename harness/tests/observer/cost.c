/*
 * Shows what qemu-pebs-helper costs at VM entries: nothing without a client,
 * one lookup for a thread that nobody watches
 *
 *     cost SOCKET HELPER [ARGUMENT...]
 *
 * Starts the helper, is its client, and has the kernel tell which BPF programs
 * are attached meanwhile, what its function calls, and what the program became
 * in it.  Prints each check that fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../../../include/system/pebs-helper.h"
#include "unwatched.h"

#define PATIENCE_MS     20000
#define TICK_MS         20
#define TRACING         "/sys/kernel/tracing"
#define HOOKED          "perf_guest_get_msrs"
#define MAX_MAPS        8
/* The thread's number, its lookup, and what is around them */
#define MAX_INSTRUCTIONS    24

static int failures;

static void check(bool good, const char *what)
{
    if (!good) {
        printf("not %s\n", what);
        failures++;
    }
}

static bool program_info(__u32 program, struct bpf_prog_info *info)
{
    __u32 size = sizeof(*info);
    int fd = bpf_prog_get_fd_by_id(program);
    bool good = fd >= 0 && bpf_obj_get_info_by_fd(fd, info, &size) == 0;

    close(fd);
    return good;
}

static bool is_observer(__u32 program)
{
    struct bpf_prog_info info = {};

    return program_info(program, &info) && !strcmp(info.name, "pebs_vm_entry");
}

/* The helper's program: how many there are, and how often they are attached */
static int count_programs(void)
{
    __u32 id = 0;
    int count = 0;

    while (bpf_prog_get_next_id(id, &id) == 0) {
        count += is_observer(id);
    }
    return count;
}

static int count_links(void)
{
    struct bpf_link_info info;
    __u32 id = 0, size;
    int count = 0, fd;

    while (bpf_link_get_next_id(id, &id) == 0) {
        fd = bpf_link_get_fd_by_id(id);
        size = sizeof(info);
        memset(&info, 0, sizeof(info));
        if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0) {
            count += is_observer(info.prog_id);
        }
        close(fd);
    }
    return count;
}

/* Whether the kernel's function calls anything that isn't its own: 0 or 1 */
static int is_hooked(void)
{
    FILE *functions = fopen(TRACING "/enabled_functions", "r");
    char line[1024];
    int found = 0;

    check(functions, "told which functions are traced");
    while (functions && fgets(line, sizeof(line), functions)) {
        found |= !strncmp(line, HOOKED " ", strlen(HOOKED " "));
    }
    if (functions) {
        fclose(functions);
    }
    return found;
}

static __u32 find_map(const __u32 *ids, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++) {
        struct bpf_map_info info = {};
        __u32 size = sizeof(info);
        int fd = bpf_map_get_fd_by_id(ids[i]);
        bool found = fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
                     !strcmp(info.name, name);

        close(fd);
        if (found) {
            return ids[i];
        }
    }
    return 0;
}

/* The program as the kernel has it, for a thread that isn't watched */
static void check_path(__u32 program)
{
    struct bpf_insn insns[BPF_MAXINSNS];
    __u32 maps[MAX_MAPS];
    struct bpf_prog_info info = {
        .xlated_prog_insns = (uintptr_t)insns,
        .xlated_prog_len = sizeof(insns),
        .map_ids = (uintptr_t)maps,
        .nr_map_ids = MAX_MAPS,
    };
    struct unwatched_path path;
    __u32 watched;

    check(program_info(program, &info) && info.xlated_prog_insns,
          "told what the program is");
    watched = find_map(maps, info.nr_map_ids, "watched");
    check(watched, "told which map it looks in");
    check(unwatched_follow(insns, info.xlated_prog_len / sizeof(insns[0]),
                           watched, &path),
          "one way for all threads that nobody watches");
    check(path.lookups == 1, "one lookup for a thread that nobody watches");
    check(path.others == 1, "nothing called but for the thread's number");
    check(path.elsewhere == 0, "no memory read but for the lookup");
    check(path.instructions <= MAX_INSTRUCTIONS, "short");
}

/* The latest: another helper may be idle here. */
static __u32 find_program(void)
{
    __u32 id = 0, found = 0;

    while (bpf_prog_get_next_id(id, &id) == 0) {
        found = is_observer(id) ? id : found;
    }
    return found;
}

static bool becomes(int (*count)(void), int wanted)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += TICK_MS) {
        if (count() == wanted) {
            return true;
        }
        usleep(TICK_MS * 1000);
    }
    return false;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    for (int ms = 0; ms < PATIENCE_MS; ms += TICK_MS) {
        if (connect(fd, (void *)&address, sizeof(address)) == 0) {
            return fd;
        }
        usleep(TICK_MS * 1000);
    }
    close(fd);
    return -1;
}

static bool ask(int fd, __u32 kind, __u32 slot, __u32 value)
{
    struct PebsHelperRequest request = { kind, slot, value };
    struct PebsHelperReply reply;

    if (write(fd, &request, sizeof(request)) != sizeof(request) ||
        recv(fd, &reply, sizeof(reply), MSG_WAITALL) != sizeof(reply)) {
        return false;
    }
    if (reply.failed) {
        printf("%.*s\n", (int)sizeof(reply.reason), reply.reason);
    }
    return !reply.failed;
}

static void be_client(const char *path, int programs)
{
    int first = connect_to(path), second;

    check(first >= 0, "connected");
    check(count_programs() == programs + 1, "loaded once");
    check(count_links() == 0 && !is_hooked(),
          "unattached before a client's first request");
    check(ask(first, PEBS_HELPER_HELLO, PEBS_HELPER_VERSION, 1), "served");
    check(count_links() == 1 && is_hooked(), "attached for a client");
    check_path(find_program());
    check(ask(first, PEBS_HELPER_WATCH, 0, syscall(SYS_gettid)), "watched");
    second = connect_to(path);
    check(ask(second, PEBS_HELPER_HELLO, PEBS_HELPER_VERSION, 1),
          "served beside another");
    check(count_links() == 1 && count_programs() == programs + 1,
          "one program for two clients");
    close(first);
    check(ask(second, PEBS_HELPER_WATCH, 0, syscall(SYS_gettid)) &&
          count_links() == 1, "attached for the one that is left");
    close(second);
    check(becomes(count_links, 0) && becomes(is_hooked, 0),
          "unattached after the last client");
}

/* For this process and the helper, unless all have it already */
static bool mount_tracing(void)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           (mount("tracefs", TRACING, "tracefs", 0, NULL) == 0 ||
            errno == EBUSY);
}

int main(int argc, char **argv)
{
    int programs, status;
    pid_t helper;

    if (argc < 3) {
        return 1;
    }
    if (!mount_tracing()) {
        fprintf(stderr, "cost: no %s: %s\n", TRACING, strerror(errno));
        return 2;
    }
    programs = count_programs();
    if (count_links()) {
        fprintf(stderr, "cost: a qemu-pebs-helper is at work here already\n");
        return 2;
    }
    helper = fork();
    if (helper == 0) {
        execv(argv[2], &argv[2]);
        _exit(127);
    }
    be_client(argv[1], programs);
    kill(helper, SIGTERM);
    waitpid(helper, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "ended well");
    check(becomes(count_programs, programs), "unloaded with the helper");
    return failures != 0;
}
