/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain's end: which snapshot the new one follows, and whether the vault still has what this
 * node wrote. The local state is the node's own witness: what it saw in the vault and is no longer
 * there was removed or rolled back by someone.
 */
#include "backup/internal.h"

#include <inttypes.h>
#include <string.h>

static bool is_state_head(const struct backup_run *run, const struct snapshot_name *name)
{
	char hex[65];
	im_hex(hex, run->state_head.hash, 32);
	return run->has_state_head && name->seq == run->state_head.seq && strncmp(hex, name->hash_prefix, 16) == 0;
}

/* The newest snapshot that is really this node's: what others planted or rot ate is stepped over. */
static int newest_readable(struct backup_run *run, const struct snapshot_list *list, struct snapshot **ret,
    bool *ret_is_own, struct im_error *err)
{
	for (size_t i = list->count; i-- > 0;) {
		struct im_error why = { 0 };
		if (is_state_head(run, &list->items[i])) {
			*ret_is_own = true;
			return 0;
		}
		int rc = snapshot_read(run->vault->storage, run->vault->keyring, &list->items[i], ret, &why);
		if (rc == 0)
			return 0;
		if (rc != IM_ECORRUPT && rc != IM_EKEY && rc != IM_ENOTFOUND)
			return im_fail(err, rc, "%s", why.text);
		backup_warn(run, NULL, "stepping over %s: %s; run imvault verify", list->items[i].object, why.text);
	}
	return 0;
}

static void compare_epoch(struct backup_run *run, const struct snapshot *newest)
{
	const char *epoch = json_string_value(json_object_get(newest->record.meta, "epoch"));
	const char *host = json_string_value(json_object_get(newest->record.meta, "host"));
	if (epoch && strcmp(epoch, run->state_head.epoch) == 0)
		backup_warn(run, NULL, "the vault holds snapshot %" PRIu64 " but the local state ends at %" PRIu64
		    ": an older copy of the local state was put back; continuing after the newest", newest->seq, run->state_head.seq);
	else
		backup_warn(run, NULL, "snapshot %" PRIu64 " of node %s was written elsewhere (host %s): if two machines share "
		    "this node's name, give one of them another", newest->seq, run->node, host ? host : "unknown");
}

static int judge_state(struct backup_run *run, const struct snapshot_list *list, const struct snapshot *newest,
    struct im_error *err)
{
	bool have_base = false;
	for (size_t i = 0; i < list->count && !have_base; i++)
		have_base = is_state_head(run, &list->items[i]);
	if (have_base) {
		if (newest)
			compare_epoch(run, newest);
		return 0;
	}
	backup_warn(run, NULL, "the vault was rolled back or snapshots were removed: snapshot %" PRIu64 " of node %s, "
	    "which this node wrote, is gone; everything is read and stored again", run->state_head.seq, run->node);
	run->head.rolled_back = true;
	int rc = state_forget(run->state, err);
	return rc ? rc : state_forget_ids(run->state, err);
}

static int find_head_in(struct backup_run *run, const struct snapshot_list *list, struct im_error *err)
{
	struct snapshot *newest = NULL;
	bool own = false;
	int rc = newest_readable(run, list, &newest, &own, err);
	if (rc == 0 && own) {
		run->head.seq = run->state_head.seq;
		run->head.has_prev = true;
		memcpy(run->head.prev, run->state_head.hash, 32);
	} else if (rc == 0) {
		run->head.seq = newest ? newest->seq : 0;
		run->head.has_prev = newest != NULL;
		if (newest)
			memcpy(run->head.prev, newest->record.hash, 32);
		if (run->has_state_head)
			rc = judge_state(run, list, newest, err);
	}
	snapshot_free(newest);
	return rc;
}

int backup_find_head(struct backup_run *run, struct im_error *err)
{
	struct snapshot_list list = { 0 };
	int rc = snapshot_list(run->vault->storage, run->node, &list, err);
	if (rc == 0)
		rc = find_head_in(run, &list, err);
	run->result->first = list.count == 0;
	snapshot_list_clear(&list);
	/* After a rollback the numbers of what is gone are not used again: the gap stays as evidence. */
	if (rc == 0 && run->has_state_head && run->state_head.seq > run->head.seq)
		run->head.seq = run->state_head.seq;
	run->head.seq++;
	if (rc == 0 && run->head.seq > 99999999)
		rc = im_fail(err, IM_EFAIL, "node %s has used up its snapshot numbers", run->node);
	return rc;
}
