/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forecast: sizes from a real snapshot, a probe that leaves nothing behind, and what it learns from
 * histories whose truth is known. No figure here depends on how fast this machine is.
 */
#include "../fault/world.h"
#include "fixture.h"
#include "log_forge.h"

#include "base/file.h"
#include "verify/forecast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MB 1000000.0
#define T0 INT64_C(1700000000000)

/* --- histories --- */

struct rig {
	struct fixture f;
	struct drill_list history;
	struct im_error err;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	drill_list_clear(&r->history);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static const struct forecast_machine usual = { .cpus = 2, .read_rate = 500 * MB, .decode_rate = 600 * MB, .write_rate = 400 * MB };

struct recovery {
	const char *scenario, *verdict;
	double mb, factor;   /* factor: how much slower than it always is */
	int64_t start_ms;    /* of the service; 0: none was started */
	int64_t foretold_ms; /* 0: nobody did */
	const struct forecast_machine *machine;
	const char *host;    /* NULL: this one */
};

static struct forecast_sizes sizes_of(double mb)
{
	return (struct forecast_sizes){ .write_bytes = (uint64_t)(mb * MB), .read_bytes = (uint64_t)(mb * MB / 3), .files = 1, .packs = 10, .stores = 1,
		.database_bytes = (uint64_t)(mb * MB) };
}

/* What a recovery takes on the machine of these tests: no formula of the model's. */
static double truth_ms(double mb, double factor)
{
	return 60 + (3.1 * mb + 1.9 * mb) * factor;
}

static json_t *phase(const char *name, double ms)
{
	return json_pack("{s:s, s:I, s:i}", "name", name, "ms", (json_int_t)ms, "bytes", 0);
}

static json_t *meta_of(const struct recovery *c)
{
	const struct forecast_sizes sizes = sizes_of(c->mb);
	double complete = truth_ms(c->mb, c->factor), ready = complete + (double)c->start_ms;
	char here[256] = "";
	gethostname(here, sizeof here - 1);
	const char *host = c->host ? c->host : here;
	json_t *m = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:[o, o, o, o, o], s:o, s:o}", "kind", "drill", "host", host, "scenario", c->scenario,
	    "mode", strcmp(c->scenario, "full") == 0 ? "ordinary" : "blocks", "time_ms", (json_int_t)T0, "service_ready_ms", (json_int_t)ready,
	    "data_complete_ms", (json_int_t)complete, "verdict", c->verdict, "phases", phase("open", 20), phase("plan", 20),
	    phase("fetch", 3.1 * c->mb * c->factor), phase("sync", 20), phase("check", 1.9 * c->mb * c->factor), "sizes", forecast_sizes_json(&sizes),
	    "machine", forecast_machine_json(c->machine ? c->machine : &usual));
	assert_non_null(m);
	if (c->start_ms)
		json_array_append_new(json_object_get(m, "phases"), phase("start", (double)c->start_ms));
	if (c->foretold_ms)
		json_object_set_new(m, "forecast", json_pack("{s:I, s:I}", "p50_ms", (json_int_t)c->foretold_ms, "p95_ms", (json_int_t)(2 * c->foretold_ms)));
	return m;
}

static void append(struct rig *r, json_t *meta)
{
	json_t *own = json_object();
	assert_ok(drills_append(r->f.restore, "im-01", meta, own, NULL, &r->err), &r->err);
	json_decref(meta);
	json_decref(own);
}

static void happened(struct rig *r, struct recovery c)
{
	c.scenario = c.scenario ? c.scenario : "full";
	c.verdict = c.verdict ? c.verdict : "passed";
	append(r, meta_of(&c));
}

static struct forecast ask_of(struct rig *r, enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine)
{
	struct forecast ret;
	drill_list_clear(&r->history);
	assert_ok(drills_read(r->f.restore, "im-01", &r->history, &r->err), &r->err);
	assert_int_equal(r->history.finding_count, 0);
	forecast_make(scenario, sizes, machine, &r->history, &ret);
	assert_true(ret.ready_p50_ms > 0 && ret.complete_p50_ms > 0);
	assert_true(ret.ready_p95_ms > ret.ready_p50_ms && ret.complete_p95_ms > ret.complete_p50_ms);
	return ret;
}

