/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook's parts that need no vault: quoting (read back by a real shell), templates, and both
 * writers with texts that want to be markup. The page and its commands: tests/integration/test_runbook.sh.
 */
#include "verify/runbook_internal.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const hostile[] = { "plain", "", " ", "it's", "a b", "$(touch x)", "`touch x`", "\"$HOME\"", "a;b|c&d>e", "-rf", "~", "*",
	"#", "!x", "\\", "'\\''", "back\\slash'", "a\nb", "tab\there", "\x1b[31m", "\x7f", "\xe7\x8e\x8b", "\xe2\x80\xae" "abc", "bad\xff" "7utf",
	"=x", "{a,b}", "[a]", "\n```\n", "'\n'", "\x01" "23" };

static char *quoted(const char *text)
{
	struct im_buf b = { 0 };
	doc_quote(&b, text);
	im_buf_put_u8(&b, 0);
	assert_false(b.failed);
	return (char *)b.data;
}

static void quote__a_shell_reads_back_what_was_quoted(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		auto_free char *q = quoted(hostile[i]), *script = im_format("printf %%s %s", q);
		char path[] = "/tmp/imvault-quote-XXXXXX", back[200] = "";
		int fd = mkstemp(path);
		assert_true(fd >= 0 && write(fd, script, strlen(script)) == (ssize_t)strlen(script));
		close(fd);
		auto_free char *command = im_format("bash %s", path);
		FILE *f = popen(command, "r");
		assert_non_null(f);
		size_t n = fread(back, 1, sizeof back - 1, f);
		assert_int_equal(pclose(f), 0);
		unlink(path);
		assert_int_equal(n, strlen(hostile[i]));
		assert_string_equal(back, hostile[i]);
	}
}

static void quote__is_one_line_of_what_can_be_seen(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		auto_free char *q = quoted(hostile[i]);
		assert_true(doc_is_plain(q));
		assert_null(strchr(q, '\n'));
	}
}

static void quote__plain_words_stay_as_they_are(void **state)
{
	(void)state;
	auto_free char *path = quoted("/var/lib/prosody/prosody.sqlite"), *blank = quoted("a b"), *hidden = quoted("a\n7");
	assert_string_equal(path, "/var/lib/prosody/prosody.sqlite");
	assert_string_equal(blank, "'a b'");
	assert_string_equal(hidden, "$'a\\0127'");
}

static void plain__is_only_what_can_be_seen(void **state)
{
	(void)state;
	assert_true(doc_is_plain("systemctl stop prosody; echo '\xe7\x8e\x8b'"));
	assert_false(doc_is_plain("a\nb"));
	assert_false(doc_is_plain("\x1b[0m"));
	assert_false(doc_is_plain("a\xff"));
	assert_false(doc_is_plain("\xe2\x80\xae"));
}

/* --- documents --- */

typedef int writer_fn(const struct runbook *r, struct im_buf *ret, struct im_error *err);

static char *written(struct runbook *r, writer_fn *write_it)
{
	struct im_buf page = { 0 };
	struct im_error err = { 0 };
	for (size_t i = 0; i < r->doc.count; i++)
		if (r->doc.blocks[i].command.len && r->doc.blocks[i].command.data[r->doc.blocks[i].command.len - 1])
			im_buf_put_u8(&r->doc.blocks[i].command, 0);
	assert_false(r->doc.failed);
	assert_int_equal(write_it(r, &page, &err), 0);
	im_buf_put_u8(&page, 0);
	return (char *)page.data;
}

static void assert_page(struct runbook *r, writer_fn *write_it, const char *expected)
{
	auto_free char *page = written(r, write_it);
	if (!strstr(page, expected))
		fail_msg("no \"%s\" in:\n%s", expected, page);
}

static void template__values_do_not_bring_values_of_their_own(void **state)
{
	struct runbook r = { 0 };
	(void)state;
	doc_say(&r.doc, DOC_TEXT, "a [1] b {2}.", "{2}[1]", "[1]", NULL);
	doc_command(&r.doc, DOC_COMMAND);
	doc_add(&r.doc, "x {1} [2] {3", "[2]", "{1}", NULL);
	assert_page(&r, runbook_markdown, "a \\{2\\}\\[1\\] b `[1]`.\n");
	assert_page(&r, runbook_markdown, "```sh\nx '[2]' {1} {3\n```\n");
	doc_clear(&r.doc);
}

