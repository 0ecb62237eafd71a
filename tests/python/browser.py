"""Looks at pages in a headless Chromium, by its DevTools protocol over pipes."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which("chromium")
# The pipes of --remote-debugging-pipe are the descriptors 3 and 4.
START = 'exec "$0" "$@" 3<&{} 4>&{}'
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # Tests may run as root; the page is ours.
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """One page. `messages` are what its console, and its policy, complained of."""

    def __init__(self, stack):
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        stack.callback(os.close, self._answers)
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True)
        )
        start = ["bash", "-c", START.format(commands, answers), CHROMIUM, *OPTIONS]
        process = subprocess.Popen(
            [*start, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        stack.callback(process.wait)
        stack.callback(process.kill)
        stack.callback(os.close, self._commands)
        self.messages = []
        self._pending = b""
        self._last = 0
        self._session = None
        page = next(
            target["targetId"]
            for target in self._ask("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        )
        attached = self._ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self._ask(f"{domain}.enable")

    def _read(self, deadline):
        while b"\0" not in self._pending:
            left = max(0, deadline - time.monotonic())
            assert select.select([self._answers], [], [], left)[0], "no answer"
            came = os.read(self._answers, 1 << 20)
            assert came, "the browser has ended"
            self._pending += came
        message, self._pending = self._pending.split(b"\0", 1)
        return json.loads(message)

    def _ask(self, method, **parameters):
        self._last += 1
        asked = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._commands, json.dumps(asked).encode() + b"\0")
        deadline = time.monotonic() + 60
        while (message := self._read(deadline)).get("id") != self._last:
            told = message.get("params", {})
            if message["method"] == "Log.entryAdded":
                self.messages.append(told["entry"])
            if message["method"] == "Runtime.exceptionThrown":
                self.messages.append(told["exceptionDetails"])
            if message["method"] == "Runtime.consoleAPICalled":
                self.messages.append(told)
        assert "error" not in message, message
        return message["result"]

    def show(self, url, width=1200, height=900, scheme="light"):
        """Open a page in a window of a size, by day or by night."""
        self.resize(width, height)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", features=features)
        self._ask("Page.navigate", url="about:blank")  # Ends the page before.
        self.messages.clear()
        self._ask("Page.navigate", url=url)

    def resize(self, width, height):
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def value(self, expression):
        """Give the value of an expression in the page."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression):
        """Wait until an expression is true, and give its value."""
        deadline = time.monotonic() + 60
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.1)
        return value

    def press(self, key):
        """Press a key, Enter or a letter, where the focus is."""
        text = "\r" if key == "Enter" else key
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, whole=False):
        """Give the window, or the whole page, as a PNG."""
        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def browser():
    """Start a browser, and end it."""
    with contextlib.ExitStack() as stack:
        yield Browser(stack)
