{#
    Pre-hook of int_scores_published: what is published, the marts that the model refers
    to, is left as JSON in a session variable (read by churn_udf.warehouse.publish_model).
#}
{% macro set_publish_context() %}
    {{- return(adapter.dispatch('set_publish_context', 'churn_scoring')()) -}}
{% endmacro %}


{% macro default__set_publish_context() %}
    {% do exceptions.raise_compiler_error(
        'set_publish_context: got target.type ' ~ target.type
        ~ '; allowed: duckdb; Python models of this package run on DuckDB only'
    ) %}
{% endmacro %}


{% macro duckdb__set_publish_context() %}
    {%- if execute -%}
        {%- set relations = {} -%}
        {%- for unique_id in model.depends_on.nodes -%}
            {%- set node = graph.nodes[unique_id] -%}
            {%- do relations.update({node.name: node.relation_name}) -%}
        {%- endfor -%}
        {%- set context = {'relations': relations, 'is_empty': flags.EMPTY} -%}
        set variable churn_publish_context = '{{ tojson(context) | replace("'", "''") }}'
    {%- endif -%}
{% endmacro %}