static struct forecast ask(struct rig *r, enum forecast_scenario scenario, double mb, const struct forecast_machine *machine)
{
	const struct forecast_sizes sizes = sizes_of(mb);
	return ask_of(r, scenario, &sizes, machine);
}

static void assert_within(int64_t got, double wanted, double percent)
{
	if ((double)got < wanted * (1 - percent / 100) || (double)got > wanted * (1 + percent / 100))
		fail_msg("%lld is not within %.0f %% of %.0f", (long long)got, percent, wanted);
}

static void make__without_a_history_goes_by_sizes_and_probe(void **state)
{
	struct rig *r = *state;
	const struct forecast_machine slow = { .cpus = 2, .read_rate = 50 * MB, .decode_rate = 60 * MB, .write_rate = 40 * MB }, blind = { .cpus = 1 };
	struct forecast f = ask(r, FORECAST_FULL, 1000, &usual);
	assert_int_equal(f.learned_from, 0);
	assert_true(f.error_percent < 0);
	assert_true(ask(r, FORECAST_FULL, 2000, &usual).ready_p50_ms > f.ready_p50_ms * 3 / 2);
	assert_true(ask(r, FORECAST_FULL, 1000, &slow).ready_p50_ms > 3 * f.ready_p50_ms);
	assert_true(ask(r, FORECAST_FULL, 1000, &blind).ready_p50_ms > f.ready_p50_ms / 2);
	assert_true(ask(r, FORECAST_INSTANT, 1000, &usual).ready_p50_ms < f.ready_p50_ms / 2);
	assert_true(ask(r, FORECAST_INSTANT, 1000, &usual).complete_p50_ms > f.ready_p50_ms / 4);
	assert_true(ask(r, FORECAST_FULL, 0, &usual).ready_p50_ms < 1000);
}

static void make__comes_to_the_truth_and_grows_sure_of_it(void **state)
{
	struct rig *r = *state;
	struct forecast before = ask(r, FORECAST_FULL, 1000, &usual);
	for (int i = 0; i < 12; i++)
		happened(r, (struct recovery){ .mb = 800 + 30 * i, .factor = 0.97 + 0.01 * (i % 7) });
	struct forecast after = ask(r, FORECAST_FULL, 1000, &usual);
	assert_within(after.ready_p50_ms, truth_ms(1000, 1), 5);
	assert_within(ask(r, FORECAST_FULL, 2000, &usual).ready_p50_ms, truth_ms(2000, 1), 15);
	assert_within(ask(r, FORECAST_FULL, 400, &usual).ready_p50_ms, truth_ms(400, 1), 15);
	assert_int_equal(after.learned_from, 12);
	assert_true((double)after.ready_p95_ms / (double)after.ready_p50_ms < (double)before.ready_p95_ms / (double)before.ready_p50_ms);
	assert_true(after.ready_p95_ms < after.ready_p50_ms * 8 / 5);
}

static void make__learns_from_the_first(void **state)
{
	struct rig *r = *state;
	happened(r, (struct recovery){ .mb = 1000, .factor = 3 });
	assert_within(ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms, truth_ms(1000, 3), 35);
	happened(r, (struct recovery){ .mb = 1000, .factor = 3 });
	assert_within(ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms, truth_ms(1000, 3), 20);
}

static void make__is_not_led_astray_by_one(void **state)
{
	struct rig *r = *state;
	for (int i = 0; i < 8; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	happened(r, (struct recovery){ .mb = 1000, .factor = 10 });
	struct forecast f = ask(r, FORECAST_FULL, 1000, &usual);
	assert_within(f.ready_p50_ms, truth_ms(1000, 1), 10);
	for (int i = 0; i < 8; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 2 });
	assert_within(ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms, truth_ms(1000, 2), 20); /* but by many */
}

