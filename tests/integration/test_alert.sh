#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Alerts as operators get them: from real HTTP and SMTP servers and a command, once, again after `repeat`, and
# once when it is over; whatever hostile names hold, and without ever changing how a run ends.
#
#   $IMVAULT   the program
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
here=$(realpath -e "$(dirname "$0")")
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
/usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null || {
	echo "SKIPPED: python3-aiosmtpd is not installed (scripts/deps test)"
	exit 77
}
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-alert.XXXXXX")
export work HOME=$work/home
unset XDG_STATE_HOME NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID http_proxy https_proxy all_proxy
cd "$work" || exit 1
servers='' follower='' server=''
clean_up() {
	local pid
	for pid in $follower $servers $server; do
		kill -9 "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	rm -rf "$work"
}
trap clean_up EXIT

# heard WAY: how many; last WAY PYTHON-EXPRESSION over x, the last one
heard() { if [ -e "$1.jsonl" ]; then wc -l <"$1.jsonl"; else echo 0; fi; }
last() { tail -n 1 "$1.jsonl" | /usr/bin/python3 -c "
import base64, email, email.policy, json, sys
x = json.loads(sys.stdin.read())
m = email.message_from_bytes(base64.b64decode(x['data']), policy=email.policy.default) if 'data' in x else None
b = x.get('body')
print($2)" 2>&1; }
# Every alert goes each way, or none.
told() {
	is "$1" "$(heard hook)" "alerts by webhook: $2"
	is "$1" "$(heard mail)" "alerts by mail: $2"
	is "$1" "$(heard command)" "alerts by command: $2"
}
silence() { rm -f hook.jsonl mail.jsonl command.jsonl; }
about() { last hook "b['kind'], b['severity'], b.get('store')" | tr -d "(),'"; }
away() { mv vault vault.away; }
back() { mv vault.away vault; }

# --- the world ---

mkdir home files
echo hello >files/a
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.crt -days 2 -subj /CN=127.0.0.1 \
	-addext subjectAltName=IP:127.0.0.1 >/dev/null 2>&1
/usr/bin/python3 "$here/alert_servers.py" tls.crt tls.key >ports 2>log &
servers=$!
until_ok test -s ports
read -r http https smtp smtp_auth nobody <ports
"$imvault" init --vault vault --restore-key restore.key --node-key node.key --node im-01 >/dev/null 2>&1 </dev/null
# conf REPEAT [WAYS]: the ways are all three unless given
conf() {
	cat >conf <<-END
		[node]
		name = im-01
		rpo = 1h
		state = $work/state
		[vault]
		url = $work/vault
		key = $work/node.key
		[store plain]
		type = files
		path = $work/files
		[alert]
		repeat = $1
		${2:-$ways}
	END
}
ways="webhook = http://127.0.0.1:$http/hook/s3cr3t
mail = ops@example.org, night@example.org
smtp = smtp://127.0.0.1:$smtp
from = imvault@im-01.example.org
command = tr -d '\n' >>command.jsonl; echo >>command.jsonl; env | grep ^IMVAULT_ALERT_ >env"

# --- the ways ---

conf 1h
run 0 -c conf alert --test
told 1 "a test"
is "test warning None" "$(about)" "the test"
is "/hook/s3cr3t application/json" "$(last hook "x['path'], x['type']" | tr -d "(),'")" "where it was posted"
is "im-01 im-01" "$(last hook "b['node']") $(sed -n 's/^IMVAULT_ALERT_NODE=//p' env)" "the node"
is "imvault@im-01.example.org ops@example.org night@example.org" "$(last mail "' '.join([x['from']] + x['to'])")" "the envelope"
is True "$(last mail "all(m[h] for h in ('Date', 'Message-ID', 'From', 'To', 'Subject', 'MIME-Version')) and m['Date'].datetime.tzinfo is not None")" "the headers"
is "[im-01] WARNING: this is a test of imvault's alerts; all is well" "$(last mail "m['Subject']")" "the subject"
is True "$(last mail "'imvault -c conf alert' in m.get_content() and max(map(len, base64.b64decode(x['data']).splitlines())) < 79")" "the mail's text"
is "" "$(grep -l s3cr3t out err state/* 2>/dev/null)" "places that show the webhook's secret"
run 0 -c conf alert --json
is "127.0.0.1 3600000" "$(json "j['ways'][1]['target'], j['repeat_ms']" | tr -d "(),'")" "the ways"
conf 1h "webhook = https://127.0.0.1:$https/"
run 3 -c conf alert --test
says "certificate"
is 1 "$(heard hook)" "posts to a server with a certificate nobody trusts"
conf 1h "webhook = http://127.0.0.1:$http/"
echo 307 >answer
run 3 -c conf alert --test
says "no redirection is followed"
is "2 /" "$(heard hook) $(last hook "x['path']")" "a redirection"
echo 503 >answer
silence
run 0 -c conf alert --test --json
is "True 2" "$(json "j['ways'][0]['delivered']") $(heard hook)" "posts to a server that is busy for a moment"
login="mail = ops@example.org
smtp = smtp://127.0.0.1:$smtp_auth
from = imvault@example.org"
echo ops:se:cret >password
chmod 644 password
conf 1h "$login
credentials = $work/password"
run 3 -c conf alert --test
says "chmod 600"
chmod 600 password
run 0 -c conf alert --test
is "1 ops" "$(heard mail) $(last mail "x['user']")" "mail with a password"
is "" "$(grep -l "se:cret" out err)" "places that show the password"
conf 1h "webhook = ftp://127.0.0.1/"
run 2 -c conf alert --test
sed -i '/^\[alert\]/,$d' conf
run 2 -c conf alert --test
says "has no section [alert]"

# --- once, again, over ---

silence
conf 1h
run 0 -c conf backup
told 0 "a good backup"
away
run 4 -c conf backup
told 1 "the vault is away"
is "vault critical None" "$(about)" "the vault away"
is "4 backup" "$(last hook "b['exit_code'], b['command']" | tr -d "(),'")" "what the run ended with"
is "$(last hook "b['text']")" "$(sed -n 's/^IMVAULT_ALERT_TEXT=//p' env)" "the text"
run 4 -c conf backup
run 4 -c conf status
told 1 "the vault is still away"
run 0 -c conf alert --json
is "vault critical" "$(json "j['open'][0]['kind'], j['open'][0]['severity']" | tr -d "(),'")" "what is open"
back
run 0 -c conf backup
told 2 "the vault is back"
is "vault resolved None" "$(about)" "the vault back"
is "[im-01] RESOLVED: it is over" "$(last mail "m['Subject'][:28]")" "the subject of the end"
run 0 -c conf backup
run 0 -c conf status
told 2 "all is well"
conf 1s
silence
away
run 4 -c conf backup
sleep 1.1
run 4 -c conf backup
told 2 "after repeat"
back
run 0 -c conf status # and that the last backup failed
told 4 "over, as status sees it"
run 0 -c conf backup
run 0 -c conf status
told 5 "the last backup is good again"

# Two at once say it once.
conf 1h
silence
away
"$imvault" -c conf status >/dev/null 2>&1 </dev/null &
run 4 -c conf backup
wait $!
told 1 "two at once"
back
run 0 -c conf backup

# --- hostile texts ---

silence
run 2 -c conf backup --node $'x\r\nBcc: evil@example.org'
told 0 "a node's name that is none"
hostile=$'/nowhere/\r\nBcc: evil@example.org\r\n\r\n"},{"kind":"$(touch pwned)`touch pwned`;touch pwned\e[31m'"'ß漢"
printf '[store evil]\ntype = files\npath = %s\n' "${hostile//$'\n'/$'\v'}" >>conf
run 3 -c conf backup
told 1 "a hostile path"
is "backup critical evil" "$(about)" "a store that failed"
is False "$(last hook "any(ord(c) < 32 for c in b['text'])")" "control characters in the text"
is True "$(last hook "'Bcc: evil' in b['text'] and '漢' in b['text']")" "the text"
is "None 9" "$(last mail "m['Bcc'], len(m.keys())" | tr -d "(),")" "headers"
is True "$(last mail "m['Subject'].startswith('[im-01] CRITICAL: store evil:') and 'Bcc: evil' in m['Subject']")" "an encoded subject"
is True "$(last mail "all(l.isascii() for l in base64.b64decode(x['data']).splitlines()) and '漢' in m.get_content()")" "encodings"
is "" "$(ls pwned 2>/dev/null)" "commands that were run"

# One store after the other.
printf '[store other]\ntype = files\npath = %s\n' "$work/other" >>conf
run 3 -c conf backup
told 2 "another store fails"
is "backup critical other" "$(about)" "the other store"
mkdir other
run 0 -c conf backup other
told 3 "the other store is back"
is "backup resolved other" "$(about)" "the other store's end"

# --- ways that fail ---

conf 1h
run 0 -c conf backup
is "backup resolved evil" "$(about)" "a store that is no longer configured"
silence
conf 1h "${ways/127.0.0.1:$http/127.0.0.1:$nobody}"
away
run 4 -c conf --quiet backup
is "0 1 1" "$(heard hook) $(heard mail) $(heard command)" "alerts when the webhook is dead"
is 1 "$(grep -c "alert could not be sent by webhook" err)" "lines about the webhook"
back
silence
conf 1h "command = cat >/dev/null; echo no such pager >&2; exit 3"
run 0 -c conf backup
says 'ended with status 3: no such pager'
conf 1h
run 0 -c conf backup
told 1 "what nobody had heard is said again"
is "vault resolved None" "$(about)" "what nobody had heard"

# --- each kind of end ---

silence
lock=$(find state -name '*.lock' ! -name '*alerts*' | head -1)
exec 9<>"$lock"
flock 9
run 9 -c conf backup
run 9 -c conf backup
told 0 "another run holds the lock"
run 9 -c conf backup
told 1 "another run still holds the lock"
is "locked warning None" "$(about)" "the lock"
exec 9>&-
run 0 -c conf backup
is "locked resolved None" "$(about)" "the lock's end"

silence
pack=$(find vault/packs -type f | head -1)
cp "$pack" pack
chmod u+w "$pack"
printf X | dd of="$pack" bs=1 seek=100 conv=notrunc 2>/dev/null
run 6 -c conf verify --read
told 1 "damage"
is "damage critical None" "$(about)" "damage"
cat pack >"$pack"
run 0 -c conf verify
told 1 "a plain verify does not settle what reading found"
run 0 -c conf verify --read
told 2 "reading settles it"

silence
key=(--key restore.key)
run 10 -c conf "${key[@]}" restore --to out.d --rto 1ms
told 1 "a restore that missed its target"
is "restore critical None" "$(about)" "the target missed"
is True "$(last hook "b['details']['rto_ms'] == 1 and b['details']['rto_met'] is False")" "the details"
run 0 -c conf "${key[@]}" restore --to out.e --dry-run
run 2 -c conf "${key[@]}" restore --to out.f --instant=never
told 1 "a plan, a slip"
run 0 -c conf "${key[@]}" restore --to out.g
is "restore resolved None" "$(about)" "a restore that met its target"

silence
sed -i 's/rpo = 1h/rpo = 1ms/' conf
run 3 -c conf --quiet status
told 1 "status is not green"
is "status critical None" "$(about)" "a snapshot that is too old"
sleep 0.1
run 3 -c conf --quiet status
told 1 "status is not green for the same reason"
sed -i 's/rpo = 1ms/rpo = 1h/' conf
run 0 -c conf --quiet status
is "status resolved None" "$(about)" "status is green"

silence
sed -i "s|^path = .*|&\npre = touch pre.runs; sleep 20|" conf
"$imvault" -c conf backup >/dev/null 2>&1 </dev/null &
until_ok test -e pre.runs
kill -TERM $!
wait $!
is 143 $? "exit after SIGTERM"
told 0 "the operator ended it"

# --- dead man's switches ---

conf 1h "ping_backup = http://127.0.0.1:$http/ping/backup"
run 0 -c conf backup
run 0 -c conf status
away
run 4 -c conf backup
back
is '"/ping/backup/start" "/ping/backup" "/ping/backup/start" "/ping/backup/fail"' "$(paste -sd ' ' ping.jsonl)" "what the switch was told"
conf 1h "ping_backup = http://127.0.0.1:$nobody/ping/backup"
run 0 -c conf backup
says "dead man's switch of backup could not be told"

# --- the follower ---

add_row "$work/chat.sqlite" 0
keep_open "$work/chat.sqlite"
conf 1s
sed -i "s|rpo = 1h|rpo = 1s|; s|type = files|type = sqlite|; s|path = .*|path = $work/chat.sqlite|" conf
printf '[follow]\nflush = 100ms\nheartbeat = 1s\n' >>conf
"$imvault" -c conf follow </dev/null >>log 2>&1 &
follower=$!
until_ok "$imvault" -c conf --quiet status
silence
away
add_row "$work/chat.sqlite" 1
until_ok test -s hook.jsonl
is "log critical plain" "$(about)" "the log falls behind"
back
until_ok grep -q resolved hook.jsonl
is "log resolved plain" "$(about)" "the log has caught up"
kill -TERM "$follower"
wait "$follower"
is 0 $? "exit after SIGTERM"
follower=''

if [ $failed != 0 ]; then
	echo "$failed of $count checks failed"
	exit 1
fi
echo "$count checks passed"
