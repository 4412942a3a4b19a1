/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes after an epoch. If another one has begun, there was a gap: its first segment says why,
 * and the first snapshot with a place in it says whether anything can have been lost.
 */
#include "restore/route.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "vault/logroute.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HOPS = 10000, MAX_LOOKS = 100 };

struct search {
	struct history *h;
	size_t snapshot;            /* number of the image's, which stands in … */
	const char *store, *after;  /* … this epoch */
	char found[LOG_EPOCH_CHARS + 1];
	struct im_error *err;
};

static int take_first(void *context, const char *object, uint64_t size_bytes)
{
	struct log_name *first = context;
	struct log_name n;
	if (!log_name_parse(object, &n, NULL))
		return 0;
	bool is_first = n.first == 1; /* a follower killed early on may have shipped more points at once */
	n.size_bytes = size_bytes;
	if (is_first)
		*first = n;
	else
		log_name_clear(&n);
	return is_first;
}

struct beginning {
	char *reason;
	int64_t ms;
	char after[LOG_EPOCH_CHARS + 1]; /* the epoch before; "": none, or unknown */
	uint32_t point;                  /* its last point, as the one who went on knew it */
	bool read;
	uint64_t snapshot_seq;           /* the newest snapshot then; 0: none was known */
};

static void take_after(struct beginning *b, const json_t *after)
{
	const char *epoch = json_string_value(json_object_get(after, "epoch"));
	json_int_t point = json_integer_value(json_object_get(after, "point"));
	if (!epoch || strlen(epoch) != LOG_EPOCH_CHARS || point < 0 || point > UINT32_MAX)
		return;
	memcpy(b->after, epoch, LOG_EPOCH_CHARS);
	b->point = (uint32_t)point;
}

