/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was already said: STATE/NODE.alerts.json, replaced whole under a lock that is held for
 * milliseconds, never while something is sent. Who is about to send writes down that he is (claimed_ms)
 * and afterwards that he has (sent_ms): if he dies between, it is sent again, twice rather than never.
 */
#include "cli/alert_internal.h"

#include "backup/backup.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/lock.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY_VERSION 1
#define MEMORY_MAX_BYTES (4u << 20)
#define MEMORY_MAX_ROWS 500
#define CLAIM_MS (5 * 60000)
#define LOCK_WAIT_MS 5000

struct alert_memory {
	const struct alert_origin *origin;
	json_t *root;
	char *path;
	int lock_fd;
	bool changed;
};

/* --- the file --- */

static int take_lock(const char *path, int *ret_fd, struct im_error *err)
{
	for (int64_t until = im_monotonic_ms() + LOCK_WAIT_MS;;) {
		struct im_error why = { 0 };
		int rc = im_lock_take(path, "remembering alerts", ret_fd, &why);
		if (rc != IM_ELOCKED || im_monotonic_ms() >= until)
			return rc ? im_fail(err, rc, "%s", why.text) : 0;
		im_sleep_ms(20);
	}
}

/* A file that is damaged or of another version is as good as none: at worst something is said twice. */
static json_t *read_root(const char *path)
{
	auto_buf struct im_buf text = { 0 };
	json_t *root = im_file_read(path, MEMORY_MAX_BYTES, &text, NULL) ? NULL :
	    json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (json_integer_value(json_object_get(root, "version")) == MEMORY_VERSION && json_is_array(json_object_get(root, "open")) &&
	    json_is_object(json_object_get(root, "refused")))
		return root;
	json_decref(root);
	return json_pack("{s:i, s:[], s:{}}", "version", MEMORY_VERSION, "open", "refused");
}

