"""Open a page in headless Chromium."""

import json
import re
import shutil
import subprocess

import pytest
from matplotlib.image import imread

CHROMIUM = shutil.which("chromium")


def needs_chromium(test):
    """Mark a test that opens a page; it is skipped where Chromium is not."""
    skipped = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here")
    return pytest.mark.chromium(skipped(test))


def browse(page, folder):
    """A screenshot [H, W, 3] in Chromium, its console's errors and what the page asked for."""
    ran = opened(
        *(page, folder, "--hide-scrollbars", "--enable-logging=stderr", "--window-size=1000,1300"),
        *(f"--log-net-log={folder / 'net.json'}", f"--screenshot={folder / 'shown.png'}"),
    )
    errors = [
        line for line in ran.stderr.splitlines() if re.search("Uncaught|Refused|violates", line)
    ]
    events = json.loads((folder / "net.json").read_text())["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    urls = [a["url"] for a in asked if a["initiator"] != "not an origin" and "url" in a]
    return imread(folder / "shown.png")[..., :3], errors, [u for u in urls if "://" in u]


def printed_pages(page, folder):
    """How many sheets of paper the page takes."""
    opened(page, folder, f"--print-to-pdf={folder / 'printed.pdf'}")
    return len(re.findall(rb"/Type\s*/Page\b", (folder / "printed.pdf").read_bytes()))


def opened(page, folder, *flags):
    """Open a page in Chromium until it has settled."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"),
        *(f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *(*flags, (folder / "page.html").as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
