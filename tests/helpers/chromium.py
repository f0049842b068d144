"""A headless Chromium that tests talk to through its DevTools protocol, over a pipe: no port, no further package."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--remote-debugging-pipe',
)
SECONDS = 60  # the longest wait for an answer


class Page:
    """A tab of the browser.

    Attributes:
        requests: addresses that the tab has asked for.
        complaints: messages of the console that are errors or warnings, exceptions, and entries of the browser's log.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser, self._from_browser = to_browser, from_browser
        self._buffer, self._last_id, self._session = b'', 0, None
        self._events: list[str] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self._session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.send(f'{domain}.enable')

    def send(self, method: str, **parameters: object) -> dict:
        """Send a command and return its result, taking in events meanwhile."""
        self._last_id += 1
        message: dict[str, Any] = {'id': self._last_id, 'method': method, 'params': parameters}
        if self._session is not None:
            message['sessionId'] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b'\0')
        answer = self._wait(lambda message: message.get('id') == self._last_id)
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def open(self, address: str) -> None:
        """Load an address and wait until it is complete; what earlier pages asked for is forgotten."""
        for record in (self._events, self.requests, self.complaints):
            record.clear()
        self.send('Page.navigate', url=address)
        if 'Page.loadEventFired' not in self._events:
            self._wait(lambda message: message.get('method') == 'Page.loadEventFired')
        self.evaluate('document.fonts.ready.then(() => true)')

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, waiting for it if it is a promise."""
        result = self.send('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that a CSS selector finds."""
        x, y = self.evaluate(
            f'(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: "center"}});'
            'const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()'
        )
        for kind in ('mousePressed', 'mouseReleased'):
            self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Show the page in a window of this many pixels."""
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def _wait(self, wanted: Callable[[dict], bool]) -> dict:
        end = time.monotonic() + SECONDS
        while True:
            while b'\0' in self._buffer:
                text, _, self._buffer = self._buffer.partition(b'\0')
                message = json.loads(text)
                self._note(message)
                if wanted(message):
                    return message
            ready = select.select([self._from_browser], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, f'Chromium has not answered within {SECONDS} s'
            block = os.read(self._from_browser, 1 << 20)
            assert block, 'Chromium has ended'
            self._buffer += block

    def _note(self, message: dict) -> None:
        method, content = message.get('method', ''), message.get('params', {})
        self._events.append(method)
        if method == 'Network.requestWillBeSent':
            self.requests.append(content['request']['url'])
        elif method == 'Runtime.consoleAPICalled' and content['type'] in ('error', 'warning', 'assert'):
            self.complaints.append(json.dumps(content['args']))
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(json.dumps(content['exceptionDetails']))
        elif method == 'Log.entryAdded':
            self.complaints.append(content['entry']['text'])


def find_chromium() -> str | None:
    """Return the path of a Chromium or Chrome, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a browser with a new profile folder, and end it with the block; skips the test where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip('no Chromium on this machine: install the package chromium to test the report in a browser')
    to_read, to_browser = os.pipe()
    from_browser, to_write = os.pipe()
    # The browser reads from descriptor 3 and writes to 4, which this process may use for something else.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (to_read, to_write)]

    def place() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [program, *FLAGS, f'--user-data-dir={profile}'],
        preexec_fn=place,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for end in (to_read, to_write, *high):
        os.close(end)
    try:
        yield Page(to_browser, from_browser)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the browser with its helper processes
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
