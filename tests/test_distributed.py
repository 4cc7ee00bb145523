"""Two processes on a CPU."""

import pytest
import torch

from builders import ROOT, SEARCH, TINY_SEARCH, launch
from common.distributed import average, seed_of, set_gradients


def test_gradients_parameters_statistics_and_draws(tmp_path):
    process = launch(ROOT / "tests/distributed_checks.py", tmp_path, processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output


def test_one_process_keeps_its_tensors(accelerator):
    tensors = [torch.rand(3), torch.rand(2, 2)]
    assert all(a is b for a, b in zip(average(accelerator, tensors), tensors, strict=True))


def test_gradients_take_the_layout_of_their_parameters():
    weight = torch.nn.Parameter(torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last))
    plain = torch.nn.Parameter(weight.detach().clone())
    gradient = torch.rand(4, 3, 3, 3)
    set_gradients([weight], [gradient])
    assert weight.grad.stride() == weight.stride() and torch.equal(weight.grad, gradient)
    torch.optim.SGD([weight], 0.1, fused=True).step()
    torch.testing.assert_close(weight.detach(), plain - 0.1 * gradient)


def test_seeds_depend_on_the_whole_key():
    keys = [(0,), (1,), (0, "a"), (0, "a", 1), (0, "a", 2), ("0", "a", 1)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(2, "split") == seed_of(2, "split") < 2**63


@pytest.mark.slow
def test_a_message_appears_once(tmp_path):
    flags = [*TINY_SEARCH, "--batch-size", 63, "--output", tmp_path / "run"]
    process = launch(SEARCH, *flags, processes=2)
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


@pytest.mark.slow
def test_an_unknown_flag_is_reported_once(tmp_path):
    process = launch(SEARCH, "--no-such-flag", 1, processes=2)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and output.count("Unrecognized options:") == 1
