/*
 * Tells QEMUs how the PEBS counters of their KVM vCPUs sample
 *
 * One BPF program serves all QEMUs of a host: a kernel function takes few of
 * them, and each would run at every guest's VM entries.  A QEMU gets read-only
 * memory with the reports on its own threads, and on nobody else's: it is
 * known by the credentials of its socket, and the threads that it names have
 * to be its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <getopt.h>
#include <glib-unix.h>
#include <sys/resource.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/help-texts.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/systemd.h"
#include "qemu-version.h"
#include "io/channel-socket.h"
#include "system/pebs-helper.h"
#include "pebs-process.h"
#include "pebs-source.h"

typedef struct Client {
    unsigned number;
    QIOChannelSocket *ioc;
    guint socket_watch, end_watch;
    PebsProcess process;
    struct PebsHelperRequest request;   /* as much of it as has come */
    size_t received;
    unsigned slots;                     /* 0 before PEBS_HELPER_HELLO */
    pid_t *threads;                     /* watched in each slot, or 0 */
} Client;

/* Its socket, its process, that one's threads, and for a moment its memory */
#define FILES_PER_CLIENT    4
#define FILES_OF_OUR_OWN    64

static Client *clients[PEBS_MAX_CLIENTS];
static unsigned max_clients;
static bool verbose;
static bool terminate;

G_GNUC_PRINTF(1, 2)
static void tell(const char *format, ...)
{
    va_list arguments;

    if (verbose) {
        va_start(arguments, format);
        info_vreport(format, arguments);
        va_end(arguments);
    }
}

/* Whether anybody gets reports: if not, none are to be made. */
static bool has_clients(void)
{
    for (unsigned i = 0; i < PEBS_MAX_CLIENTS; i++) {
        if (clients[i] && clients[i]->slots) {
            return true;
        }
    }
    return false;
}

/*
 * Requests
 */

static void unwatch(Client *c, unsigned slot)
{
    if (c->threads[slot]) {
        pebs_source_unwatch((PebsThread) { c->process.pid, c->threads[slot] });
        c->threads[slot] = 0;
    }
}

static bool check_hello(const Client *c, Error **errp)
{
    if (c->request.slot != PEBS_HELPER_VERSION) {
        error_setg(errp, "This qemu-pebs-helper speaks version %d, not %u: "
                   "use the one that came with QEMU", PEBS_HELPER_VERSION,
                   c->request.slot);
        return false;
    }
    if (!c->request.value || c->request.value > PEBS_HELPER_MAX_SLOTS) {
        error_setg(errp, "%u vCPUs are not between 1 and %d", c->request.value,
                   PEBS_HELPER_MAX_SLOTS);
        return false;
    }
    return true;
}

/* Returns the memory's file descriptor, or -1. */
static int hello(Client *c, Error **errp)
{
    int fd;

    if (!check_hello(c, errp) ||
        (!has_clients() && !pebs_source_start(errp))) {
        return -1;
    }
    fd = pebs_source_add_client(c->number, c->request.value, errp);
    if (fd >= 0) {
        c->slots = c->request.value;
        c->threads = g_new0(pid_t, c->slots);
    } else if (!has_clients()) {
        pebs_source_stop();
    }
    return fd;
}

static bool watch(Client *c, Error **errp)
{
    unsigned slot = c->request.slot;
    pid_t thread = pebs_process_find_thread(&c->process, c->request.value);

    if (!thread) {
        error_setg(errp, "Process %d has no thread %u", c->process.pid,
                   c->request.value);
        return false;
    }
    unwatch(c, slot);
    if (!pebs_source_watch((PebsThread) { c->process.pid, thread },
                           (struct pebs_place) { c->number, slot }, errp)) {
        return false;
    }
    c->threads[slot] = thread;
    return true;
}

static void obey(Client *c, Error **errp)
{
    if (c->request.slot >= c->slots) {
        error_setg(errp, "There are %u slots, number %u is none of them",
                   c->slots, c->request.slot);
        return;
    }
    if (c->request.kind == PEBS_HELPER_WATCH) {
        watch(c, errp);
    } else {
        unwatch(c, c->request.slot);
    }
}

static bool is_expected(const Client *c)
{
    return c->slots ? c->request.kind == PEBS_HELPER_WATCH ||
                      c->request.kind == PEBS_HELPER_UNWATCH
                    : c->request.kind == PEBS_HELPER_HELLO;
}

