{#
    The champion's calibrated churn probability of a row of churn_examples, or of any
    relation with its text and feature columns. `relation_alias` is the relation's alias in
    the query. Settings and feature names go along, so that a model of others is refused.
    `function` is for score_relation alone.
#}
{% macro churn_score(relation_alias, function='churn_score_checked') %}
    {{- return(
        adapter.dispatch('churn_score', 'churn_scoring')(relation_alias, function)
    ) -}}
{% endmacro %}


{% macro default__churn_score(relation_alias, function) %}
    {% do exceptions.raise_compiler_error(
        'churn_score: got target.type ' ~ target.type ~ '; allowed: duckdb with the '
        ~ 'plugin churn_udf.warehouse.duckdb_plugin in profiles.yml'
    ) %}
{% endmacro %}


{% macro duckdb__churn_score(relation_alias, function) -%}
    {%- set contract = {
        'settings': churn_scoring.churn_settings(),
        'feature_names': churn_scoring.feature_columns(),
    } -%}
    {{ function }}(
        {{ relation_alias }}.behavior_text,
        {{ relation_alias }}.review_text_recent,
        [
            {% for name in churn_scoring.feature_columns() -%}
            {{ relation_alias }}.{{ name }}{{ ',' if not loop.last }}
            {% endfor -%}
        ],
        '{{ tojson(contract) | replace("'", "''") }}'
    )
{%- endmacro %}
