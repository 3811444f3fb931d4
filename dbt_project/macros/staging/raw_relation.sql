{#
    The source relation of an input ('events' or 'users'), or none without its vars.
    Fails with the var's name when the table or file does not exist.
#}
{% macro raw_relation(kind) %}
    {% if churn_scoring.get_churn_var(kind ~ '_path') is not none %}
        {% set relation = source('churn_files', kind) %}
        {% do churn_scoring.require_file(kind ~ '_path') %}
    {% elif churn_scoring.get_churn_var(kind ~ '_relation') is not none %}
        {% set relation = source('churn_' ~ kind, kind) %}
        {% set name = churn_scoring.get_churn_var(kind ~ '_relation') %}
        {% if execute and load_relation(relation) is none %}
            {% do exceptions.raise_compiler_error(
                "churn__" ~ kind ~ "_relation: got " ~ name
                ~ "; allowed: an existing table or view; " ~ relation.render()
                ~ " does not exist in target "
                ~ target.name ~ ", check the name or load the table first"
            ) %}
        {% endif %}
    {% else %}
        {% set relation = none %}
    {% endif %}
    {% do return(relation) %}
{% endmacro %}
