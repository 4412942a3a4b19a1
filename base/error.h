/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. A function returns 0 or one negative code of this list; the detail (what failed, on
 * what, why, what to do) is written once into a struct im_error, where the fault is detected.
 * Upper layers may put context in front with im_error_context(). Only commands and main print.
 * The exit codes here are the ones the manual promises.
 */
#ifndef IM_BASE_ERROR_H
#define IM_BASE_ERROR_H

#include <stdbool.h>

enum im_code {
	IM_OK = 0,
	IM_EFAIL = -1,        /* unexpected failure */
	IM_EUSAGE = -2,       /* usage or configuration */
	IM_EPARTIAL = -3,     /* done in part */
	IM_EUNREACHABLE = -4, /* vault unreachable */
	IM_EKEY = -5,         /* key refused or not allowed */
	IM_ECORRUPT = -6,     /* damage found */
	IM_ENOTFOUND = -7,    /* no such snapshot, recovery point or object */
	IM_ENOSPACE = -8,     /* no space */
	IM_ELOCKED = -9,      /* another run holds the lock */
	IM_EMISSED = -10,     /* done, but the recovery target was missed */
	IM_EDIFFERENT = -11,  /* a check found a difference */
	IM_EIO = -12,         /* input/output error; exits as 1 */
	IM_ENOMEM = -13,      /* out of memory; exits as 1 */
	IM_EINTERRUPTED = -14, /* SIGINT or SIGTERM; exits as 128+N */
	IM_EGAP = -15         /* the log has a gap; exits as 3 */
};

#define IM_ERROR_TEXT_BYTES 1024

struct im_error {
	enum im_code code;
	char text[IM_ERROR_TEXT_BYTES]; /* one line, no newline at the end */
};

/* Records the error and returns code. The first error wins unless im_error_clear() came between. err may be NULL. */
int im_fail(struct im_error *err, enum im_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As im_fail, adding strerror(errno_value); ENOSPC/EDQUOT/EFBIG become IM_ENOSPACE, ENOMEM IM_ENOMEM,
 * ENOENT stays what code says. */
int im_fail_errno(struct im_error *err, enum im_code code, int errno_value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " in front of the text. Returns err->code (IM_EFAIL if none is set). */
int im_error_context(struct im_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void im_error_clear(struct im_error *err);

/* The exit status of a code; signal_number is used for IM_EINTERRUPTED. */
int im_exit_status(int code, int signal_number);

/* A one-line meaning of an exit status, NULL for an unknown one (for the manual and --help). */
const char *im_exit_meaning(int status);

/* Always-on check for mistakes that would destroy data: prints and aborts. */
#define IM_CHECK(expr) ((expr) ? (void)0 : im_check_failed(#expr, __FILE__, __LINE__))
void im_check_failed(const char *expr, const char *file, int line) __attribute__((noreturn));

#endif
