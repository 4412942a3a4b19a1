/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The document, and quoting for shells. A command is meant to be copied by somebody tired: whatever
 * is not a plain word is quoted, and what cannot be seen is written as an escape, in one line.
 */
#include "verify/runbook_internal.h"

#include "verify/report_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool doc_next(const char **at, struct doc_piece *ret)
{
	const char *begin = *at;
	*ret = (struct doc_piece){ .words = begin, .value = -1 };
	for (const char *p = begin; *p; p++) {
		bool code = *p == '{';
		if ((!code && *p != '[') || p[1] < '1' || p[1] > '9' || p[2] != (code ? '}' : ']'))
			continue;
		ret->len = (size_t)(p - begin);
		ret->value = p[1] - '1';
		ret->code = code;
		*at = p + 3;
		return true;
	}
	ret->len = strlen(begin);
	return false;
}

static struct doc_block *new_block(struct doc *d, enum doc_kind kind)
{
	if (d->count == d->room) {
		size_t room = d->room ? 2 * d->room : 64;
		struct doc_block *grown = reallocarray(d->blocks, room, sizeof *grown);
		if (!grown) {
			d->failed = true;
			return NULL;
		}
		d->blocks = grown;
		d->room = room;
	}
	struct doc_block *b = &d->blocks[d->count++];
	*b = (struct doc_block){ .kind = kind };
	return b;
}

static void take_values(const char *ret[DOC_VALUES_MAX], va_list ap)
{
	for (int i = 0; i < DOC_VALUES_MAX; i++)
		if (!(ret[i] = va_arg(ap, const char *)))
			return;
}

void doc_say(struct doc *d, enum doc_kind kind, const char *words, ...)
{
	const char *values[DOC_VALUES_MAX] = { NULL };
	struct doc_block *b = new_block(d, kind);
	va_list ap;
	if (!b)
		return;
	b->words = words;
	va_start(ap, words);
	take_values(values, ap);
	va_end(ap);
	for (int i = 0; i < DOC_VALUES_MAX && values[i]; i++) {
		b->values[i] = strdup(values[i]);
		d->failed |= !b->values[i];
	}
}

void doc_command(struct doc *d, enum doc_kind kind)
{
	new_block(d, kind);
}

static void put(struct im_buf *b, const char *text)
{
	im_buf_put(b, text, strlen(text));
}

void doc_add(struct doc *d, const char *words, ...)
{
	const char *values[DOC_VALUES_MAX] = { NULL };
	struct doc_piece piece;
	va_list ap;
	if (d->failed || !d->count)
		return;
	struct im_buf *b = &d->blocks[d->count - 1].command;
	va_start(ap, words);
	take_values(values, ap);
	va_end(ap);
	for (bool more = true; more;) {
		more = doc_next(&words, &piece);
		im_buf_put(b, piece.words, piece.len);
		const char *value = more ? values[piece.value] : NULL;
		if (value && piece.code)
			doc_quote(b, value);
		else if (value)
			put(b, value);
	}
	d->failed |= b->failed;
}

void doc_clear(struct doc *d)
{
	for (size_t i = 0; i < d->count; i++) {
		for (int n = 0; n < DOC_VALUES_MAX; n++)
			free(d->blocks[i].values[n]);
		im_buf_free(&d->blocks[i].command);
	}
	free(d->blocks);
	*d = (struct doc){ 0 };
}

/* --- shells --- */

bool doc_is_plain(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	while (*at) {
		uint32_t c = report_next_character(&at);
		if (c == 0xfffd || report_hides(c))
			return false;
	}
	return true;
}

static void quote_hidden(struct im_buf *ret, const char *text)
{
	char escape[8];
	put(ret, "$'");
	for (const char *p = text; *p; p++) {
		if (*p == '\'' || *p == '\\') {
			im_buf_put_u8(ret, '\\');
			im_buf_put_u8(ret, (uint8_t)*p);
		} else if (*p >= ' ' && *p < 0x7f) {
			im_buf_put_u8(ret, (uint8_t)*p);
		} else {
			snprintf(escape, sizeof escape, "\\%03o", (unsigned)(unsigned char)*p); /* three digits: what follows cannot be one of them */
			put(ret, escape);
		}
	}
	put(ret, "'");
}

void doc_quote(struct im_buf *ret, const char *text)
{
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-:+,@%";
	if (*text && !text[strspn(text, safe)]) {
		put(ret, text);
		return;
	}
	if (!doc_is_plain(text)) {
		quote_hidden(ret, text);
		return;
	}
	put(ret, "'");
	for (const char *p = text; *p; p++)
		if (*p == '\'')
			put(ret, "'\\''");
		else
			im_buf_put_u8(ret, (uint8_t)*p);
	put(ret, "'");
}
