/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared state: head, files, blocks, digests, one after the other. Whoever opens it checks the
 * sizes, since the memory may be another program's.
 */
#include "restore/instant/table.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x74736e49746c7661u /* "avltInst" */
#define VERSION 3
#define FILES_MAX (16u << 20)

static uint64_t blocks_of(uint64_t size)
{
	return size / TABLE_BLOCK_BYTES + (size % TABLE_BLOCK_BYTES != 0);
}

static size_t round_up(size_t n)
{
	return (n + 63) / 64 * 64;
}

/* Where the parts lie; the bytes all of it takes. */
static size_t lay_out(struct table *t, uint8_t *base, uint32_t files, uint64_t blocks, uint64_t digests)
{
	size_t at = round_up(sizeof(struct table_head));
	t->head = (struct table_head *)base;
	t->files = base ? (struct table_file *)(base + at) : NULL;
	at += round_up(files * sizeof(struct table_file));
	t->blocks = base ? (_Atomic uint8_t *)(base + at) : NULL;
	at += round_up(blocks);
	t->digests = base ? (uint8_t(*)[REBUILD_DIGEST_BYTES])(base + at) : NULL;
	return at + digests * REBUILD_DIGEST_BYTES;
}

static int map(struct table *t, uint32_t files, uint64_t blocks, uint64_t digests, bool writable, struct im_error *err)
{
	t->bytes = lay_out(t, NULL, files, blocks, digests);
	uint8_t *base = mmap(NULL, t->bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, t->fd, 0);
	if (base == MAP_FAILED) {
		t->head = NULL;
		return im_fail_errno(err, IM_ENOMEM, errno, "cannot map the state of the restore");
	}
	lay_out(t, base, files, blocks, digests);
	return 0;
}

int table_new(const uint64_t *sizes, const bool *digests, uint32_t file_count, struct table *ret, struct im_error *err)
{
	struct table t = { .fd = -1 };
	uint64_t blocks = 0, total = 0;
	bool any_digest = false;
	for (uint32_t i = 0; i < file_count; i++) {
		blocks += blocks_of(sizes[i]);
		total += sizes[i];
		any_digest |= digests[i];
	}
	uint64_t digest_count = any_digest ? blocks : 0;
	t.fd = memfd_create(TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (t.fd < 0 || ftruncate(t.fd, (off_t)lay_out(&t, NULL, file_count, blocks, digest_count)) ||
	    fcntl(t.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
		int rc = im_fail_errno(err, IM_ENOMEM, errno, "cannot keep the state of the restore");
		t.head = NULL;
		table_close(&t);
		return rc;
	}
	int rc = map(&t, file_count, blocks, digest_count, true, err);
	if (rc) {
		table_close(&t);
		return rc;
	}
	*t.head = (struct table_head){ .magic = MAGIC, .version = VERSION, .file_count = file_count, .block_count = blocks, .total_bytes = total,
		.digest_count = digest_count, .files_left = file_count };
	uint64_t at = 0;
	for (uint32_t i = 0; i < file_count; i++) {
		uint32_t n = (uint32_t)blocks_of(sizes[i]);
		t.files[i] = (struct table_file){ .size = sizes[i], .limit = sizes[i], .first_block = at, .blocks = n, .left = n, .has_digest = digests[i] };
		at += n;
	}
	*ret = t;
	return 0;
}

static bool files_fit(const struct table *t)
{
	const struct table_head *h = t->head;
	for (uint32_t i = 0; i < h->file_count; i++) {
		const struct table_file *f = &t->files[i];
		if (f->blocks != blocks_of(f->size) || f->first_block > h->block_count || f->blocks > h->block_count - f->first_block ||
		    (f->has_digest && h->digest_count != h->block_count))
			return false;
	}
	return true;
}

int table_open(int fd, bool writable, struct table *ret, struct im_error *err)
{
	struct table_head head;
	struct stat st;
	if (fstat(fd, &st) || pread(fd, &head, sizeof head, 0) != sizeof head || head.magic != MAGIC || head.version != VERSION ||
	    head.file_count > FILES_MAX || head.block_count > (uint64_t)st.st_size || head.digest_count > (uint64_t)st.st_size / REBUILD_DIGEST_BYTES)
		return im_fail(err, IM_EUSAGE, "this is not the state of an instant restore of this version");
	struct table t = { .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3) };
	if (t.fd < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot keep the state of the restore");
	if (lay_out(&t, NULL, head.file_count, head.block_count, head.digest_count) != (size_t)st.st_size) {
		t.head = NULL;
		table_close(&t);
		return im_fail(err, IM_EUSAGE, "the state of the instant restore does not have its size");
	}
	int rc = map(&t, head.file_count, head.block_count, head.digest_count, writable, err);
	if (rc == 0 && !files_fit(&t))
		rc = im_fail(err, IM_EUSAGE, "the files in the state of the instant restore do not fit");
	if (rc)
		table_close(&t);
	else
		*ret = t;
	return rc;
}

void table_close(struct table *t)
{
	if (t->head)
		munmap(t->head, t->bytes);
	if (t->fd >= 0)
		close(t->fd);
	*t = (struct table){ .fd = -1 };
}

void table_take_over(struct table *t)
{
	uint32_t files_left = 0;
	uint64_t filled = 0;
	for (uint32_t i = 0; i < t->head->file_count; i++) {
		struct table_file *f = &t->files[i];
		uint32_t left = 0;
		for (uint32_t k = 0; k < f->blocks; k++) {
			_Atomic uint8_t *b = table_block(t, i, k);
			uint8_t state = *b & BLOCK_STATE;
			if (state != BLOCK_DONE)
				*b = (uint8_t)((*b & ~BLOCK_STATE) | BLOCK_NONE);
			left += state != BLOCK_DONE;
		}
		f->left = left;
		if (!left && f->state == FILE_LAZY)
			f->state = FILE_WHOLE;
		filled += (uint64_t)(f->blocks - left) * TABLE_BLOCK_BYTES;
		files_left += f->state != FILE_ORDINARY;
	}
	t->head->bad_blocks = 0;
	t->head->files_left = files_left;
	t->head->filled_bytes = filled < t->head->total_bytes ? filled : t->head->total_bytes;
	t->head->waiting = 0;
}

uint32_t table_unsafe_files(const struct table *t)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < t->head->file_count; i++)
		n += t->files[i].unsafe;
	return n;
}

bool table_is_stuck(const struct table *t)
{
	uint64_t left = 0, bad = t->head->bad_blocks;
	if (table_unsafe_files(t))
		return true;
	for (uint32_t i = 0; bad && i < t->head->file_count; i++)
		left += t->files[i].left;
	return bad && left == bad;
}

int table_check(const struct table *t, struct im_error *err)
{
	if (!table_is_stuck(t))
		return 0;
	if (table_unsafe_files(t))
		return im_fail(err, IM_EIO,
		    "the disk did not take all of it, and what it holds of %u files is not known: reading them is an error. Give it up (imvault restore --abort) and restore to another disk: %s",
		    table_unsafe_files(t), t->head->trouble);
	return im_fail(err, IM_ECORRUPT,
	    "everything is back but %" PRIu64 " KiB that are damaged in the vault: reading them is an error, never wrong bytes. The service stays as it is until the vault is repaired (then: imvault restore --resume) or given up (imvault restore --abort)",
	    t->head->bad_blocks * TABLE_BLOCK_BYTES / 1024);
}

void table_trouble(struct table *t, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(t->head->trouble, sizeof t->head->trouble, format, args);
	va_end(args);
	atomic_fetch_add(&t->head->trouble_count, 1);
}
