{#
    What a data type can be read as: text, number (whole or decimal), float, timestamp,
    timestamptz, timestamp_ns, date, boolean or other (nested, binary, time of day,
    interval).
#}
{% macro data_type_family(data_type) %}
    {% set base = modules.re.sub('[(].*[)]', '', data_type | lower) | trim %}
    {% if data_type.endswith(']')
        or modules.re.match('(struct|map|list|array|union)', base) %}
        {% do return('other') %}
    {% elif base.startswith('enum') or base in (
        'varchar', 'text', 'string', 'char', 'bpchar', 'character varying', 'uuid'
    ) %}
        {% do return('text') %}
    {% elif base in (
        'tinyint', 'smallint', 'integer', 'int', 'bigint', 'hugeint', 'int64',
        'utinyint', 'usmallint', 'uinteger', 'ubigint', 'uhugeint', 'bignum',
        'decimal', 'numeric', 'number'
    ) %}
        {% do return('number') %}
    {% elif base in (
        'double', 'float', 'real', 'double precision', 'float64', 'float8', 'float4'
    ) %}
        {% do return('float') %}
    {% elif base == 'timestamp_ns' %}
        {% do return('timestamp_ns') %}
    {% elif base in ('timestamp with time zone', 'timestamptz', 'timestamp_tz') %}
        {% do return('timestamptz') %}
    {% elif base.startswith('timestamp') or base.startswith('datetime') %}
        {% do return('timestamp') %}
    {% elif base in ('date', 'boolean') %}
        {% do return(base) %}
    {% endif %}
    {# An all-null column of a file has no better type than the adapter's null. #}
    {% do return('text' if base in ('null', '"null"') else 'other') %}
{% endmacro %}
