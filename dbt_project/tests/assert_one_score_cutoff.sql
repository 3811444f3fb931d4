{# Exactly one cutoff is the one to score; it counts as scored. #}
select count(*) as score_cutoff_count

from {{ ref('int_cutoffs_spined') }}

where is_score_cutoff and was_scored

having count(*) <> {{ 0 if flags.EMPTY else 1 }}
