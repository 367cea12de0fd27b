/*
 * The first process of the test guest: runs what the host asks for.
 *
 * The kernel's console is the first serial port; the host talks to this
 * program over the second one, in frames, so nothing the kernel prints can
 * get between a command and its output.
 *
 *     frame = 0xA5, type (1 byte), length (4 bytes, little endian), payload
 *
 * From the host:
 *     D bytes      stage bytes for the request that follows
 *     E            run the staged, NUL-terminated argument strings
 *     P mode path  write the staged bytes to a file
 *     G path       send a file
 *     K signal     send a signal to the running command
 *     I            are you alive?
 * To the host:
 *     H text       booted; the kernel's release
 *     O, R bytes   standard output, standard error of the command
 *     Q status     the command ended; wait status, 4 bytes
 *     D bytes      a piece of the file asked for
 *     A            done
 *     F text       failed, and why
 *     L            alive
 *
 * The host keeps every frame shorter than the line discipline's buffer and
 * waits for an A before the next one: there is no flow control on the line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define FRAME_MAGIC 0xA5
#define HEADER_SIZE 6
#define FRAME_MAX 4096
#define OUTPUT_CHUNK 4096
#define SERIAL_PORT "/dev/ttyS1"
#define WORK_DIR "/add"

typedef struct {
    char *data;
    size_t size;
} Buffer;

typedef struct {
    pid_t pid;              /* 0: no command is running */
    int out;
    int err;
} Command;

static int line = -1;
static int child_signals = -1;
static Buffer staged;
static Command command = { .out = -1, .err = -1 };

static void die(const char *what)
{
    /* the kernel panics when its first process ends, and prints this first */
    fprintf(stderr, "guest agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const void *data, size_t size)
{
    const char *next = data;

    while (size) {
        ssize_t done = write(fd, next, size);

        if (done < 0) {
            if (errno == EINTR) {
                continue;
            }
            die("write");
        }
        next += done;
        size -= done;
    }
}

static void read_all(int fd, void *data, size_t size)
{
    char *next = data;

    while (size) {
        ssize_t done = read(fd, next, size);

        if (done <= 0) {
            if (done < 0 && errno == EINTR) {
                continue;
            }
            die("read");
        }
        next += done;
        size -= done;
    }
}

/* ---- frames ---- */

static void send_frame(char type, const void *data, uint32_t size)
{
    uint8_t header[HEADER_SIZE] = { FRAME_MAGIC, type };

    memcpy(header + 2, &size, sizeof(size));
    write_all(line, header, sizeof(header));
    write_all(line, data, size);
}

static void send_text(char type, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    send_frame(type, text, strlen(text));
}

static void send_done(void)
{
    send_frame('A', NULL, 0);
}

/* Returns the payload, NUL-terminated, in a static buffer. */
static char *receive_frame(char *type, uint32_t *size)
{
    static char payload[FRAME_MAX + 1];
    uint8_t header[HEADER_SIZE];

    read_all(line, header, sizeof(header));
    memcpy(size, header + 2, sizeof(*size));
    if (header[0] != FRAME_MAGIC || *size > FRAME_MAX) {
        errno = EPROTO;
        die("frame from the host");
    }
    *type = header[1];
    read_all(line, payload, *size);
    payload[*size] = 0;
    return payload;
}

static void stage(const char *data, size_t size)
{
    staged.data = realloc(staged.data, staged.size + size + 1);
    if (!staged.data) {
        die("staging");
    }
    memcpy(staged.data + staged.size, data, size);
    staged.size += size;
}

static void drop_staged(void)
{
    free(staged.data);
    staged = (Buffer) { 0 };
}

/* ---- commands ---- */

static char **staged_arguments(void)
{
    size_t count = 0;
    char **argv, *next = staged.data;

    for (size_t i = 0; i < staged.size; i++) {
        count += !staged.data[i];
    }
    argv = calloc(count + 1, sizeof(*argv));
    if (!argv) {
        die("arguments");
    }
    for (size_t i = 0; i < count; i++) {
        argv[i] = next;
        next += strlen(next) + 1;
    }
    return argv;
}

static void become(char **argv)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    execvp(argv[0], argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);     /* as a shell does */
}

/* Not a pipe: perf writes its data into one instead of perf.data. */
static void make_channel(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        die("socketpair");
    }
}

static void start_command(void)
{
    int out[2], err[2];
    char **argv;

    if (command.pid || !staged.size) {
        send_text('F', command.pid ? "a command is running"
                                   : "no command given");
        drop_staged();
        return;
    }
    make_channel(out);
    make_channel(err);
    argv = staged_arguments();
    command.pid = fork();
    if (command.pid < 0) {
        die("fork");
    }
    if (!command.pid) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        become(argv);
    }
    close(out[1]);
    close(err[1]);
    command.out = out[0];
    command.err = err[0];
    free(argv);
    drop_staged();
    send_done();
}

