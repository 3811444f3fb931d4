"""Texts to token ids, vectorised over Arrow arrays.

An input is BERT's sentence pair: ``[CLS] behaviour [SEP]`` and, when there is one,
``review [SEP]``. Behaviour text is newest first, so cutting its end drops the oldest.

Two vocabularies: ``compact`` looks whole words up in a list learned from the team's own text
(``vocab.txt``); ``huggingface`` runs the tokenizer that a pretrained encoder came with
(``tokenizer.json``).
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.errors import BundleIntegrityError

IntArray = npt.NDArray[np.int64]

PAD, UNKNOWN, FIRST, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_WORDS = (PAD, UNKNOWN, FIRST, SEPARATOR, MASK)
TOKENIZER_FILE = "tokenizer_info.json"
VOCABULARY_FILE = "vocab.txt"
HUGGINGFACE_FILE = "tokenizer.json"
NOT_WORD = r"[^\p{L}\p{N}]+"
WIDE_SPACE = r"[\x{80}-\x{a0}\x{1680}\x{2000}-\x{206f}\x{3000}]"
"""White space beyond ASCII's."""
BLANK, LAST_ASCII = 32, 127


@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """Token ids of B texts, packed: text i owns ``lengths[i]`` entries.

    Attributes:
        ids: (N,) int64 token ids.
        segments: (N,) int64, 0 behaviour, 1 reviews.
        lengths: (B,) int64 tokens of each text, special tokens counted.
        is_truncated: (B,) bool, whether tokens were cut.
    """

    ids: IntArray
    segments: IntArray
    lengths: IntArray
    is_truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    @classmethod
    def without_text(cls, num_rows: int, first_id: int) -> TokenBatch:
        """Return rows that hold the opening token alone, for a model that reads no text."""
        ones = np.ones(num_rows, dtype=np.int64)
        return cls(first_id * ones, 0 * ones, ones, np.zeros(num_rows, dtype=np.bool_))

    def take(self, indices: npt.ArrayLike) -> TokenBatch:
        """Return the texts at these indices, in their order."""
        chosen = np.asarray(indices, dtype=np.int64)
        starts = np.cumsum(self.lengths) - self.lengths
        flat = ragged_positions(starts[chosen], self.lengths[chosen])
        return TokenBatch(
            self.ids[flat], self.segments[flat], self.lengths[chosen], self.is_truncated[chosen]
        )


def ragged_positions(starts: IntArray, lengths: IntArray) -> IntArray:
    """Return ``concatenate([arange(s, s + n) for s, n in zip(starts, lengths)])``."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def _first_ids(ids: IntArray, counts: IntArray, kept: IntArray) -> IntArray:
    """Return the first ``kept`` ids of every text, of texts that have ``counts`` ids."""
    is_cut = kept < counts
    if not is_cut.any():
        return ids
    cut_starts = (np.cumsum(counts) - counts + kept)[is_cut]
    is_kept = np.ones(len(ids), dtype=np.bool_)
    is_kept[ragged_positions(cut_starts, (counts - kept)[is_cut])] = False
    return ids[is_kept]


class Tokenizer(ABC):
    """Base of both vocabularies: pieces of single texts, and how a pair is put together.

    Args:
        first_id: Id that opens an input.
        separator_id: Id that closes a part.
        max_tokens: Longest input, special tokens counted.
        max_review_tokens: What reviews keep when the behaviour text wants the rest.
    """

    kind: str

    def __init__(
        self, *, first_id: int, separator_id: int, max_tokens: int, max_review_tokens: int
    ) -> None:
        self.first_id = first_id
        self.separator_id = separator_id
        self.max_tokens = max_tokens
        self.max_review_tokens = max_review_tokens

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of ids."""

    @property
    @abstractmethod
    def mask_id(self) -> int:
        """Id of the mask token."""

    @abstractmethod
    def pieces(self, texts: pa.Array, *, is_review: bool) -> tuple[IntArray, IntArray]:
        """Return flat ids and the number of ids of each text, without special tokens."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the tokenizer's files into an existing directory."""

    def encode(self, behavior_texts: pa.Array, review_texts: pa.Array) -> TokenBatch:
        """Encode pairs.

        Args:
            behavior_texts: (B,) strings, no nulls.
            review_texts: (B,) strings, empty where there is no review.
        """
        behavior_ids, behavior_counts = self.pieces(behavior_texts, is_review=False)
        review_ids, review_counts = self.pieces(review_texts, is_review=True)
        kept_behavior, kept_review = self._budget(behavior_counts, review_counts)
        has_review = kept_review > 0
        lengths = 2 + kept_behavior + kept_review + has_review
        starts = np.cumsum(lengths) - lengths
        review_starts = starts + 2 + kept_behavior
        ids = np.full(int(lengths.sum()), self.separator_id, dtype=np.int64)
        ids[starts] = self.first_id
        is_behavior = np.ones(len(ids), dtype=np.bool_)
        is_behavior[starts] = is_behavior[review_starts - 1] = False
        segments = np.zeros(len(ids), dtype=np.int64)
        if has_review.any():
            places = ragged_positions(review_starts[has_review], kept_review[has_review])
            ids[places] = _first_ids(review_ids, review_counts, kept_review)
            closings = (starts + lengths - 1)[has_review]
            segments[places] = segments[closings] = 1
            is_behavior &= segments == 0
        ids[is_behavior] = _first_ids(behavior_ids, behavior_counts, kept_behavior)
        is_truncated = (kept_behavior < behavior_counts) | (kept_review < review_counts)
        return TokenBatch(ids, segments, lengths, is_truncated)

    def _budget(self, behavior: IntArray, review: IntArray) -> tuple[IntArray, IntArray]:
        """Return how many ids of each part fit."""
        room = self.max_tokens - 2 - (review > 0)
        least_review = np.minimum(review, self.max_review_tokens)
        kept_behavior = np.minimum(behavior, room - least_review)
        return kept_behavior, np.minimum(review, room - kept_behavior)

    def _info(self) -> dict[str, Any]:
        """Return what every tokenizer stores."""
        return {
            "kind": self.kind,
            "first_id": self.first_id,
            "separator_id": self.separator_id,
            "max_tokens": self.max_tokens,
            "max_review_tokens": self.max_review_tokens,
        }


