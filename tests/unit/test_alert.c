/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alerts: harmless texts, mails that stay mails, what is remembered, and what a run has shown to be over.
 */
#include "cli/alert_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1795824000000) /* 2026-11-28 */
#define HOUR_MS INT64_C(3600000)

struct rig {
	char folder[64];
	struct im_config *config;
	struct alert_origin origin;
	struct alert_list alerts;
};

static int rig_new(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	struct im_error err = { 0 };
	char text[600];
	strcpy(r->folder, "/tmp/imvault-alert-XXXXXX");
	assert_non_null(mkdtemp(r->folder));
	snprintf(text, sizeof text, "[node]\nname = im-01\nstate = %s\n[store a]\ntype = files\npath = /a\n[store b]\ntype = files\npath = /b\n"
	    "[alert]\nmail = ops@example.org, night@example.org\nsmtp = smtp://localhost\nfrom = imvault@example.org\n", r->folder);
	assert_ok(im_config_parse(text, "test", &r->config, &err), &err);
	r->origin = (struct alert_origin){ .config = r->config, .node = "im-01", .vault = "/vault", .command = "backup" };
	*state = r;
	return 0;
}

static int rig_free(void **state)
{
	struct rig *r = *state;
	char command[100];
	snprintf(command, sizeof command, "rm -rf %s", r->folder);
	assert_int_equal(system(command), 0);
	alert_list_clear(&r->alerts);
	im_config_free(r->config);
	free(r);
	return 0;
}

/* --- texts --- */

static void gist__leaves_out_quantities_only(void **state)
{
	(void)state;
	char *one = alert_gist("the log of store im-2 is 3 h 5 min behind (12.5 MB), more than rpo = 5s: hurry");
	char *two = alert_gist("the log of store im-2 is 42 s behind (900 B), more than rpo = 10m: hurry");
	char *other = alert_gist("the log of store im-3 is 42 s behind (900 B), more than rpo = 10m: hurry");
	assert_string_equal(one, two);
	assert_string_not_equal(one, other);
	assert_non_null(strstr(one, "im-2"));
	free(one);
	free(two);
	free(other);
}

static void add__makes_texts_harmless(void **state)
{
	struct rig *r = *state;
	char long_text[4000];
	alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, "a\n", "x\r\ny\x1b[31m\x7f\xc2\x9bz");
	assert_string_equal(r->alerts.items[0].text, "x??y?[31m???z");
	assert_string_equal(r->alerts.items[0].store, "a?");
	alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, NULL, "caf\xc3\xa9 \xff");
	assert_string_equal(r->alerts.items[1].text, "caf?? ?"); /* no UTF-8 at all */
	memset(long_text, 'x', sizeof long_text - 1);
	long_text[sizeof long_text - 1] = '\0';
	memcpy(long_text + 1499, "\xe6\xbc\xa2", 3); /* the limit is in the middle of a character */
	alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, NULL, long_text);
	assert_int_equal(strlen(r->alerts.items[2].text), 1499);
}

/* --- mail --- */

static char *composed(struct rig *r, const struct alert *a)
{
	struct im_buf b = { 0 };
	struct im_error err = { 0 };
	assert_ok(alert_mail_compose(&r->origin, a, NOW_MS, &b, &err), &err);
	im_buf_put_u8(&b, 0);
	assert_false(b.failed);
	return (char *)b.data;
}

/* Every line ends with CRLF, is short and is ASCII. */
static void assert_lines(const char *mail)
{
	for (const char *at = mail; *at;) {
		size_t len = strcspn(at, "\r\n");
		assert_true(len <= 76);
		assert_true(at[len] == '\r' && at[len + 1] == '\n');
		for (size_t i = 0; i < len; i++)
			assert_true(at[i] >= ' ' && at[i] <= '~');
		at += len + 2;
	}
}

static size_t count_of(const char *text, const char *word)
{
	size_t n = 0;
	for (const char *at = text; (at = strstr(at, word)); at++)
		n++;
	return n;
}

