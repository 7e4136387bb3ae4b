"""Small models of other architectures, with their image processors, as folders that `from_pretrained` reads."""

from pathlib import Path

import torch
import transformers

from support.tiny import TINY_RESNET, TINY_SWIN, tiny_config, tiny_model, tiny_semask
from transformers_massformer import (
    MASS13K_LABELS,
    MaSSFormerImageProcessor,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
    SeMaskImageProcessor,
)
from transformers_massformer.training.classes import label_names


NAMES = label_names(MASS13K_LABELS)


def massformer():
    return tiny_model(), MaSSFormerImageProcessor()


def semask():
    return tiny_semask(), SeMaskImageProcessor()


def baseline():
    fields = tiny_config().to_dict() | {"num_queries": None, "model_type": "per_pixel_baseline"}
    return PerPixelBaselineForSemanticSegmentation(PerPixelBaselineConfig(**fields)), MaSSFormerImageProcessor()


def mask2former():
    config = transformers.Mask2FormerConfig(
        backbone_config={**TINY_RESNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=6,
        **NAMES,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    return model, transformers.Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})


def maskformer():
    decoder = {
        "model_type": "detr",
        "d_model": 16,
        "num_queries": 6,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    config = transformers.MaskFormerConfig(
        backbone_config=TINY_SWIN, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, **NAMES
    )
    model = transformers.MaskFormerForInstanceSegmentation(config)
    return model, transformers.MaskFormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})


def oneformer():
    config = transformers.OneFormerConfig(
        backbone_config=TINY_SWIN,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        num_queries=6,
        is_training=False,
        task_seq_len=16,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=99,
        **NAMES,
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={text: index for index, text in enumerate(vocabulary)}, merges=[])
    image_processor = transformers.OneFormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    processor = transformers.OneFormerProcessor(image_processor, tokenizer, task_seq_length=16)
    return transformers.OneFormerForUniversalSegmentation(config), processor


def segformer():
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **NAMES,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    return model, transformers.SegformerImageProcessor(size={"height": 64, "width": 64})


def upernet():
    config = transformers.UperNetConfig(
        backbone_config=TINY_RESNET, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False, **NAMES
    )
    model = transformers.UperNetForSemanticSegmentation(config)
    return model, transformers.SegformerImageProcessor(size={"height": 64, "width": 64})


def eomt():
    config = transformers.EomtConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_blocks=1,
        num_queries=6,
        num_upscale_blocks=1,
        **NAMES,
    )
    model = transformers.EomtForUniversalSegmentation(config)
    return model, transformers.EomtImageProcessor(
        size={"shortest_edge": 64, "longest_edge": None}, do_split_image=True, do_pad=False
    )


PEERS = {
    "massformer": massformer,
    "semask": semask,
    "baseline": baseline,
    "mask2former": mask2former,
    "maskformer": maskformer,
    "oneformer": oneformer,
    "segformer": segformer,
    "upernet": upernet,
    "eomt": eomt,
}


def spread(model: torch.nn.Module):
    """Draw weights large enough for scores to differ by more than rounding."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)


def write_peer(name: str, folder: Path) -> Path:
    """Save a model with random weights and its image processor."""
    torch.manual_seed(0)
    model, processor = PEERS[name]()
    if name != "massformer":
        spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
