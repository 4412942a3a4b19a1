/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects "runs/NODE/COMMAND/TIME-HASH": TIME in hexadecimal, so that names sort by age. Each record of a
 * verify also carries the damage that is still open, so that the newest few tell all there is to know.
 */
#include "vault/runlog.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/file.h"
#include "vault/record.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_MAX_BYTES = 64 << 10, RUNS_READ = 64, NAME_CHARS = 16 + 1 + 16, COMMAND_MAX_CHARS = 32 };
#define CLOCK_SLACK_MS (INT64_C(10) * 60000) /* so much two hosts may disagree */
#define EXIT_DAMAGE 6

struct name { /* of an object */
	char node[RUNLOG_TEXT_BYTES], command[COMMAND_MAX_CHARS + 1];
	int64_t time_ms;
	const char *hash; /* borrowed, 16 digits */
};

static void add_finding(struct runlog *l, const char *text)
{
	snprintf(l->finding, sizeof l->finding, "%s", text);
	l->finding_count++;
}

/* --- names --- */

static bool take_part(const char **at, char *ret, size_t size)
{
	size_t len = strcspn(*at, "/");
	if (len == 0 || len >= size || (*at)[len] != '/')
		return false;
	memcpy(ret, *at, len);
	ret[len] = '\0';
	*at += len + 1;
	return true;
}

static bool is_digits(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isdigit((unsigned char)text[i]) && (text[i] < 'a' || text[i] > 'f'))
			return false;
	return true;
}

static bool parse_name(const char *object, struct name *ret)
{
	const char *at = object;
	char top[8];
	if (!take_part(&at, top, sizeof top) || strcmp(top, "runs") != 0 || !take_part(&at, ret->node, sizeof ret->node) ||
	    !im_name_valid(ret->node) || !take_part(&at, ret->command, sizeof ret->command))
		return false;
	if (strlen(at) != NAME_CHARS || at[16] != '-' || !is_digits(at, 16) || !is_digits(at + 17, 16))
		return false;
	uint64_t time = strtoull(at, NULL, 16);
	ret->time_ms = (int64_t)time;
	ret->hash = at + 17;
	return time > 0 && time <= INT64_MAX;
}

static int check_name(const char *object, int64_t now_ms, struct name *ret, struct im_error *err)
{
	if (!parse_name(object, ret))
		return im_fail(err, IM_ECORRUPT, "%s is not the name of a run record", object);
	if (ret->time_ms > now_ms + CLOCK_SLACK_MS)
		return im_fail(err, IM_ECORRUPT, "%s is of the future: its host's clock was ahead, or this one is behind", object);
	return 0;
}

/* --- one record --- */

/* How far what it says counts. */
enum trust { TRUST_NONE, TRUST_DAMAGE /* its key was revoked: only what speaks against the vault */, TRUST_ALL };

static enum trust trust_in(const struct keyring *k, const uint8_t signer[8], const char *node)
{
	const struct key_entry *e = keyring_find(k, signer);
	if (!e || e->role == KEY_PRUNE)
		return TRUST_NONE;
	if (e->role == KEY_RESTORE)
		return e->active ? TRUST_ALL : TRUST_DAMAGE;
	if (e->active)
		return keyring_may_sign(k, signer, node, UINT64_MAX) ? TRUST_ALL : TRUST_NONE;
	return !e->node || strcmp(e->node, node) == 0 ? TRUST_DAMAGE : TRUST_NONE;
}

static int64_t number(const json_t *meta, const char *name, int64_t fallback)
{
	const json_t *value = json_object_get(meta, name);
	return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value) : fallback;
}

static bool is(const json_t *meta, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(meta, name));
	return value && strcmp(value, text) == 0;
}