static void mail__is_one_message(void **state)
{
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, "a", "store a: cannot open /srv/a = b: No such file or directory; it has been there for as long as anybody can remember");
	a->exit_code = 3;
	a->details = json_pack("{s:i}", "bytes_read", 42);
	char *mail = composed(r, a);
	assert_lines(mail);
	assert_non_null(strstr(mail, "Date: Sat, 28 Nov 2026 00:00:00 +0000\r\n"));
	assert_non_null(strstr(mail, "From: imvault <imvault@example.org>\r\n"));
	assert_non_null(strstr(mail, "To: ops@example.org,\r\n night@example.org\r\n"));
	assert_non_null(strstr(mail, "\r\nSubject: [im-01] CRITICAL: store a: cannot open /srv/a = b: No such file or\r\n directory;"));
	assert_non_null(strstr(mail, "@example.org>\r\n"));
	assert_non_null(strstr(mail, "imvault backup\r\n"));
	assert_non_null(strstr(mail, "bytes_read: 42"));
	assert_non_null(strstr(mail, "exit code 3"));
	assert_int_equal(count_of(mail, "\r\n\r\n") > 0, 1);
	free(mail);
}

static void mail__no_text_becomes_a_header(void **state)
{
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, "a", "x");
	free(a->text);
	a->text = strdup("x\r\nBcc: evil@example.org\r\n\r\nbody"); /* even past alert_add */
	char *mail = composed(r, a);
	assert_lines(mail);
	char *end = strstr(mail, "\r\n\r\n"), *bcc = strstr(mail, "\r\nBcc:");
	assert_true(!bcc || bcc > end);
	free(mail);
}

static void mail__encodes_what_is_not_ascii(void **state)
{
	struct rig *r = *state;
	char text[400] = "";
	for (int i = 0; i < 60; i++)
		strcat(text, "\xe6\xbc\xa2"); /* 漢 */
	char *mail = composed(r, alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, "a", text));
	assert_lines(mail);
	assert_non_null(strstr(mail, "Subject: =?UTF-8?B?"));
	assert_true(count_of(mail, "=?UTF-8?B?") > 3);
	assert_non_null(strstr(mail, "=E6=BC=A2"));
	free(mail);
	mail = composed(r, alert_add(&r->alerts, ALERT_BACKUP, ALERT_CRITICAL, "a", "=?UTF-8?B?ZXZpbA==?="));
	assert_null(strstr(mail, "ZXZpbA==?=\r\n"));
	free(mail);
}

/* --- memory --- */

static bool always(void *context, const struct alert_known *k)
{
	(void)context;
	(void)k;
	return true;
}

static struct alert_memory *opened(struct rig *r)
{
	struct alert_memory *m = NULL;
	struct im_error err = { 0 };
	assert_ok(alert_memory_open(&r->origin, &m, &err), &err);
	return m;
}

static void closed(struct alert_memory *m)
{
	struct im_error err = { 0 };
	assert_ok(alert_memory_close(m, &err), &err);
}

/* Would it be sent now? Then: is it heard? */
static bool claimed(struct rig *r, struct alert *a, int64_t now_ms, bool heard)
{
	struct alert_memory *m = opened(r);
	alert_memory_claim(m, a, now_ms, HOUR_MS);
	closed(m);
	if (!a->claimed)
		return false;
	m = opened(r);
	alert_memory_sent(m, a, heard, now_ms);
	closed(m);
	return true;
}

static void memory__says_it_once_and_again_after_repeat(void **state)
{
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text");
	assert_true(claimed(r, a, NOW_MS, true));
	assert_false(claimed(r, a, NOW_MS + HOUR_MS - 1, true));
	assert_true(claimed(r, a, NOW_MS + HOUR_MS, true));
	assert_int_equal(a->since_ms, NOW_MS);
	assert_false(claimed(r, a, NOW_MS + HOUR_MS + 1, true));
	a->severity = ALERT_CRITICAL;
	assert_true(claimed(r, a, NOW_MS + HOUR_MS + 2, true));
	assert_true(claimed(r, a, NOW_MS - 1, true)); /* the clock was set back */
	r->origin.vault = "/other";
	assert_true(claimed(r, a, NOW_MS, true));
}

static void memory__what_nobody_heard_is_tried_again(void **state)
{
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text");
	assert_true(claimed(r, a, NOW_MS, false));
	assert_true(claimed(r, a, NOW_MS + 1, true));
}

static void memory__a_claim_keeps_others_out_until_its_owner_must_be_dead(void **state)
{
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text");
	struct alert_memory *m = opened(r);
	alert_memory_claim(m, a, NOW_MS, HOUR_MS);
	closed(m);
	assert_true(a->claimed);
	assert_false(claimed(r, a, NOW_MS + 60000, true));
	assert_true(claimed(r, a, NOW_MS + 300000, true));
}

