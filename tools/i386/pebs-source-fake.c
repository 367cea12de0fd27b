/*
 * Reports that a test makes up, in place of the BPF program's
 *
 *   PEBS_FAKE_FIFO=PATH    lines of «thread report», in decimal or with 0x
 *   PEBS_FAKE_LOG=PATH     gets a line for each call
 *   PEBS_FAKE_REFUSES=TEXT pebs_source_start() fails with this
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib-unix.h>
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "system/pebs-helper.h"
#include "pebs-source.h"
#include "../../target/i386/pebs-report.h"

typedef struct Watched {
    PebsThread thread;
    struct pebs_place place;
} Watched;

static struct PebsHelperSlot *memory[PEBS_MAX_CLIENTS];
static GHashTable *watched;     /* thread: Watched */
static FILE *fifo, *call_log;

G_GNUC_PRINTF(1, 2)
static void log_call(const char *format, ...)
{
    va_list arguments;

    if (call_log) {
        va_start(arguments, format);
        vfprintf(call_log, format, arguments);
        va_end(arguments);
        fflush(call_log);
    }
}

static void report(pid_t thread, uint64_t value)
{
    Watched *w = g_hash_table_lookup(watched, GINT_TO_POINTER(thread));

    if (w && memory[w->place.client]) {
        struct PebsHelperSlot *slot = &memory[w->place.client][w->place.slot];

        slot->report = value;
        slot->entries++;
        slot->active_entries += !!value;
        slot->suspended_entries += !!(value & PEBS_REPORT_SUSPENDED);
    }
}

static gboolean read_line(gint fd, GIOCondition condition, gpointer opaque)
{
    char line[80];

    if (fgets(line, sizeof(line), fifo)) {
        const char *rest;
        int thread;
        uint64_t word;

        qemu_strtoi(line, &rest, 0, &thread);
        qemu_strtou64(rest, &rest, 0, &word);
        report(thread, word);
    }
    return G_SOURCE_CONTINUE;
}

bool pebs_source_open(Error **errp)
{
    const char *log_path = getenv("PEBS_FAKE_LOG");

    watched = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    call_log = log_path ? fopen(log_path, "a") : NULL;
    /* "r+", so that the end of one writer isn't the end */
    fifo = fopen(getenv("PEBS_FAKE_FIFO") ?: "", "r+");
    if (!fifo) {
        error_setg_errno(errp, errno, "PEBS_FAKE_FIFO");
        return false;
    }
    /* What is in a buffer makes no descriptor readable. */
    setvbuf(fifo, NULL, _IONBF, 0);
    g_unix_fd_add(fileno(fifo), G_IO_IN, read_line, NULL);
    return true;
}

bool pebs_source_start(Error **errp)
{
    const char *reason = getenv("PEBS_FAKE_REFUSES");

    log_call("start\n");
    if (reason) {
        error_setg(errp, "%s", reason);
        return false;
    }
    return true;
}

void pebs_source_stop(void)
{
    log_call("stop\n");
}

int pebs_source_add_client(unsigned client, unsigned slots, Error **errp)
{
    size_t size = slots * sizeof(struct PebsHelperSlot);
    int fd = memfd_create("pebs-fake", MFD_ALLOW_SEALING | MFD_CLOEXEC);

    g_assert(fd >= 0 && ftruncate(fd, size) == 0);
    memory[client] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          0);
    g_assert(memory[client] != MAP_FAILED);
    g_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW |
                                    F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
    log_call("client %u slots %u\n", client, slots);
    return fd;
}

void pebs_source_remove_client(unsigned client)
{
    memory[client] = NULL;
    log_call("gone %u\n", client);
}

bool pebs_source_watch(PebsThread thread, struct pebs_place place, Error **errp)
{
    Watched *w;

    if (g_hash_table_contains(watched, GINT_TO_POINTER(thread.thread))) {
        error_setg(errp, "Thread %d is watched already", thread.thread);
        return false;
    }
    w = g_new(Watched, 1);
    *w = (Watched) { thread, place };
    g_hash_table_insert(watched, GINT_TO_POINTER(thread.thread), w);
    log_call("watch %d/%d client %u slot %u\n", thread.process, thread.thread,
             place.client, place.slot);
    return true;
}

void pebs_source_unwatch(PebsThread thread)
{
    g_hash_table_remove(watched, GINT_TO_POINTER(thread.thread));
    log_call("unwatch %d/%d\n", thread.process, thread.thread);
}
