/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the message table of a restored database holds. Contract: `survey` of stores/store.h.
 */
#ifndef IM_STORES_SQLITE_SURVEY_H
#define IM_STORES_SQLITE_SURVEY_H

#include "stores/store.h"

int sqlite_survey(const struct store_survey_request *q, struct store_survey *ret, struct im_error *err);

#endif