static void memory__says_once_that_it_is_over(void **state)
{
	struct rig *r = *state;
	struct alert_list none = { 0 }, over = { 0 };
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text");
	assert_true(claimed(r, a, NOW_MS, true));
	struct alert_memory *m = opened(r);
	alert_memory_settle(m, &r->alerts, always, NULL, NOW_MS + 1, &over); /* it is raised */
	assert_int_equal(over.count, 0);
	alert_memory_settle(m, &none, always, NULL, NOW_MS + 60000, &over);
	assert_int_equal(over.count, 1);
	assert_int_equal(over.items[0].severity, ALERT_RESOLVED);
	assert_string_equal(over.items[0].store, "a");
	assert_non_null(strstr(over.items[0].text, "text"));
	alert_memory_sent(m, &over.items[0], true, NOW_MS + 60001);
	alert_list_clear(&over);
	alert_memory_settle(m, &none, always, NULL, NOW_MS + 60002, &over);
	assert_int_equal(over.count, 0);
	closed(m);
}

static void memory__what_nobody_heard_ends_in_silence(void **state)
{
	struct rig *r = *state;
	struct alert_list none = { 0 }, over = { 0 };
	assert_true(claimed(r, alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text"), NOW_MS, false));
	struct alert_memory *m = opened(r);
	alert_memory_settle(m, &none, always, NULL, NOW_MS + 1, &over);
	assert_int_equal(over.count, 0);
	assert_int_equal(json_array_size(alert_memory_rows(m)), 0);
	closed(m);
}

static void memory__damaged_is_as_none(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "{\"version\": 2, \"open\": [], \"refused\": {}}", "{\"version\": 1, \"open\": {}, \"refused\": {}}" };
	struct rig *r = *state;
	struct alert *a = alert_add(&r->alerts, ALERT_BACKUP, ALERT_WARNING, "a", "text");
	char *path = im_path_join(r->folder, "im-01.alerts.json");
	struct im_error err = { 0 };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_ok(im_file_write(path, texts[i], strlen(texts[i]), 0600, IM_FILE_REPLACE, &err), &err);
		assert_true(claimed(r, a, NOW_MS, true));
		assert_false(claimed(r, a, NOW_MS + 1, true));
	}
	const char *odd = "{\"version\": 1, \"open\": [7, null, {}, {\"kind\": \"later\"}], \"refused\": {\"backup\": \"x\"}}";
	assert_ok(im_file_write(path, odd, strlen(odd), 0600, IM_FILE_REPLACE, &err), &err);
	struct alert_list none = { 0 }, over = { 0 };
	struct alert_memory *m = opened(r);
	alert_memory_settle(m, &none, always, NULL, NOW_MS, &over);
	assert_int_equal(over.count + json_array_size(alert_memory_rows(m)), 0);
	assert_int_equal(alert_memory_refused(m, true), 1);
	assert_int_equal(alert_memory_refused(m, true), 2);
	assert_int_equal(alert_memory_refused(m, false), 0);
	closed(m);
	free(path);
}

/* --- judging --- */

static void judge__each_failed_store_is_an_alert(void **state)
{
	struct rig *r = *state;
	struct im_error err = { IM_EPARTIAL, "two stores" };
	struct cli cli = { .command = "backup", .config = r->config };
	cli.json = json_pack("{s:i, s:[{s:s,s:s,s:s},{s:s,s:s,s:b},{s:s,s:s}]}", "bytes_read", 7, "stores", "name", "a", "status", "failed", "error", "gone",
	    "name", "b", "status", "ok", "partial", 1, "name", "c", "status", "ok");
	alert_judge(&cli, IM_EPARTIAL, 3, &err, &r->alerts);
	assert_int_equal(r->alerts.count, 2);
	assert_string_equal(r->alerts.items[0].text, "store a: gone");
	assert_int_equal(r->alerts.items[0].severity, ALERT_CRITICAL);
	assert_int_equal(r->alerts.items[1].severity, ALERT_WARNING);
	assert_int_equal(json_integer_value(json_object_get(r->alerts.items[0].details, "bytes_read")), 7);
	json_decref(cli.json);
}