static void make__p95_knows_of_past_errors(void **state)
{
	struct rig *r = *state;
	struct forecast steady;
	for (int i = 0; i < 10; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	steady = ask(r, FORECAST_FULL, 1000, &usual);
	for (int i = 0; i < 10; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = i % 2 ? 2 : 1 });
	struct forecast shaky = ask(r, FORECAST_FULL, 1000, &usual);
	assert_true((double)shaky.ready_p95_ms / (double)shaky.ready_p50_ms > (double)steady.ready_p95_ms / (double)steady.ready_p50_ms);
	assert_true((double)shaky.ready_p95_ms >= 0.95 * truth_ms(1000, 2));
}

static void make__a_machine_half_as_fast_takes_twice_as_long(void **state)
{
	struct rig *r = *state;
	const struct forecast_machine half = { .cpus = 2, .read_rate = 250 * MB, .decode_rate = 300 * MB, .write_rate = 200 * MB };
	for (int i = 0; i < 8; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1, .host = "elsewhere.example.org" });
	double fast = (double)ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms;
	assert_within(fast, truth_ms(1000, 1), 25);
	assert_within(ask(r, FORECAST_FULL, 1000, &half).ready_p50_ms, 2 * fast, 25);
}

static void make__does_not_believe_one_probe_against_many(void **state)
{
	struct rig *r = *state;
	const struct forecast_machine half = { .cpus = 2, .read_rate = 250 * MB, .decode_rate = 300 * MB, .write_rate = 200 * MB };
	for (int i = 0; i < 8; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	double fast = (double)ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms, slow = (double)ask(r, FORECAST_FULL, 1000, &half).ready_p50_ms;
	assert_true(slow > 1.2 * fast && slow < 1.7 * fast);
}

static void make__what_no_probe_measured_is_as_it_was(void **state)
{
	struct rig *r = *state;
	const struct forecast_machine blind = { .cpus = 2 };
	for (int i = 0; i < 8; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	assert_within(ask(r, FORECAST_FULL, 1000, &blind).ready_p50_ms, truth_ms(1000, 1), 8);
}

static void make__only_what_came_back_whole_teaches(void **state)
{
	struct rig *r = *state;
	static const char *const verdicts[] = { "damaged", "partial", "failed", "interrupted", "", "Passed" };
	for (int i = 0; i < 4; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	int64_t before = ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms;
	for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 20, .verdict = verdicts[i] });
	struct forecast f = ask(r, FORECAST_FULL, 1000, &usual);
	assert_int_equal(f.ready_p50_ms, before);
	assert_int_equal(f.learned_from, 4);
	happened(r, (struct recovery){ .mb = 1000, .factor = 1, .verdict = "missed" });
	happened(r, (struct recovery){ .mb = 1000, .factor = 1, .verdict = "different" });
	assert_int_equal(ask(r, FORECAST_FULL, 1000, &usual).learned_from, 6);
}

static void make__the_service_belongs_to_ready_alone(void **state)
{
	struct rig *r = *state;
	for (int i = 0; i < 5; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1, .start_ms = 3000 });
	struct forecast f = ask(r, FORECAST_FULL, 1000, &usual);
	assert_within(f.ready_p50_ms, truth_ms(1000, 1) + 3000, 8);
	assert_within(f.complete_p50_ms, truth_ms(1000, 1), 8);
}

static void make__tells_its_own_error(void **state)
{
	struct rig *r = *state;
	happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	assert_true(ask(r, FORECAST_FULL, 1000, &usual).error_percent < 0);
	for (int i = 1; i <= 3; i++) /* wrong by 10, 20 and 30 % */
		happened(r, (struct recovery){ .mb = 1000, .factor = 1, .foretold_ms = (int64_t)(truth_ms(1000, 1) * (1 + 0.1 * i)) });
	double error = ask(r, FORECAST_FULL, 1000, &usual).error_percent;
	assert_true(error > 19 && error < 21);
	assert_true(ask(r, FORECAST_INSTANT, 1000, &usual).error_percent < 0);
}

static void make__a_full_restore_says_little_of_an_instant_one(void **state)
{
	struct rig *r = *state;
	int64_t before = ask(r, FORECAST_INSTANT, 1000, &usual).ready_p50_ms;
	for (int i = 0; i < 6; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 5 });
	assert_within(ask(r, FORECAST_INSTANT, 1000, &usual).ready_p50_ms, (double)before, 50);
}

