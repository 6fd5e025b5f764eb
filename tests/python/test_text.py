"""Text as people have it: line ends, encodings, pipes, file names; and tokens in pieces that are those of the whole."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from hemostat import _streamed_text, data
from hemostat.data import described_tokens, reference_directory

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def byte_level(**parts) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(reference_directory() / "tokenizer.json"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def sentence_piece(**parts) -> Tokenizer:
    """As LLaMA 2's: no words, pieces that never hold a space but at their beginning, bytes for what is unknown."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz.,T"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("a", "b"), ("ab", "ab"), ("▁", "▁"), ("▁▁", "▁▁"), ("a", "a")]
    pieces += ["".join(pair) for pair in merges]
    bpe = models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken("<|im|>"), AddedToken("<pad>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("the the"), AddedToken("aab", normalized=False), AddedToken("\n\n\n")])
    return tokenizer


def unigram() -> Tokenizer:
    description = json.loads(sentence_piece().to_str())
    pieces = description["model"]["vocab"]
    scores = [[piece, -1.0 - index % 37] for index, piece in enumerate(pieces)]
    description["model"] = {"type": "Unigram", "vocab": scores, "unk_id": 0, "byte_fallback": True}
    return Tokenizer.from_str(json.dumps(description))


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "the": 2, "##b": 3, "b": 4}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


TOKENIZERS = {
    "byte level": byte_level,
    "byte level with added tokens": lambda: with_added(byte_level()),
    "llama 3": lambda: byte_level(pre_tokenizer=split(LLAMA3), post_processor=processors.ByteLevel(trim_offsets=True)),
    "smollm": lambda: byte_level(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "prefix space": lambda: byte_level(
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True), normalizer=normalizers.NFC()
    ),
    "sentencepiece": sentence_piece,
    "sentencepiece with added tokens": lambda: with_added(sentence_piece()),
    "metaspace": lambda: sentence_piece(normalizer=None, pre_tokenizer=pre_tokenizers.Metaspace()),
    "metaspace in one": lambda: sentence_piece(
        normalizer=None, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    ),
    "unigram": unigram,
    "wordpiece": words,
}

ATOMS = [
    *("a", "b", "aab", "ab", " ", "  ", "\n", "\r\n", "\n\n\n", "\t", "the the", "the", "The", "1", "123", "1234567"),
    *("。", "寿司", "é", "e\u0301", "😀", "<|im|>", "<pad>", " <pad> ", "'s", ".", "...", "!?\n", "\u3000", "\u00a0"),
    *("x" * 300, " " * 200, "7" * 50, "ab" * 100, "字" * 80, "▁", "<0x0A>", "\u200d", "नमस्ते"),
]


def odd_text(draw: random.Random) -> str:
    atoms = draw.sample(ATOMS, draw.choice([1, 2, 3, 10, len(ATOMS)]))
    parts, goal = [], draw.randint(200, 6000)
    while sum(map(len, parts)) < goal:
        parts.append(draw.choice(atoms))
    return "".join(parts)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(_streamed_text, "FIRST_PIECE", 600)
    monkeypatch.setattr(_streamed_text, "LARGEST_PIECE", 1200)


