/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the tree follower share.
 */
#ifndef IM_STORES_FILES_FOLLOW_INTERNAL_H
#define IM_STORES_FILES_FOLLOW_INTERNAL_H

#include "stores/files/exclude.h"
#include "stores/files/follow.h"
#include "stores/files/follow_body.h"
#include "stores/files/follow_names.h"

#include <archive.h>
#include <sys/stat.h>

#define FILES_FOLLOW_ID_BYTES 8
#define FILES_FOLLOW_SCAN_MS 5000     /* without inotify: this often */
#define FILES_FOLLOW_RESCAN_MS 600000 /* with it, at the latest, with a heartbeat, to be sure (network file systems tell nothing) */

struct follow_ident { /* of an inode; born_ns keeps a number used again apart, 0: unknown */
	uint64_t dev, ino;
	int64_t born_ns;
};

struct follow_look { /* at a path */
	struct follow_ident ident;
	uint64_t size;
	int64_t mtime_ns;
	unsigned mode;
};

struct follow_file {
	char *path; /* NULL: a free row */
	struct follow_ident ident;
	uint64_t size; /* captured */
	uint8_t check[FILES_LOG_CHECK_BYTES]; /* of what is before size */
	int64_t mtime_ns;
	int64_t again_ms; /* when it last began again, monotonic; 0: never */
	bool lost;
	bool moving;  /* within a round */
	bool missing; /* not at its path in the last round; a rename's other half may come yet */
};

struct follow_folder {
	char *path; /* NULL: a free row */
	struct follow_ident ident;
	int watch; /* -1: none */
	bool announced; /* the log or every image to come has it */
	uint32_t round; /* of the scan that last saw it */
};

struct follow_state { /* what is kept in the state file and, in short, in positions */
	uint8_t id[FILES_FOLLOW_ID_BYTES]; /* of the epoch */
	struct follow_ident root;
	uint32_t point;
	uint64_t structure; /* records other than appends so far */
	int64_t complete_ms, latest_ms; /* of the last point */
};

struct follower {
	const struct im_config_store *store;  /* borrowed, as events */
	const struct store_events *events;
	char *folder;
	int root_fd;
	struct files_exclude exclude, patterns;
	struct archive *disk; /* reads metadata */
	struct files_parent parent;

	struct follow_file *files;
	size_t file_count, file_cap, live_count, lost_count;
	struct im_buf free_rows; /* numbers[4] */
	struct files_names by_path, by_ident;
	struct files_names told; /* paths somebody was warned of */
	uint64_t total_bytes; /* captured, of live files */

	/* Watching. */
	int inotify; /* -1: none to be had, scan */
	bool told_inotify, rescan;
	struct follow_folder *folders;
	size_t folder_count, folder_cap;
	struct files_names folder_by_path, folder_by_watch;
	uint32_t scan_round;
	int64_t scanned_ms, scan_took_ms, returned_ms; /* monotonic */
	char **touched; /* paths to look at */
	size_t touched_count, touched_cap;
	struct files_names touched_names;

	/* The batch. */
	struct files_log_writer *writer;
	struct follow_body *parts;
	size_t part_count;
	struct log_point *points;
	size_t point_count, point_cap;
	uint64_t bytes;
	bool open;       /* the section being made has records */
	bool more;       /* more is there than fits into the batch */
	bool taken;      /* handed out, not durable yet */
	bool tell_sizes; /* the next section begins with all sizes: an image was anchored */
	int64_t seen_before_ms, seen_after_ms; /* of the last look */

	struct follow_state state;
	uint64_t saved_structure, saved_bytes;
	int64_t saved_ms; /* monotonic */
	bool saved_is_old;
	struct follower *next; /* of those this process has */
	char alarm[512];
};

/* follow_watch.c: what may have changed. */
int files_follow_watch_open(struct follower *f, struct im_error *err);
void files_follow_watch_close(struct follower *f);
int files_follow_watch_wait(struct follower *f, int wake_fd, int64_t timeout_ms, struct im_error *err);
/* Reads events, scans where they say so: f->touched. IM_EGAP: the tree was replaced. */
int files_follow_watch_drain(struct follower *f, struct im_error *err);
/* Looks at the whole tree. */
int files_follow_scan(struct follower *f, struct im_error *err);
int files_follow_touch(struct follower *f, const char *path, struct im_error *err);
void files_follow_untouch(struct follower *f); /* forgets them all */
struct follow_folder *files_follow_folder_find(struct follower *f, const char *path);

