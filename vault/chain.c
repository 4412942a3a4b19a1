/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain of one node's snapshots: each names its predecessor's hash, so what was removed from
 * the middle, replaced or forked shows. What was removed from the end shows only to someone who
 * remembers it: the node's local state does.
 */
#include "vault/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct link {
	uint64_t seq;
	bool readable;
	uint8_t hash[32], prev[32];
	bool has_prev;
};

static void read_link(struct storage *s, const struct keyring *k, const struct snapshot_name *name, struct link *ret, chain_finding_fn *fn, void *context)
{
	struct snapshot *snapshot = NULL;
	struct im_error why = { 0 };
	*ret = (struct link){ .seq = name->seq };
	if (snapshot_read(s, k, name, &snapshot, &why)) {
		fn(context, name->object, why.text);
		return;
	}
	const char *prev = json_string_value(json_object_get(snapshot->record.meta, "prev"));
	ret->readable = true;
	memcpy(ret->hash, snapshot->record.hash, 32);
	ret->has_prev = prev && im_unhex(ret->prev, 32, prev);
	snapshot_free(snapshot);
}

static bool known_hash(const struct link *links, size_t count, const uint8_t hash[32])
{
	for (size_t i = 0; i < count; i++)
		if (links[i].readable && memcmp(links[i].hash, hash, 32) == 0)
			return true;
	return false;
}

static bool any_unreadable(const struct link *links, size_t count, uint64_t seq)
{
	for (size_t i = 0; i < count; i++)
		if (links[i].seq == seq && !links[i].readable)
			return true;
	return false;
}

/* [start, end): the range of links just below seq, to look for the predecessor in. */
static void judge(const struct snapshot_list *l, const struct link *links, size_t i, chain_finding_fn *fn, void *context)
{
	const struct link *link = &links[i];
	char text[200];
	if (i && links[i - 1].seq == link->seq) {
		snprintf(text, sizeof text, "fork: there is another snapshot %" PRIu64 " of this node; two machines write under one node name, or a state was cloned", link->seq);
		fn(context, l->items[i].object, text);
	}
	if (!link->readable)
		return;
	if (!link->has_prev) {
		if (i)
			fn(context, l->items[i].object, "it says it is the first snapshot, but older ones exist");
		return;
	}
	size_t start = i;
	while (start > 0 && links[start - 1].seq + 1 >= link->seq)
		start--;
	if (known_hash(links + start, i - start, link->prev))
		return;
	if (any_unreadable(links + start, i - start, link->seq - 1))
		return; /* reported by itself; the gap cannot be judged */
	snprintf(text, sizeof text, "its predecessor (snapshot %" PRIu64 ") is missing: it was removed or replaced", link->seq - 1);
	fn(context, l->items[i].object, text);
}

int snapshot_check_chain(struct storage *s, const struct keyring *k, const char *node, chain_finding_fn *fn, void *context, struct im_error *err)
{
	struct snapshot_list l = { 0 };
	int rc = snapshot_list(s, node, &l, err);
	if (rc)
		return rc;
	struct link *links = calloc(l.count ? l.count : 1, sizeof *links);
	if (!links) {
		snapshot_list_clear(&l);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < l.count; i++)
		read_link(s, k, &l.items[i], &links[i], fn, context);
	for (size_t i = 0; i < l.count; i++)
		judge(&l, links, i, fn, context);
	free(links);
	snapshot_list_clear(&l);
	return 0;
}
