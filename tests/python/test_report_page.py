"""The report's page in a real browser that has no network: it draws, answers the mouse and the keyboard, and prints."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import pytest

import hemostat
from hemostat.report import Report

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


METHODS = ("magnitude", "wanda", "rtn:group_size=64", "drop_layers", "temperature")
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
def opened(browser):
    """Opens a page, and at the end holds it to having asked for nothing and complained of nothing."""
    complaints, requests, contexts = [], [], []

    def open_page(path, **settings):
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, **settings)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path(path).as_uri())
        page.wait_for_selector("#plot-curves .main-svg")
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
def page(opened, path):
    """One page for all tests, since loading it takes longest: each leaves it as it was."""
    return opened(path)


def channels(color: str) -> list[int]:
    return [int(float(value)) for value in re.findall(r"[\d.]+", color)[:3]]


def style(page, selector: str, name: str) -> str:
    return page.eval_on_selector(selector, f"element => getComputedStyle(element).{name}")


def y_range(page) -> list[float]:
    return page.evaluate("[...document.getElementById('plot-curves').layout.yaxis.range]")


def hover_text(page) -> str:
    page.wait_for_selector(".hoverlayer .hovertext")
    return page.locator(".hoverlayer .hovertext").text_content()


def middle(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


class TestParts:
    def test_come_in_the_order_in_which_they_are_asked_for(self, page):
        headings = page.locator("h2").all_inner_texts()
        assert headings[:5] == ["What is safe", "What is not", "Where it bleeds", "What to do", "Damage curves"]
        assert headings[-2:] == ["Tables", "Provenance"]
        tops = [heading.bounding_box()["y"] for heading in page.locator("h2").all()]
        assert tops == sorted(tops)

    def test_name_every_method(self, page, document):
        text = page.locator("main").inner_text()
        assert all(method["label"] in text for method in document["provenance"]["methods"])

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
        lines = page.locator("#plot-curves .scatterlayer .js-line")
        assert lines.count() == len(measured)
        page.locator("#plot-curves").scroll_into_view_if_needed()
        for line in lines.all():
            box = line.bounding_box()
            assert box["width"] > 20 and box["height"] > 5
            assert 0 <= box["x"] and box["x"] + box["width"] <= WIDTH
            assert 0 <= box["y"] and box["y"] + box["height"] <= HEIGHT

    def test_have_intervals_and_every_trial(self, page, document):
        assert page.locator("#plot-curves .errorbars .yerror").count() >= len(document["trials"])
        assert page.locator("#plot-curves .scatterlayer .point").count() >= len(document["trials"])

    def test_each_method_has_a_picture_of_its_own(self, page, document):
        figures = page.locator("#plots-own figure")
        assert figures.locator("h3").all_inner_texts() == [m["label"] for m in document["provenance"]["methods"]]
        for figure in figures.all():
            box = figure.locator(".js-line").bounding_box()
            assert box["width"] > 20 and box["height"] > 5

    def test_say_what_the_mouse_points_at(self, page, document):
        labels = [method["label"] for method in document["provenance"]["methods"]]
        page.locator("#plot-curves").scroll_into_view_if_needed()
        point = page.locator("#plot-curves .scatterlayer .trace").first.locator(".point").last
        page.mouse.move(*middle(point))
        text = hover_text(page)
        assert text.startswith(tuple(labels)) and "nats" in text and "perplexity" in text

    def test_zoom_and_return(self, page):
        page.locator("#plot-curves").scroll_into_view_if_needed()
        before, ticks = y_range(page), page.locator("#plot-curves .ytick").all_inner_texts()
        box = page.locator("#plot-curves .nsewdrag").bounding_box()
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
        page.mouse.up()
        page.wait_for_function(
            "before => document.getElementById('plot-curves').layout.yaxis.range[1] !== before[1]", arg=before
        )
        low, high = y_range(page)
        assert before[0] < low < high < before[1]
        assert page.locator("#plot-curves .ytick").all_inner_texts() != ticks
        page.wait_for_timeout(400)  # else the drag and the two clicks are three clicks
        page.mouse.dblclick(*middle(page.locator("#plot-curves .nsewdrag")))
        page.wait_for_function(
            "before => Math.abs(document.getElementById('plot-curves').layout.yaxis.range[1] - before[1]) < 1e-9",
            arg=before,
        )

    def test_change_with_quantity_scale_and_methods(self, page, document):
        caption = page.locator("#curves-axis")
        assert "logarithmic beyond" in caption.inner_text()
        controls = page.locator("#curves .controls")
        controls.get_by_role("button", name="linear").click()
        assert caption.inner_text() == "ΔNLL, nats per token"
        controls.get_by_role("button", name="Top-1 agreement").click()
        assert "first choice" in caption.inner_text()
        assert controls.get_by_role("button", name="linear").count() == 0
        lines = page.locator("#plot-curves .js-line").count()
        chip = page.locator(".chips button").first
        chip.click()
        assert chip.get_attribute("aria-pressed") == "false"
        assert page.locator("#plot-curves .js-line").count() == lines - 1
        chip.click()
        assert page.locator("#plot-curves .js-line").count() == lines
        controls.get_by_role("button", name="ΔNLL").click()
        controls.get_by_role("button", name="symlog").click()


class TestLayers:
    def test_cells_are_visible(self, page, document):
        assert document["localizations"]
        maps = page.locator("#plots-layers figure")
        assert maps.count() >= 3
        for cells in maps.locator(".heatmaplayer image").all():
            cells.scroll_into_view_if_needed()
            box = cells.bounding_box()
            assert box["width"] > 50 and box["height"] > 10

    def test_say_what_the_mouse_points_at(self, page):
        cells = page.locator("#plots-layers .heatmaplayer image").first
        cells.scroll_into_view_if_needed()
        page.mouse.move(*middle(cells))
        assert re.search(r"block \d+\s*alone [\d.−-]+ nats", hover_text(page))


class TestTogether:
    def test_cells_and_lines_are_visible(self, page, document):
        (surface,) = document["surfaces"]
        figure = page.locator("#plots-together figure")
        assert figure.count() == 1
        figure.scroll_into_view_if_needed()
        box = figure.locator(".heatmaplayer image").bounding_box()
        assert box["width"] > 300 and box["height"] > 100
        assert figure.locator(".contourlayer .contour").count() == 3
        ticks = figure.locator(".xtick text").all_text_contents()
        assert [float(tick) for tick in ticks] == surface["severities"][1]
        ticks = figure.locator(".ytick text").all_text_contents()
        assert sorted(map(float, ticks)) == surface["severities"][0]

    def test_say_what_the_mouse_points_at(self, page, document):
        (surface,) = document["surfaces"]
        cells = page.locator("#plots-together .heatmaplayer image")
        cells.scroll_into_view_if_needed()
        box = cells.bounding_box()
        rows, columns = (len(severities) for severities in surface["severities"])
        page.mouse.move(box["x"] + box["width"] * 2.5 / columns, box["y"] + box["height"] * 1.5 / rows)
        told = hover_text(page)
        assert f"sparsity {surface['severities'][0][1]:g}" in told
        assert f"{surface['severities'][1][2]:g} bits" in told
        assert "perplexity" in told

    def test_lines_cross_where_the_zone_ends(self, page, document):
        (surface,) = document["surfaces"]
        drawn = page.evaluate(
            "[...document.querySelector('#plots-together .plot').data].filter(t => t.type === 'contour')"
            ".map(t => [t.contours.start, t.z])"
        )
        right = surface["severities"][1]
        for tolerance, z in drawn:
            for row, edge in zip(z, surface["zone"][str(tolerance)], strict=True):
                if edge is None:
                    assert row[0] > tolerance
                    continue
                after = next((i for i, value in enumerate(row) if value > tolerance), None)
                if after is None:
                    assert edge == right[-1]
                    continue
                share = (tolerance - row[after - 1]) / (row[after] - row[after - 1])
                assert edge == pytest.approx(right[after - 1] + share * (right[after] - right[after - 1]))

    def test_sentences_follow_the_tolerance(self, page):
        def told():
            return page.locator("#together [data-tolerance]:visible").all_inner_texts()

        assert len(told()) == 1 and "0.05 nats" in told()[0]
        page.get_by_text("0.1", exact=True).first.click()
        assert len(told()) == 1 and "0.1 nats" in told()[0]
        drawn = "[...document.querySelector('#plots-together .plot').data]"
        assert page.evaluate(f"{drawn}.filter(trace => trace.line && trace.line.width > 2).map(t => t.name)") == ["0.1"]
        page.get_by_text("0.05", exact=True).first.click()

    def test_is_dark_in_the_dark(self, page):
        def corner():
            return page.eval_on_selector("#plots-together .main-svg", "e => getComputedStyle(e).backgroundColor")

        page.emulate_media(color_scheme="dark")
        page.wait_for_selector("#theme:text-is('Light')")
        assert max(channels(corner())) < DARK
        assert min(channels(style(page, "#plots-together .xtick text", "fill"))) > DARK
        page.emulate_media(color_scheme="light")
        page.wait_for_selector("#theme:text-is('Dark')")
        assert min(channels(corner())) > DARK

    def test_has_its_table(self, page, document):
        (surface,) = document["surfaces"]
        table = page.locator("table", has_text="Together: wanda, then rtn:group_size=64.")
        assert table.locator("tbody tr").count() == len(surface["severities"][0])
        cell = table.locator("tbody tr").nth(1).locator("td").nth(2)
        assert cell.inner_text() == f"{surface['damage'][1][2]['delta_nll']:+.4f}"


def test_generated_text_is_drawn(page, document):
    assert any(trial["damage"].get("generation") for trial in document["trials"])
    lines = page.locator("#plots-generation .js-line")
    assert lines.count() >= 4
    assert all(line.bounding_box()["width"] > 20 for line in lines.all())


class TestDarkMode:
    def test_follows_the_system_and_the_button(self, page):
        page.emulate_media(color_scheme="dark")
        button = page.locator("#theme")
        for _ in range(2):
            page.wait_for_selector("#theme:text-is('Light')")
            assert max(channels(style(page, "body", "backgroundColor"))) < DARK
            assert max(channels(style(page, "#plot-curves .main-svg", "backgroundColor"))) < DARK
            assert min(channels(style(page, "#plot-curves .xtick text", "fill"))) > DARK
            button.click()
            page.wait_for_selector("#theme:text-is('Dark')")
            assert min(channels(style(page, "body", "backgroundColor"))) > DARK
            assert min(channels(style(page, "#plot-curves .main-svg", "backgroundColor"))) > DARK
            assert max(channels(style(page, "#plot-curves .xtick text", "fill"))) < DARK
            button.click()
        page.emulate_media(color_scheme="light")


class TestPaper:
    def test_shows_every_part_in_light_colours(self, page):
        page.emulate_media(color_scheme="dark")
        parts = page.locator("section").count()
        page.emulate_media(media="print")
        page.wait_for_function("document.getElementById('plot-curves').layout.width === 680")
        assert page.locator("section:visible").count() == parts
        assert page.locator(".controls:visible, nav:visible, #theme:visible").count() == 0
        assert min(channels(style(page, "body", "backgroundColor"))) > DARK
        assert min(channels(style(page, "#plot-curves .main-svg", "backgroundColor"))) > DARK
        assert all(line.bounding_box()["width"] > 20 for line in page.locator(".js-line:visible").all())
        assert all(style(page, f"table >> nth={i}", "display") == "table" for i in range(page.locator("table").count()))
        page.emulate_media(media="screen")
        page.wait_for_function("document.getElementById('plot-curves').layout.width !== 680")
        assert max(channels(style(page, "body", "backgroundColor"))) < DARK
        page.emulate_media(color_scheme="light")


class TestTables:
    def test_sort_both_ways_and_back(self, page, document):
        table = page.locator("table", has_text="Trials.")
        heads = table.locator("thead th")
        names = [name.strip() for name in heads.all_inner_texts()]
        column = names.index("perplexity")

        def cells():
            return [float(text) for text in table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]

        before = cells()
        assert before != sorted(before)
        button = heads.nth(column).locator("button")
        button.click()
        assert cells() == sorted(before) and heads.nth(column).get_attribute("aria-sort") == "ascending"
        button.click()
        assert cells() == sorted(before, reverse=True) and heads.nth(column).get_attribute("aria-sort") == "descending"
        button.click()
        assert cells() == before and heads.nth(column).get_attribute("aria-sort") is None

    def test_are_described(self, page):
        assert page.locator("table").count() == page.locator("table > caption").count() > 2
        assert page.locator("thead th[scope=col]").count() == page.locator("thead th").count()
        assert page.locator("tbody th[scope=row]").count() == page.locator("tbody tr").count()


class TestAccessibility:
    def test_headings_skip_no_level(self, page):
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(heading => +heading.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))

    def test_pictures_have_words(self, page):
        pictures = page.locator("[role=img]")
        assert pictures.count() > 5
        assert all(picture.get_attribute("aria-label") for picture in pictures.all())
        assert "nats at" in page.locator("#plot-curves").get_attribute("aria-label")

    def test_buttons_have_names(self, page):
        assert all(
            button.get_attribute("aria-label") or button.inner_text().strip()
            for button in page.locator("button:visible").all()
        )

    def test_the_keyboard_reaches_the_verdict_first(self, page):
        skip = page.locator("a, button, input, [tabindex]").first
        skip.focus()
        assert skip.bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        page.wait_for_function("location.hash === '#safe'")


def test_a_narrow_page_does_not_scroll_sideways(page):
    for width in (768, 390, 320):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        assert all(plot.bounding_box()["width"] <= width for plot in page.locator(".plot").all())
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.wait_for_function("document.querySelector('#plot-curves svg').clientWidth > 800")


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
    page.mouse.move(*middle(page.locator("#plot-curves .scatterlayer .trace").first.locator(".point").last))
    assert name in hover_text(page)
    assert page.evaluate("window.harmed") is None
    assert page.locator("img").count() == 0 and page.locator("[onclick], [onerror]").count() == 0


def test_a_run_with_no_trials_yet_has_a_page(opened, document, tmp_path):
    empty = copy.deepcopy(document) | {"trials": [], "thresholds": [], "localizations": []}
    Report(empty).to_html(tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    assert "Nothing has been measured yet." in page.locator(".headline:visible").inner_text()
    assert not page.locator("#layers").is_visible() and not page.locator("#generation").is_visible()


class TestComparison:
    @pytest.fixture
    def other(self, document):
        """The same run, had it evaluated other tokens and every loss been a tenth more."""
        other = copy.deepcopy(document)
        other["provenance"]["evaluation"]["sha256"] = "0" * 64
        for trial in other["trials"]:
            damage = trial["damage"]
            damage["delta_nll"] *= 1.1
            damage["delta_nll_interval"] = [1.1 * bound for bound in damage["delta_nll_interval"]]
        return other

    def test_lays_both_runs_over_each_other(self, opened, document, other, tmp_path):
        Report(document).compare(Report(other), ("this", "that")).to_html(tmp_path / "comparison.html")
        page = opened(tmp_path / "comparison.html")
        assert "different tokens" in page.locator(".notice").inner_text()
        assert page.locator("h2").first.inner_text() == "What bleeds less"
        dashes = page.eval_on_selector_all(
            "#plot-curves .js-line", "lines => lines.map(line => line.style.strokeDasharray)"
        )
        assert sum(bool(dash) for dash in dashes) == len(dashes) / 2
        assert "solid: this · dashed: that" in page.locator(".chips").inner_text()
        assert page.locator("table", has_text="Trials in both runs").locator("tbody tr").count() == len(
            document["trials"]
        )