/* Before any was started it is a guess; afterwards what it took. */
static void make__expects_the_service_that_will_be_started(void **state)
{
	struct rig *r = *state;
	struct forecast_sizes z = sizes_of(1000);
	int64_t without = ask_of(r, FORECAST_FULL, &z, &usual).ready_p50_ms;
	z.service = true;
	int64_t guess = ask_of(r, FORECAST_FULL, &z, &usual).ready_p50_ms - without;
	assert_true(guess >= 100 && guess <= 2000);
	for (int i = 0; i < 3; i++) {
		json_t *m = meta_of(&(struct recovery){ .mb = 1000, .factor = 1, .scenario = "full", .verdict = "passed" });
		json_array_append_new(json_object_get(m, "phases"), phase("start", 5000));
		json_object_set_new(m, "service_ready_ms", json_integer(json_integer_value(json_object_get(m, "service_ready_ms")) + 5000));
		append(r, m);
	}
	int64_t expected = (int64_t)truth_ms(1000, 1) + 5000;
	assert_within(ask_of(r, FORECAST_FULL, &z, &usual).ready_p50_ms, (double)expected, 10);
	z.service = false; /* nobody said, but the last recovery started one */
	assert_within(ask_of(r, FORECAST_FULL, &z, &usual).ready_p50_ms, (double)expected, 10);
}

static void make__knows_the_number_of_files_from_the_last_recovery(void **state)
{
	struct rig *r = *state;
	struct forecast_sizes many = { .write_bytes = (uint64_t)(500 * MB), .read_bytes = (uint64_t)(500 * MB), .stores = 1, .packs = 8 };
	int64_t without = ask_of(r, FORECAST_FULL, &many, &usual).ready_p50_ms;
	json_t *m = meta_of(&(struct recovery){ .mb = 500, .factor = 1, .scenario = "instant", .verdict = "passed" });
	json_object_set_new(json_object_get(m, "sizes"), "files", json_integer(100000));
	append(r, m);
	assert_true(ask_of(r, FORECAST_FULL, &many, &usual).ready_p50_ms > without + 2000);
}

/* --- what nobody should write, but could --- */

static void spoil(struct rig *r, const char *field, json_t *value)
{
	json_t *m = meta_of(&(struct recovery){ .mb = 1000, .factor = 1, .scenario = "full", .verdict = "passed" });
	json_object_set_new(m, field, value);
	append(r, m);
}

static void make__survives_any_figures(void **state)
{
	struct rig *r = *state;
	static const char *const fields[] = { "phases", "sizes", "machine", "limits", "stores", "forecast", "service_ready_ms", "data_complete_ms", "scenario", "mode", "host" };
	for (int i = 0; i < 3; i++)
		happened(r, (struct recovery){ .mb = 1000, .factor = 1 });
	int64_t sane = ask(r, FORECAST_FULL, 1000, &usual).ready_p50_ms;
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		spoil(r, fields[i], json_integer(-5));
		spoil(r, fields[i], json_integer(INT64_MAX));
		spoil(r, fields[i], json_string("many"));
		spoil(r, fields[i], json_pack("[n, {s:n}, [], {s:s, s:I}, {s:s, s:I}]", "name", "name", "fetch", "ms", (json_int_t)INT64_MAX, "name", "check", "ms", (json_int_t)-1));
		spoil(r, fields[i], json_pack("{s:I, s:I, s:I, s:I, s:s, s:i, s:I}", "write_bytes", (json_int_t)INT64_MAX, "read_bytes", (json_int_t)INT64_MIN,
		    "files", (json_int_t)INT64_MAX, "read_rate", (json_int_t)INT64_MAX, "decode_rate", "fast", "cpus", -1, "p50_ms", (json_int_t)INT64_MAX));
	}
	struct forecast f = ask(r, FORECAST_FULL, 1000, &usual);
	assert_within(f.ready_p50_ms, (double)sane, 60);
	assert_true(f.ready_p95_ms < 1000 * f.ready_p50_ms);
	ask(r, FORECAST_INSTANT, 1000, &usual);
}

