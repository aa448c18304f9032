"""The tiny model of the demo: its numbers, its tokenizer and processor, and how the pair is put together."""

import json
from pathlib import Path

from demo.errors import DemoError
from nemo_amalia.utils.files import read_json

BASE = Path(__file__).resolve().parents[1] / "base"

IMAGE_TOKEN, START, END, PAD = "<image>", "<|im_start|>", "<|im_end|>", "<pad>"
SPECIAL_TOKENS = (PAD, START, END, IMAGE_TOKEN)
VOCABULARY = 1024  # divisible by 16, so that any tensor parallelism up to 16 splits it evenly

TILE, PATCH = 48, 12
#: (height, width) of the grids an image may take: 4 tokens a tile side.
PINPOINTS = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]

VISION = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": TILE,
    "patch_size": PATCH,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": False,
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}

#: ChatML. Takes plain strings and lists of parts; an image part is one `<image>` and a line break.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


TOKENIZER_SEED = 1  # of the corpus that the shipped tokenizer was trained on


def build_tokenizer(seed: int = TOKENIZER_SEED):
    """Train the byte-level BPE tokenizer on demo/scenes/prose.py's text; returns a PreTrainedTokenizerFast.

    Runs of capitals are split into letters: a word drawn in capitals is spelt out letter by letter, and so
    words never seen can be read.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from demo.scenes.prose import tokenizer_corpus

    tokenizer = Tokenizer(models.BPE())
    capitals = Regex("(?<=[A-Z])[A-Z]|[A-Z](?=[A-Z])")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(capitals, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    roles = ["user\n", "assistant\n", "system\n"] * 400  # the template's own words
    tokenizer.train_from_iterator([*tokenizer_corpus(seed), *roles], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise DemoError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, expected {VOCABULARY}: more text")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=TEXT["max_position_embeddings"],
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def vision_config():
    """The tower's configuration (transformers' SiglipVisionConfig)."""
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(**VISION)


def text_config(tokenizer):
    """The decoder's configuration (transformers' LlamaConfig), with the tokenizer's special ids."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **TEXT,
        rope_theta=10000.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def image_processor(pinpoints=None):
    """LLaVA-NeXT's image processor at the tiny tile size, with SigLIP's normalisation."""
    from transformers import LlavaNextImageProcessor

    return LlavaNextImageProcessor(
        size={"height": TILE, "width": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=pinpoints or PINPOINTS,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_resize=True,
        do_center_crop=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        do_pad=True,
        resample=3,
    )


def processor(tokenizer):
    """The LlavaNextProcessor that an exported demo model carries."""
    from transformers import LlavaNextProcessor

    return LlavaNextProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=tokenizer.chat_template,
        image_token=IMAGE_TOKEN,
    )


def save_vision(tower, folder: Path) -> None:
    """Write the tower as a plain HF folder in bfloat16, with the preprocessor it was trained for."""
    import torch
    from transformers import SiglipImageProcessor

    tower.to(torch.bfloat16).save_pretrained(folder)
    SiglipImageProcessor(
        size={"height": TILE, "width": TILE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    ).save_pretrained(folder)


def save_decoder(decoder, tokenizer, folder: Path) -> None:
    """Write the decoder as a plain HF folder in bfloat16, with tokenizer, template and generation config."""
    import torch
    from transformers import GenerationConfig

    decoder.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    decoder.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    written = read_json(path)
    written["tokenizer_class"] = "PreTrainedTokenizerFast"  # the 5.x name is unknown to transformers 4.57
    written["extra_special_tokens"] = {"image_token": IMAGE_TOKEN}
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")


def make_initial_hf(out_dir: Path, seed: int = 0, base: Path = BASE):
    """The shipped tower and decoder with a fresh connector, saved; returns (model, processor), in fp32.

    A stand-in for `amalia import --vision ... --llm ...`, for experiments and tests.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        LlamaForCausalLM,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        SiglipVisionModel,
    )

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base / "decoder")
    tower = SiglipVisionModel.from_pretrained(base / "vision", dtype=torch.float32)
    decoder = LlamaForCausalLM.from_pretrained(base / "decoder", dtype=torch.float32)
    config = LlavaNextConfig(
        vision_config=tower.config,
        text_config=decoder.config,
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
        image_seq_length=(TILE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    model = LlavaNextForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.lm_head.load_state_dict(decoder.lm_head.state_dict())
    model.generation_config = decoder.generation_config
    made = processor(tokenizer)
    if out_dir is not None:
        model.save_pretrained(out_dir)
        made.save_pretrained(out_dir)
    return model, made
