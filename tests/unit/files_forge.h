/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tree segments as a hostile node would write them: any name, any body.
 */
#ifndef IM_TESTS_FILES_FORGE_H
#define IM_TESTS_FILES_FORGE_H

#include "base/bytes.h"

#include <archive.h>
#include <archive_entry.h>

struct forge {
	struct im_buf table, bytes; /* bytes: the archive */
	uint32_t chunks;
	struct archive *archive;
};

void forge_begin(struct forge *f);
void forge_chunk(struct forge *f, uint32_t plain_bytes); /* a row of the chunk table */
/* type: AE_IFREG …; target: of a symlink; link: makes it a hard link. */
void forge_add(struct forge *f, unsigned type, const char *path, const char *target, const char *link, const void *body,
    size_t len);
/* A regular file with one piece. */
void forge_file(struct forge *f, const char *path, uint64_t size, uint64_t file_offset, uint32_t chunk, uint32_t skip,
    uint32_t len);
void forge_end(struct forge *f, struct im_buf *ret);

#endif
