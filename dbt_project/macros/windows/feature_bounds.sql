{#
    The feature columns in order, each with the min_value and max_value of its meta in
    the YAML of churn_examples, none where there is no bound. Empty while dbt parses.
#}
{% macro feature_bounds() %}
    {%- set bounds = {} -%}
    {%- if execute -%}
        {%- set node = graph.nodes['model.churn_scoring.churn_examples'] -%}
        {%- for name, column in node.columns.items() -%}
            {%- set meta = (column.get('config') or {}).get('meta') or {} -%}
            {%- if meta.get('feature_group') -%}
                {%- do bounds.update({name: {
                    'min_value': meta.get('min_value'),
                    'max_value': meta.get('max_value'),
                }}) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- if not bounds -%}
            {%- do exceptions.raise_compiler_error(
                'feature_bounds: no column of churn_examples has a meta feature_group'
            ) -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(bounds) }}
{% endmacro %}
