"""evaluate/reproduce.py: every item's commands have the paper's settings; its table, its errors."""

import json
import os
import shlex
import signal
import sys
import threading
import time

import psutil
import pytest

from builders import ROOT, assert_refused
from common.errors import InputError
from common.networks.genotype import load, save
from comparison.executor import LocalExecutor
from comparison.jobs import Job
from comparison.progress import View
from comparison.run_folders import RunFolder
from comparison.running import run_all
from reproduction import report
from reproduction.jobs import Expansion, Part, cells_of, snapshot
from reproduction.plan import Cells, Choice, Command, Searches
from reproduction.readings import DAYS
from reproduction.settings import PAPERS, ReproduceConfig, settings_of

REPRODUCE = "evaluate/reproduce.py"
ITEMS = [(paper, name) for paper, items in PAPERS.items() for name in items]

# ------------------------------------------------ the papers' values, by the names of the searches

PC = dict(
    epochs=50, batch_size=256, learning_rate=0.1, learning_rate_min=0, weight_decay=3e-4, K=4,
    edge_normalization=True, warmup_epochs=15, arch_learning_rate=6e-4, arch_weight_decay=1e-3,
    channels=16, cells=8, nodes=6, dataset="cifar10",
)  # 4.2
PCI = PC | dict(
    batch_size=1024, learning_rate=0.5, weight_decay=3e-5, K=2, warmup_epochs=35,
    arch_learning_rate=6e-3, train_share=0.1, valid_share=0.025, dataset="imagenet",
)  # 4.3
DARTS = dict(
    order=1, epochs=50, batch_size=64, learning_rate=0.025, learning_rate_min=0.001,
    arch_learning_rate=3e-4, arch_weight_decay=1e-3, channels=16, cells=8, dataset="cifar10",
)
GDAS = dict(
    epochs=240, channels=16, cells=8, learning_rate=0.025, learning_rate_min=0.001,
    arch_learning_rate=3e-4, arch_weight_decay=1e-3, tau_max=10, tau_min=0.1, batch_size=128,
    reduction="searched", dataset="cifar10",
)  # 4.2
EDAS = dict(
    epochs=25, batch_size=64, cells=20, learning_rate=0.025, learning_rate_min=0.001,
    arch_learning_rate=0.025, arch_weight_decay=0, variant="edas", inversion_epochs=0,
    dataset="cifar10",
)  # 4.1
INV = EDAS | dict(variant="edas-inv", arch_weight_decay=1e-3, inversion_epochs=10)
ITNAS = dict(
    epochs=50, cells=8, channels=16, learning_rate=0.025, learning_rate_min=0.001,
    arch_learning_rate=3e-4, arch_weight_decay=1e-3, tau_max=5, tau_min=0.5, gumbel=True,
    transition=True, pruning=True, dataset="cifar10",
)  # 4.1.1
PR = dict(
    cycle_epochs=(15, 15, 10, 10, 10, 10, 10, 10, 10), kept=(6, 6, 6, 6, 6, 4, 3, 2, 1),
    morphisms=(3, 3, 3, 3, 3, 0, 0, 0, 0), learning_rate=0.025, learning_rate_min=0.01,
    arch_learning_rate=6e-4, memory_gib=11, channels=16, cells=8, dataset="cifar10",
)  # Table I, IV-A
FIVE, FOUR, THREE, ONE = list(range(5)), list(range(4)), list(range(3)), [0]
SEARCHES = {
    "pc_darts": (FIVE, PC), "pc_darts-imagenet": (ONE, PCI),
    "darts1": (FIVE, DARTS), "darts2": (FIVE, DARTS | {"order": 2}),
    "pc_darts-K=1": (FIVE, PC | dict(K=1, batch_size=64, learning_rate=0.025)),
    "pc_darts-no-EN": (FIVE, PC | {"edge_normalization": False}),
    "imagenet-K=1-no-EN": (
        ONE, PCI | dict(K=1, batch_size=512, learning_rate=0.25, edge_normalization=False)
    ),
    "imagenet-K=1": (ONE, PCI | dict(K=1, batch_size=512, learning_rate=0.25)),
    "imagenet-no-EN": (ONE, PCI | {"edge_normalization": False}),
    "gdas": (FOUR, GDAS), "gdas_frc": (FOUR, GDAS | {"reduction": "fixed"}),
    "gdas_rnn": (FOUR, dict(
        epochs=200, units=300, bptt=35, batch_size=128, learning_rate=20, weight_decay=5e-7,
        arch_learning_rate=3e-3, arch_weight_decay=1e-3,
    )),  # 4.3
    "edas-long": (ONE, EDAS | {"epochs": 100}), "edas": (ONE, EDAS), "edas-inv": (ONE, INV),
    "edas-cifar100": (ONE, EDAS | {"dataset": "cifar100"}),
    "edas-inv-cifar100": (ONE, INV | {"dataset": "cifar100"}),
    "alpha-max": (ONE, EDAS | {"variant": "alpha-max"}),
    "itnas": (ONE, ITNAS),
    "itnas-none": (ONE, ITNAS | dict(gumbel=False, transition=False, pruning=False)),
    "itnas-gumbel": (ONE, ITNAS | dict(transition=False, pruning=False)),
    "itnas-transition": (ONE, ITNAS | {"pruning": False}),
    **{f"pr_darts-{space}": (THREE, PR | {"space": space}) for space in ("dl", "dr", "ur")},
}  # fmt: skip
THREE_METHODS = (("pc_darts", PC), ("darts1", DARTS), ("darts2", DARTS | {"order": 2}))
SEARCHES |= {
    f"{name}-{n}-{what}": (ONE, settings | {what: n})
    for name, settings in THREE_METHODS
    for what, numbers in (("epochs", (75, 100, 125)), ("nodes", (5, 7))) for n in numbers
}  # fmt: skip
OTHERWISE = {  # searches of the same name in other items
    ("pc_darts", "fig3"): {
        f"pc_darts-K={K}": (ONE, PC | dict(K=K, batch_size=64 * K, learning_rate=0.025 * K))
        for K in (1, 2, 4, 8)
    },
    ("gdas", "cost"): {
        "gdas": (ONE, GDAS), "gdas_frc": (ONE, GDAS | {"reduction": "fixed"}),
        "darts1": (ONE, DARTS | {"epochs": 240, "batch_size": 128}),
    },
    ("edas", "fig3"): {
        "darts1": (ONE, DARTS | dict(epochs=25, cells=20, cut_steps=1, cut_accuracy="batch")),
        "edas": (ONE, EDAS | dict(cut_steps=1, cut_accuracy="batch")),
        "alpha-max": (ONE, EDAS | dict(variant="alpha-max", cut_steps=1, cut_accuracy="batch")),
    },
    ("pr_darts", "fig2"): {"pr_darts-dl": (ONE, PR | {"space": "dl"})},
}  # fmt: skip

