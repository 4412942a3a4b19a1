/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat text that compresses like chat text: words drawn from a Zipf-like vocabulary (the commonest
 * ones real, the tail made of syllables), half of them inside set phrases that people repeat, and
 * whole stock replies. English and Chinese. With a corpus, its lines are the bodies instead.
 * The vocabulary does not depend on the seed: a store grown later goes on in the same language.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "make_rng.h"
#include "make_store.h"

enum {
	ENGLISH_WORDS = 24000,
	CHINESE_WORDS = 12000,
	PHRASES = 20000,
	MAX_WORDS = 90,
};

static const char common_english[] =
	"the I to you a it and is in that of for on have do not be what this just with so if are can "
	"but my know like was me no we at get don&apos;t it&apos;s I&apos;m one all there or about "
	"think out up will how your as then from time now some when need see go good would want back "
	"they here work yes right why who make an use any did more only new well still try should "
	"server message meeting tomorrow today really sure that&apos;s can&apos;t something way going "
	"thanks please call send file sent got could let people over look find problem same after "
	"before much even where first other because had them he she him her been too very than were "
	"which their has into our us two three day week month year home office team project customer "
	"order price question answer open close start stop run build test deploy check update version "
	"release fix bug error log report number phone mail address name link page site user account "
	"password login group room chat photo video picture document draft review comment change "
	"schedule plan lunch dinner coffee weekend train late early maybe probably actually already "
	"never always again another different great nice cool sorry happy love hope feel wait minute "
	"hour later soon done ready okay lol haha yeah hmm oh hey hi hello bye morning night";

static const char common_chinese[] =
	"的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
	"用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
	"日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政"
	"美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员"
	"解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件"
	"计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象"
	"完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔群消息图";

static const char *const stock_english[] = {
	"ok", "OK", "thanks!", "yes", "no", "sure", "lol", "on my way", "sounds good", "will do",
	"got it", "good morning", "see you tomorrow", "let me check", "one moment please", "done",
	"👍", "haha", "not yet", "call me when you can",
};

static const char *const stock_chinese[] = {
	"好的", "收到", "谢谢", "嗯", "哈哈哈", "可以", "没问题", "早上好", "明天见", "稍等一下",
	"辛苦了", "知道了", "马上", "在吗？", "👌", "我看一下", "晚点再说", "不客气", "行", "开会中",
};

#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

struct language {
	char **words;
	struct zipf word_law;
	char **phrases;
	struct zipf phrase_law;
};

struct text {
	struct language english, chinese;
	char *corpus;
	const char **lines;
	uint32_t *line_lengths;
	uint32_t line_count;
};

static char *copy_string(const char *text, size_t length)
{
	char *copy = make_alloc(length + 1);

	memcpy(copy, text, length);
	return copy;
}

static void english_words(struct language *language, struct rng *rng)
{
	static const char *const heads[] = { "b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s",
		"t", "v", "w", "st", "tr", "ch", "sh", "pr", "con", "re", "in", "de", "com" };
	static const char *const cores[] = { "a", "e", "i", "o", "u", "ea", "ai", "ou", "er", "en" };
	static const char *const tails[] = { "", "", "t", "n", "s", "r", "l", "d", "ck", "st", "ng",
		"ing", "ed", "ion", "ly", "er", "ment", "ity" };
	uint32_t count = 0;

	language->words = make_alloc(ENGLISH_WORDS * sizeof(char *));
	for (const char *at = common_english; *at;) {
		size_t length = strcspn(at, " ");

		language->words[count++] = copy_string(at, length);
		at += length + (at[length] == ' ');
	}
	for (struct str word = { 0 }; count < ENGLISH_WORDS; count++, word.length = 0) {
		for (uint32_t i = 1 + rng_below(rng, 2 + (count > 4000)); i; i--) {
			str_puts(&word, heads[rng_below(rng, COUNT(heads))]);
			str_puts(&word, cores[rng_below(rng, COUNT(cores))]);
		}
		str_puts(&word, tails[rng_below(rng, COUNT(tails))]);
		language->words[count] = copy_string(word.data, word.length);
		if (count + 1 == ENGLISH_WORDS)
			free(word.data);
	}
	zipf_init(&language->word_law, ENGLISH_WORDS, 1.25, 5);
}

static void chinese_words(struct language *language, struct rng *rng)
{
	const uint32_t characters = (sizeof(common_chinese) - 1) / 3; /* three UTF-8 bytes each */
	struct zipf law;

	language->words = make_alloc(CHINESE_WORDS * sizeof(char *));
	zipf_init(&law, characters, 0.5, 5);
	for (uint32_t i = 0; i < CHINESE_WORDS; i++) {
		uint32_t length = i < 120 ? 1 : i % 7 ? 2 : 3;
		char word[10] = "";

		for (uint32_t c = 0; c < length; c++) {
			uint32_t character = i < 120 ? i : zipf_draw(&law, rng);

			memcpy(word + c * 3, common_chinese + character * 3, 3);
		}
		language->words[i] = copy_string(word, length * 3);
	}
	zipf_clear(&law);
	zipf_init(&language->word_law, CHINESE_WORDS, 1.25, 5);
}

