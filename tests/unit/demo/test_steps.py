"""The demo's condensed view of dbt's output, and its memory of finished steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo.steps import (
    Console,
    StepFailed,
    StepRecord,
    fingerprint_of,
    run_dbt,
    run_for_result,
    show_dbt_line,
)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param(
            "19:46:45  3 of 112 OK created sql table model main.int_x ......... [OK in 0.16s]",
            "3 of 112  main.int_x  0.16s",
            id="table",
        ),
        pytest.param(
            "19:46:45  66 of 124 OK created sql incremental model main.int_long  [OK in 0.81s]",
            "66 of 124  main.int_long  0.81s",
            id="long-name-without-dots",
        ),
        pytest.param(
            "19:46:45  4 of 9 OK created python incremental model main.int_p .... [OK in 1.00s]",
            "4 of 9  main.int_p  1.00s",
            id="python",
        ),
        pytest.param(
            "19:46:45  5 of 9 OK loaded seed file main.words ..... [INSERT 9 in 0.06s]",
            "5 of 9  main.words  0.06s",
            id="seed",
        ),
        pytest.param(
            "19:46:45  7 of 9 FAIL 3 not_null_x ....... [FAIL 3 in 0.03s]",
            "7 of 9  FAIL 3 not_null_x",
            id="failed-test",
        ),
        pytest.param(
            "19:46:45  churn: no champion yet", "churn: no champion yet", id="a-word-of-ours"
        ),
        pytest.param("scored 10/20", "scored 10/20", id="not-dbt"),
        pytest.param("19:46:46  Done. PASS=111 WARN=0", "PASS=111 WARN=0", id="end"),
    ],
)
def test_line_is_shown(line: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_dbt_line(Console(1), line)
    assert capsys.readouterr().out.strip() == shown


@pytest.mark.parametrize(
    "line",
    [
        "19:46:44",
        "19:46:35  Running with dbt=1.11.16",
        "19:46:45  1 of 1 OK hook: churn_scoring.on-run-start.0 .... [OK in 0.03s]",
        "19:46:45  3 of 112 START sql table model main.int_x ......... [RUN]",
        "19:46:45  26 of 112 PASS not_null_x ....... [PASS in 0.03s]",
    ],
)
def test_line_is_left_out(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_dbt_line(Console(1), line)
    assert capsys.readouterr().out == ""


def test_failed_command_shows_its_end_and_keeps_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "dbt.log"
    code = "print('19:46:45  1 of 1 START x .. [RUN]'); print('why'); raise SystemExit(2)"
    with pytest.raises(StepFailed, match="exit code 2"):
        run_dbt(Console(1), [sys.executable, "-c", code], {}, log)
    assert "START x" in log.read_text(encoding="utf-8")
    assert "START x" in capsys.readouterr().out


def test_result_is_standard_output_alone() -> None:
    code = "import sys; print('{}'); print('progress', file=sys.stderr)"
    assert run_for_result([sys.executable, "-c", code], {}) == "{}\n"


def test_failure_of_a_command_with_result_is_raised() -> None:
    with pytest.raises(StepFailed, match="exit code 3"):
        run_for_result([sys.executable, "-c", "raise SystemExit(3)"], {})


def test_step_is_done_only_with_the_same_fingerprint(tmp_path: Path) -> None:
    record = StepRecord(tmp_path / "steps.json")
    assert not record.is_done("features", "a")
    record.finish("features", "a")
    assert record.is_done("features", "a")
    assert not record.is_done("features", "b")
    assert not record.is_done("scores", "a")


def test_started_step_is_not_done_until_it_ends(tmp_path: Path) -> None:
    record = StepRecord(tmp_path / "steps.json")
    record.finish("features", "a")
    record.start("features")
    assert not record.is_done("features", "a")


def test_fingerprint_follows_source_files_only(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    source = tmp_path / "model.sql"
    source.write_text("select 1", encoding="utf-8")
    before = fingerprint_of([tmp_path], "dbt build")

    (tmp_path / "target" / "compiled.sql").write_text("select 1", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert fingerprint_of([tmp_path], "dbt build") == before

    assert fingerprint_of([tmp_path], "dbt build --vars x") != before
    source.write_text("select 2", encoding="utf-8")
    assert fingerprint_of([tmp_path], "dbt build") != before


def test_file_that_appears_changes_the_fingerprint(tmp_path: Path) -> None:
    champion = tmp_path / "champion.json"
    before = fingerprint_of([champion])
    champion.write_text("{}", encoding="utf-8")
    assert fingerprint_of([champion]) != before
