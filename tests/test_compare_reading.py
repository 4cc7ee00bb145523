"""Reports of existing run folders: fairness, metrics, significance and the page."""

import csv
import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from scipy.stats import permutation_test

import fake_run
from common.errors import InputError
from common.networks.complexity import Setting, complexity
from common.networks.genotype import FixedCell, Genotype, load
from comparison.charts import looks
from comparison.conduct import compare
from comparison.paired import holm, pairs, preamble, seeds_needed, sentence, sign_flip_p
from comparison.report import Plan, Report, headline
from comparison.rows import Summary, both_adds_of, cell_counts, changes, mean_of
from comparison.run_folders import run_folder
from comparison.settings import CompareConfig


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Report the folder's runs; returns comparison.json."""
    monkeypatch.setattr(sys, "argv", ["evaluate/compare.py"])

    def reading():
        output = tmp_path / "report"
        compare(CompareConfig(runs=(str(tmp_path / "runs"),), output=str(output)))
        return json.loads((output / "comparison.json").read_text())

    (tmp_path / "runs").mkdir()
    return reading


def pair(folder, name, method, seed, top1, skips=(0, 1, 1), recipe=None, **config):
    fake_run.search(folder / "runs" / name, method, seed, skips, **config)
    of = folder / "runs" / name
    fake_run.training(folder / "runs" / f"{name}.train", of, top1, seed, **(recipe or {}))


# ------------------------------------------------------------------------------------ run folders


def test_runs_are_labelled_by_their_config_and_matched_by_their_cells(read, tmp_path):
    for seed in (0, 1):
        pair(tmp_path, f"x{seed}", "darts", seed, 80 + seed)
        pair(tmp_path, f"y{seed}", "gdas", seed, 85 + seed, reduction="fixed")
        pair(tmp_path, f"z{seed}", "edas", seed, 87, variant="edas", candidates=7)
        pair(tmp_path, f"w{seed}", "edas", seed, 88, variant="alpha-max", candidates=8)
    (tmp_path / "runs" / "x0.time").write_text("7.5\n2.5\n")
    (tmp_path / "runs" / "x0.train.time").write_text("4\n")
    table = {row["label"]: row for row in read()["rows"]}
    assert set(table) == {
        "darts", "gdas_frc", "edas candidates=7 variant=edas",
        "edas candidates=8 variant=alpha-max",
    }  # fmt: skip
    assert table["darts"]["accuracy"]["values"] == {"0": 80, "1": 81}
    assert table["gdas_frc"]["accuracy"]["values"] == {"0": 85, "1": 86}
    assert table["darts"]["wall_seconds"]["values"] == {"0": 14}  # only seed 0 was timed


def test_two_searches_with_equal_cells_keep_their_own_retrainings(read, tmp_path):
    pair(tmp_path, "a", "itnas", 0, 81, pruning=False)
    pair(tmp_path, "b", "itnas", 0, 82, pruning=True)
    table = {row["label"]: row["accuracy"]["mean"] for row in read()["rows"]}
    assert table == {"itnas pruning=False": 81, "itnas pruning=True": 82}


def left_out(report):
    return {Path(one["what"]).name: one["why"] for one in report["left_out"]}


def test_finished_runs_are_compared_and_all_others_named(read, tmp_path):
    runs = tmp_path / "runs"
    pair(tmp_path, "a", "darts", 0, 80)
    fake_run.training(runs / "again.train", runs / "a", 80, 0)  # a second time
    fake_run.begin(runs / "b", "gdas", 0, epochs=99)
    fake_run.write(runs / "b", "split.json", {"sha256": "another"})  # needs no equal split
    (runs / "b.log").write_text("epoch 1\rerror: killed\n")
    pair(tmp_path, "c", "edas", 0, 80, skips=(2,))
    (runs / "c.train" / "result.json").unlink()
    fake_run.search(runs / "d", "itnas", 0, skips=(3,))
    fake_run.begin(runs / "e.train", "retrain", 0)  # reads its images
    fake_run.training(runs / "f.train", runs / "a", 81, seed=7)  # of no search with seed 7
    (runs / "g.log").write_text("error: no such data set\n")
    (runs / "g.time").write_text("1\n")
    report = read()
    table = {row["label"]: row for row in report["rows"]}
    assert set(table) == {"darts", "edas", "itnas"}
    assert table["darts"]["accuracy"]["mean"] == 80 and table["edas"]["accuracy"] is None
    assert table["edas"]["search_seconds"]["mean"] == 6  # its search has finished
    why = left_out(report)
    assert set(why) == {
        "again.train", "b", "edas, seed 0", "itnas, seed 0", "e.train", "f.train", "g",
    }  # fmt: skip
    assert why["b"] == "has not finished\nerror: killed"
    assert "c.train, has not finished" in why["edas, seed 0"]
    assert why["itnas, seed 0"] == "no retraining of its cells with seed 0"
    assert why["again.train"] == "another retraining of the same cells is used"
    assert why["f.train"] == "retrains the cells of no finished search here"
    assert why["g"].endswith("error: no such data set")
    for file in ("comparison.md", "report.html"):
        text = (tmp_path / "report" / file).read_text()
        assert all(name in text and why[name].splitlines()[0] in text for name in why)


