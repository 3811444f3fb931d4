{#
    The table that a model is about to replace, or none on a first run, a full refresh
    or while dbt only parses.
#}
{% macro previous_relation(relation) %}
    {% if not execute or flags.FULL_REFRESH %}
        {% do return(none) %}
    {% endif %}
    {% do return(load_relation(relation)) %}
{% endmacro %}
