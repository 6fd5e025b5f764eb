"""The documentation builds without a warning, needs no network, misses nothing public, and its code runs."""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hemostat
from hemostat.cli import main

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HEADERS = sorted((ROOT / "cpp" / "include" / "hemostat").glob("*.h"))
OWN_METHODS = [method.name for method in hemostat.methods() if method.kind != "user"]
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


class Page(HTMLParser):
    """What a built page links to, what it makes the browser fetch, its anchors and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.fetched, self.anchors, self.words = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))
        typographic = str.maketrans("’“”", '\'""')
        self.text = " ".join("".join(self.words).split()).translate(typographic)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source"):
            self.fetched.append(given.get("src", ""))
        elif tag == "link" and given.get("rel") not in ("index", "search", "next", "prev"):
            self.fetched.append(given.get("href", ""))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The built documentation. Proxies that lead nowhere would fail whatever wants the network."""
    pytest.importorskip("furo", reason="the documentation's theme is not installed")
    out = tmp_path_factory.mktemp("docs")
    environment = os.environ | dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-d", str(out / "trees")]
    done = subprocess.run(
        [*command, str(DOCS), str(out / "html")], capture_output=True, text=True, env=environment, cwd=out
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="session")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_page_makes_the_browser_ask_the_network(site, pages):
    for path, page in pages.items():
        away = [address for address in page.fetched if re.match(r"(https?:)?//", address)]
        assert not away, f"{path.name} fetches {away}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_links_lead_somewhere(pages):
    for path, page in pages.items():
        for link in (*page.links, *page.fetched):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            reached = (path.parent / target.partition("?")[0]).resolve() if target else path
            assert reached.exists(), f"{path}: {link}"
            if anchor and reached in pages:
                assert anchor in pages[reached].anchors, f"{path}: {link}"


@pytest.mark.parametrize("name", OWN_METHODS)
def test_every_method_has_its_page(pages, site, name):
    text = pages[site / "methods" / f"{name}.html"].text
    method = next(method for method in hemostat.methods() if method.name == name)
    for option in method.options:
        assert option.description in text
    assert method.axis.name in text
    for section in ("What it does to a model", "Formula", "Limits", "Cost", "How it is checked", "Source", "See also"):
        assert section in text
    measured = f"{name}.svg" in " ".join(pages[site / "methods" / f"{name}.html"].fetched)
    assert measured or "Not measured yet" in text


def test_every_page_of_the_catalogue_is_of_a_method():
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} == {"index", *OWN_METHODS}


def public_names():
    """What each public module says it exports, the command line's own aside."""
    package = ROOT / "python" / "hemostat"
    modules = {"hemostat": package / "__init__.py"}
    for path in (*package.glob("*.py"), *package.glob("*/__init__.py")):
        name = path.parent.name if path.stem == "__init__" else path.stem
        if not name.startswith("_") and name not in ("hemostat", "cli"):
            modules[f"hemostat.{name}"] = path
    for module, path in modules.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from (f"{module}.{name}" for name in ast.literal_eval(node.value))


def test_every_public_python_name_is_described(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    anchors |= {anchor.removeprefix("module-") for anchor in anchors if anchor}
    missing = [name for name in public_names() if name not in anchors]
    assert not missing, f"docs/reference/python lacks {missing}"


def declared_names(header: Path):
    """Names at the beginning of lines of a public header: types, functions and constants outside of classes."""
    for line in header.read_text(encoding="utf-8").splitlines():
        if re.match(r"(//|#|namespace|\s|\}|$)", line):
            continue
        found = re.match(r"(?:enum )?(?:struct|class) (?:__attribute__\(\(.*?\)\) )?(\w+)", line) or re.match(
            r"using (?:\w+::)*(\w+)", line
        )
        if not found:
            found = re.search(r"(\w+)\(", line) or re.search(r"(\w+) =", line)
        if found:
            yield found[1]


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
def test_every_name_of_a_public_header_is_described(pages, site, header):
    page = pages.get(site / "reference" / "cpp" / f"{header.stem}.html")
    assert page, f"docs/reference/cpp/{header.stem}.rst is missing"
    missing = [name for name in declared_names(header) if not re.search(rf"\b{name}\b", page.text)]
    assert not missing


def test_every_number_of_a_damage_is_explained(tiny_model, damaged, tiny_tokens):
    explained = (DOCS / "metrics.md").read_text(encoding="utf-8")
    damage = hemostat.compare(tiny_model, damaged, tiny_tokens[:2]).to_dict()
    names = [name for name in damage if name != "generation"] + [f".{name}" for name in damage["kl"]]
    missing = [name for name in names if f"`{name}`" not in explained and f"`kl{name}`" not in explained]
    assert not [name for name in missing if name != "kl"]


def test_pictures_are_of_the_numbers_beside_them():
    sys.path.insert(0, str(DOCS))
    try:
        import smollm2_curves
    finally:
        sys.path.remove(str(DOCS))
    files = (smollm2_curves.DATA, smollm2_curves.SURFACE_DATA)
    drawn = smollm2_curves.pictures(*(json.loads(file.read_text(encoding="utf-8")) for file in files))
    listed = {spec.partition(":")[0] for row in smollm2_curves.SPECS for spec in row}
    measured = {curve["method"] for curve in json.loads(files[0].read_text(encoding="utf-8"))["curves"]}
    assert listed == set(OWN_METHODS)  # all that `make figures` has yet to measure too
    assert {path.stem for path in drawn} == {"smollm2-curves", "surface", *measured}
    for path, picture in drawn.items():
        assert path.read_text(encoding="utf-8") == picture, f"draw it anew: python docs/smollm2_curves.py ({path.name})"
        assert len(picture.encode()) <= 60_000


def blocks(page: str) -> list[tuple[str, str]]:
    """A page's code blocks: language and text."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """Where the documentation's files are."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(name == "python" for name, _ in blocks(page))])
def test_python_blocks_run_and_print_what_is_shown(page, workplace):
    scope = {}
    found = blocks(page)
    for (language, code), (next_language, shown) in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), scope)
        if next_language == "text":
            assert printed.getvalue() == shown


def own_commands(page: str) -> list[str]:
    """The command lines of `hemostat` that the page shows, without the prompt."""
    shown = "\n".join(body for name, body in blocks(page) if name == "console").replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in shown.splitlines() if line.startswith("$ hemostat")]


def test_pages_show_commands():
    assert len([page for page in PAGES if own_commands(page)]) > 3


@pytest.mark.parametrize("page", [page for page in PAGES if own_commands(page)])
def test_commands_run(page, workplace, capsys):
    for line in own_commands(page):
        assert main(quicker(shlex.split(line)[1:])) == 0, f"{line}\n{capsys.readouterr().err}"


def quicker(words: list[str]) -> list[str]:
    """The same command on a smaller model and less text."""
    words = ["reference" if word == "smollm2" else word for word in words]
    for option, value in (("--windows", "2"), ("--points", "2"), ("--calibration-windows", "4"), ("--localize", "1")):
        if option in words:
            words[words.index(option) + 1] = value
    return words
