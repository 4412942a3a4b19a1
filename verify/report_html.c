/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing HTML that is XML too. report_text is the only way in for foreign bytes: what could end a
 * text or an attribute is escaped, what could hide or reorder what the reader sees is shown by name.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void report_raw(struct page *p, const char *own)
{
	im_buf_put(&p->out, own, strlen(own));
}

void report_put(struct page *p, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	auto_free char *text = NULL;
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	if (n < 0) {
		text = NULL;
		p->out.failed = true;
		return;
	}
	im_buf_put(&p->out, text, (size_t)n);
}

/* --- foreign text --- */

uint32_t report_next_character(const unsigned char **at)
{
	const unsigned char *p = *at;
	int more = *p >= 0xf0 && *p < 0xf5 ? 3 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xc2 && *p < 0xe0 ? 1 : 0;
	uint32_t c = more == 3 ? *p & 7 : more == 2 ? *p & 15 : more == 1 ? *p & 31 : *p;
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	*at = p + 1;
	if (!more)
		return c < 0x80 ? c : 0xfffd;
	for (int i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0xfffd;
		c = c << 6 | (p[i] & 63);
	}
	if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0xfffd;
	*at = p + more + 1;
	return c;
}

bool report_hides(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e || c == 0x200b || c == 0x200e || c == 0x200f ||
	    (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff0 && c < 0xfffc) || (c & 0xfffe) == 0xfffe ||
	    (c >= 0xe0000 && c < 0xe1000);
}

static void put_character(struct page *p, const unsigned char *bytes, size_t len, uint32_t c)
{
	switch (c) {
	case '&': report_raw(p, "&amp;"); return;
	case '<': report_raw(p, "&lt;"); return;
	case '>': report_raw(p, "&gt;"); return;
	case '"': report_raw(p, "&quot;"); return;
	case '\'': report_raw(p, "&#39;"); return;
	case 0xfffd: report_raw(p, "&#xfffd;"); return;
	}
	if (report_hides(c))
		report_put(p, "[U+%04X]", c);
	else
		im_buf_put(&p->out, bytes, len);
}

void report_text_upto(struct page *p, const char *foreign, size_t max)
{
	const unsigned char *at = (const unsigned char *)foreign;
	for (size_t n = 0; *at; n++) {
		const unsigned char *before = at;
		uint32_t c = report_next_character(&at);
		if (n == max) {
			report_raw(p, " [&#8230;]");
			return;
		}
		put_character(p, before, (size_t)(at - before), c);
	}
}

void report_text(struct page *p, const char *foreign)
{
	report_text_upto(p, foreign, REPORT_TEXT_MAX);
}

void report_quote(struct page *p, const char *foreign)
{
	report_raw(p, "<span class=\"said\" lang=\"en\">");
	report_text(p, foreign);
	report_raw(p, "</span>");
}

/* --- words --- */

static const char *const words_table[W_COUNT][2] = {
#define REPORT_WORD(id, en, zh) [W_##id] = { en, zh },
	REPORT_WORDS(REPORT_WORD)
#undef REPORT_WORD
};

const char *report_words_of(const struct page *p, enum report_words words)
{
	return words_table[words][p->lang];
}

void report_say(struct page *p, enum report_words words, ...)
{
	const char *values[9] = { NULL };
	va_list ap;
	va_start(ap, words);
	for (size_t i = 0; i < sizeof values / sizeof *values && (values[i] = va_arg(ap, const char *)); i++)
		;
	va_end(ap);
	for (const char *at = words_table[words][p->lang]; *at;) {
		if (at[0] == '{' && at[1] >= '1' && at[1] <= '9' && at[2] == '}') {
			report_text(p, values[at[1] - '1'] ? values[at[1] - '1'] : "");
			at += 3;
		} else {
			size_t n = 1 + strcspn(at + 1, "{");
			im_buf_put(&p->out, at, n); /* our own words may hold <code> */
			at += n;
		}
	}
}

void report_element(struct page *p, const char *tag, const char *class, enum report_words words)
{
	if (class)
		report_put(p, "<%s class=\"%s\">", tag, class);
	else
		report_put(p, "<%s>", tag);
	report_raw(p, report_words_of(p, words));
	report_put(p, "</%s>\n", tag);
}

struct term {
	const char *value;
	enum report_words words;
};

static const struct term *terms_of(enum report_vocabulary vocabulary)
{
	static const struct term verdicts[] = { { "passed", W_PASSED }, { "missed", W_MISSED }, { "different", W_DIFFERENT }, { "damaged", W_DAMAGED },
		{ "partial", W_PARTIAL }, { "failed", W_FAILED }, { "interrupted", W_INTERRUPTED }, { NULL, 0 } };
	static const struct term scenarios[] = { { "full", W_FULL }, { "instant", W_INSTANT }, { NULL, 0 } };
	static const struct term modes[] = { { "ordinary", W_MODE_ORDINARY }, { "blocks", W_MODE_BLOCKS }, { "fuse", W_MODE_FUSE },
		{ "files", W_MODE_FILES }, { NULL, 0 } };
	static const struct term chosen[] = { { "latest", W_CHOSEN_LATEST }, { "random", W_CHOSEN_RANDOM }, { "asked", W_CHOSEN_ASKED }, { NULL, 0 } };
	static const struct term services[] = { { "started", W_SERVICE_STARTED }, { "failed", W_SERVICE_FAILED }, { "none", W_SERVICE_NONE }, { NULL, 0 } };
	static const struct term phases[] = { { "open", W_PHASE_OPEN }, { "plan", W_PHASE_PLAN }, { "prepare", W_PHASE_PREPARE }, { "fetch", W_PHASE_FETCH },
		{ "read", W_PHASE_READ }, { "decode", W_PHASE_DECODE }, { "write", W_PHASE_WRITE }, { "replay", W_PHASE_REPLAY },
		{ "finish", W_PHASE_FINISH }, { "sync", W_PHASE_SYNC }, { "check", W_PHASE_CHECK }, { "start", W_PHASE_START },
		{ "hydrate", W_PHASE_HYDRATE }, { NULL, 0 } };
	static const struct term statuses[] = { { "ok", W_STATUS_OK }, { "older", W_STATUS_OLDER }, { "damaged", W_DAMAGED },
		{ "different", W_DIFFERENT }, { "failed", W_FAILED }, { NULL, 0 } };
	static const struct term *const all[] = { [VOCABULARY_VERDICT] = verdicts, [VOCABULARY_SCENARIO] = scenarios, [VOCABULARY_MODE] = modes,
		[VOCABULARY_CHOSEN] = chosen, [VOCABULARY_SERVICE] = services, [VOCABULARY_PHASE] = phases, [VOCABULARY_STATUS] = statuses };
	return all[vocabulary];
}

