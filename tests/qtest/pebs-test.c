/*
 * QTest for the CPU properties of Intel PEBS, and what can be asked of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qapi/error.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "qemu/cutils.h"

#define CPU_TYPE        "Icelake-Server-x86_64-cpu"
#define VCPU0           "/machine/unattached/device[0]"

#define CPUID_1_EDX_DS          (1u << 21)
#define CPUID_1_ECX_DTES64      (1u << 2)
#define CPUID_1_ECX_PDCM        (1u << 15)

/* A request that can't be met, and the line that it ends QEMU with */
typedef struct Refusal {
    const char *name;
    const char *cpu;
    const char *message;
} Refusal;

#define NOT_INTEL(model)                                                    \
    "TCG's PMU is Intel's, and CPU model '" model "' shows the vendor "     \
    "'AuthenticAMD': use -cpu Icelake-Server or another model of Intel's, " \
    "without vendor="

static const Refusal refusals[] = {
    { "model", "Skylake-Server,pebs=on",
      "CPU model 'Skylake-Server' has no PEBS that a guest can use "
      "(adaptive records, format 4)" },
    { "max", "max,pebs=on",
      "CPU model 'max' has no PEBS that a guest can use "
      "(adaptive records, format 4)" },
    { "pmu-off", "Icelake-Server,pebs=on,pmu=off",
      "pebs=on needs the PMU: remove pmu=off" },
    { "model-number", "Icelake-Server,pebs=on,model=85",
      "pebs=on presents 'Icelake-Server' as CPUID model 106, which "
      "is what its hardware has: remove model=" },
    { "model-number-default", "Icelake-Server,pebs=on,model=134",
      "pebs=on presents 'Icelake-Server' as CPUID model 106, which "
      "is what its hardware has: remove model=" },
    { "ds-off", "Icelake-Server,pebs=on,ds=off",
      "pebs=on needs ds, which is switched off: remove ds=off" },
    { "ds-minus", "Icelake-Server,pebs=on,-ds",
      "pebs=on needs ds, which is switched off: remove ds=off" },
    { "dtes64-off", "Icelake-Server,pebs=on,dtes64=off",
      "pebs=on needs dtes64, which is switched off: remove dtes64=off" },
    { "pdcm-off", "Icelake-Server,pebs=on,pdcm=off",
      "pebs=on needs pdcm, which is switched off: remove pdcm=off" },
    { "lm-off", "Icelake-Server,pebs=on,lm=off",
      "pebs=on needs a 64-bit CPU: remove lm=off or use another -cpu model" },
    { "format", "Icelake-Server,pebs=on,pebs-format=3",
      "pebs-format=3 is not known to TCG: use 4 or 5" },
    { "format-alone", "Icelake-Server,pebs-format=4",
      "pebs-format needs pebs=on" },
    { "baseline-alone", "Icelake-Server,pebs=off,pebs-baseline=on",
      "pebs-baseline needs pebs=on" },
    { "counters-alone", "Icelake-Server,pmu-gp-counters=4",
      "pmu-gp-counters needs the PMU: use pmu=on or pebs=on" },
    { "counters-many", "Icelake-Server,pebs=on,pmu-gp-counters=9",
      "pmu-gp-counters=9 is more than the 8 that TCG has" },
    { "vendor", "Icelake-Server,pebs=on,vendor=AuthenticAMD",
      NOT_INTEL("Icelake-Server") },
    { "vendor-pmu", "Icelake-Server,pmu=on,pebs=off,vendor=AuthenticAMD",
      NOT_INTEL("Icelake-Server") },
    { "vendor-max", "max,pmu=on,pebs=off", NOT_INTEL("max") },
    { "vendor-epyc", "EPYC,pmu=on,pebs=off", NOT_INTEL("EPYC") },
    { "vendor-counters", "qemu64,pmu=on,pmu-gp-counters=4",
      NOT_INTEL("qemu64") },
    { "level", "Icelake-Server,pebs=on,level=9",
      "pebs=on needs CPUID leaf 10: remove level=9" },
    { "level-pmu", "Icelake-Server,pmu=on,pebs=off,level=9",
      "pmu=on needs CPUID leaf 10: remove level=9" },
    { "full-width-alone", "Conroe,pmu=on,pebs=off,pdcm=off,"
      "full-width-write=on,enforce=on",
      "TCG doesn't support requested features" },
};

/* Returns the lines of @text that are neither empty, nor a warning or hint. */
static char *errors_in(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *errors = g_string_new(NULL);

    for (int i = 0; lines[i]; i++) {
        const char *said = strstr(lines[i], "qemu-system-x86_64: ");

        if (said && !strstr(said, "warning:")) {
            g_string_append_printf(errors, "%s\n",
                                   said + strlen("qemu-system-x86_64: "));
        }
    }
    return g_string_free(errors, false);
}

static void assert_refused(const char *accel, const char *cpu,
                           const char *message)
{
    g_autofree char *err = NULL, *errors = NULL;
    g_autofree char *expected = g_strdup_printf("%s\n", message);
    g_autoptr(GError) error = NULL;
    const char *argv[] = {
        qtest_qemu_binary(NULL), "-nodefaults", "-display", "none",
        "-machine", "pc", "-accel", accel, "-cpu", cpu, "-S", NULL
    };
    int status;

    g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL, &err,
                 &status, &error);
    g_assert_no_error(error);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    errors = errors_in(err);
    g_assert_cmpstr(errors, ==, expected);
}

static void test_refused(const void *data)
{
    const Refusal *refusal = data;

    assert_refused("tcg", refusal->cpu, refusal->message);
}

static void test_refused_accel(void)
{
    assert_refused("qtest", "Icelake-Server,pebs=on",
                   "pebs=on is not supported with accelerator 'QTest': use "
                   "-accel tcg");
}

static QList *feature_words(QTestState *qts)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                             " 'path': " "'" VCPU0 "'"
                             ", 'property': 'feature-words' } }");
    QList *words;

    g_assert(qdict_haskey(reply, "return"));
    words = qobject_ref(qdict_get_qlist(reply, "return"));
    qobject_unref(reply);
    return words;
}

