"""The second opinion: a real (tiny, local) transformers classifier, and who decides when it and the evidence differ."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from data_prep.variety_settings import variety_filter, variety_settings
from nemo_amalia.utils.errors import UserError
from nemo_amalia.variety.classifier import Classifier
from nemo_amalia.variety.evidence import BRAZILIAN, PORTUGUESE

LABELS = {"PT-PT": PORTUGUESE, "PT-BR": BRAZILIAN}
NEUTRAL, EUROPEAN, BRASIL = "Um gato preto dorme.", "O autocarro partiu.", "O ônibus partiu."
SURE = "Você está usando o ônibus e o celular."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a tiny BERT with random weights whose bias makes it say PT-BR, whatever it reads."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "o", "autocarro", "ônibus"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "PT-PT", 1: "PT-BR"},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-4.0, 4.0]))
    model.save_pretrained(folder)
    return folder


def conf(tiny=None, **agreement):
    whole = variety_settings()
    whole.classifier.model = tiny and str(tiny)
    whole.classifier.max_length = 64
    whole.agreement.update(agreement)
    return whole


def reasons(settings, *texts):
    return [decision.reason for decision in variety_filter(settings).decide(texts)]


def test_opinions_are_in_order_and_long_texts_are_cut(tiny):
    classifier = Classifier(str(tiny), LABELS, batch_size=2, max_length=64)
    found = classifier.opinions([NEUTRAL, EUROPEAN, "o " * 500])
    assert [opinion.variety for opinion in found] == [BRAZILIAN] * 3
    assert all(0.9 < opinion.confidence <= 1 for opinion in found) and classifier.opinions([]) == []


def test_without_a_classifier_the_evidence_decides():
    assert reasons(conf(), NEUTRAL, EUROPEAN, BRASIL) == ["", "", "variety_lexical"]


def test_either_can_drop(tiny):
    assert reasons(conf(tiny), NEUTRAL, EUROPEAN, BRASIL) == ["variety_classifier"] * 2 + ["variety_lexical"]


def test_both_must_agree(tiny):
    assert reasons(conf(tiny, rule="both"), NEUTRAL, EUROPEAN, BRASIL, SURE) == ["", "", *["variety_lexical"] * 2]


def test_a_classifier_that_is_unsure_does_not_count(tiny):
    assert reasons(conf(tiny, confidence=1.1), NEUTRAL, BRASIL) == ["", "variety_lexical"]
    assert reasons(conf(tiny, rule="both", confidence=1.1), BRASIL) == [""]


def test_the_classifier_alone(tiny):
    assert reasons(conf(tiny, rule="classifier"), NEUTRAL, SURE) == ["variety_classifier", "variety_lexical"]


def test_the_classifier_is_not_asked_where_the_evidence_is_certain(tiny):
    decided = variety_filter(conf(tiny)).decide([SURE, NEUTRAL])
    assert decided[0].opinion is None and decided[1].opinion is not None


def test_what_neither_can_tell_can_be_dropped():
    assert reasons(conf(unknown=False), NEUTRAL, EUROPEAN) == ["variety_unknown", ""]


def test_lexical_leaves_the_classifier_alone():
    settings = conf("no/such/model", rule="lexical")
    assert reasons(settings, NEUTRAL, BRASIL) == ["", "variety_lexical"]


def test_errors_are_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="expected one of either, both"):
        variety_filter(conf(rule="maybe"))
    with pytest.raises(UserError, match="needs classifier.model"):
        variety_filter(conf(rule="both"))
    with pytest.raises(UserError, match="cannot be loaded") as error:
        Classifier(str(tmp_path / "nothing"), LABELS).opinions(["a"])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"has the labels \['PT-BR', 'PT-PT'\]"):
        Classifier(str(tiny), {"LABEL_0": PORTUGUESE}).opinions(["a"])


class Hub:
    """A network that swallows everything: it takes connections and never answers. folder: HF_HOME of who asks."""

    def __init__(self, folder):
        self.socket, self.folder = socket.create_server(("127.0.0.1", 0), backlog=64), folder
        self.socket.setblocking(False)

    def cache(self, model, *names):
        """Puts files of a model's folder into the cache, as version 0 of me/tiny."""
        there = self.folder / "hub" / "models--me--tiny"
        (there / "snapshots" / ("0" * 40)).mkdir(parents=True)
        (there / "refs").mkdir()
        (there / "refs" / "main").write_text("0" * 40)
        for name in names:
            shutil.copy(model / name, there / "snapshots" / ("0" * 40))

    def asked(self):
        """Questions about the model that came; the hub's client has some of its own."""
        heads = []
        with contextlib.suppress(BlockingIOError):
            while True:
                with self.socket.accept()[0] as connection:
                    heads.append(connection.recv(1000).split(b"\r\n")[0])
        return sum(b"me/tiny" in head for head in heads)

    def variety(self, text):
        """(stdout, stderr, seconds) of the command with that network, in a process of its own: the hub's client reads
        its settings as it is imported.
        """
        (self.folder / "text.txt").write_text(text)
        url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        words = [sys.executable, "-m", "data_prep.cli", "variety", str(self.folder / "text.txt")]
        words += ["classifier.model=me/tiny", "classifier.max_length=64"]
        env = {**os.environ, "HF_HOME": str(self.folder), "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
        began = time.monotonic()
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=200)
        return done.stdout, done.stderr, time.monotonic() - began


@pytest.mark.timeout(300)
@pytest.mark.parametrize("files", [[], ["config.json"]])
def test_a_hub_that_does_not_answer_is_asked_once(tiny, tmp_path, files):
    """With nothing in the cache, and with a download that was cut short."""
    hub = Hub(tmp_path)
    if files:
        hub.cache(tiny, *files)
    _, said, seconds = hub.variety(NEUTRAL)
    assert hub.asked() == 1 and seconds < 60
    assert said.startswith("error: classifier.model='me/tiny' cannot be loaded (no folder, not whole in the cache ")
    assert f"and the hub http://127.0.0.1:{hub.socket.getsockname()[1]}: " in said and "hf download NAME" in said
    assert said.count("\n") == 1


@pytest.mark.timeout(300)
def test_a_model_in_the_cache_asks_nobody(tiny, tmp_path):
    hub = Hub(tmp_path)
    hub.cache(tiny, *(path.name for path in tiny.iterdir()))
    shown, said, _ = hub.variety(NEUTRAL)
    assert "[classifier: pt-BR " in shown, said
    assert hub.asked() == 0
