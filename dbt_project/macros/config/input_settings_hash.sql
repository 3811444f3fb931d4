{# Hash of the settings that a row of features and text depends on, besides its events. #}
{% macro input_settings_hash() %}
    {% set settings = churn_scoring.churn_settings() %}
    {% set parts = [] %}
    {% for name in [
        'observation_days', 'eligibility_days', 'gap_days', 'horizon_days',
        'qualifying_event_types', 'max_visits', 'max_words_per_visit', 'max_reviews',
        'max_review_chars', 'text_version', 'feature_version',
    ] %}
        {% set value = settings[name] %}
        {% set value = value | sort | join(',') if name == 'qualifying_event_types' else value %}
        {% do parts.append(name ~ '=' ~ value) %}
    {% endfor %}
    {% do return(local_md5(parts | join(';'))) %}
{% endmacro %}