static uint32_t cpuid_1(QTestState *qts, const char *reg)
{
    QList *words = feature_words(qts);
    const QListEntry *e;
    uint32_t value = 0;

    QLIST_FOREACH_ENTRY(words, e) {
        QDict *word = qobject_to(QDict, qlist_entry_obj(e));

        if (qdict_get_int(word, "cpuid-input-eax") == 1 &&
            !strcmp(qdict_get_str(word, "cpuid-register"), reg)) {
            value = qdict_get_int(word, "features");
        }
    }
    qobject_unref(words);
    return value;
}

static QDict *get(QTestState *qts, const char *property)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                             " 'path': %s, 'property': %s } }",
                             VCPU0, property);

    g_assert(qdict_haskey(reply, "return"));
    return reply;
}

static int64_t get_int(QTestState *qts, const char *property)
{
    QDict *reply = get(qts, property);
    int64_t value = qdict_get_int(reply, "return");

    qobject_unref(reply);
    return value;
}

static bool get_bool(QTestState *qts, const char *property)
{
    QDict *reply = get(qts, property);
    bool value = qdict_get_bool(reply, "return");

    qobject_unref(reply);
    return value;
}

static QTestState *start(const char *cpu)
{
    return qtest_initf("-nodefaults -machine pc -accel tcg -cpu '%s' "
                       "-smp 1,maxcpus=3 -S",
                       cpu);
}

static void test_on(const void *data)
{
    QTestState *qts = start(data);

    g_assert_cmphex(cpuid_1(qts, "EDX") & CPUID_1_EDX_DS, !=, 0);
    g_assert_cmphex(cpuid_1(qts, "ECX") & CPUID_1_ECX_DTES64, !=, 0);
    g_assert_cmphex(cpuid_1(qts, "ECX") & CPUID_1_ECX_PDCM, !=, 0);
    if (g_str_has_prefix(data, "Icelake-Server")) {
        g_assert_cmpint(get_int(qts, "model"), ==, 106);
    }
    qtest_quit(qts);
}

/* Whatever auto is, it isn't a bit more or less than no property at all. */
static void test_off_is_auto(const void *data)
{
    g_autofree char *off = g_strdup_printf("%s,pebs=off", (char *)data);
    QTestState *qts = start(data);
    QList *words = feature_words(qts), *words_off;

    g_assert_cmphex(cpuid_1(qts, "EDX") & CPUID_1_EDX_DS, ==, 0);
    g_assert_cmphex(cpuid_1(qts, "ECX") & CPUID_1_ECX_PDCM, ==, 0);
    qtest_quit(qts);

    qts = start(off);
    words_off = feature_words(qts);
    g_assert(qobject_is_equal(QOBJECT(words), QOBJECT(words_off)));
    qtest_quit(qts);
    qobject_unref(words);
    qobject_unref(words_off);
}

/* The PMU alone: PERF_CAPABILITIES, but no DS area. */
static void test_pmu_alone(void)
{
    QTestState *qts = start("Icelake-Server,pmu=on,pebs=off");

    g_assert_cmphex(cpuid_1(qts, "EDX") & CPUID_1_EDX_DS, ==, 0);
    g_assert_cmphex(cpuid_1(qts, "ECX") & CPUID_1_ECX_PDCM, !=, 0);
    g_assert_cmpint(get_int(qts, "model"), ==, 134);
    qtest_quit(qts);
}

typedef struct Counters {
    const char *name;
    const char *cpu;
    int number;         /* as "pmu-gp-counters" tells it */
} Counters;

static const Counters counters[] = {
    { "default", "Icelake-Server,pebs=on", 8 },
    { "fewer", "Icelake-Server,pebs=on,pmu-gp-counters=4", 4 },
    { "pmu-alone", "Icelake-Server,pmu=on,pebs=off", 8 },
    { "pmu", "Icelake-Server,pmu=on,pmu-gp-counters=4", 4 },
    { "stock", "Icelake-Server,pmu=on", 0 },
};

static char *get_str(QTestState *qts, const char *property)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                             " 'path': %s, 'property': %s } }",
                             VCPU0, property);
    char *value = g_strdup(qdict_get_str(reply, "return"));

    qobject_unref(reply);
    return value;
}

typedef struct ReadBack {
    const char *name;
    const char *cpu;
    int format;
    const char *baseline;
} ReadBack;

static const ReadBack read_back[] = {
    { "default", "Icelake-Server,pebs=on", 4, "on" },
    { "other", "Icelake-Server,pebs=on,pebs-format=5,pebs-baseline=off", 5,
      "off" },
    { "without", "Icelake-Server,pebs=off", 0, "auto" },
};

static void test_read_back(const void *data)
{
    const ReadBack *r = data;
    QTestState *qts = start(r->cpu);
    g_autofree char *baseline = get_str(qts, "pebs-baseline");

    g_assert_cmpint(get_int(qts, "pebs-format"), ==, r->format);
    g_assert_cmpstr(baseline, ==, r->baseline);
    qtest_quit(qts);
}

/* What was negotiated can be read, and there is a PMU with it. */
static void test_counters(const void *data)
{
    const Counters *c = data;
    QTestState *qts = start(c->cpu);
    bool pdcm = cpuid_1(qts, "ECX") & CPUID_1_ECX_PDCM;

    g_assert_cmpint(get_int(qts, "pmu-gp-counters"), ==, c->number);
    g_assert_cmpint(pdcm, ==, c->number > 0);
    qtest_quit(qts);
}

/* What the user says about the bits that come with the PMU */
typedef struct Wish {
    const char *name;
    const char *cpu;
    bool pdcm, full_width;
    const char *unavailable;    /* of those, what was asked for in vain */
} Wish;

