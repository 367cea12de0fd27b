/*
 * What is told of PEBS by targets that aren't x86
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-pebs.h"

/* The stub prints to a monitor, too. */
int monitor_printf(Monitor *mon, const char *fmt, ...)
{
    g_assert_not_reached();
}

/* An answer, not an error */
static void test_capabilities(void)
{
    g_autoptr(PebsCapabilities) caps =
        qmp_query_pebs_capabilities(&error_abort);

    g_assert_false(caps->supported);
    g_assert_true(caps->has_obstacles);
    g_assert_cmpint(caps->obstacles->value, ==, PEBS_OBSTACLE_TARGET);
    g_assert_null(caps->obstacles->next);
    g_assert_cmpstr(caps->error_desc, ==, "PEBS is a feature of x86-64 CPUs");
    g_assert_null(caps->offer);
}

static void test_vcpus(void)
{
    Error *error = NULL;

    g_assert_null(qmp_query_pebs(&error));
    error_free_or_abort(&error);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pebs/stub/capabilities", test_capabilities);
    g_test_add_func("/pebs/stub/vcpus", test_vcpus);
    return g_test_run();
}
