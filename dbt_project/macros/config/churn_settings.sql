{# Every setting, resolved: a mapping of var name without prefix to value. #}
{% macro churn_settings() %}
    {% set settings = {} %}
    {% for name in churn_scoring.churn_var_defaults() %}
        {% do settings.update({name: churn_scoring.get_churn_var(name)}) %}
    {% endfor %}
    {% do settings.update({
        'text_version': churn_scoring.text_version(),
        'feature_version': churn_scoring.feature_version(),
    }) %}
    {% do return(settings) %}
{% endmacro %}