def pieces(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    return list(
        _streamed_text.encoded(tokenizer, _streamed_text.Text(text, is_path=False, newlines="keep", where="test"))
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_joined_are_the_tokens_of_the_whole(name, small_pieces):
    tokenizer, draw = TOKENIZERS[name](), random.Random(name)
    joined = 0
    for _ in range(25):
        text = odd_text(draw)
        found = pieces(tokenizer, text)
        assert list(itertools.chain(*found)) == tokenizer.encode(text, add_special_tokens=False).ids, text
        joined += len(found) - 1
    assert joined > 25  # or nothing was shown


@pytest.mark.parametrize("name", TOKENIZERS)
def test_prose_is_cut_into_small_pieces(name, small_pieces, monkeypatch):
    tokenizer = TOKENIZERS[name]()
    text = " ".join(["the boy, the cat. And then 12345 of them!\n"] * 2000)
    longest = 0
    encode = type(tokenizer).encode

    class Watched:
        def __getattr__(self, attribute):
            return getattr(tokenizer, attribute)

        def encode(self, string, **options):
            nonlocal longest
            longest = max(longest, len(string))
            return encode(tokenizer, string, **options)

    assert list(itertools.chain(*pieces(Watched(), text))) == tokenizer.encode(text, add_special_tokens=False).ids
    assert longest < 4000  # of 86,000


def test_a_text_without_any_place_to_cut_is_encoded_whole(small_pieces):
    tokenizer = byte_level()
    text = "".join(random.Random(0).choices("abcdefgh", k=9000))
    assert list(itertools.chain(*pieces(tokenizer, text))) == tokenizer.encode(text, add_special_tokens=False).ids


def test_windows_bound_what_is_read(trained, tmp_path):
    file = tmp_path / "big.txt"
    file.write_text("the quick brown fox. " * 200_000)
    expected = data.tokens(trained.model, text=file.read_text()[:100_000], windows=4)
    read = 0
    opened = open

    def counting(path, mode):
        stream = opened(path, mode)
        original = stream.read

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                stream.close()

            def read(self, size):
                nonlocal read
                read += size
                return original(size)

        return Counting()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_streamed_text, "open", counting, raising=False)
        found = data.tokens(trained.model, file, windows=4)
    assert torch.equal(found, expected)
    assert read <= 1 << 17  # of 4,200,000


@pytest.mark.integration
def test_all_of_a_large_text_takes_little_memory(trained, tmp_path):
    file = tmp_path / "big.txt"
    file.write_text("the quick brown fox. " * 400_000)
    program = (
        "import resource, sys; from hemostat import _streamed_text; from tokenizers import Tokenizer\n"
        "t = Tokenizer.from_file(sys.argv[1]); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); n = 0\n"
        "text = _streamed_text.Text(sys.argv[2], is_path=True, newlines='keep', where='')\n"
        "for ids in _streamed_text.encoded(t, text): n += len(ids)\n"
        "print(n, (peak() - before) // 1024)"
    )
    arguments = [sys.executable, "-c", program, str(reference_directory() / "tokenizer.json"), str(file)]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    count, megabytes = map(int, output.split())
    assert count > 2_000_000
    assert megabytes < 150  # as a whole it takes more than a gigabyte


class TestLineEnds:
    text = "one\ntwo\n\nthree\n" * 20

    @pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
    def test_are_read_as_one_kind(self, tiny_model, tmp_path, end):
        file = tmp_path / "text.txt"
        file.write_bytes(self.text.replace("\n", end).encode())
        expected = data.tokens(tiny_model, text=self.text)
        assert torch.equal(data.tokens(tiny_model, file), expected)
        assert torch.equal(data.tokens(tiny_model, text=self.text.replace("\n", end)), expected)

    def test_are_kept_where_that_is_asked_for(self, tiny_model, tmp_path):
        file = tmp_path / "text.txt"
        file.write_bytes(b"a\r\nb\r" * 32)
        kept = data.tokens(tiny_model, file, newlines="keep", length=5)
        assert torch.equal(kept, data.tokens(tiny_model, text="a\r\nb\r" * 32, newlines="keep", length=5))
        assert len(set(map(tuple, kept.tolist()))) == 1 and len(set(kept[0].tolist())) == 4

    def test_a_pair_that_two_reads_share_is_one_end(self, tiny_model, tmp_path):
        file = tmp_path / "text.txt"
        file.write_bytes(b"x" * ((1 << 16) - 1) + b"\r\n" + b"y" * 100)
        found = data.tokens(tiny_model, file, length=2).flatten().tolist()
        expected = data.tokens(tiny_model, text="x" * ((1 << 16) - 1) + "\n" + "y" * 100, length=2).flatten().tolist()
        assert found == expected

    def test_the_description_says_so(self, tiny_model, tmp_path):
        file = tmp_path / "text.txt"
        file.write_bytes(b"a\r\nb\r" * 32)
        assert described_tokens(tiny_model, file)[1] == rf"{file} (line ends \r\n and \r read as \n)"
        assert described_tokens(tiny_model, file, newlines="keep")[1] == rf"{file} (line ends \r\n and \r kept)"
        file.write_bytes(b"a\nb" * 32)
        assert described_tokens(tiny_model, file)[1] == str(file)

    def test_another_word_is_refused(self, tiny_model):
        with pytest.raises(ValueError, match='newlines is \'unix\', but must be "universal" or "keep"'):
            data.tokens(tiny_model, text="x" * 99, newlines="unix")


class TestEncodings:
    text = "naïve café, 寿司 😀\n" * 20

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
    def test_a_byte_order_mark_says_which(self, tiny_model, tmp_path, encoding):
        file = tmp_path / "text.txt"
        mark = "\ufeff" if encoding.endswith("-be") else ""
        file.write_bytes((mark + self.text).encode(encoding))
        found, description = described_tokens(tiny_model, file)
        assert torch.equal(found, data.tokens(tiny_model, text=self.text))
        assert ("decoded from" in description) == (encoding != "utf-8-sig")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("café".encode("latin-1") * 30, r"is not UTF-8 text \(byte 3\): there is 0xE9.*iconv"),
            (b"x" * (1 << 16) + b"\xff", r"is not UTF-8 text \(byte 65536\)"),
            (b"x" * ((1 << 16) - 1) + "é".encode()[:1], r"is not UTF-8 text \(byte 65535\)"),
            (b"x" * ((1 << 16) - 1) + b"\xc3x", r"is not UTF-8 text \(byte 65535\)"),
            ("hello".encode("utf-16-le"), r"zero byte \(byte 1\).*UTF-16"),
            (b"\x7fELF\0\0", r"zero byte \(byte 4\)"),
            (b"\xff\xfe" + b"a\0\0\xd8", r"byte order mark of UTF-16-LE, but is not UTF-16-LE text \(byte 4\)"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer.*git lfs pull"),
        ],
    )
    def test_what_is_no_text_is_refused_with_the_byte(self, tiny_model, tmp_path, content, message):
        file = tmp_path / "text.txt"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"text.txt {message}|text.txt (holds|begins|is).*{message}") as error:
            data.tokens(tiny_model, file)
        assert "\n" not in str(error.value)

    def test_half_a_character_in_a_string_is_refused(self, tiny_model):
        with pytest.raises(ValueError, match=r"half a character \(character 2"):
            data.tokens(tiny_model, text="ab\udcff" * 40)


