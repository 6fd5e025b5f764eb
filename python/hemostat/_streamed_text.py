"""Text as people have it, read once and in pieces, and its tokens, which are those of the whole.

A text is a file, a pipe or a string. It is decoded as it comes (UTF-8, or what its byte order mark says), its line ends
become ``\\n``, and it is encoded piece by piece, so that neither the text nor what the tokenizer makes of it is ever in
memory as a whole.

Pieces are joined where that changes no token. Tokenizers split a text into words from left to right and look at each
word alone: after a place where a word begins both in a piece and in the next one, which begins somewhat before it, the
two agree for ever. Tokenizers without words (SentencePiece's BPE) merge neighbours into entries of their vocabulary:
where no entry holds the two characters left and right of a place, nothing is ever merged across it.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from hemostat._file_names import shown

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["LFS_POINTER", "NEWLINES", "Text", "encoded"]

NEWLINES = ("universal", "keep")

# Longest first: UTF-32's begins as UTF-16's does.
BYTE_ORDER_MARKS = [
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

FIRST_PIECE = 1 << 14  # characters; pieces double up to the largest
LARGEST_PIECE = 1 << 17
MARGIN = 64  # characters at a piece's end whose tokens may be others when the text goes on
CONTEXT = 256  # characters before a join with which the next piece begins, at least
AGREEING = 8  # tokens left and right of a join that both pieces must have, at least


class Text:
    """A text that is read once, from its beginning.

    Args:
        source: a path, ``"-"`` or a string.
        is_path: which of the two.
        newlines: ``"universal"``: ``\\r\\n`` and ``\\r`` become ``\\n``; ``"keep"``: they stay.
        where: who asks, for messages.
    """

    def __init__(self, source: str | os.PathLike[str], *, is_path: bool, newlines: str, where: str) -> None:
        self.name = shown(source) if is_path else "text"
        self.blank = True  # nothing but white space so far
        self.encoding = "utf-8"
        self._where = where
        self._pending = ""
        self._newlines = newlines
        self._ends = io.IncrementalNewlineDecoder(None, translate=newlines == "universal")
        self._strings = self._decoded(self._opened(source)) if is_path else _slices(str(source), where)

    def read(self, size: int) -> str:
        """The next ``size`` characters; fewer at the text's end only."""
        parts, length = [self._pending], len(self._pending)
        while length < size:
            string = next(self._strings, None)
            if string is None:
                parts.append(self._ends.decode("", final=True))
                break
            parts.append(self._ends.decode(string))
            length += len(parts[-1])
        string = "".join(parts)
        self._pending = string[size:]
        string = string[:size]
        self.blank = self.blank and not string.strip()
        return string

    @property
    def description(self) -> str:
        """Its name, and what was done to it that its bytes don't show."""
        ends = self._ends.newlines or ()
        odd = [repr(end).strip("'") for end in ([ends] if isinstance(ends, str) else ends) if end != "\n"]
        notes = []
        if self.encoding != "utf-8":
            notes.append(f"decoded from {self.encoding.upper()}")
        if odd:
            done = "read as \\n" if self._newlines == "universal" else "kept"
            notes.append(f"line ends {' and '.join(sorted(odd, reverse=True))} {done}")
        return f"{self.name} ({'; '.join(notes)})" if notes else self.name

    def _opened(self, path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[IO[bytes]]:
        try:
            if os.fspath(path) == "-":
                return contextlib.nullcontext(sys.stdin.buffer)
            return open(path, "rb")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._where}: there is no file {self.name}") from None
        except IsADirectoryError:
            raise ValueError(f"{self._where}: {self.name} is a directory, but must be a text file") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{self._where}: cannot read {self.name}: {reason}") from None

    def _decoded(self, opened: contextlib.AbstractContextManager[IO[bytes]]) -> Iterator[str]:
        with opened as file:
            data = file.read(1 << 16)  # of a pipe, too: a buffered reader waits for all of them
            mark, self.encoding = next(
                (known for known in BYTE_ORDER_MARKS if data.startswith(known[0])), (b"", "utf-8")
            )
            if data.startswith(LFS_POINTER):
                raise ValueError(
                    f"{self._where}: {self.name} is a git-lfs pointer, not the text itself; run: git lfs pull"
                )
            decoder = codecs.getincrementaldecoder(self.encoding)()
            position, data = len(mark), data[len(mark) :]
            while True:
                kept = len(decoder.getstate()[0])
                if self.encoding == "utf-8" and b"\0" in data:
                    at = position + data.index(0)
                    raise ValueError(
                        f"{self._where}: {self.name} holds a zero byte (byte {at}): it is no text, "
                        "or UTF-16 without a byte order mark; convert that with: iconv -f UTF-16LE -t UTF-8"
                    )
                try:
                    string = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise ValueError(self._undecodable(position - kept + error.start, error)) from None
                position += len(data)
                yield string
                if not data:
                    return
                data = file.read(1 << 16)

    def _undecodable(self, position: int, error: UnicodeDecodeError) -> str:
        if self.encoding != "utf-8":
            return (
                f"{self._where}: {self.name} begins with the byte order mark of {self.encoding.upper()}, "
                f"but is not {self.encoding.upper()} text (byte {position})"
            )
        found = error.object[error.start : error.start + 1].hex().upper()
        return (
            f"{self._where}: {self.name} is not UTF-8 text (byte {position}): there is 0x{found}. If it is Latin-1 or "
            "Windows-1252, convert it with: iconv -f WINDOWS-1252 -t UTF-8"
        )


