/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's style sheet. One accent colour; green, amber and red only for verdicts, and never
 * alone: a mark or a word says the same. Series colours keep 3:1 against the page and differ for
 * colour-blind readers in lightness too; every text colour keeps 4.5:1. Paper is always light.
 */
#include "verify/report_internal.h"

#define LIGHT \
	"--page:#fff;--sunk:#f6f7f9;--ink:#1b2026;--soft:#56606c;--line:#d8dde3;--grid:#e8ebef;--accent:#0b5cad;" \
	"--good:#1a7536;--warn:#8a5a00;--bad:#bd2424;" \
	"--s1:#0b5cad;--s2:#c4570a;--s3:#00806a;--s4:#9c3d86;--s5:#69737f;--s6:#857000;--s7:#3d8fd1;--s8:#6b50a8;--s9:#3f4954;--s10:#96693c;"
#define DARK \
	"--page:#14171b;--sunk:#1b2025;--ink:#e7eaee;--soft:#a3adb8;--line:#343b43;--grid:#262c33;--accent:#74b4f6;" \
	"--good:#56c271;--warn:#e2ab3c;--bad:#ff8078;" \
	"--s1:#5da6f0;--s2:#ee8c48;--s3:#37b89e;--s4:#d88cc5;--s5:#949eaa;--s6:#c9b340;--s7:#a6d4fb;--s8:#b49ae8;--s9:#c9d0d8;--s10:#c79a6a;"

static const char colours[] =
    ":root{color-scheme:light dark;" LIGHT "}\n"
    "@media (prefers-color-scheme:dark){:root{" DARK "}}\n"
    "@media print{:root{color-scheme:light;" LIGHT "}}\n";

static const char text[] =
    "*{box-sizing:border-box}\n"
    "html{-webkit-text-size-adjust:100%}\n"
    "body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI','Liberation Sans',Arial,"
    "'Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\n"
    "header,main,footer{max-width:62rem;margin:0 auto;padding:0 2rem}\n"
    "header{padding-top:3.5rem}\n"
    "section{margin-top:4.5rem}\n"
    "h1{font-size:2.25rem;line-height:1.15;font-weight:650;letter-spacing:-.015em;margin:.25rem 0 .5rem}\n"
    "h2{font-size:1.375rem;line-height:1.3;font-weight:650;letter-spacing:-.005em;margin:0 0 .5rem}\n"
    "h3{font-size:1rem;font-weight:650;margin:2rem 0 .5rem}.body h3{margin-top:1rem;font-size:.9375rem}\n"
    "p{margin:.5rem 0}\n"
    "a{color:var(--accent)}\n"
    "code,.hash{font-family:ui-monospace,'DejaVu Sans Mono','Liberation Mono',Menlo,monospace;font-size:.875em}\n"
    "code{background:var(--sunk);padding:.1em .35em;border-radius:3px}\n"
    ".eyebrow{color:var(--soft);margin:0;font-size:.9375rem}\n"
    ".lead{max-width:44rem;color:var(--soft);margin-bottom:1.5rem}\n"
    ".soft{color:var(--soft)}\n"
    "nav{margin-top:2.5rem;padding:.75rem 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line);font-size:.9375rem}\n"
    "nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1.1rem}\n"
    "nav a{text-decoration:none}nav a:hover{text-decoration:underline}\n"
    "footer{margin-top:5rem;padding-top:1.5rem;padding-bottom:3rem;color:var(--soft);font-size:.875rem}\n"
    ":focus-visible{outline:2px solid var(--accent);outline-offset:2px}\n";

static const char verdict[] =
    ".verdict{margin:2rem 0 0;padding:.25rem 0 .25rem 1.5rem;border-left:5px solid var(--tone)}\n"
    ".proven{--tone:var(--good)}.reserved{--tone:var(--warn)}.unproven{--tone:var(--bad)}\n"
    ".verdict h2{font-size:1.75rem;line-height:1.25;color:var(--tone);margin:0}\n"
    ".verdict .sign{display:inline-block;width:1em;height:1em;vertical-align:-.1em;margin-right:.4em}\n"
    ".verdict .sign path{fill:none;stroke:currentColor;stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}\n"
    ".verdict p{max-width:44rem;font-size:1.0625rem}\n"
    ".reasons{margin:1rem 0 0;padding:0;list-style:none;max-width:44rem}\n"
    ".reasons li{padding:.6rem 0;border-top:1px solid var(--line)}\n"
    ".figures{display:grid;grid-template-columns:repeat(4,1fr);gap:0 2rem;margin:2.5rem 0 0}\n"
    ".figures div{border-top:1px solid var(--line);padding:.75rem 0 1rem}\n"
    ".figures dt{color:var(--soft);font-size:.875rem}\n"
    ".figures dd{margin:0}\n"
    ".figures .big{font-size:1.625rem;line-height:1.3;font-weight:600;letter-spacing:-.01em}\n"
    ".figures .small{color:var(--soft);font-size:.875rem;line-height:1.45}\n"
    ".good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}\n";