def test_a_finished_retraining_is_preferred(read, tmp_path):
    """One was killed; the cells were retrained again under another name."""
    pair(tmp_path, "a", "darts", 0, 80)
    (tmp_path / "runs" / "a.train" / "result.json").unlink()
    fake_run.training(tmp_path / "runs" / "again", tmp_path / "runs" / "a", 81, 0)
    report = read()
    assert report["rows"][0]["accuracy"]["mean"] == 81 and set(left_out(report)) == {"a.train"}


def test_without_a_finished_search_the_reasons_are_told(read, tmp_path):
    fake_run.begin(tmp_path / "runs" / "b", "gdas", 0)
    with pytest.raises(InputError, match="no folder of a finished search.*\n.*b: has not finished"):
        read()


def test_a_random_cell_that_a_random_search_chose_stays_in_the_baseline(read, tmp_path):
    """The random search draws the baseline's cells among others."""
    pair(tmp_path, "s", "random_search", 0, 75, skips=(2,))
    for folder in ("s", "s.train"):
        file = tmp_path / "runs" / folder / "genotype.json"
        chosen = json.loads(file.read_text())
        chosen["provenance"] = {"method": "random_search", "number": 1, "of": 4}
        file.write_text(json.dumps(chosen))
    for number, top1 in enumerate((70, 74)):
        cell = tmp_path / f"cell{number}.json"
        cell.write_text(json.dumps(fake_run.genotype("random_search", skips=number + 2)))
        fake_run.training(tmp_path / "runs" / f"r{number}.train", cell, top1)
    search, average = read()["rows"]
    assert search["accuracy"]["mean"] == 75
    assert average["accuracy"]["values"] == {"0": 70, "1": 74}


def test_the_average_random_cell_is_a_row(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80)
    for number, top1 in enumerate((70, 74)):
        cell = tmp_path / f"cell{number}.json"
        cell.write_text(json.dumps(fake_run.genotype("random_search", skips=number + 2)))
        fake_run.training(tmp_path / "runs" / f"r{number}.train", cell, top1)
    report = read()
    darts, average = report["rows"]
    assert darts["gain"]["mean"] == 8
    assert average["label"] == "average random cell" and average["accuracy"]["mean"] == 72
    assert average["accuracy"]["sd"] == pytest.approx(8**0.5) and average["gain"] is None
    assert average["params"]["mean"] == 1000 and average["skips"]["normal"]["mean"] == 2.5
    assert not report["pairs"]  # it is compared by the gain, not by a test
    assert "| average random cell | 72.00 \u00b1 2.83 (2) |" in markdown(tmp_path)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "average random cell: 72.00 %" in page  # the line in the chart
    assert "seed 0, epoch 3\ndarts: 80\naverage random cell: 72" in page  # and in the curves


# --------------------------------------------------------------------------------------- fairness


def unlike(**changes):
    """Two searches with their retrainings; the second pair differs."""
    def build(folder):
        pair(folder, "a", "darts", 0, 80)
        pair(folder, "b", changes.get("method", "gdas"), changes.get("seed", 0), 81,
             recipe=changes.get("recipe"), **changes.get("search", {}))
    return build


def spoilt(name, text):
    def build(folder):
        pair(folder, "a", "darts", 0, 80)
        (folder / "runs" / "a" / name).write_text(text)
    return build


