/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a back end by URL, and the wrappers everything outside storage/ calls. Names are checked
 * here once, so that no text from a vault or a command line ever becomes a path outside of it.
 */
#include "vault/storage/storage.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NAME_BYTES 512

static bool part_char(char c, bool first)
{
	bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
	return alnum || (!first && (c == '.' || c == '_' || c == '-'));
}

static bool name_valid(const char *name, size_t len)
{
	if (len == 0 || len > MAX_NAME_BYTES)
		return false;
	bool first = true;
	for (size_t i = 0; i < len; i++) {
		if (name[i] == '/' && !first) {
			first = true;
			continue;
		}
		if (!part_char(name[i], first))
			return false;
		first = false;
	}
	return !first; /* no trailing slash */
}

static int check_name(const char *name, struct im_error *err)
{
	return name_valid(name, strlen(name)) ? 0 : im_fail(err, IM_EUSAGE, "\"%s\" cannot be the name of a vault object", name);
}

static struct storage_fault_plan *open_faults;

void storage_open_with_faults(struct storage_fault_plan *plan)
{
	open_faults = plan;
}

static int open_plain(const char *url, bool create, struct storage **ret, struct im_error *err)
{
	const char *scheme_end = strstr(url, "://");
	if (!*url)
		return im_fail(err, IM_EUSAGE, "the vault's address is empty; give a folder");
	if (!scheme_end)
		return storage_dir_open(url, create, ret, err);
	if (strncmp(url, "file://", 7))
		return im_fail(err, IM_EUSAGE, "this build of imvault cannot use %.*s:// vaults (%s); give a folder",
		    (int)(scheme_end - url), url, url);
	if (url[7] != '/')
		return im_fail(err, IM_EUSAGE, "%s: a file:// address needs an absolute path, as in file:///srv/backup", url);
	return storage_dir_open(url + 7, create, ret, err);
}

int storage_open(const char *url, bool create, struct storage **ret, struct im_error *err)
{
	struct storage *s;
	int rc = open_plain(url, create, &s, err);
	if (rc == 0 && open_faults)
		return storage_fault_wrap(s, open_faults, ret, err);
	if (rc == 0)
		*ret = s;
	return rc;
}

int storage_read(struct storage *s, const char *name, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	int rc = check_name(name, err);
	return rc ? rc : s->ops->read(s, name, offset, ret, len, err);
}

int storage_size(struct storage *s, const char *name, uint64_t *ret_bytes, struct im_error *err)
{
	int rc = check_name(name, err);
	return rc ? rc : s->ops->size(s, name, ret_bytes, err);
}

int storage_resident(struct storage *s, const char *name, uint64_t offset, uint64_t len, uint64_t *ret_bytes, struct im_error *err)
{
	int rc = check_name(name, err);
	if (rc == 0 && !s->ops->resident)
		rc = im_fail(err, IM_ENOTFOUND, "what of %s lies in memory is not known", name);
	return rc ? rc : s->ops->resident(s, name, offset, len, ret_bytes, err);
}

int storage_read_object(struct storage *s, const char *name, size_t limit_bytes, struct im_buf *ret, struct im_error *err)
{
	uint64_t size;
	int rc = storage_size(s, name, &size, err);
	if (rc)
		return rc;
	if (size > limit_bytes)
		return im_fail(err, IM_ECORRUPT, "%s in %s is larger than the %zu bytes it may have", name, s->url, limit_bytes);
	size_t start = ret->len;
	uint8_t *p = im_buf_grow(ret, (size_t)size);
	if (!p && size)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", name);
	rc = size ? s->ops->read(s, name, 0, p, (size_t)size, err) : 0;
	if (rc)
		ret->len = start;
	return rc;
}

int storage_put_object(struct storage *s, const char *name, const void *data, size_t len, struct im_error *err)
{
	struct storage_put *p;
	int rc = check_name(name, err);
	if (rc == 0)
		rc = s->ops->put_open(s, &p, err);
	if (rc)
		return rc;
	rc = s->ops->put_write(p, data, len, err);
	if (rc) {
		s->ops->put_abandon(p);
		return rc;
	}
	return s->ops->put_commit(p, name, err);
}

static int check_prefix(const char *prefix, struct im_error *err)
{
	size_t len = strlen(prefix);
	if (len && (prefix[len - 1] != '/' || !name_valid(prefix, len - 1)))
		return im_fail(err, IM_EUSAGE, "\"%s\" cannot be a prefix of vault objects", prefix);
	return 0;
}

int storage_list(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	int rc = check_prefix(prefix, err);
	return rc ? rc : s->ops->list(s, prefix, fn, context, err);
}

struct folders { /* found in a listing of everything */
	size_t prefix_len;
	char last[MAX_NAME_BYTES + 1];
	storage_list_fn *fn;
	void *context;
};

static int take_folder(void *context, const char *name, uint64_t size_bytes)
{
	struct folders *f = context;
	const char *slash = strchr(name + f->prefix_len, '/');
	size_t len = slash ? (size_t)(slash - name) + 1 : 0;
	(void)size_bytes;
	if (!len || len >= sizeof f->last || (strncmp(f->last, name, len) == 0 && !f->last[len]))
		return 0;
	memcpy(f->last, name, len);
	f->last[len] = 0;
	return f->fn(f->context, f->last, 0);
}

int storage_list_folders(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	struct folders f = { .prefix_len = strlen(prefix), .fn = fn, .context = context };
	int rc = check_prefix(prefix, err);
	if (rc)
		return rc;
	return s->ops->folders ? s->ops->folders(s, prefix, fn, context, err) : s->ops->list(s, prefix, take_folder, &f, err);
}

int storage_revive(struct storage *s, struct im_error *err)
{
	return s->ops->revive ? s->ops->revive(s, err) : 0;
}

void storage_close(struct storage *s)
{
	if (s)
		s->ops->close(s);
}
