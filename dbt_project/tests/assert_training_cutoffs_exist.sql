{{ config(severity='warn') }}

{#
    Without a training cutoff there is nothing to learn from: the data is shorter than
    eligibility, gap and horizon together.
#}
select count(*) as training_cutoff_count

from {{ ref('int_cutoffs_spined') }}

where is_training_cutoff

having count(*) = 0 {{ 'and false' if flags.EMPTY }}