def encoded(tokenizer: Tokenizer, text: Text) -> Iterator[list[int]]:
    """The tokens of a text in pieces, which joined are ``tokenizer.encode(whole, add_special_tokens=False).ids``.

    No more of the text is read than the tokens taken so far ask for.
    """
    size = FIRST_PIECE
    piece = _Piece(tokenizer, text.read(size))
    begin = 0  # the token of this piece at which it joins the one before
    while more := text.read(size):
        place = piece.join_after(begin)
        if place is not None:
            following = _Piece(tokenizer, piece.string[piece.position(place.context) :] + more)
            if (found := following.joined(piece, place)) is not None:
                yield piece.ids[begin : place.token]
                piece, begin = following, found
                size = min(2 * size, LARGEST_PIECE)
                continue
        size = len(piece.string) + len(more)  # nowhere to join: the piece grows
        piece = _Piece(tokenizer, piece.string + more)
    yield piece.ids[begin:]


class _Place(NamedTuple):
    """Where a piece can be joined to the next, as indices of its tokens; nothing is merged across any of the three."""

    context: int  # the next piece begins here
    token: int  # the first one that is the next piece's
    end: int  # up to here both pieces must have the same tokens


class _Piece:
    """A piece of a text and its tokens."""

    def __init__(self, tokenizer: Tokenizer, string: str) -> None:
        encoding = tokenizer.encode(string, add_special_tokens=False)
        self.string = string
        self.ids: list[int] = encoding.ids
        self._tokenizer = tokenizer
        self._encoding: Encoding = encoding
        self._offsets: list[tuple[int, int]] = encoding.offsets
        self._words: list[int | None] = encoding.word_ids

    def position(self, token: int) -> int:
        """The character at which a token begins, the white space before its word included."""
        return self._offsets[token - 1][1] if token else 0

    def join_after(self, begin: int) -> _Place | None:
        end = self._place_before(self._token_before(len(self.string) - MARGIN), begin)
        token = end and self._place_before(end - AGREEING, begin)
        if not token:
            return None
        return _Place(self._place_before(self._token_before(self.position(token) - CONTEXT), 0) or 0, token, end)

    def joined(self, before: _Piece, place: _Place) -> int | None:
        """Which of its tokens is the one at which the piece before ends; None where the two don't agree."""
        position = before.position(place.token) - before.position(place.context)
        for token in range(1, len(self.ids)):
            if self.position(token) == position and self._is_place(token):
                left = min(AGREEING, token, place.token - place.context)
                mine = self.ids[token - left : token + place.end - place.token]
                return token if mine == before.ids[place.token - left : place.end] else None
            if self.position(token) > position:
                break
        return None

    def _token_before(self, position: int) -> int:
        """The last token that begins at most there."""
        return max(bisect.bisect_right(self._offsets, (position, sys.maxsize)) - 1, 0)

    def _place_before(self, token: int, first: int) -> int | None:
        """The last place at or before a token, and after the first."""
        return next((i for i in range(token, first, -1) if self._is_place(i)), None)

    def _is_place(self, token: int) -> bool:
        """Whether what is left of a token, and what is right of it, would be the same tokens without the other."""
        left, right = self._offsets[token - 1], self._offsets[token]
        if right[0] < left[1] or left[0] == left[1] or self.string[left[1] - 1].isspace():
            return False
        if self._words[token - 1] != self._words[token]:
            return True
        if not self._has_few_words:
            return False
        merges = _merges(self._tokenizer)
        return merges is not None and merges.never(self._texts[token - 1], self._texts[token])

    @functools.cached_property
    def _has_few_words(self) -> bool:
        return 64 * len(set(self._words)) < len(self._words)

    @functools.cached_property
    def _texts(self) -> list[str]:
        return self._encoding.tokens


class _Merges:
    """What a vocabulary can merge: every pair of neighbouring characters in one of its pieces."""

    def __init__(self, vocabulary: Iterable[str], unknown: str | None) -> None:
        self._pairs = {piece[i : i + 2] for piece in vocabulary for i in range(len(piece) - 1)}
        self._unknown = unknown

    def never(self, left: str, right: str) -> bool:
        return not (self._is_apart(left) or self._is_apart(right)) and left[-1] + right[0] not in self._pairs

    def _is_apart(self, token: str) -> bool:
        """Whether a token does not spell the text that it stands for."""
        return not token or token == self._unknown or (len(token) == 6 and token.startswith("<0x"))


@functools.lru_cache(maxsize=2)
def _merges(tokenizer: Tokenizer) -> _Merges | None:
    """None where pieces don't spell what they stand for."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("type") == "BPE":
        spelt = not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        return _Merges(model["vocab"], model.get("unk_token")) if spelt else None
    if model.get("type") == "Unigram":
        unknown = model.get("unk_id")
        pieces = [piece for piece, _ in model["vocab"]]
        return _Merges(pieces, None if unknown is None else pieces[unknown])
    return None


def _slices(text: str, where: str) -> Iterator[str]:
    try:
        for begin in range(0, len(text), 1 << 16):
            part = text[begin : begin + (1 << 16)]
            part.encode()
            yield part
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: text holds half a character (character {begin + error.start} is {text[begin + error.start]!r}): "
            "it was not decoded rightly"
        ) from None
