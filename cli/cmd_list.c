/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault list: the snapshots of a node, or of every node. Any key will do: it needs only the part
 * of a snapshot that every role reads.
 */
#include "base/clock.h"
#include "cli/output.h"
#include "vault/logwindow.h"
#include "vault/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const enum option_id options[] = { OPTION_END };

static const char help[] =
    "imvault list: this node's snapshots, oldest first, and its recovery windows.\n"
    "\n"
    "  imvault [-c FILE] list [--node NAME]\n"
    "  imvault list --vault URL --key FILE [--node NAME]\n"
    "\n"
    "Without a configuration and without --node it lists every node of the vault.\n"
    "The first column is what restore --at and export --at take. The time is the\n"
    "instant the image shows, in UTC. Any key will do. Whatever is missing from the\n"
    "chain, damaged or signed by a key that may not is said, and the exit code is 6.\n"
    "A recovery window is what a store's log adds: restore --at takes any instant in\n"
    "it. What lies between two windows, and why, is said with the second one.\n"
    "\n"
    "Examples:\n"
    "  imvault list\n"
    "  imvault list --vault /mnt/im --key restore.key --node im-01\n"
    "  imvault list --json | jq -r '.snapshots[-1].time'\n";

struct listing {
	struct cli *cli;
	int64_t now_ms;
	size_t problems;
	const char *node;  /* of the row before; borrowed from the list */
	uint64_t seq;
	char hash[65];     /* of the row before, "" if it could not be read */
	struct log_images images; /* of this node's snapshots */
};

static void problem(struct listing *l, json_t *row, const char *object, const char *text)
{
	l->problems++;
	output_text(row, "problem", text);
	output_problem("%s: %s", object, text);
}

static int64_t figure(const struct snapshot *s, const char *name)
{
	return json_integer_value(json_object_get(s->record.meta, name));
}

static void copy_figures(json_t *row, const struct snapshot *s)
{
	static const char *const integers[] = { "bytes_read", "bytes_changed", "bytes_stored", "duration_ms", "rto_ms", "rpo_ms" };
	static const char *const texts[] = { "host", "version", "tier", "epoch", "started" };
	for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
		if (json_object_get(s->record.meta, integers[i]))
			output_integer(row, integers[i], figure(s, integers[i]));
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		output_text(row, texts[i], json_string_value(json_object_get(s->record.meta, texts[i])));
}

static void copy_stores(json_t *row, const struct snapshot *s, size_t *ret_ok, size_t *ret_failed)
{
	size_t i;
	json_t *store;
	*ret_ok = *ret_failed = 0;
	output_array(row, "stores");
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, store) {
		const char *status = json_string_value(json_object_get(store, "status"));
		json_t *copy = json_copy(store); /* without the pack numbers */
		json_object_del(copy, "packs");
		json_array_append_new(output_array(row, "stores"), copy);
		*(status && strcmp(status, "ok") == 0 ? ret_ok : ret_failed) += 1;
	}
}

static void say_row(const struct listing *l, const struct snapshot *s, const char *hash, size_t ok, size_t failed)
{
	char time[IM_INSTANT_BYTES], age[40], read[24], changed[24], stored[24], stores[40];
	snprintf(stores, sizeof stores, failed ? "%zu ok, %zu FAILED" : "%zu ok", ok, failed);
	output_line(l->cli, "%8" PRIu64 "  %.8s  %s  %-14s  %9s %9s %9s  %s", s->seq, hash, im_instant_format(time, s->time_ms),
	    stores, im_bytes_format(read, sizeof read, (uint64_t)figure(s, "bytes_read")),
	    im_bytes_format(changed, sizeof changed, (uint64_t)figure(s, "bytes_changed")),
	    im_bytes_format(stored, sizeof stored, (uint64_t)figure(s, "bytes_stored")),
	    im_duration_format(age, sizeof age, l->now_ms - s->time_ms));
}

