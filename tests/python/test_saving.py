"""What a save replaces, what it leaves alone, what it refuses, and what it takes along."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from kill_saves import directory_forms, file_forms, killed_and_checked, without_room
from safetensors.torch import load_file, save_file

import hemostat
from hemostat.report import write_whole

TOKENS = torch.arange(12)


def files_in(directory: Path) -> dict[str, bytes | str]:
    """Everything below a directory: bytes of files, and where links lead."""
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def refuses(model, path, *words):
    """The save fails with a sentence, and nothing around its target changes."""
    place = Path(os.path.abspath(path)).parent
    before, modes = files_in(place), sorted(map(str, place.rglob("*")))
    with pytest.raises(ValueError) as error:
        model.save(path)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert files_in(place) == before
    assert sorted(map(str, place.rglob("*"))) == modes


def holds(path, model):
    return torch.equal(hemostat.Model.load(path).forward(TOKENS), model.forward(TOKENS))


@pytest.fixture
def source(tiny_checkpoint, tmp_path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "source")


@pytest.fixture
def run(tiny_checkpoint, tmp_path) -> Path:
    """A training run's directory: a checkpoint among other things."""
    run = shutil.copytree(tiny_checkpoint, tmp_path / "place" / "run")
    (run / "optimizer.pt").write_bytes(b"moments")
    (run / "notes").mkdir()
    (run / "notes" / "a.txt").write_text("by hand")
    (run / "checkpoint-500").mkdir()
    (run / "checkpoint-500" / "model.safetensors").write_bytes(b"earlier")
    (run / "adapter_model.safetensors").write_bytes(b"somebody's")
    (run / "model.backup.safetensors").write_bytes(b"somebody's")
    (run / ".gitignore").write_text("*.pt")
    (run / "elsewhere").symlink_to("notes")
    (run / "dangling").symlink_to("nowhere")
    return run


def foreign(run: Path) -> dict[str, bytes | str]:
    return {name: data for name, data in files_in(run).items() if name not in ("config.json", "model.safetensors")}


