{#
    Pre-hook of the models in Python: they see neither vars nor macros, so what they need
    is left as JSON in a session variable (read by churn_udf.warehouse.dbt_model).
#}
{% macro set_scoring_context() %}
    {{- return(adapter.dispatch('set_scoring_context', 'churn_scoring')()) -}}
{% endmacro %}


{% macro default__set_scoring_context() %}
    {% do exceptions.raise_compiler_error(
        'set_scoring_context: got target.type ' ~ target.type
        ~ '; allowed: duckdb; Python models of this package run on DuckDB only'
    ) %}
{% endmacro %}


{% macro duckdb__set_scoring_context() %}
    {%- set examples = ref('churn_examples') -%}
    {%- set cutoffs = ref('int_cutoffs_spined') -%}
    {%- set freshness = ref('int_data_freshness') -%}
    {%- if execute -%}
        {%- do churn_scoring.refuse_stale_data(freshness) -%}
        {%- set cache = api.Relation.create(
            database=this.database, schema=this.schema, identifier='churn_score_cache'
        ) -%}
        {%- set unscorable = api.Relation.create(
            database=this.database, schema=this.schema,
            identifier='churn_unscorable_inputs'
        ) -%}
        {%- set by_others = api.Relation.create(
            database=this.database, schema=this.schema,
            identifier='churn_unscorable_by_others'
        ) -%}
        {%- set relations = {'churn_unscorable_by_others': by_others.render()} -%}
        {%- for unique_id in model.depends_on.nodes -%}
            {%- set node = graph.nodes[unique_id] -%}
            {%- do relations.update({node.name: node.relation_name}) -%}
        {%- endfor -%}
        {%- set context = {
            'settings': churn_scoring.churn_settings(),
            'settings_hash': churn_scoring.input_settings_hash(),
            'feature_names': churn_scoring.feature_columns(),
            'examples_relation': examples.render(),
            'cutoffs_relation': cutoffs.render(),
            'cache_relation': cache.render(),
            'unscorable_relation': unscorable.render(),
            'unscorable_rows': churn_scoring.get_churn_var('unscorable_rows'),
            'is_full_refresh': flags.FULL_REFRESH,
            'relations': relations,
        } -%}
        set variable churn_scoring_context = '{{ tojson(context) | replace("'", "''") }}'
    {%- endif -%}
{% endmacro %}
