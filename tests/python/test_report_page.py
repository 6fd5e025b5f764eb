"""The pages of a report and of a comparison in a real browser that has no network: they draw, answer the mouse and the
keyboard, fit wide and narrow screens, and print."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

import hemostat
from hemostat.report import Report
from hemostat.report._verdict import verdict

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 1280, 900
DARK = 128  # channels of a dark background lie below, of a light one above


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    executable = next(found, None)
    if executable is None:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=executable)
        yield chromium
        chromium.close()


METHODS = ("magnitude", "wanda", "rtn:group_size=64", "activation", "drop_layers", "temperature")
JOINT = ("wanda", "rtn:group_size=64")


@pytest.fixture(scope="module")
def document(trained):
    """Measured on a trained model: curves, generated text, and two methods localized."""
    model, evaluation, calibration = trained.model, trained.tokens[4:12], trained.tokens[:4]
    scanned = hemostat.scan(model, evaluation, calibration, methods=METHODS, joint=[JOINT], points=4, progress=False)
    scanned = scanned.to_dict()
    statistics = hemostat.collect(model, calibration, needs=["column_norm"])
    scanned["localizations"] = [
        hemostat.localize(
            model, method, evaluation[:4], severity=severity, statistics=statistics, progress=False
        ).to_dict()
        for method, severity in (("wanda", 0.5), ("rtn:group_size=64", 3))
    ]
    return scanned


@pytest.fixture(scope="module")
def other(document):
    """The same run, had it evaluated other tokens and every loss been a tenth more."""
    other = copy.deepcopy(document)
    other["provenance"]["evaluation"]["sha256"] = "0" * 64
    for trial in other["trials"]:
        damage = trial["damage"]
        damage["delta_nll"] *= 1.1
        damage["delta_nll_interval"] = [1.1 * bound for bound in damage["delta_nll_interval"]]
    return other


@pytest.fixture(scope="module")
def opened(browser):
    """Opens a page, and at the end holds it to having asked for nothing and complained of nothing."""
    complaints, requests, contexts = [], [], []

    def open_page(path, drawn="#plot-curves svg", **settings):
        context = browser.new_context(**({"viewport": {"width": WIDTH, "height": HEIGHT}} | settings))
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path(path).as_uri())
        page.wait_for_selector(drawn)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.startswith("file://") and url.endswith(".html") for url in requests)
    assert len(requests) == len(contexts)


@pytest.fixture(scope="module")
def path(document, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    Report(document).to_html(path)
    return path


@pytest.fixture(scope="module")
def comparison_path(document, other, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "comparison.html"
    Report(document).compare(Report(other), ("this", "that")).to_html(path)
    return path


@pytest.fixture(scope="module")
def page(opened, path):
    """One page for all tests, since loading it takes longest: each leaves it as it was."""
    return opened(path)


def channels(color: str) -> list[int]:
    return [int(float(value)) for value in re.findall(r"[\d.]+", color)[:3]]


def style(page, selector: str, name: str) -> str:
    return page.eval_on_selector(selector, f"element => getComputedStyle(element).{name}")


def until(page, condition: str, arg=None) -> None:
    page.wait_for_function(condition, arg=arg)


def hover_text(page) -> str:
    page.wait_for_selector("#tip:visible")
    return page.locator("#tip").text_content()


def middle(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def number(text: str) -> float:
    return float(text.replace("−", "-").removesuffix("%"))


def ticks(page, plot: str = "#plot-curves") -> list[str]:
    return page.locator(f"{plot} .role-axis-label text").all_text_contents()


class TestParts:
    def test_come_in_the_order_in_which_they_are_asked_for(self, page):
        headings = page.locator("h2").all_inner_texts()
        assert headings[:4] == ["What is safe, and what is not", "Where it bleeds", "What to do", "Damage curves"]
        assert headings[-2:] == ["Tables", "Provenance"]
        tops = [heading.bounding_box()["y"] for heading in page.locator("h2").all()]
        assert tops == sorted(tops)

    def test_name_every_method(self, page, document):
        text = page.locator("main").inner_text()
        assert all(method["label"] in text for method in document["provenance"]["methods"])

    def test_begin_with_the_text_that_was_evaluated(self, page, document):
        evaluation = document["provenance"]["evaluation"]
        first = page.locator(".headline:visible").inner_text()
        assert first.startswith(
            f"On {evaluation['windows']} windows of {evaluation['length']} tokens of a text that was"
        )
        assert evaluation["sha256"][:8] in first

    def test_warn_before_anything_else(self, opened, document, tmp_path):
        warned = copy.deepcopy(document)
        warned["provenance"]["evaluation"]["text"] = "/some/where/novel.txt"
        warned["provenance"]["warnings"] = ["Calibration text is the evaluation text."]
        Report(warned).to_html(tmp_path / "report.html")
        page = opened(tmp_path / "report.html")
        notice, title = page.locator(".notice"), page.locator("h1")
        assert "Calibration text is the evaluation text." in notice.inner_text()
        assert (
            notice.bounding_box()["y"]
            < title.bounding_box()["y"]
            < page.locator(".headline:visible").bounding_box()["y"]
        )
        assert "of novel.txt" in page.locator(".headline:visible").inner_text()

    def test_have_one_row_a_method(self, page, document):
        """Said with the words of the verdict: safe up to, undecided, unsafe from, silent up to."""
        rows = page.locator("#safe [data-tolerance]:visible .methods > li")
        assert rows.locator(".name").all_inner_texts() == [m["label"] for m in document["provenance"]["methods"]]
        assert rows.locator(".track").count() == rows.count()
        v = verdict(Report(document).document, 0.05)
        for row, reach in zip(rows.all(), v.reaches, strict=True):
            facts = row.locator(".facts li").all_inner_texts()
            assert facts[0].startswith("safe " if reach.safe else "nothing shown to be safe")
            assert any(fact.startswith("unsafe from") for fact in facts) == bool(reach.unsafe)
            undecided = reach.open or (reach.safe and reach.unsafe)
            assert any(fact.startswith("undecided") for fact in facts) == bool(undecided)
            assert any(fact.startswith("silent") for fact in facts) == bool(reach.curve.trials[0].damage.silent)

    def test_follow_the_tolerance(self, page):
        def headline():
            return page.locator(".headline:visible").all_inner_texts()

        assert len(headline()) == 1 and "0.05 nats" in headline()[0]
        page.get_by_text("0.02", exact=True).first.click()
        assert len(headline()) == 1 and "0.02 nats" in headline()[0]
        assert page.locator("#safe [data-tolerance]:visible").count() == 1
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert "0.1 nats" in headline()[0]
        page.keyboard.press("ArrowLeft")
        assert "0.05 nats" in headline()[0]


class TestCurves:
    def test_are_visible(self, page, document):
        measured = {(t["method"], json.dumps(t["options"])) for t in document["trials"]}
        lines = page.locator("#plot-curves .lines_marks path")
        assert lines.count() == len(measured)
        page.locator("#plot-curves").scroll_into_view_if_needed()
        for line in lines.all():
            box = line.bounding_box()
            assert box["width"] > 20 and box["height"] > 5
            assert 0 <= box["x"] and box["x"] + box["width"] <= WIDTH
            assert 0 <= box["y"] and box["y"] + box["height"] <= HEIGHT

    def test_have_intervals_and_every_trial(self, page, document):
        bounds = [trial["damage"]["delta_nll_interval"] for trial in document["trials"]]
        assert page.locator("#plot-curves .intervals_marks line").count() == sum(map(bool, bounds)) > 0
        assert page.locator("#plot-curves .points_marks path").count() == len(document["trials"])

    def test_are_named_at_their_ends(self, page, document):
        names = page.locator("#plot-curves [class*=end_label]")
        labels = {method["label"] for method in document["provenance"]["methods"]}
        assert {"".join(name.locator("text").all_text_contents()) for name in names.all()} == labels
        right = page.locator("#plot-curves .lines_marks path").all()
        assert min(name.bounding_box()["x"] for name in names.all()) > max(
            line.bounding_box()["x"] + line.bounding_box()["width"] for line in right
        )

    def test_each_method_has_a_picture_of_its_own(self, page, document):
        figures = page.locator("#plots-own figure")
        assert figures.locator("h3").all_inner_texts() == [m["label"] for m in document["provenance"]["methods"]]
        for figure in figures.all():
            box = figure.locator(".lines_marks path").bounding_box()
            assert box["width"] > 20 and box["height"] > 5

    def test_neighbours_share_one_range(self, page, document):
        assert "the same range in every picture" in page.locator("#own-axis").inner_text()
        horizontal = {m["label"]: len(ticks(page, f"#plots-own figure:nth-child({i + 1})"))
                      for i, m in enumerate(document["provenance"]["methods"])}  # fmt: skip
        vertical = {
            tuple(text for text in ticks(page, f"#plots-own figure:nth-child({i + 1})") if text.startswith(("+", "−")))
            for i in range(len(horizontal))
        }
        assert len(vertical) == 1 and len(vertical.pop()) > 2

    def test_ticks_are_the_tables_numbers(self, page, document):
        """Of each method's own axis: the severities in the words of the table of trials."""
        cells = page.locator("table", has_text="Trials").locator("tbody tr")
        table = {}
        for method, severity in cells.evaluate_all(
            "rows => rows.map(r => [r.cells[0].innerText, r.cells[1].innerText])"
        ):
            table.setdefault(method, []).append(severity)
        for index, method in enumerate(document["provenance"]["methods"]):
            figure = f"#plots-own figure:nth-child({index + 1})"
            shown = [text for text in ticks(page, figure) if not text.startswith(("+", "−")) and text != "0"]
            title = page.locator(f"{figure} .role-axis-title text").text_content()
            assert shown and title.split(",")[0] in ("sparsity", "bits", "layers", "temperature")
            for text in shown:
                assert any(text in severity.split() for severity in table[method["label"]]), (text, table)

    def test_say_what_the_mouse_points_at(self, page, document):
        labels = [method["label"] for method in document["provenance"]["methods"]]
        page.locator("#plot-curves").scroll_into_view_if_needed()
        page.mouse.move(*middle(page.locator("#plot-curves .targets_marks path").last))
        text = hover_text(page)
        assert text.startswith(tuple(labels)) and "nats" in text and "perplexity" in text
        page.mouse.move(0, 0)

    def test_zoom_and_return(self, page):
        page.locator("#plot-curves").scroll_into_view_if_needed()
        before, every = ticks(page), page.locator("#unzoom")
        box = page.locator("#plot-curves .root > g > path.background").first.bounding_box()
        for back in (every.click, lambda: page.locator("#plot-curves").dblclick()):
            assert not every.is_visible()
            page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
            page.mouse.up()
            every.wait_for()
            assert ticks(page) != before
            back()
            every.wait_for(state="hidden")
            until(page, "before => [...document.querySelectorAll('#plot-curves .role-axis-label text')]"
                        ".map(text => text.textContent).join() === before", ",".join(before))  # fmt: skip

    def test_change_with_quantity_scale_and_methods(self, page, document):
        caption, lines = page.locator("#curves-axis"), page.locator("#plot-curves .lines_marks path")
        assert "logarithmic beyond" in caption.inner_text()
        page.select_option("#scale", "linear")
        assert caption.inner_text().startswith("ΔNLL, nats per token;")
        page.select_option("#quantity", "top1")
        assert "first choice" in caption.inner_text()
        assert not page.locator("#scale").is_visible()
        count = len(document["provenance"]["methods"])
        page.get_by_text("Choose methods").click()
        chip = page.locator(".chips button").first
        for expected, pressed in ((count - 1, "false"), (count, "true")):
            chip.click()
            assert chip.get_attribute("aria-pressed") == pressed
            until(page, "n => document.querySelectorAll('#plot-curves .lines_marks path').length === n", expected)
            assert lines.count() == expected
        page.get_by_text("Choose methods").click()
        page.select_option("#quantity", "delta_nll")
        page.select_option("#scale", "symlog")