class TestWhatStays:
    @pytest.mark.parametrize("spelling", ["run", "run/", "run/.", "link", "link/", "run/notes/..", "gone/../run", "."])
    def test_everything_that_is_not_written(self, damaged, run, spelling, monkeypatch):
        before = foreign(run)
        (run.parent / "link").symlink_to("run")
        (run.parent / "gone").symlink_to(run / "notes")  # whose parent is run
        if spelling == "gone/../run":
            before, run = foreign(run) | {"run": "."}, run
            (run / "run").symlink_to(".")
        monkeypatch.chdir(run if spelling == "." else run.parent)
        inode = run.stat().st_ino
        damaged.save(spelling)
        assert foreign(run) == before
        assert run.stat().st_ino == inode
        assert (run.parent / "link").is_symlink()
        assert holds(run, damaged)

    def test_a_link_is_replaced_and_not_what_it_names(self, damaged, run):
        for name in ("model.safetensors", "tokenizer.json"):
            (run / name).rename(run.parent / name)
            (run / name).symlink_to(f"../{name}")
        before = files_in(run.parent)
        damaged.save(run)
        assert not (run / "model.safetensors").is_symlink()
        for name in ("model.safetensors", "tokenizer.json"):
            assert (run.parent / name).read_bytes() == before[name]
        assert holds(run, damaged)

    def test_over_the_files_that_the_model_is_mapped_from(self, run):
        before = foreign(run)
        model = hemostat.Model.load(run)
        logits = model.forward(TOKENS)
        for severity in (0.3, 0.5):
            changed = hemostat.prepare(model, "magnitude").at(severity)
            changed.save(run)
            assert holds(run, changed)
        assert torch.equal(model.forward(TOKENS), logits)
        assert foreign(run) == before

    def test_into_an_empty_directory(self, damaged, tmp_path, monkeypatch):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        damaged.save(".")
        assert holds(tmp_path / "empty", damaged)

    def test_through_a_link_to_what_is_still_to_be_made(self, damaged, tmp_path):
        (tmp_path / "link").symlink_to("new")
        damaged.save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert holds(tmp_path / "new", damaged)

    def test_parents_are_made(self, damaged, tmp_path):
        damaged.save(tmp_path / "a" / "b" / "model")
        damaged.save(tmp_path / "c" / "model.gguf")
        assert holds(tmp_path / "a" / "b" / "model", damaged)
        assert (tmp_path / "c" / "model.gguf").is_file()

    def test_permissions_are_the_umasks(self, damaged, tmp_path, source):
        os.chmod(source / "tokenizer.json", 0o444)
        model = hemostat.Model.load(source)
        previous = os.umask(0o027)
        try:
            model.save(tmp_path / "model")
            model.save(tmp_path / "model.gguf")
            write_whole(tmp_path / "report.json", "{}")
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750
        for path in (*(tmp_path / "model").iterdir(), tmp_path / "model.gguf", tmp_path / "report.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640, path


WEIGHTS = [
    "hemostat.json",
    "model-00001-of-00002.safetensors",
    "model.fp16.safetensors",
    "model.fp16-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "model.safetensors.index.fp16.json",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00003.bin",
    "pytorch_model.bin.index.json",
    "consolidated.safetensors",
    "consolidated.00.pth",
    "tf_model.h5",
    "flax_model.msgpack",
    "flax_model-00001-of-00002.msgpack",
]


class TestWhatGoes:
    def test_weights_that_a_loader_would_read_instead_or_beside(self, damaged, run):
        before = foreign(run)
        for name in WEIGHTS:
            (run / name).write_bytes(b"{}")
        damaged.save(run)
        assert foreign(run) == before
        assert holds(run, damaged)

    def test_shards_that_an_index_names(self, damaged, run):
        before = foreign(run)
        tensors = load_file(run / "model.safetensors")
        (run / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"first part.safetensors": names[:9], "zweite.safetensors": names[9:]}
        for part, held in parts.items():
            save_file({name: tensors[name] for name in held}, run / part)
        index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
        (run / "model.safetensors.index.json").write_text(json.dumps(index))
        index["weight_map"] |= {"x": "../source/model.safetensors", "y": "notes", "z": "optimizer.pt"}
        (run / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        assert holds(run, hemostat.Model.load(run))
        damaged.save(run)
        assert foreign(run) == before

    def test_what_was_not_expressible_and_is_again(self, tiny_model, run):
        with pytest.warns(UserWarning, match=r"hemostat\.json"):
            hemostat.prepare(tiny_model, "svd").at(0.5).save(run)
        assert (run / "hemostat.json").exists()
        tiny_model.save(run)
        assert not (run / "hemostat.json").exists()
        assert holds(run, tiny_model)

    def test_leftovers_of_killed_saves_and_not_those_of_others(self, damaged, run):
        for place in (run, run.parent):
            (place / ".hemostat-save-0123abcd").mkdir()
            (place / ".hemostat-save-0123abcd" / "model.safetensors").write_bytes(b"half")
        damaged.save(run)
        damaged.save(run.parent / "model.gguf")
        assert not list(run.parent.rglob(".hemostat-save*"))


class TestRefusals:
    @pytest.mark.parametrize(
        "config, words",
        [
            (None, "not a checkpoint"),
            ("{", "no JSON"),
            ("[]", "no JSON"),
            ("{}", "model_type"),
            ('{"model_type": 3}', "model_type"),
            ('{"model_type": "bert"}', "bert"),
            ('{"_class_name": "UNet2DConditionModel"}', "model_type"),
        ],
    )
    def test_directories_of_others(self, damaged, tmp_path, config, words):
        other = tmp_path / "other"
        other.mkdir()
        (other / "mine.txt").write_text("keep")
        if config is not None:
            (other / "config.json").write_text(config)
        (tmp_path / "link").symlink_to("other")
        for path in (other, tmp_path / "link"):
            refuses(damaged, path, str(other), words)

    def test_an_adapter_that_transformers_would_load_instead(self, damaged, run):
        (run / "adapter_config.json").write_text("{}")
        refuses(damaged, run, "adapter_config.json", "transformers")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "LICENSE"])
    def test_directories_where_files_go(self, source, run, name):
        (source / "LICENSE").write_text("free")
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
        refuses(hemostat.Model.load(source), run, name)

    def test_files_where_directories_go(self, damaged, tmp_path):
        (tmp_path / "file").write_text("keep")
        refuses(damaged, tmp_path / "file", "file", "not a directory")
        refuses(damaged, f"{tmp_path}/file/", "file", "not a directory")
        refuses(damaged, tmp_path / "file" / "model", "file", "not a directory")

    def test_paths_that_lead_nowhere(self, damaged, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        refuses(damaged, tmp_path / "loop", "loop")
        refuses(damaged, f"{tmp_path}/gone/../model", "gone/../model", "No such file")
        refuses(damaged, tmp_path / "loop.gguf" / "model.gguf" / ".." / ".." / "loop", "loop")
        with pytest.raises(ValueError, match="empty"):
            damaged.save("")

    def test_gguf_over_what_is_none(self, damaged, tmp_path):
        (tmp_path / "directory.gguf").mkdir()
        refuses(damaged, tmp_path / "directory.gguf", "directory.gguf is a directory")
        (tmp_path / "text.gguf").write_text("my notes")
        refuses(damaged, tmp_path / "text.gguf", "text.gguf", "not a GGUF file")
        os.mkfifo(tmp_path / "pipe.gguf")
        refuses(damaged, tmp_path / "pipe.gguf", "pipe.gguf", "not a regular file")
        (tmp_path / "full.gguf").symlink_to("/dev/full")
        refuses(damaged, tmp_path / "full.gguf", "full.gguf", "not a regular file")
        (tmp_path / "empty.gguf").touch()
        damaged.save(tmp_path / "empty.gguf")
        damaged.save(tmp_path / "empty.gguf")

    def test_a_link_to_a_gguf_file_stays(self, damaged, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "link.gguf").symlink_to("disk/model.gguf")
        damaged.save(tmp_path / "link.gguf")
        damaged.save(tmp_path / "link.gguf")
        assert (tmp_path / "link.gguf").is_symlink()
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model.gguf"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_directories_that_cannot_be_written_to(self, damaged, run):
        run.chmod(0o555)
        try:
            refuses(damaged, run, str(run), "Permission denied")
            refuses(damaged, run / "new", str(run), "Permission denied")
        finally:
            run.chmod(0o755)


COMPANIONS = [
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    "README.md",
    "USE_POLICY.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "modeling_mine.py",
    "preprocessor_config.json",
    "spiece.model",
    "vocab.json",
    "additional_chat_templates/tool.jinja",
]


class TestCompanions:
    def test_all_that_belongs_to_the_model(self, source, tmp_path):
        for name in (*COMPANIONS, *WEIGHTS[3:], "optimizer.pt", "model.gguf", ".gitattributes"):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(json.dumps({"transformers_version": name}))
        config = json.loads((source / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "modeling_mine.Mine"}
        (source / "config.json").write_text(json.dumps(config))
        for name in ("model.safetensors.index.json", "hemostat.json"):
            (source / name).unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hemostat.Model.load(source).save(tmp_path / "saved")
        saved = files_in(tmp_path / "saved")
        assert sorted(saved) == sorted([*COMPANIONS, "config.json", "model.safetensors", "tokenizer.json"])
        for name in COMPANIONS:
            assert saved[name] == (source / name).read_bytes()
        assert json.loads(saved["config.json"])["auto_map"] == config["auto_map"]

    def test_what_is_left_behind_is_said(self, source, tmp_path):
        (source / "onnx").mkdir()
        (source / "onnx" / "model.onnx").write_text("another form")
        os.truncate(os.open(source / "recording.wav", os.O_CREAT | os.O_WRONLY), 65 << 20)
        with pytest.warns(UserWarning, match=r"left behind in .*source: onnx/, recording.wav$"):
            hemostat.Model.load(source).save(tmp_path / "saved")
        assert sorted(files_in(tmp_path / "saved")) == ["config.json", "model.safetensors", "tokenizer.json"]

    @pytest.mark.parametrize(
        "name", ["generation_config.json", "tokenizer.model", "LICENSE", "additional_chat_templates/tool.jinja"]
    )
    @pytest.mark.parametrize("kind", ["dangling", "loop", "unreadable", "directory", "socket"])
    def test_what_cannot_be_read_fails_the_save(self, source, tmp_path, name, kind, monkeypatch):
        path = source / name
        path.parent.mkdir(exist_ok=True)
        if kind == "dangling":
            path.symlink_to("nowhere")
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "unreadable":
            if os.geteuid() == 0:
                pytest.skip("root may read everything")
            path.touch(mode=0)
        elif name == "LICENSE":
            pytest.skip("folders of that name are no licence; they are left behind")
        elif kind == "directory":
            path.mkdir()
        else:
            monkeypatch.chdir(path.parent)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
        model = hemostat.Model.load(source)
        refuses(model, tmp_path / "saved", str(path))
        (tmp_path / "run").mkdir()
        refuses(model, tmp_path / "run", str(path))

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
    def test_nor_does_gguf_drop_it(self, source, tmp_path, name):
        model = hemostat.Model.load(source)
        (source / name).unlink(missing_ok=True)
        (source / name).symlink_to("nowhere")
        refuses(model, tmp_path / "model.gguf", str(source / name))
        (source / name).unlink()
        (source / name).mkdir()
        refuses(model, tmp_path / "model.gguf", str(source / name))

    def test_chat_templates_go_through_gguf_and_back(self, source, tmp_path):
        (source / "additional_chat_templates").mkdir()
        (source / "additional_chat_templates" / "tool.jinja").write_text("{{ tool }}")
        (source / "chat_template.json").write_text(json.dumps({"chat_template": "{{ usual }}"}))
        hemostat.Model.load(source).save(tmp_path / "model.gguf")
        hemostat.Model.load(tmp_path / "model.gguf").save(tmp_path / "copy.gguf")
        hemostat.Model.load(tmp_path / "copy.gguf").save(tmp_path / "directory")
        directory = tmp_path / "directory"
        assert json.loads((directory / "tokenizer_config.json").read_text())["chat_template"] == "{{ usual }}"
        assert (directory / "additional_chat_templates" / "tool.jinja").read_text() == "{{ tool }}"
        assert (directory / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()

    @pytest.mark.parametrize("form", ["directory", "gguf"])
    def test_a_source_that_is_gone_is_said(self, source, tmp_path, form):
        path = source
        if form == "gguf":
            path = tmp_path / "source.gguf"
            hemostat.Model.load(source).save(path)
        model = hemostat.Model.load(path)
        path.rename(tmp_path / "moved")
        for target in ("saved", "saved.gguf"):
            with pytest.warns(UserWarning, match=f"{path}, where the model came from, is not there"):
                model.save(tmp_path / target)

    def test_what_is_not_the_models_own_is_said(self, source, run):
        (run / "merges.txt").write_text("of another")
        with pytest.warns(UserWarning, match="kept beside the model, though not its own: merges.txt"):
            hemostat.Model.load(source).save(run)
        assert (run / "merges.txt").read_text() == "of another"


class TestPaths:
    @pytest.fixture
    def places(self, tiny_checkpoint, damaged, tmp_path, monkeypatch):
        """here/model and there/model, and here/link to there/inner: link/../model is there/model."""
        for name in ("here", "there"):
            shutil.copytree(tiny_checkpoint, tmp_path / name / "model")
        (tmp_path / "there" / "inner").mkdir()
        (tmp_path / "here" / "link").symlink_to(tmp_path / "there" / "inner")
        damaged.save(tmp_path / "there" / "model")
        (tmp_path / "here" / "model" / "tokenizer.json").write_text("{")
        monkeypatch.chdir(tmp_path / "here")
        return tmp_path

    def test_links_come_before_dots(self, places, damaged):
        model = hemostat.Model.load("link/../model")
        assert holds("link/../model", damaged)
        assert model.source == str(places / "there" / "model")
        assert model.tokenizer.get_vocab_size() == 259
        model.save("link/../copy")
        assert holds(places / "there" / "copy", damaged)
        assert not (places / "here" / "copy").exists()

    def test_in_files_too(self, places, damaged):
        damaged.save("link/../model.gguf")
        assert not (places / "here" / "model.gguf").exists()
        assert hemostat.Model.load("link/../model.gguf").source == str(places / "there" / "model.gguf")
        write_whole("link/../report.json", "{}")
        assert (places / "there" / "report.json").read_text() == "{}"

    @pytest.mark.parametrize("spelling", [".", "../model", "./", "../model/."])
    def test_the_source_outlives_the_working_directory(self, places, spelling, monkeypatch):
        monkeypatch.chdir(places / "there" / "model")
        model = hemostat.Model.load(spelling)
        monkeypatch.chdir("/")
        assert model.source == str(places / "there" / "model")
        assert model.tokenizer.get_vocab_size() == 259

    def test_a_link_keeps_its_name(self, places):
        (places / "here" / "latest").symlink_to(places / "there" / "model")
        assert hemostat.Model.load("latest").source == str(places / "here" / "latest")


class TestReports:
    def test_through_a_link(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "report.json").symlink_to("disk/report.json")
        for text in ("new", "newer"):
            write_whole(tmp_path / "report.json", text)
            assert (tmp_path / "disk" / "report.json").read_text() == text
        assert (tmp_path / "report.json").is_symlink()
        assert sorted(files_in(tmp_path)) == ["disk/report.json", "report.json"]

    def test_what_cannot_be_written_is_named(self, tmp_path):
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            write_whole("/dev/full", "text")
        with pytest.raises(IsADirectoryError, match=str(tmp_path)):
            write_whole(tmp_path, "text")
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file/report.json"):
            write_whole(tmp_path / "file" / "report.json", "text")
        (tmp_path / "report.json").write_text("before")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            with pytest.raises(OSError, match=f"File too large: '{tmp_path}/report.json'"):
                write_whole(tmp_path / "report.json", "text" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert files_in(tmp_path) == {"file": b"", "report.json": b"before"}

    def test_leftovers_are_removed_but_for_those_that_are_held(self, tmp_path):
        import fcntl

        for name in ("dead", "held"):
            (tmp_path / f".hemostat-save-{name}").mkdir()
            (tmp_path / f".hemostat-save-{name}" / "report.json").write_text("half")
        descriptor = os.open(tmp_path / ".hemostat-save-held", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_whole(tmp_path / "report.json", "text")
        os.close(descriptor)
        assert sorted(files_in(tmp_path)) == [".hemostat-save-held/report.json", "report.json"]


@pytest.mark.integration
class TestApply:
    def apply(self, tiny_checkpoint, out):
        from hemostat.cli import main

        return main(["apply", str(tiny_checkpoint), "--method", "magnitude", "--severity", "0.5", "--out", str(out)])

    def test_an_existing_target_is_refused_before_any_work(self, tiny_checkpoint, run, capsys, monkeypatch):
        monkeypatch.setattr(hemostat, "prepare", None)
        (run.parent / "empty.gguf").mkdir()
        (run.parent / "file").touch()
        (run.parent / "loop").symlink_to("loop")
        before = files_in(run.parent)
        for name in ("run", "run/notes", "empty.gguf", "file", "run/config.json", "file/new", "loop"):
            assert self.apply(tiny_checkpoint, run.parent / name) == 2
            assert str(run.parent / name) in capsys.readouterr().err
        assert files_in(run.parent) == before

    def test_what_a_killed_process_left_is_no_target(self, tiny_checkpoint, damaged, tmp_path):
        (tmp_path / "out" / ".hemostat-save-0123abcd").mkdir(parents=True)
        assert self.apply(tiny_checkpoint, tmp_path / "out") == 0
        assert holds(tmp_path / "out", damaged)
        assert not list(tmp_path.rglob(".hemostat-save*"))


class TestInterruption:
    @pytest.fixture
    def cut_short(self, run, damaged):
        """A save that was killed when its files were to be renamed, config.json removed."""
        before = foreign(run)
        saved = run / ".hemostat-saved"
        damaged.save(saved)
        shutil.rmtree(saved / "additional_chat_templates", ignore_errors=True)
        names = sorted(path.name for path in saved.iterdir())
        (run / "hemostat.json").write_text("{}")
        (saved / ".names").write_bytes(b"".join(f"{name}\0".encode() for name in [*names, "", "hemostat.json"]) + b"\0")
        (run / "config.json").unlink()
        return before

    def test_a_load_does_the_rest(self, run, damaged, cut_short):
        assert holds(run, damaged)
        assert foreign(run) == cut_short

    def test_a_save_does_the_rest(self, run, tiny_model, cut_short):
        tiny_model.save(run)
        assert holds(run, tiny_model)
        assert foreign(run) == cut_short

    def test_a_list_that_lies_is_refused(self, run, damaged, cut_short, tmp_path):
        (tmp_path / "place" / "mine").write_text("keep")
        for names in (b"../mine\0\0\0", b"\0../mine\0\0", b"notes/a.txt\0\0\0", b"\0..\0\0", b"\0/etc/x\0\0"):
            (run / ".hemostat-saved" / ".names").write_bytes(names)
            before = files_in(tmp_path)
            with pytest.raises(ValueError, match="cut short"):
                hemostat.Model.load(run)
            assert files_in(tmp_path) == before

    def test_a_link_is_none(self, run, damaged, cut_short):
        (run / ".hemostat-saved").rename(run.parent / "elsewhere")
        (run / ".hemostat-saved").symlink_to("../elsewhere")
        with pytest.raises(ValueError, match="config.json"):
            hemostat.Model.load(run)


class TestKills:
    """A few of what kill_saves.py does many times."""

    @pytest.mark.parametrize("form", [*directory_forms, *file_forms])
    def test_old_or_new(self, form, tmp_path):
        counts = killed_and_checked(form, tmp_path, times=6, seed=0)
        assert sum(counts.values()) == 6

    @pytest.mark.parametrize("form", [*directory_forms, *file_forms])
    def test_a_full_disk(self, form, tmp_path):
        assert without_room(form, tmp_path) > 3


@pytest.mark.integration
def test_the_harness_runs_alone(tmp_path):
    script = Path(__file__).with_name("kill_saves.py")
    out = subprocess.run([sys.executable, script, "--times", "1"], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "nothing lost" in out.stdout


@pytest.mark.parametrize("version", sorted(path.name for path in (Path(__file__).parent / "data" / "saved").iterdir()))
def test_what_any_version_saved_computes_the_same(version):
    """Directories with hemostat.json, one of each of its versions, kept from when they were written."""
    directory = Path(__file__).parent / "data" / "saved" / version
    expected = json.loads((directory / "expected.json").read_text())
    assert json.loads((directory / "hemostat.json").read_text())["version"] == int(version)
    logits = hemostat.Model.load(directory)(torch.tensor(expected["tokens"]))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=1e-4, atol=1e-4)


def test_a_field_that_is_not_saved_is_neutral_and_an_unknown_one_is_refused(tmp_path):
    shutil.copytree(Path(__file__).parent / "data" / "saved" / "3", tmp_path / "saved")
    path = tmp_path / "saved" / "hemostat.json"
    given = json.loads(path.read_text())
    for block in given["blocks"]:
        del block["mlp_residual"], block["attention"]["sinks"]
    del given["token_noise"], given["temperature"]
    path.write_text(json.dumps(given))
    model = hemostat.Model.load(tmp_path / "saved")
    assert model.decoder.temperature == 1 and model.input.kind == "none"
    given["blocks"][1]["mlp"]["of_the_future"] = 2
    path.write_text(json.dumps(given))
    with pytest.raises(ValueError, match="field 'of_the_future' is unknown; a later hemostat"):
        hemostat.Model.load(tmp_path / "saved")