BAD = {
    "split": (unlike(search={"split": "other"}), "b: searched another split"),
    "recipe": (unlike(recipe={"epochs": 9}), "under different budgets .epochs 3 and 9."),
    "train images": (unlike(recipe={"train": "x"}), "was retrained on other images"),
    "test images": (unlike(recipe={"test": "x"}, seed=1), "was tested on other images"),
    "budget": (
        unlike(method="darts", seed=1, search={"epochs": 9}),
        "searches of darts under different budgets .epochs 3 and 9.",
    ),
    "twice": (unlike(method="darts"), "a and .*b are both darts with seed 0"),
    "damaged": (spoilt("config.json", "{"), "config.json: cannot be read as JSON"),
    "strange": (spoilt("config.json", "{}"), "a: its config.json is not that of a run"),
    "half a line": (spoilt("genotypes.jsonl", "{\n"), "genotypes.jsonl: damaged"),
    "held out": (
        lambda folder: pair(folder, "a", "darts", 0, 80, recipe={"held_out": "valid"}),
        "--held-out valid, so it has no test accuracy",
    ),
    "nothing": (lambda folder: None, "--runs .*: no run folder there"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_unfair_comparisons_are_refused(read, tmp_path, what):
    build, message = BAD[what]
    build(tmp_path)
    with pytest.raises(InputError, match=message):
        read()
    assert not (tmp_path / "report" / "comparison.json").exists()


def test_runs_from_before_a_flag_are_those_of_its_default(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80)
    pair(tmp_path, "b", "darts", 1, 81)
    file = tmp_path / "runs" / "b" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "split": "halves"}))
    assert [row["label"] for row in read()["rows"]] == ["darts"]


def test_one_level_searches_and_other_operations_are_noted(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80, recipe={"operations": {"file": "o.py", "sha256": "1"}})
    pair(tmp_path, "b", "gdas", 0, 81, split="all images",
         recipe={"operations": {"file": "o.py", "sha256": "2"}})  # fmt: skip
    file = tmp_path / "runs" / "b" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "split": "shared"}))
    notes = " ".join(read()["notes"])
    assert "gdas searched with --split shared" in notes
    assert "Retrainings have 2 different files of operations." in notes


def test_allowed_differences_are_noted(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80, commit="111111111")
    pair(tmp_path, "b", "gdas", 0, 81, device="gpu", recipe={"threads": 4})
    notes = " ".join(read()["notes"])
    assert "Searches have 2 commits of the code: 11111111, c." in notes
    assert "Searches have 2 devices" in notes and "Retrainings have 2 numbers of thr" in notes


# ------------------------------------------------------------------------------------------ counts


def test_counts_of_cells():
    genotype = load("darts_v2")
    counts = {"skips_normal": 2, "pools_normal": 0, "skips_reduction": 3, "pools_reduction": 5}
    assert cell_counts(genotype) == counts
    frc = Genotype("x", {"normal": genotype.cells["normal"], "reduction": FixedCell("gdas_frc")})
    assert cell_counts(frc) == {"skips_normal": 2, "pools_normal": 0}


@pytest.mark.parametrize("side", [32, 128])
def test_multiply_adds_are_those_of_evaluate_complexity(tmp_path, side):
    """Large images have another stem."""
    of = tmp_path / "cells.json"
    of.write_text(json.dumps(load("darts_v2").to_json()))
    fake_run.training(tmp_path / "run", of, 90, shape=(3, side, side), channels=8, cells=5)
    expected = complexity(load("darts_v2"), Setting(10, side, channels=8, cells=5)).multiply_adds
    assert both_adds_of(run_folder(tmp_path / "run"))[0] == expected
    (tmp_path / "run" / "images.json").unlink()
    assert both_adds_of(run_folder(tmp_path / "run")) is None


def test_changes_of_the_genotype_at_the_end(tmp_path):
    fake_run.search(tmp_path / "a", skips=(8, 0, 2, 2, 3))
    assert changes(run_folder(tmp_path / "a")) == pytest.approx((2 + 0 + 1) / 3)  # last three steps
    fake_run.search(tmp_path / "b", skips=(1,))
    assert changes(run_folder(tmp_path / "b")) is None


def test_cells_dominated_by_skips_give_a_warning(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80, skips=(0, 4, 5))
    pair(tmp_path, "b", "gdas", 0, 80, skips=(4, 0, 0))
    darts, gdas = read()["rows"]
    assert darts["warnings"] == [
        "darts, seed 0: skip connections on half or more of the normal cell's edges at the end of "
        "the search."
    ]
    assert not gdas["warnings"] and "after 1 of 3 epochs, not the last" in gdas["remarks"][0]


