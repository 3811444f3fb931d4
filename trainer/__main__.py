"""``python -m trainer`` is ``churn-train``."""

from trainer.cli import main

if __name__ == "__main__":
    main(prog_name="churn-train")
