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
    {% set value = churn_scoring._raw_churn_var('churn__' ~ name) %}
    {% set nothing = ('', 'null', 'none') %}
    {% if value is none or (value is string and value | trim | lower in nothing) %}
        {% do return(specs[name]['default']) %}
    {% endif %}
    {% do return(churn_scoring._coerce_churn_var(name, value, specs[name])) %}
{% endmacro %}


{#
    A team that installs this package may set vars for it alone, under `churn_scoring:`.
    dbt shows these to nodes of this package only; for what a team's own project compiles,
    such as an inline query, they are looked up here. --vars comes first everywhere.
#}
{% macro _raw_churn_var(full_name) %}
    {% set is_own_node = model is defined and model.package_name == 'churn_scoring' %}
    {% set scoped = var('churn_scoring', none) %}
    {% if not is_own_node and scoped is mapping and full_name in scoped
        and full_name not in (invocation_args_dict.get('vars') or {}) %}
        {% do return(scoped[full_name]) %}
    {% endif %}
    {% do return(var(full_name, none)) %}
{% endmacro %}
