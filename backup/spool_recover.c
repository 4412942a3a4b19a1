/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a spool: what the head says is finished, what it does not know is dropped, and what has
 * its own name waits to be shipped, in order.
 */
#include "backup/spool_internal.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD_MAX_BYTES (16u << 20)

/* Name in the vault of a name in the spool; NULL if it is none of ours. */
static char *object_name(const struct spool *s, const char *name)
{
	unsigned first;
	struct log_name parsed;
	size_t prefix = SEQUENCE_CHARS + 1 + LOG_EPOCH_CHARS + 1;
	if (strlen(name) <= prefix || strspn(name, "0123456789abcdef") != SEQUENCE_CHARS || name[SEQUENCE_CHARS] != '-' ||
	    name[prefix - 1] != '-' || sscanf(name + prefix, "%8x-", &first) != 1)
		return NULL;
	auto_free char *object = im_format("logs/%s/%s/%.*s/%05x/%s", s->node, s->store, LOG_EPOCH_CHARS, name + SEQUENCE_CHARS + 1, first >> 12,
	    name + prefix);
	char *node = NULL;
	if (!object || !log_name_parse(object, &parsed, &node))
		return NULL;
	free(node);
	log_name_clear(&parsed);
	return TAKE_PTR(object);
}

static uint64_t sequence_of(const char *name)
{
	return strtoull(name, NULL, 16);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct spool_item *)a)->name, ((const struct spool_item *)b)->name);
}

/* --- the head --- */

static int read_head(const char *folder, json_t **ret, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	auto_free char *path = im_path_join(folder, HEAD);
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	struct im_error why = { 0 };
	int rc = im_file_read(path, HEAD_MAX_BYTES, &text, &why);
	if (rc == IM_ENOTFOUND)
		return 0;
	if (rc && rc != IM_ECORRUPT && rc != IM_EUSAGE)
		return im_fail(err, rc, "%s", why.text);
	*ret = rc ? NULL : json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	*ret = *ret ? *ret : json_null();
	return 0;
}

/* A head that cannot be read is kept aside for whoever wants to know. */
static int take_head(struct spool *s, const char *folder, struct spool_head *ret, bool *ret_lost, char ret_why[256], struct im_error *err)
{
	json_t *j = NULL;
	int rc = read_head(folder, &j, err);
	if (rc || !j)
		return rc;
	json_t *parts = NULL;
	if (spool_head_decode(j, ret, &s->sequence, &parts)) {
		json_decref(s->newest);
		s->newest = parts;
	} else {
		*ret_lost = true;
		snprintf(ret_why, 256, "the local record of where the log ended is damaged");
		renameat(s->folder, HEAD, s->folder, HEAD_DAMAGED);
	}
	json_decref(j);
	return 0;
}

static void finish_names(struct spool *s)
{
	size_t i;
	json_t *name;
	json_array_foreach(s->newest, i, name) {
		auto_free char *object = json_is_string(name) ? object_name(s, json_string_value(name)) : NULL;
		auto_free char *temporary = object ? spool_temporary_name(json_string_value(name)) : NULL;
		if (temporary)
			renameat(s->queue, temporary, s->queue, json_string_value(name));
	}
}

/* --- the queue --- */

static int add_found(struct spool *s, const char *name, uint64_t bytes, struct im_error *err)
{
	struct spool_item item = { .object = object_name(s, name), .bytes = bytes };
	if (!item.object)
		return 0; /* not ours: left alone */
	int rc = spool_items_reserve(&s->waiting, 1, err);
	if (rc == 0 && !(item.name = strdup(name)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc) {
		spool_item_clear(&item);
		return rc;
	}
	s->waiting.at[s->waiting.count++] = item;
	s->bytes += bytes;
	if (sequence_of(name) >= s->sequence)
		s->sequence = sequence_of(name) + 1;
	return 0;
}

static int read_queue(struct spool *s, struct im_error *err)
{
	int fd = openat(s->queue, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int error = errno;
		if (fd >= 0)
			close(fd);
		return im_fail_errno(err, IM_EIO, error, "cannot read the spool");
	}
	for (const struct dirent *e; (e = readdir(dir));) {
		struct stat st;
		if (fstatat(s->queue, e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		if (strncmp(e->d_name, TEMPORARY, strlen(TEMPORARY)) == 0) {
			unlinkat(s->queue, e->d_name, 0);
			continue;
		}
		int rc = add_found(s, e->d_name, (uint64_t)st.st_size, err);
		if (rc)
			return rc;
	}
	if (s->waiting.count)
		qsort(s->waiting.at, s->waiting.count, sizeof *s->waiting.at, by_name);
	return 0;
}

/* The newest segment, if it still waits: status wants to know what was shipped with it. */
static void mark_newest(struct spool *s, const struct spool_head *head)
{
	size_t parts = json_array_size(s->newest);
	const char *last = parts ? json_string_value(json_array_get(s->newest, parts - 1)) : NULL;
	for (size_t i = s->waiting.count; last && i-- > 0;) {
		struct spool_item *item = &s->waiting.at[i];
		if (strcmp(item->name, last))
			continue;
		item->point = head->point;
		item->complete_ms = head->complete_ms;
		item->position = json_dumps(head->position, JSON_COMPACT);
		return;
	}
}

static int open_folders(struct spool *s, const char *folder, struct im_error *err)
{
	s->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->folder < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open %s", folder);
	if (mkdirat(s->folder, QUEUE, 0700) && errno != EEXIST)
		return im_fail_errno(err, IM_EIO, errno, "cannot make the folder %s/" QUEUE, folder);
	s->queue = openat(s->folder, QUEUE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return s->queue < 0 ? im_fail_errno(err, IM_EIO, errno, "cannot open %s/" QUEUE, folder) : 0;
}

int spool_open(const char *folder, const char *node, const char *store, struct spool **ret, struct spool_head *ret_head, bool *ret_lost,
    char ret_why[256], struct im_error *err)
{
	struct spool *s = calloc(1, sizeof *s);
	if (!s)
		return im_fail(err, IM_ENOMEM, "out of memory");
	s->folder = s->queue = -1;
	pthread_mutex_init(&s->lock, NULL);
	s->node = strdup(node);
	s->store = strdup(store);
	s->newest = json_array();
	*ret_head = (struct spool_head){ 0 };
	*ret_lost = false;
	int rc = s->node && s->store && s->newest ? open_folders(s, folder, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = take_head(s, folder, ret_head, ret_lost, ret_why, err);
	if (rc == 0) {
		finish_names(s);
		rc = read_queue(s, err);
	}
	if (rc) {
		spool_head_clear(ret_head);
		spool_close(s);
		return rc;
	}
	mark_newest(s, ret_head);
	*ret = s;
	return 0;
}
