{#
    How the columns of an input map to canonical names: a mapping of canonical name to
    {'name': column as stored, 'family': type family}, or none for an optional column
    that the input lacks. Empty while dbt only parses.
#}
{% macro raw_columns(kind, relation) %}
    {% set stored = churn_scoring.columns_of(relation) %}
    {% set mapping_var = kind[:-1] ~ '_columns' %}
    {% set mapping = churn_scoring.get_churn_var(mapping_var) %}
    {% set wanted = churn_scoring.event_column_names() if kind == 'events'
        else ['user_id'] %}
    {% set required = wanted[:3] %}
    {% set columns = {} %}
    {% for name in wanted if stored %}
        {% set column = stored.get(mapping.get(name, name) | lower) %}
        {% set what = mapping.get(name, name) ~ ' for ' ~ name %}
        {% if column is none and (name in required or name in mapping) %}
            {% do churn_scoring._raise_churn_var(
                mapping_var, what, 'a column of ' ~ relation ~ ': '
                ~ (stored.values() | map(attribute='name') | join(', ')),
                'map ' ~ name ~ ' to one of them in churn__' ~ mapping_var
            ) %}
        {% elif column is none %}
            {% do columns.update({name: none}) %}
        {% else %}
            {% set family = churn_scoring.data_type_family(column['type']) %}
            {% do churn_scoring._require_family(mapping_var, name, column, family) %}
            {% do columns.update({name: {'name': column['name'], 'family': family}}) %}
        {% endif %}
    {% endfor %}
    {% do return(columns) %}
{% endmacro %}


{# A column of a type that cannot mean what is asked is a mistake in the mapping. #}
{% macro _require_family(mapping_var, name, column, family) %}
    {% if name == 'event_ts' %}
        {% set allowed = ['timestamp', 'timestamptz', 'timestamp_ns', 'date', 'text'] %}
    {% elif name in ('amount', 'quantity', 'rating', 'discount_amount') %}
        {% set allowed = ['number', 'float', 'text'] %}
    {% else %}
        {% set allowed = [
            'text', 'number', 'float', 'boolean', 'date', 'timestamp', 'timestamptz',
            'timestamp_ns',
        ] %}
    {% endif %}
    {% if family not in allowed %}
        {% do churn_scoring._raise_churn_var(
            mapping_var, column['name'] ~ ' of type ' ~ column['type'] ~ ' for ' ~ name,
            'a column of type ' ~ (allowed | join(', ')),
            'cast it in a view, or map another column to ' ~ name
        ) %}
    {% endif %}
{% endmacro %}
