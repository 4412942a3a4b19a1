/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook's keys: which open the vault, and what to do when one is lost.
 */
#include "verify/runbook_internal.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *text_of(const char *text)
{
	return text ? text : "";
}

static bool is_shown(const struct runbook *r, const struct key_entry *e)
{
	return e->active && (e->role == KEY_RESTORE || (e->role == KEY_NODE && (!e->node || strcmp(e->node, r->f.node) == 0)));
}

void runbook_list_keys(struct runbook *r)
{
	const struct keyring *k = r->f.vault->keyring;
	char hex[17];
	for (size_t i = 0; i < keyring_count(k); i++) {
		const struct key_entry *e = keyring_at(k, i);
		if (!is_shown(r, e))
			continue;
		im_hex(hex, e->id, 8);
		if (e->role == KEY_RESTORE)
			doc_say(&r->doc, DOC_ITEM, "restore key {1}, [2]: reads everything, manages keys", hex, text_of(e->name), NULL);
		else if (strcmp(hex, r->node_key_id) == 0)
			doc_say(&r->doc, DOC_ITEM, "node key {1}, [2]: writes snapshots, cannot read them; at {3} on the node", hex, text_of(e->name), runbook_node_key(r),
			    NULL);
		else
			doc_say(&r->doc, DOC_ITEM, "node key {1}, [2]: writes snapshots, cannot read them", hex, text_of(e->name), NULL);
	}
}

static void parent_of(char *path)
{
	char *slash = strrchr(path, '/');
	if (slash && slash != path)
		*slash = '\0';
	else if (slash)
		slash[1] = '\0';
}

void runbook_add_rotation(struct runbook *r)
{
	struct doc *d = &r->doc;
	const char *path = runbook_node_key(r);
	auto_free char *folder = strdup(path), *aside = im_format("%s.lost", path);
	if (!folder || !aside) {
		d->failed = true;
		return;
	}
	parent_of(folder);
	doc_command(d, DOC_COMMAND);
	doc_add(d, "mkdir -p {1}\n"
	    "test ! -e {2} || mv {2} {3}\n", folder, path, aside, NULL);
	doc_add(d, "imvault key list --vault \"$VAULT\" --key \"$KEY\"\n", NULL);
	if (*r->node_key_id)
		doc_add(d, "imvault key rotate [1] --vault \"$VAULT\" --key \"$KEY\" \\\n        --out {2}", r->node_key_id, path, NULL);
	else
		doc_add(d, "imvault key add --role node --name {1} --node {1} --vault \"$VAULT\" --key \"$KEY\" \\\n        --out {2}", r->f.node, path, NULL);
}

/* --- a key is lost --- */

static void proof(struct runbook *r)
{
	const struct drill_record *d = runbook_find(r, "key_lost", NULL)->worked;
	char when[REPORT_VALUE_BYTES], hex[17], seq[24];
	if (!d) {
		runbook_say_proof(r, runbook_find(r, "key_lost", NULL));
		return;
	}
	const struct key_entry *e = keyring_find(r->f.vault->keyring, d->signer);
	snprintf(seq, sizeof seq, "%" PRIu64, d->seq);
	doc_say(&r->doc, DOC_TEXT, "Last opened with restore key {1}, [2]: [3] in [4] [5] on {6}.", im_hex(hex, d->signer, 8), text_of(e ? e->name : NULL),
	    report_minute(when, d->time_ms), d->is_drill ? "drill" : "restore", seq, *d->host ? d->host : "?", NULL);
	if (!d->signer_active)
		doc_say(&r->doc, DOC_ALARM, "that key was revoked since. No record shows that one of today's opens the vault.", NULL);
}

static void node_key(struct runbook *r)
{
	struct doc *d = &r->doc;
	doc_say(d, DOC_PART, "The node key is lost or stolen", NULL);
	doc_say(d, DOC_TEXT, "The server lives. What it has written stays readable. A thief cannot read the vault, but could add false "
	    "snapshots: choose one from before the theft with {1}.", "--at", NULL);
	runbook_add_rotation(r);
	doc_say(d, DOC_TEXT, "Then back up with the new key:", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_own(r, "backup");
}

static size_t count_restore_keys(const struct keyring *k)
{
	size_t count = 0;
	for (size_t i = 0; i < keyring_count(k); i++)
		count += keyring_at(k, i)->active && keyring_at(k, i)->role == KEY_RESTORE;
	return count;
}

/* Only its holder can rotate a restore key; one that is gone gets a successor by adding another. */
static void restore_key(struct runbook *r)
{
	struct doc *d = &r->doc;
	const struct keyring *k = r->f.vault->keyring;
	bool several = count_restore_keys(k) > 1;
	char hex[17];
	doc_say(d, DOC_PART, "A restore key is lost, and there is another one", NULL);
	if (several)
		doc_say(d, DOC_TEXT, "Set {1} to the file of one you still have. Make another, and keep it where the lost one was:", "KEY", NULL);
	else
		doc_say(d, DOC_ALARM, "there is only one restore key. If it is lost nobody can read this vault. Make a second one today, and keep it in another "
		    "place:", NULL);
	doc_command(d, DOC_COMMAND);
	doc_add(d, "imvault key add --role restore --name another --vault \"$VAULT\" --key \"$KEY\" \\\n        --out \"$NEW_KEY\"", NULL);
	if (!several)
		return;
	doc_say(d, DOC_TEXT, "Could somebody have found it? Then shut it out. Exit 2: it holds the secret of the key that it was added with; the message "
	    "has the two commands to run instead.", NULL);
	for (size_t i = 0; i < keyring_count(k); i++) {
		const struct key_entry *e = keyring_at(k, i);
		if (!e->active || e->role != KEY_RESTORE)
			continue;
		im_hex(hex, e->id, 8);
		doc_say(d, DOC_TEXT, "If it is {1}, [2]:", hex, text_of(e->name), NULL);
		doc_command(d, DOC_COMMAND);
		doc_add(d, "imvault key revoke [1] --vault \"$VAULT\" --key \"$KEY\"", hex, NULL);
	}
}

void runbook_say_new_vault(struct runbook *r)
{
	struct doc *d = &r->doc;
	auto_free char *fresh = im_format("%s.new", runbook_node_key(r));
	if (!fresh) {
		d->failed = true;
		return;
	}
	doc_command(d, DOC_COMMAND);
	doc_add(d, "imvault init --vault \"$NEW_VAULT\" --restore-key \"$NEW_KEY\" \\\n        --node-key {1} --node {2}\n", fresh, r->f.node, NULL);
	runbook_add_own(r, "backup");
	doc_add(d, " --vault \"$NEW_VAULT\" --key {1}", fresh, NULL);
	doc_say(d, DOC_TEXT, "Then write both into the configuration, as url and key in [vault], and take the new restore key away from "
	    "this machine.", NULL);
}

static void no_key(struct runbook *r)
{
	doc_say(&r->doc, DOC_PART, "No restore key is left", NULL);
	doc_say(&r->doc, DOC_TEXT, "Nobody can read this vault any more, and no support can help. While the server lives, make a new vault "
	    "at once:", NULL);
	runbook_say_new_vault(r);
}

void runbook_key_lost(struct runbook *r)
{
	doc_say(&r->doc, DOC_SCENE, "A key is lost", NULL);
	doc_say(&r->doc, DOC_TEXT, "No data is moved: it takes as long as finding the other key.", NULL);
	proof(r);
	node_key(r);
	restore_key(r);
	no_key(r);
}