class TestLayers:
    def test_cells_are_visible(self, page, document):
        assert document["localizations"]
        maps = page.locator("#plots-layers figure")
        assert maps.count() >= 3
        for cells in maps.locator(".cells_marks").all():
            cells.scroll_into_view_if_needed()
            box = cells.bounding_box()
            assert box["width"] > 50 and box["height"] > 10

    def test_rows_have_whole_names(self, page, document):
        label = document["provenance"]["methods"][2]["label"]
        assert f"{label} at 3 bits" in page.locator("#plots-layers figure").first.locator("text").all_text_contents()

    def test_say_what_the_mouse_points_at(self, page):
        cell = page.locator("#plots-layers .cells_marks path").first
        cell.scroll_into_view_if_needed()
        page.mouse.move(*middle(cell))
        assert re.search(r"block \d+\s*alone [+−]?[\d.]+ nats", hover_text(page))
        page.mouse.move(0, 0)


class TestTogether:
    def test_cells_and_lines_are_visible(self, page, document):
        (surface,) = document["surfaces"]
        figure = page.locator("#plots-together figure")
        assert figure.count() == 1
        figure.scroll_into_view_if_needed()
        box = figure.locator(".cells_marks").bounding_box()
        assert box["width"] > 300 and box["height"] > 100
        assert figure.locator("[class*=zone_0] path").count() == 3
        down, right = surface["severities"]
        labels = [
            (middle(label), label.text_content())
            for label in page.locator("#plots-together .role-axis-label text").all()
        ]
        lowest = max(y for (_, y), _ in labels)
        columns = [text for (_, y), text in sorted(labels) if y == lowest]
        rows = [text for (_, y), text in sorted(labels, key=lambda label: label[0][1]) if y < lowest]
        assert columns == ["unchanged", *(f"{bits:g}" for bits in right[1:])]
        assert rows == ["unchanged", *(f"sparsity {sparsity:g}" for sparsity in down[1:])]

    def test_say_what_the_mouse_points_at(self, page, document):
        (surface,) = document["surfaces"]
        columns = len(surface["severities"][1])
        cell = page.locator("#plots-together .cells_marks path").nth(columns + 2)
        cell.scroll_into_view_if_needed()
        box = cell.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 4)
        told = hover_text(page)
        assert f"sparsity {surface['severities'][0][1]:g}" in told
        assert f"{surface['severities'][1][2]:g} bits" in told
        assert "perplexity" in told
        page.mouse.move(0, 0)

    def test_lines_stand_where_the_zone_ends(self, page, document):
        (surface,) = document["surfaces"]
        right = surface["severities"][1]
        cells = page.locator("#plots-together .cells_marks path")
        rows = [[cells.nth(i * len(right) + j).bounding_box() for j in range(len(right))]
                for i in range(len(surface["severities"][0]))]  # fmt: skip
        for tolerance, zone in surface["zone"].items():
            line = page.locator(f"#plots-together .zone_{tolerance.replace('.', '_')}_marks path")
            drawn = line.evaluate(
                """path => Array.from({length: 2001}, (_, i) => path.getPointAtLength(path.getTotalLength() * i / 2000))
                     .map(p => p.matrixTransform(path.getScreenCTM())).map(p => [p.x, p.y])"""
            )
            for boxes, edge, censored in zip(rows, zone, surface["zone_censored"][tolerance], strict=True):
                if edge is None:
                    expected = boxes[0]["x"]
                elif censored:
                    expected = boxes[-1]["x"] + boxes[-1]["width"]
                else:
                    centres = [box["x"] + box["width"] / 2 for box in boxes]
                    after = next(i for i, severity in enumerate(right) if i and severity <= edge)
                    share = (edge - right[after - 1]) / (right[after] - right[after - 1])
                    expected = centres[after - 1] + share * (centres[after] - centres[after - 1])
                level = boxes[0]["y"] + boxes[0]["height"] / 2
                x = min(drawn, key=lambda point, level=level: abs(point[1] - level))[0]
                assert x == pytest.approx(expected, abs=2)

    def test_sentences_and_lines_follow_the_tolerance(self, page):
        def told():
            return page.locator("#together [data-tolerance]:visible").all_inner_texts()

        def line(name):
            return f"#plots-together .zone_{name}_marks path"

        def thick():
            names = ("0_02", "0_05", "0_1")
            return [name for name in names if float(page.locator(line(name)).get_attribute("stroke-width")) > 2]

        assert len(told()) == 1 and "0.05 nats" in told()[0] and thick() == ["0_05"]
        page.get_by_text("0.1", exact=True).first.click()
        assert len(told()) == 1 and "0.1 nats" in told()[0]
        until(
            page,
            "() => document.querySelector('#plots-together .zone_0_1_marks path').getAttribute('stroke-width') > 2",
        )
        assert thick() == ["0_1"]
        page.get_by_text("0.05", exact=True).first.click()

    def test_has_its_table(self, page, document):
        (surface,) = document["surfaces"]
        table = page.locator("table", has_text="Together: wanda, then rtn:group_size=64")
        assert table.locator("tbody tr").count() == len(surface["severities"][0])
        cell = table.locator("tbody tr").nth(1).locator("td").nth(2)
        assert number(cell.inner_text()) == pytest.approx(surface["damage"][1][2]["delta_nll"], abs=5e-5)


