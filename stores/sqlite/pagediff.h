/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page as a change of another (FORMAT §7): literals and copies from the base. Made so that two
 * changes in a row can be composed without any page content, and so that the literals of many
 * pages compress together. Pure: no I/O. Not thread-safe per scratch.
 */
#ifndef IM_STORES_SQLITE_PAGEDIFF_H
#define IM_STORES_SQLITE_PAGEDIFF_H

#include "base/bytes.h"
#include "base/error.h"

struct pagediff; /* scratch: hash tables, op lists */
int pagediff_new(uint32_t page_size, struct pagediff **ret, struct im_error *err);
void pagediff_free(struct pagediff *d);

/* A change as bytes; has_base false: the ops are one literal of the whole page. */
struct pagediff_ops {
	bool has_base;
	const uint8_t *control, *literals;
	size_t control_len, literals_len;
};

/* Appends the ops that turn base (NULL: none) into page to control and literals. */
void pagediff_make(struct pagediff *d, const uint8_t *base, const uint8_t *page, struct im_buf *control, struct im_buf *literals);
/* Applies. base may be NULL only if !ops->has_base; ret has page_size bytes, not overlapping base. IM_ECORRUPT. */
int pagediff_apply(uint32_t page_size, const struct pagediff_ops *ops, const uint8_t *base, uint8_t *ret, struct im_error *err);
/* Appends older-then-newer as one change; *ret_has_base tells whether it needs the base of older. IM_ECORRUPT. */
int pagediff_compose(struct pagediff *d, const struct pagediff_ops *older, const struct pagediff_ops *newer, struct im_buf *control, struct im_buf *literals, bool *ret_has_base, struct im_error *err);
/* How many bytes of control and literals the next change in these streams takes: so that streams can be cut into records. IM_ECORRUPT. */
int pagediff_measure(uint32_t page_size, bool has_base, struct im_reader *control, struct im_reader *literals, struct pagediff_ops *ret, struct im_error *err);

#endif