# ----------------------------------------------------------------------- and those of the trainings

CIFAR = dict(
    epochs=600, batch_size=96, channels=36, cells=20, learning_rate=0.025, learning_rate_min=0,
    drop_path=0.2, auxiliary_weight=0.4, cutout=16, weight_decay=3e-4, held_out="test",
)  # DARTS
PC_CIFAR = CIFAR | dict(batch_size=128, drop_path=0.3)
PC_IMAGENET = dict(
    epochs=250, batch_size=1024, channels=48, cells=14, schedule="linear", learning_rate=0.5,
    learning_rate_warmup=5, weight_decay=3e-5, label_smoothing=0.1, dataset="imagenet",
)
GDAS_IMAGENET = dict(
    epochs=250, batch_size=128, cells=14, schedule="exponential", learning_rate=0.1,
    weight_decay=3e-5, dataset="imagenet",
)
EDAS_CIFAR = CIFAR | dict(batch_size=64, learning_rate_min=0.001)
PR_CIFAR = CIFAR | {"drop_path": 0.3}
RNN = dict(epochs=2000, units=850, batch_size=64, learning_rate=20, weight_decay=8e-7)
C10, C100 = {"dataset": "cifar10"}, {"dataset": "cifar100"}
TRAININGS = {  # by item, row and training (None: any); beside them what ranks its searches
    ("pc_darts", "table2", None, ""): PC_IMAGENET,
    ("pc_darts", "table3", "ImageNet", ""): PC_IMAGENET | {"epochs": 100},
    ("pc_darts", "table5", None, "imagenet"): PC_IMAGENET,
    ("pc_darts", "table5", None, "coco"): dict(image_size=320),
    ("pc_darts", None, None, None): PC_CIFAR | C10,
    ("gdas", "table1", "+ CutOut", "cifar10"): CIFAR | C10,
    ("gdas", "table1", "+ CutOut", "cifar100"): CIFAR | C100,
    ("gdas", "table1", None, "cifar10"): CIFAR | C10 | {"cutout": 0},
    ("gdas", "table1", None, "cifar100"): CIFAR | C100 | {"cutout": 0},
    ("gdas", "table2", None, ""): GDAS_IMAGENET,
    ("gdas", "table3", None, ""): RNN,
    ("gdas", "table4", None, ""): dict(
        epochs=3000, units=700, weight_decay=5e-7, dropout_hidden=0.25,
    ),
    ("gdas", "table5", None, ""): CIFAR | C10,
    ("edas", "table2", None, "C100"): EDAS_CIFAR | C100,
    ("edas", None, None, None): EDAS_CIFAR | C10,
    ("itnas", "table3", None, ""): PC_IMAGENET,
    ("itnas", "table4", None, "CINIC-10"): CIFAR | {"dataset": "cinic10"},
    ("itnas", "table4", None, "CIFAR-100"): CIFAR | C100,
    ("itnas", "table4", None, "SVHN"): CIFAR | dict(dataset="svhn", flip=False),
    ("itnas", None, None, None): CIFAR | C10,
    ("pr_darts", "table3", None, "10"): PR_CIFAR | C10,
    ("pr_darts", "table3", None, "100"): PR_CIFAR | C100,
}  # fmt: skip
RANKINGS = {
    "pc_darts": PC_CIFAR | dict(held_out="valid", held_out_share=0.1),  # 45,000 and 5,000
    "gdas": CIFAR | dict(epochs=100, cells=8, channels=16, held_out="valid", held_out_share=0.5),
    "gdas_rnn": RNN | {"epochs": 300},  # DARTS, 3.2
}