def test_pr_darts_reports_its_discovered_operations(read, tmp_path):
    pair(tmp_path, "a", "pr_darts", 0, 80, space="dl")  # a space of its own, in DARTS'
    file = tmp_path / "runs" / "a" / "result.json"
    own = {"discovered": {"normal": 15}, "discoverable": 35}
    file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
    said = "pr_darts, seed 0: discovered 15 of 35 operations of normal cells."
    assert read()["rows"][0]["remarks"] == [said]


def test_means():
    assert mean_of({0: None}) is None
    assert dataclasses.astuple(mean_of({0: 1.0, 1: None, 2: 4.0}))[:2] == (2.5, 4.5**0.5)
    assert mean_of({3: 7.0}).sd is None and mean_of({3: 7.0}).n == 1


# --------------------------------------------------------------------------------------- over seeds


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_sign_flips_agree_with_scipy(count):
    """Differences of accuracies on 359 images have many ties."""
    differences = 100 / 359 * np.random.default_rng(count).integers(-4, 5, count)
    expected = permutation_test(
        (differences,), lambda x, axis: abs(x.sum(axis)).round(9), permutation_type="samples",
        alternative="greater", n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert sign_flip_p(differences.tolist()) == pytest.approx(expected)


def test_sign_flips_are_exact():
    assert sign_flip_p([1, 2, 3]) == 2 / 8  # only + + + and - - - are as far from 0
    assert sign_flip_p([1, 2, -3]) == 1
    assert sign_flip_p([1, 1, 1, -1]) == 10 / 16  # sums of 4, 2 or more either way
    assert sign_flip_p([0.1 + 0.2, -0.3]) == 1  # ties are ties
    assert sign_flip_p([2.0] * 6) == 2 / 64


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]


def test_pairs_use_the_seeds_of_both_rows():
    a, b = {0: 90.0, 1: 92.0, 2: 50.0}, {0: 89.0, 1: 90.0, 3: 10.0}
    (found,) = pairs({"a": a, "b": b})
    assert (found.difference, found.seeds, found.p, found.least_p) == (1.5, (0, 1), 0.5, 0.5)
    assert found.sd == pytest.approx(0.5**0.5) and found.p_t == pytest.approx(0.2048, abs=1e-3)
    assert pairs({"a": {0: 1.0}, "b": {1: 1.0}}) == []
    # One image of 359 more with each seed: the spread is rounding alone; a t test has no meaning.
    a, b = ({n: 100 * (right + more) / 359 for n, right in enumerate((344, 351, 330))}
            for more in (1, 0))  # fmt: skip
    (equal,) = pairs({"a": a, "b": b})
    assert 0 < equal.sd < 1e-12 and equal.p_t is None


