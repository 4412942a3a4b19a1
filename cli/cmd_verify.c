/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault verify: is the vault sound, and if not, what exactly is harmed.
 */
#include "verify/verify.h"

#include "backup/backup.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/runs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const enum option_id options[] = { OPTION_READ, OPTION_END };

static const char help[] =
    "imvault verify: check the vault; name exactly what any damage harms.\n"
    "\n"
    "  imvault [-c FILE] verify [--read[=PERCENT]]\n"
    "  imvault verify --vault URL [--key FILE] [--node NAME] [--read[=PERCENT]]\n"
    "\n"
    "  (nothing)         every object is there and signed, chains are whole; logs too\n"
    "  --read            reads every byte and compares it with its hash\n"
    "  --read=10         reads a tenth, and goes on from there the next time\n"
    "\n"
    "Any key will do, or none; with a restore key every entry is decrypted too, and\n"
    "damage is named by page and path. Nothing is repaired, moved or deleted, and one\n"
    "damaged object does not stop the check of the others. With a key it leaves a\n"
    "signed record of the run in the vault, if that can be written: status reads it.\n"
    "Exit 6: damage was found. Copy the vault away before anything else.\n"
    "\n"
    "Examples:\n"
    "  imvault verify --read=10           nightly: everything within ten days\n"
    "  imvault verify --vault /mnt/im --key restore.key --read\n";

static void on_damage(void *context, const char *object, const char *problem)
{
	(void)context;
	output_problem("%s: %s", object, problem);
}

static void damage_json(json_t *row, const struct verify_damage *d)
{
	output_text(row, "object", d->object);
	output_text(row, "problem", d->problem);
	output_array(row, "snapshots");
	output_array(row, "stores");
	output_array(row, "paths");
	for (size_t i = 0; i < d->snapshot_count; i++)
		output_item(row, "snapshots", d->snapshots[i]);
	for (size_t i = 0; i < d->store_count; i++)
		output_item(row, "stores", d->stores[i]);
	for (size_t i = 0; i < d->path_count; i++)
		output_item(row, "paths", d->paths[i]);
}

static void result_json(json_t *j, const struct verify_result *r)
{
	output_integer(j, "snapshots", (int64_t)r->snapshots);
	output_integer(j, "packs", (int64_t)r->packs);
	output_integer(j, "fragments", (int64_t)r->fragments);
	output_integer(j, "segments", (int64_t)r->segments);
	output_integer(j, "runs", (int64_t)r->runs);
	output_integer(j, "log_bytes", (int64_t)r->log_bytes);
	output_integer(j, "packs_read", (int64_t)r->packs_read);
	output_integer(j, "bytes_read", (int64_t)r->bytes_read);
	output_integer(j, "bytes_total", (int64_t)r->bytes_total);
	output_integer(j, "entries_decoded", (int64_t)r->entries_decoded);
	output_integer(j, "unreferenced", (int64_t)r->unreferenced);
	output_integer(j, "duration_ms", r->duration_ms);
	output_array(j, "damaged");
	for (size_t i = 0; i < r->damaged_count; i++)
		damage_json(output_row(j, "damaged"), &r->damaged[i]);
	for (size_t i = 0; i < r->warning_count; i++)
		output_item(j, "warnings", r->warnings[i]);
}

#define PATHS_SHOWN 20

static void say_damage(const struct cli *cli, const struct verify_damage *d)
{
	output_line(cli, "damaged: %s: %s", d->object, d->problem);
	for (size_t i = 0; i < d->snapshot_count; i++)
		output_line(cli, "  harms snapshot %s", d->snapshots[i]);
	for (size_t i = 0; i < d->store_count; i++)
		output_line(cli, "  harms store %s", d->stores[i]);
	for (size_t i = 0; i < d->path_count && i < PATHS_SHOWN; i++)
		output_line(cli, "    %s", d->paths[i]);
	if (d->path_count > PATHS_SHOWN)
		output_line(cli, "    and %zu more (--json names all)", d->path_count - PATHS_SHOWN);
	if (!d->snapshot_count && !d->store_count)
		output_line(cli, "  no snapshot needs it");
}

