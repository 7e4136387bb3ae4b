"""Small models of other architectures, with their image processors, as folders that `from_pretrained` reads."""

from pathlib import Path

import torch
import transformers

from support.tiny import TINY_FIELDS, TINY_RESNET, TINY_SWIN, tiny_model, tiny_semask
from transformers_massformer import MASS13K_LABELS, MaSSFormerImageProcessor, SeMaskImageProcessor
from transformers_massformer.inference.loading import auto_class
from transformers_massformer.training.classes import label_names


DECODER = {"num_attention_heads": 2, "num_queries": 8}
# Fields of configurations with which models are small, by model type.
FIELDS = {
    "mask2former": DECODER
    | {
        "backbone_config": TINY_RESNET,
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 16,
        "dim_feedforward": 16,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "train_num_points": 64,
    },
    "maskformer": {
        "backbone_config": TINY_SWIN,
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
        "decoder_config": {
            "model_type": "detr",
            "d_model": 16,
            "num_queries": 8,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
        },
    },
    "oneformer": DECODER
    | {
        "backbone_config": TINY_SWIN,
        "hidden_dim": 32,
        "conv_dim": 32,
        "mask_dim": 32,
        "encoder_feedforward_dim": 32,
        "dim_feedforward": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "query_dec_layers": 1,
        "is_training": False,
        "task_seq_len": 16,
        "text_encoder_width": 32,
        "text_encoder_num_layers": 1,
        "text_encoder_vocab_size": 99,
    },
    "per_pixel_baseline": TINY_FIELDS | {"num_queries": None},
    "segformer": {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 16, 16],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
    "upernet": {
        "backbone_config": TINY_RESNET,
        "hidden_size": 16,
        "pool_scales": [1, 2],
        "auxiliary_in_channels": 16,
        "auxiliary_channels": 8,
    },
    "eomt": DECODER
    | {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "image_size": 64,
        "patch_size": 8,
        "num_blocks": 1,
        "num_upscale_blocks": 1,
    },
}
SIZE = {"shortest_edge": 64, "longest_edge": 128}
SQUARE = {"height": 64, "width": 64}


def clip_tokenizer() -> transformers.CLIPTokenizer:
    """Return a tokenizer of single characters."""
    letters = "abcdefghijklmnopqrstuvwxyz ."
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={text: index for index, text in enumerate(vocabulary)}, merges=[])


def oneformer_processor() -> transformers.OneFormerProcessor:
    image_processor = transformers.OneFormerImageProcessor(size=SIZE)
    return transformers.OneFormerProcessor(image_processor, clip_tokenizer(), task_seq_length=16)


def peer(kind: str) -> transformers.PreTrainedModel:
    """Create a small model of the library."""
    names = label_names(MASS13K_LABELS)
    config = transformers.AutoConfig.for_model(kind, **FIELDS[kind], **names)
    return auto_class(config).from_config(config)


PEERS = {
    "massformer": (tiny_model, MaSSFormerImageProcessor),
    "semask": (tiny_semask, SeMaskImageProcessor),
    "baseline": (lambda: peer("per_pixel_baseline"), MaSSFormerImageProcessor),
    "mask2former": (lambda: peer("mask2former"), lambda: transformers.Mask2FormerImageProcessor(size=SIZE)),
    "maskformer": (lambda: peer("maskformer"), lambda: transformers.MaskFormerImageProcessor(size=SIZE)),
    "oneformer": (lambda: peer("oneformer"), oneformer_processor),
    "segformer": (lambda: peer("segformer"), lambda: transformers.SegformerImageProcessor(size=SQUARE)),
    "upernet": (lambda: peer("upernet"), lambda: transformers.SegformerImageProcessor(size=SQUARE)),
    "eomt": (
        lambda: peer("eomt"),
        lambda: transformers.EomtImageProcessor(
            size={"shortest_edge": 64, "longest_edge": None}, do_split_image=True, do_pad=False
        ),
    ),
}


def spread(model: torch.nn.Module):
    """Draw weights large enough for scores to differ by more than rounding."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)


def write_peer(name: str, folder: Path) -> Path:
    """Save a model with random weights and its image processor."""
    torch.manual_seed(0)
    build, processor = PEERS[name]
    model = build()
    if name != "massformer":
        spread(model)
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder
