/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page changes. Making one is a greedy search against the base alone: going on at the displacement
 * of the copy before is cheapest to write, so it is tried first, then the same place, then whatever
 * begins with the same 8 bytes. Composing needs no content: a copy of the newer change is
 * replaced by what the older one has there.
 */
#include "stores/sqlite/pagediff.h"

#include "stores/sqlite/varint.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define MIN_PAGE_BYTES 512
#define MAX_PAGE_BYTES 65536
#define WINDOW_BYTES 8
#define WINDOW_STEP 4        /* windows of the base looked up: every fourth; matches are extended backwards */
#define NO_WINDOW UINT16_MAX  /* no window begins in the last 7 bytes of 65536 */
#define MIN_COPY_BYTES 12
#define MIN_GOING_ON_BYTES 4  /* a copy at the displacement before costs less */
#define GOOD_COPY_BYTES 64    /* no further search */
#define FAR_COPY_COSTS 4      /* bytes by which a copy from elsewhere must be longer */

/* One stretch of a change: bytes from of the base or of the literals. It ends where the next begins. */
struct stretch {
	uint32_t at, from;
	bool copy;
};

struct pagediff {
	uint32_t page_size;
	unsigned hash_shift;
	size_t slots;
	uint16_t *table;           /* where in the base a window with this hash begins */
	struct stretch *stretches; /* of the older change, and one at the end of the page */
};

void pagediff_free(struct pagediff *d)
{
	if (!d)
		return;
	free(d->table);
	free(d->stretches);
	free(d);
}

int pagediff_new(uint32_t page_size, struct pagediff **ret, struct im_error *err)
{
	if (page_size < MIN_PAGE_BYTES || page_size > MAX_PAGE_BYTES || (page_size & (page_size - 1)))
		return im_fail(err, IM_EFAIL, "a page cannot have %u bytes", page_size);
	struct pagediff *d = calloc(1, sizeof *d);
	if (d) {
		d->page_size = page_size;
		d->slots = page_size;
		d->hash_shift = 64 - (unsigned)__builtin_ctz(page_size);
		d->table = malloc(d->slots * sizeof *d->table);
		d->stretches = malloc(((size_t)page_size + 1) * sizeof *d->stretches);
	}
	if (!d || !d->table || !d->stretches) {
		pagediff_free(d);
		return im_fail(err, IM_ENOMEM, "out of memory for page changes");
	}
	*ret = d;
	return 0;
}

/* --- writing ops --- */

struct writer {
	struct im_buf *control, *literals;
	uint32_t at, literal, copy, from; /* the op being made begins at `at` */
	int32_t shift;                    /* of the op before */
	bool copied;
};

static void flush(struct writer *w)
{
	varint_put(w->control, w->literal);
	w->at += w->literal;
	if (w->copy) {
		int32_t shift = (int32_t)w->from - (int32_t)w->at, turn = shift - w->shift;
		varint_put(w->control, w->copy);
		varint_put(w->control, (uint32_t)turn << 1 ^ (turn < 0 ? UINT32_MAX : 0));
		w->at += w->copy;
		w->shift = shift;
	}
	w->literal = w->copy = 0;
}

static void put_literal(struct writer *w, const uint8_t *data, uint32_t len)
{
	if (w->copy && len)
		flush(w);
	im_buf_put(w->literals, data, len);
	w->literal += len;
}

static void put_copy(struct writer *w, uint32_t from, uint32_t len)
{
	w->copied = true;
	if (w->copy && w->from + w->copy == from) {
		w->copy += len;
		return;
	}
	if (w->copy)
		flush(w);
	w->from = from;
	w->copy = len;
}

/* --- making --- */

static inline uint64_t load(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return le64toh(v);
}

static inline size_t slot_of(const struct pagediff *d, const uint8_t *p)
{
	return (size_t)(load(p) * 0x9e3779b97f4a7c15u >> d->hash_shift);
}

static inline uint32_t same_bytes(const uint8_t *a, const uint8_t *b, uint32_t max)
{
	uint32_t n = 0;
	for (; n + 8 <= max; n += 8) {
		uint64_t difference = load(a + n) ^ load(b + n);
		if (difference)
			return n + (uint32_t)__builtin_ctzll(difference) / 8;
	}
	while (n < max && a[n] == b[n])
		n++;
	return n;
}

static void fill_table(struct pagediff *d, const uint8_t *base)
{
	memset(d->table, 0xff, d->slots * sizeof *d->table);
	for (uint32_t i = 0; i + WINDOW_BYTES <= d->page_size; i += WINDOW_STEP)
		d->table[slot_of(d, base + i)] = (uint16_t)i;
}

struct match {
	uint32_t len;
	int32_t shift;
};

static uint32_t match_at(const struct pagediff *d, const uint8_t *base, const uint8_t *page, uint32_t at, uint32_t from)
{
	return same_bytes(base + from, page + at, d->page_size - (at > from ? at : from));
}

static struct match find(const struct pagediff *d, const uint8_t *base, const uint8_t *page, uint32_t at, int32_t shift)
{
	struct match m = { 0, shift };
	int32_t from = (int32_t)at + shift;
	if (from >= 0 && from < (int32_t)d->page_size)
		m.len = match_at(d, base, page, at, (uint32_t)from);
	if (m.len < GOOD_COPY_BYTES && shift) {
		uint32_t len = match_at(d, base, page, at, at);
		if (len > m.len)
			m = (struct match){ len, 0 };
	}
	if (m.len < GOOD_COPY_BYTES && at + WINDOW_BYTES <= d->page_size) {
		uint16_t window = d->table[slot_of(d, page + at)];
		uint32_t len = window == NO_WINDOW ? 0 : match_at(d, base, page, at, window);
		if (len > m.len + FAR_COPY_COSTS)
			m = (struct match){ len, (int32_t)window - (int32_t)at };
	}
	return m;
}

void pagediff_make(struct pagediff *d, const uint8_t *base, const uint8_t *page, struct im_buf *control, struct im_buf *literals)
{
	struct writer w = { .control = control, .literals = literals };
	uint32_t at = 0, done = 0;
	int32_t shift = 0;
	if (base)
		fill_table(d, base);
	else
		at = d->page_size;
	while (at < d->page_size) {
		struct match m = find(d, base, page, at, shift);
		if (m.len < (m.shift == shift ? MIN_GOING_ON_BYTES : MIN_COPY_BYTES)) {
			at++;
			continue;
		}
		uint32_t from = (uint32_t)((int32_t)at + m.shift);
		for (; at > done && from > 0 && base[from - 1] == page[at - 1]; m.len++) {
			at--;
			from--;
		}
		put_literal(&w, page + done, at - done);
		put_copy(&w, from, m.len);
		shift = m.shift;
		done = at += m.len;
	}
	put_literal(&w, page + done, d->page_size - done);
	flush(&w);
}

/* --- reading ops --- */

struct op {
	uint32_t literal, copy, from;
};

struct parser {
	struct im_reader control;
	uint32_t page_size, at;
	int64_t shift;
	bool has_base;
};

/* False when the page is complete, or (p->control.failed) for an op that cannot be. */
static bool next_op(struct parser *p, struct op *ret)
{
	if (p->at == p->page_size)
		return false;
	*ret = (struct op){ .literal = varint_read(&p->control) };
	bool good = !p->control.failed && ret->literal <= p->page_size - p->at && (p->has_base || ret->literal == p->page_size);
	p->at += good ? ret->literal : 0;
	if (good && p->at < p->page_size) {
		ret->copy = varint_read(&p->control);
		uint32_t turn = varint_read(&p->control);
		p->shift += (int64_t)(turn >> 1) ^ -(int64_t)(turn & 1);
		int64_t from = (int64_t)p->at + p->shift;
		good = !p->control.failed && ret->copy && ret->copy <= p->page_size - p->at && from >= 0 &&
		    from <= (int64_t)(p->page_size - ret->copy);
		ret->from = good ? (uint32_t)from : 0;
		p->at += good ? ret->copy : 0;
	}
	p->control.failed = !good;
	return good;
}

static struct parser parser_of(uint32_t page_size, const struct pagediff_ops *ops)
{
	return (struct parser){ .control = im_reader_of(ops->control, ops->control_len), .page_size = page_size, .has_base = ops->has_base };
}

static int impossible(struct im_error *err)
{
	return im_fail(err, IM_ECORRUPT, "a page change is impossible");
}

