/*
 * A client's process, and the threads in it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "pebs-process.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD        77      /* Linux 6.5 */
#endif

/* PROC_PID_INIT_INO of Linux: the initial PID namespace */
#define INITIAL_NAMESPACE   "pid:[4026531836]"

bool pebs_process_in_initial_namespace(void)
{
    g_autofree char *mine = g_file_read_link("/proc/self/ns/pid", NULL);

    return g_strcmp0(mine, INITIAL_NAMESPACE) == 0;
}

/*
 * Before Linux 6.5 there is a gap: a process that has ended since it connected,
 * and whose number another one has got, is taken for that one.
 */
static int peer_pidfd(int socket, pid_t pid)
{
    int fd;
    socklen_t size = sizeof(fd);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) {
        return fd;
    }
    return syscall(SYS_pidfd_open, pid, 0);
}

static bool has_ended(int pidfd)
{
    struct pollfd end = { .fd = pidfd, .events = POLLIN };

    return poll(&end, 1, 0) != 0;
}

static int open_tasks(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task", pid);

    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

bool pebs_process_open(PebsProcess *process, int socket, Error **errp)
{
    struct ucred peer = {};
    socklen_t size = sizeof(peer);

    *process = (PebsProcess) { .pidfd = -1, .tasks = -1 };
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        peer.pid <= 0) {
        error_setg(errp, "The process that connected can't be seen from the "
                   "PID namespace of qemu-pebs-helper");
        return false;
    }
    process->pid = peer.pid;
    process->pidfd = peer_pidfd(socket, peer.pid);
    process->tasks = open_tasks(peer.pid);
    /* It had this number all the while only if it has it still. */
    if (process->pidfd < 0 || process->tasks < 0 ||
        has_ended(process->pidfd)) {
        error_setg(errp, "Process %d has ended, or /proc doesn't show it",
                   peer.pid);
        pebs_process_close(process);
        return false;
    }
    return true;
}

void pebs_process_close(PebsProcess *process)
{
    if (process->pidfd >= 0) {
        close(process->pidfd);
    }
    if (process->tasks >= 0) {
        close(process->tasks);
    }
}

/* Of «NSpid:» and one number for each namespace, the innermost comes last. */
static pid_t own_number(FILE *status)
{
    g_autofree char *line = NULL;
    const char *end;
    size_t size = 0;
    int number = 0;

    while (getline(&line, &size, status) > 0) {
        if (g_str_has_prefix(line, "NSpid:")) {
            qemu_strtoi(strrchr(line, '\t') ?: "", &end, 10, &number);
            break;
        }
    }
    return number;
}

/* What the thread that is @thread here is to its process; 0 if not its own */
static pid_t number_inside(const PebsProcess *process, pid_t thread)
{
    g_autofree char *path = g_strdup_printf("%d/status", thread);
    int fd = openat(process->tasks, path, O_RDONLY | O_CLOEXEC);
    FILE *status = fd >= 0 ? fdopen(fd, "r") : NULL;
    pid_t number;

    if (!status) {
        return 0;
    }
    number = own_number(status);
    fclose(status);
    return number;
}

static pid_t search(const PebsProcess *process, DIR *tasks, pid_t named)
{
    struct dirent *entry;

    rewinddir(tasks);
    while ((entry = readdir(tasks))) {
        int thread;

        if (qemu_strtoi(entry->d_name, NULL, 10, &thread) == 0 &&
            number_inside(process, thread) == named) {
            return thread;
        }
    }
    return 0;
}

pid_t pebs_process_find_thread(const PebsProcess *process, pid_t named)
{
    DIR *tasks;
    pid_t found;

    if (named <= 0) {
        return 0;
    }
    /* Without namespaces it has the same number here. */
    if (number_inside(process, named) == named) {
        return named;
    }
    tasks = fdopendir(fcntl(process->tasks, F_DUPFD_CLOEXEC, 0));
    if (!tasks) {
        return 0;
    }
    found = search(process, tasks, named);
    closedir(tasks);
    return found;
}
