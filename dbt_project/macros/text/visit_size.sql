{#
    How large a visit is against the user's own mean, as a ratio: by spend where the user
    has any, else by number of events; null where a visit has no spend to compare.
#}
{% macro visit_size(visit, standing) -%}
    case
        when {{ standing }}.amount_units > 0 and {{ visit }}.is_purchase_day = 1
            then cast({{ visit }}.amount_units as double)
                * {{ standing }}.purchase_day_count / {{ standing }}.amount_units
        when {{ standing }}.amount_units = 0
            then cast({{ visit }}.visit_event_count as double)
                * {{ standing }}.visit_count / {{ standing }}.visit_event_count
    end
{%- endmacro %}
