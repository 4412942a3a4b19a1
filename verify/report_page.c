/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page from top to bottom: verdict and key figures first, then the charts, then the evidence.
 * One file without scripts; a content security policy keeps it so even if something slipped in.
 */
#include "verify/report_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static const char marks[] =
    "<svg class=\"defs\" aria-hidden=\"true\"><defs>"
    "<circle id=\"m-dot\" r=\"4.5\"/><circle id=\"m-ring\" r=\"3.5\" stroke-width=\"1.5\"/>"
    "<path id=\"m-diamond\" d=\"M0-7L7 0 0 7-7 0Z\"/><path id=\"m-frame\" d=\"M0-5L5 0 0 5-5 0Z\" stroke-width=\"1.5\"/>"
    "<path id=\"m-cross\" d=\"M-5-5L5 5M-5 5L5-5\" stroke-width=\"2.5\" fill=\"none\"/>"
    "<pattern id=\"p-gap\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
    "<rect class=\"hatch\" width=\"2.5\" height=\"6\"/></pattern></defs></svg>\n";

void report_head_open(struct page *p)
{
	report_raw(p, "<!DOCTYPE html>\n");
	report_put(p, "<html lang=\"%s\">\n<head>\n<meta charset=\"utf-8\"/>\n", p->lang == REPORT_ZH ? "zh-CN" : "en");
	report_raw(p, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
	    "<meta name=\"robots\" content=\"noindex\"/>\n<meta name=\"referrer\" content=\"no-referrer\"/>\n"
	    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n<title>");
}

static void head(struct page *p)
{
	report_head_open(p);
	report_say(p, W_TITLE, p->r->node, NULL);
	report_raw(p, "</title>\n");
	report_style(p);
	report_raw(p, "</head>\n<body>\n");
	report_raw(p, marks);
}

static void masthead(struct page *p)
{
	char now[REPORT_VALUE_BYTES];
	report_raw(p, "<header>\n");
	report_element(p, "p", "eyebrow", W_EYEBROW);
	report_raw(p, "<h1>");
	report_text(p, p->r->node);
	report_raw(p, "</h1>\n<p class=\"soft\">");
	report_say(p, W_AS_OF, report_minute(now, p->r->now_ms), NULL);
	report_raw(p, "</p>\n");
}

/* --- verdict --- */

static void sign(struct page *p, enum report_verdict verdict)
{
	static const char *const shapes[] = { [REPORT_PROVEN] = "M3 12.5l6 6L21 6", [REPORT_RESERVED] = "M12 3L22.5 21h-21ZM12 10v5M12 18v.1",
		[REPORT_UNPROVEN] = "M5 5l14 14M19 5L5 19" };
	report_put(p, "<svg class=\"sign\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path d=\"%s\"/></svg>", shapes[verdict]);
}

static void say_last_drill(struct page *p)
{
	const struct report_summary *s = &p->r->summary;
	const struct drill_record *d = s->last_drill;
	char when[REPORT_VALUE_BYTES], ready[REPORT_VALUE_BYTES], target[REPORT_VALUE_BYTES], lost[REPORT_VALUE_BYTES];
	bool with_loss = d && strcmp(d->chosen, "latest") == 0 && d->rpo_ms >= 0;
	if (!d)
		return;
	report_raw(p, "<p>");
	report_minute(when, d->time_ms);
	if (d->service_ready_ms < 0)
		report_say(p, W_LAST_NOT_READY, when, NULL);
	else if (!s->rto_ms)
		report_say(p, W_LAST_NO_TARGET, when, report_duration(p, ready, d->service_ready_ms), NULL);
	else
		report_say(p, W_LAST_READY, when, report_duration(p, ready, d->service_ready_ms), report_duration(p, target, s->rto_ms), NULL);
	if (with_loss) {
		report_raw(p, report_words_of(p, W_SPACE));
		report_say(p, s->rpo_ms ? W_LAST_LOSS_TARGET : W_LAST_LOSS, report_duration(p, lost, d->rpo_ms),
		    report_duration(p, target, s->rpo_ms), NULL);
	}
	report_raw(p, "</p>\n");
}

static void reasons(struct page *p)
{
	static const enum report_words words[] = { [REPORT_NO_TARGET] = W_WHY_NO_TARGET, [REPORT_NO_DRILL] = W_WHY_NO_DRILL,
		[REPORT_DRILL_FAILED] = W_WHY_DRILL_FAILED, [REPORT_RTO_MISSED] = W_WHY_RTO_MISSED, [REPORT_RPO_MISSED] = W_WHY_RPO_MISSED,
		[REPORT_DRILL_SCOPE] = W_WHY_SCOPE, [REPORT_DRILL_OVERDUE] = W_WHY_OVERDUE, [REPORT_FORECAST_OVER] = W_WHY_FORECAST_OVER,
		[REPORT_FORECAST_P95_OVER] = W_WHY_FORECAST_P95, [REPORT_KEY_REVOKED] = W_WHY_REVOKED, [REPORT_CHAIN_BROKEN] = W_WHY_CHAIN };
	const struct report_summary *s = &p->r->summary;
	char age[REPORT_VALUE_BYTES], limit[REPORT_VALUE_BYTES], p50[REPORT_VALUE_BYTES], p95[REPORT_VALUE_BYTES], rto[REPORT_VALUE_BYTES];
	report_raw(p, "<ul class=\"reasons\">\n");
	for (int i = 0; i < REPORT_REASON_COUNT; i++) {
		if (!s->reasons[i])
			continue;
		report_raw(p, "<li>");
		report_say(p, words[i], report_duration(p, age, s->drill_age_ms), report_duration(p, limit, s->drill_limit_ms),
		    report_duration(p, p50, s->forecast_p50_ms), report_duration(p, p95, s->forecast_p95_ms), report_duration(p, rto, s->rto_ms), NULL);
		report_raw(p, "</li>\n");
	}
	report_raw(p, "</ul>\n");
}

static void verdict(struct page *p)
{
	static const enum report_words titles[] = { [REPORT_PROVEN] = W_PROVEN, [REPORT_RESERVED] = W_RESERVED, [REPORT_UNPROVEN] = W_UNPROVEN };
	const struct report_summary *s = &p->r->summary;
	report_put(p, "<div class=\"verdict %s\">\n<h2>", report_verdict_name(s->verdict));
	sign(p, s->verdict);
	report_raw(p, report_words_of(p, titles[s->verdict]));
	report_raw(p, "</h2>\n");
	say_last_drill(p);
	if (s->verdict != REPORT_PROVEN)
		reasons(p);
	report_raw(p, "</div>\n");
}

/* --- key figures --- */

static void figure_open(struct page *p, enum report_words words, const char *tone)
{
	report_raw(p, "<div><dt>");
	report_raw(p, report_words_of(p, words));
	report_put(p, "</dt><dd class=\"big %s\">", tone);
}

/* Ages in whole minutes: nobody counts the seconds since a drill. */
static int64_t whole_minutes(int64_t ms)
{
	return (ms / 60000 + 1) * 60000;
}

static void figure_last(struct page *p)
{
	const struct report_summary *s = &p->r->summary;
	char age[REPORT_VALUE_BYTES];
	bool good = s->last_drill && s->last_drill->passed && !s->reasons[REPORT_RTO_MISSED] && !s->reasons[REPORT_RPO_MISSED];
	figure_open(p, W_FIGURE_LAST, good ? "" : "bad");
	if (!s->last_drill) {
		report_raw(p, report_words_of(p, W_NEVER));
		report_raw(p, "</dd></div>\n");
		return;
	}
	report_term(p, VOCABULARY_VERDICT, s->last_drill->verdict);
	report_raw(p, "</dd><dd class=\"small\">");
	report_say(p, W_AGO, report_duration(p, age, whole_minutes(s->drill_age_ms)), NULL);
	report_raw(p, report_words_of(p, W_COMMA));
	report_term(p, VOCABULARY_SCENARIO, s->last_drill->scenario);
	report_raw(p, "</dd></div>\n");
}

static void figure_rto(struct page *p)
{
	const struct report_summary *s = &p->r->summary;
	char value[REPORT_VALUE_BYTES], restores[REPORT_VALUE_BYTES];
	figure_open(p, W_FIGURE_RTO, "");
	report_text(p, report_ratio(p, value, s->drills));
	report_raw(p, "</dd><dd class=\"small\">");
	if (s->restores.of)
		report_say(p, W_AND_RESTORES, report_ratio(p, restores, s->restores), NULL);
	else
		report_raw(p, report_words_of(p, W_DRILLS_ONLY));
	if (s->rto_ms) {
		report_raw(p, "<br/>");
		report_say(p, W_TARGET_IS, report_duration(p, value, s->rto_ms), NULL);
	}
	report_raw(p, "</dd></div>\n");
}

static void figure_rpo(struct page *p)
{
	const struct report_summary *s = &p->r->summary;
	char value[REPORT_VALUE_BYTES];
	figure_open(p, W_FIGURE_RPO, "");
	report_text(p, report_ratio(p, value, s->rpo));
	report_raw(p, "</dd><dd class=\"small\">");
	if (s->rpo_ms)
		report_say(p, W_TARGET_IS, report_duration(p, value, s->rpo_ms), NULL);
	else
		report_raw(p, report_words_of(p, W_NO_RPO_SET));
	report_raw(p, "</dd></div>\n");
}

static void figure_forecast(struct page *p)
{
	const struct report_summary *s = &p->r->summary;
	char p50[REPORT_VALUE_BYTES], p95[REPORT_VALUE_BYTES];
	figure_open(p, W_FIGURE_FORECAST, s->reasons[REPORT_FORECAST_OVER] ? "bad" : s->reasons[REPORT_FORECAST_P95_OVER] ? "warn" : "");
	report_text(p, report_duration(p, p50, s->has_forecast ? s->forecast_p50_ms : -1));
	report_raw(p, "</dd><dd class=\"small\">");
	if (s->has_forecast) {
		report_say(p, W_P95_IS, report_duration(p, p95, s->forecast_p95_ms), NULL);
		report_raw(p, "<br/>");
		report_raw(p, report_words_of(p, s->forecast_is_instant ? W_INSTANT : W_FULL));
	} else {
		report_raw(p, report_words_of(p, W_NO_FORECAST_SHORT));
	}
	report_raw(p, "</dd></div>\n");
}

static void navigation(struct page *p)
{
	static const struct {
		const char *id;
		enum report_words words;
	} items[] = { { "recovery", W_SECTION_RECOVERY }, { "phases", W_SECTION_PHASES }, { "rpo", W_SECTION_RPO }, { "forecast", W_SECTION_FORECAST },
		{ "window", W_SECTION_WINDOW }, { "growth", W_SECTION_GROWTH }, { "incidents", W_SECTION_INCIDENTS }, { "evidence", W_SECTION_EVIDENCE } };
	report_put(p, "<nav aria-label=\"%s\"><ul>", report_words_of(p, W_CONTENTS));
	for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
		report_put(p, "<li><a href=\"#%s\">", items[i].id);
		report_raw(p, report_words_of(p, items[i].words));
		report_raw(p, "</a></li>");
	}
	report_raw(p, "</ul></nav>\n</header>\n");
}