def test_conclusions_are_no_stronger_than_the_test():
    ahead = {seed: 90.0 + seed / 10 for seed in range(6)}
    behind = {seed: value - 1 - seed for seed, value in ahead.items()}
    (six,) = pairs({"a": behind, "b": ahead})
    assert six.separated
    assert sentence(six).startswith("a is worse than b: -3.50 \u00b1 1.87 points over 6 seeds")
    assert "needs at least" not in preamble([six])
    (three,) = pairs({"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 0.0, 1: 0.0, 2: 0.0}})
    assert not three.separated
    assert sentence(three).startswith("a vs b: no significant difference (+2.00 \u00b1 1.00 points")
    assert "p below 0.25" in sentence(three) and "at least 6 seeds" in preamble([three])
    assert seeds_needed(1) == 6 and seeds_needed(28) == 11  # 2/64 < .05; 28 * 2/2048 < .05
    assert 28 * 2.0 ** (1 - 11) < 0.05 <= 28 * 2.0 ** (1 - 10)
    assert "nothing is tested" in preamble([])


# ---------------------------------------------------------------------------------------- the page


def markdown(tmp_path):
    return (tmp_path / "report" / "comparison.md").read_text()


class Tags(HTMLParser):
    """Checks that every element is closed; collects sort keys, links, texts and titles."""

    void = {"meta", "br", "path", "use", "rect", "stop"}

    def __init__(self):
        super().__init__()
        self.open, self.keys, self.links, self.texts, self.titles = [], [], [], [], []
        self.sorted = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.keys += [given["data-value"]] if "data-value" in given else []
        self.titles += [given["title"]] if "title" in given else []
        self.links += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]
        self.sorted += [given["aria-sort"]] if "aria-sort" in given else []
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        kind = self.titles if self.open[-2:] == ["g", "title"] else self.texts
        kind += [data] if data.strip() else []


@pytest.fixture
def page(read, tmp_path):
    """Report the folder's runs; returns the page's tags."""
    def reading():
        read()
        tags = Tags()
        tags.feed((tmp_path / "report" / "report.html").read_text())
        assert not tags.open
        return tags

    return reading


def test_the_conclusion_comes_first(page, tmp_path):
    for seed in range(2):
        pair(tmp_path, f"a{seed}", "darts", seed, 80 + seed)
        pair(tmp_path, f"b{seed}", "gdas", seed, 90 + seed)
    first = "Highest mean: gdas, 90.50 \u00b1 0.71 % (2 seeds)."
    second = "No difference between methods is significant; with 2 seeds none can be: it takes 6"
    texts = page().texts
    after = texts[texts.index("Comparison of methods", texts.index("Comparison of methods") + 1) :]
    assert after[1] == first and after[2].startswith(second)
    assert markdown(tmp_path).splitlines()[2] == first
    report = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert report["conclusions"][0] == first


def test_significant_differences_are_in_the_conclusion():
    values = {"darts": dict.fromkeys(range(6), 80), "gdas": {n: 90 + n for n in range(6)}}
    rows = [Summary(k, {"accuracy": mean_of(v)}, {}, [], []) for k, v in values.items()]
    made = Report("", "", Plan(""), {}, [], rows, pairs(values), [], [], {})
    assert headline(made)[1].startswith("darts is worse than gdas: -12.50")


def test_rows_are_sorted_by_accuracy_and_the_page_shows_it(page, tmp_path):
    for n, (method, top1) in enumerate({"darts": 80, "gdas": 92, "edas": 85}.items()):
        pair(tmp_path, f"{n}", method, 0, top1)
    fake_run.search(tmp_path / "runs" / "x", "itnas", 0, skips=(2,))  # without accuracy
    tags = page()
    assert tags.sorted == ["descending"]
    labels = [key for key in tags.keys if key in ("darts", "gdas", "edas", "itnas")]
    assert labels[:4] == ["gdas", "edas", "darts", "itnas"]


def test_each_seed_has_a_row_with_links_to_its_runs_and_logs_and_their_starts(page, tmp_path):
    for seed in (0, 3):
        started = f"2026-01-0{seed + 1}T02:03:04+00:00"
        pair(tmp_path, f"a #{seed}", "darts", seed, 80 + seed, started=started)
    (tmp_path / "runs" / "a #3.log").write_text("epoch")
    tags = page()
    targets = [(tmp_path / "report" / unquote(link)).resolve() for link in tags.links]
    names = "a #0", "a #0.train", "a #3", "a #3.log", "a #3.train"
    assert targets == [tmp_path / "runs" / name for name in names]
    assert {"0", "3"} <= set(tags.keys)
    starts = [text.strip() for text in tags.texts if "2026-01-" in text]
    span = "2026-01-01 02:03 UTC to 2026-01-04 02:03 UTC"  # older runs do not say it
    assert starts == ["2026-01-01 02:03", "2026-01-04 02:03", span]
    report = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert report["runs"][0]["started"] == ["2026-01-01 02:03", None]
    assert "seed 0: 80\nseed 3: 83" in tags.titles  # of the mean
    assert {"seed 0", "seed 3"} <= set(tags.texts)  # the rows of curves


def test_curves_have_values_for_each_seed_and_epoch(page, tmp_path):
    for seed in (0, 1):
        pair(tmp_path, f"a{seed}", "darts", seed, 80 + seed)
        pair(tmp_path, f"b{seed}", "gdas", seed, 90 + seed)
    titles = page().titles
    for seed, epoch in ((0, 1), (0, 3), (1, 2)):
        shift = seed + epoch - 3
        retraining = f"darts: {80 + shift}\ngdas: {90 + shift}"
        assert f"seed {seed}, epoch {epoch}\n{retraining}" in titles
        search = f"darts: {49 + epoch}\ngdas: {49 + epoch}"
        assert f"seed {seed}, epoch {epoch}\n{search}" in titles
    assert "darts, seed 1\n81.00 % after a search of 6 s" in titles


def test_methods_have_distinct_colours_that_the_legends_share(read, tmp_path):
    every = looks([str(n) for n in range(24)])
    assert len({look["color"] for look in [*every.values()][:12]}) == 12
    assert len({tuple(look.values()) for look in every.values()}) == 24
    methods = ("darts", "gdas", "edas", "itnas", "pc_darts", "pr_darts")
    for n, method in enumerate(methods):
        pair(tmp_path, f"{n}", method, 0, 80 + n)
    read()
    pictures = (tmp_path / "report" / "report.html").read_text().split("<svg")[1:]
    for picture in pictures:  # cost, retraining, search
        for look in looks(methods).values():
            assert picture.count(look["color"]) >= 2  # its marks and its legend


def test_provenance_is_in_page_and_json(page, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80, commit="1234567", versions={"torch": "2.99"})
    pair(tmp_path, "b", "gdas", 0, 80, recipe={"optimizer": "sgd"})  # as older runs, in silence
    texts = page().texts
    report = json.loads((tmp_path / "report" / "comparison.json").read_text())
    about = report["provenance"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", about["date"])
    assert about["runs"]["commit"] == ["1234567", "c"] and about["runs"]["torch"] == ["2.99"]
    assert about["runs"]["machine"] == ["m"] and len(about["finished"]) == 2
    assert {"1234567, c", "2.99", "m"} <= set(texts)
    assert any(text.startswith(about["date"]) for text in texts)
    assert report["command"] in texts


def test_csv_has_a_line_for_each_seed(read, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80.25)
    pair(tmp_path, "b", "darts", 1, 81)
    fake_run.search(tmp_path / "runs" / "c", "gdas", 0, skips=(2,))
    read()
    with open(tmp_path / "report" / "comparison.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    found = [(line["method"], line["seed"], line["accuracy"]) for line in lines]
    assert found == [("darts", "0", "80.25"), ("darts", "1", "81"), ("gdas", "0", "")]
    assert lines[0]["skips_normal"] == "1" and lines[0]["search_seconds"] == "6.0"
    assert lines[0]["retraining"] == str(tmp_path / "runs" / "a.train")


def test_flags_of_existing_searches_are_told(read, tmp_path):
    """But not those of one run; an older run may not have its command."""
    shared = "--preset digits --epochs 9"
    for n, (method, own) in enumerate({"pc_darts": " --warmup-epochs 2", "gdas": ""}.items()):
        command = f"python {method}/search.py {shared} --seed 0{own} --data-root=x --output /y"
        pair(tmp_path, f"{n}", method, 0, 80, command=command)
    assert read()["budget_changes"] == [f"all searches: {shared}", "pc_darts: --warmup-epochs 2"]
    pair(tmp_path, "2", "darts", 0, 80)
    assert read()["budget_changes"] == [f"pc_darts: {shared} --warmup-epochs 2", f"gdas: {shared}"]


def test_the_report_is_one_page_with_the_runs_own_pictures(page, tmp_path):
    pair(tmp_path, "a", "darts", 0, 80, skips=(0, 4, 5))
    pair(tmp_path, "b", "gdas", 0, 90, order="<&>")
    pair(tmp_path, "c", "gdas", 1, 91, order="<&>")
    fake_run.begin(tmp_path / "runs" / "d", "edas", 0)
    (tmp_path / "runs" / "d.log").write_text("why <b>not</b>")
    start = '<?xml version="1.0"?><svg id="{}"><metadata>x</metadata><g style="fill: #ffffff"/>'
    for run, name, end in (
        ("a", "cycles", "</svg>"), ("a.train", "normal", "</svg>"), ("b", "curves", "</svg>"),
        ("c", "curves", "</svg>"), ("c", "cycles", "</svg>"),  # large pictures: first seed only
        ("a", "alphas", ""),  # killed while it was drawn
    ):  # fmt: skip
        (tmp_path / "runs" / run / "pictures").mkdir(exist_ok=True)
        file = tmp_path / "runs" / run / "pictures" / f"{name}.svg"
        file.write_text(start.format(f"{run}-{name}") + end)
    metrics = tmp_path / "runs" / "b" / "metrics.jsonl"
    metrics.write_text('{"epoch": 1, "hessian_eigenvalue": 0.5}\n')
    tags = page()
    text = (tmp_path / "report" / "report.html").read_text()
    assert all(link.startswith("../runs/") for link in tags.links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "<b>not" not in text and "why &lt;b&gt;not" in text
    shown = re.findall(r'<svg id="(.*?)"><g style="fill: none"/></svg>', text)
    assert sorted(shown) == ["a-cycles", "a.train-normal", "b-curves", "c-curves"]
    assert "seed 0, epoch 1\ngdas: 0.5" in tags.titles  # the eigenvalue
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert '<p class="warn">darts, seed 0: skip connections on half' in text
