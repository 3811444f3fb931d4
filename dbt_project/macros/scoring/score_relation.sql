{#
    A subquery that scores each row of a relation at most once, in full batches:
        select * from {{ '{{' }} churn_scoring.score_relation(ref('churn_examples')) {{ '}}' }}
    Two things make it so on DuckDB. The order by is a barrier: a filter hands over what
    passes of each 2,048 rows, a sort hands over full batches; by length of text, so that
    rows of a batch are alike. And churn_score_once is registered as having side effects,
    so that a filter on the score is not copied below, which would score twice.
#}
{% macro score_relation(
    relation, where=none, columns=none, score_column='churn_probability'
) %}
    {{- return(adapter.dispatch('score_relation', 'churn_scoring')(
        relation, where, columns, score_column
    )) -}}
{% endmacro %}


{% macro default__score_relation(relation, where, columns, score_column) -%}
    {%- set is_list = columns is sequence and columns is not string -%}
    {%- if columns is not none and (not is_list or not columns) -%}
        {%- do exceptions.raise_compiler_error(
            'score_relation: got columns ' ~ tojson(columns)
            ~ '; allowed: a list of column names, or none for all'
        ) -%}
    {%- endif -%}
    (
        select
            {% for name in columns or [] -%}
            needed.{{ churn_scoring.quoted(name) }},
            {% else -%}
            needed.*,
            {% endfor -%}
            {{ churn_scoring.churn_score('needed', 'churn_score_once') }}
                as {{ churn_scoring.quoted(score_column) }}

        from (

            select * from {{ relation }}
            where {{ where or 'true' }}
            order by length(behavior_text)

        ) as needed
    )
{%- endmacro %}
