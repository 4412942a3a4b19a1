/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a vault's objects lie. One vtable; a directory is the embedded default, S3 and SFTP add a
 * file each. Objects are write-once: put never replaces, and an object is durable when put_commit
 * returns 0. Names are relative, '/'-separated, made of [A-Za-z0-9._-] (checked by the wrappers).
 *
 * Threads: every function may be called from several threads at once; one storage_put belongs to
 * one thread at a time.
 */
#ifndef IM_VAULT_STORAGE_H
#define IM_VAULT_STORAGE_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>

struct storage;
struct storage_put;

/* Return non-zero to stop; storage_list then returns that value. */
typedef int storage_list_fn(void *context, const char *name, uint64_t size_bytes);

struct storage_ops {
	/* Required. */

	/* Begins an object whose name is told at commit (packs are named by their hash). Back ends that
	 * need the name first spool; an object is at most 2 GiB. */
	int (*put_open)(struct storage *s, struct storage_put **ret, struct im_error *err);
	int (*put_write)(struct storage_put *p, const void *data, size_t len, struct im_error *err);
	/* Makes the object durable under name. An object of that name already there is IM_EUSAGE for
	 * the caller to judge (same hash, same bytes: fine). Frees p in every case. */
	int (*put_commit)(struct storage_put *p, const char *name, struct im_error *err);
	/* Forgets it; nothing of it stays. Frees p. */
	void (*put_abandon)(struct storage_put *p);

	/* Exactly len bytes at offset: IM_ENOTFOUND (no such object), IM_ECORRUPT (shorter), IM_EUNREACHABLE, IM_EIO. */
	int (*read)(struct storage *s, const char *name, uint64_t offset, void *ret, size_t len, struct im_error *err);
	int (*size)(struct storage *s, const char *name, uint64_t *ret_bytes, struct im_error *err);
	/* All objects below prefix ("" or "snapshots/im-01/"), in ascending name order, temporaries left out. A prefix with nothing below is not an error. */
	int (*list)(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err);
	void (*close)(struct storage *s);

	/* Optional: NULL where the back end cannot or the caller has no right to. */
	int (*remove)(struct storage *s, const char *name, struct im_error *err);
	/* Removes leftovers of runs that died, never those of live ones. */
	int (*sweep)(struct storage *s, struct im_error *err);
	/* As list, but of what lies directly below prefix the folders only: "logs/im-01/chat/0123…/", size 0. NULL: found out by list. */
	int (*folders)(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err);
	/* It went away and may be back under its name (mounted again): look there anew. Who it is must be found out again. Any thread. */
	int (*revive)(struct storage *s, struct im_error *err);
	/* Free bytes, for status; IM_ENOTFOUND if unknown. */
	int (*space)(struct storage *s, uint64_t *ret_free_bytes, struct im_error *err);
	/* How many of len bytes at offset lie in this machine's memory, so that reading them says nothing about the disk;
	 * IM_ENOTFOUND if unknown. */
	int (*resident)(struct storage *s, const char *name, uint64_t offset, uint64_t len, uint64_t *ret_bytes, struct im_error *err);
};

struct storage {
	const struct storage_ops *ops;
	char *url;
};

struct storage_put {
	struct storage *storage;
};

/* Directory path, file:///path, later s3:// and sftp://. create: make the top folder (init only).
 * IM_EUNREACHABLE if it is not there, IM_EUSAGE for a scheme this build lacks. */
int storage_open(const char *url, bool create, struct storage **ret, struct im_error *err);
int storage_dir_open(const char *path, bool create, struct storage **ret, struct im_error *err);

/* Wrappers that check names and limits; code outside storage/ uses these. */
int storage_read_object(struct storage *s, const char *name, size_t limit_bytes, struct im_buf *ret, struct im_error *err);
int storage_read(struct storage *s, const char *name, uint64_t offset, void *ret, size_t len, struct im_error *err);
int storage_size(struct storage *s, const char *name, uint64_t *ret_bytes, struct im_error *err);
/* IM_ENOTFOUND too where a back end cannot know. */
int storage_resident(struct storage *s, const char *name, uint64_t offset, uint64_t len, uint64_t *ret_bytes, struct im_error *err);
/* Whole small object at once. */
int storage_put_object(struct storage *s, const char *name, const void *data, size_t len, struct im_error *err);
int storage_list(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err);
/* The folders right below prefix in ascending order, each once, as "PREFIX…/". */
int storage_list_folders(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err);
/* 0 too where a back end needs no such thing. */
int storage_revive(struct storage *s, struct im_error *err);
void storage_close(struct storage *s);

/*
 * The fault layer: the same vtable over another storage, for tests and rehearsals of bad days.
 * Counts calls of write-side and read-side operations; at call number n it does `what`.
 */
enum storage_fault { FAULT_NONE, FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT_WRITE, FAULT_DIE, FAULT_UNREACHABLE, FAULT_FLIP_BIT };
struct storage_fault_plan {
	enum storage_fault what;
	uint64_t at_call; /* 1 is the first; 0: never */
	bool sticky;      /* also every later call */
	uint64_t calls;   /* counted so far */
};
/* Takes over inner; plan is borrowed and must outlive the storage. */
int storage_fault_wrap(struct storage *inner, struct storage_fault_plan *plan, struct storage **ret, struct im_error *err);
/* From now on storage_open puts the fault layer over what it opens; NULL: no more. For tests of whole commands. */
void storage_open_with_faults(struct storage_fault_plan *plan);

#endif
