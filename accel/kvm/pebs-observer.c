/*
 * What qemu-pebs-helper reports on the vCPUs of this QEMU
 *
 * A report is read from memory that the helper shares; the socket is for
 * telling it which thread to watch in which slot.  One request is on its way
 * at a time, and what comes next is seen by comparing what the slots are to
 * watch with what the helper was told.  Nothing here ever waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "io/channel-socket.h"
#include "system/pebs-helper.h"
#include "system/pebs-observer.h"

#define RETRY_MS    1000

/* What a slot is to watch, and what the helper knows of it: 0 for no thread */
typedef struct Watch {
    int wanted;
    int told;               /* and the helper watches it */
    int refused;            /* by the helper */
    /* Of the slot when the helper was asked */
    uint64_t entries, active_entries, suspended_entries;
    PebsObservation past;   /* what helpers counted that are gone */
} Watch;

typedef struct PebsObserver {
    char *path;
    unsigned slots;
    Watch *watches;
    QEMUTimer *retry;
    bool complained;                /* since the helper was last there */
    QIOChannelSocket *ioc;
    guint socket_watch;
    struct PebsHelperRequest asked; /* on its way if .kind isn't 0 */
    struct PebsHelperReply reply;   /* as much of it as has come */
    size_t received;
    int fd;                         /* that came with it, or -1 */
    struct PebsHelperSlot *memory;  /* NULL unless the helper is there */
} PebsObserver;

static PebsObserver *observer;

static bool is_watched(const Watch *w)
{
    return w->told && w->told == w->wanted;
}

/*
 * Read in the opposite order of that in which the BPF program writes: no number
 * is greater than the one that it is a part of.
 */
static PebsObservation observation(unsigned slot)
{
    const struct PebsHelperSlot *s = &observer->memory[slot];
    const Watch *w = &observer->watches[slot];
    PebsObservation seen = w->past;

    seen.suspended_entries += qatomic_load_acquire(&s->suspended_entries) -
                              w->suspended_entries;
    seen.active_entries += qatomic_load_acquire(&s->active_entries) -
                           w->active_entries;
    seen.entries += qatomic_load_acquire(&s->entries) - w->entries;
    seen.report = qatomic_read(&s->report);
    return seen;
}

/* Once for each time that it goes, however often it is tried again */
static void complain(const char *why)
{
    if (!observer->complained) {
        warn_report("pebs-path=on: %s; until that changes, the path of PEBS "
                    "is unknown", why);
        observer->complained = true;
    }
}

/*
 * Connection
 */

static void forget_helper(void)
{
    for (unsigned i = 0; i < observer->slots; i++) {
        Watch *w = &observer->watches[i];

        if (observer->memory && is_watched(w)) {
            w->past = observation(i);
        }
        w->told = 0;
        w->refused = 0;
    }
    if (observer->memory) {
        munmap(observer->memory, observer->slots * sizeof(*observer->memory));
        observer->memory = NULL;
    }
    if (observer->fd >= 0) {
        close(observer->fd);
        observer->fd = -1;
    }
    observer->received = 0;
    observer->asked.kind = 0;
}

static void disconnect(const char *why)
{
    complain(why);
    forget_helper();
    g_clear_handle_id(&observer->socket_watch, g_source_remove);
    g_clear_pointer(&observer->ioc, object_unref);
    timer_mod(observer->retry,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RETRY_MS);
}

/*
 * Requests
 */

static void ask(uint32_t kind, uint32_t slot, uint32_t value)
{
    observer->asked = (struct PebsHelperRequest) { kind, slot, value };
    /* It is small, and there is nothing else in the socket. */
    if (qio_channel_write(QIO_CHANNEL(observer->ioc), (char *)&observer->asked,
                          sizeof(observer->asked), NULL) !=
        sizeof(observer->asked)) {
        disconnect("qemu-pebs-helper takes no requests");
    }
}

static void ask_about(unsigned slot)
{
    const struct PebsHelperSlot *s = &observer->memory[slot];
    Watch *w = &observer->watches[slot];

    w->told = 0;
    w->entries = qatomic_read(&s->entries);
    w->active_entries = qatomic_read(&s->active_entries);
    w->suspended_entries = qatomic_read(&s->suspended_entries);
    ask(w->wanted ? PEBS_HELPER_WATCH : PEBS_HELPER_UNWATCH, slot, w->wanted);
}

static bool is_news(const Watch *w)
{
    return w->wanted != w->told && (!w->wanted || w->wanted != w->refused);
}

static void ask_next(void)
{
    if (!observer->memory || observer->asked.kind) {
        return;
    }
    for (unsigned i = 0; i < observer->slots; i++) {
        if (is_news(&observer->watches[i])) {
            ask_about(i);
            return;
        }
    }
}

