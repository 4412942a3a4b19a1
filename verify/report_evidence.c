/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For auditors: each record with what was tested, when, by whom, with what result, and how to prove
 * that it is the one that was signed. Everything here that is not a word of ours was read from the vault.
 */
#include "base/clock.h"
#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CHECKS_MAX = 500, STORES_MAX = 200, PHASES_MAX = 64 };

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));
	return text ? text : "";
}

static int64_t number_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value) : -1;
}

static const char *tone_of(const struct drill_record *d)
{
	if (strcmp(d->verdict, "passed") == 0)
		return "good";
	return strcmp(d->verdict, "missed") == 0 || strcmp(d->verdict, "partial") == 0 || strcmp(d->verdict, "interrupted") == 0 ? "warn" : "bad";
}

static void say_verdict(struct page *p, const struct drill_record *d)
{
	const char *tone = tone_of(d);
	report_put(p, "<span class=\"%s\">%s ", tone, tone[0] == 'g' ? "&#10003;" : tone[0] == 'w' ? "!" : "&#10007;");
	report_term(p, VOCABULARY_VERDICT, d->verdict);
	report_raw(p, "</span>");
}

/* --- incidents --- */

static void incident(struct page *p, const struct drill_record *d)
{
	char ready[REPORT_VALUE_BYTES], complete[REPORT_VALUE_BYTES], target[REPORT_VALUE_BYTES], reached[REPORT_VALUE_BYTES];
	const char *reason = text_of(d->meta, "reason");
	report_raw(p, "<article class=\"incident\"><div><p class=\"took\">");
	report_text(p, report_duration(p, ready, d->service_ready_ms));
	report_raw(p, "</p><p>");
	say_verdict(p, d);
	report_raw(p, "</p></div><div><p class=\"why\">");
	if (*reason)
		report_text(p, reason);
	else
		report_element(p, "span", "soft", W_NO_REASON);
	report_raw(p, "</p><p class=\"soft\">");
	report_record_link(p, d);
	report_raw(p, " &#183; ");
	report_say(p, W_INCIDENT_TO, report_minute(reached, d->instant_reached_ms), *d->operator_name ? d->operator_name : "?", NULL);
	report_raw(p, "</p><p class=\"soft\">");
	report_say(p, d->rto_ms <= 0 ? W_RECOVERY_NO_TARGET : report_met(d) ? W_RECOVERY_MET : W_RECOVERY_MISSED, ready,
	    report_duration(p, complete, d->data_complete_ms), report_duration(p, target, d->rto_ms), NULL);
	report_raw(p, "</p></div></article>\n");
}

void report_section_incidents(struct page *p)
{
	report_section_open(p, "incidents", W_SECTION_INCIDENTS, W_LEAD_INCIDENTS);
	if (!p->r->summary.restore_count)
		report_nothing(p, W_NO_INCIDENTS, W_DO_REASON, "imvault restore --reason TEXT");
	for (size_t i = p->r->drills.count; i-- > 0;)
		if (!p->r->drills.items[i].is_drill)
			incident(p, &p->r->drills.items[i]);
	report_section_close(p);
}

/* --- one record --- */

static void fact_open(struct page *p, enum report_words words)
{
	report_raw(p, "<dt>");
	report_raw(p, report_words_of(p, words));
	report_raw(p, "</dt><dd>");
}

static void fact_close(struct page *p)
{
	report_raw(p, "</dd>\n");
}

static void fact_text(struct page *p, enum report_words words, const char *text)
{
	if (!*text)
		return;
	fact_open(p, words);
	report_text(p, text);
	fact_close(p);
}

static void fact_hash(struct page *p, enum report_words words, const char *text)
{
	fact_open(p, words);
	report_raw(p, "<span class=\"hash\">");
	report_text(p, text);
	report_raw(p, "</span>");
	fact_close(p);
}

