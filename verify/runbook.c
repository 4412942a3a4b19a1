/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the runbook: what is known about each way back, then the page from top to bottom, and the
 * pieces of commands that its parts share.
 */
#include "verify/runbook_internal.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

bool runbook_is_database(const struct runbook_store *s)
{
	return strcmp(s->type, "sqlite") == 0;
}

const struct runbook_store *runbook_store_with(const struct runbook *r, const char *path)
{
	for (size_t i = 0; i < r->f.store_count; i++) {
		const struct runbook_store *s = &r->f.stores[i];
		size_t len = strlen(s->path);
		if (!runbook_is_database(s) && strncmp(s->path, path, len) == 0 && (path[len] == '/' || !path[len]))
			return s;
	}
	return NULL;
}

const char *runbook_node_key(const struct runbook *r)
{
	return r->f.config->vault_key ? r->f.config->vault_key : "/etc/imvault/node.key";
}

/* --- scenarios --- */

static void add_scenario(struct runbook *r, const char *name, const char *store, const struct forecast *f)
{
	struct runbook_scenario *s = &r->scenarios[r->scenario_count++];
	*s = (struct runbook_scenario){ .name = name, .store = store, .has_forecast = f != NULL };
	if (f)
		s->forecast = *f;
}

static int list_scenarios(struct runbook *r, struct im_error *err)
{
	const struct forecast *full = r->f.forecast ? &r->f.forecast->full : NULL;
	r->scenarios = calloc(r->f.store_count + 5, sizeof *r->scenarios);
	if (!r->scenarios)
		return im_fail(err, IM_ENOMEM, "out of memory for the runbook");
	add_scenario(r, "machine_lost", NULL, full);
	add_scenario(r, "machine_lost_instant", NULL, r->f.forecast ? &r->f.forecast->instant : NULL);
	for (size_t i = 0; i < r->f.store_count; i++)
		if (runbook_is_database(&r->f.stores[i]))
			add_scenario(r, "database_damaged", r->f.stores[i].name, r->f.stores[i].has_forecast ? &r->f.stores[i].full : full);
	add_scenario(r, "deleted_by_mistake", NULL, full);
	add_scenario(r, "vault_damaged", NULL, full);
	add_scenario(r, "key_lost", NULL, NULL); /* no data is moved */
	runbook_prove(r);
	return 0;
}

const struct runbook_scenario *runbook_find(const struct runbook *r, const char *name, const char *store)
{
	for (size_t i = 0; i < r->scenario_count; i++)
		if (strcmp(r->scenarios[i].name, name) == 0 && (!store || strcmp(r->scenarios[i].store, store) == 0))
			return &r->scenarios[i];
	abort(); /* a slip in this program */
}

/* --- pieces of commands --- */

void runbook_add_verb(struct runbook *r, const char *verb)
{
	doc_add(&r->doc, "imvault [1] --vault \"$VAULT\" --key \"$KEY\" --node {2}", verb, r->f.node, NULL);
}

void runbook_add_own(struct runbook *r, const char *verb)
{
	if (r->f.config_path)
		doc_add(&r->doc, "imvault -c {1} [2]", r->f.config_path, verb, NULL);
	else
		doc_add(&r->doc, "imvault [1]", verb, NULL);
}

void runbook_add_end(struct runbook *r, const char *reason)
{
	doc_add(&r->doc, " \\\n        --reason {1}", reason, NULL);
	if (r->start)
		doc_add(&r->doc, " \\\n        --exec {1}", r->start, NULL);
}

void runbook_say_stop(struct runbook *r)
{
	if (!r->stop) {
		doc_say(&r->doc, DOC_TEXT, "Stop the message server yourself.", NULL);
		return;
	}
	doc_say(&r->doc, DOC_TEXT, "Stop the message server:", NULL);
	doc_command(&r->doc, DOC_COMMAND);
	doc_add(&r->doc, "[1]", r->stop, NULL);
}

