/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook's beginning: whose it is, whom to call, what has to come back and how soon, where the
 * vault is and what opens it; then the values that all commands share.
 */
#include "verify/runbook_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void title(struct runbook *r)
{
	char now[REPORT_VALUE_BYTES], of[REPORT_VALUE_BYTES], seq[REPORT_VALUE_BYTES];
	const struct runbook_facts *f = &r->f;
	snprintf(seq, sizeof seq, "%" PRIu64, f->newest->seq);
	doc_say(&r->doc, DOC_TITLE, "Emergency: [1]", f->node, NULL);
	doc_say(&r->doc, DOC_TEXT, "Made [1] by imvault [2], of snapshot [3] ([4]).", report_minute(now, f->now_ms), IMVAULT_VERSION, seq,
	    report_minute(of, f->newest->time_ms), NULL);
	doc_say(&r->doc, DOC_TEXT, "Print it. Keep it with the restore key, not on this server. Make it anew ({1}) when stores, keys or "
	    "people change and after each drill.", "imvault runbook", NULL);
	if (f->drills->finding_count)
		doc_say(&r->doc, DOC_ALARM, "records of drills are missing or cannot be trusted; {1} names them.", "imvault report", NULL);
}

static bool say_lines(struct runbook *r, const char *key)
{
	const struct im_config *c = r->f.config;
	bool any = false;
	for (size_t i = 0; i < c->runbook_line_count; i++)
		if (strcmp(c->runbook_lines[i].key, key) == 0) {
			doc_say(&r->doc, DOC_ITEM, "[1]", c->runbook_lines[i].value, NULL);
			any = true;
		}
	return any;
}

static bool has_note(const struct im_config *c)
{
	for (size_t i = 0; i < c->runbook_line_count; i++)
		if (strcmp(c->runbook_lines[i].key, "note") == 0)
			return true;
	return false;
}

static void people(struct runbook *r)
{
	doc_say(&r->doc, DOC_SCENE, "Who to call", NULL);
	if (!say_lines(r, "contact"))
		runbook_add_gap(r, "who to call: ______________________ (contact = in [runbook])", "nobody to call is named: contact = in [runbook]");
	if (!has_note(r->f.config))
		return;
	doc_say(&r->doc, DOC_TEXT, "To know:", NULL);
	say_lines(r, "note");
}

/* --- what must come back --- */

static void say_store(struct runbook *r, const struct runbook_store *s)
{
	char bytes[REPORT_VALUE_BYTES], from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES];
	report_bytes(bytes, s->bytes);
	if (!s->has_window)
		doc_say(&r->doc, DOC_ITEM, "{1} ([2]) at {3}, [4]. No snapshot of it can be used.", s->name, s->type, s->path, bytes, NULL);
	else
		doc_say(&r->doc, DOC_ITEM, s->logged ? "{1} ([2]) at {3}, [4]. Back to any instant from [5] to [6]."
		                                     : "{1} ([2]) at {3}, [4]. Back to its snapshots from [5] to [6].",
		    s->name, s->type, s->path, bytes, im_instant_format(from, s->from_ms), im_instant_format(to, s->to_ms), NULL);
}

static bool is_there(const struct runbook *r, const char *name)
{
	for (size_t i = 0; i < r->f.store_count; i++)
		if (strcmp(r->f.stores[i].name, name) == 0)
			return true;
	return false;
}

static void targets(struct runbook *r)
{
	char rto[REPORT_VALUE_BYTES], rpo[REPORT_VALUE_BYTES];
	const struct runbook_facts *f = &r->f;
	runbook_duration(rto, f->rto_ms);
	runbook_duration(rpo, f->rpo_ms);
	if (!f->rto_ms)
		doc_say(&r->doc, DOC_TEXT, "No recovery target is set.", NULL);
	else if (f->rto_ms == im_tier_rto_ms(f->config->tier))
		doc_say(&r->doc, DOC_TEXT, "People must be able to send messages again within [1] (tier [2]).", rto, f->config->tier, NULL);
	else
		doc_say(&r->doc, DOC_TEXT, "People must be able to send messages again within [1].", rto, NULL);
	if (f->rpo_ms)
		doc_say(&r->doc, DOC_TEXT, "At most the last [1] may be lost.", rpo, NULL);
	else
		doc_say(&r->doc, DOC_TEXT, "How much may be lost is not set (rpo).", NULL);
}

