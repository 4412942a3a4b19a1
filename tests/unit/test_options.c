/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: mistakes are refused with the nearest help, and global options work on both
 * sides of the command.
 */
#include "cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const enum option_id restore_ids[] = { OPTION_AT, OPTION_STORE, OPTION_OVERWRITE, OPTION_RTO, OPTION_READ, OPTION_END };

static int parse(struct options *o, struct im_error *err, int argc, const char *const *words)
{
	static char *argv[16];
	for (int i = 0; i < argc; i++)
		argv[i] = (char *)words[i];
	argv[argc] = NULL;
	*o = (struct options){ 0 };
	*err = (struct im_error){ 0 };
	return options_parse_command(argc, argv, restore_ids, o, err);
}
#define PARSE(o, err, ...) \
	parse(o, err, (int)(sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)), (const char *const[]){ __VA_ARGS__ })

static void parse__options_and_operands_mix(void **state)
{
	(void)state;
	struct options o;
	struct im_error err;
	assert_int_equal(PARSE(&o, &err, "restore", "--at", "42", "x", "--store=a", "--json", "--store", "b", "--rto", "10m"), 0);
	assert_string_equal(o.at, "42");
	assert_true(o.json);
	assert_int_equal(o.store_count, 2);
	assert_string_equal(o.stores[1], "b");
	assert_null(o.stores[2]);
	assert_int_equal(o.rto_ms, 600000);
	assert_int_equal(o.operand_count, 1);
	assert_string_equal(o.operands[0], "x");
	options_clear(&o);
}

static void parse__unknown_option_names_the_nearest(void **state)
{
	(void)state;
	struct options o;
	struct im_error err;
	assert_int_equal(PARSE(&o, &err, "restore", "--overwite"), IM_EUSAGE);
	assert_non_null(strstr(err.text, "--overwrite?"));
	assert_int_equal(PARSE(&o, &err, "restore", "--zzzzzz"), IM_EUSAGE);
	assert_null(strstr(err.text, "did you mean"));
	assert_int_equal(PARSE(&o, &err, "restore", "-Z"), IM_EUSAGE);
	assert_non_null(strstr(err.text, "-Z"));
	assert_int_equal(PARSE(&o, &err, "restore", "--full"), IM_EUSAGE); /* another command's */
	options_clear(&o);
}

static void parse__values_are_checked(void **state)
{
	(void)state;
	struct options o;
	struct im_error err;
	assert_int_equal(PARSE(&o, &err, "restore", "--at"), IM_EUSAGE);
	assert_non_null(strstr(err.text, "needs a value"));
	assert_int_equal(PARSE(&o, &err, "restore", "--at", ""), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--at", "1", "--at", "2"), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--rto", "soon"), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--overwrite=yes"), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--read=0"), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--read=101"), IM_EUSAGE);
	assert_int_equal(PARSE(&o, &err, "restore", "--read=10%"), 0);
	assert_int_equal(o.read_percent, 10);
	assert_int_equal(PARSE(&o, &err, "restore", "--read"), 0);
	assert_int_equal(o.read_percent, 100);
	options_clear(&o);
}

static void global__stops_at_the_command(void **state)
{
	(void)state;
	struct options o = { 0 };
	struct im_error err = { 0 };
	int next = 0;
	char *argv[] = { "imvault", "-c", "x.conf", "--quiet", "restore", "--at", "1", NULL };
	assert_int_equal(options_parse_global(7, argv, &o, &next, &err), 0);
	assert_int_equal(next, 4);
	assert_string_equal(o.config, "x.conf");
	assert_true(o.quiet);
	assert_null(o.at);
	options_clear(&o);
}

static void want_json__whatever_else_is_wrong(void **state)
{
	(void)state;
	char *yes[] = { "imvault", "restore", "--nonsense", "--json", NULL };
	char *no[] = { "imvault", "backup", "--", "--json", NULL };
	assert_true(options_want_json(4, yes));
	assert_false(options_want_json(4, no));
}

static void nearest__guesses_with_restraint(void **state)
{
	(void)state;
	static const char *const words[] = { "init", "backup", "list", "restore", "verify" };
	assert_string_equal(options_nearest("bakcup", words, 5), "backup");
	assert_string_equal(options_nearest("rest", words, 5), "restore");
	assert_string_equal(options_nearest("lst", words, 5), "list");
	assert_null(options_nearest("x", words, 5));
	assert_null(options_nearest("", words, 5));
	assert_null(options_nearest("frobnicate", words, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse__options_and_operands_mix),
		cmocka_unit_test(parse__unknown_option_names_the_nearest),
		cmocka_unit_test(parse__values_are_checked),
		cmocka_unit_test(global__stops_at_the_command),
		cmocka_unit_test(want_json__whatever_else_is_wrong),
		cmocka_unit_test(nearest__guesses_with_restraint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
