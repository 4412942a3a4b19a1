/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook's ways back while the machine lives: a damaged database, something deleted by mistake, a vault that is partly damaged.
 */
#include "verify/runbook_internal.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "verify/report_internal.h"

#include <string.h>

static const struct forecast *forecast_of(const struct runbook_scenario *s)
{
	return s->has_forecast ? &s->forecast : NULL;
}

/* Over what is there, as of `at` (NULL: the newest state). */
static void replace(struct runbook *r, const char *at, const struct runbook_store *s, const char *reason)
{
	doc_command(&r->doc, DOC_COMMAND);
	runbook_add_verb(r, "restore");
	doc_add(&r->doc, " \\\n       ", NULL);
	if (at)
		doc_add(&r->doc, " --at [1]", at, NULL);
	doc_add(&r->doc, " --store {1} --overwrite", s->name, NULL);
	runbook_add_end(r, reason);
}

/* --- a damaged database --- */

static void damaged(struct runbook *r, const struct runbook_store *s)
{
	struct doc *d = &r->doc;
	const struct runbook_scenario *scenario = runbook_find(r, "database_damaged", s->name);
	doc_say(d, DOC_PART, "The database of {1}", s->name, NULL);
	runbook_say_forecast(r, s->has_forecast ? "Forecast of this store alone" : "Forecast: at most that of the whole node", forecast_of(scenario));
	runbook_say_proof(r, scenario);
	runbook_say_stop(r);
	doc_say(d, DOC_TEXT, "Bring back its newest state. The damaged file stays beside it as {1}.", "NAME.before-restore-TIME", NULL);
	replace(r, NULL, s, "database damaged");
	runbook_say_start(r);
	doc_say(d, DOC_TEXT, "The damage was there before the backup? Stop the server again, and go back to the newest good instant:", NULL);
	replace(r, "\"$AT\"", s, "database damaged");
}

void runbook_database_damaged(struct runbook *r)
{
	bool any = false;
	for (size_t i = 0; i < r->f.store_count; i++)
		any |= runbook_is_database(&r->f.stores[i]);
	if (!any)
		return;
	doc_say(&r->doc, DOC_SCENE, "A database is damaged", NULL);
	doc_say(&r->doc, DOC_TEXT, "The server runs or could run, but says that its database is malformed, or does not open it. The rest "
	    "of the machine is well.", NULL);
	for (size_t i = 0; i < r->f.store_count; i++)
		if (runbook_is_database(&r->f.stores[i]))
			damaged(r, &r->f.stores[i]);
}

/* --- deleted by mistake --- */

static void copy_back(struct runbook *r, const struct runbook_store *s, const char *there)
{
	auto_free char *parent = strdup(s->path);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	if (!slash || !slash[1]) {
		r->doc.failed |= !parent;
		return;
	}
	slash[slash == parent] = '\0';
	doc_say(&r->doc, DOC_TEXT, "Either bring back only what is missing; nothing that is there now is changed:", NULL);
	doc_command(&r->doc, DOC_COMMAND);
	doc_add(&r->doc, "cp -an \"$LOOK\"{1} {2}", there, parent, NULL);
}

static void deleted(struct runbook *r, const struct runbook_store *s)
{
	struct doc *d = &r->doc;
	auto_free char *folder = im_format("/%s", s->name), *there = im_format("/%s%s", s->name, s->path);
	if (!folder || !there) {
		d->failed = true;
		return;
	}
	doc_say(d, DOC_PART, "Something in {1}", s->name, NULL);
	doc_say(d, DOC_TEXT, "Restore it beside, as of {1}, and look. The server may go on.", "AT", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "restore");
	doc_add(d, " \\\n        --at \"$AT\" --store {1} --to \"$LOOK\"{2} \\\n        --reason {3}\n", s->name, folder, "a look at what was deleted", NULL);
	if (runbook_is_database(s)) {
		doc_add(d, "sqlite3 -readonly \"$LOOK\"{1} .tables", there, NULL);
		doc_say(d, DOC_TEXT, "Is it there? Copy single rows with SQL, or replace the whole database: everything written to it after {1} "
		    "is then only in the file moved aside.", "AT", NULL);
	} else {
		doc_add(d, "ls -lR \"$LOOK\"{1}", there, NULL);
		copy_back(r, s, there);
		doc_say(d, DOC_TEXT, "Or replace all of it: everything written to it after {1} is then only in the folder moved aside.", "AT", NULL);
		if (runbook_store_with(r, runbook_node_key(r)) == s)
			doc_say(d, DOC_TEXT, "The node key {1} lies in it. If it does not come back, take it from the folder moved aside.", runbook_node_key(r), NULL);
	}
	runbook_say_stop(r);
	replace(r, "\"$AT\"", s, "deleted by mistake");
	runbook_say_start(r);
}

