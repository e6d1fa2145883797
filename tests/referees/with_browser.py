"""Referee: a real browser shows the status page of the running daemon, and the pages that are mailed.

It demands what a person would miss: nothing in the console, nothing that the content security policy had to stop, no
sideways scrolling on a phone or a desk, in light and dark, with and without JavaScript; landmarks, one h1, headings in
order, tables with headers and names; a change that shows without loading the page again; and names that stay text.

BROWSER is the browser; with SCREENSHOTS, a directory, it leaves pictures there.
"""

import os
import pathlib
import shutil
import signal
import subprocess

from peers import Stage, answers, main, need, until
from playwright.sync_api import sync_playwright

HOSTILE = "<img/src=x/onerror=alert(1)>\"'&@example.com"
LONG = "x" * 180 + "@example.com"
WIDTHS = {"phone": 360, "desk": 1280}

STRUCTURE = """() => {
    const wrong = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    if (all("h1").length !== 1) wrong.push(`${all("h1").length} h1`);
    if (all("main").length !== 1) wrong.push(`${all("main").length} main`);
    if (!document.documentElement.lang) wrong.push("no language");
    if (!document.title) wrong.push("no title");
    let before = 0;
    for (const heading of all("h1, h2, h3, h4")) {
        const level = Number(heading.tagName[1]);
        if (level > before + 1) wrong.push(`${heading.tagName} "${heading.textContent}" after h${before}`);
        before = level;
    }
    for (const table of all("table")) {
        if (!table.caption) wrong.push(`a table without caption: ${table.textContent.slice(0, 60)}`);
        if (!table.querySelector("th[scope=col]")) wrong.push("a table without column headers");
        for (const row of table.tBodies[0].rows) {
            if (!row.querySelector("th[scope=row]")) wrong.push(`a row without header: ${row.textContent}`);
        }
    }
    for (const svg of all("svg")) {
        if (svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-label")) wrong.push("a nameless picture");
    }
    for (const link of all("a")) if (!link.textContent.trim()) wrong.push(`a link without words: ${link.href}`);
    const ids = all("[id]").map((element) => element.id);
    if (new Set(ids).size !== ids.length) wrong.push(`an id twice in ${ids}`);
    for (const labelled of all("[aria-labelledby]")) {
        if (!document.getElementById(labelled.getAttribute("aria-labelledby"))) wrong.push("a label that is not there");
    }
    if (all("img, iframe, object, embed, form, [onclick], [onerror], [style]").length) wrong.push("a strange element");
    return wrong;
}"""

# Contrast of every visible text with what is painted behind it, by WCAG 2's formula.
CONTRAST = """() => {
    const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const wrong = [];
    for (const element of document.querySelectorAll("body *")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!text || !element.getClientRects().length) continue;
        const style = getComputedStyle(element);
        const ink = luminance(parse(element.closest("svg") ? style.fill : style.color));
        const paper = luminance(behind(element));
        const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        if (ratio < 4.5) wrong.push(`${ratio.toFixed(1)}: ${element.tagName} ${element.textContent.slice(0, 40)}`);
    }
    return wrong;
}"""


def look_at(browser, name, url, problems, script=True):
    """Loads one page in every width and scheme."""
    for device, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            where = f"{name}, {device}, {scheme}, {'with' if script else 'without'} JavaScript"
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
            )
            page = context.new_page()
            page.on("console", lambda said, where=where: problems.append(f"{where}: console: {said.text}"))
            page.on("pageerror", lambda error, where=where: problems.append(f"{where}: {error}"))
            page.on("requestfailed", lambda r, where=where: problems.append(f"{where}: {r.url} failed"))
            page.on("dialog", lambda dialog, where=where: problems.append(f"{where}: a dialog opened"))
            page.goto(url)
            for summary in page.locator("summary").all():
                summary.click()
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                problems.append(f"{where}: {wide} px too wide")
            problems.extend(f"{where}: {wrong}" for wrong in page.evaluate(STRUCTURE))
            problems.extend(f"{where}: contrast {wrong}" for wrong in page.evaluate(CONTRAST))
            if script and "SCREENSHOTS" in os.environ:
                picture = pathlib.Path(os.environ["SCREENSHOTS"]) / f"{name}-{device}-{scheme}.png"
                page.screenshot(path=picture, full_page=True)
            context.close()