class CompactTokenizer(Tokenizer):
    """Whole words looked up in a learned list; unknown words become ``[UNK]``.

    Args:
        words: The learned words, without special ones, each once.
        max_tokens: Longest input, special tokens counted.
        max_review_tokens: See ``Tokenizer``.
    """

    kind = "compact"

    def __init__(self, words: Sequence[str], *, max_tokens: int, max_review_tokens: int) -> None:
        super().__init__(
            first_id=SPECIAL_WORDS.index(FIRST),
            separator_id=SPECIAL_WORDS.index(SEPARATOR),
            max_tokens=max_tokens,
            max_review_tokens=max_review_tokens,
        )
        self.words = tuple(words)
        # A word with a blank inside is never found: no text has it as a word.
        findable = ["" if " " in word else word for word in (*SPECIAL_WORDS, *self.words)]
        followed = [word and f"{word} " for word in findable]
        self._findable = pa.array([*findable, *followed], type=pa.string())
        self._ids = np.tile(np.arange(len(findable)), 2)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones counted."""
        return len(SPECIAL_WORDS) + len(self.words)

    @property
    def mask_id(self) -> int:
        """Id of the mask token."""
        return SPECIAL_WORDS.index(MASK)

    def pieces(self, texts: pa.Array, *, is_review: bool) -> tuple[IntArray, IntArray]:
        """Return flat ids and counts; see ``Tokenizer.pieces``."""
        words, counts = split_words(texts, is_review=is_review, keep_blanks=True)
        found = pc.index_in(words, value_set=self._findable)
        places = pc.fill_null(found, SPECIAL_WORDS.index(UNKNOWN)).to_numpy(zero_copy_only=False)
        return self._ids[places], counts

    def save(self, directory: Path) -> None:
        """Write ``vocab.txt``, one word a line, and ``tokenizer_info.json``."""
        text = "\n".join([*SPECIAL_WORDS, *self.words]) + "\n"
        (directory / VOCABULARY_FILE).write_text(text, encoding="utf-8", newline="\n")
        (directory / TOKENIZER_FILE).write_text(json.dumps(self._info(), indent=2) + "\n")


def split_words(
    texts: pa.Array, *, is_review: bool, keep_blanks: bool = False
) -> tuple[pa.Array, IntArray]:
    """Split texts at white space; in reviews everything but letters and digits separates.

    Args:
        texts: (B,) strings, no nulls.
        is_review: Whether these are reviews: they are also lower-cased.
        keep_blanks: Allow words with the blank that follows them, which spares copying them.

    Returns:
        The words of all texts, and how many each text has, (B,) int64.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    is_filled = pc.greater(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    if not is_filled.all():
        words, filled_counts = split_words(
            texts.filter(pa.array(is_filled)), is_review=is_review, keep_blanks=keep_blanks
        )
        counts = np.zeros(len(texts), dtype=np.int64)
        counts[is_filled] = filled_counts
        return words, counts
    if is_review:
        lower = pc.replace_substring_regex(pc.utf8_lower(texts), NOT_WORD, " ")
        return split_words(pc.ascii_trim(lower, " "), is_review=False, keep_blanks=keep_blanks)
    if keep_blanks and (split := _split_at_blanks(texts)) is not None:
        return split
    lists = pc.utf8_split_whitespace(texts)
    words = lists.flatten()
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    is_word = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    if not is_word.all():
        owners = np.repeat(np.arange(len(counts)), counts)[is_word]
        counts = np.bincount(owners, minlength=len(counts)).astype(np.int64)
        words = words.filter(pa.array(is_word))
    return words, counts


def _split_at_blanks(texts: pa.Array) -> tuple[pa.Array, IntArray] | None:
    """Split texts that have single blanks between words and no other white space, else none.

    Not a byte is copied: the words are the texts' own bytes with more offsets, so all but the
    last of a text end with their blank. The warehouse writes texts that way (text_spec_v1).
    """
    if texts.type != pa.string() or not len(texts):
        return None
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)
    bounds = offsets[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2], dtype=np.uint8)[bounds[0] : bounds[-1]]
    starts, last = bounds[:-1] - bounds[0], bounds[1:] - bounds[0] - 1
    is_blank = data == BLANK
    is_plain = data.min() >= BLANK and not (
        is_blank[starts].any() or is_blank[last].any() or (is_blank[1:] & is_blank[:-1]).any()
    )
    if is_plain and data.max() > LAST_ASCII:
        is_plain = not pc.any(pc.match_substring_regex(texts, WIDE_SPACE)).as_py()
    if not is_plain:
        return None
    is_blank[last] = True  # now: whether a byte is the last of a word or the blank after it
    ends = np.flatnonzero(is_blank).astype(np.int32)
    word_bounds = np.concatenate([bounds[:1], ends + bounds[0] + 1], dtype=np.int32)
    words = pa.StringArray.from_buffers(len(ends), pa.py_buffer(word_bounds), texts.buffers()[2])
    lasts = np.searchsorted(ends, last) + 1
    return words, np.diff(lasts, prepend=0)


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of a pretrained encoder, run by the ``tokenizers`` library.

    Args:
        text: Content of ``tokenizer.json``.
        first_id: Id of the encoder's opening token.
        separator_id: Id of its separator.
        masked_id: Id of its mask token.
        max_tokens: Longest input, special tokens counted.
        max_review_tokens: See ``Tokenizer``.
    """

    kind = "huggingface"

    def __init__(
        self,
        text: str,
        *,
        first_id: int,
        separator_id: int,
        masked_id: int,
        max_tokens: int,
        max_review_tokens: int,
    ) -> None:
        super().__init__(
            first_id=first_id,
            separator_id=separator_id,
            max_tokens=max_tokens,
            max_review_tokens=max_review_tokens,
        )
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._masked_id = masked_id

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added ones counted."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def mask_id(self) -> int:
        """Id of the mask token."""
        return self._masked_id

    def pieces(self, texts: pa.Array, *, is_review: bool) -> tuple[IntArray, IntArray]:
        """Return flat ids and counts; see ``Tokenizer.pieces``."""
        encoded = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        counts = np.fromiter((len(item.ids) for item in encoded), np.int64, len(encoded))
        flat = [piece for item in encoded for piece in item.ids]
        return np.asarray(flat, dtype=np.int64), counts

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_info.json``."""
        (directory / HUGGINGFACE_FILE).write_text(self._tokenizer.to_str(), encoding="utf-8")
        info = {**self._info(), "masked_id": self._masked_id}
        (directory / TOKENIZER_FILE).write_text(json.dumps(info, indent=2) + "\n")


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read a saved tokenizer.

    Raises:
        BundleIntegrityError: A file is missing or damaged.
    """
    try:
        info = json.loads((directory / TOKENIZER_FILE).read_text(encoding="utf-8"))
        kind = info.pop("kind")
        if kind == CompactTokenizer.kind:
            lines = (directory / VOCABULARY_FILE).read_text(encoding="utf-8").split("\n")[:-1]
            if tuple(lines[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
                raise ValueError(f"{VOCABULARY_FILE} must start with {SPECIAL_WORDS}")
            limits = {key: info[key] for key in ("max_tokens", "max_review_tokens")}
            return CompactTokenizer(lines[len(SPECIAL_WORDS) :], **limits)
        if kind == HuggingFaceTokenizer.kind:
            text = (directory / HUGGINGFACE_FILE).read_text(encoding="utf-8")
            return HuggingFaceTokenizer(text, **info)
        raise ValueError(f"kind {kind!r}; allowed: compact, huggingface")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleIntegrityError(
            f"{directory} holds no usable tokenizer ({type(error).__name__}: {error}); "
            "restore the bundle or run `churn-train run`"
        ) from error
