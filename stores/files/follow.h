/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following the files of a tree that only grow (`follow =` patterns): logs, flat-file archives,
 * journals. What is appended becomes the store's log; a snapshot and the log behind it give each of
 * these files as it was at any point.
 */
#ifndef IM_STORES_FILES_FOLLOW_H
#define IM_STORES_FILES_FOLLOW_H

#include "stores/store.h"

extern const struct store_follow_ops files_follow_ops;

#endif
