"""Learning the compact vocabulary: the words of the team's own text, most frequent first."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.tokenization import SPECIAL_WORDS, CompactTokenizer, split_words
from trainer.errors import ConfigError
from trainer.fit.config import FitConfig


def learn_vocabulary(
    behavior_texts: pa.Array, review_texts: pa.Array, config: FitConfig
) -> CompactTokenizer:
    """Return a tokenizer over the words that occur often enough.

    Ties are ordered by the word, so equal texts give an equal vocabulary in any row order.

    Args:
        behavior_texts: (B,) strings of the rows that may be read (no later than training).
        review_texts: (B,) strings of the same rows.
        config: Bounds of the vocabulary.

    Raises:
        ConfigError: No word occurs often enough.
    """
    texts = ((behavior_texts, False), (review_texts, True))
    words = [split_words(array, is_review=is_review)[0] for array, is_review in texts]
    counted = pa.concat_arrays(words).value_counts()
    table = pa.table({"word": counted.field("values"), "count": counted.field("counts")})
    is_frequent = pc.greater_equal(table["count"], config.min_word_count)
    is_special = pc.is_in(table["word"], value_set=pa.array(SPECIAL_WORDS))
    table = table.filter(pc.and_(is_frequent, pc.invert(is_special)))
    table = table.sort_by([("count", "descending"), ("word", "ascending")])
    if not table.num_rows:
        raise ConfigError(
            f"no word occurs {config.min_word_count} times in the {len(behavior_texts)} texts; "
            "lower fit.min_word_count or export more rows"
        )
    return CompactTokenizer(
        table["word"].to_pylist()[: config.max_vocabulary],
        max_tokens=config.max_tokens,
        max_review_tokens=config.max_review_tokens,
    )
