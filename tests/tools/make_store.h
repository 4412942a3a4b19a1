/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault-make-store's parts: text (make_text.c), the Prosody archive (make_archive.c), file trees
 * (make_files.c), random numbers (make_rng.h), the command (make_store.c). A test tool: it prints
 * and exits where a library must not (make_die).
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng;

__attribute__((noreturn, format(printf, 1, 2))) void make_die(const char *format, ...);
void *make_alloc(size_t bytes); /* zeroed; never NULL */

/* A growing string for building one stanza after another without allocating. */
struct str {
	char *data;
	size_t length, size;
};

void str_add(struct str *str, const char *text, size_t length);
void str_puts(struct str *str, const char *text);
__attribute__((format(printf, 2, 3))) void str_printf(struct str *str, const char *format, ...);
/* Escapes & < > ' " as Prosody's util.stanza does. */
void str_add_escaped(struct str *str, const char *text, size_t length);

/* Message bodies. */
struct text;

/* corpus_path: a file with one real chat line per line to use as bodies, or NULL for made-up text. */
struct text *text_new(const char *corpus_path);
void text_free(struct text *text);
/* Appends one body, XML-escaped. */
void text_body(struct text *text, struct rng *rng, bool chinese, struct str *out);

/* The archive. */
struct archive_options {
	const char *db_path;
	const char *corpus_path;
	const char *ack_path;  /* writer: where committed rows are noted, or NULL */
	uint64_t seed;
	uint64_t size_bytes;   /* make: until the database has this size … */
	uint64_t messages;     /* … or this many messages, if not 0; append: this many rows */
	uint32_t page_size;
	uint32_t batch_rows;   /* append: rows per transaction */
	uint32_t busy_ms;      /* append, writer: 0 as Prosody has it */
	double rate;           /* writer: messages per second, 0 as fast as it goes */
	double seconds;        /* writer: 0 until SIGTERM */
	bool wal;
};

int archive_make(const struct archive_options *options);
int archive_append(const struct archive_options *options);
int archive_write_live(const struct archive_options *options, const volatile sig_atomic_t *stop);

/* File trees. */
int files_make_uploads(const char *folder, uint64_t bytes, uint64_t seed);
int files_make_small(const char *folder, uint64_t count, uint64_t seed);