static void facts_tested(struct page *p, const struct drill_record *d)
{
	char instant[IM_INSTANT_BYTES];
	fact_text(p, W_FACT_BEGAN, im_instant_format(instant, d->time_ms));
	fact_text(p, W_FACT_REASON, text_of(d->meta, "reason"));
	fact_open(p, W_FACT_SNAPSHOT);
	report_raw(p, "<span class=\"hash\">");
	report_text(p, d->snapshot);
	report_raw(p, "</span> (");
	report_term(p, VOCABULARY_CHOSEN, d->chosen);
	report_raw(p, ")");
	fact_close(p);
	fact_text(p, W_FACT_AT, text_of(d->meta, "at"));
	if (d->instant_reached_ms >= 0)
		fact_text(p, W_FACT_REACHED, im_instant_format(instant, d->instant_reached_ms));
	fact_open(p, W_FACT_SCENARIO);
	report_term(p, VOCABULARY_SCENARIO, d->scenario);
	report_raw(p, report_words_of(p, W_COMMA));
	report_term(p, VOCABULARY_MODE, text_of(d->meta, "mode"));
	fact_close(p);
	fact_open(p, W_FACT_SERVICE);
	report_term(p, VOCABULARY_SERVICE, text_of(d->meta, "service"));
	fact_close(p);
}

static enum report_words loss_words(const struct drill_record *d)
{
	if (strcmp(d->chosen, "latest") != 0)
		return W_LOSS_CHOSEN;
	return d->rpo_target_ms <= 0 ? W_LOSS_NO_TARGET : d->rpo_met ? W_LOSS_MET : W_LOSS_MISSED;
}

static void facts_result(struct page *p, const struct drill_record *d)
{
	char ready[REPORT_VALUE_BYTES], complete[REPORT_VALUE_BYTES], target[REPORT_VALUE_BYTES], lost[REPORT_VALUE_BYTES], p95[REPORT_VALUE_BYTES];
	fact_open(p, W_FACT_RESULT);
	say_verdict(p, d);
	snprintf(ready, sizeof ready, "%" PRId64, number_of(d->meta, "exit_code"));
	snprintf(complete, sizeof complete, "%" PRId64, number_of(d->meta, "differences") < 0 ? 0 : number_of(d->meta, "differences"));
	report_raw(p, "; ");
	report_say(p, W_RESULT_DETAIL, ready, complete, NULL);
	fact_close(p);
	fact_open(p, W_FACT_RECOVERY);
	report_say(p, d->rto_ms <= 0 ? W_RECOVERY_NO_TARGET : report_met(d) ? W_RECOVERY_MET : W_RECOVERY_MISSED,
	    report_duration(p, ready, d->service_ready_ms), report_duration(p, complete, d->data_complete_ms), report_duration(p, target, d->rto_ms), NULL);
	fact_close(p);
	fact_open(p, W_FACT_LOSS);
	report_say(p, loss_words(d), report_duration(p, lost, d->rpo_ms), report_duration(p, target, d->rpo_target_ms), NULL);
	fact_close(p);
	if (d->forecast_p50_ms < 0)
		return;
	fact_open(p, W_FACT_FORECAST);
	report_say(p, W_FORECAST_BEFORE, report_duration(p, ready, d->forecast_p50_ms), report_duration(p, p95, d->forecast_p95_ms), NULL);
	fact_close(p);
}

static void facts_phases(struct page *p, const struct drill_record *d)
{
	size_t i;
	json_t *phase;
	char value[REPORT_VALUE_BYTES];
	if (!json_array_size(json_object_get(d->meta, "phases")))
		return;
	fact_open(p, W_FACT_PHASES);
	json_array_foreach(json_object_get(d->meta, "phases"), i, phase) {
		if (i == PHASES_MAX)
			break;
		report_raw(p, i ? report_words_of(p, W_COMMA) : "");
		report_term(p, VOCABULARY_PHASE, text_of(phase, "name"));
		report_raw(p, "&#160;");
		report_text(p, report_duration(p, value, number_of(phase, "ms")));
		if (json_is_true(json_object_get(phase, "of_threads")))
			report_raw(p, report_words_of(p, W_OF_THREADS));
	}
	fact_close(p);
}

