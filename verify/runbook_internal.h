/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the runbook share: a small document (headings, texts, lists, commands) that two
 * writers turn into Markdown and HTML. Our own words are templates; whatever comes from a vault, a
 * configuration or the command line is a value, which a writer escapes and a command quotes.
 */
#ifndef IM_VERIFY_RUNBOOK_INTERNAL_H
#define IM_VERIFY_RUNBOOK_INTERNAL_H

#include "verify/runbook.h"

/* --- the document (runbook_doc.c) --- */

enum doc_kind { DOC_TITLE, DOC_SCENE, DOC_PART, DOC_TEXT, DOC_ITEM, DOC_GAP, DOC_ALARM, DOC_COMMAND, DOC_SYSTEM };
#define DOC_VALUES_MAX 9

struct doc_block {
	enum doc_kind kind;
	const char *words;            /* not of commands: {1} … are values as code, [1] … values as plain text */
	char *values[DOC_VALUES_MAX];
	struct im_buf command;        /* DOC_COMMAND; DOC_SYSTEM: changes the machine as such, so no test runs it. NUL-terminated once closed */
};

struct doc {
	struct doc_block *blocks;
	size_t count, room;
	bool failed; /* out of memory */
};

/* A block of words. The values, texts of any bytes, are copied; they end with NULL. */
void doc_say(struct doc *d, enum doc_kind kind, const char *words, ...) __attribute__((sentinel));
/* Begins a block of commands, and adds to it: {1} … are values quoted for a shell, [1] … values as they are, which must be
 * commands themselves. */
void doc_command(struct doc *d, enum doc_kind kind);
void doc_add(struct doc *d, const char *words, ...) __attribute__((sentinel));
void doc_clear(struct doc *d);
/* The next piece of a template: our words up to a place (false: the last), then which value goes there and whether as code. */
struct doc_piece {
	const char *words;
	size_t len;
	int value; /* index; -1: none follows, it is the end */
	bool code; /* {n}, else [n] */
};
bool doc_next(const char **at, struct doc_piece *ret);

/* Appends text as one word of a POSIX shell; where it holds what a reader would not see, as one of bash ($'…'). Never more than one line. */
void doc_quote(struct im_buf *ret, const char *text);
/* Is every character of it to be seen, in its place? */
bool doc_is_plain(const char *text);

/* --- the runbook (runbook.c) --- */

struct runbook {
	struct runbook_facts f;
	struct doc doc;
	struct runbook_scenario *scenarios;
	size_t scenario_count;
	const char *gaps[8];
	size_t gap_count;
	const char *stop, *start; /* commands to be copied; NULL: there are none */
	char node_key_id[17];     /* of the newest snapshot's signer */
	int64_t example_ms;       /* an instant that every store can be brought back to, if there is one */
};

/* A gap on the page (words NULL: said otherwise) and in the answer. */
void runbook_add_gap(struct runbook *r, const char *words, const char *hint);
/* "imvault VERB --vault … --key … --node NODE" into the command that is open. */
void runbook_add_verb(struct runbook *r, const char *verb);
/* "imvault [-c FILE] VERB" as the node itself runs it. */
void runbook_add_own(struct runbook *r, const char *verb);
/* Blocks of the commands that stop and start the server, or the words that it is to be done. */
void runbook_say_stop(struct runbook *r);
void runbook_say_start(struct runbook *r);
/* A block that replaces the node's key, whether its file is still there or not (runbook_keys.c). */
void runbook_add_rotation(struct runbook *r);
/* A new vault beside the old one, and a first backup into it (runbook_keys.c). */
void runbook_say_new_vault(struct runbook *r);
/* " \ --reason REASON", for the record that a restore leaves, and " \ --exec START", if there is one. */
void runbook_add_end(struct runbook *r, const char *reason);
const struct runbook_scenario *runbook_find(const struct runbook *r, const char *name, const char *store);
bool runbook_is_database(const struct runbook_store *s);
/* The store of files that a path lies in, or NULL. */
const struct runbook_store *runbook_store_with(const struct runbook *r, const char *path);
const char *runbook_node_key(const struct runbook *r); /* the path of its file */

/* --- what records prove (runbook_proof.c) --- */

void runbook_prove(struct runbook *r);
/* Forecast and proof of a scenario, as texts. */
void runbook_say_proof(struct runbook *r, const struct runbook_scenario *s);
/* "15 min"; ret has REPORT_VALUE_BYTES. Returns ret. */
char *runbook_duration(char *ret, int64_t ms);
void runbook_say_forecast(struct runbook *r, const char *what, const struct forecast *f);

/* --- the page's parts --- */

void runbook_front(struct runbook *r);         /* runbook_front.c: who, what, where, keys, and the first block of commands */
void runbook_machine_lost(struct runbook *r);  /* runbook_lost.c */
void runbook_key_lost(struct runbook *r);      /* runbook_keys.c */
void runbook_list_keys(struct runbook *r);     /* runbook_keys.c */
void runbook_database_damaged(struct runbook *r); /* runbook_data.c */
void runbook_deleted(struct runbook *r);       /* runbook_data.c */
void runbook_vault_damaged(struct runbook *r); /* runbook_data.c */

#endif
