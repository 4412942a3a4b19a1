/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of the body's layout (FORMAT §7, "files") that writer and reader share.
 */
#ifndef IM_STORES_FILES_FOLLOW_BODY_FORMAT_H
#define IM_STORES_FILES_FOLLOW_BODY_FORMAT_H

#define FILES_LOG_VERSION 1
#define FILES_LOG_LEVEL 3
#define FILES_LOG_HEAD_BYTES 32
#define FILES_LOG_ROW_BYTES 8             /* of the block table */
#define FILES_LOG_BLOCK_BYTES (128u << 10) /* a block is closed when it has this many */
#define FILES_LOG_BLOCK_MAX_BYTES (512u << 10)
#define FILES_LOG_MAX_BLOCKS 65536u

#endif