static const Wish wishes[] = {
    { "none", "Icelake-Server,pmu=on,pebs=off", true, true, "" },
    { "all", "Icelake-Server,pmu=on,pebs=off,pdcm=on,full-width-write=on",
      true, true, "" },
    { "all-pebs", "Icelake-Server,pebs=on,pdcm=on,full-width-write=on,ds=on,"
      "dtes64=on", true, true, "" },
    { "enforced", "Conroe,pmu=on,pebs=off,pdcm=on,full-width-write=on,"
      "enforce=on", true, true, "" },
    { "no-pdcm", "Icelake-Server,pmu=on,pebs=off,pdcm=off", false, false, "" },
    { "no-pdcm-minus", "Icelake-Server,pmu=on,pebs=off,-pdcm", false, false,
      "" },
    { "no-pdcm-but-full-width", "Icelake-Server,pmu=on,pmu-gp-counters=4,"
      "pdcm=off,full-width-write=on", false, false, "full-width-write" },
    { "no-full-width", "Icelake-Server,pmu=on,pebs=off,full-width-write=off",
      true, false, "" },
    { "no-full-width-pebs", "Icelake-Server,pebs=on,full-width-write=off",
      true, false, "" },
    { "ds-in-vain", "Icelake-Server,pmu=on,pebs=off,ds=on,dtes64=on", true,
      true, "dtes64 ds" },
    { "stock", "Icelake-Server,pmu=on,pdcm=on", false, false, "pdcm" },
};

/* Those of @property's names that are about the PMU */
static char *pmu_names(QTestState *qts, const char *property)
{
    static const char * const names[] = {
        "pdcm", "full-width-write", "dtes64", "ds",
    };
    QDict *reply = get(qts, property);
    QList *list = qdict_get_qlist(reply, "return");
    GString *found = g_string_new(NULL);

    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        const QListEntry *e;

        QLIST_FOREACH_ENTRY(list, e) {
            if (!strcmp(qstring_get_str(qobject_to(QString,
                                                   qlist_entry_obj(e))),
                        names[i])) {
                g_string_append_printf(found, "%s%s", found->len ? " " : "",
                                       names[i]);
            }
        }
    }
    qobject_unref(reply);
    return g_string_free(found, false);
}

static void test_wish(const void *data)
{
    const Wish *wish = data;
    QTestState *qts = start(wish->cpu);
    g_autofree char *unavailable = pmu_names(qts, "unavailable-features");

    g_assert_cmpint(get_bool(qts, "pdcm"), ==, wish->pdcm);
    g_assert_cmpint(get_bool(qts, "full-width-write"), ==, wish->full_width);
    g_assert_cmpstr(unavailable, ==, wish->unavailable);
    qtest_quit(qts);
}

/* Leaf 0xA tells of the PMU: it goes with any model of Intel's. */
static void test_any_intel(const void *data)
{
    QTestState *qts = start(data);

    g_assert_cmpint(get_int(qts, "pmu-gp-counters"), ==, 8);
    g_assert_cmpint(get_int(qts, "level"), >=, 0xa);
    g_assert_cmphex(cpuid_1(qts, "ECX") & CPUID_1_ECX_PDCM, !=, 0);
    qtest_quit(qts);
}

static bool has_property(QTestState *qts, const char *command,
                         const char *type, const char *property)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': %s, 'arguments': {"
                             " 'typename': %s } }", command, type);
    const QListEntry *e;
    bool found = false;

    g_assert(qdict_haskey(reply, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));

        found |= !strcmp(qdict_get_str(info, "name"), property);
    }
    qobject_unref(reply);
    return found;
}

static void test_introspection(void)
{
    static const char * const properties[] = {
        "pmu", "pebs", "pebs-format", "pebs-baseline", "pmu-gp-counters",
    };
    QTestState *qts = qtest_init("-machine none");

    for (int i = 0; i < ARRAY_SIZE(properties); i++) {
        g_assert(has_property(qts, "qom-list-properties",
                              "max-x86_64-cpu", properties[i]));
        g_assert(has_property(qts, "device-list-properties",
                              CPU_TYPE, properties[i]));
    }
    qtest_quit(qts);
}

/* A vCPU to plug in that the machine can't take, and the reason why not */
static const Refusal misfits[] = {
    { "pmu-off", "'pmu': false",
      "pebs=on needs the PMU: remove pmu=off" },
    { "pebs-off", "'pebs': 'off'",
      "pebs=off differs from the machine's other vCPUs: use pebs=on" },
    { "counters", "'pmu-gp-counters': 4",
      "pmu-gp-counters=4 differs from the machine's other vCPUs: "
      "use pmu-gp-counters=8" },
    { "format", "'pebs-format': 5",
      "pebs-format=5 differs from the machine's other vCPUs: "
      "use pebs-format=4" },
    { "baseline", "'pebs-baseline': 'off'",
      "pebs-baseline=off differs from the machine's other vCPUs: "
      "use pebs-baseline=on" },
};

static const Refusal pmu_misfits[] = {
    { "pmu-off", "'pmu': false",
      "pmu=off differs from the machine's other vCPUs: use pmu=on" },
    { "pebs-auto", "'pebs': 'auto'",
      "pebs=auto differs from the machine's other vCPUs: use pebs=off" },
    { "pebs-on", "'pebs': 'on'",
      "pebs=on differs from the machine's other vCPUs: use pebs=off" },
    { "counters", "'pmu-gp-counters': 4",
      "pmu-gp-counters=4 differs from the machine's other vCPUs: "
      "use pmu-gp-counters=8" },
    { "pdcm", "'pdcm': false",
      "pdcm=off differs from the machine's other vCPUs: use pdcm=on" },
    { "full-width-write", "'full-width-write': false",
      "full-width-write=off differs from the machine's other vCPUs: "
      "use full-width-write=on" },
    { "model", "'model': 85",
      "model=85 differs from the machine's other vCPUs: use model=134" },
    { "family", "'family': 15",
      "family=15 differs from the machine's other vCPUs: use family=6" },
    { "vendor", "'vendor': 'AuthenticAMD'", NOT_INTEL("Icelake-Server") },
};

/* Takes @reply, which is to be an error of these words. */
static void assert_error(QDict *reply, const char *message)
{
    QDict *error = qdict_get_qdict(reply, "error");

    g_assert_nonnull(error);
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, message);
    qobject_unref(reply);
}

