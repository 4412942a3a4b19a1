/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook's first way back: the machine is lost. From nothing to a protected node again.
 */
#include "verify/runbook_internal.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "restore/instant/holder.h"

#include <string.h>

#define USUAL_CONFIG "/etc/imvault/imvault.conf"

static void prepare(struct runbook *r)
{
	struct doc *d = &r->doc;
	const char *packages = r->f.config->runbook_packages;
	doc_say(d, DOC_PART, "1. A machine with the server installed and stopped", NULL);
	if (packages) {
		doc_command(d, DOC_SYSTEM);
		doc_add(d, "apt-get update && apt-get install -y [1]", packages, NULL);
	} else {
		runbook_add_gap(r, "install these packages: ______________________ (packages = in [runbook])",
		    "the server's packages are not named: packages = in [runbook]");
	}
	runbook_say_stop(r);
	if (!r->stop)
		runbook_add_gap(r, "the command that stops it: ______________________ (stop = in [runbook])",
		    "how the server is stopped is not said: stop = in [runbook]");
	if (!r->start)
		runbook_add_gap(r, "the command that starts it: ______________________ (start = in [runbook])",
		    "how the server is started is not said: start = in [runbook]");
	doc_say(d, DOC_PART, "2. imvault", NULL);
	doc_command(d, DOC_SYSTEM);
	doc_add(d, "git clone \"$SOURCE\" imvault && cd imvault && scripts/deps build\n"
	    "meson setup build && ninja -C build && meson install -C build", NULL);
	doc_say(d, DOC_TEXT, "It does not build? {1} restores without it (docs/EMERGENCY.md).", "scripts/rescue.py", NULL);
}

static void look(struct runbook *r)
{
	struct doc *d = &r->doc;
	doc_say(d, DOC_PART, "3. What is there, and how long will it take?", NULL);
	doc_say(d, DOC_TEXT, "Both write nothing. The second names what is in the way.", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "list");
	doc_add(d, "\n", NULL);
	runbook_add_verb(r, "restore");
	doc_add(d, " --dry-run", NULL);
}

static void bring_back(struct runbook *r)
{
	struct doc *d = &r->doc;
	doc_say(d, DOC_PART, "4. Everything back to its place", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "restore");
	runbook_add_end(r, "machine lost");
	runbook_say_start(r);
	doc_say(d, DOC_TEXT, "Exit 2, and something is in the way (a fresh package made folders)? Look at it. Then move it aside:", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_verb(r, "restore");
	doc_add(d, " --overwrite", NULL);
	runbook_add_end(r, "machine lost");
}

/* An init system's service does not inherit what holds its accesses back; the service manager keeps it then. */
static void bring_back_at_once(struct runbook *r)
{
	struct doc *d = &r->doc;
	bool by_manager = r->start && holder_is_handed_over(r->start);
	doc_say(d, DOC_PART, "4, the fast way", NULL);
	doc_say(d, DOC_TEXT, "Instead of the above: the server works at once, its data follows. As root; the server must be stopped. Until "
	    "it is complete do not copy the folders with {1}, and never touch what is named {2}.", "cp", ".NAME.imvault-instant", NULL);
	doc_command(d, by_manager ? DOC_SYSTEM : DOC_COMMAND);
	if (by_manager)
		doc_add(d, "systemd-run --pipe --wait --unit imvault-instant -p FileDescriptorStoreMax=1 \\\n"
		    "        -p KillMode=process -p Restart=on-abnormal -p RestartSec=infinity \\\n        /usr/local/bin/", NULL);
	runbook_add_verb(r, "restore");
	doc_add(d, " --instant --overwrite", NULL);
	runbook_add_end(r, "machine lost");
	doc_say(d, DOC_TEXT, "{1} shows how far it is. The machine restarted meanwhile? Keep the server stopped and see {2} in "
	    "docs/INSTANT.md.", "imvault status",
	    "imvault restore --resume", NULL);
}

static void protect(struct runbook *r)
{
	struct doc *d = &r->doc;
	const char *config = r->f.config_path ? r->f.config_path : USUAL_CONFIG;
	const struct runbook_store *with = runbook_store_with(r, config);
	bool followed = false;
	doc_say(d, DOC_PART, "5. Protect the new machine", NULL);
	if (with)
		doc_say(d, DOC_TEXT, "Its configuration {1} came back with the store {2}.", config, with->name, NULL);
	else {
		doc_say(d, DOC_ALARM, "the configuration {1} is in no store. Put it back from where you keep it, or write it anew: the stores are above.", config,
		    NULL);
		runbook_add_gap(r, NULL, "the configuration file is in no store: a new machine will not have it");
	}
	doc_say(d, DOC_TEXT, "The node key went down with the machine. Replace it:", NULL);
	runbook_add_rotation(r);
	doc_say(d, DOC_TEXT, "The first backup of the new machine, and a look:", NULL);
	doc_command(d, DOC_COMMAND);
	runbook_add_own(r, "backup");
	doc_say(d, DOC_TEXT, "Backups by timer or cron must be set up again.", NULL);
	for (size_t i = 0; i < r->f.store_count; i++)
		followed |= r->f.stores[i].logged;
	if (followed) {
		doc_command(d, DOC_SYSTEM);
		doc_add(d, "systemctl start imvault-follow", NULL);
	}
	doc_command(d, DOC_COMMAND);
	runbook_add_own(r, "status");
}

static void codes(struct runbook *r)
{
	static const char *const lines[] = {
		"Exit 0: back, checked, in time. 10: back and checked, but late.",
		"Exit 3: a store is missing or older than it could be, or the log has a gap. The output names it.",
		"Exit 5: the key was refused: wrong passphrase, a node key, or another vault's. Try the second restore key.",
		"Exit 6: something in the vault is damaged. Everything else is back. See below, the vault is partly damaged.",
		"Exit 8: no space; it says how much is needed. 4: the vault is not mounted. 9: somebody uses the folder.",
		"Exit 11: a check found a difference. Do not start the server on that store; restore an older state beside it.",
		"Exit 1: often the data is back and only the command that starts the server failed. Start it by hand, read its log.",
	};
	doc_say(&r->doc, DOC_PART, "What the exit code of restore means", NULL);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		doc_say(&r->doc, DOC_ITEM, lines[i], NULL);
}

void runbook_machine_lost(struct runbook *r)
{
	const struct runbook_scenario *full = runbook_find(r, "machine_lost", NULL), *instant = runbook_find(r, "machine_lost_instant", NULL);
	doc_say(&r->doc, DOC_SCENE, "The machine is lost", NULL);
	doc_say(&r->doc, DOC_TEXT, "Its disk is gone, or nobody trusts it any more. Take another one with Debian 12.", NULL);
	runbook_say_forecast(r, "Forecast, everything back", full->has_forecast ? &full->forecast : NULL);
	runbook_say_proof(r, full);
	runbook_say_forecast(r, "Forecast of the fast way", instant->has_forecast ? &instant->forecast : NULL);
	runbook_say_proof(r, instant);
	prepare(r);
	look(r);
	bring_back(r);
	bring_back_at_once(r);
	protect(r);
	codes(r);
}
