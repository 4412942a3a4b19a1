/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: what is accepted, what is filled in, and that nothing is ever ignored.
 */
#include "base/config.h"

#include "base/bytes.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct im_config *parsed(const char *text)
{
	struct im_config *c = NULL;
	struct im_error err = { 0 };
	int rc = im_config_parse(text, "test.conf", &c, &err);
	if (rc)
		fail_msg("%s", err.text);
	return c;
}

/* The text must be refused as a usage error whose message holds each of the words. */
static void refused(const char *text, const char *line, const char *word)
{
	struct im_config *c = NULL;
	struct im_error err = { 0 };
	assert_int_equal(im_config_parse(text, "test.conf", &c, &err), IM_EUSAGE);
	assert_null(c);
	assert_non_null(strstr(err.text, "test.conf"));
	if (line && !strstr(err.text, line))
		fail_msg("no \"%s\" in: %s", line, err.text);
	if (!strstr(err.text, word))
		fail_msg("no \"%s\" in: %s", word, err.text);
}

static const char whole[] =
    "; the node\n"
    "[node]\n"
    "name = im-01\n"
    "tier = core\n"
    "rpo  = 5s\n"
    "state = /var/lib/imvault/\n"
    "\n"
    "[vault]\n"
    "url = /srv/backup/im          ; a directory\n"
    "key = /etc/imvault/node.key\n"
    "compression = 3\n"
    "[store archive]\n"
    "type  = sqlite\n"
    "path  = /var/lib/prosody/prosody.sqlite\n"
    "probe = SELECT count(*), max(sort_id) FROM prosodyarchive\n"
    "probe = SELECT 1\n"
    "[store uploads]\n"
    "type     = files\n"
    "path     = //var/lib/./prosody//http_file_share/\n"
    "priority = 2                  ; hydrated after priority 1\n";

static void parse__reads_the_manuals_example(void **state)
{
	(void)state;
	struct im_config *c = parsed(whole);
	assert_string_equal(c->node_name, "im-01");
	assert_string_equal(c->tier, "core");
	assert_int_equal(c->rto_ms, 300000);
	assert_int_equal(c->rpo_ms, 5000);
	assert_string_equal(c->state_dir, "/var/lib/imvault");
	assert_string_equal(c->vault_url, "/srv/backup/im");
	assert_string_equal(c->vault_key, "/etc/imvault/node.key");
	assert_int_equal(c->compression_level, 3);
	assert_int_equal(c->store_count, 2);
	assert_string_equal(c->stores[0].type, "sqlite");
	assert_int_equal(c->stores[0].priority, 1);
	assert_int_equal(c->stores[0].pair_count, 2);
	assert_string_equal(c->stores[0].pairs[1].value, "SELECT 1");
	assert_string_equal(c->stores[1].path, "/var/lib/prosody/http_file_share");
	assert_int_equal(c->stores[1].priority, 2);
	assert_string_equal(c->text, whole);
	im_config_free(c);
}

static void parse__fills_in_defaults(void **state)
{
	(void)state;
	char host[256] = "";
	gethostname(host, sizeof host - 1);
	struct im_config *c = parsed("[node]\nname = a\n");
	assert_string_equal(c->tier, "im");
	assert_int_equal(c->rto_ms, 900000);
	assert_int_equal(c->rpo_ms, 0);
	assert_int_equal(c->compression_level, 1);
	assert_null(c->vault_url);
	im_config_free(c);
	if (im_name_valid(host)) {
		c = parsed("");
		assert_string_equal(c->node_name, host);
		im_config_free(c);
	}
}

static void parse__rto_beats_tier(void **state)
{
	(void)state;
	struct im_config *c = parsed("[node]\nname=a\nrto = 10m\ntier = core\n");
	assert_int_equal(c->rto_ms, 600000);
	im_config_free(c);
}

static void parse__indented_keys_are_no_continuation(void **state)
{
	(void)state;
	struct im_config *c = parsed("\xEF\xBB\xBF[node]\n    name = a\n    tier = core\n\t[vault]\n\turl = /v\r\n");
	assert_string_equal(c->node_name, "a");
	assert_string_equal(c->tier, "core");
	assert_string_equal(c->vault_url, "/v");
	im_config_free(c);
}