/* False at the end of the file. */
static bool pass_output(int fd, char type)
{
    char data[OUTPUT_CHUNK];
    ssize_t size = read(fd, data, sizeof(data));

    if (size > 0) {
        send_frame(type, data, size);
    }
    return size > 0 || (size < 0 && (errno == EINTR || errno == EAGAIN));
}

static void pass_or_close(int *fd, char type)
{
    if (!pass_output(*fd, type)) {
        close(*fd);
        *fd = -1;
    }
}

/* What is in the channel now; a grandchild may hold its other end open. */
static void drain(int *fd, char type)
{
    while (*fd >= 0) {
        struct pollfd ready = { .fd = *fd, .events = POLLIN };

        if (poll(&ready, 1, 0) <= 0) {
            close(*fd);
            *fd = -1;
            return;
        }
        pass_or_close(fd, type);
    }
}

static void end_command(int status)
{
    int32_t wire = status;

    drain(&command.out, 'O');
    drain(&command.err, 'R');
    command.pid = 0;
    send_frame('Q', &wire, sizeof(wire));
}

static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    read_all(child_signals, &info, sizeof(info));
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == command.pid) {
            end_command(status);
        }
    }
}

/* ---- files ---- */

static void put_file(const char *request)
{
    char *path;
    mode_t mode = strtoul(request, &path, 8);
    int fd;

    path++;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, mode)) {
        send_text('F', "%s: %s", path, strerror(errno));
    } else {
        write_all(fd, staged.data, staged.size);
        send_done();
    }
    if (fd >= 0) {
        close(fd);
    }
    drop_staged();
}

static void get_file(const char *path)
{
    char data[OUTPUT_CHUNK];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    if (fd < 0) {
        send_text('F', "%s: %s", path, strerror(errno));
        return;
    }
    while ((size = read(fd, data, sizeof(data))) > 0) {
        send_frame('D', data, size);
    }
    if (size < 0) {
        send_text('F', "%s: %s", path, strerror(errno));
    } else {
        send_done();
    }
    close(fd);
}

static void signal_command(const char *number)
{
    if (command.pid) {
        kill(-command.pid, atoi(number));
    }
    send_done();
}

static void serve_host(void)
{
    char type;
    uint32_t size;
    char *payload = receive_frame(&type, &size);

    switch (type) {
    case 'D':
        stage(payload, size);
        send_done();
        break;
    case 'E':
        start_command();
        break;
    case 'P':
        put_file(payload);
        break;
    case 'G':
        get_file(payload);
        break;
    case 'K':
        signal_command(payload);
        break;
    case 'I':
        send_frame('L', NULL, 0);
        break;
    default:
        send_text('F', "unknown request %c", type);
    }
}

static void serve(void)
{
    for (;;) {
        struct pollfd ready[] = {
            { .fd = line, .events = POLLIN },
            { .fd = child_signals, .events = POLLIN },
            { .fd = command.out, .events = POLLIN },
            { .fd = command.err, .events = POLLIN },
        };

        if (poll(ready, 4, -1) < 0) {
            if (errno == EINTR) {
                continue;
            }
            die("poll");
        }
        if (ready[2].revents) {
            pass_or_close(&command.out, 'O');
        }
        if (ready[3].revents) {
            pass_or_close(&command.err, 'R');
        }
        if (ready[0].revents) {
            serve_host();
        }
        if (ready[1].revents) {
            reap();
        }
    }
}

/* ---- setting up ---- */

static void mount_or_die(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL)) {
        die(where);
    }
}

static void mount_all(void)
{
    mount_or_die("proc", "/proc");
    mount_or_die("sysfs", "/sys");
    mount_or_die("devtmpfs", "/dev");
    mount_or_die("tmpfs", "/tmp");
    mount_or_die("tmpfs", "/dev/shm");
    mount_or_die("tracefs", "/sys/kernel/tracing");
}

static void open_line(void)
{
    struct termios mode;

    line = open(SERIAL_PORT, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (line < 0 || tcgetattr(line, &mode)) {
        die(SERIAL_PORT);
    }
    cfmakeraw(&mode);
    cfsetspeed(&mode, B115200);
    mode.c_cflag |= CLOCAL;
    mode.c_cflag &= ~CRTSCTS;
    if (tcsetattr(line, TCSANOW, &mode)) {
        die(SERIAL_PORT);
    }
}

static void watch_children(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    child_signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (child_signals < 0) {
        die("signalfd");
    }
}

static void set_environment(void)
{
    setenv("PATH", WORK_DIR ":/usr/bin:/usr/sbin:/bin:/sbin", 1);
    setenv("HOME", "/root", 1);
    setenv("TERM", "dumb", 1);
    setenv("LC_ALL", "C", 1);
    setenv("PAGER", "cat", 1);
    umask(022);
    if (chdir(WORK_DIR)) {
        die(WORK_DIR);
    }
}

int main(void)
{
    struct utsname name;

    mount_all();
    set_environment();
    watch_children();
    open_line();
    uname(&name);
    send_text('H', "%s", name.release);
    serve();
}
