/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata on its way back. ACLs are set as the attributes system.posix_acl_*, in the layout of
 * linux/posix_acl_xattr.h: by descriptor, so no path can be swapped under it.
 */
#include "stores/files/meta.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACL_VERSION 2u
#define ACL_NO_ID 0xffffffffu
#define MAX_ACL_ENTRIES 4096

struct acl_row {
	uint16_t tag, perm;
	uint32_t id;
};

struct archive *files_meta_lookup_new(void)
{
	struct archive *a = archive_write_disk_new();
	if (a)
		archive_write_disk_set_standard_lookup(a);
	return a;
}

void files_meta_lookup_free(struct archive *lookup)
{
	if (lookup)
		archive_write_free(lookup);
}

static uint32_t uid_of(struct archive *lookup, const char *name, int64_t id)
{
	return (uint32_t)(name && *name ? archive_write_disk_uid(lookup, name, id) : id);
}

static uint32_t gid_of(struct archive *lookup, const char *name, int64_t id)
{
	return (uint32_t)(name && *name ? archive_write_disk_gid(lookup, name, id) : id);
}

void files_meta_of(struct files_meta *ret, struct archive_entry *e, struct archive *lookup)
{
	*ret = (struct files_meta){ .mode = archive_entry_mode(e),
		.set_owner = geteuid() == 0,
		.uid = uid_of(lookup, archive_entry_uname(e), archive_entry_uid(e)),
		.gid = gid_of(lookup, archive_entry_gname(e), archive_entry_gid(e)),
		.mtime = { .tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e) } };
	if (ret->mtime.tv_nsec < 0 || ret->mtime.tv_nsec > 999999999)
		ret->mtime.tv_nsec = 0;
	/* without the owner, set-user-id would lend out the rights of whoever restores */
	if (!ret->set_owner && (ret->uid != geteuid() || ret->gid != getegid()))
		ret->mode &= ~(uint32_t)(S_ISUID | S_ISGID);
}

int64_t files_meta_ns(const struct timespec *t, bool *ret_exact)
{
	int64_t ns;
	*ret_exact = !__builtin_mul_overflow((int64_t)t->tv_sec, INT64_C(1000000000), &ns) &&
	    !__builtin_add_overflow(ns, (int64_t)t->tv_nsec, &ns);
	return *ret_exact ? ns : t->tv_sec < 0 ? INT64_MIN : INT64_MAX;
}

static void put_extra(struct im_buf *b, const char *name, const void *value, size_t len)
{
	im_buf_put_u32(b, (uint32_t)strlen(name));
	im_buf_put(b, name, strlen(name) + 1);
	im_buf_put_u32(b, (uint32_t)len);
	im_buf_put(b, value, len);
}

static int compare_rows(const void *a, const void *b)
{
	const struct acl_row *x = a, *y = b;
	if (x->tag != y->tag)
		return x->tag < y->tag ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* libarchive's tag as the kernel's; 0: not of a POSIX ACL. */
static uint16_t kernel_tag(int tag)
{
	switch (tag) {
	case ARCHIVE_ENTRY_ACL_USER_OBJ: return 0x01;
	case ARCHIVE_ENTRY_ACL_USER: return 0x02;
	case ARCHIVE_ENTRY_ACL_GROUP_OBJ: return 0x04;
	case ARCHIVE_ENTRY_ACL_GROUP: return 0x08;
	case ARCHIVE_ENTRY_ACL_MASK: return 0x10;
	case ARCHIVE_ENTRY_ACL_OTHER: return 0x20;
	default: return 0;
	}
}

static void put_acl(struct im_buf *b, struct archive_entry *e, struct archive *lookup, int want, const char *attribute)
{
	struct acl_row rows[MAX_ACL_ENTRIES];
	size_t n = 0;
	int type, permset, tag, qualifier;
	const char *name;
	if (archive_entry_acl_reset(e, want) <= 0)
		return;
	while (n < MAX_ACL_ENTRIES &&
	    archive_entry_acl_next(e, want, &type, &permset, &tag, &qualifier, &name) == ARCHIVE_OK) {
		struct acl_row row = { .tag = kernel_tag(tag), .perm = (uint16_t)(permset & 7), .id = ACL_NO_ID };
		if (tag == ARCHIVE_ENTRY_ACL_USER)
			row.id = uid_of(lookup, name, qualifier);
		else if (tag == ARCHIVE_ENTRY_ACL_GROUP)
			row.id = gid_of(lookup, name, qualifier);
		if (row.tag)
			rows[n++] = row;
	}
	if (n < 3)
		return;
	qsort(rows, n, sizeof *rows, compare_rows);
	uint8_t value[4 + 8 * MAX_ACL_ENTRIES];
	im_put_le32(value, ACL_VERSION);
	for (size_t i = 0; i < n; i++) {
		im_put_le32(value + 4 + 8 * i, rows[i].tag | (uint32_t)rows[i].perm << 16);
		im_put_le32(value + 8 + 8 * i, rows[i].id);
	}
	put_extra(b, attribute, value, 4 + 8 * n);
}

void files_meta_extras(struct im_buf *ret, struct archive_entry *e, struct archive *lookup)
{
	const char *name;
	const void *value;
	size_t len;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK)
		if (name && strncmp(name, "system.", 7))
			put_extra(ret, name, value, len);
	if (archive_entry_acl_types(e) & ARCHIVE_ENTRY_ACL_TYPE_ACCESS)
		put_acl(ret, e, lookup, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access");
	if (archive_entry_acl_types(e) & ARCHIVE_ENTRY_ACL_TYPE_DEFAULT)
		put_acl(ret, e, lookup, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default");
}

void files_meta_refuse(struct files_meta_refused *refused, const char *path, const char *what, int errno_value)
{
	if (!refused->count++)
		snprintf(refused->first, sizeof refused->first, "%.150s: %.40s: %s", path, what, strerror(errno_value));
}

void files_meta_set_extras(
    int fd, const char *at, const char *path, const void *extras, size_t len, struct files_meta_refused *refused)
{
	struct im_reader r = im_reader_of(extras, len);
	while (im_read_left(&r) && !r.failed) {
		uint32_t name_len = im_read_u32(&r);
		const char *name = (const char *)im_read_view(&r, (size_t)name_len + 1);
		uint32_t value_len = im_read_u32(&r);
		const void *value = im_read_view(&r, value_len);
		if (r.failed)
			return;
		int failed =
		    fd >= 0 ? fsetxattr(fd, name, value, value_len, 0) : lsetxattr(at, name, value, value_len, 0);
		if (failed)
			files_meta_refuse(refused, path, name, errno);
	}
}