static QDict *device_add(QTestState *qts, const char *arguments)
{
    return qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': %p }",
                     qobject_from_json(arguments, &error_abort));
}

static QDict *plug(QTestState *qts, const char *properties)
{
    g_autofree char *arguments = g_strdup_printf(
        "{ 'driver': '" CPU_TYPE "', 'id': 'new',"
        "  'socket-id': 0, 'core-id': 1, 'thread-id': 0%s%s }",
        *properties ? ", " : "", properties);

    return device_add(qts, arguments);
}

/* A clean error; QEMU goes on, and a right vCPU still fits. */
static void hotplug(const char *cpu, const Refusal *misfit)
{
    QTestState *qts = start(cpu);
    QDict *reply = plug(qts, misfit->cpu);

    assert_error(reply, misfit->message);
    reply = plug(qts, "");
    g_assert(qdict_haskey(reply, "return"));
    qobject_unref(reply);
    qtest_quit(qts);
}

static void test_hotplug(const void *data)
{
    hotplug("Icelake-Server,pebs=on", data);
}

static void test_hotplug_pmu(const void *data)
{
    hotplug("Icelake-Server,pmu=on,pebs=off", data);
}

/* A machine without PEBS takes none by hot-plug either. */
static void test_hotplug_on(void)
{
    QTestState *qts = start("Icelake-Server,model=106");
    QDict *reply = plug(qts, "'pebs': 'on'");

    assert_error(reply, "pebs=on differs from the machine's other vCPUs: "
                 "use pebs=off");
    qtest_quit(qts);
}

/* Nothing that a guest was shown changes under it. */
static void test_realized(const void *data)
{
    static const char * const settings[] = {
        "'pmu', 'value': false", "'pebs', 'value': 'auto'",
        "'pebs-format', 'value': 5", "'pebs-baseline', 'value': 'off'",
        "'pmu-gp-counters', 'value': 2", "'family', 'value': 15",
        "'model', 'value': 85", "'stepping', 'value': 9",
        "'vendor', 'value': 'AuthenticAMD'", "'pdcm', 'value': false",
        "'ds', 'value': false", "'full-width-write', 'value': false",
    };
    QTestState *qts = start(data);

    for (int i = 0; i < ARRAY_SIZE(settings); i++) {
        g_auto(GStrv) words = g_strsplit(settings[i], "'", 3);
        g_autofree char *message = g_strdup_printf(
            "Attempt to set property '%s' on anonymous device (type '"
            CPU_TYPE "') after it was realized", words[1]);
        g_autofree char *arguments = g_strdup_printf(
            "{ 'path': '" VCPU0 "', 'property': %s }", settings[i]);

        assert_error(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': %p }",
                               qobject_from_json(arguments, &error_abort)),
                     message);
    }
    qtest_quit(qts);
}

/* ---- query-cpu-model-expansion ---- */

/* The value of a -cpu property as QMP has it */
static QObject *typed(const char *value)
{
    int64_t number;

    if (!qemu_strtoi64(value, NULL, 0, &number)) {
        return QOBJECT(qnum_from_int(number));
    }
    if (!strcmp(value, "true") || !strcmp(value, "false")) {
        return QOBJECT(qbool_from_bool(*value == 't'));
    }
    return QOBJECT(qstring_from_str(value));
}

/* QMP's CpuModelInfo of a -cpu in which each property has its value */
static QDict *model_info(const char *cpu)
{
    g_auto(GStrv) words = g_strsplit(cpu, ",", -1);
    QDict *model = qdict_new(), *props = qdict_new();

    qdict_put_str(model, "name", words[0]);
    qdict_put(model, "props", props);
    for (int i = 1; words[i]; i++) {
        g_auto(GStrv) pair = g_strsplit(words[i], "=", 2);
        /* "pebs" is on, off or auto; what else is on is true. */
        bool word = g_str_has_prefix(pair[0], "pebs");
        const char *value = word ? pair[1] :
                            !strcmp(pair[1], "on") ? "true" :
                            !strcmp(pair[1], "off") ? "false" : pair[1];

        qdict_put_obj(props, pair[0], typed(value));
    }
    return model;
}

static QDict *expand(QTestState *qts, const char *type, QDict *model)
{
    return qtest_qmp(qts, "{ 'execute': 'query-cpu-model-expansion',"
                     " 'arguments': { 'type': %s, 'model': %p } }",
                     type, QOBJECT(model));
}

/*
 * Of the properties that QEMU tells, these it takes back from no CPU: a link,
 * what only the machine sets, and a default outside of its own mask.
 */
static void drop_not_taken_back(QDict *model)
{
    static const char * const names[] = {
        "memory", "realized", "lbr-fmt", "lbr_fmt",
    };

    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        qdict_del(qdict_get_qdict(model, "props"), names[i]);
    }
}

static QDict *expanded(QTestState *qts, const char *type, QDict *model)
{
    QDict *reply = expand(qts, type, model);
    QDict *answer;

    g_assert(qdict_haskey(reply, "return"));
    answer = qdict_get_qdict(qdict_get_qdict(reply, "return"), "model");
    qobject_ref(answer);
    qobject_unref(reply);
    drop_not_taken_back(answer);
    return answer;
}

/* The -cpu that @model stands for */
static char *cpu_option(QDict *model)
{
    QDict *props = qdict_get_qdict(model, "props");
    GString *cpu = g_string_new(qdict_get_str(model, "name"));

    for (const QDictEntry *e = qdict_first(props); e;
         e = qdict_next(props, e)) {
        QObject *value = qdict_entry_value(e);
        g_autofree char *text = NULL;

        if (qobject_type(value) == QTYPE_QBOOL) {
            text = g_strdup(qbool_get_bool(qobject_to(QBool, value)) ? "on"
                                                                    : "off");
        } else if (qobject_type(value) == QTYPE_QNUM) {
            text = qnum_to_string(qobject_to(QNum, value));
        } else {
            text = g_strdup(qstring_get_str(qobject_to(QString, value)));
        }
        g_string_append_printf(cpu, ",%s=%s", qdict_entry_key(e), text);
    }
    return g_string_free(cpu, false);
}