static void say(const struct cli *cli, const struct verify_result *r, int rc)
{
	char read[24], total[24], took[40];
	for (size_t i = 0; i < r->warning_count; i++)
		output_problem("%s", r->warnings[i]);
	for (size_t i = 0; i < r->damaged_count; i++)
		say_damage(cli, &r->damaged[i]);
	/* For cron: silent when all is well and nobody watches. */
	if (rc && rc != IM_ECORRUPT)
		return;
	if (rc == 0 && !isatty(STDOUT_FILENO))
		return;
	output_line(cli, "%s  %" PRIu64 " snapshots, %" PRIu64 " packs, %" PRIu64 " index objects, %" PRIu64 " log segments; read %s of %s in %s%s",
	    rc ? "DAMAGED" : "SOUND", r->snapshots, r->packs, r->fragments, r->segments, im_bytes_format(read, sizeof read, r->bytes_read),
	    im_bytes_format(total, sizeof total, r->bytes_total), im_duration_format(took, sizeof took, r->duration_ms),
	    r->entries_decoded ? ", every entry decrypted" : "");
}

/* --- the record of the run --- */

/* "snapshots/NODE/…", "drills/NODE", "NODE/…": is it this node's? */
static bool is_of(const char *text, const char *node)
{
	size_t len = strlen(node);
	return strncmp(text, node, len) == 0 && (text[len] == '/' || !text[len]);
}

/* Of packs that no snapshot names nobody knows whose they are: they count for all. */
static bool harms(const struct verify_damage *d, const char *node)
{
	const char *slash = strchr(d->object, '/');
	for (size_t i = 0; i < d->snapshot_count; i++)
		if (is_of(d->snapshots[i], node))
			return true;
	for (size_t i = 0; i < d->store_count; i++)
		if (is_of(d->stores[i], node))
			return true;
	if (d->snapshot_count || d->store_count)
		return false;
	return !slash || strncmp(d->object, "packs/", 6) == 0 || is_of(slash + 1, node);
}

struct telling {
	const struct cli *cli;
	const struct verify_result *result;
	int rc;
};

static int tell_node(const struct telling *t, const char *node)
{
	uint64_t damaged = 0;
	for (size_t i = 0; i < t->result->damaged_count; i++)
		damaged += harms(&t->result->damaged[i], node);
	runs_tell_vault(t->cli, node, t->rc, (int)t->cli->options.read_percent, damaged);
	return 0;
}

static int tell_folder(void *context, const char *name, uint64_t size_bytes)
{
	const char *node = strchr(name, '/') + 1;
	char copy[65];
	(void)size_bytes;
	size_t len = strcspn(node, "/");
	if (len >= sizeof copy)
		return 0;
	snprintf(copy, sizeof copy, "%.*s", (int)len, node);
	return tell_node(context, copy);
}

/* A node's own timer speaks for that node, though it checks the whole vault; who names none speaks for all. A run that could not
 * check says nothing. */
static void tell_vault(const struct cli *cli, const struct verify_result *r, int rc)
{
	const struct key_file *key = cli->vault->key;
	const struct telling t = { cli, r, rc };
	const char *node = session_node(cli) ? session_node(cli) : key ? key->node : NULL;
	if (!key || rc == IM_EINTERRUPTED || rc == IM_EUNREACHABLE || rc == IM_EUSAGE || rc == IM_EKEY || rc == IM_ENOTFOUND)
		return;
	if (node)
		tell_node(&t, node);
	else
		storage_list_folders(cli->vault->storage, "snapshots/", tell_folder, (void *)&t, NULL);
}

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	const struct verify_events events = { progress_on_phase, progress_on_bytes, o->quiet ? on_damage : NULL, cli };
	struct verify_result result;
	auto_free char *state = NULL;
	int rc = session_open(cli, SESSION_KEYLESS_TOO, err);
	if (rc)
		return rc;
	/* Where the next share begins is remembered on a node; elsewhere there may be no place for it. */
	if (o->read_percent && o->read_percent < 100 &&
	    (backup_state_folder(cli->config, cli->vault->id, &state, NULL) || im_mkdirs(state, 0700, NULL)))
		output_note(cli, "no folder for the local state: reading begins at the start of the vault every time");
	const struct verify_request request = {
		.vault = cli->vault, .node = o->node, .read_percent = o->read_percent, .state_dir = state, .events = &events,
	};
	progress_begin(!o->quiet, 0);
	rc = verify_run(&request, &result, err);
	progress_hide();
	result_json(cli->json, &result);
	say(cli, &result, rc);
	tell_vault(cli, &result, rc);
	verify_result_clear(&result);
	return rc;
}

const struct command cmd_verify = { "verify", "check the vault", help, options, 0, run };
