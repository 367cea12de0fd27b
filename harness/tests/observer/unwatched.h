/*
 * What a BPF program does for a thread that its maps don't know
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef OBSERVER_UNWATCHED_H
#define OBSERVER_UNWATCHED_H

#include <linux/bpf.h>
#include <stdbool.h>

struct unwatched_path {
    unsigned instructions;
    unsigned lookups;       /* calls that get the map */
    unsigned others;        /* other calls */
    unsigned elsewhere;     /* memory but for the arguments and the stack */
};

/*
 * Follow @program, of @length instructions as the kernel gives them, from its
 * start to its end.  What is looked up in the map with this ID isn't there.
 * False if the way depends on anything else, or goes back.
 */
bool unwatched_follow(const struct bpf_insn *program, unsigned length,
                      __u32 map, struct unwatched_path *path);

#endif
