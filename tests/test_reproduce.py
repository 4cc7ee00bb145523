"""evaluate/reproduce.py: what each item runs, held to the papers' values, and what it reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import InputError
from common.networks.genotype import load, save
from comparison.jobs import Job
from comparison.progress import View
from comparison.run_folders import RunFolder
from comparison.running import run_all
from conftest import ROOT
from reproduction import conduct, report
from reproduction.jobs import Expansion, cells_of, checkable, ranked, snapshot, winner
from reproduction.plan import Cells, Choice, Command, Searches
from reproduction.readings import DAYS
from reproduction.settings import PAPERS, ReproduceConfig, settings_of
from test_commands import assert_refused

REPRODUCE, SEARCHED = "evaluate/reproduce.py", Command(("x/search.py",))
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


def expanded(paper, item, **how):
    config = ReproduceConfig(paper, item, data_root="D", **how)
    config.check()
    return Expansion(config.chosen(), config, Path("F").resolve())


def settings(job):
    return settings_of(job.script, checkable(job))


def assert_has(config, expected):
    found = {name: getattr(config, name) for name in expected}
    assert found == expected


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_searches_have_the_papers_settings_seeds_and_number(paper, name):
    jobs = [job for job in expanded(paper, name).jobs if job.is_search]
    known = SEARCHES | OTHERWISE.get((paper, name), {})
    for label in dict.fromkeys(job.label for job in jobs):
        seeds, expected = known[label]
        own = [job for job in jobs if job.label == label]
        assert [job.seed for job in own] == seeds
        for job in own[:1]:
            assert_has(settings(job), expected)
            assert not {"--seed", "--output"} & set(job.flags)


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_trainings_have_the_papers_settings(paper, name):
    expansion = expanded(paper, name)
    for label, parts in expansion.parts.items():
        for which, part in parts.items():
            wanted = next(iter(
                values for (p, item, row, training), values in TRAININGS.items()
                if p == paper and item in (None, name) and (row is None or row in label)
                and training in (None, which)
            ), None)  # fmt: skip
            for job in part.runs:
                assert_has(settings(job), wanted)
            for job in part.judged:
                if job.what == "rank":
                    searched = job.needs[0].rsplit("-", 1)[0].replace("gdas_frc", "gdas")
                    assert_has(settings(job), RANKINGS[searched])


def test_gdas_on_imagenet_has_50_channels_and_with_the_fixed_cell_52():
    (job, *_) = (j for j in expanded("gdas", "table2").jobs if j.what == "train")
    found = [
        settings_of(job.script, [*job.flags, "--genotype", name]).channels
        for name in ("gdas", "gdas_frc")
    ]
    assert found == [50, 52]


@pytest.mark.parametrize(("paper", "name"), ITEMS)
@pytest.mark.parametrize("published", [False, True])
def test_every_item_has_its_plan_on_digits(paper, name, published):
    item = PAPERS[paper][name]
    try:
        expansion = expanded(paper, name, scale="digits", published=published)
    except InputError as error:
        assert (published and "--published" in str(error)) or not item.on_digits
        return
    order = {job.name: n for n, job in enumerate(expansion.jobs)}
    assert len(order) == len(expansion.jobs)
    for job in expansion.jobs:
        assert all(order[need] < order[job.name] for need in job.needs)
        found = settings(job)
        assert found.dataset in ("digits", "small") and found.epochs <= 40
        assert not published or job.what == "train"
    if (paper, name) == ("gdas", "table1"):  # trained by GDAS' authors, whoever found them
        (part,) = expansion.parts["DARTS (2nd) + CutOut [24]"].values()
        assert part.runs[0].flags[-2:] == ["--genotype", "darts_v2"] and not part.searches


def test_how_winners_and_trainings_stand_for_the_papers_protocols():
    """PC-DARTS: one training of the best of five. PR-DARTS: three of the best of three."""
    pc, pr = expanded("pc_darts", "table1"), expanded("pr_darts", "table3")
    (part,) = pc.parts["PC-DARTS + cutout"].values()
    assert [len(jobs) for jobs in (part.searches, part.judged, part.runs)] == [5, 5, 1]
    assert {job.seed for job in part.judged} == {0} and part.runs[0].spares  # one split for all
    for label, place in (("PR-DARTS DL1", 1), ("PR-DARTS DL2", 0)):
        for part in pr.parts[label].values():
            assert part.training.cells.choice.place == place
            assert part.judged == part.searches and [job.seed for job in part.runs] == THREE
    more = expanded("pc_darts", "table1", searches=7, trainings=2)
    assert sum(job.is_search for job in more.jobs) == 7
    assert sum(job.what == "train" for job in more.jobs) == 2


@pytest.mark.parametrize("paper", PAPERS)
def test_a_papers_readme_has_each_item_its_command_and_what_differs(paper):
    text = (ROOT / paper / "README.md").read_text()
    for name, item in PAPERS[paper].items():
        command = f"python evaluate/reproduce.py {paper} {name} --output FOLDER"
        assert f"| {item.title} | `{command}` | {item.differs} |\n" in text


# ------------------------------------------------------------------------------- printed figures


@pytest.mark.parametrize(("paper", "name"), ITEMS)
def test_a_printed_table_has_a_cell_for_each_column(paper, name):
    item = PAPERS[paper][name]
    head, rows = item.table()
    assert all(len(cells) == len(head) - 1 for cells in rows.values())
    for readings in (item.readings, *(row.readings for row in item.rows.values())):
        assert set(readings) <= set(head)
    for label, row in item.rows.items():
        assert label in rows or len(head) == 1
        for reading in (row.readings or item.readings).values():
            names = [n for r in item.rows.values() for n in r.trainings]
            assert reading.of in ("", *names)
    assert item.title and item.cost and item.differs


@pytest.mark.parametrize(("paper", "name", "row", "printed"), [
    ("pc_darts", "table1", "PC-DARTS + cutout", "2.57 ± 0.07 3.6 0.1 gradient-based"),
    ("pc_darts", "table2", "PC-DARTS (ImageNet)", "24.2 7.3 5.3 597 3.8 gradient-based"),
    ("pc_darts", "table3", "CIFAR10, no PC, EN", "2.82 ± 0.05 % 0.4 GPU-days"),
    ("pc_darts", "table3", "ImageNet, PC, EN", "25.8 ± 0.1 % 3.8 GPU-days"),
    ("pc_darts", "table4", "DARTS-v2(%)",
     "3.11 2.68 2.77 3.14 3.06 ± 0.21 2.76 2.93 3.51 3.18 2.82 2.76 3.02"),
    ("gdas", "table1", "GDAS (FRC) [C=36,N=6] + CutOut", "1 0.17 2.5 2.82 18.13"),
    ("gdas", "table2", "GDAS [C=50,N=4]", "1 0.21 26.0 8.5 5.3 581"),
    ("gdas", "table3", "GDAS", "59.8 57.5 23 0.4"), ("gdas", "table4", "GDAS", "71.0 69.4 33 0.4"),
    ("gdas", "table5", "FRC-N + GDAS-R", "2.9 2.84"),
    ("edas", "table1", "Test acc. (%)", "96.87 97.15 97.14 97.15 97.22 97.21"),
    ("edas", "table2", "EDAS CIFAR100 warmup + cutout", "- 17.16 4.06 0.125 gradient-based"),
    ("itnas", "table1", "ITNAS", "2.45 4.0 0.30"), ("itnas", "table4", "ITNAS", "6.72 15.5 1.78"),
    ("itnas", "table3", "ITNAS", "24.04 7.29 5.5 627 0.30 gradient"),
    ("pr_darts", "table3", "PR-DARTS DL2", "4.0 2.51 ± 0.09 15.53 ± 0.29 0.82 15/15 grad"),
])  # fmt: skip
def test_printed_figures(paper, name, row, printed):
    assert " ".join(PAPERS[paper][name].table()[1][row]) == printed


def test_gpu_days_count_every_process(tmp_path):
    (tmp_path / "result.json").write_text('{"search_seconds": 43200}')
    for processes, days in ((1, 0.5), (8, 4)):
        run = RunFolder(tmp_path, {"processes": processes})
        assert DAYS.value(run) == days


def test_what_needs_no_run_is_counted():
    """PR-DARTS, Tables I and II; 9.3e9 of the text is a slip."""
    items = PAPERS["pr_darts"]
    _, printed = items["table1"].table()
    for label, cells in items["table1"].counted().items():
        assert [f"{value:.0f}" for value in cells.values()] == printed[label]
    totals = {label: cells["total"] for label, cells in items["table2"].counted().items()}
    assert totals == {"DL": 12, "DR": 32, "UR": 73, "cells of K = 8": 3_019_898_880,
                      "cells of K = 15": 461_320_312_500}  # fmt: skip


# ---------------------------------------------------------------------------- which cells are taken


def finished(folder, **result):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    return Job(folder.name, "x", 0, ("x.py",), (), folder)


def test_the_winner_is_the_best_of_those_that_ended(tmp_path):
    judged = [
        finished(tmp_path / str(n), valid_top1=top1, valid_loss=loss)
        for n, (top1, loss) in enumerate([(80.0, 1.0), (90.0, 0.9), (90.0, 0.5), (70.0, 0.1)])
    ]
    judged.insert(1, Job("failed", "x", 0, ("x.py",), (), tmp_path / "failed"))
    searches = [Job(f"s{n}", "x", 0, ("x.py",), (), tmp_path) for n in range(5)]
    choice = Choice("r")
    assert [n for n, _ in ranked(choice, judged)] == [3, 2, 0, 4]
    assert winner(choice, searches, judged) is searches[3]
    assert winner(Choice("r", place=1), searches, judged) is searches[2]
    lowest = Choice("r", "valid_loss", smallest=True)
    assert winner(lowest, searches, judged) is searches[4]
    with pytest.raises(InputError, match="0 of 1 searches"):
        winner(choice, searches[:1], judged[1:2])


def test_a_normal_and_a_reduction_cell_of_two_searches(tmp_path):
    """GDAS, Table 5; each is that of its winner."""
    jobs = {}
    for name in ("darts_v1", "darts_v2", "gdas", "pc_darts_cifar10"):
        jobs[name] = finished(tmp_path / name, valid_top1=float(len(name)), valid_loss=1.0)
        save(load(name), tmp_path / name / "genotype.json")
    normals, reductions = list(jobs.values())[:2], list(jobs.values())[2:]
    choice = Choice("r")
    cells = Cells(Searches("n", SEARCHED), choice, reduction=Cells(Searches("r", SEARCHED), choice))
    found = load(cells_of(
        cells, normals, normals, (reductions, reductions), tmp_path / "cells" / "both.json"
    ))  # fmt: skip
    assert found.cells["normal"] == load("darts_v1").cells["normal"]
    assert found.cells["reduction"] == load("pc_darts_cifar10").cells["reduction"]
    alone = cells_of(Cells(Searches("n", SEARCHED), choice), normals, normals, None, tmp_path / "x")
    assert alone == tmp_path / "darts_v1"


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


def test_a_choice_goes_on_without_searches_that_failed(tmp_path):
    def job(name, code, *needs, spares=False):
        return Job(name, name, 0, ("-c", code), (), tmp_path / name, needs, spares=spares)

    jobs = [
        job("diverged", "raise SystemExit('too much')"), job("ended", WRITE),
        job("chosen", WRITE, "diverged", "ended", spares=True),
        job("both", WRITE, "diverged", "ended"), job("none", WRITE, "diverged", spares=True),
    ]  # fmt: skip
    run_all(jobs, [None], 1, View(jobs, 1))
    assert [one.state for one in jobs] == ["failed", "done", "done", "failed", "failed"]
    assert "needs diverged, which failed" in jobs[3].why and "too much" in jobs[0].why


def test_a_training_of_cells_that_are_no_longer_chosen_is_done_again(tmp_path):
    """As when the best search had failed, and has ended at the second start."""
    chosen = tmp_path / "chosen.json"
    save(load("darts_v1"), chosen)
    trained = finished(tmp_path / "train", test_top1=1.0).folder
    save(load("darts_v1"), trained / "genotype.json")
    again = Job("train", "x", 0, ("-c", WRITE), (), trained, cells=lambda: chosen)
    after = Job("detect", "x", 0, ("-c", WRITE), (), tmp_path / "detect", ("train",))
    finished(after.folder, AP=1.0)
    run_all([again, after], [None], 1, View([again, after], 1))
    assert not list(tmp_path.glob("*.replaced-*"))  # the same cells: nothing is repeated
    save(load("darts_v2"), chosen)
    run_all([again, after], [None], 1, View([again, after], 1))
    assert (tmp_path / "train.replaced-1" / "result.json").exists()  # and nothing is lost
    results = [(job.folder / "result.json").read_text() for job in (again, after)]
    assert results == ["{}", "{}"]


def test_a_run_that_still_writes_is_not_joined(tmp_path):
    folder = str(tmp_path / "x")
    words = [sys.executable, "-c", "import time; time.sleep(60)", "--resume", folder]
    with subprocess.Popen(words) as process:
        jobs = [Job("x", "x", 0, ("-c", WRITE), (), tmp_path / "x")]
        with pytest.raises(InputError, match=f"still written by process {process.pid}"):
            run_all(jobs, [None], 1, View(jobs, 1))
        process.kill()


# ---------------------------------------------------------------------------------- from end to end

SEARCH = "--epochs 1 --channels 4 --cells 3 --limit-images 128 --batch-size 16"
TRAIN = "--epochs 1 --channels 4 --cells 3"
WHOLE = {
    "pc_darts": ["table1", "--searches", 1, f"--search-flags={SEARCH} --warmup-epochs 0"],
    "gdas": ["cost", "--search-flags=--epochs 1 --channels 4 --cells 3 --limit-images 128"],
    "edas": ["fig4", f"--search-flags={SEARCH}"],
    "itnas": ["fig4", f"--search-flags={SEARCH}"],
    "pr_darts": ["fig2", "--search-flags=--channels 2 --cells 3 --limit-images 128 --batch-size 8 "
                 "--batch-step 8 --batch-max 32 --cycle-epochs 1 1 --grace-epochs 0 0 "
                 "--morphisms 3 0 --kept 4 1"],
}  # fmt: skip


def reproduce(command, paper, output, *more):
    item, *flags = WHOLE[paper]
    if paper == "pc_darts":
        flags += [f"--rank-flags={TRAIN}", f"--train-flags={TRAIN}"]
    given = ["--scale", "digits", "--jobs", 2, "--threads", 1, *flags, *more, "--output", output]
    return command(REPRODUCE, paper, item, *given)


@pytest.mark.parametrize("paper", WHOLE)
def test_an_item_of_each_paper_runs_to_its_table(paper, command, tmp_path):
    output = tmp_path / "out"
    status, out, err = reproduce(command, paper, output)
    assert status == 0, err + out
    table = json.loads((output / "table.json").read_text())
    assert table["scale"] == "digits" and "measure nothing" in (output / "table.md").read_text()
    item = PAPERS[paper][WHOLE[paper][0]]
    rows = {row["label"]: row for row in table["rows"]}
    for label in item.rows:
        assert set(rows[label]["ours"]) == set(item.readings) and not rows[label]["empty"]
    for name in item.shown:
        assert list(output.glob(f"*.{name}.svg"))
    assert (output / "table.svg").exists() == bool(item.readings)
    if paper == "pc_darts":  # finished runs are not repeated, and nothing else is mixed in
        again = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/result.json")}
        assert len(again) == 3 and reproduce(command, paper, output)[0] == 0
        assert {path: path.stat().st_mtime_ns for path in again} == again
        other = reproduce(command, paper, output, "--train-flags=--epochs 3")
        assert_refused(other, "--train-flags --epochs 3: .* was begun with --epochs 1")
        assert_refused(
            command(REPRODUCE, "pr_darts", "table2", "--output", output),
            "holds pc_darts table1, not pr_darts table2",
        )


def test_a_best_does_not_stand_without_the_mean_of_all(tmp_path):
    """Nor without saying how many searches have ended."""
    config = ReproduceConfig("pc_darts", "table1", scale="digits")
    item = config.chosen()
    expansion = Expansion(item, config, tmp_path)
    (part,) = expansion.parts["PC-DARTS + cutout"].values()
    for n, job in enumerate(part.judged[:-1]):
        finished(job.folder, valid_top1=90.0 + n, valid_loss=1.0)
    chosen = "the cells of pc_darts-3, valid_top1 93.00; of {} 91.50 ± 1.29 (n=4)"

    def said():
        return report.lines_of(item, expansion, published=False)[-1].chosen

    assert said() == [chosen.format("those that have ended")]
    finished(part.judged[-1].folder, valid_top1=80.0, valid_loss=1.0)
    assert "of all searches 89.20 ± 5.26 (n=5)" in said()[0]


def test_what_was_not_run_is_an_empty_cell_that_says_so(tmp_path):
    config = ReproduceConfig("gdas", "table5")
    expansion = Expansion(config.chosen(), config, tmp_path)
    lines = report.lines_of(config.chosen(), expansion, published=False)
    assert [line.empty for line in lines] == ["not run"] * 4 and not any(x.ours for x in lines)
    about = {"command": "c", "commit": ""}
    text = "\n".join(report.markdown(config, config.chosen(), lines, about))
    assert "| GDAS-N + FIX-R | 3.0 |  | 2.87 |  |" in text
    first = report.lines_of(PAPERS["gdas"]["table1"], Expansion(
        PAPERS["gdas"]["table1"], config, tmp_path
    ), published=False)[0]  # fmt: skip
    assert first.empty == "another paper's figures" and first.printed["Error on CIFAR-10"] == "4.61"


# ---------------------------------------------------------------------------------- what it refuses

BAD = {
    "paper": (["darts", "table1"], "darts: is no paper; did you mean .*pc_darts"),
    "item": (["gdas", "tabel1"], "tabel1: is no item of gdas; did you mean table1"),
    "no item": (["gdas"], "is no item of gdas"),
    "scale": (["pc_darts", "table5", "--scale", "digits"], "--scale digits: pc_darts table5"),
    "published": (["itnas", "table1", "--published"], "--published: itnas table1"),
    "nowhere": (["gdas", "table1"], "--output: say where"),
    "data": (["gdas", "table2", "--output", "OUT"], "--data-root .*imagenet.*not there"),
    "quoted": (["gdas", "table1", "--train-flags='--epochs 1"], "--train-flags"),
    "search": (["gdas", "table1", "--search-flags=--epochz 1"], "--search-flags .*gdas/search.py"),
    "value": (["gdas", "table1", "--train-flags=--epochs 0"], "--train-flags '--epochs 0': --ep"),
    "rank": (["gdas", "table1", "--rank-flags=--cells 1.5"], "--rank-flags"),
    "launcher": (["gdas", "table1", "--launcher", "nothing-such"], "--launcher nothing-such"),
    "own flag": (["gdas", "table1", "--search-flags=--seed 7"], "--search-flags: --seed is set"),
    "no such run": (["edas", "fig4", "--rank-flags=--epochs 1"], "--rank-flags: edas fig4 runs no"),
    "too few": (["pr_darts", "table3", "--searches", 1], "--searches 1: PR-DARTS DL1 takes"),
    "number": (["gdas", "table1", "--searches", 0], "--searches 0"),
}  # fmt: skip


def test_failed_runs_are_the_commands_failure(command, tmp_path, monkeypatch):
    def fail(jobs, *_):
        for job in jobs:
            job.state, job.why = "failed", "first\nthe loss was not finite"

    monkeypatch.setattr(conduct, "run_all", fail)
    given = ["--scale", "digits", "--output", tmp_path / "o"]
    status, out, _ = command(REPRODUCE, "itnas", "table2", *given)
    assert status == 1 and "8 of 8 runs failed" in out
    table = (tmp_path / "o" / "table.md").read_text()
    assert "itnas-none-0: the loss was not finite (log:" in table
    assert not (tmp_path / "o" / "table.svg").exists()


@pytest.mark.parametrize("case", BAD)
def test_it_refuses_before_anything_is_written(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    words = [tmp_path / "out" if word == "OUT" else word for word in arguments]
    assert_refused(command(REPRODUCE, *words), message)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(command, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = command(REPRODUCE, "gdas", "fig4", "--output", tmp_path)
    assert_refused(result, "exists and is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_lists_and_dry_runs_start_nothing(command, tmp_path, monkeypatch):
    monkeypatch.setattr(conduct, "run_all", None)
    status, out, _ = command(REPRODUCE, "--list")
    assert status == 0 and all(f"{paper} {name}\n" in out for paper, name in ITEMS)
    assert "5 x python pc_darts/search.py\n" in out
    given = ["--dry-run", "--output", tmp_path / "o"]
    status, out, _ = command(REPRODUCE, "pc_darts", "table1", *given)
    lines = out.strip().splitlines()
    assert status == 0 and len(lines) == 11 and not (tmp_path / "o").exists()
    assert [f"--seed {n}" in line for n, line in enumerate(lines[:5])] == [True] * 5
    assert all("--held-out valid --held-out-share 0.1" in line for line in lines[5:10])
