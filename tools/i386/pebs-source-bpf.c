/*
 * Reports on VM entries, made by a BPF program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "pebs-memory.h"
#include "pebs-process.h"
#include "pebs-source.h"
#include "pebs-watch.skeleton.h"

#define KERNEL_FUNCTION     "perf_guest_get_msrs"
/* Since it got the struct kvm_pmu, which guest PEBS needs */
#define KERNEL_FUNCTION_ARGUMENTS   2

static struct pebs_watch_bpf *program;
/* libbpf's and the verifier's words; too many unless asked for */
static GString *words;

/* libbpf_print_fn_t doesn't tell the compiler that it takes a format. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsuggest-attribute=format"

static int keep_words(enum libbpf_print_level level, const char *format,
                      va_list arguments)
{
    if (level == LIBBPF_WARN) {
        g_string_append_vprintf(words, format, arguments);
    }
    return 0;
}

#pragma GCC diagnostic pop

/* The BPF program knows threads by their numbers in the initial namespace. */
static bool check_namespace(Error **errp)
{
    if (!pebs_process_in_initial_namespace()) {
        error_setg(errp, "qemu-pebs-helper is in a PID namespace, where it "
                   "can't tell which threads the kernel speaks of: run it on "
                   "the host");
        return false;
    }
    return true;
}

static bool check_types(const struct btf *btf, Error **errp)
{
    int function = btf__find_by_name_kind(btf, KERNEL_FUNCTION, BTF_KIND_FUNC);
    const struct btf_type *type;

    if (function < 0) {
        error_setg(errp, "The kernel has no function " KERNEL_FUNCTION "(): "
                   "use one with CONFIG_CPU_SUP_INTEL and CONFIG_KVM");
        return false;
    }
    type = btf__type_by_id(btf, btf__type_by_id(btf, function)->type);
    if (btf_vlen(type) != KERNEL_FUNCTION_ARGUMENTS) {
        error_setg(errp, "The kernel has no PEBS for guests: use Linux 6.0 or "
                   "newer");
        return false;
    }
    if (btf__find_by_name_kind(btf, "kvm_pmu", BTF_KIND_STRUCT) < 0) {
        error_setg(errp, "The kernel's BTF lacks struct kvm_pmu: use a kernel "
                   "with CONFIG_KVM");
        return false;
    }
    return true;
}

static bool check_kernel(Error **errp)
{
    struct btf *btf = btf__load_vmlinux_btf();
    bool good;

    if (!btf) {
        error_setg(errp, "The kernel has no BTF in /sys/kernel/btf/vmlinux: "
                   "use one with CONFIG_DEBUG_INFO_BTF, and mount sysfs");
        return false;
    }
    good = check_types(btf, errp);
    btf__free(btf);
    return good;
}

/* The kernel has one number for all its reasons not to let us. */
static void set_refusal(Error **errp, const char *what, int error)
{
    if (error == EPERM || error == EACCES) {
        error_setg(errp, "The kernel refused %s: give qemu-pebs-helper the "
                   "capabilities CAP_BPF and CAP_PERFMON, and check that the "
                   "kernel is not locked down", what);
    } else {
        error_setg_errno(errp, error, "The kernel refused %s", what);
    }
    if (words->len) {
        error_append_hint(errp, "%s", words->str);
    }
}

bool pebs_source_open(Error **errp)
{
    int ret;

    words = g_string_new(NULL);
    libbpf_set_print(keep_words);
    if (!check_namespace(errp) || !check_kernel(errp)) {
        return false;
    }
    program = pebs_watch_bpf__open();
    if (!program) {
        error_setg_errno(errp, errno, "libbpf can't read the BPF program");
        return false;
    }
    ret = pebs_watch_bpf__load(program);
    if (ret < 0) {
        set_refusal(errp, "the BPF program", -ret);
        return false;
    }
    return true;
}

bool pebs_source_start(Error **errp)
{
    int ret = pebs_watch_bpf__attach(program);

    if (ret < 0) {
        set_refusal(errp, "to run the BPF program at VM entries", -ret);
        return false;
    }
    return true;
}

void pebs_source_stop(void)
{
    pebs_watch_bpf__detach(program);
}

int pebs_source_add_client(unsigned client, unsigned slots, Error **errp)
{
    int fd = pebs_create_memory(slots);

    if (fd < 0) {
        error_setg_errno(errp, errno, "No memory for the reports");
        return -1;
    }
    if (bpf_map__update_elem(program->maps.clients, &client, sizeof(client),
                             &fd, sizeof(fd), BPF_ANY) < 0) {
        error_setg_errno(errp, errno, "No place for another client");
        close(fd);
        return -1;
    }
    return fd;
}

void pebs_source_remove_client(unsigned client)
{
    bpf_map__delete_elem(program->maps.clients, &client, sizeof(client), 0);
}

/* As bpf_get_current_pid_tgid() has it */
static __u64 key_of(PebsThread thread)
{
    return (__u64)thread.process << 32 | (uint32_t)thread.thread;
}

bool pebs_source_watch(PebsThread thread, struct pebs_place place, Error **errp)
{
    __u64 key = key_of(thread);
    int ret = bpf_map__update_elem(program->maps.watched, &key, sizeof(key),
                                   &place, sizeof(place), BPF_NOEXIST);

    if (ret == -EEXIST) {
        error_setg(errp, "Thread %d is watched already", thread.thread);
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "Thread %d can't be watched",
                         thread.thread);
    }
    return ret == 0;
}

void pebs_source_unwatch(PebsThread thread)
{
    __u64 key = key_of(thread);

    bpf_map__delete_elem(program->maps.watched, &key, sizeof(key), 0);
}
