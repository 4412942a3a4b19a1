/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP and SMTP by libcurl: certificates are checked, no redirection is followed, nothing waits for long,
 * and neither a webhook's URL nor a password ever gets into a message.
 */
#include "cli/alert_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "vault/crypto.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define CONNECT_MS 5000L
#define TRANSFER_MS 10000L
#define HASTY_MS 3000L
#define TRIES 3
#define PAUSE_MS 500u
#define CREDENTIALS_MAX_BYTES 1024

IM_DEFINE_AUTO(curl, CURL, curl_easy_cleanup)
IM_DEFINE_AUTO(curl_url, CURLU, curl_url_cleanup)
IM_DEFINE_AUTO(curl_list, struct curl_slist, curl_slist_free_all)

char *alert_curl_host(const char *url)
{
	IM_CLEANUP(im_auto_curl_url) CURLU *parts = curl_url();
	char *host = NULL;
	if (!parts || curl_url_set(parts, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) || curl_url_get(parts, CURLUPART_HOST, &host, 0))
		return strdup("?");
	char *ret = strdup(host);
	curl_free(host);
	return ret;
}

static void begin_once(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t swallow(char *data, size_t size, size_t count, void *context)
{
	(void)data;
	(void)context;
	return size * count;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)context, (void)a, (void)b, (void)c, (void)d;
	return im_interrupt_signal() != 0;
}

static CURL *begin(const char *url, const char *schemes, char error[CURL_ERROR_SIZE])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, begin_once);
	CURL *c = curl_easy_init();
	if (!c)
		return NULL;
	*error = '\0';
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, schemes);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, TRANSFER_MS);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "imvault/" IMVAULT_VERSION);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, swallow);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	return c;
}

static const char *reason(CURLcode code, const char *error)
{
	return *error ? error : curl_easy_strerror(code);
}

/* --- HTTP --- */

/* Would the same be answered to the next attempt? */
static bool is_final(CURLcode code, long status)
{
	if (code == CURLE_OK)
		return status < 500 && status != 429;
	return code == CURLE_ABORTED_BY_CALLBACK || code == CURLE_URL_MALFORMAT || code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_OUT_OF_MEMORY;
}

static int talk(CURL *c, const char *host, unsigned tries, const char *error, struct im_error *err)
{
	long status = 0;
	CURLcode code = CURLE_OK;
	for (unsigned n = 0; n < tries; n++) {
		if (n)
			im_sleep_ms(PAUSE_MS * n);
		code = curl_easy_perform(c);
		status = 0;
		if (code == CURLE_OK)
			curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
		if (code == CURLE_OK && status >= 200 && status < 300)
			return 0;
		if (is_final(code, status) || im_interrupt_signal())
			break;
	}
	if (code != CURLE_OK)
		return im_fail(err, IM_EFAIL, "%s: %s", host, reason(code, error));
	if (status >= 300 && status < 400)
		return im_fail(err, IM_EFAIL, "%s answered %ld: it is somewhere else now; no redirection is followed, so write the new URL into the configuration",
		    host, status);
	return im_fail(err, IM_EFAIL, "%s answered %ld", host, status);
}

int alert_curl_post(const char *url, const char *body, struct im_error *err)
{
	char error[CURL_ERROR_SIZE];
	auto_free char *host = alert_curl_host(url);
	IM_CLEANUP(im_auto_curl) CURL *c = begin(url, "http,https", error);
	IM_CLEANUP(im_auto_curl_list) struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	if (!c || !headers || !host || !curl_slist_append(headers, "Expect:"))
		return im_fail(err, IM_ENOMEM, "out of memory");
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	return talk(c, host, TRIES, error, err);
}

int alert_curl_ping(const char *url, bool patient, struct im_error *err)
{
	char error[CURL_ERROR_SIZE];
	auto_free char *host = alert_curl_host(url);
	IM_CLEANUP(im_auto_curl) CURL *c = begin(url, "http,https", error);
	if (!c || !host)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!patient)
		curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, HASTY_MS);
	return talk(c, host, patient ? TRIES : 1, error, err);
}

