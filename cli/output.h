/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: text lines, or the one JSON object of --json with its stable field names.
 */
#ifndef IM_CLI_OUTPUT_H
#define IM_CLI_OUTPUT_H

#include "cli/cli.h"

/* A line of the answer on stdout; nothing with --json or --quiet. */
void output_line(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "imvault: TEXT" on stderr, always. */
void output_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As output_problem, as a remark that --quiet silences. */
void output_note(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fields of an object; text of any bytes (made printable), instants as RFC 3339. NULL text: the field is left out. */
void output_text(json_t *object, const char *name, const char *text);
void output_integer(json_t *object, const char *name, int64_t value);
void output_instant(json_t *object, const char *name, int64_t ms);
void output_boolean(json_t *object, const char *name, bool value);
/* Appends a new empty object to object's array name (made if missing) and returns it, borrowed. */
json_t *output_row(json_t *object, const char *name);
/* Appends a text to object's array name. */
void output_item(json_t *object, const char *name, const char *text);
/* Makes sure that the array is there, if only empty. */
json_t *output_array(json_t *object, const char *name);

/* Says the error (or puts it into the object), prints the object, flushes. Returns the exit status. */
int output_finish(struct cli *cli, int rc, struct im_error *err);

#endif