static void markdown__markup_is_text(void **state)
{
	struct runbook r = { 0 };
	(void)state;
	doc_say(&r.doc, DOC_ITEM, "[1]", "<b>*x*</b> [l](javascript:y) _z_ `c` # ~ | & $a$ ![i](j)", NULL);
	assert_page(&r, runbook_markdown, "- \\<b\\>\\*x\\*\\</b\\> \\[l\\](javascript:y) \\_z\\_ \\`c\\` \\# \\~ \\| \\& \\$a\\$ \\!\\[i\\](j)\n");
	doc_clear(&r.doc);
}

static void markdown__a_text_begins_no_list_and_no_link(void **state)
{
	static const char *const texts[][2] = { { "- x", "\\- x" }, { "1. x", "1\\. x" }, { "12) x", "12\\) x" }, { "+ x", "\\+ x" }, { "===", "\\===" },
		{ "# x", "\\# x" }, { "http://x", "http\\://x" }, { "at 03:15", "at 03:15" }, { "im-01.", "im-01." } };
	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct runbook r = { 0 };
		doc_say(&r.doc, DOC_TEXT, "[1]", texts[i][0], NULL);
		auto_free char *page = written(&r, runbook_markdown), *line = im_format("%s\n", texts[i][1]);
		assert_string_equal(page, line);
		doc_clear(&r.doc);
	}
}

static void markdown__code_is_fenced_by_more_backticks_than_it_holds(void **state)
{
	struct runbook r = { 0 };
	(void)state;
	doc_say(&r.doc, DOC_TEXT, "{1}", "a``b`", NULL);
	doc_command(&r.doc, DOC_COMMAND);
	doc_add(&r.doc, "[1]", "```` x", NULL);
	assert_page(&r, runbook_markdown, "``` a``b` ```\n");
	assert_page(&r, runbook_markdown, "`````sh\n```` x\n`````\n");
	doc_clear(&r.doc);
}

static void markdown__lines_and_controls_are_shown_not_obeyed(void **state)
{
	struct runbook r = { 0 };
	(void)state;
	doc_say(&r.doc, DOC_TEXT, "[1] {1}", "a\n# b\x1b", NULL);
	assert_page(&r, runbook_markdown, "a\\[U+000A\\]\\# b\\[U+001B\\] `a[U+000A]# b[U+001B]`\n");
	doc_clear(&r.doc);
}

static void html__markup_is_text_and_commands_keep_their_lines(void **state)
{
	struct runbook r = { 0 };
	(void)state;
	doc_say(&r.doc, DOC_TITLE, "of [1]", "</title><script>", NULL);
	doc_say(&r.doc, DOC_ITEM, "it's [1] {2}", "<b>&\"'", "\x1b", NULL);
	doc_command(&r.doc, DOC_COMMAND);
	doc_add(&r.doc, "a <b >c && {1}\nd", "</pre>", NULL);
	doc_command(&r.doc, DOC_SYSTEM);
	doc_add(&r.doc, "apt-get", NULL);
	assert_page(&r, runbook_html, "<title>of &lt;/title&gt;&lt;script&gt;</title>");
	assert_page(&r, runbook_html, "<ul>\n<li>it&#39;s &lt;b&gt;&amp;&quot;&#39; <code>[U+001B]</code></li>\n</ul>\n");
	assert_page(&r, runbook_html, "<pre><code>a &lt;b &gt;c &amp;&amp; &#39;&lt;/pre&gt;&#39;\nd</code></pre>");
	assert_page(&r, runbook_html, "<pre class=\"system\"><code>apt-get</code></pre>");
	auto_free char *page = written(&r, runbook_html);
	assert_null(strstr(page, "<script"));
	doc_clear(&r.doc);
}

static void html__long_commands_are_not_cut(void **state)
{
	struct runbook r = { 0 };
	char path[4097];
	(void)state;
	memset(path, 'x', sizeof path - 1);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	doc_command(&r.doc, DOC_COMMAND);
	doc_add(&r.doc, "ls {1}", path, NULL);
	assert_page(&r, runbook_html, path);
	assert_page(&r, runbook_markdown, path);
	doc_clear(&r.doc);
}

/* --- proofs --- */

