{#
    Where the buckets of numbers in the text start, by kind of number; a number is
    written as the start of its bucket. Whole numbers up to exact_until stand as they are.
#}
{% macro text_bucket_bounds() %}
    {{ return({
        'days': {
            'exact_until': 14,
            'bounds': [
                15, 17, 19, 21, 24, 28, 32, 38, 45, 60, 75, 90, 120, 150, 180, 240, 300,
                365, 545, 730, 1095, 1825
            ],
        },
        'count': {
            'exact_until': 12,
            'bounds': [13, 16, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000],
        },
        'amount': {
            'exact_until': 1,
            'bounds': [
                2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000,
                1500, 2000, 3000, 5000, 7000, 10000, 20000, 50000, 100000, 1000000
            ],
        },
    }) }}
{% endmacro %}
