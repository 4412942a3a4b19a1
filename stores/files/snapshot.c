/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a tree: the walker (this thread) cuts the sorted list of entries into segments at
 * places that depend on names only, so that an insertion changes one segment; readers capture
 * segments; the manifest lists them in order.
 */
#include "stores/files/files_store.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/workers.h"
#include "stores/files/capture.h"
#include "stores/files/hooks.h"
#include "stores/files/links.h"
#include "stores/files/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MAX_READERS 8
#define SEGMENT_MAX_ENTRIES 2048
#define SEGMENT_BOUNDARY_MASK 511u
#define LIST_KEY "list" /* keys of all segments of the last run, to forget those that are gone */

struct run {
	struct files_capture capture;
	struct files_exclude exclude;
	struct files_links links;
	struct im_workers *readers;
	unsigned reader_count;
	struct files_job **jobs;
	size_t job_count, job_cap;
	struct files_job *open; /* the last of jobs, being filled */
	size_t entry_cap;
	struct im_buf digest_bytes;
};

static int read_job(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	if (cancelled)
		return 0;
	return files_job_run(job, worker, err);
}

/* The file list is complete: hand the segment to a reader. */
static int close_segment(struct run *r, struct im_error *err)
{
	struct files_job *j = r->open;
	if (!j)
		return 0;
	r->open = NULL;
	r->entry_cap = 0;
	if (r->digest_bytes.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	crypto_hash(j->digest, r->digest_bytes.data, r->digest_bytes.len);
	r->digest_bytes.len = 0;
	return im_workers_submit(r->readers, j) ? im_workers_wait(r->readers, err) : 0;
}

static int open_segment(struct run *r, const uint8_t name[FILES_NAME_HASH_BYTES], struct im_error *err)
{
	char hex[2 * FILES_NAME_HASH_BYTES + 1];
	if (r->job_count == r->job_cap) {
		size_t cap = r->job_cap ? 2 * r->job_cap : 64;
		struct files_job **grown = realloc(r->jobs, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		r->jobs = grown;
		r->job_cap = cap;
	}
	struct files_job *j = calloc(1, sizeof *j);
	if (!j)
		return im_fail(err, IM_ENOMEM, "out of memory");
	j->capture = &r->capture;
	snprintf(j->key, sizeof j->key, "seg/%s", im_hex(hex, name, FILES_NAME_HASH_BYTES));
	r->jobs[r->job_count++] = r->open = j;
	return 0;
}

static int append_entry(struct run *r, const struct files_entry *e, struct im_error *err)
{
	struct files_job *j = r->open;
	if (j->entry_count == r->entry_cap) {
		size_t cap = r->entry_cap ? 2 * r->entry_cap : 64;
		struct files_entry *grown = realloc(j->entries, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		j->entries = grown;
		r->entry_cap = cap;
	}
	struct files_entry *to = &j->entries[j->entry_count];
	*to = *e;
	if (!(to->path = strdup(e->path)))
		return im_fail(err, IM_ENOMEM, "out of memory");
	j->entry_count++;
	im_buf_put(&r->digest_bytes, e->path, strlen(e->path) + 1);
	im_buf_put(&r->digest_bytes, e->link ? e->link : "", e->link ? strlen(e->link) + 1 : 1);
	files_key_put(&r->digest_bytes, &e->key);
	return 0;
}

static int on_entry(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct run *r = context;
	struct files_entry e = { .path = (char *)path, .nlink = (uint32_t)st->st_nlink };
	uint8_t name[FILES_NAME_HASH_BYTES];
	files_key_of(&e.key, st);
	files_name_hash(name, path);
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1 && files_links_note(&r->links, st, path, &e.link))
		return im_fail(err, IM_ENOMEM, "out of memory");
	bool boundary = !(im_le32(name) & SEGMENT_BOUNDARY_MASK);
	int rc = 0;
	if (r->open && (boundary || r->open->entry_count >= SEGMENT_MAX_ENTRIES))
		rc = close_segment(r, err);
	if (!rc && !r->open)
		rc = open_segment(r, name, err);
	return rc ? rc : append_entry(r, &e, err);
}

static void on_fault(void *context, const char *path, int errno_value)
{
	struct run *r = context;
	if (errno_value == ENOENT || errno_value == ENOTDIR || errno_value == ELOOP)
		files_capture_vanished(&r->capture, path);
	else
		files_capture_warn(&r->capture, true, "cannot read %.300s: %s", path, strerror(errno_value));
}

/* Follows links on the way: the path is the administrator's word. */
static int open_root(const char *path, int *ret, struct im_error *err)
{
	struct stat st;
	auto_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(
		    err, errno == ENOENT || errno == ENOTDIR ? IM_ENOTFOUND : IM_EIO, errno, "cannot open %s", path);
	if (fstat(fd, &st) || (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)))
		return im_fail(err, IM_EUSAGE, "%s is neither a folder nor a regular file", path);
	*ret = TAKE_FD(fd);
	return 0;
}

static int make_disks(struct run *r, struct im_error *err)
{
	r->capture.disks = calloc(r->reader_count, sizeof *r->capture.disks);
	for (unsigned i = 0; r->capture.disks && i < r->reader_count; i++) {
		struct archive *d = r->capture.disks[i] = archive_read_disk_new();
		if (!d)
			return im_fail(err, IM_ENOMEM, "out of memory");
		archive_read_disk_set_symlink_physical(d);
		archive_read_disk_set_behavior(d, ARCHIVE_READDISK_NO_SPARSE | ARCHIVE_READDISK_NO_FFLAGS);
		archive_read_disk_set_standard_lookup(d);
	}
	return r->capture.disks ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static uint64_t last_total(const struct snapshot_request *q)
{
	auto_buf struct im_buf b = { 0 };
	if (state_get(q->state, q->store->name, LIST_KEY, &b, NULL) || b.len < 8)
		return 0;
	return im_le64(b.data);
}

static int prepare(struct run *r, const struct snapshot_request *q, struct im_error *err)
{
	uint8_t chunk_key[32];
	r->capture.request = q;
	r->capture.root_fd = -1;
	pthread_mutex_init(&r->capture.mutex, NULL);
	int rc = open_root(q->store->path, &r->capture.root_fd, err);
	if (!rc)
		rc = files_exclude_init(&r->exclude, q->config, q->store, err);
	if (!rc)
		rc = keyring_id_key(q->keyring, "imvault chunk v1", chunk_key, err);
	if (!rc)
		rc = files_encoders_new(q->packer, chunk_key, q->config->compression_level, &r->capture.encoders, err);
	crypto_wipe(chunk_key, sizeof chunk_key);
	if (rc)
		return rc;
	r->reader_count = 4 * files_encoders_count(r->capture.encoders); /* they wait for the disk most of the time */
	if (r->reader_count > MAX_READERS)
		r->reader_count = MAX_READERS;
	r->capture.total_bytes = last_total(q);
	rc = make_disks(r, err);
	return rc ? rc : im_workers_new(r->reader_count, r->reader_count, read_job, &r->readers, err);
}

static void dispose(struct run *r)
{
	im_workers_free(r->readers);
	files_encoders_free(r->capture.encoders);
	for (unsigned i = 0; r->capture.disks && i < r->reader_count; i++)
		archive_read_free(r->capture.disks[i]);
	free(r->capture.disks);
	for (size_t i = 0; i < r->job_count; i++)
		files_job_free(r->jobs[i]);
	free(r->jobs);
	free(r->capture.first_vanished);
	im_buf_free(&r->digest_bytes);
	files_links_clear(&r->links);
	files_exclude_clear(&r->exclude);
	if (r->capture.root_fd >= 0)
		close(r->capture.root_fd);
	pthread_mutex_destroy(&r->capture.mutex);
}

static int walk(struct run *r, struct im_error *err)
{
	struct im_error why = { 0 };
	struct files_walk w = { .root_fd = r->capture.root_fd,
		.exclude = &r->exclude,
		.entry = on_entry,
		.fault = on_fault,
		.context = r };
	int rc = files_walk_run(&w, &why);
	if (!rc)
		rc = close_segment(r, &why);
	struct im_error first = { 0 };
	int rc2 = im_workers_wait(r->readers, &first); /* also after a failure: jobs borrow from r */
	if (rc2)
		return im_fail(err, rc2, "%s", first.text);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

#define KEY_BYTES (4 + 2 * FILES_NAME_HASH_BYTES) /* "seg/" and the hash */

static int compare_keys(const void *a, const void *b) { return memcmp(a, b, KEY_BYTES); }

/* Notes the keys of this run's segments and forgets those of the last run that are no more. */
static int update_list(struct run *r, uint64_t total_bytes, struct im_error *err)
{
	const struct snapshot_request *q = r->capture.request;
	auto_buf struct im_buf old = { 0 }, fresh = { 0 };
	im_buf_put_u64(&fresh, total_bytes);
	for (size_t i = 0; i < r->job_count; i++)
		im_buf_put(&fresh, r->jobs[i]->key, KEY_BYTES);
	if (fresh.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	qsort(fresh.data + 8, r->job_count, KEY_BYTES, compare_keys);
	int rc = state_get(q->state, q->store->name, LIST_KEY, &old, NULL);
	for (size_t at = 8; !rc && at + KEY_BYTES <= old.len; at += KEY_BYTES) {
		char key[KEY_BYTES + 1] = { 0 };
		memcpy(key, old.data + at, KEY_BYTES);
		if (!bsearch(key, fresh.data + 8, r->job_count, KEY_BYTES, compare_keys))
			rc = state_delete(q->state, q->store->name, key, err);
	}
	if (rc && rc != IM_ENOTFOUND)
		return rc;
	return state_put(q->state, q->store->name, LIST_KEY, fresh.data, fresh.len, err);
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static int collect_packs(const struct run *r, struct snapshot_result *ret, struct im_error *err)
{
	size_t total = 0, n = 0, kept = 0;
	for (size_t i = 0; i < r->job_count; i++)
		total += r->jobs[i]->pack_count;
	uint32_t *packs = calloc(total + 1, sizeof *packs);
	if (!packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < r->job_count; i++)
		for (size_t j = 0; j < r->jobs[i]->pack_count; j++)
			packs[n++] = r->jobs[i]->packs[j];
	qsort(packs, n, sizeof *packs, compare_u32);
	for (size_t i = 0; i < n; i++)
		if (!kept || packs[kept - 1] != packs[i])
			packs[kept++] = packs[i];
	ret->packs = packs;
	ret->pack_count = kept;
	return 0;
}

/* Relative paths other stores hold, so that a check of what was restored does not count them. */
static json_t *list_elsewhere(const struct files_exclude *x)
{
	json_t *list = json_array();
	for (size_t i = 0; list && i < x->path_count; i++)
		json_array_append_new(list, json_string(x->paths[i])); /* a name that is not UTF-8 is left out */
	return list;
}

static int make_manifest(const struct run *r, json_t **ret, struct files_counts *ret_counts, struct im_error *err)
{
	const struct im_config_store *store = r->capture.request->store;
	auto_buf struct im_buf refs = { 0 };
	struct files_counts c = { 0 };
	for (size_t i = 0; i < r->job_count; i++) {
		const struct files_job *j = r->jobs[i];
		c.files += j->counts.files;
		c.dirs += j->counts.dirs;
		c.others += j->counts.others;
		c.bytes += j->counts.bytes;
		for (size_t k = 0; k < j->ref_count; k++)
			ref_put(&refs, j->refs[k]);
	}
	auto_free char *segments = refs.failed ? NULL : im_base64(refs.data, refs.len);
	json_t *m = !segments
	    ? NULL
	    : json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "name", store->name, "type", "files", "path",
		  store->path, "segments", segments, "files", (json_int_t)c.files, "dirs", (json_int_t)c.dirs, "others",
		  (json_int_t)c.others, "bytes", (json_int_t)c.bytes, "elsewhere", list_elsewhere(&r->exclude));
	if (!m)
		return im_fail(err, segments ? IM_EUSAGE : IM_ENOMEM,
		    segments ? "the store's path is not UTF-8" : "out of memory");
	*ret = m;
	*ret_counts = c;
	return 0;
}

static void warn_vanished(struct run *r)
{
	struct files_capture *c = &r->capture;
	if (c->vanished)
		files_capture_warn(c, false, "%llu file%s vanished while the tree was read (%.300s%s)",
		    (unsigned long long)c->vanished, c->vanished == 1 ? "" : "s",
		    c->first_vanished ? c->first_vanished : "?", c->vanished == 1 ? "" : ", ...");
}

static int conclude(struct run *r, struct snapshot_result *ret, struct im_error *err)
{
	struct snapshot_result result = { .pause_us = -1 };
	struct files_counts counts = { 0 };
	int rc = collect_packs(r, &result, err);
	if (!rc)
		rc = make_manifest(r, &result.manifest, &counts, err);
	if (!rc)
		rc = update_list(r, counts.bytes, err);
	if (rc) {
		free(result.packs);
		json_decref(result.manifest);
		return rc;
	}
	warn_vanished(r);
	result.bytes = counts.bytes;
	result.bytes_read = r->capture.read_bytes;
	result.bytes_changed = files_encoders_new_bytes(r->capture.encoders);
	result.partial = r->capture.partial;
	*ret = result;
	return 0;
}

/* The follower goes on before the tree is read: what the image then has of later appends is the same in the log. */
static void anchor(const struct snapshot_request *q, json_t **ret)
{
	struct snapshot_anchor *a = q->anchor;
	struct im_error why = { 0 };
	if (!a || a->freeze(a, q->store->name, &why)) /* it does not follow this store */
		return;
	json_t *here = json_pack("{s:b}", "here", 1); /* so that the follower knows of the anchor, even if nothing is new */
	int rc = here ? a->pinned(a, q->store->name, here, ret, &why) : im_fail(&why, IM_ENOMEM, "out of memory");
	json_decref(here);
	if (rc && q->events && q->events->warn) {
		auto_free char *text = im_format("this snapshot does not stand in the log: %s", why.text);
		q->events->warn(q->events->context, q->store->name, text ? text : why.text);
	}
}

static int capture_tree(const struct snapshot_request *q, struct snapshot_result *ret, struct im_error *err)
{
	struct run r = { 0 };
	int64_t instant_ms = im_now_ms(); /* what was there at the beginning is in the image */
	json_t *log = NULL;
	int rc = prepare(&r, q, err);
	if (!rc)
		anchor(q, &log);
	if (!rc)
		rc = walk(&r, err);
	if (!rc)
		rc = conclude(&r, ret, err);
	if (!rc) {
		ret->instant_ms = instant_ms;
		ret->log = json_incref(log);
	}
	json_decref(log);
	dispose(&r);
	return rc;
}

int files_snapshot(const struct snapshot_request *request, struct snapshot_result *ret, struct im_error *err)
{
	struct snapshot_result result = { 0 };
	struct im_error post_err = { 0 };
	int rc = files_hook_run(request->store, "pre", err);
	if (!rc)
		rc = capture_tree(request, &result, err);
	/* also after a failed or killed pre hook: it may have stopped the server half-way */
	int post_rc = files_hook_run(request->store, "post", &post_err);
	if (post_rc && request->events && request->events->warn)
		request->events->warn(request->events->context, request->store->name, post_err.text);
	if (rc)
		return rc;
	result.partial |= post_rc != 0;
	*ret = result;
	return 0;
}
