# SPDX-License-Identifier: Apache-2.0
"""Servers that alerts are sent to: HTTP, HTTPS with a certificate nobody trusts, SMTP, and SMTP that wants a
password. What they get is appended to hook.jsonl, ping.jsonl (GET) and mail.jsonl. The file answer says what HTTP answers, a
server error only once. Prints their ports once they listen.

    alert_servers.py CERTIFICATE KEY
"""
import base64
import http.server
import json
import os
import signal
import socket
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

lock = threading.Lock()


def keep(name, entry):
    with lock, open(name, "a", encoding="utf-8") as f:
        print(json.dumps(entry), file=f)


class Hook(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        keep("ping.jsonl", self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keep("hook.jsonl", {"path": self.path, "type": self.headers["Content-Type"], "body": json.loads(body)})
        code = int(open("answer", encoding="ascii").read()) if os.path.exists("answer") else 204
        if code >= 500:
            os.remove("answer")
        self.send_response(code)
        if code // 100 == 3:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Mail:
    async def handle_DATA(self, server, session, envelope):
        keep("mail.jsonl", {"from": envelope.mail_from, "to": envelope.rcpt_tos, "user": (session.auth_data or b"").decode(),
                            "data": base64.b64encode(envelope.original_content).decode()})
        return "250 kept"


def check(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"ops", b"se:cret")
    return AuthResult(success=good, auth_data=data.login)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
secure = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
secure.socket = context.wrap_socket(secure.socket, server_side=True)
mail = Controller(Mail(), hostname="127.0.0.1", port=free_port())
locked = Controller(Mail(), hostname="127.0.0.1", port=free_port(), authenticator=check, auth_required=True, auth_require_tls=False)
mail.start()
locked.start()
print(serve(plain), serve(secure), mail.port, locked.port, free_port(), flush=True)
signal.pause()