static void parse__long_store_names_stay_apart(void **state)
{
	(void)state;
	char text[400], a[65], b[65];
	memset(a, 'x', 64);
	memset(b, 'x', 64);
	a[64] = b[64] = '\0';
	b[63] = 'y';
	snprintf(text, sizeof text, "[node]\nname=n\n[store %s]\ntype=files\npath=/a\n[store %s]\ntype=files\npath=/b\n", a, b);
	struct im_config *c = parsed(text);
	assert_int_equal(c->store_count, 2);
	assert_string_equal(im_config_find_store(c, b)->path, "/b");
	im_config_free(c);
}

static void parse__nothing_unknown_is_ignored(void **state)
{
	(void)state;
	refused("[node]\nname = a\ncolour = red\n", "line 3", "colour");
	refused("[nodes]\nname = a\n", "line 1", "unknown section [nodes]");
	refused("[retention]\nkeep_last = many\n", "line 2", "keep_last");
	refused("[retention]\nkeep_lots = 24\n", "line 2", "keep_lots");
	refused("[vault]\npassword = x\n", "line 2", "password");
	refused("[vault]\ndedupe = all\n", "line 2", "dedupe");
	refused("name = a\n", "line 1", "before the first section");
}

static void parse__wrong_values_are_named(void **state)
{
	(void)state;
	refused("[node]\ntier = gold\n", "line 2", "gold");
	refused("[node]\nrto = soon\n", "line 2", "soon");
	refused("[node]\nrpo = 0\n", "line 2", "rpo");
	refused("[node]\nname = ../x\n", "line 2", "../x");
	refused("[node]\nname =\n", "line 2", "no value");
	refused("[node]\nname = a\nname = b\n", "line 3", "twice");
	refused("[node]\nname = a\n[node]\ntier = im\n", "line 3", "two sections");
	refused("[vault]\ncompression = 20\n", "line 2", "1 to 19");
	refused("[store a]\ntype = files\npath = relative\n", "line 3", "absolute");
	refused("[store a]\ntype = files\npath = /a/../b\n", "line 3", "..");
	refused("[store a]\ntype = files\npath = /a\npriority = high\n", "line 4", "high");
}

static void parse__follow_section(void **state)
{
	(void)state;
	struct im_config *c = parsed("[node]\nname = a\n");
	assert_int_equal(c->follow_flush_ms, 300);
	assert_int_equal(c->follow_heartbeat_ms, 60000);
	assert_int_equal(c->follow_hold_ms, 60000);
	assert_int_equal(c->follow_spool_limit_bytes, 1000000000);
	im_config_free(c);
	c = parsed("[node]\nname = a\n[follow]\nflush = 50ms\nheartbeat = 10s\nspool_limit = 2GiB\nhold = 0\n");
	assert_int_equal(c->follow_flush_ms, 50);
	assert_int_equal(c->follow_heartbeat_ms, 10000);
	assert_int_equal(c->follow_hold_ms, 0);
	assert_int_equal(c->follow_spool_limit_bytes, UINT64_C(2) << 30);
	im_config_free(c);
	refused("[follow]\nflush = 49ms\n", "line 2", "out of bounds");
	refused("[follow]\nflush = 61s\n", "line 2", "out of bounds");
	refused("[follow]\nheartbeat = 0\n", "line 2", "heartbeat");
	refused("[follow]\nhold = forever\n", "line 2", "hold");
	refused("[follow]\nspool_limit = 512\n", "line 2", "out of bounds");
	refused("[follow]\nspool_limit = lots\n", "line 2", "512M");
	refused("[follow]\nspool_limit = 99999999999999999999G\n", "line 2", "spool_limit");
	refused("[follow]\nspool_limit = 9999999999G\n", "line 2", "spool_limit");
	refused("[follow]\nspool_limits = 1G\n", "line 2", "unknown key spool_limits");
	refused("[follow]\n[follow]\n", "line 2", "two sections");
}

static void parse__broken_lines_are_named(void **state)
{
	(void)state;
	refused("[node]\nname = a\nnonsense\n", "line 3", "neither");
	refused("[node\nname = a\n", "line 1", "]");
	refused("[node] x\nname = a\n", "line 1", "follows");
	refused("[store ]\n", "line 1", "store name");
	refused("[store a]\ntype=files\npath=/a\n[store a]\n", "line 4", "two stores");
	refused("[store a]\npath=/a\n", NULL, "no type");
	refused("[store a]\ntype=files\n[store b]\ntype=files\npath=/b\n", NULL, "no path");
}

