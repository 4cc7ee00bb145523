"""Two processes on a CPU."""

import json

import torch

from common.distributed import average, seed_of
from conftest import ROOT, SEARCH, TINY, launch


def test_gradients_parameters_statistics_and_draws(tmp_path):
    process = launch(ROOT / "tests/distributed_checks.py", tmp_path, processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output


def test_one_process_keeps_its_tensors(accelerator):
    tensors = [torch.rand(3), torch.rand(2, 2)]
    assert all(a is b for a, b in zip(average(accelerator, tensors), tensors, strict=True))


def test_seeds_depend_on_the_whole_key():
    keys = [(0,), (1,), (0, "a"), (0, "a", 1), (0, "a", 2), ("0", "a", 1)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(2, "split") == seed_of(2, "split") < 2**63


def test_a_message_appears_once(tmp_path):
    process = launch(SEARCH, *TINY, "--batch-size", 63, "--output", tmp_path / "run", processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert output.count("error: --batch-size 63") == 1
    assert not (tmp_path / "run").exists()


def test_missing_data_is_reported_once_and_by_none_with_a_traceback(tmp_path):
    process = launch(
        SEARCH, "--dataset", "folder", "--data-root", tmp_path / "no", processes=2
    )
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and output.count("error: --data-root") == 1
    assert "rank1" not in output


def test_an_unknown_flag_is_reported_once(tmp_path):
    process = launch(SEARCH, "--no-such-flag", 1, processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and output.count("Unrecognized options:") == 1


def test_one_process_writes_and_the_search_is_whole(tmp_path):
    process = launch(SEARCH, *TINY, "--output", tmp_path / "run", processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert output.count("run folder:") == 2 and output.count("normal cell") == 1
