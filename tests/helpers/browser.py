"""Headless Chromium for tests of pages: a frame page loads one from the disk and leaves what it finds as JSON."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "chromium is not installed: apt-get install chromium"

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files --enable-logging=stderr "
    "--virtual-time-budget=20000 --window-size=1400,1000"
).split()


def browse(folder, profile, frame_page: str) -> tuple[dict | None, list[str]]:
    """(the JSON that the frame page put into its <pre id="found">, None if it came to no end; the console's lines)."""
    frame = folder / "frame.html"
    frame.write_text(frame_page, encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    match = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])) if match else None, console
