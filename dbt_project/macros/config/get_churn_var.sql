{#
    The value of one setting, coerced and checked; `name` comes without the prefix.
    The only way to read a var of this package in SQL.
#}
{% macro get_churn_var(name) %}
    {% set specs = churn_scoring.churn_var_defaults() %}
    {% if name not in specs %}
        {% do exceptions.raise_compiler_error(
            "get_churn_var: got " ~ name ~ "; allowed: " ~ (specs | join(', '))
        ) %}
    {% endif %}
    {% set value = var('churn__' ~ name, none) %}
    {% if value is none or (value is string and value | trim | lower in ('', 'null', 'none')) %}
        {% do return(specs[name]['default']) %}
    {% endif %}
    {% do return(churn_scoring._coerce_churn_var(name, value, specs[name])) %}
{% endmacro %}