/* What a machine is that these properties can tell of */
static QDict *shown(QTestState *qts)
{
    static const char * const properties[] = {
        "pmu", "pebs", "pebs-format", "pebs-baseline", "pmu-gp-counters",
        "ds", "dtes64", "pdcm", "full-width-write", "family", "model",
        "stepping", "vendor", "level",
    };
    QDict *found = qdict_new();

    for (int i = 0; i < ARRAY_SIZE(properties); i++) {
        QDict *reply = get(qts, properties[i]);

        qdict_put_obj(found, properties[i],
                      qobject_ref(qdict_get(reply, "return")));
        qobject_unref(reply);
    }
    qdict_put(found, "feature-words", feature_words(qts));
    return found;
}

static void assert_same(const char *name, QObject *one, QObject *other)
{
    g_autoptr(GString) a = qobject_to_json(one), b = qobject_to_json(other);
    g_autofree char *text = g_strdup_printf("%s: %s", name, a->str);
    g_autofree char *wanted = g_strdup_printf("%s: %s", name, b->str);

    g_assert_cmpstr(text, ==, wanted);
}

/* What is expanded is what the machine is, and makes the same machine. */
static void test_expansion(const void *data)
{
    QTestState *qts = qtest_init("-machine none -accel tcg");
    QDict *full = expanded(qts, "full", model_info(data));
    QDict *again = expanded(qts, "full", qdict_clone_shallow(full));
    QDict *fixed = expanded(qts, "static", model_info(data));
    QDict *full_props = qdict_get_qdict(full, "props");
    QDict *fixed_props = qdict_get_qdict(fixed, "props");
    QDict *machine, *remade;
    g_autofree char *option = cpu_option(full);

    assert_same("again", QOBJECT(again), QOBJECT(full));
    qtest_quit(qts);

    qts = start(data);
    machine = shown(qts);
    qtest_quit(qts);
    for (const QDictEntry *e = qdict_first(machine); e;
         e = qdict_next(machine, e)) {
        const char *name = qdict_entry_key(e);

        if (qdict_haskey(full_props, name)) {
            assert_same(name, qdict_get(full_props, name),
                        qdict_entry_value(e));
        }
        if (qdict_haskey(fixed_props, name)) {
            assert_same(name, qdict_get(fixed_props, name),
                        qdict_entry_value(e));
        }
    }

    qts = start(option);
    remade = shown(qts);
    assert_same("remade", QOBJECT(remade), QOBJECT(machine));
    qtest_quit(qts);
    qobject_unref(remade);
    qobject_unref(machine);
    qobject_unref(fixed);
    qobject_unref(again);
    qobject_unref(full);
}

/* A request is refused as at start, in the same words. */
static void test_expansion_refused(const void *data)
{
    const Refusal *refusal = data;
    QTestState *qts = qtest_init("-machine none -accel tcg");
    static const char * const types[] = { "full", "static" };

    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        assert_error(expand(qts, types[i], model_info(refusal->cpu)),
                     refusal->message);
    }
    qtest_quit(qts);
}

static void test_expansion_accel(void)
{
    QTestState *qts = qtest_init("-machine none");

    assert_error(expand(qts, "full", model_info("Icelake-Server,pebs=on")),
                 "pebs=on is not supported with accelerator 'QTest': use "
                 "-accel tcg");
    qtest_quit(qts);
}

/* ---- what those see who monitor, and contention ---- */

static QDict *query_vcpu(QTestState *qts, int index)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'query-pebs' }");
    QList *list = qdict_get_qlist(reply, "return");
    const QListEntry *e;
    QDict *vcpu = NULL;

    QLIST_FOREACH_ENTRY(list, e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));

        if (qdict_get_int(d, "cpu-index") == index) {
            vcpu = d;
            qobject_ref(vcpu);
        }
    }
    qobject_unref(reply);
    g_assert_nonnull(vcpu);
    return vcpu;
}

/* Without PEBS there is nothing to observe. */
static void assert_off(QDict *vcpu)
{
    g_assert_false(qdict_get_bool(vcpu, "enabled"));
    g_assert_false(qdict_haskey(vcpu, "format"));
    g_assert_false(qdict_haskey(vcpu, "baseline"));
    g_assert_false(qdict_haskey(vcpu, "observed"));
    qobject_unref(vcpu);
}

static void test_query(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");
    QDict *vcpu = query_vcpu(qts, 0);
    QDict *observed = qdict_get_qdict(vcpu, "observed");

    g_assert_cmpstr(qdict_get_str(vcpu, "qom-path"), ==, VCPU0);
    g_assert_true(qdict_get_bool(vcpu, "enabled"));
    g_assert_cmpint(qdict_get_int(vcpu, "format"), ==, 4);
    g_assert_true(qdict_get_bool(vcpu, "baseline"));
    g_assert_cmpstr(qdict_get_str(observed, "source"), ==, "tcg");
    g_assert_cmpstr(qdict_get_str(observed, "path"), ==, "idle");
    g_assert_false(qdict_get_bool(observed, "suspended"));
    g_assert_true(qlist_empty(qdict_get_qlist(observed, "counters")));
    g_assert_false(qdict_haskey(observed, "entries"));
    qobject_unref(vcpu);
    qtest_quit(qts);
}

static void test_query_off(const void *data)
{
    QTestState *qts = start(data);

    assert_off(query_vcpu(qts, 0));
    qtest_quit(qts);
}

/* The answer is there before the guest is. */
static void test_query_incoming(void)
{
    QTestState *qts = qtest_init("-nodefaults -machine pc -accel tcg "
                                 "-cpu Icelake-Server,pebs=on "
                                 "-incoming defer");
    QDict *vcpu = query_vcpu(qts, 0);

    g_assert_true(qdict_haskey(vcpu, "observed"));
    qobject_unref(vcpu);
    qtest_quit(qts);
}

/* ---- statistics ---- */

