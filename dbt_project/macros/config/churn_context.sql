{#
    What Python needs to know of this project, as JSON: resolved settings, relation
    names, the feature columns in order, and which invocation said so. Read it with
    dbt compile --inline "{{ '{{' }} churn_scoring.churn_context() {{ '}}' }}".
#}
{% macro churn_context() %}
    {% if not execute %}
        {% do return('{}') %}
    {% endif %}
    {% do churn_scoring.validate_churn_vars() %}
    {% set relations = {} %}
    {% for node in graph.nodes.values()
        if node.package_name == 'churn_scoring' and node.resource_type == 'model' %}
        {% do relations.update({node.name: node.relation_name}) %}
    {% endfor %}
    {% set node = graph.nodes['model.churn_scoring.churn_examples'] %}
    {% set features = [] %}
    {% for name in churn_scoring.feature_columns() %}
        {% set column = node.columns[name] %}
        {% do features.append({
            'name': name,
            'group': column['config']['meta']['feature_group'],
            'description': column['description'] | trim,
        }) %}
    {% endfor %}
    {% do return(tojson({
        'settings': churn_scoring.churn_settings(),
        'relations': relations,
        'features': features,
        'project': project_name,
        'target': {'name': target.name, 'type': target.type, 'schema': target.schema},
        'invocation_id': invocation_id,
        'dbt_version': dbt_version,
    }, sort_keys=false)) %}
{% endmacro %}
