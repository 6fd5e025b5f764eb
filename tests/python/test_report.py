"""The forms of a scan's result: table, JSON, data frame and HTML."""

import copy
import json
import re

import pytest
from report_documents import BITS, SPARSITY, generated, localization, method, site
from report_documents import document as by_hand

import hemostat
from hemostat.report import Report, distance, number, write_whole


@pytest.fixture
def document():
    given = by_hand(
        method(
            "wanda",
            SPARSITY,
            [(0.25, 0.004, 0.0004, {"within_noise_floor": True}), (0.5, None, 0)],
            needs=["column_norm"],
        ),
        method("rtn", BITS, [(4, 0.03, 0.003, {"kl": {"p99": 0.15}})], group_size=64),
        method("rtn", BITS, [(4, 0.06, 0.006, {"kl": {"p99": 0.3}})], group_size=128),
        windows=4,
        floor=0.005,
    )
    given["provenance"]["model"] |= {"name": "a </script><b>model", "sha256": "ab" * 32}
    return given


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def embedded(page):
    return strict(re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)[1])


class TestJson:
    def test_has_four_parts_and_null_for_what_is_not_finite(self, document, tmp_path):
        Report(document).to_json(tmp_path / "report.json")
        read = strict((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert read.keys() == {"provenance", "baseline", "trials", "thresholds"}
        assert read == Report(document).to_dict()
        assert read["trials"][1]["damage"]["perplexity"] is None
        assert read["trials"][1]["damage"]["kl"]["by_confidence"] == [None] * 4
        assert read["trials"][2] == document["trials"][2]

    def test_is_read_back(self, document, tmp_path):
        Report(document).to_json(tmp_path / "report.json")
        again = Report.load(tmp_path / "report.json")
        assert again.to_dict() == Report(document).to_dict()
        assert again.table() == Report(document).table()

    def test_is_read_from_its_directory(self, document, tmp_path):
        Report(document).to_json(tmp_path / "report.json")
        assert Report.load(tmp_path).to_dict() == Report(document).to_dict()

    def test_what_is_not_there_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="has no report.json"):
            Report.load(tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no .*other.json"):
            Report.load(tmp_path / "other.json")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "it is no JSON"),
            ("\xff", "it is no JSON"),
            ("[]", r"the report is \[\], but must be an object"),
            ("{}", "the report has no provenance"),
            ('{"trials": []}', "the report has no provenance"),
        ],
    )
    def test_another_file_is_refused(self, content, reason, tmp_path):
        (tmp_path / "other.json").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match=f"other.json is not a report.json: {reason}"):
            Report.load(tmp_path / "other.json")

    def test_a_dict_of_it_is_a_copy(self, document):
        report = Report(document)
        report.to_dict()["trials"].clear()
        assert len(report.trials) == 4


class TestWriting:
    def test_a_missing_directory_is_named(self, document, tmp_path):
        for write in (Report(document).to_json, Report(document).to_html):
            with pytest.raises(FileNotFoundError, match="missing"):
                write(tmp_path / "missing" / "file")
        assert not list(tmp_path.iterdir())

    def test_a_failure_keeps_what_was_there(self, tmp_path):
        path = tmp_path / "report.json"
        path.write_text("before")
        with pytest.raises(UnicodeEncodeError):
            write_whole(path, "after \ud800")
        assert path.read_text() == "before"
        assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


class TestHtml:
    @pytest.fixture
    def page(self, document, tmp_path):
        Report(document).to_html(tmp_path / "report.html")
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_holds_the_numbers(self, page, document):
        assert embedded(page) == Report(document).to_dict()
        for text in ("rtn:group_size=64", "≤ 4 bits", "0.25", "noise floor", "ab" * 32):
            assert text in page

    def test_loads_nothing(self, page):
        ours = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.S)  # Vega itself
        assert "window.vegaEmbed=" in page and "window.vegaEmbed=" not in ours
        assert not re.search(r"(src|href|url|import|fetch)\s*[=(\s]\s*[\"']?(https?:)?//", ours)
        markup = re.sub(r"(<script[^>]*>).*?(?=</script>)", r"\1", page, flags=re.S)
        assert "vegaEmbed" not in markup and markup.count("<script") == page.count("</script>")
        assert not re.search(
            r"<(script|link|img|iframe|object|embed|video|audio|source)\b[^>]*\s(src|href|srcset|data)\s*=", markup
        )
        assert not re.search(r"@import|url\(", markup)

    def test_a_name_is_text_and_not_markup(self, page):
        assert "a &lt;/script&gt;&lt;b&gt;model" in page
        assert "</script><b>model" not in page

    def test_leaves_no_field_of_its_template(self, page):
        assert not re.search(r"\{\{[a-z]+\}\}", re.sub(r"<script>.*?</script>", "", page, flags=re.S))
        assert "{{palette}}" not in page


