{#
    What churn_event_volumes compares with, and how far a count may be off. Distances are in
    spreads of square roots, in which a Poisson count has the spread 0.5 whatever its mean.
    They and the shares were chosen together: in 10 simulated years of Poisson and clustered
    counts a type has less than one false error, and the bank holidays of the two real data
    sets warn while nothing else does (docs/monitoring.md).
#}
{% macro event_volume_limits() %}
    {% do return({
        'reference_weeks': 8,
        'judged_days': 91,
        'tested_days': 7,
        'min_week_count': 14,
        'min_active_share': 0.333,
        'spread_quantile': 0.8,
        'min_spread': 0.5,
        'day_warn': {
            'low': {'spreads': 5.0, 'share': 0.6}, 'high': {'spreads': 6.0, 'share': 1.6},
        },
        'week_warn': {
            'low': {'spreads': 4.0, 'share': 0.7}, 'high': {'spreads': 5.0, 'share': 1.5},
        },
        'week_error': {
            'low': {'spreads': 4.5, 'share': 0.5}, 'high': {'spreads': 8.0, 'share': 3.0},
        },
    }) %}
{% endmacro %}
