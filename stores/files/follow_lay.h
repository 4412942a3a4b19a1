/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying the log over a tree's image while its rebuild is planned: where each file of the image is
 * at the point wanted, how long it is, and what of it comes from the log. Nothing of the log's
 * content is kept in memory: the bodies are read twice.
 */
#ifndef IM_STORES_FILES_FOLLOW_LAY_H
#define IM_STORES_FILES_FOLLOW_LAY_H

#include "stores/files/follow_lineage.h"
#include "stores/files/segment.h"

struct files_lay;

/* First reading. *ret NULL: there is no log. */
int files_lay_new(struct rebuild *r, struct files_lay **ret, struct im_error *err);
void files_lay_free(struct files_lay *l); /* NULL is fine; what files' finish needs lives on in checks */

/* Where the member of the image is at the point (borrowed), and its line (FILES_NO_LINE: the log does not tell of it).
 * false: it is not there any more, or something else is in its place. */
bool files_lay_place(struct files_lay *l, const struct files_member *m, const char **ret_path, uint32_t *ret_line);
/* Where a path of the image is at the point (borrowed), or NULL. */
const char *files_lay_where(const struct files_lay *l, const char *path);

/* What a file of a line is made of. */
struct files_laid {
	uint64_t size_bytes, keep_bytes; /* keep: so many bytes are the image's */
	bool has_mtime;
	int64_t mtime_ns;
	/* For rebuild_file, or NULL: compares the image's bytes before the log's with the check in the log. */
	int (*prove)(void *context, int fd, const uint8_t *sum, struct im_error *err);
	void *context;
};
/* image_bytes: of the member; has_body: it is no hard link. false: it cannot be had as it was then: it is left as in the image, which a warning will say. */
bool files_lay_file(struct files_lay *l, uint32_t line, bool has_body, uint64_t image_bytes, struct files_laid *ret);
/* It was declared as this file: its bytes are wanted. */
void files_lay_declared(struct files_lay *l, uint32_t line, uint32_t file);

/* Second reading, when all of the image is declared: member is called for each file that began in the log and each
 * folder (FILES_NO_LINE) the image lacks, then bytes are written. */
int files_lay_write(struct files_lay *l,
    int (*member)(void *context, const struct files_member *m, const char *path, uint32_t line, struct im_error *err),
    void *context, struct im_error *err);
/* Names what could not be had. store: its name. */
void files_lay_warn(const struct files_lay *l, const char *store);

/* Taken over from the lay: needed by files' finish. */
struct files_lay_check;
struct files_lay_check *files_lay_checks(struct files_lay *l);
void files_lay_checks_free(struct files_lay_check *c);

#endif
