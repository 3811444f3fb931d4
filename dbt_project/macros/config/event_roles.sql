{# What kinds of event the features tell apart. #}
{% macro event_roles() %}
    {% do return([
        'purchase', 'return', 'view', 'cart', 'review', 'campaign', 'other',
    ]) %}
{% endmacro %}