static void parse__a_long_line_is_refused_not_split(void **state)
{
	(void)state;
	char text[700] = "[node]\nname = ";
	memset(text + strlen(text), 'a', 500);
	refused(text, "line 2", "bytes");
	memcpy(text, "[node]\n;name= ", 14);
	struct im_config *c = parsed(text); /* a comment may be long */
	im_config_free(c);
}

static void load__missing_and_binary_files(void **state)
{
	(void)state;
	char path[] = "/tmp/imvault-test-config.XXXXXX";
	int fd = mkstemp(path);
	struct im_config *c = NULL;
	struct im_error err = { 0 };
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "[node]\nname = a\0b\n", 18), 18);
	close(fd);
	assert_int_equal(im_config_load(path, &c, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "zero byte"));
	unlink(path);
	im_error_clear(&err);
	assert_int_equal(im_config_load(path, &c, &err), IM_ENOTFOUND);
	assert_null(c);
}

static void get__first_value_or_fallback(void **state)
{
	(void)state;
	struct im_config *c = parsed(whole);
	const struct im_config_store *s = im_config_find_store(c, "archive");
	assert_string_equal(im_config_get(s, "probe", "x"), "SELECT count(*), max(sort_id) FROM prosodyarchive");
	assert_string_equal(im_config_get(s, "pause", "none"), "none");
	assert_null(im_config_find_store(c, "nothing"));
	im_config_free(c);
}

static void name_valid__grammar(void **state)
{
	(void)state;
	char longest[66];
	memset(longest, 'a', 65);
	longest[65] = '\0';
	assert_false(im_name_valid(longest));
	longest[64] = '\0';
	assert_true(im_name_valid(longest));
	assert_true(im_name_valid("0.a_b-C"));
	assert_false(im_name_valid(""));
	assert_false(im_name_valid(".hidden"));
	assert_false(im_name_valid("-x"));
	assert_false(im_name_valid("a/b"));
	assert_false(im_name_valid("a b"));
	assert_false(im_name_valid("ä"));
}

