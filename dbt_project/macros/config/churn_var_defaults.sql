{#
    The only place that knows the vars of this package: name, default, kind and bounds.
    kind says how a value is coerced and checked (see _coerce_churn_var.sql).
#}
{% macro churn_var_defaults() %}
    {% do return({
        'events_relation': {'default': none, 'kind': 'relation'},
        'events_path': {'default': none, 'kind': 'path'},
        'users_relation': {'default': none, 'kind': 'relation'},
        'users_path': {'default': none, 'kind': 'path'},
        'event_columns': {'default': {}, 'kind': 'event_columns'},
        'user_columns': {'default': {}, 'kind': 'user_columns'},
        'profile_columns': {'default': none, 'kind': 'optional_list'},
        'qualifying_event_types': {'default': ['purchase'], 'kind': 'event_types'},
        'event_type_roles': {'default': {}, 'kind': 'event_type_roles'},
        'observation_days': {'default': 365, 'kind': 'integer', 'min': 1, 'max': 3650},
        'eligibility_days': {'default': 90, 'kind': 'integer', 'min': 1, 'max': 3650},
        'gap_days': {'default': 0, 'kind': 'integer', 'min': 0, 'max': 365},
        'horizon_days': {'default': 30, 'kind': 'integer', 'min': 1, 'max': 730},
        'training_cutoffs': {'default': {'every_days': 7}, 'kind': 'cutoffs'},
        'max_training_cutoffs': {
            'default': 52, 'kind': 'integer', 'min': 1, 'max': 1000,
        },
        'score_cutoff_date': {'default': 'latest', 'kind': 'date', 'word': 'latest'},
        'data_end_date': {'default': 'auto', 'kind': 'date', 'word': 'auto'},
        'late_data_days': {'default': 0, 'kind': 'integer', 'min': 0, 'max': 365},
        'as_of': {'default': 'now', 'kind': 'timestamp', 'word': 'now'},
        'max_data_age_days': {'default': 7, 'kind': 'integer', 'min': 1, 'max': 3650},
        'stale_data': {
            'default': 'warn', 'kind': 'choice', 'choices': ['warn', 'fail', 'allow'],
        },
        'max_visits': {'default': 16, 'kind': 'integer', 'min': 1, 'max': 256},
        'max_words_per_visit': {'default': 4, 'kind': 'integer', 'min': 0, 'max': 64},
        'max_reviews': {'default': 3, 'kind': 'integer', 'min': 0, 'max': 64},
        'max_review_chars': {'default': 400, 'kind': 'integer', 'min': 1, 'max': 10000},
        'max_amount': {'default': 1000000, 'kind': 'number'},
        'max_quantity': {'default': 1000000, 'kind': 'number'},
        'min_event_date': {'default': '1971-01-01', 'kind': 'date'},
        'unscorable_rows': {
            'default': 'warn', 'kind': 'choice', 'choices': ['warn', 'fail'],
        },
        'drift_failures': {
            'default': 'warn', 'kind': 'choice', 'choices': ['warn', 'error'],
        },
    }) %}
{% endmacro %}
