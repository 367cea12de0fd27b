/*
 * Feeds decide.bpf.c: a line of numbers for each case, a report for each line
 *
 * A line is pebs_enable, global_ctrl, the number of MSRs that perf switches,
 * then for each counter exists, state and idx, then for each MSR its index and
 * what the guest gets.  Exit status 2: the kernel doesn't take the program, and
 * its words are on standard error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "decide.h"
#include "decide.skeleton.h"

static bool number(unsigned long long *value)
{
    char word[40];

    if (scanf("%39s", word) != 1) {
        return false;
    }
    *value = strtoull(word, NULL, 0);
    return true;
}

static unsigned long long another(void)
{
    unsigned long long value;

    if (!number(&value)) {
        fprintf(stderr, "decide: a case is cut short\n");
        exit(1);
    }
    return value;
}

static bool read_case(struct decide_case *c)
{
    unsigned long long first;

    if (!number(&first)) {
        return false;
    }
    c->pebs_enable = first;
    c->global_ctrl = another();
    c->count = another();
    for (int i = 0; i < DECIDE_COUNTERS; i++) {
        c->counters[i].exists = another();
        c->counters[i].state = another();
        c->counters[i].idx = another();
    }
    for (int i = 0; i < DECIDE_MSRS; i++) {
        c->msrs[i].index = another();
        c->msrs[i].guest = another();
    }
    return true;
}

static struct decide_bpf *load(void)
{
    struct decide_bpf *program = decide_bpf__open_and_load();

    if (!program) {
        fprintf(stderr, "decide: the kernel doesn't take the program: %s\n",
                strerror(errno));
        exit(2);
    }
    return program;
}

int main(void)
{
    struct decide_bpf *program = load();

    while (read_case(&program->bss->input)) {
        LIBBPF_OPTS(bpf_test_run_opts, options);
        int error = bpf_prog_test_run_opts(
                        bpf_program__fd(program->progs.decide), &options);

        if (error) {
            fprintf(stderr, "decide: the program can't be run: %s\n",
                    strerror(-error));
            return 2;
        }
        printf("%#llx\n", program->bss->output);
    }
    decide_bpf__destroy(program);
    return 0;
}
