/*
 * QTest for TCG and snapshots: what runs is the code that was loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/libqos.h"

#define ROM_SIZE        (64 * 1024)
#define RESET_VECTOR    0xfff0
#define CODE            0x7c00
#define LETTER          (CODE + 1)      /* the operand of CODE's first insn */
#define SHOWN           0x9000

#define PATIENCE        (60 * G_USEC_PER_SEC)

/* It shows a letter, again and again. */
static const uint8_t code[] = {
    0xb0, 'A',                          /* mov $'A', %al */
    0xa2, SHOWN & 0xff, SHOWN >> 8,     /* mov %al, SHOWN */
    0xeb, 0xf9,                         /* jmp CODE */
};

static const uint8_t reset_code[] = {
    0xea, CODE & 0xff, CODE >> 8, 0, 0, /* ljmp $0, $CODE */
};

typedef struct Files {
    char *folder, *rom, *disk;
} Files;

static void make_files(Files *f)
{
    g_autofree char *rom = g_malloc0(ROM_SIZE);

    f->folder = g_dir_make_tmp("tcg-loadvm-XXXXXX", NULL);
    g_assert_nonnull(f->folder);
    f->rom = g_build_filename(f->folder, "rom", NULL);
    f->disk = g_build_filename(f->folder, "disk.qcow2", NULL);
    memcpy(rom + RESET_VECTOR, reset_code, sizeof(reset_code));
    g_assert_true(g_file_set_contents(f->rom, rom, ROM_SIZE, NULL));
    mkqcow2(f->disk, 1);
}

static void remove_files(Files *f)
{
    unlink(f->rom);
    unlink(f->disk);
    rmdir(f->folder);
    g_free(f->rom);
    g_free(f->disk);
    g_free(f->folder);
}

static QTestState *start(const Files *f)
{
    QTestState *qts = qtest_initf("-accel tcg -machine pc -nodefaults -S "
                                  "-bios %s "
                                  "-drive if=none,format=qcow2,file=%s",
                                  f->rom, f->disk);

    qtest_memwrite(qts, CODE, code, sizeof(code));
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    return qts;
}

/* Returns the letter that the guest shows from now on. */
static uint8_t next_letter(QTestState *qts)
{
    int64_t end = g_get_monotonic_time() + PATIENCE;
    uint8_t letter;

    qtest_writeb(qts, SHOWN, 0);
    do {
        letter = qtest_readb(qts, SHOWN);
    } while (!letter && g_get_monotonic_time() < end);
    return letter;
}

static void hmp(QTestState *qts, const char *command)
{
    g_autofree char *said = qtest_hmp(qts, "%s", command);

    g_assert_cmpstr(said, ==, "");
}

/* A snapshot, the guest's code changes and runs, the snapshot is loaded. */
static void run_through(const char *before_loadvm, const char *after_loadvm)
{
    QTestState *qts;
    Files files;

    make_files(&files);
    qts = start(&files);
    g_assert_cmpint(next_letter(qts), ==, 'A');
    hmp(qts, "savevm a");
    qtest_writeb(qts, LETTER, 'B');
    g_assert_cmpint(next_letter(qts), ==, 'B');

    hmp(qts, before_loadvm);
    hmp(qts, "loadvm a");
    hmp(qts, after_loadvm);
    g_assert_cmpint(next_letter(qts), ==, 'A');

    qtest_quit(qts);
    remove_files(&files);
}

static void test_running(void)
{
    run_through("", "");
}

static void test_stopped(void)
{
    run_through("stop", "cont");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_accel("tcg") && have_qemu_img()) {
        qtest_add_func("/tcg-loadvm/running", test_running);
        qtest_add_func("/tcg-loadvm/stopped", test_stopped);
    }
    return g_test_run();
}