/* One that doesn't take its replies is not waited for. */
static bool reply(Client *c, int fd, Error *error)
{
    struct PebsHelperReply r = {
        .kind = c->request.kind,
        .slot = c->request.slot,
        .failed = !!error,
    };
    struct iovec iov = { .iov_base = &r, .iov_len = sizeof(r) };

    if (error) {
        pstrcpy(r.reason, sizeof(r.reason), error_get_pretty(error));
        tell("process %d: %s", c->process.pid, r.reason);
    }
    return qio_channel_writev_full(QIO_CHANNEL(c->ioc), &iov, 1, &fd, fd >= 0,
                                   0, NULL) == sizeof(r);
}

/* Returns false for a client that is to be dropped. */
static bool answer(Client *c)
{
    Error *error = NULL;
    int fd = -1;
    bool taken;

    if (!is_expected(c)) {
        tell("process %d doesn't keep to the protocol", c->process.pid);
        return false;
    }
    if (c->request.kind == PEBS_HELPER_HELLO) {
        fd = hello(c, &error);
    } else {
        obey(c, &error);
    }
    taken = reply(c, fd, error);
    error_free(error);
    if (fd >= 0) {
        close(fd);
    }
    return taken;
}

/*
 * Clients
 */

static void drop(Client *c)
{
    tell("process %d is gone", c->process.pid);
    for (unsigned i = 0; i < c->slots; i++) {
        unwatch(c, i);
    }
    clients[c->number] = NULL;
    if (c->slots) {
        pebs_source_remove_client(c->number);
        if (!has_clients()) {
            pebs_source_stop();
        }
    }
    g_source_remove(c->socket_watch);
    g_source_remove(c->end_watch);
    pebs_process_close(&c->process);
    object_unref(OBJECT(c->ioc));
    g_free(c->threads);
    g_free(c);
}

static gboolean receive(QIOChannel *ioc, GIOCondition condition,
                        gpointer opaque)
{
    Client *c = opaque;
    ssize_t size = qio_channel_read(ioc, (char *)&c->request + c->received,
                                    sizeof(c->request) - c->received, NULL);

    if (size == QIO_CHANNEL_ERR_BLOCK) {
        return G_SOURCE_CONTINUE;
    }
    if (size <= 0) {
        drop(c);
        return G_SOURCE_CONTINUE;
    }
    c->received += size;
    if (c->received == sizeof(c->request)) {
        c->received = 0;
        if (!answer(c)) {
            drop(c);
        }
    }
    return G_SOURCE_CONTINUE;
}

/* Its socket may live on in another process. */
static gboolean process_ended(gint fd, GIOCondition condition, gpointer opaque)
{
    drop(opaque);
    return G_SOURCE_CONTINUE;
}

static int free_number(void)
{
    for (unsigned i = 0; i < max_clients; i++) {
        if (!clients[i]) {
            return i;
        }
    }
    return -1;
}

static void add_client(QIOChannelSocket *ioc, PebsProcess process,
                       unsigned number)
{
    Client *c = g_new0(Client, 1);

    c->number = number;
    c->ioc = ioc;
    c->process = process;
    qio_channel_set_blocking(QIO_CHANNEL(ioc), false, NULL);
    c->socket_watch = qio_channel_add_watch(QIO_CHANNEL(ioc),
                                            G_IO_IN | G_IO_HUP | G_IO_ERR,
                                            receive, c, NULL);
    c->end_watch = g_unix_fd_add(process.pidfd, G_IO_IN, process_ended, c);
    clients[number] = c;
    tell("process %d connected", process.pid);
}

static gboolean accept_client(QIOChannel *server, GIOCondition condition,
                              gpointer opaque)
{
    QIOChannelSocket *ioc = qio_channel_socket_accept(
                                QIO_CHANNEL_SOCKET(server), NULL);
    int number = free_number();
    PebsProcess process;
    Error *error = NULL;

    if (!ioc) {
        return G_SOURCE_CONTINUE;
    }
    if (number < 0) {
        error_setg(&error, "More than %u clients", max_clients);
    } else if (pebs_process_open(&process, ioc->fd, &error)) {
        add_client(ioc, process, number);
        return G_SOURCE_CONTINUE;
    }
    warn_report_err(error);
    object_unref(OBJECT(ioc));
    return G_SOURCE_CONTINUE;
}

/*
 * The service
 */

static char *default_socket(void)
{
    g_autofree char *state = qemu_get_local_state_dir();

    return g_build_filename(state, "run", PEBS_HELPER_SOCKET, NULL);
}