static void facts_machine(struct page *p, const struct drill_record *d)
{
	const json_t *limits = json_object_get(d->meta, "limits");
	char cpus[REPORT_VALUE_BYTES], nice[REPORT_VALUE_BYTES];
	int64_t n = number_of(json_object_get(d->meta, "machine"), "cpus");
	fact_text(p, W_FACT_HOST, d->host);
	if (n > 0) {
		snprintf(cpus, sizeof cpus, "%" PRId64, n);
		fact_text(p, W_FACT_CPUS, cpus);
	}
	if (json_is_object(limits)) {
		snprintf(cpus, sizeof cpus, "%" PRId64, number_of(limits, "cpus"));
		snprintf(nice, sizeof nice, "%lld", (long long)json_integer_value(json_object_get(limits, "nice")));
		fact_open(p, W_FACT_LIMITS);
		report_say(p, W_LIMITS, number_of(limits, "cpus") > 0 ? cpus : "\xe2\x80\x93", nice, NULL);
		fact_close(p);
	}
	fact_text(p, W_FACT_OPERATOR, d->operator_name);
	fact_text(p, W_FACT_VERSION, d->version);
}

static void facts_proof(struct page *p, const struct drill_record *d)
{
	const struct key_entry *key = keyring_find(p->r->vault->keyring, d->signer);
	char hex[65];
	size_t i;
	json_t *prev;
	fact_open(p, W_FACT_SIGNED);
	report_put(p, "<span class=\"%s\">", d->signer_active ? "good" : "warn");
	report_say(p, d->signer_active ? W_SIGNED_ACTIVE : W_SIGNED_REVOKED, key && key->name ? key->name : "?", im_hex(hex, d->signer, 8), NULL);
	report_raw(p, "</span>");
	fact_close(p);
	fact_hash(p, W_FACT_OBJECT, d->object);
	fact_hash(p, W_FACT_HASH, im_hex(hex, d->hash, 32));
	if (!json_array_size(json_object_get(d->meta, "prev")))
		fact_hash(p, W_FACT_PREV, report_words_of(p, W_FIRST_RECORD));
	json_array_foreach(json_object_get(d->meta, "prev"), i, prev)
		if (i < PHASES_MAX)
			fact_hash(p, W_FACT_PREV, json_is_string(prev) ? json_string_value(prev) : "?");
}

static void show_stores(struct page *p, const struct drill_record *d)
{
	static const enum report_words heads[] = { W_COLUMN_STORE, W_COLUMN_TYPE, W_COLUMN_STATUS, W_COLUMN_FILES, W_COLUMN_SIZE, W_COLUMN_LOG_BYTES, W_END };
	size_t i;
	json_t *store;
	if (!json_array_size(json_object_get(d->meta, "stores")))
		return;
	report_table_open(p, 0x38, heads);
	json_array_foreach(json_object_get(d->meta, "stores"), i, store) {
		int64_t bytes = number_of(store, "bytes"), log_bytes = number_of(store, "log_bytes"), files = number_of(store, "files");
		if (i == STORES_MAX)
			break;
		report_raw(p, "<tr><td>");
		report_text(p, text_of(store, "name"));
		report_raw(p, "</td><td>");
		report_text(p, text_of(store, "type"));
		report_raw(p, "</td><td>");
		report_term(p, VOCABULARY_STATUS, text_of(store, "status"));
		report_put(p, "</td><td class=\"n\">%" PRId64 "</td>", files < 0 ? 0 : files);
		report_cell_bytes(p, bytes < 0 ? 0 : (uint64_t)bytes);
		report_cell_bytes(p, log_bytes < 0 ? 0 : (uint64_t)log_bytes);
		report_raw(p, "</tr>\n");
	}
	report_table_close(p);
}

static void check_row(struct page *p, const json_t *check)
{
	bool ok = json_is_true(json_object_get(check, "ok"));
	const char *store = text_of(check, "store");
	report_put(p, "<li><b class=\"%s\">%s</b>", ok ? "good" : "bad", ok ? "&#10003;" : "&#10007;");
	report_raw(p, report_words_of(p, ok ? W_CHECK_OK : W_CHECK_FAILED));
	report_raw(p, report_words_of(p, W_SPACE));
	if (*store) {
		report_text(p, store);
		report_raw(p, report_words_of(p, W_COMMA));
	}
	report_quote(p, text_of(check, "check"));
	report_raw(p, report_words_of(p, W_COLON));
	report_quote(p, text_of(check, "text"));
	report_raw(p, "</li>\n");
}