class TestDataFrame:
    def test_one_row_a_trial(self, document):
        frame = Report(document).to_dataframe()
        assert frame["method"].tolist() == ["wanda", "wanda", "rtn", "rtn"]
        assert frame["options"].tolist() == ["", "", '{"group_size": 64}', '{"group_size": 128}']
        assert frame["distance"].tolist() == [0.25, 0.5, 0.75, 0.75]
        assert frame["kl_p99"].tolist()[2:] == [0.15, 0.3]
        assert frame["delta_nll_low"].tolist()[2] == pytest.approx(0.027)
        assert frame["perplexity"].isna().tolist() == [False, True, False, False]

    def test_generation_is_flattened(self, document):
        measured = generated(prompts=2, prompt_length=8, new_tokens=8, first_divergence=3.5)
        document["trials"][0]["damage"]["generation"] = measured
        frame = Report(document).to_dataframe()
        assert frame["generation_first_divergence"].tolist()[0] == 3.5
        assert frame["generation_first_divergence_high"].tolist()[0] == 4

    def test_zones_have_a_row_a_tolerance(self, document):
        frame = Report(document).to_dataframe("zones")
        assert frame["tolerance"].tolist() == [0.02, 0.05, 0.1] * 3
        assert frame["severity"].tolist()[:3] == [0.25] * 3
        assert frame["severity"].tolist()[3] == pytest.approx(16 - 12 * 0.02 / 0.033)
        assert frame["edge"].tolist()[3] == pytest.approx(8)
        assert frame["censored"].tolist() == [False] * 4 + [True] * 2 + [False] * 2 + [True]
        assert frame["edge_low"].isna().all() and frame["edge_high"].isna().all()  # windows are not known

    def test_layers_have_a_row_a_place(self, document):
        assert Report(document).to_dataframe("layers").empty
        place = site("model.layers.0", 0, 0.1, delta_nll_interval=[0, 0.2])
        document["localizations"] = [localization([]) | {"sites": [place]}]
        frame = Report(document).to_dataframe("layers")
        assert frame[["method", "severity", "name", "delta_nll_high"]].values.tolist() == [
            ["wanda", 0.5, "model.layers.0", 0.2]
        ]

    def test_another_part_is_refused(self, document):
        with pytest.raises(ValueError, match="part is 'sites', but takes trials, zones, layers, surfaces"):
            Report(document).to_dataframe("sites")


class TestTable:
    def test_names_each_curve_once_and_its_zones(self, document):
        lines = Report(document).table().splitlines()
        assert lines[0] == (
            "a </script><b>model: perplexity 20 on 4 windows of 512 tokens; "
            "noise floor 0.005 nats per token (in bfloat16)"
        )
        curves = [line.split()[0] for line in lines[4:8]]
        assert curves == ["wanda", "0.5", "rtn:group_size=64", "rtn:group_size=128"]
        assert lines[4].endswith("within the noise floor")
        assert lines[5].split()[1] == "–"
        heads = [i for i, line in enumerate(lines) if line.startswith(("largest safe severity", "estimated to reach"))]
        zones, edges = ([re.split(r"\s{2,}", line) for line in lines[head + 2 : head + 5]] for head in heads)
        assert [zone[0] for zone in zones] == ["wanda", "rtn:group_size=64", "rtn:group_size=128"]
        assert zones[0][1:] == ["0.25"] * 3  # beyond it collapses
        assert zones[1][1:] == ["8.73 bits", "≤ 4 bits", "≤ 4 bits"]
        assert edges[1][1:] == ["8 bits", "≤ 4 bits", "≤ 4 bits"]

    def test_takes_other_tolerances_and_criteria(self, document):
        text = Report(document).table([0.03], by="kl")
        assert re.search(r"largest safe severity at a KL of +0\.03\n", text) and "estimated to reach a KL of" in text
        with pytest.raises(ValueError, match="tolerance is 0"):
            Report(document).table([0])

    def test_columns_are_aligned(self, document):
        rows = Report(document).table().splitlines()[2:8]
        ends = {row.index("%", 60) for row in rows if "%" in row[60:]}
        assert len(ends) == 1

    def test_without_trials(self, document):
        empty = copy.deepcopy(document) | {"trials": [], "thresholds": []}
        assert "perplexity 20" in Report(empty).table()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.1, "0.1"),
        (28.5176, "28.52"),
        (-0.00012345, "-0.0001234"),
        (4731234.0, "4.73e6"),
        (9.9e-7, "9.90e-7"),
        (100.0, "100"),
        (123456.0, "123456"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def test_distance_is_0_at_neutral_and_1_at_the_far_end():
    bits = hemostat.Axis(**BITS).to_dict()
    assert [distance(bits, severity) for severity in (16, 4, 0)] == [0, 0.75, 1]
