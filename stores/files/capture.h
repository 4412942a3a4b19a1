/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing one segment: metadata by libarchive, contents by content.h, and what the local state
 * remembers of it. Jobs run on reader threads; what they share is in struct files_capture.
 */
#ifndef IM_STORES_FILES_CAPTURE_H
#define IM_STORES_FILES_CAPTURE_H

#include "stores/files/content.h"
#include "stores/files/memory.h"
#include "stores/store.h"

#include <pthread.h>

struct files_entry {
	char *path, *link; /* link: hard link to this earlier path, or NULL; borrowed from the walker's table */
	struct files_key key;
	uint32_t nlink;
};

struct files_capture {
	const struct snapshot_request *request;
	int root_fd;
	struct files_encoders *encoders;
	struct archive **disks; /* one per reader */

	pthread_mutex_t mutex; /* guards all below */
	uint64_t read_bytes, done_bytes, total_bytes;
	uint64_t vanished, warned;
	char *first_vanished;
	bool partial;
};

/* A segment's way from walker to manifest. */
struct files_job {
	struct files_capture *capture;
	struct files_entry *entries; /* freed when captured */
	size_t entry_count;
	uint8_t digest[32];
	char key[48]; /* in the local state */
	/* Result: */
	struct im_ref *refs;
	size_t ref_count;
	uint32_t *packs;
	size_t pack_count;
	struct files_counts counts;
};

void files_job_clear_entries(struct files_job *j);
void files_job_free(struct files_job *j);
/* On reader number `reader`. */
int files_job_run(struct files_job *j, unsigned reader, struct im_error *err);

/* One line for the user; partial: something is missing from the snapshot. Any thread. */
void files_capture_warn(struct files_capture *c, bool partial, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An entry was there a moment ago and is not any more. */
void files_capture_vanished(struct files_capture *c, const char *path);

#endif