def expanded(paper, item, folder=ROOT / "no-such-folder", **how):
    config = ReproduceConfig(paper, item, data_root="D", **how)
    config.check()
    return Expansion(config.chosen(), config, folder)


def assert_has(job, expected):
    settings = settings_of(job)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_searches_have_the_papers_settings_and_seeds(paper, name):
    searches = {}
    for job in expanded(paper, name).jobs:
        if job.is_search:
            searches.setdefault(job.label, []).append(job)
    for label, jobs in searches.items():
        seeds, expected = (SEARCHES | OTHERWISE.get((paper, name), {}))[label]
        assert [job.seed for job in jobs] == seeds
        assert_has(jobs[0], expected)


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_trainings_have_the_papers_settings(paper, name):
    for label, parts in expanded(paper, name).parts.items():
        for which, part in parts.items():
            expected = next((
                values for (p, item, row, training), values in TRAININGS.items()
                if p == paper and item in (None, name) and (row is None or row in label)
                and training in (None, which)
            ), None)  # fmt: skip
            for job in part.runs:
                assert_has(job, expected)
            for job in part.judged:
                if job.what == "rank":
                    searched = job.needs[0].rsplit("-", 1)[0].replace("gdas_frc", "gdas")
                    assert_has(job, RANKINGS[searched])


def test_gdas_on_imagenet_has_50_channels_and_with_the_fixed_cell_52():
    jobs = expanded("gdas", "table2", published=True).jobs
    assert [settings_of(job).channels for job in jobs] == [50, 52]


