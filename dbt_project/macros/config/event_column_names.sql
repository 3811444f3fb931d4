{# The canonical columns of the events input, in order. The first three are required. #}
{% macro event_column_names() %}
    {% do return([
        'user_id', 'event_type', 'event_ts', 'order_id', 'item_id', 'item_name',
        'category', 'amount', 'quantity', 'rating', 'review_text', 'discount_amount',
    ]) %}
{% endmacro %}
