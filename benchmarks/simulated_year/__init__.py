"""A year of nights: a shop replayed week by week, with causes injected and alarms expected."""