@pytest.mark.parametrize(("paper", "name"), ITEMS)
@pytest.mark.parametrize("published", [False, True])
def test_the_plan_on_digits_is_small_and_in_order(paper, name, published):
    try:
        jobs = expanded(paper, name, scale="digits", published=published).jobs
    except InputError as error:
        assert "--published" in str(error) or not PAPERS[paper][name].on_digits
        return
    order = {job.name: n for n, job in enumerate(jobs)}
    assert len(order) == len(jobs)
    for job in jobs:
        assert all(order[need] < order[job.name] for need in job.needs)
        found = settings_of(job)
        assert found.dataset in ("digits", "small") and found.epochs <= 40
        assert not published or job.what == "train"


def test_the_number_of_searches_rankings_and_trainings():
    """PC-DARTS: one training of the best of five. PR-DARTS: three of the best of three."""
    (part,) = expanded("pc_darts", "table1").parts["PC-DARTS + cutout"].values()
    assert [len(jobs) for jobs in (part.searches, part.judged, part.runs)] == [5, 5, 1]
    assert {job.seed for job in part.judged} == {0}  # the same images rank all
    parts = expanded("pr_darts", "table3").parts
    for label, place in (("PR-DARTS DL1", 1), ("PR-DARTS DL2", 0)):
        for part in parts[label].values():
            assert part.cells.choice.place == place
            assert part.judged == part.searches and [job.seed for job in part.runs] == THREE
    more = expanded("pc_darts", "table1", searches=7, trainings=2).jobs
    assert [sum(job.what == kind for job in more) for kind in ("search", "train")] == [7, 2]


def test_cells_of_another_paper_are_not_searched():
    """GDAS' authors trained DARTS' published cells on CIFAR-100."""
    (part,) = expanded("gdas", "table1").parts["DARTS (2nd) + CutOut [24]"].values()
    assert part.runs[0].flags[-2:] == ["--genotype", "darts_v2"] and not part.searches


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_an_items_rows_and_columns_are_the_papers(paper, name):
    item = PAPERS[paper][name]
    assert item.title and item.cost and item.differs
    assert set(item.readings) <= set(item.printed.columns)
    assert set(item.rows) <= set(item.printed.rows) or not item.printed.columns
    trainings = {training for row in item.rows.values() for training in row}
    assert {reading.training for reading in item.readings.values()} <= {"", *trainings}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_papers_readme_has_each_item_with_its_command_and_differences(paper):
    text = (ROOT / paper / "README.md").read_text()
    for name, item in PAPERS[paper].items():
        command = f"python evaluate/reproduce.py {paper} {name} --output FOLDER"
        assert f"| {item.title} | `{command}` | {item.differs} |\n" in text


def test_gpu_days_count_every_process(tmp_path):
    (tmp_path / "result.json").write_text('{"search_seconds": 43200}')
    for processes, days in ((1, 0.5), (8, 4)):
        assert DAYS.value(RunFolder(tmp_path, {"processes": processes})) == days


def test_values_that_need_no_run():
    """PR-DARTS, Tables I and II; 9.3e9 of the text is a slip."""
    cycles, sizes = PAPERS["pr_darts"]["table1"], PAPERS["pr_darts"]["table2"]
    for label, cells in cycles.counted().items():
        assert {name: f"{value:.0f}" for name, value in cells.items()} == cycles.printed.rows[label]
    assert {label: cells["total"] for label, cells in sizes.counted().items()} == {
        "DL": 12, "DR": 32, "UR": 73, "cells of K = 8": 3_019_898_880,
        "cells of K = 15": 461_320_312_500,
    }  # fmt: skip


# ---------------------------------------------------------------------------- which cells are taken