def test_generated_text_is_drawn(page, document):
    assert any(trial["damage"].get("generation") for trial in document["trials"])
    lines = page.locator("#plots-generation .lines_marks path")
    assert lines.count() >= 4
    assert all(line.bounding_box()["width"] > 20 for line in lines.all())
    assert "range of its own" in page.locator("#generation").inner_text()


class TestDarkMode:
    def test_follows_the_system_and_the_button(self, page):
        def drawn(light):
            way = "<" if light else ">"
            until(page, f"() => getComputedStyle(document.querySelector('#plot-curves .role-axis-label text')).fill"
                        f".match(/\\d+/g).every(channel => +channel {way} {DARK})")  # fmt: skip

        page.emulate_media(color_scheme="dark")
        button = page.locator("#theme")
        for _ in range(2):
            page.wait_for_selector("#theme:text-is('Light')")
            assert max(channels(style(page, "body", "backgroundColor"))) < DARK
            drawn(light=False)
            button.click()
            page.wait_for_selector("#theme:text-is('Dark')")
            assert min(channels(style(page, "body", "backgroundColor"))) > DARK
            drawn(light=True)
            button.click()
        page.emulate_media(color_scheme="light")
        drawn(light=True)


class TestPaper:
    def test_shows_every_part_in_light_colours(self, page):
        page.emulate_media(color_scheme="dark")
        parts = page.locator("section").count()
        page.emulate_media(media="print")
        until(page, "() => document.querySelector('#plot-curves svg').clientWidth === 680")
        assert page.locator("section:visible").count() == parts
        assert (
            page.locator(".bar:visible, nav:visible, #theme:visible, select:visible, summary .pick:visible").count()
            == 0
        )
        assert min(channels(style(page, "body", "backgroundColor"))) > DARK
        assert max(channels(style(page, "#plot-curves .role-axis-label text", "fill"))) < DARK
        assert all(line.bounding_box()["width"] > 20 for line in page.locator(".lines_marks path:visible").all())
        assert page.locator("table:visible").count() == page.locator("table").count()
        page.emulate_media(media="screen")
        until(page, "() => document.querySelector('#plot-curves svg').clientWidth !== 680")
        assert max(channels(style(page, "body", "backgroundColor"))) < DARK
        page.emulate_media(color_scheme="light")