def referee(stage: Stage):
    sandbox = stage.sandbox()
    aws = sandbox.control("GET", "/world")["aws"]
    ours = stage.installation(
        pagerduty=sandbox.urls["pagerduty"],
        opsgenie=sandbox.urls["opsgenie"],
        aws=sandbox.urls["aws"],
        account_id=aws["owner_account_id"],
        region=aws["region"],
    )
    payments = ours.policy / "payments.toml"
    written = payments.read_text()
    reason = "</td></tr></table><script>alert(2)</script>"
    for email in (HOSTILE, LONG):
        written += f"\n[[member]]\nemail = '''{email}'''\nadded_by = \"mira@example.com\"\nreason = '''{reason}'''\n"
    payments.write_text(written)
    command = [os.environ["DUTYBOUND"], "--config", ours.config]
    daemon, log = stage.start("dutybound", [os.environ["DUTYBOUND"], "run"], env=ours.env)
    stage.comes_up("dutybound", daemon, log, lambda: answers(f"{ours.url}/readyz") == 200)
    problems = []
    with sync_playwright() as playwright:
        # The browser's own sandbox needs rights that a container may not give; it sees nothing but our pages.
        browser = playwright.chromium.launch(executable_path=shutil.which(os.environ["BROWSER"]), args=["--no-sandbox"])
        stands = browser.new_page()
        until("the first grant", lambda: stands.goto(ours.url) and "Held now (0)" not in stands.content())
        stands.close()
        for name, path in {
            "status": "/",
            "project": "/project/payments",
            "person": "/person/alice%40example.com",
            "missing": "/person/nobody%40example.com",
        }.items():
            problems_before = len(problems)
            look_at(browser, name, ours.url + path, problems)
            if name == "missing":
                # The browser itself notes in the console that the page's status is 404.
                problems[problems_before:] = [p for p in problems[problems_before:] if "404" not in p]
        look_at(browser, "status", ours.url, problems, script=False)
        for name, arguments in {
            "forecast": ["forecast", "--format", "html"],
            "report": ["report", "--last", "4w", "--format", "html"],
        }.items():
            text = subprocess.run([*command, *arguments], capture_output=True, text=True, env=ours.env).stdout
            file = stage.dir / f"{name}.html"
            file.write_text(text)
            look_at(browser, name, file.as_uri(), problems)

        page = browser.new_page()
        page.goto(f"{ours.url}/project/payments")
        need(HOSTILE in page.inner_text("main"), "the hostile name is not shown as it is")
        page.get_by_role("link", name=HOSTILE).click()
        need(page.inner_text("h1") == HOSTILE, f"the hostile name's link leads to {page.url}")

        page.goto(ours.url)
        page.evaluate("window.same = true")
        page.locator("#schedules summary").click()
        page.locator("#now a").first.focus()
        (ours.policy / "later.toml").write_text('[project]\nname = "later"\nowners = ["mira@example.com"]\n')
        page.get_by_role("link", name="later").wait_for(timeout=30_000)
        kept = page.evaluate("[window.same, document.getElementById('schedules').open, document.activeElement.tagName]")
        need(kept == [True, True, "A"], f"the refresh lost something: {kept}")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        page.locator("#live.lost").wait_for(timeout=30_000)
        need("has not answered since" in page.inner_text("#live"), "the page does not say that the daemon is gone")
        browser.close()
    need(not problems, "\n".join(problems))
    return "six pages on phone and desk, light and dark, with and without JavaScript; a change shows by itself"


main(referee)
