{#
    Say in words what a test found (on-run-end): dbt itself counts rows. A test that wants
    it names the column of its sentences in `config(meta={'prints': 'message'})`. `results`
    is what dbt hands to the hook. Renders no SQL.
#}
{% macro print_test_messages(results) %}
    {% if execute %}
        {% for result in results
            if result.node.resource_type == 'test'
            and result.node.package_name == 'churn_scoring'
            and result.status | string in ['warn', 'fail']
            and result.node.config.meta.get('prints') %}
            {% set rows = run_query(
                'select ' ~ result.node.config.meta['prints'] ~ ' from ('
                ~ result.node.compiled_code ~ ') as found'
            ) %}
            {% for row in rows.rows[:10] %}
                {% do log(result.node.name ~ ': ' ~ row[0], info=true) %}
            {% endfor %}
            {% if rows.rows | length > 10 %}
                {% do log(
                    result.node.name ~ ': and ' ~ (rows.rows | length - 10) ~ ' more',
                    info=true
                ) %}
            {% endif %}
        {% endfor %}
    {% endif %}
{% endmacro %}