static void read__takes_only_sensible_figures(void **state)
{
	(void)state;
	struct forecast_sizes z;
	struct forecast_machine m;
	json_t *j = json_pack("{s:i, s:I, s:s, s:i, s:I, s:i}", "write_bytes", -1, "read_bytes", (json_int_t)INT64_MAX, "files", "5", "packs", 7, "read_rate",
	    (json_int_t)INT64_MAX, "cpus", 100000);
	forecast_sizes_read(j, &z);
	forecast_machine_read(j, &m);
	assert_int_equal(z.write_bytes, 0);
	assert_true(z.read_bytes < UINT64_C(1) << 60);
	assert_int_equal(z.files, 0);
	assert_int_equal(z.packs, 7);
	assert_true(m.read_rate == 0 && m.cpus == 0);
	json_decref(j);
	forecast_sizes_read(NULL, &z);
	forecast_machine_read(NULL, &m);
	assert_true(z.write_bytes == 0 && m.cpus == 0);
}

static void json__comes_back_as_it_was(void **state)
{
	(void)state;
	struct forecast_sizes z = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, z2;
	struct forecast_machine m2;
	json_t *sizes = forecast_sizes_json(&z), *machine = forecast_machine_json(&usual);
	forecast_sizes_read(sizes, &z2);
	forecast_machine_read(machine, &m2);
	assert_memory_equal(&z, &z2, sizeof z);
	assert_true(m2.cpus == usual.cpus && m2.read_rate == usual.read_rate && m2.decode_rate == usual.decode_rate && m2.write_rate == usual.write_rate);
	json_decref(sizes);
	json_decref(machine);
}

/* --- a real vault --- */

struct node {
	struct world w;
	struct vault *vault; /* opened with the node's key */
	struct snapshot *newest;
	struct im_error err;
};

static int node_setup(void **state)
{
	struct node *n = calloc(1, sizeof *n);
	world_start(&n->w);
	assert_ok(world_backup(&n->w, &n->err), &n->err);
	assert_ok(vault_open(n->w.vault, n->w.node_key, NULL, NULL, 0, &n->vault, &n->err), &n->err);
	assert_ok(snapshot_choose(n->vault->storage, n->vault->keyring, NULL, "latest", NULL, NULL, &n->newest, &n->err), &n->err);
	*state = n;
	return 0;
}

static int node_teardown(void **state)
{
	struct node *n = *state;
	snapshot_free(n->newest);
	vault_close(n->vault);
	world_stop(&n->w);
	free(n);
	return 0;
}

static uint64_t pack_bytes(const struct snapshot *s)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < s->pack_count; i++)
		sum += s->packs[i].size_bytes;
	return sum;
}

static void sizes__are_known_to_a_node_key(void **state)
{
	struct node *n = *state;
	struct forecast_sizes z;
	struct stat st;
	assert_null(n->newest->record.private_part);
	forecast_sizes_of_snapshot(n->newest, &z);
	assert_int_equal(stat(n->w.database, &st), 0);
	assert_int_equal(z.stores, 2);
	assert_int_equal(z.files, 3); /* one is the database */
	assert_true(z.database_bytes >= (uint64_t)st.st_size / 2 && z.database_bytes < z.write_bytes);
	assert_int_equal(z.packs, n->newest->pack_count);
	assert_true(z.read_bytes > 0 && z.read_bytes <= pack_bytes(n->newest));
	assert_int_equal(z.log_segments, 0);
	assert_ok(forecast_sizes_add_logs(n->vault, n->newest, FORECAST_NOW, &z, &n->err), &n->err);
	assert_int_equal(z.log_segments, 0);
	const char *target = forecast_target_of(n->newest);
	assert_true(strcmp(target, n->w.database) == 0 || strcmp(target, n->w.tree) == 0);
}

static void sizes__never_read_more_than_there_is_to_write(void **state)
{
	struct node *n = *state;
	struct forecast_sizes z;
	json_t *stores = json_object_get(n->newest->record.meta, "stores"), *store;
	size_t i;
	json_array_foreach(stores, i, store)
		json_object_set_new(store, "bytes", json_integer(100)); /* as of a snapshot that needs little of large packs */
	forecast_sizes_of_snapshot(n->newest, &z);
	assert_int_equal(z.write_bytes, 200);
	assert_true(z.read_bytes <= 210);
}