static const char charts[] =
    "figure{margin:2rem 0 0}\n"
    "figcaption{font-weight:650;margin-bottom:.25rem}\n"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;margin:.25rem 0 0;padding:0;font-size:.875rem;color:var(--soft)}\n"
    ".legend li{display:inline-flex;align-items:center;gap:.4rem}\n"
    ".key{flex:none;overflow:visible}\n"
    ".plot{display:block;width:calc(100% - 112px);margin:34px 34px 52px 78px;overflow:visible}\n"
    ".plot.rows{width:calc(100% - 20px);margin:20px 10px 52px 10px}\n"
    ".defs{position:absolute;width:0;height:0}\n"
    ".plot text{font-size:12px;fill:var(--soft);stroke:none}\n"
    ".plot .axis{font-size:12px}\n"
    ".plot .level{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}\n"
    ".plot .row{fill:var(--ink);font-size:13px}\n"
    ".plot .value{fill:var(--ink);font-size:12px;paint-order:stroke;stroke:var(--page);stroke-width:3px}\n"
    ".grid{stroke:var(--grid)}.base{stroke:var(--line)}\n"
    ".target{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 4}\n"
    ".thread{stroke:var(--line);stroke-width:2}\n"
    ".ok{fill:var(--accent);stroke:var(--accent)}.late{fill:var(--bad);stroke:var(--bad)}\n"
    ".hollow{fill:var(--page)}\n"
    ".curve{stroke-width:2;stroke-linecap:round}\n"
    ".band{stroke:var(--accent);stroke-opacity:.35;stroke-width:9}.band-key{fill:var(--accent);fill-opacity:.35}.near{fill:var(--grid)}\n"
    ".c1{fill:var(--s1);stroke:var(--s1)}.c2{fill:var(--s2);stroke:var(--s2)}.c3{fill:var(--s3);stroke:var(--s3)}.c4{fill:var(--s4);stroke:var(--s4)}\n"
    ".c9{fill:var(--s9);stroke:var(--s9)}.c10{fill:var(--s10);stroke:var(--s10)}\n"
    ".cut{stroke:var(--page);stroke-width:3}.ready{stroke:var(--ink);stroke-width:2.5}.zero{stroke:var(--soft)}\n"
    ".c5{fill:var(--s5);stroke:var(--s5)}.c6{fill:var(--s6);stroke:var(--s6)}.c7{fill:var(--s7);stroke:var(--s7)}.c8{fill:var(--s8);stroke:var(--s8)}\n"
    ".plot rect,.key rect{stroke:none}.plot rect.bar,.key rect.bar{stroke:var(--page);stroke-width:1}\n"
    ".track{fill:var(--sunk)}.window{fill:var(--accent)}.hole{fill:var(--bad)}\n"
    ".gap{fill:url(#p-gap)}.hatch{fill:var(--bad)}.snap{stroke:var(--soft);stroke-width:1}.snap-key{stroke:var(--soft);stroke-width:2}\n"
    ".nothing{border-left:3px solid var(--line);padding:.25rem 0 .25rem 1.25rem;color:var(--soft)}\n";

