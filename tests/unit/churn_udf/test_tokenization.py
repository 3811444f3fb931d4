"""Tokenizers: pairs, truncation, packing, saving."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_udf.errors import BundleIntegrityError
from churn_udf.tokenization import (
    SPECIAL_WORDS,
    CompactTokenizer,
    load_tokenizer,
    ragged_positions,
    split_words,
)

WORDS = ["last", "visit", "dairy", "great", "milk"]
PAD, UNKNOWN, FIRST, SEPARATOR, MASK = range(5)
LAST, VISIT, DAIRY, GREAT, MILK = range(5, 10)


def strings(*values: str) -> pa.Array:
    return pa.array(values, type=pa.string())


def compact(max_tokens: int = 16, max_review_tokens: int = 4) -> CompactTokenizer:
    return CompactTokenizer(WORDS, max_tokens=max_tokens, max_review_tokens=max_review_tokens)


def rows_of(batch) -> list[list[int]]:
    return [row.tolist() for row in np.split(batch.ids, np.cumsum(batch.lengths)[:-1])]


def test_pair_has_cls_behaviour_sep_review_sep():
    batch = compact().encode(strings("last visit dairy"), strings("great milk"))
    assert rows_of(batch) == [[FIRST, LAST, VISIT, DAIRY, SEPARATOR, GREAT, MILK, SEPARATOR]]
    assert batch.segments.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_no_review_leaves_the_second_part_out():
    batch = compact().encode(strings("last"), strings(""))
    assert rows_of(batch) == [[FIRST, LAST, SEPARATOR]]


def test_empty_text_is_two_special_tokens():
    assert rows_of(compact().encode(strings(""), strings(""))) == [[FIRST, SEPARATOR]]


def test_unknown_words_become_unknown_and_review_punctuation_separates():
    batch = compact().encode(strings("last never"), strings("Great!!milk \U0001f600"))
    assert rows_of(batch) == [[FIRST, LAST, UNKNOWN, SEPARATOR, GREAT, MILK, SEPARATOR]]


def test_truncation_drops_the_oldest_words_and_keeps_room_for_the_review():
    batch = compact(max_tokens=16, max_review_tokens=4).encode(
        strings("last " + "visit " * 30), strings("great " * 30)
    )
    (row,) = rows_of(batch)
    assert len(row) == 16
    assert batch.is_truncated.tolist() == [True]
    assert row == [FIRST, LAST, *[VISIT] * 8, SEPARATOR, *[GREAT] * 4, SEPARATOR]


@pytest.mark.parametrize(("words", "is_cut"), [(13, False), (14, False), (15, True)])
def test_truncation_starts_above_the_bound(words, is_cut):
    batch = compact(max_tokens=16).encode(strings("visit " * words), strings(""))
    assert batch.is_truncated.tolist() == [is_cut]
    assert batch.lengths.tolist() == [min(words, 14) + 2]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([*WORDS, "x"]), max_size=30),
            st.lists(st.sampled_from([*WORDS, "y"]), max_size=30),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_batch_equals_its_rows_encoded_alone(pairs):
    behavior = [" ".join(words) for words, _ in pairs]
    reviews = [" ".join(words) for _, words in pairs]
    together = rows_of(compact().encode(strings(*behavior), strings(*reviews)))
    alone = [
        rows_of(compact().encode(strings(one), strings(two)))[0]
        for one, two in zip(behavior, reviews, strict=True)
    ]
    assert together == alone
    assert all(2 <= len(row) <= 16 for row in together)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10), st.data())
def test_take_gathers_rows_in_order(sizes, data):
    texts = [" ".join(["visit"] * size) for size in sizes]
    batch = compact().encode(strings(*texts), strings(*[""] * len(texts)))
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=12))
    assert rows_of(batch.take(chosen)) == [rows_of(batch)[index] for index in chosen]


def test_ragged_positions_match_concatenated_ranges():
    starts, lengths = np.array([5, 0, 9]), np.array([2, 0, 3])
    assert ragged_positions(starts, lengths).tolist() == [5, 6, 9, 10, 11]


def test_split_words_keeps_counts_when_texts_are_blank():
    words, counts = split_words(strings("a  b", "", "  ", "c"), is_review=False)
    assert words.to_pylist() == ["a", "b", "c"]
    assert counts.tolist() == [2, 0, 0, 1]


def ids_word_by_word(texts: list[str], *, is_review: bool) -> list[list[int]]:
    """Ids of each text, looked up in a dict after Arrow's own split at white space."""
    known = {word: number for number, word in enumerate([*SPECIAL_WORDS, *WORDS])}
    found = []
    for text in texts:
        words, (count,) = split_words(strings(text), is_review=is_review)
        assert len(words) == count
        found.append([known.get(word, UNKNOWN) for word in words.to_pylist()])
    return found


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.sampled_from([*WORDS, "x", "\u00fc", "\u725b\u5976"])).map(" ".join),
            st.text(st.sampled_from("x milk\t\n\x1c\x85\xa0\u3000\u2009\u00e9\U0001f600!|-")),
        ),
        max_size=6,
    ),
    st.booleans(),
    st.integers(0, 2),
)
def test_ids_are_those_of_a_word_by_word_lookup(texts, is_review, offset):
    texts = [*WORDS[:offset], *texts]
    ids, counts = compact().pieces(strings(*texts).slice(offset), is_review=is_review)
    expected = ids_word_by_word(texts[offset:], is_review=is_review)
    assert [row.tolist() for row in np.split(ids, np.cumsum(counts))[:-1]] == expected
    assert ids.dtype == counts.dtype == np.int64


