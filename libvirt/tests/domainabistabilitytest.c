/*
 * domainabistabilitytest.c: Test that changes of the guest ABI are refused
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include <config.h>

#include "testutils.h"
#include "conf/domain_conf.h"

#define VIR_FROM_THIS VIR_FROM_NONE

static virCaps *caps;
static virDomainXMLOption *xmlopt;

struct testInfo {
    const char *src;
    const char *dst;
    const char *error; /* NULL if @dst is as good as @src */
};


/* All but the @features is the same for all. */
static virDomainDef *
testParse(const char *features)
{
    g_autofree char *xml = NULL;

    xml = g_strdup_printf("<domain type='qemu'>"
                          "<name>guest</name>"
                          "<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>"
                          "<memory unit='KiB'>219136</memory>"
                          "<os><type arch='i686' machine='pc'>hvm</type></os>"
                          "<features>%s</features>"
                          "</domain>",
                          features);

    return virDomainDefParseString(xml, xmlopt, NULL,
                                   VIR_DOMAIN_DEF_PARSE_INACTIVE);
}


static int
testCheck(const void *opaque)
{
    const struct testInfo *info = opaque;
    g_autoptr(virDomainDef) src = NULL;
    g_autoptr(virDomainDef) dst = NULL;
    bool stable;

    if (!(src = testParse(info->src)) ||
        !(dst = testParse(info->dst)))
        return -1;

    stable = virDomainDefCheckABIStability(src, dst, xmlopt);

    if (!info->error) {
        if (!stable)
            VIR_TEST_DEBUG("refused: %s", virGetLastErrorMessage());
        return stable ? 0 : -1;
    }

    if (stable) {
        VIR_TEST_DEBUG("accepted, should be refused: %s", info->error);
        return -1;
    }

    return virTestCompareToString(info->error, virGetLastErrorMessage());
}


static int
mymain(void)
{
    int ret = 0;

    if (!(caps = virTestGenericCapsInit()))
        return EXIT_FAILURE;

    if (!(xmlopt = virTestGenericDomainXMLConfInit()))
        return EXIT_FAILURE;

#define DO_TEST(name, srcfeatures, dstfeatures, message) \
    do { \
        const struct testInfo info = { \
            .src = srcfeatures, \
            .dst = dstfeatures, \
            .error = message, \
        }; \
        virResetLastError(); \
        if (virTestRun(name, testCheck, &info) < 0) \
            ret = -1; \
    } while (0)

#define PMU(children) "<pmu state='on'>" children "</pmu>"
#define DIFFERS(name, src, dst) \
    "unsupported configuration: '" name "' of PMU feature differs: " \
    "source: '" src "', destination: '" dst "'"

    DO_TEST("pebs same",
            PMU("<pebs state='on' format='4' baseline='on'/><counters gp='4'/>"),
            PMU("<counters gp='4'/><pebs baseline='on' format='4' state='on'/>"),
            NULL);
    DO_TEST("pebs state",
            PMU("<pebs state='on'/>"),
            PMU("<pebs state='off'/>"),
            DIFFERS("pebs state", "on", "off"));
    DO_TEST("pebs off and absent",
            PMU("<pebs state='off'/>"),
            PMU(""),
            DIFFERS("pebs state", "off", "default"));
    DO_TEST("pebs absent and on",
            PMU(""),
            PMU("<pebs state='on'/>"),
            DIFFERS("pebs state", "default", "on"));
    DO_TEST("pebs format",
            PMU("<pebs state='on' format='4'/>"),
            PMU("<pebs state='on' format='5'/>"),
            DIFFERS("pebs format", "4", "5"));
    DO_TEST("pebs format absent",
            PMU("<pebs state='on' format='4'/>"),
            PMU("<pebs state='on'/>"),
            DIFFERS("pebs format", "4", "default"));
    DO_TEST("pebs baseline",
            PMU("<pebs state='on' baseline='on'/>"),
            PMU("<pebs state='on' baseline='off'/>"),
            DIFFERS("pebs baseline", "on", "off"));
    DO_TEST("pebs baseline absent",
            PMU("<pebs state='on'/>"),
            PMU("<pebs state='on' baseline='off'/>"),
            DIFFERS("pebs baseline", "default", "off"));
    DO_TEST("pebs helper",
            PMU("<pebs state='on' helper='/run/one.sock'/>"),
            PMU("<pebs state='on' helper='/run/two.sock'/>"),
            NULL);
    DO_TEST("counters",
            PMU("<counters gp='4'/>"),
            PMU("<counters gp='2'/>"),
            DIFFERS("counters gp", "4", "2"));
    DO_TEST("counters absent",
            PMU(""),
            PMU("<counters gp='2'/>"),
            DIFFERS("counters gp", "default", "2"));

    virObjectUnref(caps);
    virObjectUnref(xmlopt);

    return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

VIR_TEST_MAIN(mymain)
