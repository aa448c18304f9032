"""Tiny Hugging Face folders with random weights and a real tokenizer: what the bridge's tests import and export.

The tile is 32 pixels of 8x8 patches, so a tile costs 16 tokens and all 35 grids of up to 12 tiles run in seconds.
Weights are drawn ten times wider than transformers' default: with its 0.02 every logit of a model this small is
near zero, and a wrong weight would pass a tolerance of 1e-4.
"""

import json
from pathlib import Path

IMAGE, START, END, PAD = "<image>", "<|im_start|>", "<|im_end|>", "<pad>"
TILE, PATCH = 32, 8
VOCABULARY = 320
INITIALIZER_RANGE = 0.2
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def grids(max_tiles: int = 12, tile: int = TILE) -> list[list[int]]:
    """Every canvas of at most ``max_tiles`` tiles as [height, width] in pixels."""
    return [
        [rows * tile, columns * tile] for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)
    ]


def tokenizer(image_token: bool = True):
    """A byte-level BPE tokenizer with ChatML's tokens; ids 0 to 3 are special, 4 to 259 the bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [PAD, START, END] + ([IMAGE] if image_token else [])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(specials + alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    extra = {"extra_special_tokens": {"image_token": IMAGE}} if image_token else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False, **extra
    )
    fast.chat_template = TEMPLATE
    return fast


def vision_config(**changes):
    from transformers import SiglipVisionConfig

    values = dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=TILE,
        patch_size=PATCH,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        vision_use_head=False,
    )
    return SiglipVisionConfig(**{**values, **changes})


def text_config(**changes):
    from transformers import LlamaConfig

    values = dict(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        initializer_range=INITIALIZER_RANGE,
        rope_parameters={"rope_type": "default", "rope_theta": 20000.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return LlamaConfig(**{**values, **changes})


def _randomise(model, seed: int, spread: float = INITIALIZER_RANGE) -> None:
    """Random values everywhere, norms and biases too: ones and zeros would hide a swapped or forgotten tensor."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * spread
            is_norm = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + noise if is_norm else noise)


def llama(folder: Path, *, seed: int = 0, dtype=None, image_token: bool = False, **changes) -> Path:
    """A LlamaForCausalLM folder with tokenizer (by default without ``<image>``) and generation config."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(text_config(**changes))
    _randomise(model, seed)
    model.to(dtype).save_pretrained(folder) if dtype else model.save_pretrained(folder)
    tokenizer(image_token).save_pretrained(folder)
    return Path(folder)


def siglip_vision(folder: Path, *, seed: int = 1, dtype=None, **changes) -> Path:
    """A SiglipVisionModel folder."""
    from transformers import SiglipVisionModel

    model = SiglipVisionModel(vision_config(**changes))
    _randomise(model, seed)
    (model.to(dtype) if dtype else model).save_pretrained(folder)
    return Path(folder)


def siglip_both(folder: Path, *, seed: int = 1) -> Path:
    """A SiglipModel folder: text tower, vision tower with its pooling head, as the published checkpoints are."""
    from transformers import SiglipConfig, SiglipModel

    text = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    vision = {**vision_config().to_dict(), "vision_use_head": True}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    _randomise(model, seed)
    model.save_pretrained(folder)
    return Path(folder)


def processor(tok, pinpoints=None):
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=pinpoints or grids(),
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=3,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tok,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=tok.chat_template,
        image_token=IMAGE,
    )


def llava_config(text=None, vision=None, **changes):
    from transformers import LlavaNextConfig

    values = dict(
        vision_config=vision or vision_config(),
        text_config=text or text_config(),
        image_token_index=3,
        image_grid_pinpoints=grids(),
        image_seq_length=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    return LlavaNextConfig(**{**values, **changes})


def llava_next(folder: Path, *, seed: int = 2, dtype=None, config=None, spread: float = INITIALIZER_RANGE) -> Path:
    """A LlavaNextForConditionalGeneration folder with processor and tokenizer, as transformers 5 writes it."""
    from transformers import GenerationConfig, LlavaNextForConditionalGeneration

    config = config or llava_config()
    model = LlavaNextForConditionalGeneration(config)
    _randomise(model, seed, spread)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, do_sample=False)
    (model.to(dtype) if dtype else model).save_pretrained(folder)
    processor(tokenizer(), config.image_grid_pinpoints).save_pretrained(folder)
    return Path(folder)


def edit_json(path: Path, **changes) -> None:
    """Change top-level keys of a JSON file; None removes a key."""
    content = json.loads(Path(path).read_text())
    content.update(changes)
    Path(path).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def tensors(folder: Path) -> dict:
    """Every tensor of a folder's safetensors files by its name on disk."""
    from safetensors.torch import load_file

    return {k: v for path in sorted(Path(folder).glob("*.safetensors")) for k, v in load_file(path).items()}
