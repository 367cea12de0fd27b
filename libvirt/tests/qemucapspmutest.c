/*
 * qemucapspmutest.c: Test that capabilities of QEMU are probed again when
 * parameters of the kvm modules that decide about the PMU change
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include <config.h>

#include "testutils.h"
#include "testutilsqemu.h"
#include "virfile.h"
#include "virfilewrapper.h"
#define LIBVIRT_QEMU_CAPSPRIV_H_ALLOW
#include "qemu/qemu_capspriv.h"

#define VIR_FROM_THIS VIR_FROM_QEMU

#define ENABLE_PMU "kvm/parameters/enable_pmu"
#define MEDIATED_PMU "kvm_intel/parameters/enable_mediated_pmu"

static char *scratch;

struct testInfo {
    const char *probed; /* what the parameters were then; NULL if there were none */
    const char *enable; /* what they are now; NULL if there is none */
    const char *mediated;
    bool changed;
};


/* Makes the parameter's file what it is to be. */
static int
testSetParameter(const char *name,
                 const char *value)
{
    g_autofree char *path = g_strdup_printf("%s/module/%s", scratch, name);
    g_autofree char *dir = g_path_get_dirname(path);

    if (!value) {
        if (virFileExists(path) && unlink(path) < 0)
            return -1;
        return 0;
    }

    if (g_mkdir_with_parents(dir, 0700) < 0 ||
        virFileWriteStr(path, value, 0600) < 0)
        return -1;

    return 0;
}


/* Capabilities as they are cached on disk. */
static virQEMUCaps *
testLoad(const char *probed)
{
    const char *end = "</qemuCaps>";
    g_autofree char *path = g_strdup_printf("%s/caps.xml", scratch);
    g_autofree char *text = NULL;
    g_auto(virBuffer) buf = VIR_BUFFER_INITIALIZER;
    char *p;

    if (virTestLoadFile(abs_srcdir "/qemucapabilitiesdata/caps_10.0.0_x86_64.xml",
                        &text) < 0)
        return NULL;

    if (!(p = strstr(text, end)))
        return NULL;

    virBufferAdd(&buf, text, p - text);
    virBufferEscapeString(&buf, "<kvmPMU>%s</kvmPMU>", probed);
    virBufferAdd(&buf, end, -1);

    if (virFileWriteStr(path, virBufferCurrentContent(&buf), 0600) < 0)
        return NULL;

    return qemuTestParseCapabilitiesArch(VIR_ARCH_X86_64, path);
}


static int
testChanged(const void *opaque)
{
    const struct testInfo *info = opaque;
    g_autoptr(virQEMUCaps) loaded = NULL;
    g_autoptr(virQEMUCaps) copy = NULL;
    g_autofree char *formatted = NULL;

    if (testSetParameter(ENABLE_PMU, info->enable) < 0 ||
        testSetParameter(MEDIATED_PMU, info->mediated) < 0 ||
        !(loaded = testLoad(info->probed)))
        return -1;

    copy = virQEMUCapsNewCopy(loaded);

    if (virQEMUCapsKVMPMUChanged(copy) != info->changed) {
        VIR_TEST_VERBOSE("it should be %s", info->changed ? "other" : "the same");
        return -1;
    }

    if (!(formatted = virQEMUCapsFormatCache(copy)))
        return -1;

    if (info->probed && !strstr(formatted, info->probed)) {
        VIR_TEST_VERBOSE("'%s' is not formatted", info->probed);
        return -1;
    }

    return 0;
}


static int
mymain(void)
{
    int ret = 0;

    scratch = g_strdup(abs_builddir "/qemucapspmutest-XXXXXX");
    if (!g_mkdtemp(scratch)) {
        VIR_TEST_DEBUG("Unable to create '%s'", scratch);
        return EXIT_FAILURE;
    }
    virFileWrapperAddPrefix("/sys", scratch);

#define DO_TEST(name, ...) \
    do { \
        const struct testInfo info = { __VA_ARGS__ }; \
        if (virTestRun(name, testChanged, &info) < 0) \
            ret = -1; \
    } while (0)

    DO_TEST("no parameters", NULL, NULL, NULL, false);
    DO_TEST("same", ENABLE_PMU "=Y", "Y\n", NULL, false);
    DO_TEST("both the same", ENABLE_PMU "=Y " MEDIATED_PMU "=N", "Y\n", "N\n", false);
    DO_TEST("switched off", ENABLE_PMU "=Y", "N\n", NULL, true);
    DO_TEST("switched on", ENABLE_PMU "=N", "Y\n", NULL, true);
    DO_TEST("mediated", ENABLE_PMU "=Y " MEDIATED_PMU "=N", "Y\n", "Y\n", true);
    DO_TEST("another module", ENABLE_PMU "=Y", "Y\n", "N\n", true);
    DO_TEST("modules loaded", NULL, "Y\n", NULL, true);
    DO_TEST("modules unloaded", ENABLE_PMU "=Y", NULL, NULL, true);

    virFileWrapperClearPrefixes();
    virFileDeleteTree(scratch);
    g_free(scratch);

    return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

VIR_TEST_MAIN(mymain)