static void usage(const char *name)
{
    g_autofree char *path = default_socket();

    printf(
"Usage: %s [OPTIONS]\n"
"Tell QEMUs how the PEBS counters of their KVM vCPUs sample\n"
"\n"
"  -h, --help                display this help and exit\n"
"  -V, --version             output version information and exit\n"
"  -k, --socket=PATH         listen on this socket instead of\n"
"                            %s\n"
"  -f, --pidfile=PATH        write the process ID there\n"
"  -c, --check               load and run the BPF program, then exit\n"
"  -v, --verbose             tell who comes and goes, and the kernel's words\n"
"\n"
QEMU_HELP_BOTTOM "\n", name, path);
}

static void version(const char *name)
{
    printf("%s " QEMU_FULL_VERSION "\n" QEMU_COPYRIGHT "\n", name);
}

static void stop_service(int signal)
{
    terminate = true;
    qemu_notify_event();
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = stop_service };

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* A hint holds the verifier's words: many. */
static G_NORETURN void give_up(Error *error)
{
    if (verbose) {
        error_report_err(error);
    } else {
        error_report("%s", error_get_pretty(error));
    }
    exit(EXIT_FAILURE);
}

static QIOChannelSocket *listen_at(const char *path)
{
    SocketAddress address = {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix.path = (char *)path,
    };
    QIOChannelSocket *server = qio_channel_socket_new();
    Error *error = NULL;

    if (qio_channel_socket_listen_sync(server, &address, SOMAXCONN,
                                       &error) < 0) {
        give_up(error);
    }
    return server;
}

static QIOChannelSocket *open_server(const char *path)
{
    Error *error = NULL;
    QIOChannelSocket *server;

    if (!check_socket_activation()) {
        return listen_at(path);
    }
    server = qio_channel_socket_new_fd(FIRST_SOCKET_ACTIVATION_FD, &error);
    if (!server) {
        give_up(error);
    }
    return server;
}

static void open_source(void)
{
    Error *error = NULL;

    if (!pebs_source_open(&error)) {
        give_up(error);
    }
}

static void check_source(void)
{
    Error *error = NULL;

    open_source();
    if (!pebs_source_start(&error)) {
        give_up(error);
    }
    pebs_source_stop();
    printf("The BPF program can be loaded and run\n");
}

/*
 * Without a file descriptor left, a connection could be neither taken nor
 * refused.
 */
static void limit_clients(void)
{
    struct rlimit files = {};
    rlim_t room;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    room = MAX(files.rlim_max, FILES_OF_OUR_OWN + FILES_PER_CLIENT) -
           FILES_OF_OUR_OWN;
    max_clients = MIN(PEBS_MAX_CLIENTS, room / FILES_PER_CLIENT);
}

static void serve(const char *path)
{
    QIOChannelSocket *server = open_server(path);

    limit_clients();
    qemu_init_main_loop(&error_fatal);
    qio_channel_add_watch(QIO_CHANNEL(server), G_IO_IN, accept_client, NULL,
                          NULL);
    tell("listening on %s", path);
    while (!terminate) {
        main_loop_wait(false);
    }
    for (unsigned i = 0; i < PEBS_MAX_CLIENTS; i++) {
        if (clients[i]) {
            drop(clients[i]);
        }
    }
    object_unref(OBJECT(server));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "socket", required_argument, NULL, 'k' },
        { "pidfile", required_argument, NULL, 'f' },
        { "check", no_argument, NULL, 'c' },
        { "verbose", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 }
    };
    g_autofree char *path = NULL;
    const char *pidfile = NULL;
    bool check = false;
    int option;

    error_init(argv[0]);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_exec_dir(argv[0]);
    path = default_socket();

    while ((option = getopt_long(argc, argv, "hVk:f:cv", options,
                                 NULL)) != -1) {
        switch (option) {
        case 'k':
            g_free(path);
            path = g_strdup(optarg);
            break;
        case 'f':
            pidfile = optarg;
            break;
        case 'c':
            check = true;
            break;
        case 'v':
            verbose = true;
            break;
        case 'V':
            version(argv[0]);
            exit(EXIT_SUCCESS);
        case 'h':
            usage(argv[0]);
            exit(EXIT_SUCCESS);
        default:
            error_report("Try '%s --help' for more information.", argv[0]);
            exit(EXIT_FAILURE);
        }
    }
    if (check) {
        check_source();
        return EXIT_SUCCESS;
    }
    catch_signals();
    open_source();
    if (pidfile) {
        qemu_write_pidfile(pidfile, &error_fatal);
    }
    serve(path);
    return EXIT_SUCCESS;
}
