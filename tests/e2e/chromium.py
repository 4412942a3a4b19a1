# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium by its pipe: one page, what its console said, its size, its paper.

No port is opened and nothing is fetched: the pages are files of this test.
"""
import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from prosody import skip


class Chromium:
    def __init__(self, program, profile):
        commands, self.write = os.pipe()
        self.read, answers = os.pipe()

        def as_3_and_4():
            first, second = os.dup(commands), os.dup(answers)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=as_3_and_4, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.buffer, self.number, self.complaints, self.loaded = b"", 0, [], 0
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self.call(domain + ".enable")

    def message(self, end):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, end - time.monotonic()))
            data = os.read(self.read, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("chromium says nothing")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        name = message.get("method", "")
        if name in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(message["params"])[:600])
        self.loaded += name == "Page.loadEventFired"
        return message

    def call(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            message = self.message(end)
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def open(self, path, width, theme="light", media=""):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
                  mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": theme}])
        before = self.loaded
        self.call("Page.navigate", url=f"file://{path}")
        end = time.monotonic() + 60
        while self.loaded == before:
            self.message(end)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def close(self):
        os.close(self.write)
        self.process.terminate()
        self.process.wait()
        os.close(self.read)


@contextlib.contextmanager
def chromium():
    program = shutil.which("chromium")
    if not program:
        skip("there is no chromium")
    profile = tempfile.mkdtemp(prefix="imvault-chromium-")
    browser = Chromium(program, profile)
    try:
        yield browser
    finally:
        browser.close()
        for _ in range(50):  # its helpers write for a moment after it has ended
            shutil.rmtree(profile, ignore_errors=True)
            time.sleep(0.1)
            if not os.path.exists(profile):
                break