static void check_link(struct listing *l, json_t *row, const struct snapshot_name *name, const struct snapshot *s)
{
	char text[200];
	const char *prev = s ? json_string_value(json_object_get(s->record.meta, "prev")) : NULL;
	if (!l->node || strcmp(l->node, name->node) != 0)
		return;
	if (name->seq > l->seq + 1) {
		snprintf(text, sizeof text, "%" PRIu64 " snapshot%s missing before it, from number %" PRIu64 " on: removed, or the vault was "
		    "rolled back", name->seq - l->seq - 1, name->seq == l->seq + 2 ? " is" : "s are", l->seq + 1);
		problem(l, row, name->object, text);
	} else if (name->seq == l->seq) {
		problem(l, row, name->object, "there are two snapshots of this number: two machines write for this node");
	} else if (s && l->hash[0] && (!prev || strcmp(prev, l->hash) != 0)) {
		problem(l, row, name->object, "it does not follow the snapshot before it: that one was replaced");
	}
}

static int list_one(struct listing *l, const struct snapshot_name *name, struct im_error *err)
{
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	int rc = snapshot_read(l->cli->vault->storage, l->cli->vault->keyring, name, &s, &why);
	if (rc && rc != IM_ECORRUPT && rc != IM_EKEY && rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	json_t *row = output_row(l->cli->json, "snapshots");
	output_text(row, "node", name->node);
	output_integer(row, "seq", (int64_t)name->seq);
	output_text(row, "snapshot", strrchr(name->object, '/') + 1);
	output_text(row, "object", name->object);
	if (rc)
		problem(l, row, name->object, why.text);
	check_link(l, row, name, s);
	l->node = name->node;
	l->seq = name->seq;
	l->hash[0] = '\0';
	if (s) {
		size_t ok, failed;
		im_hex(l->hash, s->record.hash, 32);
		output_instant(row, "time", s->time_ms);
		output_integer(row, "age_ms", l->now_ms - s->time_ms);
		copy_figures(row, s);
		copy_stores(row, s, &ok, &failed);
		say_row(l, s, l->hash, ok, failed);
	}
	rc = s ? log_images_take(&l->images, s, err) : 0;
	snapshot_free(s);
	return rc;
}

static void say_gap(const struct listing *l, const struct log_window *w)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES];
	const char *reason = w->reason ? w->reason : "its first segment cannot be read";
	if (!w->has_before)
		return;
	if (w->closed)
		output_line(l->cli, "%12s  nothing is missing before it (%s)", "", reason);
	else
		output_line(l->cli, "%12s  gap before it: %s to %s: %s", "", w->has_gap_from ? im_instant_format(from, w->gap_from_ms) : "?",
		    w->has_gap_to ? im_instant_format(to, w->gap_to_ms) : "the next snapshot", reason);
}

static json_t *window_row(const struct listing *l, const struct log_window *w)
{
	json_t *row = output_row(l->cli->json, "windows"), *gap = json_object();
	output_text(row, "node", l->node);
	output_text(row, "store", w->store);
	output_text(row, "epoch", w->epoch);
	output_boolean(row, "restorable", w->restorable);
	if (w->restorable) {
		output_instant(row, "from", w->from_ms);
		output_instant(row, "to", w->to_ms);
	}
	output_integer(row, "points", w->points);
	output_integer(row, "segments", (int64_t)w->segments);
	output_integer(row, "bytes", (int64_t)w->bytes);
	output_boolean(row, "forked", w->forked);
	output_text(gap, "reason", w->reason);
	if (w->has_gap_from)
		output_instant(gap, "from", w->gap_from_ms);
	if (w->has_gap_to)
		output_instant(gap, "to", w->gap_to_ms);
	output_boolean(gap, "closed", w->closed);
	json_object_set_new(row, "gap", gap);
	return row;
}