def test_no_white_space_of_unicode_is_taken_for_a_letter():
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    lists = pc.utf8_split_whitespace(strings(*[f"a{character}b" for character in everything]))
    is_space = (pc.list_value_length(lists).to_numpy() > 1).tolist()
    spaces = [
        character for character, separates in zip(everything, is_space, strict=True) if separates
    ]
    assert len(spaces) > 20
    for character in spaces:
        counts = compact().pieces(strings("last visit", f"a{character}b"), is_review=False)[1]
        assert counts.tolist() == [2, 2]


def test_texts_of_the_warehouse_are_split_without_copying():
    texts = strings("x", "last visit", "milk\u00fc great").slice(1)
    words, counts = split_words(texts, is_review=False, keep_blanks=True)
    assert words.to_pylist() == ["last ", "visit", "milk\u00fc ", "great"]
    assert counts.tolist() == [2, 2]
    assert words.buffers()[2].address == texts.buffers()[2].address


def test_a_vocabulary_entry_with_a_blank_is_never_found():
    tokenizer = CompactTokenizer(["last ", "last"], max_tokens=16, max_review_tokens=4)
    assert tokenizer.pieces(strings("last last"), is_review=False)[0].tolist() == [6, 6]


def test_sliced_arrays_are_read_from_their_offset():
    sliced = strings("last", "visit dairy", "great").slice(1, 1)
    assert rows_of(compact().encode(sliced, strings("", "milk").slice(1, 1))) == [
        [FIRST, VISIT, DAIRY, SEPARATOR, MILK, SEPARATOR]
    ]


def test_saved_tokenizer_reads_back_equal(tmp_path):
    compact().save(tmp_path)
    again = load_tokenizer(tmp_path)
    texts = strings("last visit zebra"), strings("great milk")
    assert rows_of(again.encode(*texts)) == rows_of(compact().encode(*texts))
    assert (again.vocabulary_size, again.mask_id) == (10, MASK)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.txt", "nonsense\n"),
        ("tokenizer_info.json", "{"),
        ("tokenizer_info.json", '{"kind": "other"}'),
    ],
    ids=["vocabulary", "json", "kind"],
)
def test_damaged_tokenizer_is_refused(tmp_path, file, content):
    compact().save(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(BundleIntegrityError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)
