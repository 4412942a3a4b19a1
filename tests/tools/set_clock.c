/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wall clock for tests, preloaded: CLOCK_REALTIME plus as many milliseconds as the file named by
 * IMVAULT_TEST_CLOCK says (one int64, mapped: it may change at any time). All other clocks run on, and so do the
 * times of files, with the coarse clock that belongs to them. No lock
 * and no memory of its own, so that threads and forked children do not notice (libfaketime's lock is
 * taken for ever in a child that was forked at the wrong moment).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_ms;

__attribute__((constructor)) static void open_clock(void)
{
	const char *path = getenv("IMVAULT_TEST_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset_ms, PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	offset_ms = map == MAP_FAILED ? NULL : map;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, ret);
	if (rc == 0 && clock == CLOCK_REALTIME && offset_ms) {
		int64_t ns = ret->tv_nsec + *offset_ms % 1000 * 1000000;
		ret->tv_sec += *offset_ms / 1000 + (ns < 0 ? -1 : ns >= 1000000000 ? 1 : 0);
		ret->tv_nsec = ns < 0 ? ns + 1000000000 : ns >= 1000000000 ? ns - 1000000000 : ns;
	}
	return rc;
}
