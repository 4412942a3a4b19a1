/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE/NODE.COMMAND.run.json. One file per command, since a verify may end while a backup does. What
 * a killed run did is not known: it shows by its absence, as a snapshot that gets old.
 */
#include "cli/runs.h"

#include "backup/backup.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "cli/output.h"
#include "vault/runlog.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RUN_VERSION 1
#define RUN_MAX_BYTES (64u << 10)

static const char *const names[RUN_COUNT] = { "backup", "verify", "drill", "follow", "report" };

const char *runs_name(enum run_command command)
{
	return names[command];
}

char *runs_folder(const struct cli *cli)
{
	struct key_file *key = NULL;
	char *folder = NULL;
	if (cli->vault)
		return backup_state_folder(cli->config, cli->vault->id, &folder, NULL) ? NULL : folder;
	if (!session_key(cli) || key_file_load(session_key(cli), NULL, NULL, &key, NULL))
		return NULL;
	if (backup_state_folder(cli->config, key->vault_id, &folder, NULL))
		folder = NULL;
	key_file_free(key);
	return folder;
}

static char *file_of(const char *folder, const char *node, enum run_command command)
{
	return im_format("%s/%s.%s.run.json", folder, node, names[command]);
}

/* --- reading --- */

static int64_t number(const json_t *j, const char *name)
{
	int64_t value = json_integer_value(json_object_get(j, name));
	return value < 0 ? 0 : value;
}

static void decode(const json_t *j, struct run_record *ret)
{
	const char *error = json_string_value(json_object_get(j, "error"));
	*ret = (struct run_record){ .known = true, .began_ms = number(j, "began_ms"), .duration_ms = number(j, "duration_ms"),
		.exit_code = (int)(number(j, "exit_code") & 0xff), .success_ms = number(j, "success_ms"),
		.success_duration_ms = number(j, "success_duration_ms"), .damage_ms = number(j, "damage_ms"),
		.read_bytes = (uint64_t)number(j, "read_bytes"), .stored_bytes = (uint64_t)number(j, "stored_bytes"),
		.runs = (uint64_t)number(j, "runs"), .failures = (uint64_t)number(j, "failures"),
		.read_bytes_total = (uint64_t)number(j, "read_bytes_total"), .stored_bytes_total = (uint64_t)number(j, "stored_bytes_total") };
	snprintf(ret->error, sizeof ret->error, "%s", error ? error : "");
}

void runs_load(const char *folder, const char *node, enum run_command command, struct run_record *ret)
{
	auto_buf struct im_buf text = { 0 };
	auto_free char *path = file_of(folder, node, command);
	*ret = (struct run_record){ 0 };
	if (!path || im_file_read(path, RUN_MAX_BYTES, &text, NULL))
		return;
	json_t *j = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(j) && json_integer_value(json_object_get(j, "version")) == RUN_VERSION)
		decode(j, ret);
	json_decref(j);
}

int64_t runs_last_ms(const struct run_record *r)
{
	bool found_something = r->known && r->exit_code == 6 && r->began_ms > r->success_ms;
	return found_something ? r->began_ms : r->success_ms;
}

/* --- writing --- */

static json_t *encode(const struct run_record *r)
{
	json_t *j = json_pack("{s:i, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "version", RUN_VERSION,
	    "began_ms", (json_int_t)r->began_ms, "duration_ms", (json_int_t)r->duration_ms, "exit_code", r->exit_code,
	    "success_ms", (json_int_t)r->success_ms, "success_duration_ms", (json_int_t)r->success_duration_ms,
	    "damage_ms", (json_int_t)r->damage_ms, "read_bytes", (json_int_t)r->read_bytes, "stored_bytes", (json_int_t)r->stored_bytes,
	    "runs", (json_int_t)r->runs, "failures", (json_int_t)r->failures, "read_bytes_total", (json_int_t)r->read_bytes_total,
	    "stored_bytes_total", (json_int_t)r->stored_bytes_total);
	if (j)
		output_text(j, "error", r->error[0] ? r->error : NULL);
	return j;
}