static void judge__findings_of_status_are_alerts_also_when_it_is_green(void **state)
{
	struct rig *r = *state;
	struct im_error err = { 0 };
	struct cli cli = { .command = "status", .config = r->config };
	cli.json = json_pack("{s:[], s:[s]}", "problems", "warnings", "the vault is full in about 12 days");
	alert_judge(&cli, 0, 0, &err, &r->alerts);
	assert_int_equal(r->alerts.count, 1);
	assert_int_equal(r->alerts.items[0].severity, ALERT_WARNING);
	assert_int_equal(r->alerts.items[0].exit_code, 0);
	assert_null(strstr(r->alerts.items[0].about, "12"));
	json_decref(cli.json);
}

static bool over(struct cli *cli, int rc, enum alert_kind kind, const char *store, const char *command, int proof)
{
	const struct alert_known k = { kind, store, command, proof };
	return alert_settles(cli, rc, &k);
}

static void settles__only_what_the_run_has_looked_at(void **state)
{
	struct rig *r = *state;
	struct cli cli = { .command = "backup", .config = r->config };
	cli.json = json_pack("{s:[{s:s,s:s},{s:s,s:s,s:b}]}", "stores", "name", "a", "status", "ok", "name", "b", "status", "ok", "carried", 1);
	assert_true(over(&cli, 0, ALERT_BACKUP, "", "backup", 0));
	assert_true(over(&cli, 0, ALERT_BACKUP, "a", "backup", 0));
	assert_false(over(&cli, 0, ALERT_BACKUP, "b", "backup", 0)); /* not read */
	assert_true(over(&cli, 0, ALERT_BACKUP, "gone", "backup", 0)); /* no longer configured */
	assert_false(over(&cli, 0, ALERT_DAMAGE, "", "verify", 0));
	assert_true(over(&cli, 0, ALERT_VAULT, "", "verify", 0));
	assert_false(over(&cli, IM_EUNREACHABLE, ALERT_VAULT, "", "backup", 0));
	assert_false(over(&cli, IM_EKEY, ALERT_BACKUP, "", "backup", 0));
	cli.command = "follow";
	assert_false(over(&cli, 0, ALERT_LOG, "a", "follow", 0)); /* that a service ends proves nothing */
	cli.options.once = true;
	assert_true(over(&cli, 0, ALERT_LOG, "a", "follow", 0));
	cli.command = "verify";
	assert_true(over(&cli, 0, ALERT_DAMAGE, "", "verify", 0));
	assert_false(over(&cli, 0, ALERT_DAMAGE, "", "verify", 1));
	cli.options.read_percent = 10;
	assert_false(over(&cli, 0, ALERT_DAMAGE, "", "verify", 1));
	cli.options.read_percent = 100;
	assert_true(over(&cli, 0, ALERT_DAMAGE, "", "verify", 1));
	json_decref(cli.json);
}

static void judges__what_nobody_needs_to_hear_is_none(void **state)
{
	(void)state;
	struct cli cli = { .command = "restore" };
	assert_true(alert_judges(&cli, IM_EMISSED));
	assert_false(alert_judges(&cli, IM_EUSAGE));
	assert_false(alert_judges(&cli, IM_EINTERRUPTED));
	cli.options.dry_run = true;
	assert_false(alert_judges(&cli, IM_EMISSED));
	cli = (struct cli){ .command = "list" };
	assert_false(alert_judges(&cli, IM_EUNREACHABLE));
	cli.command = "backup";
	assert_true(alert_judges(&cli, IM_EKEY));
}

#define RIG(f) cmocka_unit_test_setup_teardown(f, rig_new, rig_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gist__leaves_out_quantities_only),
		RIG(add__makes_texts_harmless),
		RIG(mail__is_one_message),
		RIG(mail__no_text_becomes_a_header),
		RIG(mail__encodes_what_is_not_ascii),
		RIG(memory__says_it_once_and_again_after_repeat),
		RIG(memory__what_nobody_heard_is_tried_again),
		RIG(memory__a_claim_keeps_others_out_until_its_owner_must_be_dead),
		RIG(memory__says_once_that_it_is_over),
		RIG(memory__what_nobody_heard_ends_in_silence),
		RIG(memory__damaged_is_as_none),
		RIG(judge__each_failed_store_is_an_alert),
		RIG(judge__findings_of_status_are_alerts_also_when_it_is_green),
		RIG(settles__only_what_the_run_has_looked_at),
		cmocka_unit_test(judges__what_nobody_needs_to_hear_is_none),
	};
	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
