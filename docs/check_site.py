"""Check a built site: links, pictures and anchors; in a browser also width, errors and formulas.

``python docs/check_site.py docs/_build/html`` reads the pages. Where Chromium is installed it opens
each of them, too, as on a phone, and finds what only shows there: text cut at the right edge,
errors of scripts, formulas that stay source, headings hidden under the bar after a jump, and
anything loaded from another machine. It prints what it finds and exits with 1 if there is anything.
"""

import argparse
import functools
import html.parser
import http.server
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

# The narrowest window that has the links of the bar in it is the hardest for them.
PHONE, DESKTOP, NARROW = (390, 844), (1280, 900), (970, 900)
# Seconds; a page takes a few tenths of one.
PATIENCE = 60
# Templates of the theme, which are no pages.
IGNORED = {"_static/webpack-macros.html"}


class Page(html.parser.HTMLParser):
    """Anchors of a page, and the local files that it asks for."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Collect identifiers and addresses."""
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        for key in ("href", "src"):
            if attrs.get(key):
                self.links.append(attrs[key])


def pages_of(site):
    """Pages of a site by their path in it."""
    paths = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return {path: Page(site / path) for path in paths if path not in IGNORED}


def broken_links(site):
    """Links of a site that lead to a file that is not there, or to an anchor that no page has."""
    pages = pages_of(site)
    for path, page in pages.items():
        for link in sorted(set(page.links)):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = path
            if parts.path:
                joined = os.path.join(os.path.dirname(path), urllib.parse.unquote(parts.path))
                target = os.path.normpath(joined)
            if (site / target).is_dir():
                target = os.path.join(target, "index.html")
            if not (site / target).is_file():
                yield f"{path}: {link} leads to no file"
            elif parts.fragment and target in pages:
                anchor = urllib.parse.unquote(parts.fragment)
                if anchor not in pages[target].anchors:
                    yield f"{path}: {link} leads to no heading"


class Browser:
    """Chromium without a window, told what to do through a pair of pipes."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank"]

        def place_pipes():
            # Chromium reads from descriptor 3 and writes to 4; both may be taken here.
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.process = subprocess.Popen(
            [program, *flags],
            preexec_fn=place_pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.last, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def read(self):
        """Next message of the browser."""
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], PATIENCE)[0]:
                raise TimeoutError(f"The browser has not answered for {PATIENCE} seconds.")
            part = os.read(self.answers, 1 << 16)
            if not part:
                raise ConnectionError("The browser has ended.")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        """Send a command and return its answer; what happens meanwhile is kept in ``events``."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def resize(self, size):
        """Give the window a size in pixels."""
        # A phone would shrink what does not fit, and hide the fault: this is a narrow window.
        window = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **window)

    def open(self, address):
        """Load a page until its scripts have settled."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())
        self.run(SETTLE)

    def run(self, script):
        """Value of an expression in JavaScript."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def close(self):
        """End the browser and drop its profile."""
        self.process.terminate()
        self.process.wait()
        self.profile.cleanup()


SETTLE = """(async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
})()"""

# What stands out at the right, but for parts that scroll and those that are not shown.
CUT = """(() => {
    const scrolls = element => {
        for (let e = element; !e.matches('.bd-article'); e = e.parentElement)
            if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return true;
        return false;
    };
    const found = [];
    for (const e of document.querySelectorAll('.bd-article *')) {
        const box = e.getBoundingClientRect();
        if (box.width && box.right > innerWidth + 1 && !scrolls(e)
            && getComputedStyle(e).visibility != 'hidden' && !e.closest('mjx-assistive-mml'))
            found.push(e.tagName.toLowerCase() + ' "' + e.textContent.trim().slice(0, 40) + '"');
    }
    if (!found.length && document.documentElement.scrollWidth > innerWidth + 1)
        found.push('the page itself');
    return found.slice(0, 1);
})()"""

UNRENDERED = """(() => {
    const all = [...document.querySelectorAll('.bd-article .math')];
    const raw = all.filter(e => !e.querySelector('mjx-container'));
    const wrong = document.querySelectorAll('mjx-merror, [data-mml-node="merror"]');
    return [...raw, ...wrong].map(e => e.textContent.trim().slice(0, 60)).slice(0, 3);
})()"""

# Whether parts of the bar are out of the window.
BAR = """[...document.querySelectorAll('.bd-header :is(a, button)')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => (e.textContent.trim() || e.title || e.className).slice(0, 40))"""

# Where a heading in the middle lands after a jump, against the lower edge of the bar.
UNDER_THE_BAR = """(async () => {
    const links = document.querySelectorAll('.bd-article h2 a.headerlink');
    if (!links.length) return null;
    const link = links[Math.floor(links.length / 2)];
    location.hash = link.hash;
    await new Promise(done => setTimeout(done, 200));
    const top = link.parentElement.getBoundingClientRect().top;
    const bar = document.querySelector('.bd-header').getBoundingClientRect().bottom;
    return top < bar ? `${link.hash}: heading at ${top}, bar ends at ${bar}` : null;
})()"""


def complaints(events, origin):
    """What the browser reported while a page was loaded."""
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            yield "script: " + details.get("exception", {}).get("description", details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            yield f"error: {params['entry']['text']} {params['entry'].get('url', '')}"
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith((origin, "data:", "blob:", "about:", "chrome")):
                yield f"asks another machine for {url}"


def seen_in_browser(site, program):
    """What is wrong with the pages of a site as a browser shows them."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    browser = Browser(program)
    try:
        for path in pages_of(site):
            browser.resize(PHONE)
            browser.open(origin + path)
            found = [f"cut at {PHONE[0]} pixels: {part}" for part in browser.run(CUT)]
            found += [f"formula not rendered: {text}" for text in browser.run(UNRENDERED)]
            found += complaints(browser.events, origin)
            browser.resize(NARROW)
            found += [f"out of the window at {NARROW[0]} pixels: {x}" for x in browser.run(BAR)]
            browser.resize(DESKTOP)
            hidden = browser.run(UNDER_THE_BAR)
            found += [f"hidden by the bar after a jump: {hidden}"] if hidden else []
            yield from (f"{path}: {text}" for text in dict.fromkeys(found))
    finally:
        browser.close()
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not print each request."""

    def log_message(self, *args):
        """Print nothing."""


def find_browser():
    """Path of Chromium or its like, None if there is none or it cannot be told what to do."""
    if os.name != "posix":
        return None
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def main():
    """Check the site named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    site = parser.parse_args().site
    found = list(broken_links(site))
    program = find_browser()
    if program is None:
        print("No Chromium here: only links were checked, not widths, scripts and formulas.")
    else:
        found += seen_in_browser(site, program)
    print(*found, sep="\n")
    print(f"{len(pages_of(site))} pages, {len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