def finished(folder, cells="", **result):
    """A job with a run folder: its result, and its cells by a published name."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    if cells:
        save(load(cells), folder / "genotype.json")
    return job_in(folder)


def job_in(folder, code="", needs=(), **more):
    return Job(folder.name, folder.name, 0, ("-c", code), (), folder, needs, **more)


def test_the_best_finished_search_is_chosen(tmp_path):
    results = [(80.0, 1.0), None, (90.0, 0.9), (90.0, 0.5), (70.0, 0.1)]
    jobs = [
        finished(tmp_path / f"{n}", valid_top1=result[0], valid_loss=result[1])
        if result else job_in(tmp_path / f"{n}")
        for n, result in enumerate(results)
    ]  # fmt: skip

    def part(choice, jobs=jobs):
        return Part(Cells(Searches("s", Command("x")), choice), jobs, jobs)

    assert [job.name for job, _ in part(Choice("r")).ranking()] == ["3", "2", "0", "4"]
    assert part(Choice("r", place=1)).search(0) is jobs[2]
    assert part(Choice("r", "valid_loss", smallest=True)).search(0) is jobs[4]
    with pytest.raises(InputError, match="0 of 1 searches"):
        part(Choice("r"), jobs[1:2]).search(0)


def test_a_normal_and_a_reduction_cell_of_two_searches(tmp_path):
    """GDAS, Table 5; each is of the best search of its kind."""
    def part(*names):
        jobs = [finished(tmp_path / name, name, valid_top1=n) for n, name in enumerate(names)]
        return Part(Cells(Searches("s", Command("x")), Choice("r")), jobs, jobs)

    normal, reduction = part("darts_v1", "darts_v2"), part("gdas", "pc_darts_cifar10")
    found = load(cells_of(normal, 0, reduction, tmp_path / "cells" / "both.json"))
    assert found.cells["normal"] == load("darts_v2").cells["normal"]
    assert found.cells["reduction"] == load("pc_darts_cifar10").cells["reduction"]
    assert cells_of(normal, 0, None, tmp_path / "x") == tmp_path / "darts_v2"


def test_snapshots_are_spread_from_the_first_epoch_to_the_last(tmp_path):
    names = ["darts_v1", "darts_v2", "pc_darts_cifar10", "p_darts", "gdas"]
    lines = [{"epoch": n, "genotype": load(name).to_json()} for n, name in enumerate(names)]
    (tmp_path / "genotypes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [snapshot(tmp_path, share).name for share in (0, 0.2, 0.5, 0.75)]
    assert found == ["darts_v1", "darts_v2", "pc_darts_cifar10", "p_darts"]


WRITE = (
    "import sys, pathlib; at = pathlib.Path(sys.argv[sys.argv.index('--output') + 1]); "
    "at.mkdir(); (at / 'result.json').write_text('{}')"
)


def run(*jobs):
    run_all(jobs, LocalExecutor([None], 1), View(jobs, 1))


def test_a_choice_does_without_failed_searches(tmp_path):
    both = ("diverged", "finished")
    jobs = [
        job_in(tmp_path / "diverged", "raise SystemExit('too much')"),
        job_in(tmp_path / "finished", WRITE),
        job_in(tmp_path / "chosen", WRITE, both, spares=True),
        job_in(tmp_path / "of both", WRITE, both),
        job_in(tmp_path / "of none", WRITE, ("diverged",), spares=True),
    ]
    run(*jobs)
    assert [job.state for job in jobs] == ["failed", "done", "done", "failed", "failed"]
    assert "needs diverged, which failed" in jobs[3].why and "too much" in jobs[0].why


def test_a_training_is_repeated_when_other_cells_are_chosen(tmp_path):
    """For example, the best search failed at the first start and finished at the second."""
    chosen = tmp_path / "chosen.json"
    save(load("darts_v1"), chosen)
    finished(tmp_path / "train", "darts_v1", test_top1=1.0)
    finished(tmp_path / "detect", AP=1.0)
    training = job_in(tmp_path / "train", WRITE, cells=lambda: chosen)
    after = job_in(tmp_path / "detect", WRITE, ("train",))
    run(training, after)
    assert not list(tmp_path.glob("*.replaced-*"))  # the same cells: nothing is repeated
    save(load("darts_v2"), chosen)
    run(training, after)
    assert (tmp_path / "train.replaced-1" / "result.json").exists()  # and nothing is lost
    assert {(job.folder / "result.json").read_text() for job in (training, after)} == {"{}"}


# ---------------------------------------------------------------------------------- from end to end

SEARCH = "--epochs 1 --channels 4 --cells 3 --limit-images 128"
TRAIN = "--epochs 1 --channels 4 --cells 3"
SMALL = {
    "pc_darts": ["table1", "--searches", 1, f"--search-flags={SEARCH} --batch-size 16 "
                 "--warmup-epochs 0", f"--rank-flags={TRAIN}", f"--train-flags={TRAIN}"],
    "gdas": ["cost", f"--search-flags={SEARCH}"],
    "edas": ["fig4", f"--search-flags={SEARCH} --batch-size 16"],
    "itnas": ["fig4", f"--search-flags={SEARCH} --batch-size 16"],
    "pr_darts": ["fig2", "--search-flags=--channels 2 --cells 3 --limit-images 128 --batch-size 8 "
                 "--batch-step 8 --batch-max 32 --cycle-epochs 1 1 --grace-epochs 0 0 "
                 "--morphisms 3 0 --kept 4 1"],
}  # fmt: skip


def reproduce(command, paper, output, *more):
    given = ["--scale", "digits", "--jobs", 2, "--threads", 1, *SMALL[paper], *more]
    return command(REPRODUCE, paper, *given, "--output", output)


def assert_complete(paper, output):
    table = json.loads((output / "table.json").read_text())
    assert table["scale"] == "digits" and "measure nothing" in (output / "table.md").read_text()
    item = PAPERS[paper][SMALL[paper][0]]
    rows = {row["label"]: row for row in table["rows"]}
    for label in item.rows:
        assert set(rows[label]["ours"]) == set(item.readings) and not rows[label]["empty"]
    for name in item.shown:
        assert list(output.glob(f"*.{name}.svg"))
    assert (output / "table.svg").exists() == bool(item.readings)


@pytest.mark.parametrize(
    "paper",
    ["edas", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gdas", "pr_darts"))],
)
def test_an_item_from_its_searches_to_its_table(paper, command, tmp_path):
    status, out, err = reproduce(command, paper, tmp_path)
    assert status == 0, err + out
    assert_complete(paper, tmp_path)


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_other_runs_are_refused(command, tmp_path):
    assert reproduce(command, "pc_darts", tmp_path)[0] == 0
    assert_complete("pc_darts", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    assert len(times) == 3 and reproduce(command, "pc_darts", tmp_path)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    other = reproduce(command, "pc_darts", tmp_path, "--train-flags=--epochs 3")
    assert_refused(other, "--train-flags --epochs 3: .* was begun with --epochs 1")
    other = command(REPRODUCE, "pr_darts", "table2", "--output", tmp_path)
    assert_refused(other, "holds pc_darts table1, not pr_darts table2")


def stopped(command, folder):
    """A reproduction that is stopped while its launchers' children sleep: these, and its end."""
    asleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    launcher = [sys.executable, "-c", f"import subprocess; subprocess.run({asleep})"]
    mine, children = psutil.Process(), []

    def stop():
        while not children and time.sleep(0.05) is None:
            children.extend(child for one in mine.children() for child in one.children())
        os.kill(mine.pid, signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    status, _, _ = reproduce(command, "itnas", folder, f"--launcher={shlex.join(launcher)}")
    return status, children


def test_a_stopped_item_ends_its_runs(command, tmp_path):
    """A launcher's child ends with it."""
    status, children = stopped(command, tmp_path)
    assert status == 75 and "* cells: not run." in (tmp_path / "table.md").read_text()
    assert not any(
        child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children
    )


@pytest.mark.slow
def test_a_stopped_item_continues(command, tmp_path):
    stopped(command, tmp_path)
    assert reproduce(command, "itnas", tmp_path)[0] == 0
    assert_complete("itnas", tmp_path)


def test_failed_runs_are_reported(command, tmp_path):
    given = ["--scale", "digits", "--launcher", "false", "--output", tmp_path]
    status, out, _ = command(REPRODUCE, "itnas", "table2", *given)
    assert status == 1 and "8 of 8 runs failed" in out
    assert "itnas-none-0: exit status 1" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "table.svg").exists()


