/*
 * Runs a program on a kernel that seems to lack what the observer needs
 *
 *     unfit function|argument|pmu PROGRAM [ARGUMENT...]
 *
 * The kernel's own types, but one, take the place of /sys/kernel/btf/vmlinux,
 * for the program alone: perf_guest_get_msrs() has another name, or only one
 * argument, as before Linux 6.0, or struct kvm_pmu has another name.  Exit
 * status 2: that can't be had here, and why is on standard error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <bpf/btf.h>
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define TYPES       "/sys/kernel/btf/vmlinux"
#define HOOKED      "perf_guest_get_msrs"
/* Any function that has one argument in each kernel */
#define OF_ONE      "kfree"

static void need(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "unfit: %s: %s\n", what, strerror(errno));
        exit(2);
    }
}

static struct btf_type *find(struct btf *btf, const char *name, __u32 kind)
{
    int id = btf__find_by_name_kind(btf, name, kind);

    need(id >= 0, name);
    return (struct btf_type *)btf__type_by_id(btf, id);
}

/* The types can be written to once a name has been added. */
static void change(struct btf *btf, const char *what)
{
    int name = btf__add_str(btf, "renamed_by_unfit");

    need(name > 0, "btf__add_str");
    if (!strcmp(what, "function")) {
        find(btf, HOOKED, BTF_KIND_FUNC)->name_off = name;
    } else if (!strcmp(what, "argument")) {
        find(btf, HOOKED, BTF_KIND_FUNC)->type =
            find(btf, OF_ONE, BTF_KIND_FUNC)->type;
    } else if (!strcmp(what, "pmu")) {
        find(btf, "kvm_pmu", BTF_KIND_STRUCT)->name_off = name;
    } else {
        errno = EINVAL;
        need(false, what);
    }
}

static void write_types(const struct btf *btf, int fd)
{
    __u32 size, done = 0;
    const char *bytes = btf__raw_data(btf, &size);

    need(bytes, "btf__raw_data");
    while (done < size) {
        ssize_t n = write(fd, bytes + done, size - done);

        need(n > 0, "writing the types");
        done += n;
    }
}

/* In place of the kernel's, and only as long as the program runs */
static void cover(const struct btf *btf)
{
    char path[] = "/tmp/unfit-XXXXXX";
    int fd = mkstemp(path);
    bool covered;

    need(fd >= 0, path);
    write_types(btf, fd);
    close(fd);
    covered = mount(path, TYPES, NULL, MS_BIND, NULL) == 0;
    unlink(path);
    need(covered, "mount over " TYPES);
}

int main(int argc, char **argv)
{
    struct btf *btf;

    if (argc < 3) {
        return 1;
    }
    btf = btf__parse(TYPES, NULL);
    need(btf, TYPES);
    change(btf, argv[1]);
    need(unshare(CLONE_NEWNS) == 0 &&
         mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
         "mounts of its own");
    cover(btf);
    execv(argv[2], &argv[2]);
    return 127;
}
