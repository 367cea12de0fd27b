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

PebsVcpuList *qmp_query_pebs(Error **errp)
{
    error_setg(errp, "PEBS is a feature of x86 CPUs");
    return NULL;
}

PebsCapabilities *qmp_query_pebs_capabilities(Error **errp)
{
    error_setg(errp, "PEBS is a feature of x86 CPUs");
    return NULL;
}

void hmp_info_pebs(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "PEBS is a feature of x86 CPUs\n");
}