static const char *const tcg_stats[] = {
    "pebs_fast_records", "pebs_slow_records", "pebs_dropped_records",
    "pebs_active", "pebs_slow", "pebs_suspended", "pebs_cross_mapped",
    "pebs_no_counter", "pebs_host_pebs",
};

/* Takes what query-stats @arguments returns. */
static QList *query_stats(QTestState *qts, const char *arguments)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'query-stats',"
                             " 'arguments': %p }",
                             qobject_from_json(arguments, &error_abort));
    QList *list = qdict_get_qlist(reply, "return");

    g_assert_nonnull(list);
    qobject_ref(list);
    qobject_unref(reply);
    return list;
}

static size_t entries_of(QTestState *qts, const char *arguments)
{
    QList *list = query_stats(qts, arguments);
    size_t size = qlist_size(list);

    qobject_unref(list);
    return size;
}

/* Nothing has happened: numbers are 0, and no condition holds. */
static void assert_zero(QDict *stat, const char *name)
{
    QObject *value = qdict_get(stat, "value");

    g_assert_cmpstr(qdict_get_str(stat, "name"), ==, name);
    if (qobject_type(value) == QTYPE_QBOOL) {
        g_assert_false(qdict_get_bool(stat, "value"));
    } else {
        g_assert_cmpint(qdict_get_int(stat, "value"), ==, 0);
    }
}

static void test_stats(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");
    QList *list = query_stats(qts, "{ 'target': 'vcpu' }");
    QDict *entry = qobject_to(QDict, qlist_peek(list));
    QList *stats = qdict_get_qlist(entry, "stats");
    const QListEntry *e;
    int i = 0;

    g_assert_cmpint(qlist_size(list), ==, 1);
    g_assert_cmpstr(qdict_get_str(entry, "provider"), ==, "pebs");
    g_assert_cmpstr(qdict_get_str(entry, "qom-path"), ==, VCPU0);
    g_assert_cmpint(qlist_size(stats), ==, ARRAY_SIZE(tcg_stats));
    QLIST_FOREACH_ENTRY(stats, e) {
        assert_zero(qobject_to(QDict, qlist_entry_obj(e)), tcg_stats[i++]);
    }
    qobject_unref(list);
    qtest_quit(qts);
}

static void test_stats_filtered(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");
    QDict *reply;

    qobject_unref(plug(qts, ""));
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu' }"), ==, 2);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu', 'vcpus': ["
                               " '" VCPU0 "' ] }"), ==, 1);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu', 'vcpus': ["
                               " '/machine' ] }"), ==, 0);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vm' }"), ==, 0);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu', 'providers': ["
                               " { 'provider': 'kvm' } ] }"), ==, 0);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu', 'providers': ["
                               " { 'provider': 'pebs',"
                               "   'names': [ 'pebs_slow' ] } ] }"), ==, 2);
    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu', 'providers': ["
                               " { 'provider': 'pebs',"
                               "   'names': [ 'pebs_entries' ] } ] }"), ==, 0);

    reply = qtest_qmp(qts, "{ 'execute': 'query-stats-schemas',"
                      " 'arguments': { 'provider': 'pebs' } }");
    g_assert_cmpint(qlist_size(qdict_get_qlist(reply, "return")), ==, 1);
    qobject_unref(reply);
    qtest_quit(qts);
}

/* Nobody watches: no entry.  It is no error either. */
static void test_stats_off(const void *data)
{
    QTestState *qts = start(data);

    g_assert_cmpint(entries_of(qts, "{ 'target': 'vcpu' }"), ==, 0);
    qtest_quit(qts);
}

/* "info stats" finds each in the schema. */
static void test_stats_hmp(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");
    g_autofree char *text = qtest_hmp(qts, "info stats vcpu");

    g_assert_nonnull(strstr(text, "provider: pebs"));
    g_assert_nonnull(strstr(text, "pebs_dropped_records (cumulative): 0"));
    g_assert_nonnull(strstr(text, "pebs_host_pebs (instant, boolean): no"));
    g_assert_null(strstr(text, "failed"));
    qtest_quit(qts);
}

/* ---- capabilities ---- */

static QDict *query_capabilities(const char *args)
{
    QTestState *qts = qtest_init(args);
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'query-pebs-capabilities' }");
    QDict *caps = qdict_get_qdict(reply, "return");

    qobject_ref(caps);
    qobject_unref(reply);
    qtest_quit(qts);
    return caps;
}

static bool has_string(QList *list, const char *string)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(list, e) {
        if (g_str_equal(qstring_get_str(qobject_to(QString,
                                                   qlist_entry_obj(e))),
                        string)) {
            return true;
        }
    }
    return false;
}

static void test_capabilities(void)
{
    QDict *caps = query_capabilities("-machine none -accel tcg");
    QDict *offer = qdict_get_qdict(caps, "offer"), *regs;

    g_assert_true(qdict_get_bool(caps, "supported"));
    g_assert_false(qdict_haskey(caps, "obstacles"));
    g_assert_false(qdict_haskey(caps, "error-desc"));
    /* PEBS_TRAP, PEBS_ARCH_REG, format 4, PEBS_BASELINE */
    g_assert_cmphex(qdict_get_int(offer, "perf-capabilities"), ==, 0x44c0);
    g_assert_cmpint(qdict_get_int(offer, "format"), ==, 4);
    g_assert_true(qdict_get_bool(offer, "baseline"));
    g_assert_cmpint(qdict_get_int(offer, "gp-counters"), ==, 8);
    g_assert_cmpint(qdict_get_int(offer, "family"), ==, 6);
    g_assert_cmpint(qdict_get_int(offer, "model"), ==, 106);
    regs = qdict_get_qdict(offer, "cpuid-0xa");
    /* Version 5, 8 counters of 48 bits; 3 fixed ones */
    g_assert_cmphex(qdict_get_int(regs, "eax") & 0xffffff, ==, 0x300805);
    g_assert_cmphex(qdict_get_int(regs, "ecx"), ==, 7);
    g_assert_cmphex(qdict_get_int(regs, "edx") & 0x1fff, ==, 0x603);
    qobject_unref(caps);
}

