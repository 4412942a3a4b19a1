/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook as HTML, in the look of the report and by its escaping: for a phone, a screen in the dark, and paper.
 */
#include "verify/runbook_internal.h"

#include "verify/report_internal.h"

#include <string.h>

/* Commands wrap rather than scroll: on paper nobody scrolls, and copying them gives the lines they have. */
static const char style[] =
    "<style>\n"
    "pre{background:var(--sunk);border-left:3px solid var(--accent);padding:.75rem 1rem;margin:.75rem 0;"
    "white-space:pre-wrap;overflow-wrap:anywhere}\n"
    "pre code{background:none;padding:0;font-size:.875rem;line-height:1.5}\n"
    "pre.system{border-left-color:var(--line)}\n"
    ".gap,.alarm{border-left:3px solid var(--tone);padding:.25rem 0 .25rem 1rem}.gap{--tone:var(--warn)}.alarm{--tone:var(--bad)}\n"
    ".gap b,.alarm b{color:var(--tone)}\n"
    "main section{margin-top:3rem}main section:first-child{margin-top:1.5rem}ul{padding-left:1.25rem}li{margin:.2rem 0}\n"
    "@media print{pre{break-inside:avoid;border:1px solid var(--line);border-left-width:3px;padding:.4rem .6rem}pre code{font-size:8.5pt}"
    "main section{margin-top:1.5rem}p,li{orphans:2;widows:2}}\n"
    "</style>\n";

static void put_words(struct page *p, const struct doc_block *b)
{
	const char *at = b->words;
	struct doc_piece piece;
	for (bool more = true; more;) {
		more = doc_next(&at, &piece);
		for (size_t i = 0; i < piece.len; i++) { /* our own words may hold an apostrophe, or < */
			const char one[] = { piece.words[i], '\0' };
			if (strchr("&<>\"'", *one))
				report_text(p, one);
			else
				im_buf_put(&p->out, one, 1);
		}
		const char *value = more && b->values[piece.value] ? b->values[piece.value] : "";
		report_raw(p, more && piece.code ? "<code>" : "");
		report_text(p, value);
		report_raw(p, more && piece.code ? "</code>" : "");
	}
}

static void put_command(struct page *p, const struct doc_block *b)
{
	report_raw(p, b->kind == DOC_SYSTEM ? "<pre class=\"system\"><code>" : "<pre><code>");
	for (const char *line = (const char *)b->command.data; *line;) {
		size_t len = strcspn(line, "\n");
		char *copy = strndup(line, len);
		p->out.failed |= !copy;
		report_text_upto(p, copy ? copy : "", SIZE_MAX);
		free(copy);
		line += len;
		if (*line) {
			report_raw(p, "\n");
			line++;
		}
	}
	report_raw(p, "</code></pre>\n");
}

static void put_block(struct page *p, const struct doc_block *b)
{
	static const char *const opens[] = { [DOC_TITLE] = "<h1>", [DOC_SCENE] = "<h2>", [DOC_PART] = "<h3>", [DOC_TEXT] = "<p>", [DOC_ITEM] = "<li>",
		[DOC_GAP] = "<p class=\"gap\"><b>To fill in:</b> ", [DOC_ALARM] = "<p class=\"alarm\"><b>Attention:</b> " };
	static const char *const closes[] = { [DOC_TITLE] = "</h1>", [DOC_SCENE] = "</h2>", [DOC_PART] = "</h3>", [DOC_TEXT] = "</p>",
		[DOC_ITEM] = "</li>", [DOC_GAP] = "</p>", [DOC_ALARM] = "</p>" };
	if (b->kind == DOC_COMMAND || b->kind == DOC_SYSTEM) {
		put_command(p, b);
		return;
	}
	report_raw(p, opens[b->kind]);
	put_words(p, b);
	report_raw(p, closes[b->kind]);
	report_raw(p, "\n");
}

int runbook_html(const struct runbook *r, struct im_buf *ret, struct im_error *err)
{
	struct page p = { .lang = REPORT_EN };
	const struct doc *d = &r->doc;
	report_head_open(&p);
	if (d->count && d->blocks[0].kind == DOC_TITLE)
		put_words(&p, &d->blocks[0]);
	report_raw(&p, "</title>\n");
	report_style(&p);
	report_raw(&p, style);
	report_raw(&p, "</head>\n<body>\n<main>\n<section>\n");
	for (size_t i = 0; i < d->count; i++) {
		const struct doc_block *b = &d->blocks[i];
		bool in_list = b->kind == DOC_ITEM, was_in_list = i && d->blocks[i - 1].kind == DOC_ITEM;
		report_raw(&p, was_in_list && !in_list ? "</ul>\n" : !was_in_list && in_list ? "<ul>\n" : "");
		report_raw(&p, b->kind == DOC_SCENE ? "</section>\n<section>\n" : "");
		put_block(&p, b);
	}
	report_raw(&p, d->count && d->blocks[d->count - 1].kind == DOC_ITEM ? "</ul>\n" : "");
	report_raw(&p, "</section>\n</main>\n</body>\n</html>\n");
	if (!p.out.failed)
		im_buf_put(ret, p.out.data, p.out.len);
	bool failed = p.out.failed || ret->failed;
	im_buf_free(&p.out);
	return failed ? im_fail(err, IM_ENOMEM, "out of memory for the runbook") : 0;
}
