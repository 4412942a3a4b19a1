/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every word of the report, in both languages: REPORT_WORD(ID, ENGLISH, CHINESE). {1} … {9} are values,
 * escaped where they are put in; <code> is ours and allowed outside charts.
 */
#ifndef IM_VERIFY_REPORT_WORDS_H
#define IM_VERIFY_REPORT_WORDS_H

#define REPORT_WORDS(WORD) \
	/* Head and verdict. */ \
	WORD(TITLE, "Recovery report: {1}", "恢复报告：{1}") \
	WORD(EYEBROW, "Recovery report", "恢复报告") \
	WORD(AS_OF, "As of {1}. All times are UTC.", "截至 {1}。所有时间均为协调世界时（UTC）。") \
	WORD(CONTENTS, "Contents", "目录") \
	WORD(PROVEN, "The recovery targets are proven", "恢复目标已得到证明") \
	WORD(RESERVED, "Proven, with reservations", "已证明，但有保留") \
	WORD(UNPROVEN, "The recovery targets are not proven", "恢复目标尚未得到证明") \
	WORD(LAST_READY, "The last drill, on {1}, had the service ready in {2}; the target is {3}.", \
	    "最近一次演练（{1}）在 {2}后服务就绪，目标是 {3}之内。") \
	WORD(LAST_NO_TARGET, "The last drill, on {1}, had the service ready in {2}.", "最近一次演练（{1}）在 {2}后服务就绪。") \
	WORD(LAST_NOT_READY, "The last drill, on {1}, did not get as far as a working service.", "最近一次演练（{1}）没有做到服务就绪。") \
	WORD(LAST_LOSS_TARGET, "The newest data it brought back was {1} old; the target is {2}.", \
	    "能找回的最新数据是演练开始前 {1}的状态，目标是 {2}之内。") \
	WORD(LAST_LOSS, "The newest data it brought back was {1} old.", "能找回的最新数据是演练开始前 {1}的状态。") \
	WORD(WHY_NO_TARGET, "There is no recovery target to be measured against. Set <code>tier</code> or <code>rto</code> in the configuration and run " \
	    "<code>imvault backup</code>.", \
	    "没有可以对照的恢复目标。请在配置中设置 <code>tier</code> 或 <code>rto</code>，再运行 <code>imvault backup</code>。") \
	WORD(WHY_NO_DRILL, "No recovery was ever rehearsed. Run <code>imvault drill</code>: it restores into scratch and touches nothing in production.", \
	    "从未演练过恢复。请运行 <code>imvault drill</code>：它恢复到临时位置，不碰生产数据。") \
	WORD(WHY_DRILL_FAILED, "The last drill did not bring everything back as it should be. Its checks, under Evidence, say what was wrong.", \
	    "最近一次演练没有把一切正确地找回来。哪里不对，见“证据”一节中它的检查结果。") \
	WORD(WHY_RTO_MISSED, "The last drill took longer than the target of {5}. The phases below show where the time went.", \
	    "最近一次演练超过了允许的 {5}。时间花在哪里，见下面的各阶段用时。") \
	WORD(WHY_RPO_MISSED, "The last drill could not reach data as recent as the target asks for. Is <code>imvault follow</code> running?", \
	    "最近一次演练能找回的数据不如目标要求的新。<code>imvault follow</code> 在运行吗？") \
	WORD(WHY_OVERDUE, "The last drill was {1} ago and counts for {2}. Run <code>imvault drill</code>.", \
	    "最近一次演练在 {1}前，有效期是 {2}。请运行 <code>imvault drill</code>。") \
	WORD(WHY_FORECAST_OVER, "A recovery now is expected to take {3}, longer than the target of {5}.", \
	    "现在恢复预计需要 {3}，超过允许的 {5}。") \
	WORD(WHY_FORECAST_P95, "A recovery now is expected within the target, but one in twenty could take {4}, longer than the target of {5}.", \
	    "现在恢复预计能达到目标，但二十次中可能有一次需要 {4}，超过允许的 {5}。") \
	WORD(WHY_SCOPE, "The last drill restored only a part of the stores. Run <code>imvault drill</code> without <code>--store</code>.", \
	    "最近一次演练只恢复了部分存储。请运行不带 <code>--store</code> 的 <code>imvault drill</code>。") \
	WORD(WHY_REVOKED, "The last drill was signed by a key that has been revoked since. Repeat it with a current restore key.", \
	    "给最近一次演练签名的密钥后来被吊销了。请用有效的恢复密钥再做一次。") \
	WORD(WHY_CHAIN, "Something is wrong with the chain of records or snapshots. What exactly is listed under Evidence; " \
	    "<code>imvault verify</code> says what it harms.", \
	    "记录链或快照链有问题，具体见“证据”一节；它损害了什么，<code>imvault verify</code> 会说明。") \
	\
	/* Key figures. */ \
	WORD(FIGURE_LAST, "Last drill", "最近一次演练") \
	WORD(FIGURE_RTO, "Drills within the target", "达到恢复时间目标的演练") \
	WORD(FIGURE_RPO, "Data loss within the target", "达到数据丢失目标") \
	WORD(FIGURE_FORECAST, "Forecast for now", "现在恢复的预测") \
	WORD(NEVER, "Never", "从未") \
	WORD(AGO, "{1} ago", "{1}前") \
	WORD(DRILLS_ONLY, "no real restore so far", "还没有真实恢复") \
	WORD(AND_RESTORES, "real restores: {1}", "真实恢复：{1}") \
	WORD(TARGET_IS, "target {1}", "目标 {1}") \
	WORD(NO_RPO_SET, "no target is set (<code>rpo</code>)", "没有设置目标（<code>rpo</code>）") \
	WORD(P95_IS, "19 times out of 20 within {1}", "二十次中十九次在 {1}之内") \
	WORD(NO_FORECAST_SHORT, "needs a snapshot", "需要先有快照") \
	\
	/* Sections. */ \
	WORD(SECTION_RECOVERY, "Recovery time", "恢复时间") \
	WORD(LEAD_RECOVERY, "From the start of the command until people could send messages again, and until the last byte was back.", \
	    "从命令开始，到大家能重新发消息；以及到最后一个字节找回来为止。") \
	WORD(SECTION_PHASES, "Where the time goes", "时间花在哪里") \
	WORD(LEAD_PHASES, "The newest drills and restores, step by step.", "最近的演练和恢复，逐步列出。") \
	WORD(SECTION_RPO, "Data loss", "数据丢失") \
	WORD(LEAD_RPO, "How old the newest data was that could be brought back. Only recoveries of the latest state count, not those of a chosen moment in the past.", \
	    "能找回的最新数据有多旧。只计算恢复到最新状态的，不计算有意恢复到过去某一刻的。") \
	WORD(SECTION_FORECAST, "Forecast", "预测") \
	WORD(LEAD_FORECAST, "How long a recovery would take now, and how good such forecasts have been.", "现在恢复要多久，以及以往的预测有多准。") \
	WORD(SECTION_WINDOW, "Recovery window", "恢复窗口") \
	WORD(LEAD_WINDOW, "The moments each store can be brought back to: any instant within a window, and each snapshot.", \
	    "每个存储能恢复到哪些时刻：窗口内的任意一刻，以及每个快照。") \
	WORD(SECTION_GROWTH, "Vault growth", "备份库的增长") \
	WORD(LEAD_GROWTH, "What the protection costs in space.", "这份保护占多少空间。") \
	WORD(SECTION_INCIDENTS, "Incidents", "事故") \
	WORD(LEAD_INCIDENTS, "Real restores, with the time they really took.", "真实的恢复，以及实际用时。") \
	WORD(SECTION_EVIDENCE, "Evidence", "证据") \
	WORD(LEAD_EVIDENCE, "Every recovery record of this node, newest first. Each is signed, names the record before it, and cannot be changed without a trace.", \
	    "本节点的每一条恢复记录，最新的在前。每条都有签名，指明它的前一条，改动必留痕迹。") \
	WORD(SECTION_TERMS, "Terms", "术语") \
	\
	/* Charts: titles, axes, descriptions, legends. No markup here. */ \
	WORD(CHART_RECOVERY, "Recovery time of each drill and restore", "每次演练和恢复的用时") \
	WORD(AXIS_RECOVERY, "time needed", "用时") \
	WORD(LOGARITHMIC, ", logarithmic", "（对数刻度）") \
	WORD(AXIS_DATE, "date (UTC)", "日期（UTC）") \
	WORD(AXIS_SINCE_BEGIN, "since the command began", "自命令开始") \
	WORD(DESC_RECOVERY, "{1} drills and {2} real restores from {3} to {4}. The service was ready after {5} to {6}; the target is {7}.", \
	    "{3} 至 {4} 共 {1} 次演练和 {2} 次真实恢复。服务就绪用时 {5} 到 {6}，目标 {7}。") \
	WORD(CHART_RPO, "Age of the newest data that came back", "找回的最新数据的陈旧程度") \
	WORD(AXIS_RPO, "data loss", "数据丢失") \
	WORD(DESC_RPO, "{1} drills and {2} real restores of the latest state from {3} to {4}. The newest data was {5} to {6} old; the target is {7}.", \
	    "{3} 至 {4} 共 {1} 次演练和 {2} 次真实恢复到最新状态。最新数据的陈旧程度为 {5} 到 {6}，目标 {7}。") \
	WORD(CHART_PHASES_FULL, "Full restores", "完整恢复") \
	WORD(CHART_PHASES_INSTANT, "Instant restores", "即时恢复") \
	WORD(DESC_PHASES, "A bar for each of the {1} newest, divided into phases. The longest took {2}.", "最近 {1} 次各一条，按阶段分段。最长的用了 {2}。") \
	WORD(CHART_FORECAST, "Truth against forecast", "实际与预测之差") \
	WORD(DESC_FORECAST, "{1} records with a forecast. Within 20 per cent: {2}. Not longer than the upper bound: {3}.", \
	    "{1} 条记录有预测。误差在 20% 以内：{2}。没有超过上限：{3}。") \
	WORD(CHART_WINDOW, "What can be restored, store by store", "各存储可恢复的时刻") \
	WORD(DESC_WINDOW, "{1} stores, {2} snapshots, {3} recovery windows, {4} gaps.", "{1} 个存储，{2} 个快照，{3} 个恢复窗口，{4} 个缺口。") \
	WORD(CHART_SIZES, "What is protected, and what its snapshots take", "受保护的数据量，与快照占用的空间") \
	WORD(AXIS_SIZE, "size", "大小") \
	WORD(DESC_SIZES, "From {3} to {4}. Protected now: {1}. Stored for all snapshots: {2}.", "{3} 至 {4}。现在受保护的：{1}。所有快照共存储：{2}。") \
	WORD(CHART_CHANGES, "What changed, and what of it was stored", "发生的变化，与其中存储的部分") \
	WORD(AXIS_CHANGES, "size", "大小") \
	WORD(DESC_CHANGES, "Changed in all: {1}. Stored, after deduplication and compression: {2}.", "变化合计：{1}。去重压缩后存储：{2}。") \
	WORD(LEGEND_DRILL, "drill, service ready", "演练，服务就绪") \
	WORD(LEGEND_RESTORE, "real restore, service ready", "真实恢复，服务就绪") \
	WORD(LEGEND_COMPLETE, "data complete (if later)", "数据完整（若更晚）") \
	WORD(LEGEND_LATE, "target missed or not all right", "未达目标或结果有误") \
	WORD(LEGEND_FAILED, "no working service", "服务没有起来") \
	WORD(LEGEND_READY, "service ready", "服务就绪") \
	WORD(LEGEND_BAND, "forecast: median to upper bound", "预测：中位数到上限") \
	WORD(LEGEND_WITHIN, "within 20 % of the median", "与中位数相差 20% 以内") \
	WORD(AXIS_DEVIATION, "longer (+) or shorter (−) than forecast", "比预测长（+）或短（−）") \
	WORD(LEGEND_TRUTH_DRILL, "drill", "演练") \
	WORD(LEGEND_TRUTH_RESTORE, "real restore", "真实恢复") \
	WORD(LEGEND_OVER_P95, "longer than the upper bound", "超过上限") \
	WORD(LEGEND_WINDOW, "any instant", "任意一刻") \
	WORD(LEGEND_SNAPSHOT, "snapshot", "快照") \
	WORD(LEGEND_GAP, "gap between windows", "窗口之间的缺口") \
	WORD(LEGEND_HOLE, "damage within a window", "窗口内的损坏") \
	WORD(LEGEND_PROTECTED, "protected data", "受保护的数据") \
	WORD(LEGEND_STORED_SUM, "stored for all snapshots", "所有快照占用的空间") \
	WORD(LEGEND_CHANGED, "changed", "变化") \
	WORD(LEGEND_STORED, "stored", "存储") \
	WORD(LEVEL_TARGET, "target {1}", "目标 {1}") \
	WORD(TIP_FORECAST, "{1}: took {2}; forecast {3}, at most {4}", "{1}：实际 {2}；预测 {3}，上限 {4}") \
	WORD(TIP_GAP, "gap: {1} to {2}", "缺口：{1} 至 {2}") \
	WORD(TIP_WINDOW, "any instant: {1} to {2}", "任意一刻：{1} 至 {2}") \
	WORD(TIP_HOLE, "damaged: {1} to {2}", "损坏：{1} 至 {2}") \
	WORD(TIP_BIN, "from {1}: {2} changed, {3} stored", "{1} 起：变化 {2}，存储 {3}") \
	WORD(N_SNAPSHOTS, "{1} snapshots", "{1} 个快照") \
	WORD(DATA_TABLE, "The figures as a table", "数据表") \
	WORD(DATA_WINDOWS, "Windows and gaps as a table", "窗口与缺口的数据表") \
	WORD(DATA_SNAPSHOTS, "Snapshots as a table", "快照的数据表") \
	\
	/* Columns. */ \
	WORD(COLUMN_WHEN, "When", "时间") \
	WORD(COLUMN_KIND, "Kind", "类别") \
	WORD(COLUMN_SCENARIO, "Scenario", "方式") \
	WORD(COLUMN_READY, "Service ready", "服务就绪") \
	WORD(COLUMN_COMPLETE, "Data complete", "数据完整") \
	WORD(COLUMN_RTO, "Target", "目标") \
	WORD(COLUMN_RESULT, "Result", "结果") \
	WORD(COLUMN_REACHED, "Brought back to", "恢复到") \
	WORD(COLUMN_LOST, "Data loss", "数据丢失") \
	WORD(COLUMN_RPO, "Target", "目标") \
	WORD(COLUMN_MET, "Met", "达到") \
	WORD(COLUMN_READY_P50, "Ready, median", "就绪，中位数") \
	WORD(COLUMN_READY_P95, "Ready, upper bound", "就绪，上限") \
	WORD(COLUMN_COMPLETE_P50, "Complete, median", "完整，中位数") \
	WORD(COLUMN_COMPLETE_P95, "Complete, upper bound", "完整，上限") \
	WORD(COLUMN_AGAINST, "Target", "目标") \
	WORD(COLUMN_P50, "Forecast", "预测") \
	WORD(COLUMN_P95, "Upper bound", "上限") \
	WORD(COLUMN_TRUTH, "Truth", "实际") \
	WORD(COLUMN_ERROR, "Error", "误差") \
	WORD(COLUMN_STORE, "Store", "存储") \
	WORD(COLUMN_FROM, "From", "从") \
	WORD(COLUMN_TO, "To", "到") \
	WORD(COLUMN_POINTS, "Points", "恢复点") \
	WORD(COLUMN_LOG_BYTES, "Log", "日志") \
	WORD(COLUMN_GAP, "Before it", "此前") \
	WORD(COLUMN_SNAPSHOTS, "Snapshots", "快照数") \
	WORD(COLUMN_FIRST, "First", "最早") \
	WORD(COLUMN_NEWEST, "Newest", "最新") \
	WORD(COLUMN_SNAPSHOT, "Snapshot", "快照") \
	WORD(COLUMN_PROTECTED, "Protected", "受保护") \
	WORD(COLUMN_CHANGED, "Changed", "变化") \
	WORD(COLUMN_STORED, "Stored", "存储") \
	WORD(COLUMN_STORED_SUM, "Stored so far", "累计存储") \
	WORD(COLUMN_OBJECTS_KIND, "Kind", "类别") \
	WORD(COLUMN_OBJECTS, "Objects", "对象数") \
	WORD(COLUMN_SIZE, "Size", "大小") \
	WORD(COLUMN_TYPE, "Type", "类型") \
	WORD(COLUMN_STATUS, "Status", "状态") \
	WORD(COLUMN_FILES, "Files", "文件数") \
	\
	/* Values. */ \
	WORD(DRILL, "Drill", "演练") \
	WORD(RESTORE, "Real restore", "真实恢复") \
	WORD(PASSED, "passed", "通过") \
	WORD(MISSED, "target missed", "未达目标") \
	WORD(DIFFERENT, "different", "有差异") \
	WORD(DAMAGED, "damaged", "有损坏") \
	WORD(PARTIAL, "in part", "部分恢复") \
	WORD(FAILED, "failed", "失败") \
	WORD(INTERRUPTED, "interrupted", "中断") \
	WORD(FULL, "full", "完整恢复") \
	WORD(INSTANT, "instant", "即时恢复") \
	WORD(MODE_ORDINARY, "everything before the service starts", "全部恢复后再启动服务") \
	WORD(MODE_BLOCKS, "block by block as needed", "按需逐块取回") \
	WORD(MODE_FILES, "file by file as needed", "按需逐个文件取回") \
	WORD(MODE_FUSE, "through FUSE", "通过 FUSE") \
	WORD(CHOSEN_LATEST, "the latest", "最新的") \
	WORD(CHOSEN_RANDOM, "chosen at random", "随机选择") \
	WORD(CHOSEN_ASKED, "asked for", "指定的") \
	WORD(SERVICE_STARTED, "was started on the restored data and answered", "已在恢复的数据上启动并有应答") \
	WORD(SERVICE_FAILED, "did not start", "没有启动成功") \
	WORD(SERVICE_NONE, "none was started; ready means that it could have been", "没有启动；就绪是指已经可以启动") \
	WORD(STATUS_OK, "restored", "已恢复") \
	WORD(STATUS_OLDER, "from an older snapshot", "来自较旧的快照") \
	WORD(PHASE_OPEN, "open the vault", "打开备份库") \
	WORD(PHASE_PLAN, "plan", "规划") \
	WORD(PHASE_PREPARE, "prepare", "准备") \
	WORD(PHASE_FETCH, "fetch and write", "取回并写入") \
	WORD(PHASE_READ, "of it read", "其中读取") \
	WORD(PHASE_DECODE, "of it decode", "其中解码") \
	WORD(PHASE_WRITE, "of it write", "其中写入") \
	WORD(PHASE_REPLAY, "replay the log", "重放日志") \
	WORD(PHASE_FINISH, "names and owners", "名称与属主") \
	WORD(PHASE_SYNC, "make durable", "落盘") \
	WORD(PHASE_CHECK, "check", "检查") \
	WORD(PHASE_START, "start the service", "启动服务") \
	WORD(PHASE_HYDRATE, "the rest, in the background", "其余部分（后台）") \
	WORD(PHASE_OTHER, "other", "其他") \
	WORD(OF_THREADS, " (summed over threads)", "（各线程合计）") \
	WORD(YES, "yes", "是") \
	WORD(NO, "no", "否") \
	WORD(NO_TARGET_SET, "no target", "无目标") \
	WORD(WITHIN, "within", "达到") \
	WORD(P95_OVER, "upper bound over it", "上限超出") \
	WORD(OVER, "over it", "超出") \
	WORD(COMMA, ", ", "，") \
	WORD(SPACE, " ", "") \
	WORD(COLON, ": ", "：") \
	WORD(UNIT_S, "s", "秒") \
	WORD(UNIT_MIN, "min", "分钟") \
	WORD(UNIT_H, "h", "小时") \
	WORD(UNIT_D, "d", "天") \
	\
	/* Sentences. */ \
	WORD(FORECAST_SIZES, "To be written: {1}. To be read: {2} from {3} packs, and {4} of log. Processors here: {5}.", \
	    "需写入 {1}；需从 {3} 个数据包读取 {2}，另有日志 {4}。本机处理器数：{5}。") \
	WORD(ACCURACY, "Of past forecasts, {1} were within 20 % of the truth, and {2} recoveries took no longer than the upper bound.", \
	    "以往的预测：误差在 20% 以内的 {1}，没有超过上限的 {2}。") \
	WORD(ACCURACY_ERROR, "Their median error is {1} %, learned from {2} records.", "误差中位数 {1}%，学自 {2} 条记录。") \
	WORD(GAP_FROM_TO, "Gap from {1} to {2}:", "缺口，{1} 至 {2}：") \
	WORD(GAP_CLOSED, "Nothing is missing before it.", "此前没有缺失。") \
	WORD(GAP_FIRST, "The log begins here.", "日志从这里开始。") \
	WORD(HOLE_FROM_TO, "Damaged from {1} to {2}.", "{1} 至 {2} 损坏。") \
	WORD(GROWTH_SUMS, "As complete copies, the {1} snapshots would take {2}; in the vault they take {3}, {4} times less. Of {5} that changed, {6} % had to be stored.", \
	    "{1} 个快照若都是完整副本，合计 {2}；在备份库中实际占用 {3}，是其 {4} 分之一。变化的 {5} 中，需要存储的占 {6}%。") \
	WORD(KINDS_TITLE, "The whole vault, by kind of object", "整个备份库，按对象类别") \
	WORD(KIND_PACKS, "Content", "内容") \
	WORD(KIND_INDEX, "Index", "索引") \
	WORD(KIND_SNAPSHOTS, "Snapshot records", "快照记录") \
	WORD(KIND_LOGS, "Logs", "日志") \
	WORD(KIND_DRILLS, "Recovery records", "恢复记录") \
	WORD(KIND_TRACES, "Start traces", "启动轨迹") \
	WORD(KIND_RUNS, "Run records", "运行记录") \
	WORD(KIND_KEYS, "Keyrings", "密钥环") \
	WORD(KIND_OTHER, "Other", "其他") \
	WORD(NO_REASON, "No cause was given.", "没有填写原因。") \
	WORD(INCIDENT_TO, "brought back to {1}, by {2}", "恢复到 {1}，操作者 {2}") \
	\
	/* Where there is nothing yet. */ \
	WORD(NO_RECORDS, "No drill or restore has been recorded yet.", "还没有演练或恢复的记录。") \
	WORD(DO_DRILL, "Rehearse one; it leaves a record here:", "演练一次，记录就会出现在这里：") \
	WORD(NO_LATEST, "No recovery of the latest state has been recorded yet.", "还没有恢复到最新状态的记录。") \
	WORD(DO_DRILL_LATEST, "Rehearse one:", "演练一次：") \
	WORD(NO_SNAPSHOTS, "There is no snapshot yet.", "还没有快照。") \
	WORD(DO_BACKUP, "Take one:", "建立一个：") \
	WORD(NO_LOG, "There is no log: between snapshots nothing can be brought back.", "没有日志：两个快照之间的内容无法找回。") \
	WORD(DO_FOLLOW, "Ship it as a service:", "把它作为服务运行：") \
	WORD(NO_FORECAST, "Without a snapshot there is nothing to forecast.", "没有快照就无从预测。") \
	WORD(NO_FORECASTS_YET, "No forecast could be compared with a recovery yet.", "还没有预测可以与实际恢复对照。") \
	WORD(NO_INCIDENTS, "No real restore has been recorded.", "没有真实恢复的记录。") \
	WORD(DO_REASON, "Each restore leaves its record by itself. Say why it was needed:", "每次恢复都会自动留下记录。请说明原因：") \
	\
	/* Evidence. */ \
	WORD(CHAIN_WHOLE, "{1} recovery records and {2} snapshots: every signature is valid and none is missing from the chains.", \
	    "{1} 条恢复记录和 {2} 个快照：签名全部有效，链上没有缺失。") \
	WORD(CHAIN_FINDINGS, "{1} findings in the chains of records and snapshots:", "记录链和快照链有 {1} 处问题：") \
	WORD(HOW_TO_CHECK, "To check a record yourself, take its object out of the vault: <code>b2sum -l 256 OBJECT</code> must print its hash, and the next record " \
	    "names that hash as the one before it. Signatures are Ed25519 by a restore key of this vault; FORMAT.md of imvault describes each byte. The newest records " \
	    "could be removed without a trace in the vault: keep this page elsewhere.", \
	    "要自己核对一条记录，请从备份库取出它的对象：<code>b2sum -l 256 对象文件</code> 的输出必须等于它的哈希，而下一条记录会写明这个哈希是它的前一条。" \
	    "签名是本备份库恢复密钥的 Ed25519 签名，每个字节的含义见 imvault 的 FORMAT.md。最新的几条记录若被删除，在备份库里不留痕迹：请把本页另存一份。") \
	WORD(NOT_PRIVATE, "This page was written with a key that may not read what the checks found. With the restore key it is here as well.", \
	    "写这一页所用的密钥无权读取检查的结果。用恢复密钥生成，这里就会有。") \
	WORD(CHECKS, "Checks", "检查") \
	WORD(CHECKS_PRIVATE, "Not readable with the key this page was written with; the restore key shows them.", "写这一页所用的密钥读不了；用恢复密钥可以看到。") \
	WORD(CHECKS_NONE, "None was recorded.", "没有记录。") \
	WORD(CHECKS_MORE, "and {1} more, all in the record", "另有 {1} 项，都在记录里") \
	WORD(CHECK_OK, "passed:", "通过：") \
	WORD(CHECK_FAILED, "FAILED:", "失败：") \
	WORD(FACT_BEGAN, "Began", "开始") \
	WORD(FACT_REASON, "Cause", "原因") \
	WORD(FACT_SNAPSHOT, "Snapshot", "快照") \
	WORD(FACT_AT, "Asked for", "要求") \
	WORD(FACT_REACHED, "Brought back to", "恢复到") \
	WORD(FACT_SCENARIO, "Scenario", "方式") \
	WORD(FACT_SERVICE, "Service", "服务") \
	WORD(FACT_RESULT, "Result", "结果") \
	WORD(RESULT_DETAIL, "exit code {1}, {2} differences", "退出码 {1}，{2} 处差异") \
	WORD(FACT_RECOVERY, "Recovery time", "恢复时间") \
	WORD(RECOVERY_MET, "service ready {1}, data complete {2}; target {3}: met", "服务就绪 {1}，数据完整 {2}；目标 {3}：达到") \
	WORD(RECOVERY_MISSED, "service ready {1}, data complete {2}; target {3}: missed", "服务就绪 {1}，数据完整 {2}；目标 {3}：未达到") \
	WORD(RECOVERY_NO_TARGET, "service ready {1}, data complete {2}; no target", "服务就绪 {1}，数据完整 {2}；没有目标") \
	WORD(FACT_LOSS, "Data loss", "数据丢失") \
	WORD(LOSS_MET, "the newest data was {1} old; target {2}: met", "最新数据陈旧 {1}；目标 {2}：达到") \
	WORD(LOSS_MISSED, "the newest data was {1} old; target {2}: missed", "最新数据陈旧 {1}；目标 {2}：未达到") \
	WORD(LOSS_CHOSEN, "none to speak of: a moment {1} before it began was chosen", "不适用：选择了开始前 {1}的一刻") \
	WORD(LOSS_NO_TARGET, "the newest data was {1} old; no target", "最新数据陈旧 {1}；没有目标") \
	WORD(FACT_FORECAST, "Forecast before", "事前预测") \
	WORD(FORECAST_BEFORE, "service ready in {1}, at most {2}", "服务就绪 {1}，上限 {2}") \
	WORD(FACT_PHASES, "Phases", "各阶段") \
	WORD(FACT_HOST, "Host", "主机") \
	WORD(FACT_CPUS, "Processors", "处理器") \
	WORD(FACT_LIMITS, "Held back to", "限制为") \
	WORD(LIMITS, "processors: {1}; nice: {2}", "处理器 {1} 个，nice 值 {2}") \
	WORD(FACT_OPERATOR, "Operator", "操作者") \
	WORD(FACT_VERSION, "Version", "版本") \
	WORD(FACT_SIGNED, "Signature", "签名") \
	WORD(SIGNED_ACTIVE, "valid, by {1} ({2})", "有效，密钥 {1}（{2}）") \
	WORD(SIGNED_REVOKED, "valid, by {1} ({2}), which has been revoked since", "有效，密钥 {1}（{2}），该密钥后来被吊销") \
	WORD(FACT_OBJECT, "Object", "对象") \
	WORD(FACT_HASH, "Hash (BLAKE2b-256)", "哈希（BLAKE2b-256）") \
	WORD(FACT_PREV, "Record before", "前一条记录") \
	WORD(FIRST_RECORD, "none, this is the first", "没有，这是第一条") \
	WORD(FACT_VAULT, "Vault", "备份库") \
	WORD(FACT_AUTHORITY, "Authority (Ed25519)", "根公钥（Ed25519）") \
	\
	/* Glossary. */ \
	WORD(TERM_RTO, "Recovery time (RTO)", "恢复时间（RTO）") \
	WORD(MEANS_RTO, "How long the service may be away: from the start of the recovery until it works again.", "服务可以中断多久：从恢复开始到服务重新可用。") \
	WORD(TERM_RPO, "Data loss (RPO)", "数据丢失（RPO）") \
	WORD(MEANS_RPO, "How old the newest data may be that is brought back.", "找回的最新数据可以有多旧。") \
	WORD(TERM_DRILL, "Drill", "演练") \
	WORD(MEANS_DRILL, "A recovery by the same program as in an emergency, into a scratch folder, with every store checked afterwards.", \
	    "用与紧急情况相同的程序恢复到临时文件夹，之后检查每一个存储。") \
	WORD(TERM_READY, "Service ready, data complete", "服务就绪、数据完整") \
	WORD(MEANS_READY, "Ready: the service answers or, where none is started, could be started. Complete: the last byte is back and checked.", \
	    "就绪：服务有应答；没有启动服务时，是指已经可以启动。完整：最后一个字节已找回并检查。") \
	WORD(TERM_SCENARIO, "Full, instant", "完整恢复、即时恢复") \
	WORD(MEANS_SCENARIO, "Full: everything is back before the service starts. Instant: the service starts at once and what it needs comes first.", \
	    "完整恢复：全部找回之后再启动服务。即时恢复：服务立刻启动，它需要的先取来。") \
	WORD(TERM_P95, "Median, upper bound (p95)", "中位数、上限（p95）") \
	WORD(MEANS_P95, "Half of all recoveries are expected to take no longer than the median, 19 of 20 no longer than the upper bound.", \
	    "预计一半的恢复不超过中位数，二十次中有十九次不超过上限。") \
	WORD(FOOTER, "Made by imvault {1} at {2} from the vault alone.", "由 imvault {1} 于 {2} 生成，数据全部来自备份库。")

enum report_words {
#define REPORT_WORD(id, en, zh) W_##id,
	REPORT_WORDS(REPORT_WORD)
#undef REPORT_WORD
	W_COUNT,
	W_END = W_COUNT
};

#endif