class TestTables:
    def test_sort_both_ways_and_back(self, page, document):
        table = page.locator("table", has_text="Trials")
        heads = table.locator("thead th")
        names = [name.strip() for name in heads.all_inner_texts()]
        column = names.index("perplexity")

        def cells():
            return [number(text) for text in table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]

        before = cells()
        assert before != sorted(before)
        button = heads.nth(column).locator("button")
        button.click()
        assert cells() == sorted(before) and heads.nth(column).get_attribute("aria-sort") == "ascending"
        button.click()
        assert cells() == sorted(before, reverse=True) and heads.nth(column).get_attribute("aria-sort") == "descending"
        button.click()
        assert cells() == before and heads.nth(column).get_attribute("aria-sort") is None

    def test_of_trials_say_how_much_and_which_way(self, page, document):
        table = page.locator("table", has_text="Trials")
        names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
        row = [cell.inner_text() for cell in table.locator("tbody tr").first.locator("th, td").all()]
        damage, cells = document["trials"][0]["damage"], dict(zip(names, row, strict=True))
        assert cells["acceptance"] == f"{100 * damage['acceptance']:.1f} %"
        assert cells["volume"] == f"{100 * damage['volume']:.1f} %"
        assert number(cells["direction"]) == pytest.approx(damage["direction"], abs=5e-5)
        assert cells["silent"] == ("silent" if damage["silent"] else "")
        assert "-" not in "".join(row[1:])

    def test_of_trials_say_what_is_saved(self, page, document):
        table = page.locator("table", has_text="Trials")
        names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
        sizes = table.locator(f"tbody td:nth-child({names.index('size') + 1})").all_inner_texts()
        keys = [(method["method"], method["options"]) for method in document["provenance"]["methods"]]
        of = {(keys.index((trial["method"], trial["options"])), trial["severity"]): trial["damage"]
              for trial in document["trials"]}  # fmt: skip
        assert len(sizes) == len(of)
        by_method = {}
        for text, (method, _) in zip(sizes, sorted(of, key=lambda key: key[0]), strict=True):
            by_method.setdefault(keys[method][0], []).append(text)
        shares = [int(text.partition(", ")[2].removesuffix(" %").replace("−", "-")) for text in by_method["rtn"]]
        assert all(share < 0 for share in shares)
        assert all("," not in text and text.endswith("B") for text in by_method["activation"])

    def test_count_layers(self, page, document):
        blocks = document["provenance"]["model"]["blocks"]
        severities = [trial["severity"] for trial in document["trials"] if trial["method"] == "drop_layers"]
        row = page.locator("table", has_text="Robust zones").locator("tbody tr", has_text="drop_layers")
        cells = row.locator("td").all_inner_texts()
        counts = [f"{severity * blocks:.3g}" for severity in (min(severities), max(severities))]
        assert cells[0] == f"layers, of {blocks}" and cells[1] == " … ".join(counts)

    def test_are_described(self, page):
        assert page.locator("table").count() == page.locator("table > caption").count() > 2
        assert page.locator("thead th[scope=col]").count() == page.locator("thead th").count()
        assert page.locator("tbody th[scope=row]").count() == page.locator("tbody tr").count()

    def test_of_layers_open_when_asked(self, page):
        table = page.locator("table", has_text="Layers, wanda at sparsity 0.5")
        assert not table.is_visible()
        page.locator("summary", has_text="Layers, wanda at sparsity 0.5").click()
        assert table.is_visible()
        page.locator("summary", has_text="Layers, wanda at sparsity 0.5").click()


