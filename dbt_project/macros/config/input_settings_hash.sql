{# Hash of the settings that features and text depend on, besides the events. #}
{% macro input_settings_hash() %}
    {% set settings = churn_scoring.churn_settings() %}
    {% set parts = [] %}
    {% for name in [
        'observation_days', 'eligibility_days', 'gap_days', 'horizon_days',
        'qualifying_event_types', 'max_visits', 'max_words_per_visit', 'max_reviews',
        'max_review_chars', 'text_version', 'feature_version',
    ] %}
        {% set value = settings[name] %}
        {% if name == 'qualifying_event_types' %}
            {% set value = value | sort | join(',') %}
        {% endif %}
        {% do parts.append(name ~ '=' ~ value) %}
    {% endfor %}
    {% do return(local_md5(parts | join(';'))) %}
{% endmacro %}