/*
 * Replies
 */

static void take_memory(void)
{
    void *memory = mmap(NULL, observer->slots * sizeof(*observer->memory),
                        PROT_READ, MAP_SHARED, observer->fd, 0);

    if (memory == MAP_FAILED) {
        disconnect("qemu-pebs-helper gave no memory to read");
        return;
    }
    close(observer->fd);
    observer->fd = -1;
    observer->memory = memory;
    observer->complained = false;
}

static void take_watch(const struct PebsHelperRequest *asked,
                       const struct PebsHelperReply *reply)
{
    Watch *w = &observer->watches[asked->slot];

    if (reply->failed) {
        complain(reply->reason);
        w->refused = asked->value;
    } else {
        w->told = asked->value;
    }
}

static void take_reply(void)
{
    struct PebsHelperRequest asked = observer->asked;
    struct PebsHelperReply *reply = &observer->reply;

    observer->asked.kind = 0;
    reply->reason[sizeof(reply->reason) - 1] = '\0';
    if (asked.kind != PEBS_HELPER_HELLO) {
        take_watch(&asked, reply);
    } else if (reply->failed) {
        disconnect(reply->reason);
    } else {
        take_memory();
    }
    ask_next();
}

static void keep_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (observer->fd >= 0) {
            close(observer->fd);
        }
        observer->fd = fds[i];
    }
}

/* Returns false when the helper is gone. */
static bool receive(void)
{
    struct iovec iov = {
        .iov_base = (char *)&observer->reply + observer->received,
        .iov_len = sizeof(observer->reply) - observer->received,
    };
    g_autofree int *fds = NULL;
    size_t count = 0;
    ssize_t size = qio_channel_readv_full(QIO_CHANNEL(observer->ioc), &iov, 1,
                                          &fds, &count, 0, NULL);

    if (size == QIO_CHANNEL_ERR_BLOCK) {
        return true;
    }
    keep_fds(fds, count);
    observer->received += MAX(size, 0);
    return size > 0;
}

static gboolean on_readable(QIOChannel *ioc, GIOCondition condition,
                            gpointer opaque)
{
    const struct PebsHelperReply *reply = &observer->reply;

    if (!receive()) {
        disconnect("qemu-pebs-helper has gone");
    } else if (observer->received == sizeof(*reply)) {
        observer->received = 0;
        if (observer->asked.kind && reply->kind == observer->asked.kind &&
            reply->slot == observer->asked.slot) {
            take_reply();
        } else {
            disconnect("what listens there is not qemu-pebs-helper");
        }
    }
    return G_SOURCE_CONTINUE;
}

/*
 * Start
 */

static void connected(QIOTask *task, gpointer opaque)
{
    Error *error = NULL;

    if (qio_task_propagate_error(task, &error)) {
        disconnect(error_get_pretty(error));
        error_free(error);
        return;
    }
    qio_channel_set_blocking(QIO_CHANNEL(observer->ioc), false, &error_abort);
    observer->socket_watch = qio_channel_add_watch(
        QIO_CHANNEL(observer->ioc), G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable,
        NULL, NULL);
    ask(PEBS_HELPER_HELLO, PEBS_HELPER_VERSION, observer->slots);
}

static void start_connecting(void *opaque)
{
    SocketAddress address = {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix.path = observer->path,
    };

    observer->ioc = qio_channel_socket_new();
    qio_channel_set_name(QIO_CHANNEL(observer->ioc), "pebs-helper");
    qio_channel_socket_connect_async(observer->ioc, &address, connected, NULL,
                                     NULL, NULL);
}

static char *default_path(void)
{
    g_autofree char *state = qemu_get_local_state_dir();

    return g_build_filename(state, "run", PEBS_HELPER_SOCKET, NULL);
}

void pebs_observer_start(const char *path, unsigned slots)
{
    observer = g_new0(PebsObserver, 1);
    observer->path = path ? g_strdup(path) : default_path();
    observer->fd = -1;
    observer->slots = slots;
    observer->watches = g_new0(Watch, slots);
    observer->retry = timer_new_ms(QEMU_CLOCK_REALTIME, start_connecting, NULL);
    start_connecting(NULL);
}

bool pebs_observer_started(void)
{
    return observer;
}

void pebs_observer_watch(unsigned slot, int thread)
{
    if (observer) {
        observer->watches[slot].wanted = thread;
        observer->watches[slot].refused = 0;
        observer->watches[slot].past = (PebsObservation) {};
        ask_next();
    }
}

bool pebs_observer_read(unsigned slot, PebsObservation *seen)
{
    if (!observer || !observer->memory ||
        !is_watched(&observer->watches[slot])) {
        return false;
    }
    *seen = observation(slot);
    return seen->entries != observer->watches[slot].past.entries;
}
