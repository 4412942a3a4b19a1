/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery windows: to which instants each epoch of a log can bring its store back, and what lies
 * between the epochs. From names, each epoch's first and last segment and the snapshots' metas
 * alone; damage inside segments is verify's business.
 */
#ifndef IM_VAULT_LOGWINDOW_H
#define IM_VAULT_LOGWINDOW_H

#include "vault/logroute.h"
#include "vault/snapshot.h"

struct log_images { /* where the images of one node's snapshots stand */
	struct log_image {
		char *store;
		struct log_anchor anchor; /* without sum */
	} *items;
	size_t count, room;
};
int log_images_take(struct log_images *l, const struct snapshot *s, struct im_error *err);
void log_images_clear(struct log_images *l);

struct log_hole { /* instants within a window that nothing leads to, ends not included */
	int64_t from_ms, to_ms;
	uint32_t from, to; /* points */
	bool at_end;       /* an image stands further than the log goes: perhaps it is still under way */
};
struct log_window { /* one epoch */
	char *store, epoch[LOG_EPOCH_CHARS + 1];
	bool restorable;        /* a snapshot stands in it; else only the gap, points, segments and bytes are known */
	int64_t from_ms, to_ms; /* complete_ms of the first image and of the last point that can be reached */
	uint32_t points;        /* the last point of all */
	uint64_t segments, bytes; /* segments: whole ones, fine and coarse */
	struct log_hole *holes;
	size_t hole_count;
	bool forked;            /* two fine segments begin at the same point: two machines wrote it, or a state was cloned */
	/* The gap before it: */
	char *reason;           /* why the epoch began; NULL: its first segment cannot be read */
	bool has_gap_from, has_gap_to, has_before; /* has_before: an epoch came before it */
	int64_t gap_from_ms, gap_to_ms;
	bool closed;            /* nothing is missing in it */
};
struct log_windows {
	struct log_window *items; /* by store, then by the epoch's start */
	size_t count;
};
/* Of all stores of the node. images is sorted here. */
int log_windows_read(struct storage *s, const struct keyring *k, const char *node, struct log_images *images, struct log_windows *ret, struct im_error *err);
void log_windows_clear(struct log_windows *w);

#endif