static void sizes__leave_out_failed_stores_and_foreign_packs(void **state)
{
	struct node *n = *state;
	struct forecast_sizes all, some;
	forecast_sizes_of_snapshot(n->newest, &all);
	json_t *store = json_array_get(json_object_get(n->newest->record.meta, "stores"), 0);
	json_object_set_new(store, "status", json_string("failed"));
	forecast_sizes_of_snapshot(n->newest, &some);
	assert_int_equal(some.stores, 1);
	assert_true(some.write_bytes < all.write_bytes);
	json_object_set_new(store, "status", json_string("ok"));
	json_object_set_new(store, "packs", json_string("/////w==")); /* a number it does not have */
	json_object_set_new(json_array_get(json_object_get(n->newest->record.meta, "stores"), 1), "packs", json_string(""));
	forecast_sizes_of_snapshot(n->newest, &some);
	assert_int_equal(some.packs, 0);
	assert_int_equal(some.read_bytes, 0);
	json_object_set_new(store, "packs", json_string("no base64"));
	forecast_sizes_of_snapshot(n->newest, &some);
	assert_int_equal(some.packs, all.packs); /* then all of them */
}

static void sizes__survive_any_figures(void **state)
{
	struct node *n = *state;
	struct forecast_sizes z;
	json_t *stores = json_object_get(n->newest->record.meta, "stores");
	for (int i = 0; i < 20000; i++)
		json_array_append_new(stores, i % 3 ? json_pack("{s:I, s:s}", "bytes", (json_int_t)INT64_MAX, "type", "sqlite") : json_integer(i));
	json_array_append_new(stores, json_pack("{s:i, s:i, s:{s:i}}", "bytes", -7, "files", -7, "log", "epoch", 1));
	forecast_sizes_of_snapshot(n->newest, &z);
	assert_true(z.write_bytes < UINT64_C(1) << 60 && z.files < UINT64_C(1) << 60);
	json_object_set_new(n->newest->record.meta, "stores", json_string("none"));
	forecast_sizes_of_snapshot(n->newest, &z);
	assert_int_equal(z.write_bytes, 0);
	assert_null(forecast_target_of(n->newest));
}

static void sizes__count_the_log_behind_the_image(void **state)
{
	struct node *n = *state;
	struct forge *f = calloc(1, sizeof *f);
	struct vault *restore;
	struct forecast_sizes z = { 0 };
	assert_non_null(f);
	assert_ok(vault_open(n->w.vault, n->w.restore_key, NULL, NULL, 0, &restore, &n->err), &n->err);
	forge_begin(f, n->vault, n->w.vault, "chat", "00000000000000000001", n->w.database, T0, "start", NULL);
	forge_anchor(f, restore, 1, 1, false);
	for (int i = 0; i < 3; i++) {
		world_change(&n->w, (unsigned)i + 1);
		forge_take(f, n->w.database, T0 + 1000 * (i + 1));
		forge_ship(f);
	}
	snapshot_free(n->newest);
	assert_ok(snapshot_choose(n->vault->storage, n->vault->keyring, NULL, "latest", NULL, NULL, &n->newest, &n->err), &n->err);
	assert_ok(forecast_sizes_add_logs(n->vault, n->newest, FORECAST_NOW, &z, &n->err), &n->err);
	assert_int_equal(z.log_segments, 3);
	uint64_t fine = z.log_bytes;
	assert_true(fine > 0);
	z = (struct forecast_sizes){ 0 };
	assert_ok(forecast_sizes_add_logs(n->vault, n->newest, T0 + 1500, &z, &n->err), &n->err);
	assert_int_equal(z.log_segments, 1); /* up to then */
	z = (struct forecast_sizes){ 0 };
	assert_ok(forecast_sizes_add_logs(n->vault, n->newest, 0, &z, &n->err), &n->err);
	assert_int_equal(z.log_segments, 0);
	forge_coarse(f, 2, 4, 1);
	z = (struct forecast_sizes){ 0 };
	assert_ok(forecast_sizes_add_logs(n->vault, n->newest, FORECAST_NOW, &z, &n->err), &n->err);
	assert_int_equal(z.log_segments, 1); /* a restore takes that one */
	forge_end(f);
	free(f);
	vault_close(restore);
}

