/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The progress line on stderr: share done, rate, time left, and time left to the target. Only on a
 * terminal, never with --quiet, a few times a second. There is one line per process.
 */
#ifndef IM_CLI_PROGRESS_H
#define IM_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* enabled: asked for; it stays off all the same if stderr is no terminal. target_us: monotonic instant by
 * which the work should be done, or 0. */
void progress_begin(bool enabled, int64_t target_us);
/* What is being done now; the rate starts anew. */
void progress_label(const char *label);
/* Any thread. total 0: unknown. */
void progress_update(uint64_t done_bytes, uint64_t total_bytes);
/* The same two as event functions; context is not used. */
void progress_on_phase(void *context, const char *name);
void progress_on_bytes(void *context, uint64_t done_bytes, uint64_t total_bytes);
/* A few words that stand behind the label until others come. */
void progress_on_note(void *context, const char *text);
/* Takes the line away so that other text can be printed; the next update brings it back. */
void progress_hide(void);

#endif