class TestSources:
    text = "abc \n" * 40

    def test_a_fifo_is_read_once(self, tiny_model, tmp_path):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_text, args=(self.text,))
        writer.start()
        found = data.tokens(tiny_model, fifo)
        writer.join()
        assert torch.equal(found, data.tokens(tiny_model, text=self.text))

    def test_standard_input(self, tiny_model, monkeypatch, tmp_path):
        file = tmp_path / "text.txt"
        file.write_text(self.text)
        with open(file) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            found, description = described_tokens(tiny_model, "-")
            assert not stream.closed
        assert torch.equal(found, data.tokens(tiny_model, text=self.text))
        assert description == "standard input"

    @pytest.mark.parametrize("name", [b"two words.txt", "寿司 'é\".txt".encode(), b"\xff\xfe.txt", b"a\nb"])
    def test_a_name_of_any_bytes(self, tiny_model, tmp_path, name):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "w") as file:
            file.write(self.text)
        found, description = described_tokens(tiny_model, os.fsdecode(path))
        assert torch.equal(found, data.tokens(tiny_model, text=self.text))
        description.encode()  # whatever the name, every stream and file takes it
        with pytest.raises(FileNotFoundError, match="there is no file"):
            data.tokens(tiny_model, os.fsdecode(path) + "x")

    def test_white_space_first_is_no_empty_text(self, tiny_model, tmp_path):
        file = tmp_path / "text.txt"
        file.write_text(" " * 70_000 + "x")
        assert data.tokens(tiny_model, file, windows=1).shape == (1, 64)
        file.write_text(" " * 70_000)
        with pytest.raises(ValueError, match="text.txt is empty"):
            data.tokens(tiny_model, file, windows=1)


class TestTypes:
    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            (("model", "x"), {}, "model is a str, but must be a hemostat.Model"),
            ((None, "x"), {}, "model is a NoneType"),
            (("MODEL", 5), {}, "path is a int, but must be a path"),
            (("MODEL", ["a.txt"]), {}, "path is a list"),
            (("MODEL",), {"text": b"abc"}, "text is a bytes, but must be a string"),
            (("MODEL",), {"text": "x" * 99, "length": "64"}, "length is a str, but must be an integer"),
            (("MODEL",), {"text": "x" * 99, "length": 8.0}, "length is a float"),
            (("MODEL",), {"text": "x" * 99, "windows": True}, "windows is True, but must be an integer"),
        ],
    )
    def test_are_refused_in_a_sentence(self, tiny_model, arguments, options, message):
        arguments = [tiny_model if argument == "MODEL" else argument for argument in arguments]
        with pytest.raises(TypeError, match=f"hemostat.data.tokens: {message}"):
            data.tokens(*arguments, **options)

    def test_byte_count_takes_lists_and_arrays(self, tiny_model):
        windows = data.tokens(tiny_model, text="abc" * 50, length=16)
        assert data.byte_count(tiny_model, windows.cpu().numpy()) == data.byte_count(tiny_model, windows)
        assert data.byte_count(tiny_model, windows.tolist()) == windows[:, 1:].numel()
        for tokens, message in (("abc", "tokens is a str"), (None, "NoneType"), ([[0.5, 1.0]], "float32")):
            with pytest.raises(TypeError, match=f"hemostat.data.byte_count: .*{message}"):
                data.byte_count(tiny_model, tokens)
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            data.byte_count(tiny_model, [1, 2, 3])