static void stores(struct runbook *r)
{
	doc_say(&r->doc, DOC_SCENE, "What must come back", NULL);
	for (size_t i = 0; i < r->f.store_count; i++)
		say_store(r, &r->f.stores[i]);
	for (size_t i = 0; i < r->f.store_count; i++)
		if (r->f.stores[i].failed)
			doc_say(&r->doc, DOC_ALARM, "the store {1} could not be saved with this snapshot; only older states of it can come back.",
			    r->f.stores[i].name, NULL);
	for (size_t i = 0; i < r->f.config->store_count; i++)
		if (!is_there(r, r->f.config->stores[i].name))
			doc_say(&r->doc, DOC_ALARM, "the store {1} of the configuration is not in this snapshot.", r->f.config->stores[i].name, NULL);
	targets(r);
	runbook_say_forecast(r, "Everything, if it were now", r->f.forecast ? &r->f.forecast->full : NULL);
	if (r->f.forecast)
		runbook_say_forecast(r, "Started at once, its data following", &r->f.forecast->instant);
}

/* --- the vault and its keys --- */

static void key_places(struct runbook *r)
{
	const struct im_config *c = r->f.config;
	if (c->runbook_restore_key)
		doc_say(&r->doc, DOC_TEXT, "The restore key is kept here: [1]", c->runbook_restore_key, NULL);
	else
		runbook_add_gap(r, "the restore key is kept here: ______________________ (restore_key = in [runbook])",
		    "where the restore key is kept is not said: restore_key = in [runbook]");
	if (c->runbook_passphrase)
		doc_say(&r->doc, DOC_TEXT, "Its passphrase is kept here: [1]", c->runbook_passphrase, NULL);
	else
		runbook_add_gap(r, "its passphrase is kept here: ______________________ (passphrase = in [runbook])",
		    "where its passphrase is kept is not said: passphrase = in [runbook]");
	doc_say(&r->doc, DOC_TEXT, "Whether a key file has a passphrase is not in the vault. imvault asks for it where one is needed; a "
	    "file with one holds the word {1}.",
	    "protected", NULL);
}

static void vault(struct runbook *r)
{
	const struct im_config *c = r->f.config;
	doc_say(&r->doc, DOC_SCENE, "Where it is and what opens it", NULL);
	doc_say(&r->doc, DOC_TEXT, "The vault: {1}", r->f.url, NULL);
	if (c->vault_url && strcmp(c->vault_url, r->f.url) != 0)
		doc_say(&r->doc, DOC_TEXT, "The node itself names it {1}", c->vault_url, NULL);
	doc_say(&r->doc, DOC_TEXT, "Only a restore key reads it:", NULL);
	runbook_list_keys(r);
	key_places(r);
}

/* --- the first commands --- */

static void variables(struct runbook *r)
{
	char at[IM_INSTANT_BYTES], seq[24];
	struct doc *d = &r->doc;
	im_instant_format(at, r->example_ms);
	snprintf(seq, sizeof seq, "%" PRIu64, r->f.older_seq);
	doc_say(d, DOC_TEXT, "Set these in the shell that you will use (bash). The commands below need them.", NULL);
	doc_command(d, DOC_COMMAND);
	doc_add(d, "VAULT={1}   # where the vault is now\n", r->f.url, NULL);
	doc_add(d, "KEY=/root/restore.key   # where you have put the file of the restore key\n"
	    "AT={1}   # before it happened; the windows are above\n"
	    "SEQ={2}   # of an older snapshot; imvault list shows them\n", at, seq, NULL);
	doc_add(d, "LOOK=/var/tmp/imvault-look   # a folder to look at old states in\n"
	    "COPY=/mnt/spare/vault-copy   # room for a copy of the vault, on another disk\n"
	    "NEW_KEY=/root/restore-2.key   # for a new restore key\n"
	    "NEW_VAULT=/mnt/spare/new-vault   # for a new vault\n"
	    "SOURCE=/media/usb/imvault   # where you keep the source of imvault", NULL);
}

static void before(struct runbook *r)
{
	struct doc *d = &r->doc;
	const struct im_config *c = r->f.config;
	doc_say(d, DOC_SCENE, "Before you type anything", NULL);
	doc_say(d, DOC_ITEM, "Is the machine really lost? If its disk still reads, do not write to it.", NULL);
	doc_say(d, DOC_ITEM, "Keep the broken state. imvault never deletes what is in its way; {1} moves it aside. Neither should you.", "--overwrite",
	    NULL);
	doc_say(d, DOC_ITEM, "Read the line that names the instant reached: what was written after it is lost. Tell people.", NULL);
	if (r->f.config_is_vaults && (c->runbook_packages || r->stop || r->start))
		doc_say(d, DOC_ITEM, "Packages and the commands that stop and start the server are as the node's last snapshot has them. If "
		    "somebody broke into the node, read them before you run them.", NULL);
	if ((c->runbook_stop && !r->stop) || (c->runbook_start && !r->start))
		doc_say(d, DOC_ALARM, "stop or start in [runbook] holds characters that cannot be shown. It is left out.", NULL);
	variables(r);
}

void runbook_front(struct runbook *r)
{
	title(r);
	people(r);
	stores(r);
	vault(r);
	before(r);
}
