/*
 * What a retired instruction counts as, and how to tell from its bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef EVENTS_H
#define EVENTS_H

#include <stddef.h>
#include <stdint.h>

/* An instruction is at most once of each. */
typedef enum Event {
    INSTRUCTION,
    BRANCH,             /* near or far, taken or not */
    COND,
    COND_TAKEN,
    COND_NTAKEN,
    NEAR_TAKEN,         /* calls and returns too */
    NEAR_CALL,
    NEAR_RETURN,
    FAR_BRANCH,         /* changes CS, or enters the kernel */
    INDIRECT,           /* near jump or call, not a return */
    LOAD,               /* makes at least one */
    STORE,
    MEMORY,             /* LOAD or STORE */
    EVENTS
} Event;

#define EVENT(event) (1u << (event))

/* How an instruction can end */
typedef enum Flow {
    PLAIN,
    REPEATED,           /* with a REP prefix: executed once per pass */
    JUMPING,            /* may be its own successor */
    TRAPPING,           /* delivers an exception, and has retired */
} Flow;

typedef struct Class {
    Flow flow;
    uint32_t events;    /* that are certain once it retires */
} Class;

Class classify(const uint8_t *code, size_t size);

#endif
