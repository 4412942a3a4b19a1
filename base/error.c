/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error records and the one table of exit codes. An error text is always one line, so that cron
 * mails and logs show one line per problem: control characters from hostile names are replaced.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	int status;
	const char *meaning;
} exit_table[] = {
	{ 0, "done" },
	{ 1, "unexpected failure" },
	{ 2, "usage or configuration error" },
	{ 3, "done in part: a store failed or was missing; the rest is safe" },
	{ 4, "vault unreachable" },
	{ 5, "key refused or not allowed" },
	{ 6, "damage found" },
	{ 7, "no such snapshot or recovery point" },
	{ 8, "no space" },
	{ 9, "another run holds the lock" },
	{ 10, "done, but the recovery target was missed" },
	{ 11, "a drill or check found a difference" },
};

static void one_line(char *text)
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

int im_fail(struct im_error *err, enum im_code code, const char *format, ...)
{
	if (!err || err->code)
		return code;
	va_list ap;
	va_start(ap, format);
	err->code = code;
	vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	one_line(err->text);
	return code;
}

static enum im_code code_of_errno(enum im_code code, int errno_value)
{
	switch (errno_value) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return IM_ENOSPACE;
	case ENOMEM:
		return IM_ENOMEM;
	default:
		return code;
	}
}

int im_fail_errno(struct im_error *err, enum im_code code, int errno_value, const char *format, ...)
{
	code = code_of_errno(code, errno_value);
	if (!err || err->code)
		return code;
	va_list ap;
	va_start(ap, format);
	err->code = code;
	int n = vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(errno_value));
	one_line(err->text);
	return code;
}

int im_error_context(struct im_error *err, const char *format, ...)
{
	if (!err)
		return IM_EFAIL;
	char old[IM_ERROR_TEXT_BYTES];
	memcpy(old, err->text, sizeof old);
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(err->text, sizeof err->text, format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, ": %.900s", old);
	one_line(err->text);
	return err->code ? (int)err->code : IM_EFAIL;
}

void im_error_clear(struct im_error *err)
{
	if (err)
		*err = (struct im_error){ 0 };
}

int im_exit_status(int code, int signal_number)
{
	switch (code) {
	case IM_EINTERRUPTED:
		return 128 + signal_number;
	case IM_EIO:
	case IM_ENOMEM:
		return 1;
	case IM_EGAP:
		return 3;
	default:
		return code <= 0 && code >= IM_EDIFFERENT ? -code : 1;
	}
}

const char *im_exit_meaning(int status)
{
	for (size_t i = 0; i < sizeof exit_table / sizeof *exit_table; i++)
		if (exit_table[i].status == status)
			return exit_table[i].meaning;
	return NULL;
}

void im_check_failed(const char *expr, const char *file, int line)
{
	fprintf(stderr, "imvault: internal check failed: %s (%s:%d); stopping before data is harmed\n",
	    expr, file, line);
	abort();
}
