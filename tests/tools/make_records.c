/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault-make-records: recovery records as 90 days of drills and a few incidents would have left
 * them, written into a real vault through vault/drills.h. Same seed, same story; the last drill passes.
 * With --hostile every text is one that would do harm in a page that trusted it.
 */
#include "make_rng.h"

#include "base/clock.h"
#include "vault/drills.h"
#include "vault/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS INT64_C(86400000)

/* Markup, attributes, script, a newline, an escape sequence, and letters that change the direction. */
static const char hostile[] = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\n\x1b[31m\xe2\x80\xae" "gpj.exe";

struct story {
	struct rng rng;
	bool hostile, ends_badly;
	int64_t now_ms, rto_ms, rpo_ms;
	char snapshot[64];
	uint64_t snapshot_seq;
};

struct outcome {
	const char *kind, *verdict, *reason, *chosen;
	bool instant, late_data; /* late_data: more was lost than may be */
	int exit_code;
	double slower; /* than usual */
};

static int give_up(const char *what, const struct im_error *err)
{
	fprintf(stderr, "imvault-make-records: %s: %s\n", what, err->text);
	return 1;
}

static json_t *text(const struct story *s, const char *plain)
{
	return json_string(s->hostile ? hostile : plain);
}

static double vary(struct story *s, double value)
{
	return value * (0.85 + 0.3 * rng_unit(&s->rng));
}

static void add_phase(json_t *phases, const char *name, double ms, double bytes, bool of_threads)
{
	json_t *phase = json_pack("{ss sI}", "name", name, "ms", (json_int_t)ms);
	if (bytes > 0)
		json_object_set_new(phase, "bytes", json_integer((json_int_t)bytes));
	if (of_threads)
		json_object_set_new(phase, "of_threads", json_true());
	json_array_append_new(phases, phase);
}

/* Returns the sum up to service ready; *ret_complete: up to the last byte. */
static double add_phases(struct story *s, json_t *meta, const struct outcome *o, double bytes, double *ret_complete)
{
	json_t *phases = json_array();
	double fetch = vary(s, bytes / 420e3) * o->slower, open = vary(s, 12), plan = vary(s, 18), sync = vary(s, 140) * o->slower;
	double check = vary(s, bytes / 400e3) * o->slower, start = vary(s, 310), ready;
	add_phase(phases, "open", open, 0, false);
	add_phase(phases, "plan", plan, 0, false);
	if (o->instant) {
		double prepare = vary(s, 60);
		add_phase(phases, "prepare", prepare, 0, false);
		add_phase(phases, "start", start, 0, false);
		ready = open + plan + prepare + start;
		add_phase(phases, "hydrate", fetch * 1.2, bytes, false);
		*ret_complete = ready + fetch * 1.2;
	} else {
		add_phase(phases, "fetch", fetch, bytes, false);
		add_phase(phases, "read", fetch * 0.1, bytes / 3, true);
		add_phase(phases, "decode", fetch * 0.7, bytes, true);
		add_phase(phases, "write", fetch * 1.5, bytes, true);
		add_phase(phases, "sync", sync, 0, false);
		add_phase(phases, "check", check, 0, false);
		add_phase(phases, "start", start, 0, false);
		*ret_complete = open + plan + fetch + sync + check;
		ready = *ret_complete + start;
	}
	json_object_set_new(meta, "phases", phases);
	return ready;
}

static json_t *check(const struct story *s, const char *store, const char *name, bool ok, const char *plain)
{
	json_t *row = json_pack("{so so sb so}", "store", text(s, store), "check", text(s, name), "ok", ok, "text", text(s, plain));
	return row;
}

static json_t *make_private(const struct story *s, const struct outcome *o)
{
	json_t *checks = json_array(), *part = json_object();
	bool different = strcmp(o->verdict, "different") == 0, failed = strcmp(o->verdict, "failed") == 0;
	json_array_append_new(checks, check(s, "archive", "integrity", true, "integrity_check: ok"));
	json_array_append_new(checks, check(s, "archive", "probes", true, "3 probes give what they gave in the snapshot"));
	json_array_append_new(checks, check(s, "archive", "messages", !different, different ?
	    "12 messages of alice@example.org with bob@example.org are gone that the drill before had counted" :
	    "48213 messages in 311 conversations; none is gone since the drill before"));
	json_array_append_new(checks, check(s, "uploads", "attachments", true, "1204 attachments are referred to and all are there"));
	json_object_set_new(part, "checks", checks);
	json_object_set_new(part, "surveys", json_object());
	if (failed)
		json_object_set_new(part, "error", text(s, "the command of --exec exited with 1: prosody: port 5222 is in use"));
	return part;
}

static json_t *make_stores(const struct story *s, const struct outcome *o, double bytes)
{
	bool different = strcmp(o->verdict, "different") == 0;
	return json_pack("[{so ss so si sI si sI}, {so ss ss si sI si sI}]", "name", text(s, "archive"), "type", "sqlite", "status",
	    text(s, different ? "different" : "ok"), "files", 1, "bytes", (json_int_t)(bytes * 0.85), "log_segments", 14, "log_bytes", (json_int_t)3100000,
	    "name", text(s, "uploads"), "type", "files", "status", "ok", "files", 1204, "bytes", (json_int_t)(bytes * 0.15), "log_segments", 0,
	    "log_bytes", (json_int_t)0);
}

static json_t *make_meta(struct story *s, const struct outcome *o, int64_t time_ms, double bytes)
{
	json_t *meta = json_object();
	double complete, ready = add_phases(s, meta, o, bytes, &complete), forecast = ready * (0.9 + 0.22 * rng_unit(&s->rng)) / o->slower;
	bool failed = strcmp(o->verdict, "failed") == 0, latest = strcmp(o->chosen, "latest") == 0;
	int64_t rpo_ms = latest ? (int64_t)vary(s, o->late_data ? 9000 : 700) : (int64_t)(rng_unit(&s->rng) * 20) * DAY_MS;
	json_t *fields = json_pack("{ss sI so so ss ss ss ss sI ss sI sI sI sI sI sb sb ss ss si si so}", "kind", o->kind, "time_ms", (json_int_t)time_ms,
	    "host", text(s, o->kind[0] == 'd' ? "drill-host-01" : "im-01"), "operator", text(s, o->kind[0] == 'd' ? "timer" : "mwang"), "version", "0.1.0",
	    "scenario", o->instant ? "instant" : "full", "mode", o->instant ? "blocks" : "ordinary", "snapshot", s->snapshot, "snapshot_seq",
	    (json_int_t)s->snapshot_seq, "chosen", o->chosen, "instant_reached_ms", (json_int_t)(time_ms - rpo_ms), "rpo_ms", (json_int_t)rpo_ms,
	    "rpo_target_ms", (json_int_t)s->rpo_ms, "rto_ms", (json_int_t)s->rto_ms, "data_complete_ms", (json_int_t)complete, "rto_met",
	    (int)(!failed && ready <= (double)s->rto_ms), "rpo_met", (int)(rpo_ms <= s->rpo_ms), "service", failed ? "failed" : "started",
	    "verdict", o->verdict, "exit_code", o->exit_code, "differences", strcmp(o->verdict, "different") == 0, "stores", make_stores(s, o, bytes));
	json_object_update(meta, fields);
	json_decref(fields);
	if (!failed)
		json_object_set_new(meta, "service_ready_ms", json_integer((json_int_t)ready));
	if (o->reason)
		json_object_set_new(meta, "reason", text(s, o->reason));
	json_object_set_new(meta, "forecast", json_pack("{sI sI}", "p50_ms", (json_int_t)forecast, "p95_ms", (json_int_t)(forecast * 1.35)));
	json_object_set_new(meta, "sizes", json_pack("{sI sI si si si sI sI si}", "write_bytes", (json_int_t)bytes, "read_bytes", (json_int_t)(bytes / 3),
	    "files", 1205, "packs", 5, "stores", 2, "database_bytes", (json_int_t)(bytes * 0.85), "log_bytes", (json_int_t)3100000, "log_segments", 14));
	json_object_set_new(meta, "machine", json_pack("{si sI sI sI}", "cpus", 2, "read_rate", (json_int_t)900000000, "decode_rate",
	    (json_int_t)330000000, "write_rate", (json_int_t)410000000));
	if (o->kind[0] == 'd')
		json_object_set_new(meta, "limits", json_pack("{si si}", "cpus", 1, "nice", 10));
	return meta;
}

/* What the n-th of count was like. */
static struct outcome outcome_of(const struct story *s, unsigned n, unsigned count)
{
	struct outcome o = { .kind = "drill", .verdict = "passed", .chosen = n % 6 == 4 ? "random" : "latest", .instant = n % 3 == 1,
		.late_data = n % 9 == 5, .slower = 1 };
	if (n + 1 == count && s->ends_badly)
		return (struct outcome){ .kind = "drill", .verdict = "damaged", .chosen = "latest", .exit_code = 6, .slower = 1 };
	if (n + 1 == count) {
		o.late_data = false;
		return o;
	}
	if (n == count / 4)
		o = (struct outcome){ .kind = "drill", .verdict = "missed", .chosen = "latest", .exit_code = 10, .slower = 2500 };
	else if (n == count / 2)
		o = (struct outcome){ .kind = "drill", .verdict = "different", .chosen = "latest", .exit_code = 11, .slower = 1 };
	else if (n == count * 5 / 8)
		o = (struct outcome){ .kind = "drill", .verdict = "failed", .chosen = "latest", .exit_code = 1, .slower = 1 };
	else if (n == count / 3)
		o = (struct outcome){ .kind = "restore", .verdict = "passed", .chosen = "latest", .slower = 3,
			.reason = "disk of im-01 failed at night; restored to the spare machine" };
	else if (n == count * 3 / 4)
		o = (struct outcome){ .kind = "restore", .verdict = "passed", .chosen = "asked", .instant = true, .slower = 1,
			.reason = "an administrator deleted the support room by mistake" };
	return o;
}

static int write_records(const struct vault *v, const char *node, struct story *s, unsigned count, struct im_error *err)
{
	int rc = 0;
	for (unsigned n = 0; n < count && rc == 0; n++) {
		struct outcome o = outcome_of(s, n, count);
		int64_t age_ms = (int64_t)(count - 1 - n) * 90 * DAY_MS / (count > 1 ? count - 1 : 1);
		int64_t time_ms = s->now_ms - age_ms - 2 * DAY_MS / 24 - (int64_t)rng_below(&s->rng, 3600000);
		json_t *meta = make_meta(s, &o, time_ms, 300e6 + 1.2e6 * n), *part = make_private(s, &o);
		rc = drills_append(v, node, meta, part, NULL, err);
		json_decref(meta);
		json_decref(part);
	}
	return rc;
}

/* The records name the vault's newest snapshot, if there is one. */
static void name_snapshot(const struct vault *v, const char *node, struct story *s)
{
	struct snapshot_list list = { 0 };
	struct im_error why = { 0 };
	if (snapshot_list(v->storage, node, &list, &why) == 0 && list.count) {
		s->snapshot_seq = list.items[list.count - 1].seq;
		snprintf(s->snapshot, sizeof s->snapshot, "%s", strrchr(list.items[list.count - 1].object, '/') + 1);
	}
	snapshot_list_clear(&list);
}

int main(int argc, char **argv)
{
	struct im_error err = { 0 };
	struct vault *v = NULL;
	if (argc < 5) {
		fprintf(stderr, "usage: imvault-make-records VAULT RESTORE-KEY NODE COUNT [hostile|bad]\n");
		return 2;
	}
	struct story s = { .now_ms = im_now_ms(), .rto_ms = 900000, .rpo_ms = 5000, .hostile = argc > 5 && strcmp(argv[5], "hostile") == 0,
		.ends_badly = argc > 5 && strcmp(argv[5], "bad") == 0 };
	rng_seed(&s.rng, 1);
	if (vault_open(argv[1], argv[2], NULL, NULL, 0, &v, &err))
		return give_up(argv[1], &err);
	name_snapshot(v, argv[3], &s);
	int rc = write_records(v, argv[3], &s, (unsigned)atoi(argv[4]), &err);
	vault_close(v);
	return rc ? give_up(argv[3], &err) : 0;
}