static void take_text(char ret[RUNLOG_TEXT_BYTES], const json_t *meta, const char *name)
{
	const char *value = json_string_value(json_object_get(meta, name));
	snprintf(ret, RUNLOG_TEXT_BYTES, "%.*s", RUNLOG_TEXT_BYTES - 1, value ? value : "");
	for (char *p = ret; *p; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
}

static void take_meta(struct runlog_run *r, const json_t *m)
{
	int64_t percent = number(m, "read_percent", -1);
	*r = (struct runlog_run){ .time_ms = number(m, "time_ms", 0), .duration_ms = number(m, "duration_ms", 0),
		.exit_code = (int)(number(m, "exit_code", 1) & 0xff), .read_percent = percent > 100 ? -1 : (int)percent,
		.damaged = (uint64_t)number(m, "damaged", 0), .known_damage_ms = number(m, "known_damage_ms", 0),
		.known_by_restore_key = is(m, "known_damage_by", "restore") };
	if (r->known_damage_ms > r->time_ms)
		r->known_damage_ms = r->time_ms;
	take_text(r->host, m, "host");
	take_text(r->version, m, "version");
}

static int read_one(const struct vault *v, const char *object, const struct name *n, struct runlog_run *ret, enum trust *ret_trust,
    struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	struct record r = { 0 };
	char hex[65];
	int rc = storage_read_object(v->storage, object, RUN_MAX_BYTES, &data, err);
	if (rc == 0)
		rc = record_decode(v->keyring, RECORD_RUN, data.data, data.len, &r, err);
	if (rc)
		return rc == IM_EUNREACHABLE || rc == IM_ENOMEM ? rc : im_error_context(err, "%s", object);
	take_meta(ret, r.meta);
	ret->by_restore_key = keyring_find(v->keyring, r.signer)->role == KEY_RESTORE;
	*ret_trust = trust_in(v->keyring, r.signer, n->node);
	if (*ret_trust == TRUST_NONE)
		rc = im_fail(err, IM_ECORRUPT, "%s was not signed by a key that may write for node %s", object, n->node);
	else if (!is(r.meta, "node", n->node) || !is(r.meta, "command", n->command) || ret->time_ms != n->time_ms ||
	    strncmp(im_hex(hex, r.hash, 32), n->hash, 16) != 0)
		rc = im_fail(err, IM_ECORRUPT, "%s is not what its name says: it was renamed or moved", object);
	record_clear(&r);
	return rc;
}

int runlog_check(const struct vault *v, const char *object, int64_t now_ms, struct im_error *err)
{
	struct runlog_run run;
	enum trust trust;
	struct name n;
	int rc = check_name(object, now_ms, &n, err);
	return rc ? rc : read_one(v, object, &n, &run, &trust, err);
}

/* --- the newest --- */

struct reading {
	struct runlog *log;
	int64_t now_ms;
	char *objects[RUNS_READ]; /* the last ones, ascending */
	size_t count;
	struct runlog_run runs[RUNS_READ]; /* those that can be believed, from the newest back */
	enum trust trust[RUNS_READ];
	size_t run_count;
	int64_t clean_ms, clean_by_restore_ms;
};

static int keep_name(void *context, const char *object, uint64_t size_bytes)
{
	struct reading *r = context;
	struct name n;
	struct im_error why = { 0 };
	(void)size_bytes;
	if (check_name(object, r->now_ms, &n, &why)) {
		add_finding(r->log, why.text);
		return 0;
	}
	char *copy = strdup(object);
	if (!copy)
		return IM_ENOMEM;
	if (r->count == RUNS_READ) {
		free(r->objects[0]);
		memmove(r->objects, r->objects + 1, (RUNS_READ - 1) * sizeof *r->objects);
		r->count--;
	}
	r->objects[r->count++] = copy;
	return 0;
}

static bool is_complete(const struct runlog_run *run)
{
	return run->exit_code == 0 || run->exit_code == EXIT_DAMAGE;
}

static bool is_clean(const struct runlog_run *run)
{
	return is_complete(run) && run->read_percent == 100 && !run->damaged;
}

static void take_run(struct reading *r, const struct runlog_run *run, enum trust trust)
{
	r->trust[r->run_count] = trust;
	r->runs[r->run_count++] = *run;
	if (trust != TRUST_ALL)
		return;
	if (is_complete(run) && !r->log->known) {
		r->log->known = true;
		r->log->last = *run;
	}
	if (is_clean(run) && run->time_ms > r->clean_ms)
		r->clean_ms = run->time_ms;
	if (is_clean(run) && run->by_restore_key && run->time_ms > r->clean_by_restore_ms)
		r->clean_by_restore_ms = run->time_ms;
}

/* Back to where nothing older can matter. */
static int read_runs(const struct vault *v, struct reading *r, struct im_error *err)
{
	for (size_t i = r->count; i-- > 0 && !(r->log->known && r->clean_by_restore_ms);) {
		struct im_error why = { 0 };
		struct runlog_run run;
		enum trust trust;
		struct name n;
		parse_name(r->objects[i], &n);
		int rc = read_one(v, r->objects[i], &n, &run, &trust, &why);
		if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
			return im_fail(err, rc, "%s", why.text);
		if (rc == 0)
			take_run(r, &run, trust);
		else if (rc != IM_ENOTFOUND) /* removed just now */
			add_finding(r->log, why.text);
	}
	return 0;
}

/* Open is what was found after the last run that would have found it again. */
static void add_damage(struct reading *r, int64_t found_ms, bool by_restore_key)
{
	struct runlog *l = r->log;
	if (found_ms <= (by_restore_key ? r->clean_by_restore_ms : r->clean_ms))
		return;
	l->damage_by_restore_key |= by_restore_key;
	if (found_ms > l->damage_ms)
		l->damage_ms = found_ms;
}

static void judge(struct reading *r)
{
	for (size_t i = 0; i < r->run_count; i++) {
		const struct runlog_run *run = &r->runs[i];
		if (run->damaged)
			add_damage(r, run->time_ms, run->by_restore_key);
		if (run->known_damage_ms)
			add_damage(r, run->known_damage_ms, run->known_by_restore_key);
	}
	r->log->clean_ms = r->clean_ms;
}

int runlog_read(const struct vault *v, const char *node, const char *command, int64_t now_ms, struct runlog *ret, struct im_error *err)
{
	auto_free struct reading *r = calloc(1, sizeof *r);
	auto_free char *prefix = im_format("runs/%s/%s/", node, command);
	*ret = (struct runlog){ 0 };
	if (!r || !prefix)
		return im_fail(err, IM_ENOMEM, "out of memory");
	r->log = ret;
	r->now_ms = now_ms;
	int rc = storage_list(v->storage, prefix, keep_name, r, err);
	if (rc == 0)
		rc = read_runs(v, r, err);
	if (rc == 0)
		judge(r);
	for (size_t i = 0; i < r->count; i++)
		free(r->objects[i]);
	return rc == IM_ENOMEM ? im_fail(err, rc, "out of memory") : rc;
}

/* --- writing --- */

bool runlog_may_write(const struct vault *v, const char *node)
{
	return v->key && im_name_valid(node) && trust_in(v->keyring, v->key->id, node) == TRUST_ALL;
}

/* What was known before and this run did not disprove. */
static int carry_damage(const struct vault *v, const char *node, const char *command, const struct runlog_run *run, json_t *meta,
    struct im_error *err)
{
	struct runlog before;
	int rc = runlog_read(v, node, command, run->time_ms + run->duration_ms, &before, err);
	if (rc || !before.damage_ms)
		return rc;
	if (is_clean(run) && (v->key->role == KEY_RESTORE || !before.damage_by_restore_key))
		return 0;
	if (json_object_set_new(meta, "known_damage_ms", json_integer((json_int_t)before.damage_ms)) ||
	    json_object_set_new(meta, "known_damage_by", json_string(before.damage_by_restore_key ? "restore" : "node")))
		return im_fail(err, IM_ENOMEM, "out of memory");
	return 0;
}

static int put(const struct vault *v, const char *node, const char *command, int64_t time_ms, json_t *meta, char **ret_object,
    struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	uint8_t hash[32];
	char hex[65];
	int rc = record_encode(v->keyring, RECORD_RUN, meta, NULL, &data, hash, err);
	if (rc)
		return rc;
	auto_free char *object = im_format("runs/%s/%s/%016" PRIx64 "-%.16s", node, command, (uint64_t)time_ms, im_hex(hex, hash, sizeof hash));
	rc = object ? storage_put_object(v->storage, object, data.data, data.len, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && ret_object)
		*ret_object = TAKE_PTR(object);
	return rc;
}

int runlog_write(const struct vault *v, const char *node, const char *command, const struct runlog_run *run, char **ret_object,
    struct im_error *err)
{
	if (!runlog_may_write(v, node))
		return im_fail(err, IM_EKEY, "the key may not write for node %s", node);
	if (run->time_ms <= 0)
		return im_fail(err, IM_EFAIL, "the clock of this machine is before 1970");
	json_t *meta = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:i}", "node", node, "command", command, "time_ms", (json_int_t)run->time_ms,
	    "duration_ms", (json_int_t)run->duration_ms, "host", run->host, "version", run->version, "exit_code", run->exit_code);
	int rc = meta ? 0 : im_fail(err, IM_EFAIL, "the run cannot be described");
	if (rc == 0 && run->read_percent >= 0) {
		json_object_set_new(meta, "read_percent", json_integer(run->read_percent));
		json_object_set_new(meta, "damaged", json_integer((json_int_t)run->damaged));
		rc = carry_damage(v, node, command, run, meta, err);
	}
	if (rc == 0)
		rc = put(v, node, command, run->time_ms, meta, ret_object, err);
	json_decref(meta);
	return rc;
}
