/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks and instants. Durations come from the monotonic clock; instants are milliseconds since
 * 1970 UTC and are printed as RFC 3339 with milliseconds.
 */
#ifndef IM_BASE_CLOCK_H
#define IM_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

int64_t im_now_ms(void);       /* wall clock */
int64_t im_monotonic_ms(void); /* for durations */
int64_t im_monotonic_us(void);
void im_sleep_ms(unsigned ms); /* a signal may end it earlier */
/* ns since 1970, also negative, as the kernel wants it. */
struct timespec im_timespec(int64_t ns);

#define IM_INSTANT_BYTES 32
/* "2026-11-23T00:50:54.123Z"; returns ret. */
char *im_instant_format(char ret[IM_INSTANT_BYTES], int64_t ms);
/* RFC 3339 with zone (Z or +hh:mm), optional fraction, 'T' or a space between. */
bool im_instant_parse(const char *text, int64_t *ret_ms);

/* "90", "90s", "10m", "2h", "7d", "250ms": to milliseconds; a bare number is seconds. */
bool im_duration_parse(const char *text, int64_t *ret_ms);
/* "0.42 s", "12.3 s", "4 min 10 s", "2 h 5 min": for people. */
char *im_duration_format(char *ret, size_t size, int64_t ms);
/* "4096", "512M", "2G", "64MiB": K, M, G, T are powers of 1000, KiB … TiB of 1024. */
bool im_size_parse(const char *text, uint64_t *ret_bytes);
/* "512 B", "1.2 GB" (powers of 1000): for people. */
char *im_bytes_format(char *ret, size_t size, uint64_t bytes);

#endif