static int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int open_descriptors(void)
{
	return count_entries("/proc/self/fd");
}

static void probe__leaves_nothing_behind(void **state)
{
	struct node *n = *state;
	struct forecast_machine m;
	struct stat before, after;
	char below[256];
	snprintf(below, sizeof below, "%s/not/there/yet", n->w.tree);
	int entries = count_entries(n->w.tree), fds = open_descriptors();
	assert_int_equal(stat(n->w.tree, &before), 0);
	forecast_probe(n->vault, n->newest, below, &m);
	assert_int_equal(stat(n->w.tree, &after), 0);
	assert_int_equal(count_entries(n->w.tree), entries);
	assert_int_equal(open_descriptors(), fds);
	assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	assert_true(m.cpus >= 1);
	assert_true(m.decode_rate > 1 * MB);
	int fd = open(n->w.tree, O_TMPFILE | O_RDWR, 0600);
	assert_true(fd < 0 || m.write_rate > 0); /* some file systems have no unnamed files */
	if (fd >= 0)
		close(fd);
}

static void probe__does_without_what_is_not_there(void **state)
{
	struct node *n = *state;
	struct forecast_machine m;
	forecast_probe(n->vault, NULL, NULL, &m);
	assert_true(m.cpus >= 1 && m.read_rate == 0 && m.write_rate == 0);
	forecast_probe(n->vault, n->newest, "relative", &m);
	assert_true(m.write_rate == 0);
	for (size_t i = 0; i < n->newest->pack_count; i++)
		n->newest->packs[i].name[0] ^= 0xff; /* gone */
	forecast_probe(n->vault, n->newest, NULL, &m);
	assert_true(m.read_rate == 0);
}

static void of_node__answers_for_both_scenarios(void **state)
{
	struct node *n = *state;
	struct drill_list history = { 0 };
	struct forecast_node f;
	assert_ok(forecast_of_node(n->vault, n->newest, FORECAST_NOW, &history, n->w.dir, false, &f, &n->err), &n->err);
	assert_true(f.full.ready_p50_ms > 0 && f.full.ready_p95_ms > f.full.ready_p50_ms && f.instant.ready_p50_ms > 0);
	assert_true(f.sizes.write_bytes > 0 && f.machine.cpus >= 1);
	assert_int_equal(f.full.learned_from, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, node_setup, node_teardown)
	const struct CMUnitTest tests[] = {
		TEST(make__without_a_history_goes_by_sizes_and_probe),
		TEST(make__comes_to_the_truth_and_grows_sure_of_it),
		TEST(make__learns_from_the_first),
		TEST(make__is_not_led_astray_by_one),
		TEST(make__p95_knows_of_past_errors),
		TEST(make__a_machine_half_as_fast_takes_twice_as_long),
		TEST(make__does_not_believe_one_probe_against_many),
		TEST(make__what_no_probe_measured_is_as_it_was),
		TEST(make__only_what_came_back_whole_teaches),
		TEST(make__the_service_belongs_to_ready_alone),
		TEST(make__tells_its_own_error),
		TEST(make__a_full_restore_says_little_of_an_instant_one),
		TEST(make__expects_the_service_that_will_be_started),
		TEST(make__knows_the_number_of_files_from_the_last_recovery),
		TEST(make__survives_any_figures),
		cmocka_unit_test(read__takes_only_sensible_figures),
		cmocka_unit_test(json__comes_back_as_it_was),
		NODE_TEST(sizes__are_known_to_a_node_key),
		NODE_TEST(sizes__never_read_more_than_there_is_to_write),
		NODE_TEST(sizes__leave_out_failed_stores_and_foreign_packs),
		NODE_TEST(sizes__survive_any_figures),
		NODE_TEST(sizes__count_the_log_behind_the_image),
		NODE_TEST(probe__leaves_nothing_behind),
		NODE_TEST(probe__does_without_what_is_not_there),
		NODE_TEST(of_node__answers_for_both_scenarios),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