def test_a_chosen_search_is_reported_with_the_mean_of_all(tmp_path):
    item, expansion = PAPERS["pc_darts"]["table1"], expanded("pc_darts", "table1", tmp_path)
    (part,) = expansion.parts["PC-DARTS + cutout"].values()
    for n, top1 in enumerate((90, 91, 92, 93, 80)):
        finished(part.judged[n].folder, valid_top1=top1, valid_loss=1.0)
        (said,) = report.lines_of(item, expansion, published=False)[-1].chosen
        if n == 3:
            assert "pc_darts-3, valid_top1 93.00; of the finished searches 91.50 ± 1.29" in said
    assert "pc_darts-3, valid_top1 93.00; of all searches 89.20 ± 5.26 (n=5)" in said


def test_a_row_that_was_not_run_says_so(tmp_path):
    item = PAPERS["gdas"]["table5"]
    lines = report.lines_of(item, expanded("gdas", "table5", tmp_path), published=False)
    assert [line.empty for line in lines] == ["not run"] * 4 and not any(x.ours for x in lines)
    config, about = ReproduceConfig("gdas", "table5"), {"command": "c", "commit": ""}
    text = "\n".join(report.markdown(config, item, lines, about))
    assert "| GDAS-N + FIX-R | 3.0 |  | 2.87 |  |" in text
    first, *_ = report.lines_of(
        PAPERS["gdas"]["table1"], expanded("gdas", "table1", tmp_path), published=False
    )
    assert first.empty == "another paper's figures" and first.printed["Error on CIFAR-10"] == "4.61"


