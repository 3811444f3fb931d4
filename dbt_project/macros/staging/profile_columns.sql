{#
    The profile columns of the users input, in order: a list of {'name', 'family'}.
    Nested and binary columns are left out with a note, unless asked for by name. So are dates
    and times: today's "closed at" or "last seen" would tell a past cutoff its future.
#}
{% macro profile_columns(relation) %}
    {% set stored = churn_scoring.columns_of(relation) %}
    {% set mapping = churn_scoring.get_churn_var('user_columns') %}
    {% set user_column = mapping.get('user_id', 'user_id') %}
    {% set wanted = churn_scoring.get_churn_var('profile_columns') %}
    {% set columns = [] %}
    {% for name in (wanted if wanted is not none else stored) if stored %}
        {% set column = stored.get(name | lower) %}
        {% if column is none or name | lower == user_column | lower %}
            {% if wanted is not none %}
                {% do churn_scoring._raise_churn_var(
                    'profile_columns', name, 'columns of ' ~ relation ~ ' other than '
                    ~ user_column ~ ': '
                    ~ (stored.values() | map(attribute='name') | join(', ')),
                    'change it in vars or --vars'
                ) %}
            {% endif %}
        {% else %}
            {% set family = churn_scoring.data_type_family(column['type']) %}
            {% set is_moment = family.startswith('timestamp') or family == 'date' %}
            {% if wanted is none and is_moment %}
                {% do log(
                    'churn_scoring: profile column ' ~ column['name'] ~ ' is a date or time'
                    ~ ' and is left out: it may tell what happened after a cutoff; name it in'
                    ~ ' churn__profile_columns if it does not', info=true
                ) %}
            {% elif family != 'other' %}
                {% do columns.append({'name': column['name'], 'family': family}) %}
            {% elif wanted is not none %}
                {% do churn_scoring._raise_churn_var(
                    'profile_columns', name ~ ' of type ' ~ column['type'],
                    'columns of text, numbers, booleans or dates',
                    'cast it in a view, or leave it out'
                ) %}
            {% else %}
                {% do log(
                    'churn_scoring: profile column ' ~ column['name'] ~ ' of type '
                    ~ column['type'] ~ ' is left out', info=true
                ) %}
            {% endif %}
        {% endif %}
    {% endfor %}
    {% do return(columns) %}
{% endmacro %}
