"""``python -m churn_udf.cli`` is ``churn-score``."""

from churn_udf.cli import main

if __name__ == "__main__":
    main(prog_name="churn-score")
