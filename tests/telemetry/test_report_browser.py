"""The page as a browser shows it: nothing on the console, pictures drawn, and what can be clicked works."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from telemetry.report import RunData, load_run
from telemetry.report.charts import CHARTS
from telemetry.report.page import render_page
from telemetry.run_dir import RunDirectory
from tests.telemetry.fakes import HOSTILE, fill, furnish, make_run, make_status
from tests.telemetry.test_evaluations import make_evaluation

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]

# Runs in the page after its own scripts. What it returns is left in an attribute, where --dump-dom shows it.
_PROBE = """
<script>
setTimeout(() => {
  const all = (where) => [...document.querySelectorAll(where)];
  const count = (where) => all(where).length;
  const texts = (where) => all(where).map((one) => one.textContent);
  const click = (where, at = 0) => all(where)[at].click();
  const move = (element, x, y) => element.dispatchEvent(
    new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
  const tip = () => document.getElementById("tip").hidden ? null : document.getElementById("tip").innerText;
  let found;
  try { found = (() => { BODY })(); } catch (error) { found = { error: String(error) }; }
  document.documentElement.setAttribute("data-found", JSON.stringify(found));
}, 1000);
</script>
"""


def browse(page: str, folder: Path, body: str, width: int = 1280) -> tuple[Any, list[str]]:
    """What `body` returned in the page, and the lines that the console got."""
    path = folder / "report.html"
    path.write_text(page.replace("</body>", _PROBE.replace("BODY", body) + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *options, f"--window-size={width},900", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    _, _, rest = done.stdout.partition('data-found="')
    assert rest, "the probe did not run:\n" + done.stderr[-2000:]
    found = json.loads(unescape(rest.partition('"')[0]))
    return found, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture
def whole(run_dir: RunDirectory) -> RunData:
    return load_run(furnish(fill(run_dir, make_run(60))), make_status())


def test_the_pictures_are_there_and_the_console_is_silent(whole: RunData, tmp_path: Path) -> None:
    found, console = browse(
        render_page([whole]),
        tmp_path,
        """return {
          ready: document.documentElement.dataset.ready, title: document.title,
          charts: count("#charts figure"), empty: all("figure svg").filter((one) => one.children.length < 3).length,
          curves: all("#charts path").filter((one) => (one.getAttribute("d") || "").length > 100).length,
          heat: count("#heatmaps rect"), lags: count("#by-lag figure"), lanes: count("#lanes figure"),
          spans: count("#lanes .span"), names: texts("#lanes text.name"), images: count("img"),
          overflow: document.documentElement.scrollWidth - innerWidth,
        };""",
    )
    assert console == []
    # All but entropy, KL to a reference and gradient cosine, which this run did not measure.
    assert found["charts"] == len(CHARTS) - 3
    assert found["curves"] >= found["charts"]
    assert (found["ready"], found["empty"], found["images"]) == ("yes", 0, 0)
    assert found["title"] == "trial – Rapid"
    assert found["heat"] == 60 * 3
    assert (found["lags"], found["lanes"]) == (5, 2)
    assert found["spans"] > 300
    assert found["names"] == ["learner-0", "actor-0", "actor-1"] * 2
    assert found["overflow"] <= 0


def test_hovering_tells_the_figures(whole: RunData, tmp_path: Path) -> None:
    found, console = browse(
        render_page([whole]),
        tmp_path,
        """
        const over = (where, share) => {
          const element = all(where)[0], box = element.getBoundingClientRect();
          move(element, box.left + share * box.width, box.top + box.height / 2);
          return tip();
        };
        const reward = over("#charts .hover", 1), lane = over("#lanes .span", 0.5), heat = over("#heatmaps rect", 0.5);
        const token = over(".completion .token", 0.5);
        all("#charts .hover")[0].dispatchEvent(new PointerEvent("pointerleave"));
        return { reward, lane, heat, token, gone: tip() };
        """,
    )
    assert console == []
    assert "step 60" in found["reward"]
    assert "mean" in found["reward"]
    assert "learner-0 starts" in found["lane"]
    assert found["heat"] == "step 1\nlag 0: 100 % of the tokens"
    assert found["token"] == "token 1\npolicy 1.8, lag 1"
    assert found["gone"] is None


def test_the_browser_of_completions_goes_through_steps_and_groups(whole: RunData, tmp_path: Path) -> None:
    found, console = browse(
        render_page([whole]),
        tmp_path,
        """
        const see = () => ({ at: texts(".browser-bar .at")[0], prompt: texts(".prompt")[0],
          groups: texts(".browser-bar [aria-pressed]"), best: texts(".completion .said")[0],
          worst: texts(".completion .said")[1], facts: texts(".completion .facts"), tokens: count(".completion .token"),
          colours: new Set(all(".completion .token").map((one) => one.style.background)).size });
        const last = see();
        click(".browser-bar button");
        const middle = see();
        document.getElementById("browser").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
        const first = see();
        click(".browser-bar [aria-pressed]", 1);
        const pressed = all(".browser-bar [aria-pressed]").map((one) => one.getAttribute("aria-pressed"));
        return { last, middle, first, pressed, title: document.title, images: count("img") };
        """,
    )
    assert console == []
    assert [found[when]["at"] for when in ("last", "middle", "first")] == ["step 10", "step 5", "step 1"]
    last = found["last"]
    assert last["groups"] == ["group 0:0", "group 0:1"]
    assert last["prompt"] == f"What is 5 + 7? {HOSTILE}"
    assert last["best"] == "The sum is↵\n 12<|im_end|>"
    assert last["worst"] == f"{HOSTILE} no"
    assert last["facts"][0] == "right 1 · format – · 6 tokens · ended by itself"
    assert last["facts"][1].endswith("the first 2 of 3000 tokens · cut at the limit")
    assert (last["tokens"], last["colours"]) == (8, 2)
    assert found["pressed"] == ["false", "true"]
    assert (found["title"], found["images"]) == ("trial – Rapid", 0)


def test_smoothing_axis_and_theme_can_be_chosen(whole: RunData, tmp_path: Path) -> None:
    found, console = browse(
        render_page([whole]),
        tmp_path,
        """
        const line = () => all("#charts figure path[stroke-width='2.2']")[0].getAttribute("d");
        const before = line(), slider = document.getElementById("smoothing");
        slider.value = 20; slider.dispatchEvent(new Event("input"));
        const smoother = line();
        click("[data-axis=time]");
        const ticks = texts("#charts svg text").filter((one) => /^\\d+:\\d\\d$/.test(one)).length;
        const ground = () => getComputedStyle(document.body).backgroundColor, light = ground();
        click("#theme");
        const dark = ground();
        click("#theme");
        return { differs: before !== smoother, ticks, light, dark, again: ground() };
        """,
    )
    assert console == []
    assert found["differs"]
    assert found["ticks"] > 10
    assert found["light"] != found["dark"]
    assert found["light"] == found["again"]


def test_several_runs_lie_over_each_other_on_a_narrow_screen_too(
    whole: RunData, tmp_path: Path, run_dir: RunDirectory
) -> None:
    other = load_run(furnish(fill(RunDirectory.create(run_dir.path.parent / "other"), make_run(30, seed=1))))
    found, console = browse(
        render_page([whole, other]),
        tmp_path,
        """return {
          colours: new Set(all("#charts figure:first-child path").map((one) => one.getAttribute("stroke"))).size,
          maps: count("#heatmaps figure"), lanes: count("#lanes figure"), runs: texts(".browser-bar option"),
          overflow: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
        };""",
        width=500,
    )
    assert console == []
    assert (found["colours"], found["maps"], found["lanes"]) == (2, 2, 4)
    assert found["runs"] == ["trial", "other"]
    assert (found["width"], found["overflow"]) == (500, 0)


def test_a_run_without_a_step_makes_no_noise_either(run_dir: RunDirectory, tmp_path: Path) -> None:
    found, console = browse(render_page([load_run(fill(run_dir, []))]), tmp_path, "return texts('.empty');")
    assert console == []
    assert found == ["No optimizer step was completed."]


def test_evaluations_are_curves_with_bands_over_steps_or_time(whole: RunData, tmp_path: Path) -> None:
    last_s = whole.records[-1]["wall_s"]
    curve = [make_evaluation(step, mean=0.2 + step / 100) for step in (0, 30, 60)]
    other = replace(whole, name="other", evaluations=curve[:2])
    body = """
        const places = () => all("#evaluation-charts polyline")[0].getAttribute("points").split(" ");
        const line = () => places().map((at) => Number(at.split(",")[0]));
        const see = () => ({ charts: texts("#evaluation-charts b").map((one) => one.trim()), line: line(),
          bands: count("#evaluation-charts polygon"), dots: count("#evaluation-charts circle") });
        const steps = see(), dot = all("#evaluation-charts circle")[2], box = dot.getBoundingClientRect();
        move(dot, box.left, box.top);
        const told = tip();
        click('[data-axis="time"]');
        const pictures = all("#charts svg")[0].querySelectorAll('path[d$="z"]').length;
        return { steps, time: see(), told, pictures };
    """
    found, console = browse(render_page([replace(whole, evaluations=curve)]), tmp_path, body)
    assert console == []
    assert found["steps"]["charts"] == ["pass@1", "pass@8"]
    assert (found["steps"]["bands"], found["steps"]["dots"]) == (2, 6)
    left, middle, right = found["steps"]["line"]
    assert middle == pytest.approx((left + right) / 2, abs=1)
    assert "step 60" in found["told"]
    assert "0.8, from 0.7 to 0.9" in found["told"]
    # By time the middle lies where half of the steps were done, and the reward's picture has its marks there too.
    share = whole.records[29]["wall_s"] / last_s
    left, middle, right = found["time"]["line"]
    assert (middle - left) / (right - left) == pytest.approx(share, abs=0.02)
    assert found["pictures"] == 3

    found, console = browse(render_page([replace(whole, evaluations=curve), other]), tmp_path, body)
    assert console == []
    assert (found["steps"]["bands"], found["steps"]["dots"]) == (4, 10)
