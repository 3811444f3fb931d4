{#
    Warns of every subject of the champion that has drifted at the score cutoff. Each
    row says what drifted, by which measure, and what would have been fine.
#}
{{ config(severity='warn') }}

{{ churn_scoring.select_drifted(['warn', 'error']) }}