/* Why the epoch began, when, and after what: from its first segment, or from its name alone if that cannot be read. */
static int read_beginning(struct history *h, const char *store, const char *epoch, struct beginning *ret, struct im_error *err)
{
	struct log_name first = { 0 };
	struct log_segment *s = NULL;
	const char *node = h->names.items[0].node;
	char start[13] = "";
	memcpy(start, epoch, 12);
	*ret = (struct beginning){ .ms = (int64_t)strtoull(start, NULL, 16) };
	auto_free char *prefix = im_format("logs/%s/%s/%s/00000/", node, store, epoch);
	int rc = prefix ? storage_list(h->vault->storage, prefix, take_first, &first, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc < 0)
		return rc;
	struct im_error why = { 0 };
	const char *reason = "its first segment, which would say why, cannot be read";
	if (first.object && log_read(h->vault->storage, h->vault->keyring, node, &first, &s, &why) == 0) {
		json_t *began = json_object_get(s->record.meta, "began");
		const char *said = json_string_value(json_object_get(began, "reason"));
		reason = said ? said : "it does not say why";
		ret->ms = s->points[0].complete_ms;
		ret->snapshot_seq = (uint64_t)json_integer_value(json_object_get(s->record.meta, "snapshot_seq"));
		ret->read = true;
		take_after(ret, json_object_get(began, "after"));
	}
	ret->reason = strdup(reason);
	log_segment_free(s);
	log_name_clear(&first);
	return ret->reason ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

/* Clocks may have been set back, so names alone do not tell what came after what. */
int route_came_before(struct history *h, const char *store, const char *epoch, const char *candidate, bool *ret, uint32_t *ret_point, struct im_error *err)
{
	char at[LOG_EPOCH_CHARS + 1];
	memcpy(at, epoch, sizeof at);
	*ret = false;
	for (int hops = 0; hops < MAX_HOPS && *at && !*ret; hops++) {
		struct beginning b;
		int rc = read_beginning(h, store, at, &b, err);
		if (rc)
			return rc;
		free(b.reason);
		memcpy(at, b.after, sizeof at);
		*ret = strcmp(at, candidate) == 0;
		*ret_point = b.point;
	}
	return 0;
}

/* An epoch that does not say what it began after (the local record was lost): does an older image stand in it? */
static int has_older_image(struct search *s, const char *epoch, bool *ret)
{
	struct log_anchor a;
	*ret = false;
	for (size_t i = s->snapshot + 1, looks = 0; i-- > 0 && looks < MAX_LOOKS && !*ret; looks++) {
		struct snapshot *snapshot = NULL;
		int rc = history_get(s->h, i, &snapshot, s->err);
		if (rc)
			return rc;
		*ret = snapshot && log_anchor_read(snapshot_store_meta(snapshot, s->store), &a) && strcmp(a.epoch, epoch) == 0;
	}
	return 0;
}

/* Nor is there such an image: but the clock ran ahead of its beginning before ours was taken, and it knew only older snapshots. */
static int is_from_before_a_set_back(struct search *s, const char *epoch, bool *ret)
{
	struct beginning b;
	*ret = false;
	int rc = read_beginning(s->h, s->store, epoch, &b, s->err);
	if (rc)
		return rc;
	free(b.reason);
	if (!b.read || b.snapshot_seq >= s->h->read[s->snapshot]->seq)
		return 0;
	for (size_t i = s->snapshot, looks = 0; i-- > 0 && looks < MAX_LOOKS && !*ret; looks++) {
		struct snapshot *snapshot = NULL;
		rc = history_get(s->h, i, &snapshot, s->err);
		if (rc)
			return rc;
		*ret = snapshot && snapshot->time_ms >= b.ms;
	}
	return 0;
}

static int take_epoch(void *context, const char *folder, uint64_t size_bytes)
{
	struct search *s = context;
	size_t len = strlen(folder);
	bool before;
	uint32_t point;
	char epoch[LOG_EPOCH_CHARS + 1] = "";
	(void)size_bytes;
	if (len < LOG_EPOCH_CHARS + 2)
		return 0;
	memcpy(epoch, folder + len - 1 - LOG_EPOCH_CHARS, LOG_EPOCH_CHARS);
	if (strspn(epoch, "0123456789abcdef") != LOG_EPOCH_CHARS || strcmp(epoch, s->after) <= 0)
		return 0;
	int rc = route_came_before(s->h, s->store, s->after, epoch, &before, &point, s->err);
	if (rc == 0 && !before)
		rc = has_older_image(s, epoch, &before);
	if (rc == 0 && !before)
		rc = is_from_before_a_set_back(s, epoch, &before);
	if (rc || before)
		return rc;
	memcpy(s->found, epoch, sizeof s->found);
	return 1;
}

static int find_next(struct history *h, size_t i, const char *store, const char *epoch, char ret[LOG_EPOCH_CHARS + 1], struct im_error *err)
{
	struct search s = { .h = h, .snapshot = i, .store = store, .after = epoch, .err = err };
	auto_free char *prefix = im_format("logs/%s/%s/", h->names.items[0].node, store);
	int rc = prefix ? storage_list_folders(h->vault->storage, prefix, take_epoch, &s, err) : im_fail(err, IM_ENOMEM, "out of memory");
	memcpy(ret, s.found, sizeof s.found);
	return rc < 0 ? rc : 0;
}

/* The first snapshot after number i with a place in the epoch. */
static int is_joined(struct history *h, size_t i, const char *store, const char *epoch, bool *ret, struct im_error *err)
{
	*ret = false;
	while (++i < h->names.count) {
		struct snapshot *s = NULL;
		struct log_anchor a;
		int rc = history_get(h, i, &s, err);
		if (rc)
			return rc;
		if (!s || !log_anchor_read(snapshot_store_meta(s, store), &a))
			continue;
		*ret = strcmp(a.epoch, epoch) == 0 && a.joined;
		return 0;
	}
	return 0;
}

int route_look_beyond(struct history *h, size_t i, const char *store, int64_t until_ms, int64_t latest_ms,
    struct restore_route *r, struct im_error *err)
{
	char next[LOG_EPOCH_CHARS + 1], ended[IM_INSTANT_BYTES], began[IM_INSTANT_BYTES];
	struct beginning b;
	bool joined = false;
	int rc = find_next(h, i, store, r->epoch, next, err);
	if (rc || !*next)
		return rc;
	rc = is_joined(h, i, store, next, &joined, err);
	if (rc == 0)
		rc = read_beginning(h, store, next, &b, err);
	if (rc)
		return rc;
	auto_free char *reason = b.reason;
	int64_t began_ms = b.ms;
	if (joined) { /* the store was as it is here until then */
		int64_t still_ms = began_ms < until_ms ? began_ms : until_ms;
		r->reached_ms = still_ms > r->reached_ms ? still_ms : r->reached_ms;
		return 0;
	}
	r->missing = true;
	if (began_ms < latest_ms) {
		r->stopped = im_format("another epoch began at %s, before this one ended at %s: two machines wrote under this node's name (%s)",
		    im_instant_format(began, began_ms), im_instant_format(ended, latest_ms), reason);
		return r->stopped ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	}
	r->stopped = im_format("the log has a gap from %s to %s: %s", im_instant_format(ended, latest_ms), im_instant_format(began, began_ms), reason);
	return r->stopped ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}
