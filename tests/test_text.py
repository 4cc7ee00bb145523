"""Text: vocabulary, columns, chunks, and the small language."""

from pathlib import Path

import pytest
import torch

from builders import SENTENCES, make_corpus
from common.errors import InputError
from common.language.small_language import PLACES, STORIES, small_text
from common.language.text import Columns, Corpus, chunk_starts, load_corpus


@pytest.mark.parametrize("names", ["{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "{}.tokens"])
def test_a_folder_of_text(tmp_path, names):
    corpus = make_corpus(tmp_path, names)
    assert corpus.words == ("the", "cat", "sat", "<eos>", "on", "mat", "<unk>")

    def read(text):
        return [corpus.words[n] for n in text]

    assert read(corpus.train) == "the cat sat <eos> <eos> on the mat <eos>".split()
    assert read(corpus.valid) == "the <unk> sat <eos>".split()
    assert read(corpus.test) == "<unk> cat <eos>".split()


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path):
    plain = make_corpus(tmp_path / "plain")
    marked = {part: b"\xef\xbb\xbf" + text.encode() for part, text in SENTENCES.items()}
    assert make_corpus(tmp_path / "marked", **marked).digests() == plain.digests()


def test_an_end_of_line_that_is_in_the_text_is_not_doubled(tmp_path):
    plain = make_corpus(tmp_path / "plain")
    ended = {part: text.replace("\n", " <eos>\n") for part, text in SENTENCES.items()}
    assert make_corpus(tmp_path / "ended", **ended).digests() == plain.digests()
    mixed = {part: text.replace("\n", " <eos>\n", 1) for part, text in SENTENCES.items()}
    assert make_corpus(tmp_path / "mixed", **mixed).digests() == plain.digests()


def test_lines_end_where_files_say_so(tmp_path):
    """Not at each character that Unicode would allow to end one."""
    text = "the cat\x0csat\u2028on\x85the mat\r\n\r\nthe end"
    corpus = make_corpus(tmp_path, train=text)
    words = [corpus.words[n] for n in corpus.train]
    assert words == "the cat sat on the mat <eos> <eos> the end <eos>".split()


def test_nothing_unknown_needs_no_word_for_it(tmp_path):
    corpus = make_corpus(tmp_path, valid="the cat\n", test="mat\n")
    assert "<unk>" not in corpus.words


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_word_that_one_text_alone_brings_is_unknown(tmp_path, part):
    texts = {"valid": "mat", "test": "mat", part: "dog"}
    corpus = make_corpus(tmp_path, **texts)
    assert corpus.words[getattr(corpus, part)[0]] == "<unk>"


@pytest.mark.parametrize(("changed", "named"), [
    ({"train": None}, r"no train text there \(one of train.txt, ptb.train.txt"),
    ({"valid": None}, "no valid text"),
    ({"test": ""}, "test.txt is empty"),
    ({"train": "\n \n"}, "train.txt is empty"),
    ({"valid": b"\xff\xfe\x00"}, "valid.txt is not UTF-8"),
])  # fmt: skip
def test_bad_text(tmp_path, changed, named):
    with pytest.raises(InputError, match=f"--data-root.*{named}"):
        make_corpus(tmp_path, **changed)


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputError, match="--data-root .*the train text cannot be read .Permission"):
        make_corpus(tmp_path)


def test_digests_tell_texts_and_vocabularies_apart(tmp_path):
    first = make_corpus(tmp_path).digests()
    assert first == load_corpus("folder", tmp_path).digests()
    other = make_corpus(tmp_path, test="the cat\n").digests()
    assert {key for key in first if first[key] != other[key]} == {"test_sha256"}
    other = make_corpus(tmp_path, train=SENTENCES["train"].replace("cat", "cow"))
    changed = {key for key in first if first[key] != other.digests()[key]}
    assert "vocabulary_sha256" in changed and "train_sha256" not in changed


def test_columns_and_their_share():
    text = torch.arange(23)
    whole = Columns(text, 4, "training")
    assert len(whole) == 4  # 5 words a column; the last three of the text are left out
    chunk = whole.chunk(1, 2)
    assert chunk.words.tolist() == [[1, 6, 11, 16], [2, 7, 12, 17]]
    assert torch.equal(chunk.targets, chunk.words + 1) and not chunk.first
    assert whole.chunk(0, 2).first and len(whole.chunk(3, 9).words) == 1
    shares = [Columns(text, 4, "training", rank, 2).chunk(0, 3).words for rank in range(2)]
    assert torch.equal(torch.cat(shares, 1), whole.chunk(0, 3).words)


def test_more_columns_than_words():
    assert len(Columns(torch.arange(8), 4, "training")) == 1
    with pytest.raises(InputError, match="--batch-size 4: the training text has 7 words.* most 3"):
        Columns(torch.arange(7), 4, "training")


def test_chunks_are_a_function_of_seed_and_epoch():
    starts = chunk_starts(20_000, 35, 5.0, 2, "chunks", 0)
    assert starts == chunk_starts.__wrapped__(20_000, 35, 5.0, 2, "chunks", 0)
    assert starts != chunk_starts(20_000, 35, 5.0, 2, "chunks", 1)
    assert starts[0] == 0 and starts[-1] == 20_000
    lengths = torch.tensor(starts).diff()[:-1]  # but the last one, which the text's end may cut
    assert lengths.min() >= 5 and lengths.max() <= 55
    half = lengths < 25
    assert 0.02 < half.float().mean() < 0.09
    assert 34 < lengths[~half].float().mean() < 35.2 and 4 < lengths[~half].float().std() < 6
    even = torch.tensor(chunk_starts(20_000, 35, 0.0, 2, "chunks", 0)).diff()[:-1]
    assert set(even.tolist()) == {35, 17}
    assert chunk_starts(3, 1, 0.0, 2) == (0, 1, 2, 3)
    wild = torch.tensor(chunk_starts(20_000, 35, 50.0, 2, "chunks", 0)).diff()[:-1]
    assert (wild.min(), wild.max()) == (5, 35 + 20)  # no draw makes a chunk longer than memory


def test_the_small_language_is_always_the_same():
    corpus = load_corpus("small", "nowhere")
    digest = corpus.digests()
    assert digest["train_sha256"].startswith("53405b1a600c038d") and digest["words"] == 155
    assert Corpus.of(small_text()).digests() == digest


def test_the_small_language_has_a_memory():
    """A story keeps to its place, verbs agree with their subject."""
    text = small_text()
    assert {part: len(lines) for part, lines in text.items()} == STORIES
    nouns = {place: set(names.split()) for place, names in PLACES.items()}
    for story in text["train"]:
        place = " ".join(story[:3])
        strangers = set().union(*nouns.values()) - nouns[place]
        told = {word for word in story} | {word.removesuffix("s") for word in story}
        assert not told & strangers
        assert story[3] == ":" and story[-1] == "."
    sentences = " ".join(" ".join(story) for story in text["train"])
    assert " it sleeps" in sentences and " they sleep" in sentences
    assert " it sleep " not in sentences and " they sleeps" not in sentences