void runbook_say_start(struct runbook *r)
{
	doc_say(&r->doc, DOC_TEXT, r->start ? "The server is started by this command." : "Then start the server yourself.", NULL);
}

void runbook_add_gap(struct runbook *r, const char *words, const char *hint)
{
	if (words)
		doc_say(&r->doc, DOC_GAP, words, NULL);
	if (r->gap_count < sizeof r->gaps / sizeof *r->gaps)
		r->gaps[r->gap_count++] = hint;
}

/* --- all of it --- */

/* The newest instant that every store reaches; stores that have none in common: the newest snapshot's. */
static int64_t find_example(const struct runbook_facts *f)
{
	int64_t from_ms = 0, to_ms = f->newest->time_ms;
	for (size_t i = 0; i < f->store_count; i++) {
		const struct runbook_store *s = &f->stores[i];
		if (!s->has_window)
			continue;
		to_ms = s->to_ms < to_ms ? s->to_ms : to_ms;
		from_ms = s->from_ms > from_ms ? s->from_ms : from_ms;
	}
	return to_ms < from_ms ? f->newest->time_ms : to_ms;
}

/* A command that does not show what it does is not printed as one. */
static const char *command_of(const char *text)
{
	return text && doc_is_plain(text) ? text : NULL;
}

/* The newest snapshot's signer, or whatever took its place since; "": the node has no key any more. */
static void find_node_key(struct runbook *r)
{
	const struct keyring *k = r->f.vault->keyring;
	const uint8_t *signer = r->f.newest->record.signer;
	for (size_t i = 0; i < keyring_count(k); i++) {
		const struct key_entry *e = keyring_at(k, i);
		bool is_its = e->active && e->role == KEY_NODE && (!e->node || strcmp(e->node, r->f.node) == 0);
		if (is_its && (!*r->node_key_id || keyring_same_lineage(k, e->id, signer)))
			im_hex(r->node_key_id, e->id, 8);
	}
}

static void write_parts(struct runbook *r)
{
	runbook_front(r);
	runbook_machine_lost(r);
	runbook_database_damaged(r);
	runbook_deleted(r);
	runbook_vault_damaged(r);
	runbook_key_lost(r);
	for (size_t i = 0; i < r->doc.count; i++) {
		struct doc_block *b = &r->doc.blocks[i];
		if (b->kind == DOC_COMMAND || b->kind == DOC_SYSTEM) {
			im_buf_put_u8(&b->command, 0);
			r->doc.failed |= b->command.failed;
		}
	}
}

int runbook_make(const struct runbook_facts *f, struct runbook **ret, struct im_error *err)
{
	struct runbook *r = calloc(1, sizeof *r);
	if (!r)
		return im_fail(err, IM_ENOMEM, "out of memory for the runbook");
	r->f = *f;
	r->stop = command_of(f->config->runbook_stop);
	r->start = command_of(f->config->runbook_start);
	r->example_ms = find_example(f);
	find_node_key(r);
	int rc = list_scenarios(r, err);
	if (rc == 0) {
		write_parts(r);
		rc = r->doc.failed ? im_fail(err, IM_ENOMEM, "out of memory for the runbook") : 0;
	}
	if (rc) {
		runbook_free(r);
		return rc;
	}
	*ret = r;
	return 0;
}

void runbook_free(struct runbook *r)
{
	if (!r)
		return;
	doc_clear(&r->doc);
	free(r->scenarios);
	free(r);
}

size_t runbook_scenario_count(const struct runbook *r)
{
	return r->scenario_count;
}

const struct runbook_scenario *runbook_scenario_at(const struct runbook *r, size_t i)
{
	return &r->scenarios[i];
}

size_t runbook_gap_count(const struct runbook *r)
{
	return r->gap_count;
}

const char *runbook_gap(const struct runbook *r, size_t i)
{
	return r->gaps[i];
}
