"""Makes `docs/review.png`: a row of the demo on the real review page, in a real browser.

    python docs/review_picture.py

It needs the extra `test` and a chromium. This script does not know how a page is made.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

TARGET = Path(__file__).parent / "review.png"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def main() -> None:
    """Play the demo, open the row of the leaked key and take its picture."""
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "demo.sqlite3")
        command = [sys.executable, "-m", "guard", "demo", "--fast", "--review", "--journal", place]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            links = (re.search(r"http://\S+/enter\S+", line) for line in process.stdout)
            take(next(link[0] for link in links if link))
            process.send_signal(signal.SIGINT)


def take(link: str) -> None:
    """Take a picture of one row's page."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 820, "height": 820}, color_scheme="light")
        page.goto(link)
        page.goto(f"{page.url}?flagged=secret_leak")
        page.locator(".rows li a").last.click()
        page.screenshot(path=TARGET)
        browser.close()


if __name__ == "__main__":
    main()
