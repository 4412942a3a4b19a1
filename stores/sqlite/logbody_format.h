/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the writer and the reader of log bodies share (FORMAT §7). Offsets:
 *   0 version[4]=1 | 4 page_size[4] | 8 sections[4] | 12 blocks[4] | 16 page_from[4] | 20 page_to[4] | 24 zero[8]
 *   32 sections: 0 point[4] | 4 pages[4] | 8 complete_ms[8] | 16 latest_ms[8] | 24 sum[16] | 40 records[4] | 44 zero[4]
 *   then blocks: 0 first_page[4] | 4 records[4] | 8 control[4] | 12 literals[4] | 16 stored_control[4] | 20 stored_literals[4]
 *   then per block its control and its literals, each one zstd frame, or nothing if it is empty.
 * A record in control: page (absolute where a block or a section begins, else the distance to the
 * page before), flags, the ops of its change; in literals: its literals.
 */
#ifndef IM_STORES_SQLITE_LOGBODY_FORMAT_H
#define IM_STORES_SQLITE_LOGBODY_FORMAT_H

#include "stores/sqlite/logbody.h"

#define LOGBODY_VERSION 1u
#define LOGBODY_HEAD_BYTES 32u
#define LOGBODY_SECTION_BYTES 48u
#define LOGBODY_BLOCK_ENTRY_BYTES 24u
#define LOGBODY_MAX_STREAM_BYTES (16u << 20) /* one stream of a block, plain */
#define LOGBODY_MIN_RECORD_BYTES 3u          /* page, flags, one op */
#define LOGBODY_HAS_BASE 1u                  /* in flags */

#endif