/* A record of the stores a and b; statuses: "ok", or what became of them, NULL: not restored. */
static struct drill_record record(const char *scenario, const char *chosen, const char *verdict, const char *a, const char *b)
{
	json_t *stores = json_array();
	if (a)
		json_array_append_new(stores, json_pack("{s:s, s:s}", "name", "a", "status", a));
	if (b)
		json_array_append_new(stores, json_pack("{s:s, s:s}", "name", "b", "status", b));
	bool passed = strcmp(verdict, "passed") == 0 || strcmp(verdict, "missed") == 0;
	return (struct drill_record){ .meta = json_pack("{s:o}", "stores", stores), .scenario = scenario, .chosen = chosen, .verdict = verdict,
		.passed = passed, .host = "h" };
}

static const struct runbook_store two_stores[] = { { .name = "a", .type = "sqlite", .path = "/a" }, { .name = "b", .type = "files", .path = "/b" } };

/* What proves the scenario and what failed since, as numbers of records from 1; 0: none. */
static void assert_proof(struct drill_record *records, size_t count, const char *name, const char *store, size_t worked, size_t failed)
{
	struct drill_list list = { .items = records, .count = count };
	struct runbook_scenario s = { .name = name, .store = store };
	struct runbook r = { .f = { .drills = &list, .stores = two_stores, .store_count = 2 }, .scenarios = &s, .scenario_count = 1 };
	runbook_prove(&r);
	assert_int_equal(s.worked ? s.worked - records + 1 : 0, worked);
	assert_int_equal(s.failed ? s.failed - records + 1 : 0, failed);
}

static void clear_records(struct drill_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++)
		json_decref(records[i].meta);
}

static void proof__counts_only_what_a_record_did(void **state)
{
	struct drill_record records[] = { record("full", "latest", "passed", "ok", "ok"), record("instant", "random", "missed", "ok", "ok"),
		record("full", "latest", "passed", NULL, "ok"), record("full", "latest", "passed", "older", "ok") };
	(void)state;
	assert_proof(records, 4, "machine_lost", NULL, 1, 0);
	assert_proof(records, 4, "machine_lost_instant", NULL, 2, 0);
	assert_proof(records, 4, "database_damaged", "a", 2, 0);
	assert_proof(records, 4, "deleted_by_mistake", NULL, 2, 0);
	assert_proof(records, 4, "vault_damaged", NULL, 0, 0);
	assert_proof(records, 4, "key_lost", NULL, 4, 0);
	clear_records(records, 4);
}

static void proof__a_newer_try_that_failed_is_told(void **state)
{
	struct drill_record records[] = { record("full", "latest", "failed", "failed", "ok"), record("full", "latest", "passed", "ok", "ok"),
		record("full", "asked", "damaged", "damaged", "ok"), record("full", "latest", "interrupted", NULL, NULL) };
	(void)state;
	assert_proof(records, 4, "machine_lost", NULL, 2, 3);
	assert_proof(records, 4, "machine_lost_instant", NULL, 0, 0);
	assert_proof(records, 4, "database_damaged", "a", 2, 3);
	assert_proof(records, 4, "deleted_by_mistake", NULL, 0, 3);
	assert_proof(records, 4, "vault_damaged", NULL, 3, 0);
	assert_proof(records, 2, "machine_lost", NULL, 2, 0);
	clear_records(records, 4);
}

static void proof__one_that_came_to_nothing_is_a_failed_try_of_all(void **state)
{
	struct drill_record records[] = { record("full", "latest", "passed", "ok", "ok"), record("full", "latest", "failed", NULL, NULL) };
	(void)state;
	assert_proof(records, 2, "machine_lost", NULL, 1, 2);
	assert_proof(records, 2, "database_damaged", "a", 1, 0);
	clear_records(records, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quote__a_shell_reads_back_what_was_quoted),
		cmocka_unit_test(quote__is_one_line_of_what_can_be_seen),
		cmocka_unit_test(quote__plain_words_stay_as_they_are),
		cmocka_unit_test(plain__is_only_what_can_be_seen),
		cmocka_unit_test(template__values_do_not_bring_values_of_their_own),
		cmocka_unit_test(markdown__markup_is_text),
		cmocka_unit_test(markdown__a_text_begins_no_list_and_no_link),
		cmocka_unit_test(markdown__code_is_fenced_by_more_backticks_than_it_holds),
		cmocka_unit_test(markdown__lines_and_controls_are_shown_not_obeyed),
		cmocka_unit_test(html__markup_is_text_and_commands_keep_their_lines),
		cmocka_unit_test(html__long_commands_are_not_cut),
		cmocka_unit_test(proof__counts_only_what_a_record_did),
		cmocka_unit_test(proof__a_newer_try_that_failed_is_told),
		cmocka_unit_test(proof__one_that_came_to_nothing_is_a_failed_try_of_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