static void make_phrases(struct language *language, struct rng *rng, const char *space)
{
	struct str phrase = { 0 };

	language->phrases = make_alloc(PHRASES * sizeof(char *));
	for (uint32_t i = 0; i < PHRASES; i++) {
		phrase.length = 0;
		for (uint32_t w = 2 + rng_below(rng, 5); w; w--) {
			str_puts(&phrase, language->words[zipf_draw(&language->word_law, rng)]);
			if (w > 1)
				str_puts(&phrase, space);
		}
		language->phrases[i] = copy_string(phrase.data, phrase.length);
	}
	free(phrase.data);
	zipf_init(&language->phrase_law, PHRASES, 1.1, 3);
}

static void load_corpus(struct text *text, const char *path)
{
	FILE *file = fopen(path, "r");
	size_t size = 0, length;
	uint32_t line_limit = 0;

	if (!file)
		make_die("cannot open %s: %s", path, strerror(errno));
	fseek(file, 0, SEEK_END);
	size = (size_t)ftell(file);
	rewind(file);
	text->corpus = make_alloc(size + 1);
	length = fread(text->corpus, 1, size, file);
	fclose(file);
	for (size_t i = 0; i < length; i++)
		line_limit += text->corpus[i] == '\n';
	text->lines = make_alloc((line_limit + 1) * sizeof(*text->lines));
	text->line_lengths = make_alloc((line_limit + 1) * sizeof(*text->line_lengths));
	for (char *at = text->corpus, *end; (end = strchr(at, '\n')); at = end + 1) {
		char *sender = at[0] == '[' ? strchr(at, '>') : NULL; /* "[10:13] <name> words" */
		char *body = sender && sender + 2 < end ? sender + 2 : at;

		if (body == end)
			continue;
		text->lines[text->line_count] = body;
		text->line_lengths[text->line_count++] = (uint32_t)(end - body);
	}
	if (!text->line_count)
		make_die("%s has no lines", path);
}

struct text *text_new(const char *corpus_path)
{
	struct text *text = make_alloc(sizeof(*text));
	struct rng rng;

	rng_seed(&rng, 0x696d7661756c74); /* always the same vocabulary */
	english_words(&text->english, &rng);
	make_phrases(&text->english, &rng, " ");
	chinese_words(&text->chinese, &rng);
	make_phrases(&text->chinese, &rng, "");
	if (corpus_path)
		load_corpus(text, corpus_path);
	return text;
}

static void language_clear(struct language *language, uint32_t word_count)
{
	for (uint32_t i = 0; i < word_count; i++)
		free(language->words[i]);
	for (uint32_t i = 0; i < PHRASES; i++)
		free(language->phrases[i]);
	free(language->words);
	free(language->phrases);
	zipf_clear(&language->word_law);
	zipf_clear(&language->phrase_law);
}

void text_free(struct text *text)
{
	if (!text)
		return;
	language_clear(&text->english, ENGLISH_WORDS);
	language_clear(&text->chinese, CHINESE_WORDS);
	free(text->corpus);
	free(text->lines);
	free(text->line_lengths);
	free(text);
}

static void add_word(struct language *language, struct rng *rng, struct str *out)
{
	uint32_t kind = rng_below(rng, 100);

	if (kind < 78)
		str_puts(out, language->phrases[zipf_draw(&language->phrase_law, rng)]);
	else if (kind < 98)
		str_puts(out, language->words[zipf_draw(&language->word_law, rng)]);
	else if (kind == 98)
		str_printf(out, "%u", rng_below(rng, 10000));
	else
		str_printf(out, "https://example.org/p/%08x", rng_below(rng, UINT32_MAX));
}

static void text_english(struct text *text, struct rng *rng, uint32_t words, struct str *out)
{
	for (uint32_t i = 0; i < words; i++) {
		if (i && rng_below(rng, 12) == 0)
			str_puts(out, i % 3 ? ", " : ". ");
		else if (i)
			str_puts(out, " ");
		add_word(&text->english, rng, out);
	}
	str_puts(out, rng_below(rng, 3) ? "" : rng_below(rng, 3) ? "." : "?");
}

static void text_chinese(struct text *text, struct rng *rng, uint32_t words, struct str *out)
{
	for (uint32_t i = 0; i < words; i++) {
		if (i && rng_below(rng, 5) == 0)
			str_puts(out, i % 3 ? "，" : "。");
		add_word(&text->chinese, rng, out);
	}
	str_puts(out, rng_below(rng, 3) ? "" : rng_below(rng, 3) ? "。" : "？");
}

void text_body(struct text *text, struct rng *rng, bool chinese, struct str *out)
{
	uint32_t words;

	if (text->line_count) {
		uint32_t line = rng_below(rng, text->line_count);

		str_add_escaped(out, text->lines[line], text->line_lengths[line]);
		return;
	}
	if (rng_below(rng, 100) < 20) {
		str_puts(out, chinese ? stock_chinese[rng_below(rng, COUNT(stock_chinese))]
				      : stock_english[rng_below(rng, COUNT(stock_english))]);
		return;
	}
	/* Mostly a line, now and then a long paragraph. */
	for (words = 2; words < MAX_WORDS && rng_below(rng, 100) < 84; words++)
		;
	if (chinese)
		text_chinese(text, rng, words, out);
	else
		text_english(text, rng, words, out);
}
