"""Kills saves at random moments, lets them run out of room, and checks that nothing was lost.

    python tests/python/kill_saves.py --times 50

Each time a process that saves a model, over another one that has other files around it, is killed with SIGKILL. Then
the old model is there or the new one, bit for bit, with everything else; where the kill fell between the renames at the
end, a load finds the new one. Then the same is saved again, and no trace of the kill is left. Without room, the save
fails with the file's name, and everything is as it was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

import hemostat
from hemostat._whole_file import TEMPORARY

TARGET = "model"
UNFINISHED = ".hemostat-saved/"


class Form(NamedTuple):
    """One way to save: what lies there before, and the save itself; both take the place."""

    put: Callable[[Path], None]
    save: Callable[[Path], None]
    target: str = TARGET
    one_rename: bool = True  # separates the old model from the new one


@functools.cache
def models() -> tuple[hemostat.Model, hemostat.Model]:
    """Two of one config."""
    model = hemostat.data.reference().model
    return model, hemostat.prepare(model, "magnitude").at(0.5)


def put_run(place: Path) -> None:
    """A training run's directory."""
    run = place / TARGET
    models()[0].save(run)
    (run / "optimizer.pt").write_bytes(b"moments")
    for folder in ("notes", "checkpoint-500"):
        (run / folder).mkdir()
        (run / folder / "model.safetensors").write_bytes(b"by hand")
    (run / "link").symlink_to("notes")


def put_shards(place: Path) -> None:
    """The same, in forms and with a config that the new model contradicts."""
    put_run(place)
    run = place / TARGET
    shard = "model-00001-of-00001.safetensors"
    (run / "model.safetensors").rename(run / shard)
    index = ", ".join(f'"{name}": "{shard}"' for name in models()[0].tensors())
    (run / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{index}}}}}')
    (run / "pytorch_model.bin").write_bytes(b"another form")
    (run / "tokenizer.json").write_text("{}")


def put_file(place: Path) -> None:
    models()[0].save(place / f"{TARGET}.gguf")
    (place / "notes.txt").write_text("by hand")


def put_nothing(place: Path) -> None:
    (place / "notes.txt").write_text("by hand")


def save(place: Path) -> None:
    models()[1].save(place / TARGET)


def save_another(place: Path) -> None:
    hemostat.prepare(models()[0], "svd").at(0.5).save(place / TARGET)


def save_file(place: Path) -> None:
    models()[1].save(place / f"{TARGET}.gguf")


def apply(place: Path) -> None:
    from hemostat.cli import main

    words = ["apply", "reference", "--method", "magnitude", "--severity", "0.5", "--out", str(place / TARGET)]
    if not (place / TARGET).exists() and main(words):
        raise ValueError("hemostat apply failed")


directory_forms = {
    "over a run": Form(put_run, save),
    "over shards": Form(put_shards, save_another, one_rename=False),
    "new directory": Form(put_nothing, save),
    "apply": Form(put_nothing, apply),
}
file_forms = {"gguf": Form(put_file, save_file, f"{TARGET}.gguf")}
FORMS = directory_forms | file_forms


def found_in(place: Path) -> dict[str, str]:
    """What lies in a place: files by their digest, links by what they name."""
    found = {}
    for path in place.rglob("*"):
        name = str(path.relative_to(place))
        if TEMPORARY in name or path.is_dir() and not path.is_symlink():
            continue
        found[name] = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Saving:
    """A process that saves: it ends with 0, or with 1 where the save fails, and what it says goes to a pipe."""

    def __init__(self, form: Form, place: Path, most_bytes: int = resource.RLIM_INFINITY):
        self.reading, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            code = 1
            with contextlib.suppress(BaseException):
                signal.alarm(120)
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                sys.stdout = sys.stderr = open(writing, "w", buffering=1, encoding="utf-8")  # theirs may be of a file
                torch.set_num_threads(1)  # the threads did not come along
                warnings.simplefilter("ignore")
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
                try:
                    form.save(place)
                    code = 0
                except ValueError as error:
                    os.write(1, str(error).encode())
            os._exit(code)
        os.close(writing)

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)

    def ended(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        with open(self.reading, encoding="utf-8") as said:
            text = said.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1]), text


def prepared(form: Form, directory: Path) -> tuple[Path, dict[str, str], dict[str, str], float]:
    """A place as it is before, what is found in it then and after a save left alone, and how long that takes."""
    before, after = directory / "before", directory / "after"
    before.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form.put(before)
        models()
    shutil.copytree(before, after, symlinks=True)
    begun = time.monotonic()
    code, said = Saving(form, after).ended()
    assert code == 0, said
    return before, found_in(before), found_in(after), time.monotonic() - begun