/* What the answer says was moved; of the follower, store by store. */
static uint64_t moved(const json_t *answer, const char *name, const char *of_stores)
{
	size_t i;
	json_t *store;
	uint64_t sum = (uint64_t)number(answer, name);
	json_array_foreach(json_object_get(answer, "stores"), i, store)
		sum += of_stores ? (uint64_t)number(store, of_stores) : 0;
	return sum;
}

static void take_error(struct run_record *r, const char *text)
{
	snprintf(r->error, sizeof r->error, "%.*s", RUN_ERROR_BYTES - 1, text);
	for (char *p = r->error; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
}

static void add_run(struct run_record *r, const struct cli *cli, enum run_command command, int rc, const struct im_error *err)
{
	r->duration_ms = (im_monotonic_us() - cli->start_us) / 1000;
	r->began_ms = im_now_ms() - r->duration_ms;
	r->exit_code = im_exit_status(rc, im_interrupt_signal());
	take_error(r, rc ? err->text : "");
	r->read_bytes = moved(cli->json, "bytes_read", NULL);
	r->stored_bytes = moved(cli->json, "bytes_stored", command == RUN_FOLLOW ? "bytes_shipped" : NULL);
	r->read_bytes_total += r->read_bytes;
	r->stored_bytes_total += r->stored_bytes;
	r->runs++;
	r->failures += rc != 0;
	if (rc == 0) {
		r->success_ms = r->began_ms;
		r->success_duration_ms = r->duration_ms;
	}
	/* A share that is sound says nothing about the share that was not. */
	if (command == RUN_VERIFY && rc == IM_ECORRUPT)
		r->damage_ms = r->began_ms;
	else if (command == RUN_VERIFY && rc == 0 && cli->options.read_percent == 100)
		r->damage_ms = 0;
}

static int save(const char *path, const struct run_record *r, struct im_error *err)
{
	json_t *j = encode(r);
	auto_free char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	return text ? im_file_write(path, text, strlen(text), 0600, IM_FILE_REPLACE, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

static bool is_kept(const struct cli *cli, enum run_command *ret)
{
	for (int i = 0; cli->command && i < RUN_COUNT; i++)
		if (strcmp(cli->command, names[i]) == 0) {
			*ret = (enum run_command)i;
			return i != RUN_FOLLOW || cli->options.once;
		}
	return false;
}

void runs_record(const struct cli *cli, int rc, const struct im_error *err)
{
	enum run_command command;
	struct run_record r;
	struct im_error why = { 0 };
	const char *node = session_node(cli);
	if (!is_kept(cli, &command) || rc == IM_ELOCKED || !node || !im_name_valid(node))
		return;
	auto_free char *folder = runs_folder(cli);
	if (!folder || access(folder, F_OK))
		return;
	auto_free char *path = file_of(folder, node, command);
	runs_load(folder, node, command, &r);
	r.known = true;
	add_run(&r, cli, command, rc, err);
	if (!path || save(path, &r, &why))
		output_note(cli, "how this run ended could not be written down: %s", why.text);
}

/* --- the vault's --- */

void runs_tell_vault(const struct cli *cli, const char *node, int rc, int read_percent, uint64_t damaged)
{
	struct runlog_run run = { .duration_ms = (im_monotonic_us() - cli->start_us) / 1000, .exit_code = im_exit_status(rc, im_interrupt_signal()),
		.read_percent = read_percent, .damaged = damaged, .version = IMVAULT_VERSION };
	struct im_error why = { 0 };
	char *object = NULL;
	run.time_ms = im_now_ms() - run.duration_ms;
	gethostname(run.host, sizeof run.host - 1);
	if (!runlog_may_write(cli->vault, node))
		return;
	if (runlog_write(cli->vault, node, cli->command, &run, &object, &why)) {
		output_text(cli->json, "run_record_error", why.text);
		if (isatty(STDERR_FILENO))
			output_note(cli, "the vault keeps no record of this run: %s", why.text);
	} else {
		output_item(cli->json, "run_records", object);
	}
	free(object);
}
