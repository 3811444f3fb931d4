{#
    Columns of a relation or file: a mapping of lower-case name to
    {'name': as stored, 'type': lower-case data type}. Empty while dbt only parses.
#}
{% macro columns_of(relation) %}
    {% if not execute or relation is none %}
        {% do return({}) %}
    {% endif %}
    {% do return(adapter.dispatch('columns_of', 'churn_scoring')(relation)) %}
{% endmacro %}


{% macro default__columns_of(relation) %}
    {% set columns = {} %}
    {% for column in adapter.get_columns_in_relation(relation) %}
        {% do columns.update({
            column.name | lower: {'name': column.name, 'type': column.data_type | lower}
        }) %}
    {% endfor %}
    {% do return(columns) %}
{% endmacro %}


{# dbt-duckdb knows the columns of tables only; describe also reads those of files. #}
{% macro duckdb__columns_of(relation) %}
    {% set columns = {} %}
    {% for row in run_query('describe select * from ' ~ relation).rows %}
        {% do columns.update({
            row[0] | lower: {'name': row[0], 'type': row[1] | lower}
        }) %}
    {% endfor %}
    {% do return(columns) %}
{% endmacro %}