/* follow_table.c: the files followed. */
/* false: nothing there, or nothing regular. */
bool files_follow_look(struct follower *f, const char *path, struct follow_look *ret);
bool files_follow_look_fd(int fd, struct follow_look *ret);
bool files_follow_same(const struct follow_ident *a, const struct follow_ident *b);
/* A descriptor of the regular file that was looked at, or a negative errno (-ENOENT: it is another by now). */
int files_follow_open_file(struct follower *f, const char *path, const struct follow_ident *ident);
uint32_t files_follow_find(const struct follower *f, const char *path);
uint32_t files_follow_find_ident(const struct follower *f, const struct follow_ident *ident);
int files_follow_add(struct follower *f, const char *path, const struct follow_look *look, uint32_t *ret, struct im_error *err);
void files_follow_remove(struct follower *f, uint32_t file);
int files_follow_rebind(struct follower *f, uint32_t file, const struct follow_ident *ident, struct im_error *err);
int files_follow_rename(struct follower *f, uint32_t file, const char *to, struct im_error *err);
/* Its captured size becomes that; the tail before it is hashed. False: it cannot be read. */
bool files_follow_adopt(struct follower *f, uint32_t file, int fd, uint64_t size);
/* The tail before the captured size, into FILES_LOG_TAIL_BYTES. *ret_len short: the file is shorter. False: cannot read. */
bool files_follow_tail(const struct follow_file *e, int fd, uint8_t *ret, size_t *ret_len);
bool files_follow_is_wanted(const struct follower *f, const char *path); /* by the patterns */
/* Takes all that is there as captured: the begin of an epoch. */
int files_follow_adopt_all(struct follower *f, struct im_error *err);
/* What was lost is followed again from its present size on. */
void files_follow_adopt_lost(struct follower *f);

/* follow_record.c: records of the batch. */
int files_follow_open_section(struct follower *f, struct im_error *err); /* put does it too */
int files_follow_put(struct follower *f, const struct files_log_record *record, struct im_error *err);
int files_follow_end_section(struct follower *f, int64_t complete_ms, int64_t latest_ms, struct im_error *err);
int files_follow_hand_over(struct follower *f, struct follow_batch *ret, struct im_error *err);
void files_follow_drop_batch(struct follower *f);
size_t files_follow_batch_size(const struct follower *f);
/* The metadata of an open file or folder, as a tree segment with one member. */
int files_follow_meta(struct follower *f, int fd, struct im_buf *ret, struct im_error *err);
/* Of a path, once in the follower's life. */
void files_follow_warn_once(struct follower *f, const char *path, int errno_value);
void files_follow_warn(const struct follower *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* follow_round.c */
/* scan: look at the whole tree even if nothing says so. */
int files_follow_round(struct follower *f, bool scan, bool *ret_new, struct im_error *err);
/* follow_file.c: brings one file up to date; its row's path is right. look: at it. */
int files_follow_advance(struct follower *f, uint32_t file, const struct follow_look *look, struct im_error *err);
/* A file that is new at its path. */
int files_follow_begin(struct follower *f, const char *path, const struct follow_look *look, struct im_error *err);
/* Records the folders on the way to path that the log does not have yet. */
int files_follow_announce(struct follower *f, const char *path, struct im_error *err);
/* Could a row be what is there now under another name? */
bool files_follow_proven(struct follower *f, uint32_t file, const char *path, const struct follow_look *look);

/* follow_state.c */
json_t *files_follow_position(const struct follower *f);
/* IM_EGAP: what is known does not reach position, or the tree is another one. */
int files_follow_load(struct follower *f, const json_t *position, uint32_t point, struct im_error *err);
int files_follow_save(struct follower *f, bool force, struct im_error *err);
/* While it is registered, moved says no in this process: a tree is a lot to look through, and the follower does it itself from time to time. */
void files_follow_register(struct follower *f, bool attached);
int files_follow_moved(const struct im_config_store *store, const json_t *position, bool *ret_moved, int64_t *ret_last_ms,
    struct im_error *err);

/* follow_merge.c */
int files_follow_merge(const struct follow_source *bodies, size_t count,
    int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context,
    struct im_error *err);

#endif