void runbook_deleted(struct runbook *r)
{
	const struct runbook_scenario *s = runbook_find(r, "deleted_by_mistake", NULL);
	doc_say(&r->doc, DOC_SCENE, "Something was deleted by mistake", NULL);
	doc_say(&r->doc, DOC_TEXT, "The data is wrong, not lost, and somebody knows when it happened. Set {1} to just before.", "AT", NULL);
	runbook_say_forecast(r, "Forecast: at most that of the whole node", forecast_of(s));
	runbook_say_proof(r, s);
	for (size_t i = 0; i < r->f.store_count; i++)
		deleted(r, &r->f.stores[i]);
}

/* --- a damaged vault --- */

static void older_states(struct runbook *r)
{
	doc_say(&r->doc, DOC_TEXT, "Then bring the store that is named as damaged from an older snapshot, number {1}. Stop the server "
	    "before, if it was started.",
	    "SEQ", NULL);
	for (size_t i = 0; i < r->f.store_count; i++) {
		doc_say(&r->doc, DOC_TEXT, "If it is {1}:", r->f.stores[i].name, NULL);
		replace(r, "\"$SEQ\"", &r->f.stores[i], "vault damaged");
	}
}

static void say_verified(struct runbook *r)
{
	const struct runlog *l = r->f.verified;
	char clean[REPORT_VALUE_BYTES], damage[REPORT_VALUE_BYTES];
	if (l->damage_ms)
		doc_say(&r->doc, DOC_ALARM, "Verify found damage on [1], and none has shown since that it is gone.", report_minute(damage, l->damage_ms), NULL);
	if (l->clean_ms)
		doc_say(&r->doc, DOC_TEXT, "Every byte of it was last read and found sound on [1].", report_minute(clean, l->clean_ms), NULL);
	else
		doc_say(&r->doc, DOC_TEXT, "No run that read every byte of it is known: {1} does.", "imvault verify --read", NULL);
}

void runbook_vault_damaged(struct runbook *r)
{
	struct doc *d = &r->doc;
	const struct runbook_scenario *s = runbook_find(r, "vault_damaged", NULL);
	doc_say(d, DOC_SCENE, "The vault is partly damaged", NULL);
	doc_say(d, DOC_TEXT, "A command ended with exit 6, or the disk of the vault has errors.", NULL);
	say_verified(r);
	runbook_say_forecast(r, "Forecast, if the server is lost, too", forecast_of(s));
	runbook_say_proof(r, s);
	doc_say(d, DOC_PART, "1. Copy it before you do anything else", NULL);
	doc_command(d, DOC_COMMAND);
	doc_add(d, "cp -a \"$VAULT\" \"$COPY\"", NULL);
	doc_say(d, DOC_PART, "2. What is harmed?", NULL);
	doc_say(d, DOC_TEXT, "Exit 6: it names objects, snapshots, stores and files. Snapshots that are not named are sound.", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "verify");
	doc_add(d, " --read", NULL);
	doc_say(d, DOC_PART, "3. The server lives", NULL);
	doc_say(d, DOC_TEXT, "Protect it anew in a new vault, on another disk. A backup into the damaged one is not enough: what it "
	    "believes to have it does not store again. Keep the damaged one for older states.", NULL);
	runbook_say_new_vault(r);
	doc_say(d, DOC_PART, "4. The server is lost, too", NULL);
	doc_say(d, DOC_TEXT, "Restore all the same. Exit 6 means that everything else is back.", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "restore");
	doc_add(d, " --overwrite", NULL);
	runbook_add_end(r, "machine lost, vault damaged");
	older_states(r);
	doc_say(d, DOC_TEXT, "Then go on with step 5 of a lost machine.", NULL);
}