static void test_capabilities_none(void)
{
    QDict *caps = query_capabilities("-machine none");

    g_assert_false(qdict_get_bool(caps, "supported"));
    g_assert_cmpstr(qdict_get_str(caps, "error-desc"), ==,
                    "pebs=on is not supported with accelerator 'QTest': "
                    "use -accel tcg");
    g_assert_cmpint(qlist_size(qdict_get_qlist(caps, "obstacles")), ==, 1);
    g_assert_true(has_string(qdict_get_qlist(caps, "obstacles"),
                             "accelerator"));
    g_assert_false(qdict_haskey(caps, "offer"));
    qobject_unref(caps);
}

/* Whether QEMU takes the CPU model: then it complains of what comes after. */
static bool model_starts(const char *model)
{
    g_autofree char *cpu = g_strdup_printf("%s,pebs=on", model);
    g_autofree char *err = NULL;
    g_autoptr(GError) error = NULL;
    const char *argv[] = {
        qtest_qemu_binary(NULL), "-nodefaults", "-display", "none",
        "-machine", "pc", "-accel", "tcg", "-cpu", cpu, "-S",
        "-device", "host-pmc-claim", NULL
    };

    g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL, &err, NULL,
                 &error);
    g_assert_no_error(error);
    return strstr(err, "no vCPU is named");
}

/* The models that it names start, the others don't. */
static void test_capabilities_models(void)
{
    static const char * const models[] = {
        "Icelake-Server", "Icelake-Server-v1", "SapphireRapids-v2",
        "GraniteRapids", "Snowridge-v4", "Skylake-Server", "max", "base",
        "EPYC", "Icelake-Server-noTSX",
    };
    QDict *caps = query_capabilities("-machine none -accel tcg");
    QList *named = qdict_get_qlist(qdict_get_qdict(caps, "offer"),
                                   "cpu-models");

    for (int i = 0; i < ARRAY_SIZE(models); i++) {
        g_assert_cmpint(has_string(named, models[i]), ==,
                        model_starts(models[i]));
    }
    g_assert_true(has_string(named, "Icelake-Server"));
    g_assert_false(has_string(named, "max"));
    qobject_unref(caps);
}

static QDict *claim(QTestState *qts, const char *id, const char *properties)
{
    g_autofree char *arguments = g_strdup_printf(
        "{ 'driver': 'host-pmc-claim', 'id': '%s'%s%s }", id,
        *properties ? ", " : "", properties);

    return device_add(qts, arguments);
}

static void assert_claimed(QTestState *qts, const char *id,
                           const char *properties)
{
    QDict *reply = claim(qts, id, properties);

    g_assert(qdict_haskey(reply, "return"));
    qobject_unref(reply);
}

static void assert_not_claimed(QTestState *qts, const char *properties,
                               const char *message)
{
    QDict *reply = claim(qts, "refused", properties);

    assert_error(reply, message);
}

static void test_claim(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");

    assert_not_claimed(qts, "'counters': 1", "no vCPU is named: set vcpu=");
    assert_not_claimed(qts, "'vcpu': 1, 'counters': 1",
                       "there is no vCPU 1");
    assert_not_claimed(qts, "'vcpu': 0",
                       "no counter is named: set counters= or fixed=");
    assert_not_claimed(qts, "'vcpu': 0, 'counters': 256",
                       "there are 8 general-purpose and 3 fixed counters: "
                       "use counters= up to 0xff and fixed= up to 0x7");
    assert_claimed(qts, "one", "'vcpu': 0, 'counters': 3");
    assert_claimed(qts, "two", "'vcpu': 0, 'counters': 4, 'fixed': 1");
    assert_not_claimed(qts, "'vcpu': 0, 'counters': 14, 'fixed': 3",
                       "vCPU 0: counters=0x6,fixed=0x1 are claimed already");

    /* What is given back can be had again, and no more than that. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'two' } }");
    assert_not_claimed(qts, "'vcpu': 0, 'counters': 2",
                       "vCPU 0: counters=0x2,fixed=0x0 are claimed already");
    assert_claimed(qts, "three", "'vcpu': 0, 'counters': 12");

    /* Nobody else moves what is displaced. */
    assert_claimed(qts, "four",
                   "'vcpu': 0, 'counters': 48, 'x-displace': true");
    assert_not_claimed(qts, "'vcpu': 0, 'counters': 96",
                       "vCPU 0: counters=0x20,fixed=0x0 are claimed already");
    qtest_quit(qts);
}

static void test_claim_without_pmu(void)
{
    QTestState *qts = start("Icelake-Server");

    assert_not_claimed(qts, "'vcpu': 0, 'counters': 1",
                       "vCPU 0 has no counters to claim with accelerator "
                       "'tcg': use -accel tcg and pebs=on");
    qtest_quit(qts);
}

#define CPU_HOTPLUG     0xaf00
#define CPU_EJECT       0x08

