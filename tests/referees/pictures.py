"""Takes the pictures of the README: the status page and the mailed report of an organisation with four weeks behind it.

SCREENSHOTS is the directory that they go to, BROWSER the browser, FAKETIME_LIBRARY what sets a clock back.
"""

import os
import pathlib
import shutil
import signal
import subprocess

import weeks
from peers import Stage, answers, main, need, until
from playwright.sync_api import sync_playwright

MOST_BYTES = 150_000
WIDTHS = {"desk": 1280, "phone": 390}
# Which page, on what, in which scheme, from where on and how much of it in pixels.
PICTURES = [
    ("status", "desk", "light", "h1", 800),
    ("hours", "desk", "dark", "#hours", 720),
    ("status", "phone", "dark", "h1", 1100),
    ("report", "desk", "light", "h1", 1180),
    ("report", "phone", "light", "h1", 1250),
]


def take(stage, ours, directory):
    """Takes every picture from the running daemon of this installation and from its report."""
    daemon, log = stage.start("dutybound", [os.environ["DUTYBOUND"], "run"], env=ours.env)
    stage.comes_up("dutybound", daemon, log, lambda: answers(f"{ours.url}/readyz") == 200)
    report = stage.dir / "report.html"
    report.write_text(ours.run("report", "--last", "3w", "--format", "html", exits=[0]))
    pages = {"status": ours.url, "hours": ours.url, "report": report.as_uri()}
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(os.environ["BROWSER"]), args=["--no-sandbox"])
        for name, device, scheme, begin, height in PICTURES:
            page = browser.new_page(viewport={"width": WIDTHS[device], "height": 900}, color_scheme=scheme)

            def ready():
                page.goto(pages[name])
                return "of standing access was held" in page.content()

            until("the access hours", ready)
            top = max(0, page.locator(begin).first.bounding_box()["y"] - 16)
            clip = {"x": 0, "y": top, "width": WIDTHS[device], "height": height}
            picture = directory / f"{name}-{device}-{scheme}.png"
            page.screenshot(path=picture, clip=clip, full_page=True)
            page.close()
            need(picture.stat().st_size < MOST_BYTES, f"{picture} has {picture.stat().st_size} bytes")
        browser.close()
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(60)
    except subprocess.TimeoutExpired:
        need(False, "the daemon does not end")
    return f"{len(PICTURES)} pictures in {directory}"


def referee(stage: Stage):
    return take(stage, weeks.live_through(stage), pathlib.Path(os.environ["SCREENSHOTS"]).absolute())


if __name__ == "__main__":
    main(referee)
