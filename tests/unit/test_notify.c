/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's protocol: what arrives at NOTIFY_SOCKET, whether it has a path or an abstract name.
 */
#include "base/notify.h"

#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_at(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(name);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	memcpy(address.sun_path, name, len);
	if (*name == '@')
		address.sun_path[0] = '\0';
	assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void assert_got(int fd, const char *expected)
{
	char got[2100] = "";
	ssize_t n = recv(fd, got, sizeof got - 1, 0);
	if (!expected) {
		assert_int_equal(n, -1);
		return;
	}
	assert_true(n >= 0);
	assert_int_equal(strncmp(got, expected, strlen(expected)), 0);
}

static void notify__reaches_a_path(void **state)
{
	(void)state;
	char dir[] = "/tmp/imvault-notify-XXXXXX";
	assert_non_null(mkdtemp(dir));
	char *path = im_path_join(dir, "socket");
	int fd = listen_at(path);
	im_notify("READY=1\nSTATUS=%d of %d", 1, 2);
	assert_got(fd, "READY=1\nSTATUS=1 of 2");
	im_notify_reloading();
	assert_got(fd, "RELOADING=1\nMONOTONIC_USEC=");
	close(fd);
	im_notify("READY=1"); /* nobody there: no harm */
	unlink(path);
	rmdir(dir);
	free(path);
}

static void notify__reaches_an_abstract_name(void **state)
{
	(void)state;
	char name[64];
	snprintf(name, sizeof name, "@imvault-test-%d", (int)getpid());
	int fd = listen_at(name);
	im_notify("WATCHDOG=1");
	assert_got(fd, "WATCHDOG=1");
	assert_got(fd, NULL);
	close(fd);
}

static void notify__long_texts_are_cut_and_bad_names_ignored(void **state)
{
	(void)state;
	char name[64], text[4000], far[200];
	snprintf(name, sizeof name, "@imvault-test-%d", (int)getpid());
	int fd = listen_at(name);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	im_notify("STATUS=%s", text);
	assert_got(fd, "STATUS=xxx");
	memset(far, '/', sizeof far - 1);
	far[sizeof far - 1] = '\0';
	setenv("NOTIFY_SOCKET", far, 1);
	im_notify("READY=1");
	setenv("NOTIFY_SOCKET", "", 1);
	im_notify("READY=1");
	setenv("NOTIFY_SOCKET", "relative", 1);
	im_notify("READY=1");
	unsetenv("NOTIFY_SOCKET");
	im_notify("READY=1");
	assert_got(fd, NULL);
	close(fd);
}

static void watchdog__only_for_this_process(void **state)
{
	(void)state;
	char pid[32];
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	assert_int_equal(im_notify_watchdog_ms(), 0);
	setenv("WATCHDOG_USEC", "120000000", 1);
	assert_int_equal(im_notify_watchdog_ms(), 120000);
	setenv("WATCHDOG_PID", "1", 1);
	assert_int_equal(im_notify_watchdog_ms(), 0);
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(im_notify_watchdog_ms(), 120000);
	setenv("WATCHDOG_USEC", "nonsense", 1);
	assert_int_equal(im_notify_watchdog_ms(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(notify__reaches_a_path),
		cmocka_unit_test(notify__reaches_an_abstract_name),
		cmocka_unit_test(notify__long_texts_are_cut_and_bad_names_ignored),
		cmocka_unit_test(watchdog__only_for_this_process),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
