/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instant restore: the service works on its folders while they are still being filled. One story:
 * make the folders with empty files, let nobody see an empty page, show them under their final names,
 * start the service, fill everything, and let them become ordinary folders without anybody noticing.
 */
#ifndef IM_RESTORE_INSTANT_INSTANT_H
#define IM_RESTORE_INSTANT_INSTANT_H

#include "restore/internal.h"

#define INSTANT_EAGER_BYTES (128u << 10) /* files up to this size are there before the service starts */
/* How many files may come later: each keeps a descriptor open. */
uint32_t instant_files_max(void);
/* After restore_aim. IM_EUSAGE with job->declined set: this machine, place or snapshot does not allow it; nothing was changed, and
 * an ordinary restore may be tried. */
int instant_run(struct restore_job *job, struct im_error *err);


/* Goes on with one that was cut off: request->resume. The job was chosen and aimed by instant_take_record's request. */
int instant_resume(struct restore_job *job, struct im_error *err);
/* Joins one whose processes live: what was damaged is tried again, and we wait with them until it is complete. *ret_joined false: it is
 * not at work. */
int instant_join(const struct restore_request *request, struct restore_result *ret, bool *ret_joined, struct im_error *err);
/* What was asked for then; the strings live in *ret_keep, which json_decref frees; *ret_stores: malloc'ed, goes into request->stores.
 * *ret_over: there is nothing to go on with but the end: it was done here. IM_ENOTFOUND: no such restore. */
int instant_take_record(struct restore_request *request, json_t **ret_keep, const char ***ret_stores, struct im_error *err);

#endif
