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

struct search {
	const char *after;  /* epoch */
	char found[LOG_EPOCH_CHARS + 1];
};

/* Names ascend, and so do the instants they begin with. */
static int take_epoch(void *context, const char *folder, uint64_t size_bytes)
{
	struct search *s = context;
	size_t len = strlen(folder);
	(void)size_bytes;
	if (len < LOG_EPOCH_CHARS + 1)
		return 0;
	const char *epoch = folder + len - 1 - LOG_EPOCH_CHARS;
	if (epoch[-1] != '/' || strspn(epoch, "0123456789abcdef") != LOG_EPOCH_CHARS || strncmp(epoch, s->after, LOG_EPOCH_CHARS) <= 0)
		return 0;
	memcpy(s->found, epoch, LOG_EPOCH_CHARS);
	return 1;
}

static int find_next(struct history *h, const char *store, const char *epoch, char ret[LOG_EPOCH_CHARS + 1], struct im_error *err)
{
	struct search s = { .after = epoch };
	auto_free char *prefix = im_format("logs/%s/%s/", h->names.items[0].node, store);
	int rc = prefix ? storage_list_folders(h->vault->storage, prefix, take_epoch, &s, err) : im_fail(err, IM_ENOMEM, "out of memory");
	memcpy(ret, s.found, sizeof s.found);
	return rc < 0 ? rc : 0;
}

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

/* Why the epoch began, and when: from its first segment, or from its name alone if that cannot be read. */
static int read_beginning(struct history *h, const char *store, const char *epoch, char **ret_reason, int64_t *ret_ms, struct im_error *err)
{
	struct log_name first = { 0 };
	struct log_segment *s = NULL;
	const char *node = h->names.items[0].node;
	char start[13] = "";
	memcpy(start, epoch, 12);
	*ret_ms = (int64_t)strtoull(start, NULL, 16);
	auto_free char *prefix = im_format("logs/%s/%s/%s/00000/", node, store, epoch);
	int rc = prefix ? storage_list(h->vault->storage, prefix, take_first, &first, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc < 0)
		return rc;
	struct im_error why = { 0 };
	const char *reason = "its first segment, which would say why, cannot be read";
	if (first.object && log_read(h->vault->storage, h->vault->keyring, node, &first, &s, &why) == 0) {
		const char *said = json_string_value(json_object_get(json_object_get(s->record.meta, "began"), "reason"));
		reason = said ? said : "it does not say why";
		*ret_ms = s->points[0].complete_ms;
	}
	*ret_reason = strdup(reason);
	log_segment_free(s);
	log_name_clear(&first);
	return *ret_reason ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
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
	auto_free char *reason = NULL;
	int64_t began_ms;
	bool joined = false;
	int rc = find_next(h, store, r->epoch, next, err);
	if (rc || !*next)
		return rc;
	rc = is_joined(h, i, store, next, &joined, err);
	if (rc == 0)
		rc = read_beginning(h, store, next, &reason, &began_ms, err);
	if (rc)
		return rc;
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
