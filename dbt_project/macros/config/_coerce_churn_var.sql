{# Coerce one var to its kind; a value that does not fit is a compiler error. #}
{% macro _coerce_churn_var(name, value, spec) %}
    {% set kind = spec['kind'] %}
    {% if kind in ('integer', 'number') %}
        {% do return(churn_scoring._coerce_number(name, value, spec)) %}
    {% elif kind == 'date' %}
        {% do return(churn_scoring._coerce_date(name, value, spec.get('word'))) %}
    {% elif kind == 'timestamp' %}
        {% do return(churn_scoring._coerce_timestamp(name, value, spec['word'])) %}
    {% elif kind in ('optional_list', 'event_types') %}
        {% do return(churn_scoring._coerce_list(name, value, kind)) %}
    {% elif kind in ('event_columns', 'user_columns', 'event_type_roles') %}
        {% do return(churn_scoring._coerce_mapping(name, value, kind)) %}
    {% elif kind == 'choice' %}
        {% do return(churn_scoring._coerce_choice(name, value, spec['choices'])) %}
    {% elif kind == 'cutoffs' %}
        {% do return(churn_scoring._coerce_cutoffs(name, value)) %}
    {% else %}
        {% do return(churn_scoring._coerce_location(name, value, kind)) %}
    {% endif %}
{% endmacro %}


{# One message for every bad var. Nothing is raised while dbt only parses. #}
{% macro _raise_churn_var(name, value, allowed, next_step) %}
    {% if execute %}
        {% do exceptions.raise_compiler_error(
            "churn__" ~ name ~ ": got " ~ (value | string | truncate(200, true))
            ~ "; allowed: " ~ allowed ~ "; " ~ next_step
        ) %}
    {% endif %}
    {% do return(churn_scoring.churn_var_defaults()[name]['default']) %}
{% endmacro %}


{% macro _coerce_number(name, value, spec) %}
    {% set text = value | string | trim %}
    {% if spec['kind'] == 'integer' %}
        {% set allowed = 'a whole number from ' ~ spec['min'] ~ ' to ' ~ spec['max'] %}
        {% set is_number = modules.re.match('^-?[0-9]{1,9}([.]0*)?$', text) %}
        {% set number = text | float | int %}
        {% set is_allowed = is_number and spec['min'] <= number <= spec['max'] %}
    {% else %}
        {% set allowed = 'a number above 0, at most 1e12' %}
        {% set is_number = modules.re.match(
            '^[0-9]+([.][0-9]*)?(e[+]?[0-9]{1,2})?$', text | lower
        ) %}
        {% set number = text | float %}
        {% set is_allowed = is_number and 0 < number <= 1e12 %}
    {% endif %}
    {% if not is_allowed or value is boolean %}
        {% do return(churn_scoring._raise_churn_var(
            name, value, allowed, 'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(number) %}
{% endmacro %}


{# One word of a list, whatever its case. #}
{% macro _coerce_choice(name, value, choices) %}
    {% set text = value | string | trim | lower %}
    {% if text not in choices %}
        {% do return(churn_scoring._raise_churn_var(
            name, value, "'" ~ choices | join("' or '") ~ "'",
            'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(text) %}
{% endmacro %}


{# A calendar date as 'YYYY-MM-DD', or the one word that is also allowed. #}
{% macro _coerce_date(name, value, word=none) %}
    {% set text = value | string | trim | lower %}
    {% if word is not none and text == word %}
        {% do return(word) %}
    {% endif %}
    {% if not churn_scoring._is_date(text) %}
        {% set allowed = 'a date as YYYY-MM-DD'
            ~ (" or '" ~ word ~ "'" if word else '') %}
        {% do return(churn_scoring._raise_churn_var(
            name, value, allowed, 'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(text) %}
{% endmacro %}


{# A moment in UTC as 'YYYY-MM-DD HH:MM:SS', a date alone being its midnight. #}
{% macro _coerce_timestamp(name, value, word) %}
    {% set text = value | string | trim %}
    {% if text | lower == word %}
        {% do return(word) %}
    {% endif %}
    {% set moment = modules.re.match(
        '^([0-9-]{10})([T ](([01][0-9]|2[0-3]):[0-5][0-9])(:[0-5][0-9])?'
        ~ '([.][0-9]{1,6})?)?(Z|[+]00:?00)?$', text
    ) %}
    {% if value is boolean or not moment or not churn_scoring._is_date(text[:10]) %}
        {% do return(churn_scoring._raise_churn_var(
            name, value,
            "a moment in UTC as 'YYYY-MM-DD HH:MM:SS' or YYYY-MM-DD, or '" ~ word ~ "'",
            'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(
        moment.group(1) ~ ' ' ~ (moment.group(3) or '00:00') ~ (moment.group(5) or ':00')
    ) %}
{% endmacro %}


{# Jinja cannot catch an exception, so the calendar is checked before it is used. #}
{% macro _is_date(text) %}
    {% if not modules.re.match('^[0-9]{4}-[0-9]{2}-[0-9]{2}$', text) %}
        {% do return(false) %}
    {% endif %}
    {% set year, month, day = text[:4] | int, text[5:7] | int, text[8:] | int %}
    {% if not (1000 <= year <= 9998 and 1 <= month <= 12 and 1 <= day <= 31) %}
        {% do return(false) %}
    {% endif %}
    {% set first = modules.datetime.date(year, month, 1) %}
    {% set moved = first + modules.datetime.timedelta(days=day - 1) %}
    {% do return(moved.month == month) %}
{% endmacro %}


{% macro _coerce_list(name, value, kind) %}
    {% set is_required = kind == 'event_types' %}
    {% set allowed = 'a list of event types with at least one entry' if is_required
        else 'a list of column names of the users table, or null for all' %}
    {% if value is string %}
        {% set parsed = fromyaml(value, value) %}
        {% set items = parsed.split(',') if parsed is string else parsed %}
    {% else %}
        {% set items = value %}
    {% endif %}
    {% set cleaned = [] %}
    {% set flawed = [] %}
    {% if items is mapping or items is string or items is number
        or items is not iterable %}
        {% do flawed.append(items) %}
    {% else %}
        {% for item in items %}
            {% set text = item | string | trim %}
            {% set text = text | lower if is_required else text %}
            {% if text == '' or item is none or item is mapping
                or (item is iterable and item is not string) %}
                {% do flawed.append(item) %}
            {% elif text not in cleaned %}
                {% do cleaned.append(text) %}
            {% endif %}
        {% endfor %}
    {% endif %}
    {% if flawed or (is_required and not cleaned) %}
        {% do return(churn_scoring._raise_churn_var(
            name, value, allowed, 'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(cleaned) %}
{% endmacro %}


{% macro _coerce_mapping(name, value, kind) %}
    {% set keys = churn_scoring.event_column_names() if kind == 'event_columns'
        else ['user_id'] if kind == 'user_columns' else none %}
    {% set roles = churn_scoring.event_roles() %}
    {% set allowed = 'a mapping of event type to role (' ~ (roles | join(', ')) ~ ')'
        if keys is none
        else 'a mapping of ' ~ (keys | join(', ')) ~ ' to a column name' %}
    {% set mapping = fromyaml(value, value) if value is string else value %}
    {% set result = {} %}
    {% set flawed = [] %}
    {% if mapping is not mapping %}
        {% do flawed.append(mapping) %}
    {% else %}
        {% for key, item in mapping.items() %}
            {% set clean_key = key | string | trim | lower %}
            {% set text = item | string | trim %}
            {% if clean_key == '' or text == '' or item is none or item is mapping
                or (keys is not none and clean_key not in keys)
                or (keys is none and text | lower not in roles) %}
                {% do flawed.append(key ~ ': ' ~ item) %}
            {% else %}
                {% set text = text if keys is not none else text | lower %}
                {% do result.update({clean_key: text}) %}
            {% endif %}
        {% endfor %}
    {% endif %}
    {% if flawed %}
        {% do return(churn_scoring._raise_churn_var(
            name, flawed[0], allowed, 'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(result) %}
{% endmacro %}


{# Either {'dates': [...]} or {'first': ..., 'last': ..., 'every_days': ...}. #}
{% macro _coerce_cutoffs(name, value) %}
    {% set allowed = 'a list of dates as YYYY-MM-DD, or a mapping with any of'
        ~ ' first (date), last (date), every_days (1 to 365)' %}
    {% set next_step = 'change it in vars or --vars' %}
    {% set plan = fromyaml(value, value) if value is string else value %}
    {% set flawed = [] %}
    {% if plan is mapping %}
        {% set result = {'first': none, 'last': none, 'every_days': 7} %}
        {% for key, item in plan.items() %}
            {% set text = item | string | trim %}
            {% if key not in result %}
                {% do flawed.append(key ~ ': ' ~ item) %}
            {% elif item is none or text | lower in ('', 'auto') %}
                {# stays as it is #}
            {% elif key == 'every_days' %}
                {% if modules.re.match('^[0-9]{1,3}$', text)
                    and 1 <= text | int <= 365 %}
                    {% do result.update({key: text | int}) %}
                {% else %}
                    {% do flawed.append(key ~ ': ' ~ item) %}
                {% endif %}
            {% elif churn_scoring._is_date(text) %}
                {% do result.update({key: text}) %}
            {% else %}
                {% do flawed.append(key ~ ': ' ~ item) %}
            {% endif %}
        {% endfor %}
        {% if result['first'] and result['last'] and result['first'] > result['last'] %}
            {% do flawed.append(plan) %}
            {% set next_step = 'first must not be after last' %}
        {% endif %}
    {% elif plan is iterable and plan is not string and plan | length > 0 %}
        {% set dates = [] %}
        {% for item in plan %}
            {% set text = item | string | trim %}
            {% if churn_scoring._is_date(text) %}
                {% do dates.append(text) %}
            {% else %}
                {% do flawed.append(item) %}
            {% endif %}
        {% endfor %}
        {% set result = {'dates': dates | unique | sort} %}
    {% else %}
        {% do flawed.append(plan) %}
    {% endif %}
    {% if flawed %}
        {% do return(churn_scoring._raise_churn_var(
            name, flawed[0], allowed, next_step
        )) %}
    {% endif %}
    {% do return(result) %}
{% endmacro %}


{% macro _coerce_location(name, value, kind) %}
    {% set text = value | string | trim %}
    {% if kind == 'relation' %}
        {% set allowed = 'table, schema.table or database.schema.table' %}
        {% set pattern = '^("[^"]+"|[^". ]+)([.]("[^"]+"|[^". ]+)){0,2}$' %}
    {% else %}
        {% set allowed =
            'the path of a .parquet or .csv file, or a glob of such files' %}
        {% set pattern = '(?is)^.+[.](parquet|pq|csv|tsv|csv[.]gz|tsv[.]gz)$' %}
    {% endif %}
    {% if value is mapping or value is number or not modules.re.match(pattern, text) %}
        {% do return(churn_scoring._raise_churn_var(
            name, value, allowed, 'change it in vars or --vars'
        )) %}
    {% endif %}
    {% do return(text) %}
{% endmacro %}
