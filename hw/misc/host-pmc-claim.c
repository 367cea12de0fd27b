/*
 * Contend for the physical counters behind a vCPU
 *
 * A host that runs pinned perf events of its own takes physical counters away
 * from its guests.  This device does the same on purpose, so that a guest's
 * PEBS counters get cross-mapped when somebody wants to see that.
 *
 *   -device host-pmc-claim,id=c0,vcpu=0,counters=0x3,fixed=0x1
 *
 * With x-displace=on it takes none away, and only keeps the counters of the
 * guest from those of their own index, so that they swap places.
 *
 * The guest sees nothing of it: there is no bus, no register, and no state
 * that migrates.
 *
 * TCG's counters are a model, and a claim on them is exact.  Under KVM perf has
 * the counters, and a claim is best effort: it fails if perf gives other ones,
 * and those that it gave may change later.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/core/qdev.h"
#include "hw/core/qdev-properties.h"
#include "hw/misc/host-pmc-claim.h"
#include "target/i386/pmc-claim.h"
#include "target/i386/tcg/pmc-map.h"

OBJECT_DECLARE_SIMPLE_TYPE(HostPMCClaim, HOST_PMC_CLAIM)

struct HostPMCClaim {
    DeviceState parent_obj;

    uint32_t vcpu;
    uint32_t counters;
    uint32_t fixed;
    bool displace;
    X86PMCClaim claim;
};

#define VCPU_UNSET UINT32_MAX

static void host_pmc_claim_revoke(X86PMCClaim *claim)
{
    HostPMCClaim *s = container_of(claim, HostPMCClaim, claim);

    object_unparent(OBJECT(s));
}

/* Machines differ in whether they can unplug a device that has no bus. */
static void block_unplug(DeviceState *dev)
{
    Error *reason = NULL;

    error_setg(&reason, "This machine can't unplug " TYPE_HOST_PMC_CLAIM
               ": use -machine pc or q35");
    qdev_add_unplug_blocker(dev, reason);
}

static uint64_t held(const HostPMCClaim *s)
{
    return DEVICE(s)->realized ? x86_pmc_held(&s->claim) : 0;
}

static void get_held_counters(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    uint32_t value = extract64(held(HOST_PMC_CLAIM(obj)), 0, PMC_FIXED_BIT);

    visit_type_uint32(v, name, &value, errp);
}

static void get_held_fixed(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    uint32_t value = held(HOST_PMC_CLAIM(obj)) >> PMC_FIXED_BIT;

    visit_type_uint32(v, name, &value, errp);
}

static void host_pmc_claim_realize(DeviceState *dev, Error **errp)
{
    HostPMCClaim *s = HOST_PMC_CLAIM(dev);
    CPUState *cs = s->vcpu == VCPU_UNSET ? NULL : qemu_get_cpu(s->vcpu);

    if (s->vcpu == VCPU_UNSET) {
        error_setg(errp, "no vCPU is named: set vcpu=");
        return;
    }
    if (!cs) {
        error_setg(errp, "there is no vCPU %" PRIu32, s->vcpu);
        return;
    }
    s->claim = (X86PMCClaim) {
        .cpu = X86_CPU(cs),
        .counters = s->counters | (uint64_t)s->fixed << PMC_FIXED_BIT,
        .displaces = s->displace,
        .revoke = host_pmc_claim_revoke,
    };
    if (x86_pmc_claim(&s->claim, errp) &&
        !qdev_get_machine_hotplug_handler(dev)) {
        block_unplug(dev);
    }
}

static void host_pmc_claim_unrealize(DeviceState *dev)
{
    x86_pmc_release(&HOST_PMC_CLAIM(dev)->claim);
}

static const Property host_pmc_claim_properties[] = {
    DEFINE_PROP_UINT32("vcpu", HostPMCClaim, vcpu, VCPU_UNSET),
    DEFINE_PROP_UINT32("counters", HostPMCClaim, counters, 0),
    DEFINE_PROP_UINT32("fixed", HostPMCClaim, fixed, 0),
    DEFINE_PROP_BOOL("x-displace", HostPMCClaim, displace, false),
};

static void host_pmc_claim_class_init(ObjectClass *oc, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(oc);

    dc->desc = "Takes physical performance counters from a vCPU";
    dc->realize = host_pmc_claim_realize;
    dc->unrealize = host_pmc_claim_unrealize;
    dc->user_creatable = true;
    device_class_set_props(dc, host_pmc_claim_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    object_class_property_set_description(oc, "vcpu",
        "Index of the vCPU");
    object_class_property_set_description(oc, "counters",
        "Mask of general-purpose counters (KVM: best effort, refused if perf "
        "gives others)");
    object_class_property_set_description(oc, "fixed",
        "Mask of fixed counters (KVM: as counters)");
    object_class_property_add(oc, "held-counters", "uint32", get_held_counters,
                              NULL, NULL, NULL);
    object_class_property_set_description(oc, "held-counters",
        "General-purpose counters that the claim holds now (KVM: perf may "
        "move it)");
    object_class_property_add(oc, "held-fixed", "uint32", get_held_fixed,
                              NULL, NULL, NULL);
    object_class_property_set_description(oc, "held-fixed",
        "Fixed counters that the claim holds now");
}

static const TypeInfo host_pmc_claim_info = {
    .name = TYPE_HOST_PMC_CLAIM,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(HostPMCClaim),
    .class_init = host_pmc_claim_class_init,
};

static void host_pmc_claim_register_types(void)
{
    type_register_static(&host_pmc_claim_info);
}

type_init(host_pmc_claim_register_types)