class TestAccessibility:
    def test_headings_skip_no_level(self, page):
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(heading => +heading.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))

    def test_pictures_have_words(self, page):
        pictures = page.locator("[role=img]")
        assert pictures.count() > 5
        assert all(picture.get_attribute("aria-label") for picture in pictures.all())
        assert "nats at" in page.locator("[role=img]:has(> #plot-curves)").get_attribute("aria-label")
        plots = page.locator(".plot")
        assert plots.count() == page.locator("[role=img] > .plot[aria-hidden=true]").count() > 5
        titles = page.locator("figure:has(h3)")
        for figure in titles.all():
            title = figure.locator("h3").text_content()
            assert figure.locator("[role=img]").get_attribute("aria-label").startswith(title)

    def test_the_keyboard_reaches_the_verdict_first(self, page):
        skip = page.locator("a, button, input, [tabindex]").first
        skip.focus()
        assert skip.bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        until(page, "() => location.hash === '#safe'")

    def test_focus_is_seen(self, page):
        for selector in ("#theme", "#quantity", "#scale", "summary", "table button"):
            page.locator(selector).first.focus()
            page.keyboard.press("Shift")  # so that the browser takes the focus for the keyboard's
            assert style(page, ":focus", "outlineStyle") == "solid"
        assert page.evaluate("document.documentElement.lang") == "en"

    def test_moves_nothing_for_who_asks(self, page):
        assert style(page, "html", "scrollBehavior") == "smooth"
        page.emulate_media(reduced_motion="reduce")
        assert style(page, "html", "scrollBehavior") == "auto"
        page.emulate_media(reduced_motion="no-preference")


