/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook as Markdown (CommonMark). A value is escaped character by character, code is fenced by
 * more backticks than it holds: nothing from outside can end what it stands in.
 */
#include "verify/runbook_internal.h"

#include "verify/report_internal.h"

#include <stdio.h>
#include <string.h>

static void put(struct im_buf *out, const char *text)
{
	im_buf_put(out, text, strlen(text));
}

static void put_times(struct im_buf *out, char c, size_t times)
{
	while (times--)
		im_buf_put_u8(out, (uint8_t)c);
}

/* What Markdown would take for markup; at the beginning of a block also what would begin a list or a rule. */
static bool is_special(uint32_t c, unsigned char next, bool at_start)
{
	if (c >= 0x80 || !c)
		return false;
	return strchr("\\`*_{}[]<>#|~&!$", (int)c) || (c == ':' && next == '/') || (at_start && strchr("-+=.)", (int)c));
}

/* What cannot be seen is shown by name, here and inside of code. */
static void put_text(struct im_buf *out, const char *value, bool at_start)
{
	const unsigned char *at = (const unsigned char *)value;
	char name[20];
	while (*at) {
		const unsigned char *before = at;
		uint32_t c = report_next_character(&at);
		if (report_hides(c)) {
			snprintf(name, sizeof name, "\\[U+%04X\\]", c);
			put(out, name);
		} else if (c == 0xfffd) {
			put(out, "\xef\xbf\xbd");
		} else {
			put(out, is_special(c, *at, at_start) ? "\\" : "");
			im_buf_put(out, before, (size_t)(at - before));
			at_start = at_start && c >= '0' && c <= '9'; /* 1. begins a list */
		}
	}
}

static void put_verbatim(struct im_buf *out, const char *value)
{
	const unsigned char *at = (const unsigned char *)value;
	char name[16];
	while (*at) {
		const unsigned char *before = at;
		uint32_t c = report_next_character(&at);
		snprintf(name, sizeof name, "[U+%04X]", c);
		if (report_hides(c) || c == 0xfffd)
			put(out, c == 0xfffd ? "\xef\xbf\xbd" : name);
		else
			im_buf_put(out, before, (size_t)(at - before));
	}
}

static size_t longest_ticks(const char *text)
{
	size_t longest = 0;
	for (const char *p = text; *p;) {
		size_t n = strspn(p, "`");
		longest = n > longest ? n : longest;
		p += n ? n : 1;
	}
	return longest;
}

static void put_code(struct im_buf *out, const char *value)
{
	size_t ticks = longest_ticks(value) + 1;
	bool pad = !*value || *value == '`' || *value == ' ' || value[strlen(value) - 1] == '`' || value[strlen(value) - 1] == ' ';
	put_times(out, '`', ticks);
	put(out, pad ? " " : "");
	put_verbatim(out, value);
	put(out, pad ? " " : "");
	put_times(out, '`', ticks);
}

static void put_words(struct im_buf *out, const struct doc_block *b)
{
	const char *at = b->words;
	struct doc_piece piece;
	for (bool more = true; more;) {
		more = doc_next(&at, &piece);
		im_buf_put(out, piece.words, piece.len);
		const char *value = more && b->values[piece.value] ? b->values[piece.value] : "";
		if (more && piece.code)
			put_code(out, value);
		else
			put_text(out, value, piece.words == b->words && !piece.len);
	}
}

static void put_command(struct im_buf *out, const struct doc_block *b)
{
	const char *command = (const char *)b->command.data;
	size_t ticks = longest_ticks(command) < 3 ? 3 : longest_ticks(command) + 1;
	put_times(out, '`', ticks);
	put(out, "sh\n");
	put(out, command);
	put(out, "\n");
	put_times(out, '`', ticks);
	put(out, "\n");
}

int runbook_markdown(const struct runbook *r, struct im_buf *ret, struct im_error *err)
{
	static const char *const before[] = { [DOC_TITLE] = "# ", [DOC_SCENE] = "## ", [DOC_PART] = "### ", [DOC_TEXT] = "", [DOC_ITEM] = "- ",
		[DOC_GAP] = "**To fill in:** ", [DOC_ALARM] = "**Attention:** " };
	for (size_t i = 0; i < r->doc.count; i++) {
		const struct doc_block *b = &r->doc.blocks[i];
		bool in_list = b->kind == DOC_ITEM && i && r->doc.blocks[i - 1].kind == DOC_ITEM;
		if (i && !in_list)
			put(ret, "\n");
		if (b->kind == DOC_COMMAND || b->kind == DOC_SYSTEM) {
			put_command(ret, b);
			continue;
		}
		put(ret, before[b->kind]);
		put_words(ret, b);
		put(ret, "\n");
	}
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory for the runbook") : 0;
}
