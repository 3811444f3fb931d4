{#
    Stop what is about to score, before it has written anything, when the data is stale and
    churn__stale_data is `fail`. For pre-hooks of models that ref int_data_freshness: the
    test assert_data_is_fresh stops `dbt build`, this stops `dbt run` too. Renders no SQL.
#}
{% macro refuse_stale_data(freshness) %}
    {% if execute and not flags.EMPTY
        and churn_scoring.get_churn_var('stale_data') == 'fail' %}
        {% set stale = run_query(
            'select message from ' ~ freshness ~ ' where is_stale'
        ) %}
        {% if stale.rows | length > 0 %}
            {% do exceptions.raise_compiler_error(stale.rows[0][0]) %}
        {% endif %}
    {% endif %}
{% endmacro %}