# Texts of one picture whose boxes meet, though they stand for different things; boxes of lines have a little air.
COLLISIONS = """() => [...document.querySelectorAll('.plot svg')].flatMap(svg => {
  const kinds = ['.role-axis-label', '.role-axis-title', '.numbers_marks', '[class*=end_label]'];
  const texts = [...svg.querySelectorAll(kinds.map(kind => `${kind} text`).join())]
    .filter(text => text.textContent).map(text => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([a, p], i) => texts.slice(i + 1)
    .filter(([_, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 0.5
                     && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2.5)
    .map(([b]) => `${a} | ${b}`));
})"""
# Texts that stand out of their picture, and elements whose words are wider than they may be.
CLIPPED = """() => {
  const out = (p, box) => p.width && (p.left < box.left - 1 || p.right > box.right + 1
                                   || p.top < box.top - 1 || p.bottom > box.bottom + 1);
  const clipped = [...document.querySelectorAll('.plot svg')].flatMap(svg => [...svg.querySelectorAll('text')]
    .filter(text => out(text.getBoundingClientRect(), svg.getBoundingClientRect())).map(text => text.textContent));
  const tags = 'h1, h2, h3, p, li, button, summary, label, dd, code, select, legend, figcaption';
  const words = [...document.querySelectorAll(tags)]
    .filter(e => e.offsetWidth > 2 && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
              && !e.closest('.wide, svg, .skip'));
  return [...clipped, ...words.map(element => `${element.tagName}: ${element.textContent.slice(0, 60)}`)];
}"""
STICKY = """() => [...document.querySelectorAll('*')].filter(e => e.offsetWidth)
  .filter(e => ['sticky', 'fixed'].includes(getComputedStyle(e).position)).map(e => e.id)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
class TestScreens:
    @pytest.fixture(params=["report", "comparison"])
    def page(self, request, opened, path, comparison_path, width, theme):
        where = path if request.param == "report" else comparison_path
        page = opened(where, viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
        page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
        yield page
        page.close()

    def test_fit(self, page, width):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for quantity, scale in itertools.product(("delta_nll", "perplexity", "top1"), ("linear", "log", None)):
            page.select_option("#quantity", quantity)
            if scale and page.locator("#scale").is_visible():
                page.select_option("#scale", scale)
            assert page.evaluate(COLLISIONS) == []
            assert page.evaluate(CLIPPED) == []

    def test_have_one_control_that_stays(self, page):
        assert page.evaluate(STICKY) == ["bar"]
        page.mouse.wheel(0, 3000)
        until(page, "() => scrollY > 2000")
        box = page.locator("#bar").bounding_box()
        assert box["y"] == 0 and box["height"] < 60

    def test_say_where_a_table_goes_on(self, page, width):
        tables = page.locator(".wide").all()
        wider = [table for table in tables if table.evaluate("e => e.scrollWidth > e.clientWidth + 1")]
        assert wider or width > 420
        for table in tables:
            assert (table.get_attribute("tabindex") == "0") == (table in wider)
        for table in wider[:3]:
            assert "more-right" in table.get_attribute("class") and "gradient" in table.evaluate(
                "e => getComputedStyle(e).maskImage"
            )
            table.focus()
            assert table.evaluate("e => getComputedStyle(e).maskImage") == "none"
            page.keyboard.press("End")
            page.keyboard.press("ArrowRight")
            table.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
            table.evaluate("e => new Promise(requestAnimationFrame)")
            assert "more-left" in table.get_attribute("class") and "more-right" not in table.get_attribute("class")

    def test_have_no_serious_fault_for_axe(self, page):
        axe = pytest.importorskip(
            "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
        )
        faults = axe.Axe().run(page).response["violations"]
        assert [
            (fault["id"], fault["nodes"][0]["html"]) for fault in faults if fault["impact"] in ("serious", "critical")
        ] == []


def test_a_narrow_page_does_not_scroll_sideways(page):
    for width in (768, 390, 320):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        until(page, "() => document.documentElement.scrollWidth <= innerWidth")
        until(page, "() => document.querySelector('#plot-curves svg').clientWidth <= innerWidth")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    until(page, "() => document.querySelector('#plot-curves svg').clientWidth > 800")


def test_is_small(path, comparison_path):
    assert max(path.stat().st_size, comparison_path.stat().st_size) < 2_000_000


def test_asks_for_nothing(browser, path, comparison_path, tmp_path):
    """Nor would a request go unseen: the last page has one."""
    asking = tmp_path / "asking.html"
    asking.write_text(path.read_text(encoding="utf-8").replace("<main>", '<main><img src="https://127.0.0.1:9/x.png">'))
    for where, expected in ((path, []), (comparison_path, []), (asking, ["https://127.0.0.1:9/x.png"])):
        page, requests = browser.new_page(), []
        page.on("request", lambda request, seen=requests: seen.append(request.url))
        page.goto(where.as_uri())
        page.wait_for_selector("#plot-curves svg")
        page.wait_for_load_state("networkidle")
        assert requests == [where.as_uri(), *expected]
        page.close()


def test_names_are_text_and_not_markup(opened, document, tmp_path):
    mean = copy.deepcopy(document)
    name = '<img src=x onerror="window.harmed = 1">\'&amp;'
    mean["provenance"]["model"]["name"] = name
    for method in mean["provenance"]["methods"]:
        method["label"] = name
        method["axis"]["name"] = "<b onclick=x>s</b>"
    mean["baseline"]["noise_floor"]["against"] = "</script><script>window.harmed = 1</script>"
    Report(mean).to_html(tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    assert name in page.locator("h1").inner_text()
    page.locator("#plot-curves").scroll_into_view_if_needed()
    page.mouse.move(*middle(page.locator("#plot-curves .targets_marks path").last))
    assert name in hover_text(page)
    assert page.evaluate("window.harmed") is None
    assert page.locator("img").count() == 0 and page.locator("[onclick], [onerror]").count() == 0


def test_a_run_with_no_trials_yet_has_a_page(opened, document, tmp_path):
    empty = copy.deepcopy(document) | {"trials": [], "thresholds": [], "localizations": []}
    Report(empty).to_html(tmp_path / "report.html")
    page = opened(tmp_path / "report.html", drawn="#plots-together svg")
    assert "Nothing has been measured yet." in page.locator(".headline:visible").inner_text()
    for part in ("curves", "own", "layers", "generation"):
        assert not page.locator(f"#{part}").is_visible()
        assert not page.locator(f"nav a[href='#{part}']").is_visible()
    assert not page.locator("#bar select:visible").count() and page.locator("#tables table:visible").count()


class TestComparison:
    def test_lays_both_runs_over_each_other(self, opened, document, comparison_path):
        page = opened(comparison_path)
        assert "different tokens" in page.locator(".notice").inner_text()
        assert page.locator("h2").first.inner_text() == "What bleeds less, and what more"
        labels = [method["label"] for method in document["provenance"]["methods"]]
        assert page.locator(".methods > li .name").all_inner_texts() == labels
        dashes = page.eval_on_selector_all(
            "#plot-curves .lines_marks path", "lines => lines.map(line => line.getAttribute('stroke-dasharray'))"
        )
        assert sum(dash == "5,4" for dash in dashes) == len(dashes) / 2 > 0
        assert page.locator("#runs").inner_text() == "Solid: this. Dashed: that."
        assert page.locator("table", has_text="Trials in both runs").locator("tbody tr").count() == len(
            document["trials"]
        )
