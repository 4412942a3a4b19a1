/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing answers. An answer that cannot be written (a full disk behind a redirection) is a
 * failure: scripts must not take half an object for success.
 */
#include "cli/output.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void output_line(const struct cli *cli, const char *format, ...)
{
	if (cli->options.json || cli->options.quiet)
		return;
	progress_hide();
	va_list ap;
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
}

/* One line, whatever file names are quoted in it. */
static void problem(const char *format, va_list ap)
{
	char text[2 * IM_ERROR_TEXT_BYTES];
	vsnprintf(text, sizeof text, format, ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	progress_hide();
	fflush(stdout);
	fprintf(stderr, "imvault: %s\n", text);
}

void output_problem(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	problem(format, ap);
	va_end(ap);
}

void output_note(const struct cli *cli, const char *format, ...)
{
	if (cli->options.quiet)
		return;
	va_list ap;
	va_start(ap, format);
	problem(format, ap);
	va_end(ap);
}

static json_t *any_text(const char *text)
{
	json_t *j = json_string(text);
	auto_free char *plain = j ? NULL : strdup(text);
	for (char *p = plain; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return j ? j : json_string(plain ? plain : "");
}

void output_text(json_t *object, const char *name, const char *text)
{
	if (text)
		json_object_set_new(object, name, any_text(text));
}

void output_integer(json_t *object, const char *name, int64_t value)
{
	json_object_set_new(object, name, json_integer(value));
}

void output_instant(json_t *object, const char *name, int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	json_object_set_new(object, name, json_string(im_instant_format(text, ms)));
}

void output_boolean(json_t *object, const char *name, bool value)
{
	json_object_set_new(object, name, json_boolean(value));
}

json_t *output_array(json_t *object, const char *name)
{
	if (!json_object_get(object, name))
		json_object_set_new(object, name, json_array());
	return json_object_get(object, name);
}

json_t *output_row(json_t *object, const char *name)
{
	json_t *row = json_object();
	json_array_append_new(output_array(object, name), row);
	return row;
}

void output_item(json_t *object, const char *name, const char *text)
{
	json_array_append_new(output_array(object, name), any_text(text));
}

int output_finish(struct cli *cli, int rc, struct im_error *err)
{
	int status = im_exit_status(rc, im_interrupt_signal());
	if (rc && !err->text[0])
		im_fail(err, rc, "%s", im_exit_meaning(status) ? im_exit_meaning(status) : "failed");
	progress_hide();
	if (rc && !cli->options.json && !cli->error_shown)
		output_problem("%s", err->text);
	if (cli->options.json && !cli->options.help && !cli->options.version) {
		output_text(cli->json, "command", cli->command ? cli->command : "");
		if (!json_object_get(cli->json, "node"))
			output_text(cli->json, "node", session_node(cli));
		output_integer(cli->json, "exit_code", status);
		output_text(cli->json, "error", rc ? err->text : NULL);
		json_dumpf(cli->json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	if ((fflush(stdout) || ferror(stdout)) && status == 0) {
		output_problem("the answer could not be written to standard output: %s", "it may be incomplete");
		return 1;
	}
	return status;
}
