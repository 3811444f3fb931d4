{# "rating 4: text", "rating 4.5: text", or the text alone when there is no rating. #}
{% macro serialize_review(rating_units, review_text) -%}
    case
        when {{ rating_units }} is null
            then {{ review_text }}
        else
            'rating ' || ({{ churn_scoring.serialize_rating(rating_units) }})
            || ': ' || {{ review_text }}
    end
{%- endmacro %}