static void show_holes(struct listing *l, json_t *row, const struct log_window *w)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES], text[200];
	output_array(row, "missing");
	for (size_t i = 0; i < w->hole_count; i++) {
		const struct log_hole *h = &w->holes[i];
		json_t *hole = output_row(row, "missing");
		output_instant(hole, "from", h->from_ms);
		output_instant(hole, "to", h->to_ms);
		snprintf(text, sizeof text, "%s: no instant between %s and %s can be reached", w->store, im_instant_format(from, h->from_ms),
		    im_instant_format(to, h->to_ms));
		if (h->at_end)
			output_line(l->cli, "%12s  not in the vault yet: the log from %s to %s", "", from, to);
		else
			problem(l, row, "the log", text);
	}
}

static void show_window(struct listing *l, const struct log_window *w)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES], bytes[24];
	json_t *row = window_row(l, w);
	im_bytes_format(bytes, sizeof bytes, w->bytes);
	if (w->restorable)
		output_line(l->cli, "%12s  %s to %s  %u points, %" PRIu64 " segments, %s", w->store, im_instant_format(from, w->from_ms),
		    im_instant_format(to, w->to_ms), w->points, w->segments, bytes);
	else
		output_line(l->cli, "%12s  not restorable yet: no snapshot stands in epoch %s  %u points, %" PRIu64 " segments, %s", w->store, w->epoch,
		    w->points, w->segments, bytes);
	say_gap(l, w);
	show_holes(l, row, w);
	if (w->forked)
		problem(l, row, w->store, "two different segments of its log follow one point: two machines wrote it, or a state was cloned");
}

/* Of the node whose snapshots have just been listed. */
static int list_windows(struct listing *l, struct im_error *err)
{
	const struct vault *v = l->cli->vault;
	struct log_windows windows = { 0 };
	int rc = log_windows_read(v->storage, v->keyring, l->node, &l->images, &windows, err);
	if (rc == 0 && windows.count)
		output_line(l->cli, "%12s  %s", "store", "recovery window (UTC)");
	for (size_t i = 0; rc == 0 && i < windows.count; i++)
		show_window(l, &windows.items[i]);
	log_windows_clear(&windows);
	log_images_clear(&l->images);
	return rc;
}

static int list_all(struct listing *l, const struct snapshot_list *list, struct im_error *err)
{
	const char *node = NULL;
	for (size_t i = 0; i < list->count; i++) {
		if (!node || strcmp(node, list->items[i].node) != 0) {
			node = list->items[i].node;
			output_line(l->cli, "%snode %s", i ? "\n" : "", node);
			output_line(l->cli, "%8s  %-8s  %-24s  %-14s  %9s %9s %9s  %s", "seq", "hash", "time (UTC)", "stores", "read",
			    "changed", "stored", "age");
		}
		int rc = list_one(l, &list->items[i], err);
		if (rc == 0 && (i + 1 == list->count || strcmp(node, list->items[i + 1].node) != 0))
			rc = list_windows(l, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int run(struct cli *cli, struct im_error *err)
{
	struct listing l = { .cli = cli, .now_ms = im_now_ms() };
	struct snapshot_list list = { 0 };
	int rc = session_open(cli, SESSION_ANY_KEY, err);
	if (rc)
		return rc;
	const char *node = session_node(cli);
	output_array(cli->json, "snapshots");
	output_array(cli->json, "windows");
	rc = snapshot_list(cli->vault->storage, node, &list, err);
	if (rc == 0 && !list.count)
		rc = node ? im_fail(err, IM_ENOTFOUND, "the vault has no snapshot of node %s", node)
		          : im_fail(err, IM_ENOTFOUND, "the vault has no snapshot yet");
	if (rc == 0)
		rc = list_all(&l, &list, err);
	snapshot_list_clear(&list);
	log_images_clear(&l.images);
	if (rc == 0 && l.problems) {
		cli->error_shown = true;
		rc = im_fail(err, IM_ECORRUPT, "%zu problems in the chain of snapshots and the log; imvault verify says what they harm", l.problems);
	}
	return rc;
}

const struct command cmd_list = { "list", "what snapshots there are", help, options, 0, run };
