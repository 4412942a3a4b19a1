/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mail: a plain RFC 5322 message. Header values are addresses that the configuration has checked,
 * what is made here, and the subject, which is encoded (RFC 2047) unless it is plain ASCII; the body is
 * quoted-printable, so that no line is too long for any server.
 */
#include "cli/alert_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "vault/crypto.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_CHARS 76
#define SUBJECT_MAX_BYTES 180
#define WORD_BYTES 39 /* of text in an encoded word: 64 characters as base64 with its frame */

static __attribute__((format(printf, 2, 3))) void put(struct im_buf *b, const char *format, ...)
{
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof text)
		b->failed = true;
	else
		im_buf_put(b, text, (size_t)n);
}

/* --- headers --- */

const char *alert_mail_address(const char **at, size_t *ret_len)
{
	*at += strspn(*at, ", \t");
	const char *ret = *at;
	*ret_len = strcspn(ret, ", \t");
	*at += *ret_len;
	return *ret_len ? ret : NULL;
}

static void put_recipients(struct im_buf *b, const char *list)
{
	const char *at = list, *address;
	size_t len, count = 0;
	while ((address = alert_mail_address(&at, &len)))
		put(b, "%s%.*s", count++ ? ",\r\n " : "To: ", (int)len, address);
	put(b, "\r\n");
}

static void put_identity(struct im_buf *b, const char *from, int64_t now_ms)
{
	char date[64] = "", hex[33];
	uint8_t random[16];
	time_t now = (time_t)(now_ms / 1000);
	struct tm tm;
	if (gmtime_r(&now, &tm))
		strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", &tm);
	crypto_random(random, sizeof random);
	put(b, "Date: %s\r\nMessage-ID: <%s@%s>\r\nFrom: imvault <%s>\r\n", date, im_hex(hex, random, sizeof random), strchr(from, '@') + 1, from);
}

static bool is_plain(const char *text)
{
	for (const char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			return false;
	return !strstr(text, "=?");
}

/* At most max bytes of text that end where a character does. */
static size_t whole_characters(const char *text, size_t max)
{
	size_t len = strnlen(text, max);
	while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	return len ? len : strnlen(text, max);
}

/* Folded between words. */
static void put_plain_subject(struct im_buf *b, const char *text)
{
	size_t column = strlen("Subject:");
	for (const char *at = text + strspn(text, " "); *at; at += strspn(at, " ")) {
		size_t len = strcspn(at, " ");
		bool fold = column > strlen("Subject:") && column + 1 + len > LINE_MAX_CHARS;
		put(b, "%s %.*s", fold ? "\r\n" : "", (int)len, at);
		column = (fold ? 0 : column) + 1 + len;
		at += len;
	}
}

static void put_subject(struct im_buf *b, const char *text)
{
	put(b, "Subject:");
	if (is_plain(text)) {
		put_plain_subject(b, text);
		put(b, "\r\n");
		return;
	}
	for (size_t len; *text; text += len) {
		len = whole_characters(text, WORD_BYTES);
		auto_free char *word = im_base64(text, len);
		b->failed |= !word;
		put(b, " =?UTF-8?B?%s?=\r\n", word ? word : "");
	}
}

static char *subject_of(const struct alert_origin *o, const struct alert *a)
{
	static const char *const words[] = { [ALERT_RESOLVED] = "RESOLVED", [ALERT_WARNING] = "WARNING", [ALERT_CRITICAL] = "CRITICAL" };
	char *subject = im_format("[%s] %s: %s", o->node, words[a->severity], a->text);
	if (subject && strlen(subject) > SUBJECT_MAX_BYTES) {
		size_t len = whole_characters(subject, SUBJECT_MAX_BYTES - 4);
		memcpy(subject + len, " ...", 5);
	}
	return subject;
}

/* --- the body --- */

static char *format_details(const json_t *details)
{
	auto_buf struct im_buf b = { 0 };
	const char *name;
	json_t *value;
	json_object_foreach((json_t *)details, name, value) {
		auto_free char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		auto_free char *line = im_format("    %s: %s\n", name, text ? text : "");
		if (line)
			im_buf_put(&b, line, strlen(line));
	}
	im_buf_put_u8(&b, 0);
	if (b.failed)
		return NULL;
	char *ret = (char *)b.data;
	b = (struct im_buf){ 0 };
	return ret;
}

static char *body_of(const struct alert_origin *o, const struct alert *a, int64_t now_ms)
{
	char now[IM_INSTANT_BYTES], since[IM_INSTANT_BYTES], repeat[40], end[80] = "It still runs.";
	auto_free char *details = format_details(a->details), *hint = alert_run_hint(o, a);
	if (!details || !hint)
		return NULL;
	if (a->exit_code >= 0)
		snprintf(end, sizeof end, "It ended with exit code %d.", a->exit_code);
	return im_format("%s: node %s%s%s, %s\n\nWhat happened:\n    %s\n\nWhat to do:\n    %s\n\nCommand to run on %s:\n    %s\n\n"
	    "Said by imvault %s at %s.\n%s\nThis began at %s.\n%s%s\n%s%s",
	    alert_severity_name(a->severity), o->node, *a->store ? ", store " : "", a->store, alert_kind_name(a->kind), a->text, alert_advice(a), o->node,
	    hint, o->command, im_instant_format(now, now_ms), end, im_instant_format(since, a->since_ms ? a->since_ms : now_ms),
	    a->severity == ALERT_RESOLVED ? "If it comes back you will hear at once" : "As long as it lasts you will hear again every ",
	    a->severity == ALERT_RESOLVED ? "." : im_duration_format(repeat, sizeof repeat, o->config->alert_repeat_ms),
	    *details ? "\nDetails:\n" : "", details);
}

static void put_quoted(struct im_buf *b, const char *text)
{
	size_t column = 0;
	for (const char *p = text; *p; p++) {
		bool last = p[1] == '\n' || !p[1], literal = (*p > ' ' && *p <= '~' && *p != '=') || (*p == ' ' && !last);
		if (*p == '\n') {
			put(b, "\r\n");
			column = 0;
			continue;
		}
		if (column + (literal ? 1 : 3) > LINE_MAX_CHARS - 1) {
			put(b, "=\r\n");
			column = 0;
		}
		put(b, literal ? "%c" : "=%02X", (unsigned char)*p);
		column += literal ? 1 : 3;
	}
}

int alert_mail_compose(const struct alert_origin *o, const struct alert *a, int64_t now_ms, struct im_buf *ret, struct im_error *err)
{
	auto_free char *subject = subject_of(o, a), *body = body_of(o, a, now_ms);
	if (!subject || !body)
		return im_fail(err, IM_ENOMEM, "out of memory");
	put_identity(ret, o->config->alert_from, now_ms);
	put_recipients(ret, o->config->alert_mail);
	put_subject(ret, subject);
	put(ret, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
	    "Auto-Submitted: auto-generated\r\n\r\n");
	put_quoted(ret, body);
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}