void report_term(struct page *p, enum report_vocabulary vocabulary, const char *value)
{
	for (const struct term *t = terms_of(vocabulary); t->value; t++)
		if (strcmp(t->value, value) == 0) {
			report_raw(p, report_words_of(p, t->words));
			return;
		}
	if (*value)
		report_quote(p, value);
	else
		report_raw(p, "&#8211;");
}

/* --- values --- */

#define DASH "\xe2\x80\x93"
#define NARROW_SPACE "\xe2\x80\xaf"

/* 0.62, 5, 12.5: as many decimals as matter, none that are zero. */
static void decimal(char *ret, size_t size, double v)
{
	snprintf(ret, size, v < 10 ? "%.2f" : "%.1f", v);
	size_t n = strlen(ret);
	while (n && ret[n - 1] == '0')
		ret[--n] = '\0';
	if (n && ret[n - 1] == '.')
		ret[n - 1] = '\0';
}

char *report_duration(const struct page *p, char ret[REPORT_VALUE_BYTES], int64_t ms)
{
	static const struct {
		int64_t ms;
		enum report_words unit;
	} units[] = { { 1000, W_UNIT_S }, { 60000, W_UNIT_MIN }, { 3600000, W_UNIT_H }, { REPORT_DAY_MS, W_UNIT_D } };
	char seconds[32];
	if (ms < 0)
		return strcpy(ret, DASH);
	if (ms < 120000 && ms % 60000) {
		decimal(seconds, sizeof seconds, (double)ms / 1000);
		snprintf(ret, REPORT_VALUE_BYTES, "%s %s", seconds, report_words_of(p, W_UNIT_S));
		return ret;
	}
	int u = ms >= 2 * REPORT_DAY_MS || (ms && ms % REPORT_DAY_MS == 0) ? 3 : ms >= 2 * units[2].ms || (ms && ms % units[2].ms == 0) ? 2 : ms ? 1 : 0;
	int64_t whole = ms / units[u].ms, rest = u ? ms % units[u].ms / units[u - 1].ms : 0;
	if (rest)
		snprintf(ret, REPORT_VALUE_BYTES, "%" PRId64 " %s %" PRId64 " %s", whole, report_words_of(p, units[u].unit), rest,
		    report_words_of(p, units[u - 1].unit));
	else
		snprintf(ret, REPORT_VALUE_BYTES, "%" PRId64 " %s", whole, report_words_of(p, units[u].unit));
	return ret;
}

char *report_minute(char ret[REPORT_VALUE_BYTES], int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	if (ms < 0)
		return strcpy(ret, DASH);
	im_instant_format(text, ms);
	snprintf(ret, REPORT_VALUE_BYTES, "%.10s %.5s UTC", text, text + 11);
	return ret;
}

char *report_day(char ret[REPORT_VALUE_BYTES], int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	snprintf(ret, REPORT_VALUE_BYTES, "%.10s", im_instant_format(text, ms));
	return ret;
}

char *report_bytes(char ret[REPORT_VALUE_BYTES], uint64_t bytes)
{
	char *zero = strstr(im_bytes_format(ret, REPORT_VALUE_BYTES, bytes), ".0 ");
	if (zero)
		memmove(zero, zero + 2, strlen(zero + 2) + 1);
	return ret;
}

char *report_count(char ret[REPORT_VALUE_BYTES], uint64_t n)
{
	char digits[24];
	size_t len = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, n);
	ret[0] = '\0';
	for (size_t i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			strcat(ret, NARROW_SPACE);
		strncat(ret, digits + i, 1);
	}
	return ret;
}

char *report_ratio(const struct page *p, char ret[REPORT_VALUE_BYTES], struct report_share s)
{
	if (!s.of)
		return strcpy(ret, DASH);
	snprintf(ret, REPORT_VALUE_BYTES, p->lang == REPORT_ZH ? "%zu / %zu" : "%zu of %zu", s.met, s.of);
	return ret;
}

/* --- tables --- */

void report_table_open(struct page *p, unsigned numeric_mask, const enum report_words *heads)
{
	report_raw(p, "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
	for (unsigned i = 0; heads[i] != W_END; i++) {
		report_put(p, "<th scope=\"col\"%s>", numeric_mask >> i & 1 ? " class=\"n\"" : "");
		report_raw(p, report_words_of(p, heads[i]));
		report_raw(p, "</th>");
	}
	report_raw(p, "</tr></thead><tbody>\n");
}

void report_table_close(struct page *p)
{
	report_raw(p, "</tbody></table></div>\n");
}