# ---------------------------------------------------------------------------------- what it refuses

BAD = {
    "darts table1": "darts: is no paper; did you mean .*pc_darts",
    "gdas tabel1": "tabel1: is no item of gdas; did you mean table1",
    "gdas": "is no item of gdas",
    "pc_darts table5 --scale digits": "--scale digits: pc_darts table5",
    "itnas table1 --published": "--published: itnas table1",
    "gdas table1": "--output: ",
    "gdas table2 --output OUT": "--data-root .*imagenet.* missing",
    "gdas table1 '--train-flags=\"--epochs 1'": "--train-flags",
    "gdas table1 --search-flags='--epochz 1'": "--search-flags .*gdas/search.py",
    "gdas table1 --train-flags='--epochs 0'": "--train-flags '--epochs 0': --epochs",
    "gdas table1 --rank-flags='--cells 1.5'": "--rank-flags",
    "gdas table1 --launcher nothing-such": "--launcher nothing-such",
    "gdas table1 --search-flags='--seed 7'": "--search-flags: --seed is set",
    "edas fig4 --rank-flags='--epochs 1'": "--rank-flags: edas fig4 runs no",
    "pr_darts table3 --searches 1": "--searches 1: PR-DARTS DL1 takes",
    "gdas table1 --searches 0": "--searches 0",
}


@pytest.mark.parametrize("line", BAD)
def test_it_refuses_before_anything_is_written(line, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path / "out") if word == "OUT" else word for word in shlex.split(line)]
    assert_refused(command(REPRODUCE, *words), BAD[line])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(command, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = command(REPRODUCE, "gdas", "fig4", "--output", tmp_path)
    assert_refused(result, "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_list_shows_every_item_with_its_commands(command):
    status, out, _ = command(REPRODUCE, "--list")
    assert status == 0 and all(f"{paper} {name}\n" in out for paper, name in ITEMS)
    assert "5 x python pc_darts/search.py\n" in out


def test_a_dry_run_prints_every_command_and_starts_none(command, tmp_path):
    output = tmp_path / "o"
    status, out, _ = command(REPRODUCE, "pc_darts", "table1", "--dry-run", "--output", output)
    lines = out.strip().splitlines()
    assert status == 0 and len(lines) == 11 and not output.exists()
    assert all(f"--seed {n}" in line for n, line in enumerate(lines[:5]))
    assert all("--held-out valid --held-out-share 0.1" in line for line in lines[5:10])