/* A claim goes with its vCPU, and another vCPU of that number has none. */
static void test_claim_unplugged(void)
{
    QTestState *qts = start("Icelake-Server,pebs=on");

    qobject_unref(plug(qts, ""));
    assert_claimed(qts, "claim", "'vcpu': 1, 'counters': 3");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'new' } }");
    qtest_outl(qts, CPU_HOTPLUG, 0);
    qtest_outl(qts, CPU_HOTPLUG, 1);
    qtest_outb(qts, CPU_HOTPLUG + 4, CPU_EJECT);
    for (int i = 0; i < 2; i++) {
        qtest_qmp_eventwait(qts, "DEVICE_DELETED");
    }
    qobject_unref(plug(qts, ""));
    assert_claimed(qts, "claim", "'vcpu': 1, 'counters': 3");
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    static const char * const with_pebs[] = {
        "Icelake-Server,pebs=on", "Icelake-Server-v4,pebs=on",
        "SapphireRapids,pebs=on", "GraniteRapids,pebs=on",
        "Snowridge,pebs=on", "Icelake-Server,pebs=on,pebs-baseline=off",
        "Icelake-Server,pebs=on,pebs-format=5,pmu-gp-counters=4",
        "Icelake-Server,pebs=on,ds=on,dtes64=on,pdcm=on",
    };
    static const char * const without[] = { "max", "Icelake-Server", "qemu64" };
    static const char * const intel[] = {
        "pentium3,pmu=on,pebs=off", "Conroe,pmu=on,pebs=off",
        "max,vendor=GenuineIntel,pmu=on,pebs=off",
    };
    static const char * const realized[] = {
        "Icelake-Server,pebs=on", "Icelake-Server,pmu=on,pebs=off",
        "Icelake-Server",
    };
    static const char * const expansions[] = {
        "Icelake-Server,pebs=on", "SapphireRapids,pebs=on,pebs-baseline=off",
        "Icelake-Server,pebs=on,pebs-format=5,pmu-gp-counters=4",
        "Icelake-Server,pebs=on,full-width-write=off",
        "Icelake-Server,pmu=on,pebs=off", "Conroe,pmu=on,pmu-gp-counters=4",
        "Icelake-Server,pmu=on,pebs=off,pdcm=off",
        "Icelake-Server", "Icelake-Server,pmu=on", "EPYC,pebs=off",
    };

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg")) {
        g_test_skip("PEBS needs TCG");
        return g_test_run();
    }

    for (int i = 0; i < ARRAY_SIZE(refusals); i++) {
        g_autofree char *path = g_strdup_printf("pebs/refused/%s",
                                                refusals[i].name);

        qtest_add_data_func(path, &refusals[i], test_refused);
    }
    for (int i = 0; i < ARRAY_SIZE(refusals); i++) {
        g_autofree char *path = g_strdup_printf("pebs/expansion/refused/%s",
                                                refusals[i].name);

        /* No "-ds" in QMP, and "enforce" is for machines. */
        if (!strstr(refusals[i].cpu, ",-") &&
            !strstr(refusals[i].cpu, "enforce")) {
            qtest_add_data_func(path, &refusals[i], test_expansion_refused);
        }
    }
    qtest_add_func("pebs/expansion/refused/accelerator", test_expansion_accel);
    for (int i = 0; i < ARRAY_SIZE(expansions); i++) {
        g_autofree char *path = g_strdup_printf("pebs/expansion/%s",
                                                expansions[i]);

        qtest_add_data_func(path, expansions[i], test_expansion);
    }
    qtest_add_func("pebs/refused/accelerator", test_refused_accel);
    for (int i = 0; i < ARRAY_SIZE(with_pebs); i++) {
        g_autofree char *path = g_strdup_printf("pebs/on/%s", with_pebs[i]);

        qtest_add_data_func(path, with_pebs[i], test_on);
    }
    for (int i = 0; i < ARRAY_SIZE(without); i++) {
        g_autofree char *path = g_strdup_printf("pebs/auto/%s", without[i]);

        qtest_add_data_func(path, without[i], test_off_is_auto);
    }
    qtest_add_func("pebs/pmu-alone", test_pmu_alone);
    for (int i = 0; i < ARRAY_SIZE(counters); i++) {
        g_autofree char *path = g_strdup_printf("pebs/counters/%s",
                                                counters[i].name);

        qtest_add_data_func(path, &counters[i], test_counters);
    }
    for (int i = 0; i < ARRAY_SIZE(read_back); i++) {
        g_autofree char *path = g_strdup_printf("pebs/read-back/%s",
                                                read_back[i].name);

        qtest_add_data_func(path, &read_back[i], test_read_back);
    }
    for (int i = 0; i < ARRAY_SIZE(wishes); i++) {
        g_autofree char *path = g_strdup_printf("pebs/wish/%s",
                                                wishes[i].name);

        qtest_add_data_func(path, &wishes[i], test_wish);
    }
    for (int i = 0; i < ARRAY_SIZE(intel); i++) {
        g_autofree char *path = g_strdup_printf("pebs/any-intel/%s", intel[i]);

        qtest_add_data_func(path, intel[i], test_any_intel);
    }
    for (int i = 0; i < ARRAY_SIZE(realized); i++) {
        g_autofree char *path = g_strdup_printf("pebs/realized/%s",
                                                realized[i]);

        qtest_add_data_func(path, realized[i], test_realized);
    }
    qtest_add_func("pebs/introspection", test_introspection);
    for (int i = 0; i < ARRAY_SIZE(misfits); i++) {
        g_autofree char *path = g_strdup_printf("pebs/hotplug/%s",
                                                misfits[i].name);

        qtest_add_data_func(path, &misfits[i], test_hotplug);
    }
    for (int i = 0; i < ARRAY_SIZE(pmu_misfits); i++) {
        g_autofree char *path = g_strdup_printf("pebs/hotplug-pmu/%s",
                                                pmu_misfits[i].name);

        qtest_add_data_func(path, &pmu_misfits[i], test_hotplug_pmu);
    }
    qtest_add_func("pebs/hotplug/pebs-on", test_hotplug_on);
    qtest_add_func("pebs/query/on", test_query);
    qtest_add_data_func("pebs/query/off", "Icelake-Server,pebs=off",
                        test_query_off);
    qtest_add_data_func("pebs/query/auto", "max", test_query_off);
    qtest_add_func("pebs/query/incoming", test_query_incoming);
    qtest_add_func("pebs/stats/tcg", test_stats);
    qtest_add_func("pebs/stats/filtered", test_stats_filtered);
    qtest_add_data_func("pebs/stats/off", "Icelake-Server,pebs=off",
                        test_stats_off);
    qtest_add_func("pebs/stats/info", test_stats_hmp);
    qtest_add_func("pebs/capabilities/tcg", test_capabilities);
    qtest_add_func("pebs/capabilities/accelerator", test_capabilities_none);
    qtest_add_func("pebs/capabilities/models", test_capabilities_models);
    qtest_add_func("pebs/claim/refused", test_claim);
    qtest_add_func("pebs/claim/without-pmu", test_claim_without_pmu);
    qtest_add_func("pebs/claim/unplugged", test_claim_unplugged);
    return g_test_run();
}
