"""Save tiny detectors and segmenters with random weights, and define stand-ins that know the answer."""

from pathlib import Path

import numpy as np
import torch
import transformers
from scipy import ndimage

from support.tiny_peers import SQUARE, clip_tokenizer
from transformers_massformer.labeling import Detections


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "car", "bicycle", "a"]


def save_grounding_dino(folder: Path) -> Path:
    """Save a Grounding DINO with twelve queries for images of at most 192 pixels."""
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 2],
            window_size=4,
            image_size=64,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config={
            "model_type": "bert",
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        fusion_droppath=0.0,
        fusion_dropout=0.0,
    )
    model = transformers.GroundingDinoForObjectDetection(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    image_processor = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    transformers.GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


MASK_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def sam_hq_config() -> transformers.SamHQConfig:
    return transformers.SamHQConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 4,
            "mlp_dim": 32,
            "window_size": 4,
            "global_attn_indexes": [0, 1],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 4,
            "mask_input_channels": 8,
            "input_image_size": 64,
        },
        mask_decoder_config=MASK_DECODER | {"iou_head_depth": 2, "vit_dim": 16},
    )


def sam_image_processor() -> transformers.SamImageProcessor:
    sizes = {"pad_size": SQUARE, "mask_size": {"longest_edge": 64}, "mask_pad_size": SQUARE}
    return transformers.SamImageProcessor(size={"longest_edge": 64}, **sizes)


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Draw larger weights, so that outputs depend on the image; SAM's initial weights are too small for that."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.xavier_normal_(parameter)
    return model


def save_sam_hq(folder: Path) -> Path:
    """Save an HQ-SAM for images of 64 pixels."""
    torch.manual_seed(0)
    lively(transformers.SamHQModel(sam_hq_config())).save_pretrained(folder)
    transformers.SamHQProcessor(sam_image_processor()).save_pretrained(folder)
    return folder


def save_sam(folder: Path) -> Path:
    """Save a SAM for images of 64 pixels."""
    torch.manual_seed(0)
    parts = sam_hq_config().to_dict()
    config = transformers.SamConfig(**{name: parts[name] for name in parts if name.endswith("_config")})
    lively(transformers.SamModel(config)).save_pretrained(folder)
    transformers.SamProcessor(sam_image_processor()).save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    """Save a SAM 2 for images of 128 pixels."""
    torch.manual_seed(0)
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "blocks_per_stage": [1, 1, 1, 1],
                "embed_dim_per_stage": [8, 16, 24, 32],
                "num_attention_heads_per_stage": [1, 1, 1, 1],
                "global_attention_blocks": [],
                "image_size": [128, 128],
                "window_size_per_stage": [4, 4, 4, 4],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [32, 24, 16, 8],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 128, "mask_input_channels": 8},
        mask_decoder_config=MASK_DECODER,
    )
    lively(transformers.Sam2Model(config)).save_pretrained(folder)
    size = {"height": 128, "width": 128}
    image_processor = transformers.Sam2ImageProcessor(size=size, mask_size={"height": 32, "width": 32})
    transformers.Sam2Processor(image_processor).save_pretrained(folder)
    return folder


def save_owlv2(folder: Path) -> Path:
    """Save an OWLv2 for images of 64 pixels."""
    torch.manual_seed(0)
    text = {"vocab_size": 600, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 64, "patch_size": 16}
    heads = {"num_attention_heads": 2}
    config = transformers.Owlv2Config(text_config=text | heads, vision_config=vision | heads, projection_dim=16)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    image_processor = transformers.Owlv2ImageProcessor(size=SQUARE)
    transformers.Owlv2Processor(image_processor, clip_tokenizer()).save_pretrained(folder)
    return folder


class DarkThings:
    """Detector of dark spots, whatever the prompt; the score is the fraction of the box that a spot fills."""

    def __call__(self, images, prompt):
        return [self.detections(np.asarray(image).mean(axis=2) < 60) for image in images]

    def detections(self, dark):
        parts, _ = ndimage.label(dark)
        boxes, scores = [], []
        for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            boxes.append([columns.start, rows.start, columns.stop, rows.stop])
            scores.append((parts[rows, columns] == number).mean())
        return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores).float())


class DarkMasks:
    """Segmenter of the dark pixels in boxes."""

    def __call__(self, photo, boxes):
        dark = np.asarray(photo).mean(axis=2) < 60
        for left, top, right, bottom in boxes.round().int().tolist():
            mask = np.zeros_like(dark)
            mask[top:bottom, left:right] = dark[top:bottom, left:right]
            yield mask, 0.9