static void glossary(struct page *p)
{
	static const enum report_words terms[][2] = { { W_TERM_RTO, W_MEANS_RTO }, { W_TERM_RPO, W_MEANS_RPO }, { W_TERM_DRILL, W_MEANS_DRILL },
		{ W_TERM_READY, W_MEANS_READY }, { W_TERM_SCENARIO, W_MEANS_SCENARIO }, { W_TERM_P95, W_MEANS_P95 } };
	report_put(p, "<section id=\"terms\" aria-labelledby=\"h-terms\">\n<h2 id=\"h-terms\">");
	report_raw(p, report_words_of(p, W_SECTION_TERMS));
	report_raw(p, "</h2>\n<dl class=\"terms\">\n");
	for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
		report_element(p, "dt", NULL, terms[i][0]);
		report_element(p, "dd", NULL, terms[i][1]);
	}
	report_raw(p, "</dl>\n</section>\n");
}

static void footer(struct page *p)
{
	char instant[IM_INSTANT_BYTES];
	report_raw(p, "</main>\n<footer>");
	report_say(p, W_FOOTER, IMVAULT_VERSION, im_instant_format(instant, p->r->now_ms), NULL);
	report_raw(p, "</footer>\n</body>\n</html>\n");
}

int report_write(const struct report *r, enum report_lang lang, struct im_buf *ret, struct im_error *err)
{
	struct page p = { .r = r, .lang = lang };
	head(&p);
	masthead(&p);
	verdict(&p);
	report_raw(&p, "<dl class=\"figures\">\n");
	figure_last(&p);
	figure_rto(&p);
	figure_rpo(&p);
	figure_forecast(&p);
	report_raw(&p, "</dl>\n");
	navigation(&p);
	report_raw(&p, "<main>\n");
	report_section_recovery(&p);
	report_section_phases(&p);
	report_section_rpo(&p);
	report_section_forecast(&p);
	report_section_window(&p);
	report_section_growth(&p);
	report_section_incidents(&p);
	report_section_evidence(&p);
	glossary(&p);
	footer(&p);
	if (!p.out.failed)
		im_buf_put(ret, p.out.data, p.out.len);
	bool failed = p.out.failed || ret->failed;
	im_buf_free(&p.out);
	return failed ? im_fail(err, IM_ENOMEM, "out of memory for the report") : 0;
}
