{# No value is infinite or NaN. #}
{% test finite_or_null(model, column_name) %}

select {{ column_name }}

from {{ model }}

where not {{ churn_scoring.is_finite(column_name) }}

{% endtest %}
