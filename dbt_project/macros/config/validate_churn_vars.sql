{#
    Check every var and their combinations before anything runs (on-run-start).
    Renders no SQL.
#}
{% macro validate_churn_vars() %}
    {% if execute %}
        {% do churn_scoring._validate_var_names() %}
        {% set settings = churn_scoring.churn_settings() %}
        {% if settings['events_relation'] is none and settings['events_path'] is none %}
            {% do exceptions.raise_compiler_error(
                "churn__events_relation: got nothing; allowed: exactly one of"
                ~ " churn__events_relation (a table) and churn__events_path (a Parquet"
                ~ " or CSV file); set one of them in vars or --vars"
            ) %}
        {% endif %}
        {% for kind in ['events', 'users'] %}
            {% set path = settings[kind ~ '_path'] %}
            {% set relation = settings[kind ~ '_relation'] %}
            {% if path is not none and relation is not none %}
                {% do exceptions.raise_compiler_error(
                    "churn__" ~ kind ~ "_path: got " ~ path ~ " beside churn__" ~ kind
                    ~ "_relation " ~ relation
                    ~ "; allowed: only one of them; set one to null"
                ) %}
            {% endif %}
        {% endfor %}
        {% if settings['users_path'] is none and settings['users_relation'] is none %}
            {% for name in ['user_columns', 'profile_columns'] if settings[name] %}
                {% do churn_scoring._raise_churn_var(
                    name, settings[name], 'nothing while there is no users table',
                    'set churn__users_relation or churn__users_path, or leave it out'
                ) %}
            {% endfor %}
        {% endif %}
        {% if settings['eligibility_days'] > settings['observation_days'] %}
            {% do churn_scoring._raise_churn_var(
                'eligibility_days', settings['eligibility_days'],
                'a whole number from 1 to churn__observation_days ('
                ~ settings['observation_days'] ~ ')',
                'lower it, or raise churn__observation_days'
            ) %}
        {% endif %}
        {% set dates = settings['training_cutoffs'].get('dates', []) %}
        {% if dates | length > settings['max_training_cutoffs'] %}
            {% do churn_scoring._raise_churn_var(
                'training_cutoffs', dates | length ~ ' dates',
                'at most churn__max_training_cutoffs ('
                ~ settings['max_training_cutoffs'] ~ ')',
                'list fewer dates, or raise churn__max_training_cutoffs'
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}


{#
    A misspelt var would silently be ignored. dbt shows package code the names given by
    --vars, not those in dbt_project.yml, so only the former can be checked.
#}
{% macro _validate_var_names() %}
    {% set known = churn_scoring.churn_var_defaults() %}
    {% for name in (invocation_args_dict.get('vars') or {})
        if name.startswith("churn__") and name[7:] not in known %}
        {% set best = namespace(name=none, score=0) %}
        {% for candidate in known %}
            {% set shared = [] %}
            {% for word in candidate.split('_') if word in name %}
                {% do shared.append(word) %}
            {% endfor %}
            {% set score = shared | join('') | length %}
            {% if score > best.score %}
                {% set best.name, best.score = candidate, score %}
            {% endif %}
        {% endfor %}
        {% do exceptions.raise_compiler_error(
            name ~ ": there is no such var; allowed: churn__"
            ~ (known | join(', churn__'))
            ~ ("; did you mean churn__" ~ best.name ~ "?" if best.name
            else "; remove it")
        ) %}
    {% endfor %}
{% endmacro %}