static const char tables[] =
    ".scroll{overflow-x:auto;max-width:100%}\n"
    "table{border-collapse:collapse;min-width:min(100%,26rem);font-size:.875rem;line-height:1.45;margin:.5rem 0;overflow-wrap:normal}\n"
    "th,td{text-align:left;padding:.4rem 1.25rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}\n"
    "th{font-weight:600;color:var(--soft);white-space:nowrap}td{white-space:nowrap}td.free{white-space:normal;min-width:14rem;overflow-wrap:anywhere}\n"
    ".n{text-align:right}th:last-child,td:last-child{padding-right:0}\n"
    "details{margin:.25rem 0}\n"
    "summary{cursor:pointer;color:var(--accent);font-size:.875rem;padding:.25rem 0}\n"
    ".record{border-top:1px solid var(--line);margin:0}\n"
    ".record>summary{color:var(--ink);font-size:.9375rem;padding:.7rem 0;display:grid;grid-template-columns:1.1rem 11.5rem 11rem 11rem 1fr;gap:0 .75rem}\n"
    ".record>summary::before{content:'+';color:var(--accent);font-weight:600}\n"
    ".record[open]>summary::before{content:'\\2212'}\n"
    ".record>summary::-webkit-details-marker{display:none}\n"
    ".record>summary{list-style:none}\n"
    ".record .body{padding:0 0 1.5rem 1.85rem}\n"
    ".facts{display:grid;grid-template-columns:11rem 1fr;gap:.2rem 1rem;margin:0;font-size:.9375rem}\n"
    ".facts dt{color:var(--soft)}.facts dd{margin:0;min-width:0}\n"
    ".checks{list-style:none;margin:.25rem 0;padding:0;font-size:.9375rem}\n"
    ".checks li{padding:.15rem 0 .15rem 1.5rem;text-indent:-1.5rem}\n"
    ".checks b{display:inline-block;width:1.5rem;text-indent:0}\n"
    ".incident{border-top:1px solid var(--line);padding:1rem 0;display:grid;grid-template-columns:11rem 1fr;gap:0 1rem;break-inside:avoid}\n"
    ".incident .took{font-size:1.625rem;line-height:1.2;font-weight:600;margin:0}.incident p{margin:0}.incident .why{font-size:1.0625rem;margin-bottom:.25rem}\n"
    ".findings li{margin:.35rem 0}\n"
    ".terms{display:grid;grid-template-columns:11rem 1fr;gap:.5rem 1rem;font-size:.9375rem;max-width:52rem}\n"
    ".terms dt{font-weight:600}.terms dd{margin:0;color:var(--soft)}\n";

static const char narrow[] =
    "@media (max-width:44rem){\n"
    "header,main,footer{padding-left:1rem;padding-right:1rem}header{padding-top:2rem}section{margin-top:3.5rem}\n"
    "h1{font-size:1.75rem}.verdict{padding-left:1rem}.verdict h2{font-size:1.375rem}\n"
    ".figures{grid-template-columns:1fr 1fr;gap:0 1.25rem}.figures .big{font-size:1.375rem}\n"
    ".odd text{display:none}.band{stroke-width:5}\n"
    ".plot{width:calc(100% - 94px);margin-right:24px;margin-left:70px}.plot .axis[x='-78']{transform:translateX(8px)}\n"
    ".facts,.terms,.incident{grid-template-columns:1fr;gap:0}.facts dd,.terms dd{margin-bottom:.5rem}\n"
    ".record>summary{grid-template-columns:1.1rem 1fr auto}.record>summary .when{grid-column:2/-1}.record>summary .took{display:none}"
    ".record>summary .kind{grid-column:2}.record .body{padding-left:0}\n"
    "}\n";

static const char paper[] =
    "@page{size:A4;margin:17mm 16mm 18mm;@bottom-right{content:counter(page) ' / ' counter(pages);font:8pt sans-serif;color:#56606c}}\n"
    "@media print{\n"
    "html{font-size:12px}body{font-size:9.5pt;line-height:1.45;print-color-adjust:exact;-webkit-print-color-adjust:exact}\n"
    "header,main,footer{max-width:none;padding:0}header{padding-top:0}nav{display:none}\n"
    "section{margin-top:2.25rem}h1{font-size:20pt}h2{font-size:13pt;break-after:avoid}h3,figcaption{break-after:avoid}.verdict h2{font-size:15pt}\n"
    ".lead{break-after:avoid;margin-bottom:.75rem}figure,.figures,.verdict,.nothing,tr,.legend{break-inside:avoid}figure{margin-top:1rem}\n"
    ".data{display:none}\n"
    ".figures{grid-template-columns:repeat(4,1fr)}.figures .big{font-size:14pt}\n"
    ".scroll{overflow:visible}td{white-space:normal}table{font-size:8pt}\n"
    "a{color:inherit;text-decoration:none}\n"
    ".record::details-content{content-visibility:visible;display:block;block-size:auto}\n"
    ".record>summary{grid-template-columns:8.5rem 9rem 9rem 1fr;break-after:avoid}.record>summary::before{display:none}.record .body{padding-left:0}\n"
    ".facts{font-size:8.5pt;grid-template-columns:8.5rem 1fr}.checks{font-size:8.5pt}\n"
    "}\n";

void report_style(struct page *p)
{
	const char *const all[] = { colours, text, verdict, charts, tables, narrow, paper };
	report_raw(p, "<style>\n");
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		report_raw(p, all[i]);
	report_raw(p, "</style>\n");
}