/* --- mail --- */

struct upload {
	const struct im_buf *message;
	size_t at;
};

static size_t on_read(char *to, size_t size, size_t count, void *context)
{
	struct upload *u = context;
	size_t left = u->message->len - u->at, n = size * count < left ? size * count : left;
	memcpy(to, u->message->data + u->at, n);
	u->at += n;
	return n;
}

static bool is_loopback(const char *host)
{
	return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0;
}

/* "user:password" on the first line of a file that nobody else may read. */
static int set_credentials(CURL *c, const char *path, struct im_error *err)
{
	struct im_buf text = { 0 };
	struct stat st;
	if (stat(path, &st))
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot look at %s", path);
	if (st.st_mode & 077)
		return im_fail(err, IM_EUSAGE, "%s holds a password and others may read it: run chmod 600 %s", path, path);
	int rc = im_file_read(path, CREDENTIALS_MAX_BYTES, &text, err);
	im_buf_put_u8(&text, '\n');
	char *line = (char *)text.data, *end = rc == 0 && !text.failed ? memchr(line, '\n', text.len) : NULL;
	char *colon = end ? memchr(line, ':', (size_t)(end - line)) : NULL;
	if (colon) {
		*end = *colon = '\0';
		curl_easy_setopt(c, CURLOPT_USERNAME, line);
		curl_easy_setopt(c, CURLOPT_PASSWORD, colon + 1);
	} else if (rc == 0) {
		rc = im_fail(err, IM_EUSAGE, "%s must hold one line: user:password", path);
	}
	if (text.data)
		crypto_wipe(text.data, text.len);
	im_buf_free(&text);
	return rc;
}

/* To a server on this machine the message need not be encrypted, and its certificate is rarely one that could be checked. A password
 * goes nowhere else unencrypted. */
static long tls_for(const struct im_config *c, const char *host)
{
	return is_loopback(host) ? CURLUSESSL_NONE : c->alert_credentials ? CURLUSESSL_ALL : CURLUSESSL_TRY;
}

static int deliver(CURL *c, struct upload *u, const char *host, const char *error, struct im_error *err)
{
	CURLcode code = CURLE_ABORTED_BY_CALLBACK;
	for (unsigned n = 0; n < TRIES && !im_interrupt_signal(); n++) {
		if (n)
			im_sleep_ms(PAUSE_MS * n);
		u->at = 0;
		code = curl_easy_perform(c);
		if (code != CURLE_COULDNT_CONNECT && code != CURLE_COULDNT_RESOLVE_HOST)
			break; /* sent, refused, or perhaps sent: not a second time */
	}
	return code ? im_fail(err, IM_EFAIL, "%s: %s", host, reason(code, error)) : 0;
}

int alert_curl_mail(const struct im_config *config, const struct im_buf *message, struct im_error *err)
{
	char error[CURL_ERROR_SIZE];
	struct upload upload = { .message = message };
	auto_free char *host = alert_curl_host(config->alert_smtp);
	IM_CLEANUP(im_auto_curl) CURL *c = begin(config->alert_smtp, "smtp,smtps", error);
	IM_CLEANUP(im_auto_curl_list) struct curl_slist *recipients = NULL;
	const char *at = config->alert_mail, *address;
	size_t len;
	while ((address = alert_mail_address(&at, &len))) {
		auto_free char *one = strndup(address, len);
		struct curl_slist *longer = one ? curl_slist_append(recipients, one) : NULL;
		if (!longer)
			return im_fail(err, IM_ENOMEM, "out of memory");
		recipients = longer;
	}
	if (!c || !host)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = config->alert_credentials ? set_credentials(c, config->alert_credentials, err) : 0;
	if (rc)
		return rc;
	curl_easy_setopt(c, CURLOPT_USE_SSL, tls_for(config, host));
	curl_easy_setopt(c, CURLOPT_MAIL_FROM, config->alert_from);
	curl_easy_setopt(c, CURLOPT_MAIL_RCPT, recipients);
	curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)message->len);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(c, CURLOPT_READDATA, &upload);
	return deliver(c, &upload, host, error, err);
}