int pagediff_measure(uint32_t page_size, bool has_base, struct im_reader *control, struct im_reader *literals, struct pagediff_ops *ret, struct im_error *err)
{
	struct parser p = { .control = *control, .page_size = page_size, .has_base = has_base };
	struct op op;
	size_t literal = 0;
	while (next_op(&p, &op))
		literal += op.literal;
	if (p.control.failed || literal > im_read_left(literals))
		return impossible(err);
	ret->has_base = has_base;
	ret->control_len = (size_t)(p.control.at - control->at);
	ret->control = im_read_view(control, ret->control_len);
	ret->literals_len = literal;
	ret->literals = im_read_view(literals, literal);
	return 0;
}

int pagediff_apply(uint32_t page_size, const struct pagediff_ops *ops, const uint8_t *base, uint8_t *ret, struct im_error *err)
{
	struct parser p = parser_of(page_size, ops);
	struct im_reader literals = im_reader_of(ops->literals, ops->literals_len);
	struct op op;
	if (ops->has_base && !base)
		return im_fail(err, IM_ECORRUPT, "a page change lacks the page it changes");
	while (next_op(&p, &op)) {
		const uint8_t *literal = im_read_view(&literals, op.literal);
		if (literals.failed)
			break;
		if (op.literal)
			memcpy(ret, literal, op.literal);
		if (op.copy)
			memcpy(ret + op.literal, base + op.from, op.copy);
		ret += op.literal + op.copy;
	}
	if (p.control.failed || literals.failed || im_read_left(&p.control) || im_read_left(&literals))
		return impossible(err);
	return 0;
}

/* --- composing --- */

/* Lists the stretches of a change; *ret_count without the one that ends the list. */
static int list_stretches(struct pagediff *d, const struct pagediff_ops *ops, size_t *ret_count, struct im_error *err)
{
	struct parser p = parser_of(d->page_size, ops);
	struct op op;
	size_t count = 0, literal = 0;
	for (uint32_t at = 0; next_op(&p, &op); at = p.at) {
		if (op.literal)
			d->stretches[count++] = (struct stretch){ at, (uint32_t)literal, false };
		if (op.copy)
			d->stretches[count++] = (struct stretch){ at + op.literal, op.from, true };
		literal += op.literal;
	}
	if (p.control.failed || im_read_left(&p.control) || literal != ops->literals_len)
		return impossible(err);
	d->stretches[count] = (struct stretch){ .at = d->page_size };
	*ret_count = count;
	return 0;
}

static size_t stretch_of(const struct pagediff *d, size_t count, uint32_t at)
{
	size_t low = 0, high = count; /* the last that begins at or before at */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (d->stretches[middle].at <= at)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Writes what the older change puts into [from, from + len). */
static void put_older(const struct pagediff *d, size_t count, const struct pagediff_ops *older, uint32_t from, uint32_t len, struct writer *w)
{
	for (size_t i = stretch_of(d, count, from); len; i++) {
		const struct stretch *s = &d->stretches[i];
		uint32_t skip = from - s->at, n = s[1].at - from < len ? s[1].at - from : len;
		if (s->copy)
			put_copy(w, s->from + skip, n);
		else
			put_literal(w, older->literals + s->from + skip, n);
		from += n;
		len -= n;
	}
}

int pagediff_compose(struct pagediff *d, const struct pagediff_ops *older, const struct pagediff_ops *newer, struct im_buf *control, struct im_buf *literals, bool *ret_has_base, struct im_error *err)
{
	struct writer w = { .control = control, .literals = literals };
	struct parser p = parser_of(d->page_size, newer);
	struct im_reader literal = im_reader_of(newer->literals, newer->literals_len);
	size_t count = 0, control_len = control->len, literals_len = literals->len;
	struct op op;
	int rc = list_stretches(d, older, &count, err);
	if (rc)
		return rc;
	while (next_op(&p, &op)) {
		const uint8_t *data = im_read_view(&literal, op.literal);
		if (literal.failed)
			break;
		put_literal(&w, data, op.literal);
		put_older(d, count, older, op.from, op.copy, &w);
	}
	flush(&w);
	if (p.control.failed || literal.failed || im_read_left(&p.control) || im_read_left(&literal)) {
		control->len = control_len;
		literals->len = literals_len;
		return impossible(err);
	}
	*ret_has_base = w.copied;
	return 0;
}