/* Failed ones first, since not all may be shown. */
static void show_checks(struct page *p, const struct drill_record *d)
{
	const json_t *checks = json_object_get(d->private_part, "checks");
	const char *error = text_of(d->private_part, "error");
	size_t i, shown = 0;
	json_t *check;
	char rest[REPORT_VALUE_BYTES];
	report_element(p, "h3", NULL, W_CHECKS);
	if (!d->private_part) {
		report_element(p, "p", "soft", W_CHECKS_PRIVATE);
		return;
	}
	if (!json_array_size(checks))
		report_element(p, "p", "soft", W_CHECKS_NONE);
	report_raw(p, "<ul class=\"checks\">\n");
	for (int pass = 0; pass < 2; pass++)
		json_array_foreach(checks, i, check)
			if (shown < CHECKS_MAX && json_is_true(json_object_get(check, "ok")) == (pass == 1)) {
				check_row(p, check);
				shown++;
			}
	if (shown < json_array_size(checks)) {
		report_raw(p, "<li>");
		report_say(p, W_CHECKS_MORE, report_count(rest, json_array_size(checks) - shown), NULL);
		report_raw(p, "</li>\n");
	}
	report_raw(p, "</ul>\n");
	if (*error) {
		report_raw(p, "<p class=\"bad\">");
		report_quote(p, error);
		report_raw(p, "</p>\n");
	}
}

static void show_record(struct page *p, const struct drill_record *d)
{
	char hex[65], when[REPORT_VALUE_BYTES];
	report_put(p, "<details class=\"record\" id=\"r%.12s\"><summary><span class=\"when\">", im_hex(hex, d->hash, 32));
	report_text(p, report_minute(when, d->time_ms));
	report_raw(p, "</span><span class=\"kind\">");
	report_raw(p, report_words_of(p, d->is_drill ? W_DRILL : W_RESTORE));
	report_raw(p, report_words_of(p, W_COMMA));
	report_term(p, VOCABULARY_SCENARIO, d->scenario);
	report_raw(p, "</span><span class=\"took\">");
	report_text(p, report_duration(p, when, d->service_ready_ms));
	report_raw(p, "</span><span>");
	say_verdict(p, d);
	report_raw(p, "</span></summary><div class=\"body\">\n<dl class=\"facts\">\n");
	facts_tested(p, d);
	facts_result(p, d);
	facts_phases(p, d);
	facts_machine(p, d);
	facts_proof(p, d);
	report_raw(p, "</dl>\n");
	show_stores(p, d);
	show_checks(p, d);
	report_raw(p, "</div></details>\n");
}

/* --- the whole --- */

static void show_chain(struct page *p)
{
	const struct report *r = p->r;
	char count[REPORT_VALUE_BYTES], snapshots[REPORT_VALUE_BYTES];
	if (!r->finding_count) {
		report_raw(p, "<p class=\"good\">&#10003; ");
		report_say(p, W_CHAIN_WHOLE, report_count(count, r->drills.count), report_count(snapshots, r->snapshot_count), NULL);
		report_raw(p, "</p>\n");
		return;
	}
	report_raw(p, "<p class=\"bad\">&#10007; ");
	report_say(p, W_CHAIN_FINDINGS, report_count(count, r->finding_count), NULL);
	report_raw(p, "</p>\n<ul class=\"findings\">\n");
	for (size_t i = 0; i < r->finding_count; i++) {
		report_raw(p, "<li>");
		report_quote(p, r->findings[i]);
		report_raw(p, "</li>\n");
	}
	report_raw(p, "</ul>\n");
}

void report_section_evidence(struct page *p)
{
	const struct report *r = p->r;
	char hex[65];
	report_section_open(p, "evidence", W_SECTION_EVIDENCE, W_LEAD_EVIDENCE);
	show_chain(p);
	report_raw(p, "<dl class=\"facts\">\n");
	fact_hash(p, W_FACT_VAULT, im_hex(hex, r->vault->id, sizeof r->vault->id));
	fact_hash(p, W_FACT_AUTHORITY, im_hex(hex, r->vault->authority, sizeof r->vault->authority));
	report_raw(p, "</dl>\n");
	report_element(p, "p", "soft", W_HOW_TO_CHECK);
	if (!r->has_private && r->drills.count)
		report_element(p, "p", "warn", W_NOT_PRIVATE);
	if (!r->drills.count)
		report_nothing(p, W_NO_RECORDS, W_DO_DRILL, "imvault drill");
	for (size_t i = r->drills.count; i-- > 0;)
		show_record(p, &r->drills.items[i]);
	report_section_close(p);
}
