/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the pieces of many files, out of order and from several threads. Pieces of large files
 * are gathered into 1 MiB blocks and written past the page cache by threads of their own
 * (measured here: half the time and a tenth of the kernel CPU of buffered writes into fresh
 * memory); what is small or not aligned goes through the page cache. Memory: WRITER_BLOCKS MiB.
 */
#ifndef IM_RESTORE_WRITER_H
#define IM_RESTORE_WRITER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRITER_BLOCK_BYTES (1u << 20)
#define WRITER_BLOCKS 64

struct writer;

struct writer_file { /* one file to be made, beneath root_fd */
	const char *path;    /* for messages, and to open it */
	int root_fd;
	uint64_t size_bytes;
	bool whole;          /* every byte will be written: reserve the space */
	bool unaligned;      /* some piece is not a multiple of 4 KiB: buffered only */
	bool made;           /* exists in the stage; the writer's from here on */
	bool no_direct;
	int16_t slot;        /* -1 at first */
};

int writer_new(struct writer **ret, struct im_error *err);
void writer_free(struct writer *w); /* drops what is not written yet */

/* Any thread; f must live until the next drain. offset + len ≤ size_bytes. */
int writer_put(struct writer *w, struct writer_file *f, uint64_t offset, const uint8_t *data,
    size_t len, struct im_error *err);
/* A file that is one piece: made, written, and open in *ret_fd, which the caller closes. */
int writer_put_whole(struct writer *w, struct writer_file *f, const uint8_t *data, size_t len,
    int *ret_fd, struct im_error *err);
/* When nothing of it is in flight: opens it (making it if nothing was ever written) at its exact
 * size. The caller closes ret_fd. */
int writer_reopen(struct writer *w, struct writer_file *f, int *ret_fd, struct im_error *err);
/* Waits until everything put has been written; not during puts. */
int writer_drain(struct writer *w, struct im_error *err);
uint64_t writer_busy_us(const struct writer *w); /* spent in write calls, summed over threads */

#endif
