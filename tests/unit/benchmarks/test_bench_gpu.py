"""Without a GPU the GPU benchmark measures nothing and says so; with one it prints its table."""

import json

import pytest
import torch

import bench_gpu


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.main([]) == 0
    assert "no GPU" in capsys.readouterr().out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_with_a_gpu_the_last_line_is_the_table(capsys):
    assert bench_gpu.main(["--encoders", "tiny", "--rows", "4000"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["mode"] for row in rows] == ["bf16", "fp32"]