def killed_and_checked(name: str, directory: Path, times: int, seed: int) -> collections.Counter[str]:
    """Kills a save so many times. Returns how often the old model, the new one, or a part of the renames was found."""
    form, moments = FORMS[name], random.Random(seed)
    before, old, new, seconds = prepared(form, directory)
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(times):
        place = directory / "place"
        shutil.copytree(before, place, symlinks=True)
        saving = Saving(form, place)
        time.sleep(moments.uniform(0, 1.1 * seconds))
        saving.kill()
        saving.ended()
        counts[state(form, place, old, new)] += 1
        code, said = Saving(form, place).ended()
        assert code == 0, said
        assert found_in(place) == new, "another save after the kill gives something else"
        left = [str(path) for path in place.rglob(f"{TEMPORARY}*")]
        assert not left, f"left behind: {left}"
        shutil.rmtree(place)
    return counts


def state(form: Form, place: Path, old: dict[str, str], new: dict[str, str]) -> str:
    """Which model a killed process left."""
    found = found_in(place)
    if found == old:
        return "old"
    if found == new:
        return "new"
    others = {name: digest for name, digest in found.items() if UNFINISHED not in name}
    lost = {name for name in old.keys() & new.keys() - others.keys() if old[name] == new[name]}
    assert not lost, f"lost: {sorted(lost)}"
    refused = not form.one_rename and f"{form.target}/config.json" not in others  # by every other loader
    assert others in (old, new) or refused, f"neither old nor new: {sorted(found)}"
    hemostat.Model.load(place / form.target)
    assert found_in(place) == new, "a load does not do the rest"
    return "between"


def without_room(name: str, directory: Path) -> int:
    """Saves with no room for whole files. Returns how many failed, which all have to."""
    form = FORMS[name]
    before, old, _, _ = prepared(form, directory)
    largest = max(path.stat().st_size for path in (directory / "after").rglob("*") if path.is_file())
    limits = [0, 100, 1000, largest // 2, largest - 1]
    for limit in limits:
        check_failure(form, before, old, limit, "File too large")
    return len(limits)


def check_failure(form: Form, place: Path, old: dict[str, str], limit: int, reason: str) -> None:
    code, said = Saving(form, place, limit).ended()
    assert code == 1, "saved without room"
    assert reason in said and str(place) in said, said
    assert found_in(place) == old, f"changed by a save that failed: {said}"
    left = [str(path) for path in place.rglob(f"{TEMPORARY}*")]
    assert not left, f"left behind: {left}"


def on_a_full_disk() -> None:
    """In a name space of its own: every form on a file system that has room for the old model and half of the new."""
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory(prefix="kill-saves-") as directory:
            root = Path(directory)
            before, old, _, _ = prepared(form, root)
            sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
            place = root / "place"
            place.mkdir()
            room = sum(path.stat().st_size for path in before.rglob("*") if path.is_file()) + max(sizes) // 2
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", place], check=True)
            try:
                shutil.copytree(before, place, symlinks=True, dirs_exist_ok=True)
                check_failure(form, place, old, resource.RLIM_INFINITY, "No space left on device")
            finally:
                subprocess.run(["umount", place], check=True)
        print(f"{name}: a full disk leaves what was there", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="how often each kind of save is killed [default: 50]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full-disk", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.full_disk:
        on_a_full_disk()
        return
    total: collections.Counter[str] = collections.Counter()
    failures = 0
    for name in FORMS:
        with tempfile.TemporaryDirectory(prefix="kill-saves-") as directory:
            counts = killed_and_checked(name, Path(directory), options.times, options.seed)
        with tempfile.TemporaryDirectory(prefix="kill-saves-") as directory:
            failures += without_room(name, Path(directory))
        print(f"{name}: {options.times} kills found {dict(sorted(counts.items()))}", flush=True)
        total += counts
    unshare = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *unshare, "--mount", sys.executable, __file__, "--full-disk"]
    if subprocess.run(["unshare", *unshare, "--mount", "true"], capture_output=True).returncode == 0:
        subprocess.run(command, check=True)
        failures += len(FORMS)
    else:
        print("no file system can be mounted here: a full disk was not tried")
    print(f"{total.total()} kills, {failures} saves without room: nothing lost {dict(sorted(total.items()))}")


if __name__ == "__main__":
    main()
