/*
 * Shows that qemu-pebs-helper has its BPF program run only for a client
 *
 *     cost SOCKET HELPER [ARGUMENT...]
 *
 * Starts the helper, is its client, and has the kernel tell which BPF programs
 * are attached meanwhile.  Prints each check that fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../../../include/system/pebs-helper.h"

#define PATIENCE_MS     20000
#define TICK_MS         20

static int failures;

static void check(bool good, const char *what)
{
    if (!good) {
        printf("not %s\n", what);
        failures++;
    }
}

static bool is_observer(__u32 program)
{
    struct bpf_prog_info info = {};
    __u32 size = sizeof(info);
    int fd = bpf_prog_get_fd_by_id(program);
    bool found = fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
                 !strcmp(info.name, "pebs_vm_entry");

    close(fd);
    return found;
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
    check(count_links() == 0, "unattached before a client's first request");
    check(ask(first, PEBS_HELPER_HELLO, PEBS_HELPER_VERSION, 1), "served");
    check(count_links() == 1, "attached for a client");
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
    check(becomes(count_links, 0), "unattached after the last client");
}

int main(int argc, char **argv)
{
    int programs, status;
    pid_t helper;

    if (argc < 3) {
        return 1;
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
