/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways an alert goes: a command, a webhook, mail.
 */
#include "cli/alert_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/shell.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define COMMAND_TIMEOUT_MS 30000

static char *message(const struct alert_origin *o, const struct alert *a)
{
	json_t *j = alert_json(o, a, im_now_ms());
	char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	return text;
}

/* --- the command --- */

#define VARIABLES_MAX 16

/* IMVAULT_ALERT_NAME=VALUE for each text and number of the message. */
static size_t make_variables(const json_t *message, char *ret[VARIABLES_MAX + 1])
{
	const char *name;
	json_t *value;
	size_t n = 0;
	json_object_foreach((json_t *)message, name, value) {
		const char *text = json_string_value(value);
		char number[24];
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		if ((!text && !json_is_integer(value)) || n == VARIABLES_MAX)
			continue;
		ret[n] = im_format("IMVAULT_ALERT_%s=%s", name, text ? text : number);
		for (char *p = ret[n]; p && *p != '='; p++)
			*p = (char)toupper((unsigned char)*p);
		n += ret[n] != NULL;
	}
	return n;
}

/* What the command finds on its stdin: a file, so that one that does not read it hangs nobody. */
static int input_of(const char *text, int *ret_fd, struct im_error *err)
{
	auto_close int fd = memfd_create("imvault-alert", MFD_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot make its input");
	int rc = im_write_full(fd, text, strlen(text), err, "its input");
	if (rc)
		return rc;
	lseek(fd, 0, SEEK_SET);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static bool command_is_set(const struct im_config *c)
{
	return c->alert_command != NULL;
}

static char *command_target(const struct im_config *c)
{
	return strdup(c->alert_command);
}

static int command_send(const struct alert_origin *o, const struct alert *a, struct im_error *err)
{
	auto_free char *text = message(o, a);
	char *variables[VARIABLES_MAX + 1] = { NULL };
	json_t *j = text ? json_loads(text, 0, NULL) : NULL;
	auto_close int fd = -1;
	struct im_error why = { 0 };
	if (!j)
		return im_fail(err, IM_ENOMEM, "out of memory");
	size_t count = make_variables(j, variables);
	int rc = input_of(text, &fd, &why);
	const struct im_shell shell = { .command = o->config->alert_command, .variables = variables, .input_fd = fd, .timeout_ms = COMMAND_TIMEOUT_MS };
	if (rc == 0)
		rc = im_shell_run(&shell, &why);
	for (size_t i = 0; i < count; i++)
		free(variables[i]);
	json_decref(j);
	return rc ? im_fail(err, rc, "\"%.100s\" %s", o->config->alert_command, why.text) : 0;
}

/* --- the webhook --- */

static bool webhook_is_set(const struct im_config *c)
{
	return c->alert_webhook != NULL;
}

static char *webhook_target(const struct im_config *c)
{
	return alert_curl_host(c->alert_webhook);
}

static int webhook_send(const struct alert_origin *o, const struct alert *a, struct im_error *err)
{
	auto_free char *text = message(o, a);
	return text ? alert_curl_post(o->config->alert_webhook, text, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

/* --- mail --- */

static bool mail_is_set(const struct im_config *c)
{
	return c->alert_mail != NULL;
}

static char *mail_target(const struct im_config *c)
{
	return im_format("%s by %s", c->alert_mail, c->alert_smtp);
}

static int mail_send(const struct alert_origin *o, const struct alert *a, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	int rc = alert_mail_compose(o, a, im_now_ms(), &text, err);
	return rc ? rc : alert_curl_mail(o->config, &text, err);
}

const struct alert_way alert_ways[ALERT_WAY_COUNT] = {
	{ "command", command_is_set, command_target, command_send },
	{ "webhook", webhook_is_set, webhook_target, webhook_send },
	{ "mail", mail_is_set, mail_target, mail_send },
};
