{#
    Say what to do about failures that come from the machine (on-run-end): DuckDB's own
    messages name neither the setting nor what has become of the tables. `results` is what
    dbt hands to the hook. Renders no SQL.
#}
{% macro explain_failures(results) %}
    {% if execute %}
        {% set kept =
            'Every table is as the last run that wrote it left it, and scores already made'
            ~ ' are kept in churn_score_cache: run again to go on from there'
        %}
        {% set causes = [
            (
                ['no space left', 'file too large', 'disk quota exceeded'],
                'the disk is full at ' ~ target.get('path', 'the database')
                ~ ' (or its temp_directory): free space, or point the database to a larger disk'
            ),
            (
                ['out of memory error'],
                'memory_limit is too low (settings in profiles.yml): raise it, or lower'
                ~ ' threads (CHURN_THREADS), which share it'
            ),
        ] %}
        {% for result in results if result.status | string in ['error', 'fail'] %}
            {% set message = (result.message or '') | string %}
            {% for needles, advice in causes %}
                {% set seen = [] %}
                {% for line in message.splitlines() %}
                    {% for needle in needles if needle in line | lower %}
                        {% do seen.append(line | trim) %}
                    {% endfor %}
                {% endfor %}
                {% if seen %}
                    {% do log(
                        result.node.name ~ ' failed because ' ~ advice ~ '. ' ~ kept
                        ~ '. DuckDB said: ' ~ seen[-1], info=true
                    ) %}
                {% endif %}
            {% endfor %}
        {% endfor %}
    {% endif %}
{% endmacro %}
