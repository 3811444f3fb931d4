{# Fail unless the path in a var matches a file. Remote paths are not checked. #}
{% macro require_file(var_name) %}
    {% do return(adapter.dispatch('require_file', 'churn_scoring')(var_name)) %}
{% endmacro %}


{% macro default__require_file(var_name) %}
    {% do churn_scoring._raise_churn_var(
        var_name, churn_scoring.get_churn_var(var_name), 'nothing on ' ~ target.type,
        'load the file into a table and name it in churn__'
        ~ var_name | replace('_path', '_relation')
    ) %}
{% endmacro %}


{% macro duckdb__require_file(var_name) %}
    {% set path = churn_scoring.get_churn_var(var_name) %}
    {% if execute and '://' not in path %}
        {% set found = run_query(
            "select count(*) from glob('" ~ path | replace("'", "''") ~ "')"
        ) %}
        {% if found.rows[0][0] | int == 0 %}
            {% do churn_scoring._raise_churn_var(
                var_name, path, 'the path of an existing .parquet or .csv file',
                'there is no such file; relative paths start at the folder dbt runs in'
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}
