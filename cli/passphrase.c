/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminal dialogue on /dev/tty, so that pipes do not interfere. Echo is put back on every path,
 * also when a signal interrupts the answer.
 */
#include "cli/passphrase.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "vault/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>

#define PASSPHRASE_MAX_BYTES 1024

bool passphrase_terminal(void)
{
	return isatty(STDIN_FILENO);
}

/* One line without its end into line; false at end of input, error or interruption. */
static bool read_line(int tty, char line[PASSPHRASE_MAX_BYTES])
{
	size_t n = 0;
	while (n + 1 < PASSPHRASE_MAX_BYTES && !im_interrupt_signal()) {
		struct pollfd p = { .fd = tty, .events = POLLIN };
		if (poll(&p, 1, 200) <= 0)
			continue;
		ssize_t got = read(tty, line + n, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (line[n] == '\n') {
			line[n] = '\0';
			return true;
		}
		n++;
	}
	return false;
}

static char *dialogue(const char *prompt)
{
	auto_close int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before, silent;
	char line[PASSPHRASE_MAX_BYTES];
	if (tty < 0 || tcgetattr(tty, &before))
		return NULL;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	if (tcsetattr(tty, TCSAFLUSH, &silent))
		return NULL;
	dprintf(tty, "%s: ", prompt);
	bool ok = read_line(tty, line);
	tcsetattr(tty, TCSAFLUSH, &before);
	dprintf(tty, "\n");
	char *ret = ok ? strdup(line) : NULL;
	crypto_wipe(line, sizeof line);
	return ret;
}

char *passphrase_ask(const char *path)
{
	auto_free char *prompt = im_format("Passphrase for %s", path);
	return prompt && passphrase_terminal() ? dialogue(prompt) : NULL;
}

int passphrase_ask_new(const char *what, char **ret, struct im_error *err)
{
	auto_free char *first_prompt = im_format("New passphrase for %s (empty: none)", what);
	char *first = first_prompt ? dialogue(first_prompt) : NULL;
	if (!first)
		return im_fail(err, IM_EFAIL, "no passphrase was given");
	if (!*first) {
		passphrase_free(first);
		return 0;
	}
	char *second = dialogue("Once more");
	bool same = second && strcmp(first, second) == 0;
	passphrase_free(second);
	if (!same) {
		passphrase_free(first);
		return im_fail(err, IM_EUSAGE, "the two passphrases differ; nothing was done");
	}
	*ret = first;
	return 0;
}

char *passphrase_from_file(const char *path, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	char *ret = NULL;
	/* Not im_file_read: a pipe such as /dev/fd/3 is welcome. */
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *p = im_buf_grow(&b, PASSPHRASE_MAX_BYTES);
	ssize_t n = 0, got = -1;
	while (fd >= 0 && p && n < PASSPHRASE_MAX_BYTES && (got = read(fd, p + n, (size_t)(PASSPHRASE_MAX_BYTES - n))) > 0)
		n += got;
	if (fd < 0 || !p || got < 0)
		im_fail_errno(err, IM_EUSAGE, errno, "cannot read the passphrase file %s", path);
	else if (n == PASSPHRASE_MAX_BYTES)
		im_fail(err, IM_EUSAGE, "the passphrase in %s is longer than %d bytes", path, PASSPHRASE_MAX_BYTES - 1);
	else {
		size_t len = 0;
		while (len < (size_t)n && p[len] != '\n' && p[len] != '\0')
			len++;
		if (len && p[len - 1] == '\r')
			len--;
		ret = len ? strndup((char *)p, len) : NULL;
		if (!ret)
			im_fail(err, IM_EUSAGE, "the first line of %s is empty: no passphrase", path);
	}
	if (p)
		crypto_wipe(p, PASSPHRASE_MAX_BYTES);
	return ret;
}

void passphrase_free(char *p)
{
	if (p)
		crypto_wipe(p, strlen(p));
	free(p);
}
