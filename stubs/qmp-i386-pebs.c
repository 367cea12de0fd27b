/*
 * Intel PEBS: for targets that aren't x86
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-pebs.h"

#define NO_PEBS "PEBS is a feature of x86-64 CPUs"

PebsVcpuInfoList *qmp_query_pebs(Error **errp)
{
    error_setg(errp, NO_PEBS);
    return NULL;
}

PebsCapabilities *qmp_query_pebs_capabilities(Error **errp)
{
    PebsCapabilities *caps = g_new0(PebsCapabilities, 1);

    caps->has_obstacles = true;
    QAPI_LIST_PREPEND(caps->obstacles, PEBS_OBSTACLE_TARGET);
    caps->error_desc = g_strdup(NO_PEBS);
    return caps;
}

void hmp_info_pebs(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, NO_PEBS "\n");
}
