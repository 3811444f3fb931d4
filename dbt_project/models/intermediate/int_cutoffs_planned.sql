{%- set plan = churn_scoring.get_churn_var('training_cutoffs') -%}
{%- set score_cutoff_date = churn_scoring.get_churn_var('score_cutoff_date') -%}
{%- set max_cutoffs = churn_scoring.get_churn_var('max_training_cutoffs') -%}
{%- set eligibility_days = churn_scoring.get_churn_var('eligibility_days') -%}
{%- set every_days = plan.get('every_days', 7) -%}
{%- set label_days = churn_scoring.get_churn_var('gap_days')
    + churn_scoring.get_churn_var('horizon_days')
    + churn_scoring.get_churn_var('late_data_days') -%}

with

bounds as (

    select
        first_event_date,
        data_end_date,
        {{ churn_scoring.shift_date('first_event_date', 1) }} as first_cutoff_date

    from {{ ref('int_data_bounds') }}

    where first_event_date is not null

),

score_cutoffs as (

    select
        {% if score_cutoff_date == 'latest' -%}
        data_end_date as cutoff_date
        {%- else -%}
        cast('{{ score_cutoff_date }}' as date) as cutoff_date
        {%- endif %}

    from bounds

),

{% if 'dates' in plan -%}
training_cutoffs as (

    {% for date in plan['dates'] -%}
    select cast('{{ date }}' as date) as cutoff_date
    from bounds
    {% if not loop.last -%}
    union all
    {% endif -%}
    {% endfor %}
),
{%- else -%}
numbers as (

    {{ dbt.generate_series(max_cutoffs) }}

),

{#
    The steps lie on a grid through the last date if it is named, else through the
    first, else on Mondays: a new day of data then adds a cutoff once in a while and
    never moves those that were built.
#}
training_range as (

    select
        {% if plan['last'] or plan['first'] -%}
        cast('{{ plan["last"] or plan["first"] }}' as date) as grid_date,
        {%- else -%}
        cast('1970-01-05' as date) as grid_date,
        {%- endif %}
        {% if plan['first'] -%}
        cast('{{ plan["first"] }}' as date) as first_date,
        {%- else -%}
        {{ churn_scoring.shift_date('first_event_date', eligibility_days) }}
            as first_date,
        {%- endif %}
        {% if plan['last'] -%}
        cast('{{ plan["last"] }}' as date) as last_date
        {%- else -%}
        {{ churn_scoring.shift_date('data_end_date', -label_days) }} as last_date
        {%- endif %}

    from bounds

),

newest_step as (

    select
        first_date,
        {{ churn_scoring.shift_date('grid_date', every_days ~ ' * cast(floor('
            ~ dbt.datediff('grid_date', 'last_date', 'day') ~ ' / '
            ~ every_days ~ '.0) as integer)') }} as newest_date

    from training_range

),

training_steps as (

    select
        newest_step.first_date,
        {{ churn_scoring.shift_date(
            'newest_step.newest_date',
            '(numbers.generated_number - 1) * -' ~ every_days
        ) }} as cutoff_date

    from newest_step

    cross join numbers

),

training_cutoffs as (

    select cutoff_date from training_steps

    where cutoff_date >= first_date

),
{%- endif %}

{# The bounds that the vars name themselves; the others lie inside by construction. #}
named_cutoffs as (

    select
        'churn__score_cutoff_date' as var_name,
        cutoff_date
    from score_cutoffs

    {% for date in plan.get('dates', []) + [plan['first'], plan['last']] if date -%}
    union all
    select
        'churn__training_cutoffs' as var_name,
        cast('{{ date }}' as date) as cutoff_date
    from bounds
    {% endfor %}
),

planned as (

    select
        cutoff_date,
        1 as is_training,
        0 as is_score
    from training_cutoffs

    union all

    select
        cutoff_date,
        0 as is_training,
        1 as is_score
    from score_cutoffs

),

{% if not flags.EMPTY -%}
checked as (

    select named_cutoffs.cutoff_date

    from named_cutoffs

    cross join bounds

    where {{ churn_scoring.raise_error_if(
        'named_cutoffs.cutoff_date < bounds.first_cutoff_date'
        ~ ' or named_cutoffs.cutoff_date > bounds.data_end_date',
        "named_cutoffs.var_name || ': got ' || cast(named_cutoffs.cutoff_date as "
        ~ dbt.type_string() ~ ") || '; allowed: a date from '"
        ~ " || cast(bounds.first_cutoff_date as " ~ dbt.type_string()
        ~ ") || ' (the day after the first event) to '"
        ~ " || cast(bounds.data_end_date as " ~ dbt.type_string()
        ~ ") || ' (the end of the data); choose a date inside the data'"
    ) }} is null

),

{% endif -%}
final as (

    select
        cutoff_date,

        max(is_training) = 1 as is_training_cutoff,
        max(is_score) = 1 as is_score_cutoff

    from planned

    {%- if not flags.EMPTY %}

    {# A count reads every row; exists would stop at the first that passes. #}
    where (select count(*) from checked) > 0
    {%- endif %}

    group by 1

)

select * from final