static void alerts__are_refused_if_they_could_never_be_sent(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{ "[alert]\n", "nowhere to send to" },
		{ "[alert]\nrepeat = 1h\n", "nowhere to send to" },
		{ "[alert]\nwebhook = ftp://example.org/\n", "webhook must begin with" },
		{ "[alert]\nwebhook = https:///path\n", "webhook must begin with" },
		{ "[alert]\nwebhook = https://\n", "webhook must begin with" },
		{ "[alert]\nwebhook = https://example.org/a b\n", "written as %XX" },
		{ "[alert]\nmail = a@b\n", "also needs smtp" },
		{ "[alert]\nmail = a@b\nsmtp = smtp://h\n", "also needs from" },
		{ "[alert]\ncommand = true\nsmtp = smtp://h\n", "are for mail" },
		{ "[alert]\nsmtp = smtp://user:secret@h\n", "credentials" },
		{ "[alert]\nsmtp = h:25\n", "smtp must begin with" },
		{ "[alert]\nmail = a@b c@d\n", "separated by commas" },
		{ "[alert]\nmail = a@b,\n", "addresses" },
		{ "[alert]\nmail = <a@b>\n", "addresses" },
		{ "[alert]\nmail = a@b@c\n", "addresses" },
		{ "[alert]\nfrom = a@b, c@d\n", "not an address" },
		{ "[alert]\nfrom = a\"b@c\n", "not an address" },
		{ "[alert]\nping_backup = backup\n", "ping_backup must begin with" },
		{ "[alert]\npager = x\n", "unknown key pager" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		refused(rows[i][0], NULL, rows[i][1]);
}

static void alerts__secrets_are_not_quoted(void **state)
{
	(void)state;
	struct im_config *c = NULL;
	struct im_error err = { 0 };
	assert_int_equal(im_config_parse("[alert]\nwebhook = htps://example.org/s3cr3t\n", "test.conf", &c, &err), IM_EUSAGE);
	assert_null(strstr(err.text, "s3cr3t"));
}

static void alerts__of_every_kind_are_read(void **state)
{
	(void)state;
	struct im_config *c = parsed("[alert]\ncommand = page --now\nwebhook = https://example.org:8443/x?y=z\nmail = a@b.example,c@d.example , e@f.example\n"
	    "smtp = smtps://mail.example:465\nfrom = i@b.example\ncredentials = /etc/imvault/smtp\nrepeat = 1d\nping_drill = https://hc.example/u\n");
	assert_string_equal(c->alert_command, "page --now");
	assert_string_equal(c->alert_mail, "a@b.example,c@d.example , e@f.example");
	assert_int_equal(c->alert_repeat_ms, 86400000);
	assert_string_equal(c->alert_ping_drill, "https://hc.example/u");
	im_config_free(c);
}

static void schedule__says_how_often_each_is_meant_to_run(void **state)
{
	(void)state;
	struct im_config *c = parsed("[schedule]\nbackup = 15m\nverify = 1d\ndrill = 7d\nreport = 8d\n");
	assert_int_equal(c->backup_every_ms, 15 * 60000);
	assert_int_equal(c->verify_every_ms, 86400000);
	assert_int_equal(c->drill_every_ms, 7 * 86400000);
	assert_int_equal(c->report_every_ms, 8 * 86400000);
	im_config_free(c);
	refused("[schedule]\nmetrics = 1m\n", "line 2", "there are backup, verify, drill, report");
}

static void parse__runbook_section(void **state)
{
	(void)state;
	struct im_config *c = parsed("[runbook]\ncontact = Li Wei, on call, +86 10 1234\nnote = one\ncontact = Second\nrestore_key = safe in room 2\n"
	    "passphrase = sealed envelope\npackages = prosody lua-dbi-sqlite3\nstop = systemctl stop prosody\nstart = systemctl start prosody\n");
	assert_int_equal(c->runbook_line_count, 3);
	assert_string_equal(c->runbook_lines[0].value, "Li Wei, on call, +86 10 1234");
	assert_string_equal(c->runbook_lines[1].key, "note");
	assert_string_equal(c->runbook_lines[2].value, "Second");
	assert_string_equal(c->runbook_restore_key, "safe in room 2");
	assert_string_equal(c->runbook_passphrase, "sealed envelope");
	assert_string_equal(c->runbook_packages, "prosody lua-dbi-sqlite3");
	assert_string_equal(c->runbook_stop, "systemctl stop prosody");
	assert_string_equal(c->runbook_start, "systemctl start prosody");
	im_config_free(c);
	c = parsed("[node]\nname = a\n");
	assert_int_equal(c->runbook_line_count, 0);
	assert_null(c->runbook_start);
	im_config_free(c);
	refused("[runbook]\npackages = prosody; rm -rf /\n", "line 2", "Debian packages");
	refused("[runbook]\npackages = prosody$(x)\n", "line 2", "Debian packages");
	refused("[runbook]\npackages = prosody --purge\n", "line 2", "Debian packages");
	refused("[runbook]\nstart = a\nstart = b\n", "line 3", "twice");
	refused("[runbook]\nphone = 1\n", "line 2", "unknown key phone");
	refused("[runbook]\n[runbook]\n", "line 2", "two sections");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse__reads_the_manuals_example),
		cmocka_unit_test(parse__fills_in_defaults),
		cmocka_unit_test(parse__rto_beats_tier),
		cmocka_unit_test(parse__indented_keys_are_no_continuation),
		cmocka_unit_test(parse__long_store_names_stay_apart),
		cmocka_unit_test(parse__nothing_unknown_is_ignored),
		cmocka_unit_test(parse__wrong_values_are_named),
		cmocka_unit_test(parse__follow_section),
		cmocka_unit_test(parse__runbook_section),
		cmocka_unit_test(parse__broken_lines_are_named),
		cmocka_unit_test(parse__a_long_line_is_refused_not_split),
		cmocka_unit_test(load__missing_and_binary_files),
		cmocka_unit_test(get__first_value_or_fallback),
		cmocka_unit_test(name_valid__grammar),
		cmocka_unit_test(alerts__are_refused_if_they_could_never_be_sent),
		cmocka_unit_test(alerts__secrets_are_not_quoted),
		cmocka_unit_test(alerts__of_every_kind_are_read),
		cmocka_unit_test(schedule__says_how_often_each_is_meant_to_run),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