int alert_memory_open(const struct alert_origin *o, struct alert_memory **ret, struct im_error *err)
{
	auto_free char *base = NULL, *lock = NULL;
	struct alert_memory *m = calloc(1, sizeof *m);
	if (!m)
		return im_fail(err, IM_ENOMEM, "out of memory");
	m->origin = o;
	m->lock_fd = -1;
	int rc = backup_state_base(o->config, &base, err);
	if (rc == 0)
		rc = im_mkdirs(base, 0700, err);
	if (rc == 0) {
		m->path = im_format("%s/%s.alerts.json", base, o->node);
		lock = im_format("%s/%s.alerts.lock", base, o->node);
		rc = m->path && lock ? take_lock(lock, &m->lock_fd, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (rc == 0 && !(m->root = read_root(m->path)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		alert_memory_abandon(m);
	else
		*ret = m;
	return rc;
}

void alert_memory_abandon(struct alert_memory *m)
{
	if (!m)
		return;
	if (m->lock_fd >= 0)
		close(m->lock_fd);
	json_decref(m->root);
	free(m->path);
	free(m);
}

int alert_memory_close(struct alert_memory *m, struct im_error *err)
{
	auto_free char *text = m->changed ? json_dumps(m->root, JSON_INDENT(1)) : NULL;
	int rc = !m->changed ? 0 : text ? im_file_write(m->path, text, strlen(text), 0600, IM_FILE_REPLACE, err) : im_fail(err, IM_ENOMEM, "out of memory");
	alert_memory_abandon(m);
	return rc;
}

/* --- rows --- */

static json_t *rows(const struct alert_memory *m)
{
	return json_object_get(m->root, "open");
}

const json_t *alert_memory_rows(const struct alert_memory *m)
{
	return rows(m);
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));
	return text ? text : "";
}

static int64_t number_of(const json_t *row, const char *key)
{
	return json_integer_value(json_object_get(row, key));
}

static void set_number(struct alert_memory *m, json_t *row, const char *key, int64_t value)
{
	json_object_set_new(row, key, json_integer(value));
	m->changed = true;
}

/* Whoever notices that the vault is away: it is one thing. All else is a matter between a command and itself. */
static bool is_mine(const struct alert_memory *m, const json_t *row)
{
	const char *vault = m->origin->vault ? m->origin->vault : "";
	bool shared = strcmp(text_of(row, "kind"), alert_kind_name(ALERT_VAULT)) == 0;
	return strcmp(text_of(row, "vault"), vault) == 0 && (shared || strcmp(text_of(row, "command"), m->origin->command) == 0);
}

static bool is_row_of(const struct alert_memory *m, const json_t *row, const struct alert *a)
{
	return is_mine(m, row) && strcmp(text_of(row, "kind"), alert_kind_name(a->kind)) == 0 && strcmp(text_of(row, "store"), a->store) == 0 &&
	    strcmp(text_of(row, "about"), a->about) == 0;
}

static json_t *find(const struct alert_memory *m, const struct alert *a, size_t *ret_index)
{
	size_t i;
	json_t *row;
	json_array_foreach(rows(m), i, row)
		if (is_row_of(m, row, a)) {
			*ret_index = i;
			return row;
		}
	return NULL;
}

static json_t *begin_row(struct alert_memory *m, const struct alert *a, int64_t now_ms)
{
	while (json_array_size(rows(m)) >= MEMORY_MAX_ROWS)
		json_array_remove(rows(m), 0);
	json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "kind", alert_kind_name(a->kind), "store", a->store, "about", a->about,
	    "vault", m->origin->vault ? m->origin->vault : "", "command", m->origin->command, "since_ms", (json_int_t)now_ms, "sent_ms",
	    (json_int_t)0, "proof", a->proof);
	if (!row || json_array_append_new(rows(m), row))
		return NULL;
	m->changed = true;
	return row;
}

static bool is_claimed(const json_t *row, int64_t now_ms)
{
	int64_t since_ms = now_ms - number_of(row, "claimed_ms");
	return json_object_get(row, "claimed_ms") && since_ms >= 0 && since_ms < CLAIM_MS;
}

static bool is_due(const json_t *row, const struct alert *a, int64_t now_ms, int64_t repeat_ms)
{
	int64_t sent_ms = number_of(row, "sent_ms");
	return !sent_ms || strcmp(text_of(row, "severity"), alert_severity_name(a->severity)) != 0 || now_ms < sent_ms || now_ms - sent_ms >= repeat_ms;
}

void alert_memory_claim(struct alert_memory *m, struct alert *a, int64_t now_ms, int64_t repeat_ms)
{
	size_t index;
	json_t *row = find(m, a, &index);
	if (!row && !(row = begin_row(m, a, now_ms))) {
		a->claimed = true; /* without memory it is better said twice than not at all */
		return;
	}
	a->since_ms = number_of(row, "since_ms");
	if (a->proof > number_of(row, "proof"))
		set_number(m, row, "proof", a->proof);
	a->claimed = !is_claimed(row, now_ms) && is_due(row, a, now_ms, repeat_ms);
	if (a->claimed) {
		json_object_set_new(row, "text", json_string(a->text));
		set_number(m, row, "claimed_ms", now_ms);
	}
}

static bool is_among(const struct alert_memory *m, const json_t *row, const struct alert_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		if (is_row_of(m, row, &l->items[i]))
			return true;
	return false;
}

static void resolve(struct alert_memory *m, json_t *row, enum alert_kind kind, int64_t now_ms, struct alert_list *ret)
{
	char lasted[40];
	auto_free char *text = im_format("it is over after %s: %s", im_duration_format(lasted, sizeof lasted, now_ms - number_of(row, "since_ms")),
	    text_of(row, "text"));
	char *about = strdup(text_of(row, "about"));
	struct alert *a = text && about ? alert_add(ret, kind, ALERT_RESOLVED, text_of(row, "store"), text) : NULL;
	if (!a) {
		free(about);
		return;
	}
	free(a->about);
	a->about = about;
	a->since_ms = number_of(row, "since_ms");
	a->claimed = true;
	set_number(m, row, "claimed_ms", now_ms);
}

void alert_memory_settle(struct alert_memory *m, const struct alert_list *raised, alert_settles_fn *settles, void *context, int64_t now_ms,
    struct alert_list *ret)
{
	for (size_t i = json_array_size(rows(m)); i-- > 0;) {
		json_t *row = json_array_get(rows(m), i);
		struct alert_known known = { .store = text_of(row, "store"), .command = text_of(row, "command"), .proof = (int)number_of(row, "proof") };
		if (!alert_kind_parse(text_of(row, "kind"), &known.kind)) {
			json_array_remove(rows(m), i); /* of a later version */
			m->changed = true;
		} else if (is_mine(m, row) && !is_claimed(row, now_ms) && !is_among(m, row, raised) && settles(context, &known)) {
			if (number_of(row, "sent_ms")) {
				resolve(m, row, known.kind, now_ms, ret);
			} else {
				json_array_remove(rows(m), i); /* nobody has heard of it */
				m->changed = true;
			}
		}
	}
}

void alert_memory_sent(struct alert_memory *m, const struct alert *a, bool heard, int64_t now_ms)
{
	size_t index;
	json_t *row = find(m, a, &index);
	if (!row)
		return;
	m->changed = true;
	json_object_del(row, "claimed_ms");
	if (heard && a->severity == ALERT_RESOLVED) {
		json_array_remove(rows(m), index);
	} else if (heard) {
		json_object_set_new(row, "severity", json_string(alert_severity_name(a->severity)));
		set_number(m, row, "sent_ms", now_ms);
	}
}

int alert_memory_refused(struct alert_memory *m, bool refused)
{
	json_t *counts = json_object_get(m->root, "refused");
	int64_t count = json_integer_value(json_object_get(counts, m->origin->command));
	if (!refused && !count)
		return 0;
	count = refused ? count + 1 : 0;
	set_number(m, counts, m->origin->command, count);
	return (int)(count < 1000 ? count : 1000);
}
