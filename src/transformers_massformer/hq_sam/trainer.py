"""Train HQ-SAM: SAM stays frozen, only the layers added to it learn (sections 3.3 and 7)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments

from ..training.epochs import EpochTrainer
from .data import ObjectSet, collate_objects


# Parameters that HQ-SAM adds to SAM's mask decoder: the token, its three-layer perceptron, and the convolutions that
# fuse the features of the first global attention block, of the last block, and of the mask decoder itself.
LEARNED = (
    "mask_decoder.hq_token.",
    "mask_decoder.hq_mask_mlp.",
    "mask_decoder.compress_vit_",
    "mask_decoder.encoder_conv",
    "mask_decoder.encoder_norm",
    "mask_decoder.mask_conv",
    "mask_decoder.mask_norm",
)


@dataclass
class HQSamTrainingArguments(TrainingArguments):
    """
    `transformers.TrainingArguments` with the paper's recipe as defaults: 12 epochs, 32 objects per step in total (4 on
    each of 8 GPUs), learning rate 1e-3, reduced to a tenth after 10 epochs.

    Args:
        drop_after (`float`, *optional*, defaults to 10/12): Fraction of training after which the learning rate drops.
        drop_factor (`float`, *optional*, defaults to 0.1): Factor by which the learning rate drops.
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate before the drop."})
    num_train_epochs: float = field(default=12.0, metadata={"help": "Passes over the images."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Objects per step and process."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Leave false: the data set reads its own columns."}
    )
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Number of checkpoints to keep."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between log entries."})
    drop_after: float = field(default=10 / 12, metadata={"help": "Fraction of training before the rate drops."})
    drop_factor: float = field(default=0.1, metadata={"help": "Factor by which the learning rate drops."})


def freeze_sam(model: torch.nn.Module) -> list[str]:
    """
    Freeze all parameters but those that HQ-SAM adds to SAM.

    Args:
        model (`SamHQModel`): The model.

    Returns:
        `list[str]`: Names of the trainable parameters.

    Raises:
        ValueError: If the model has no such parameters.
    """
    learned = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(LEARNED))
        if parameter.requires_grad:
            learned.append(name)
    if not learned:
        raise ValueError(f"{type(model).__name__} has no HQ-SAM parameters; use a model of type sam_hq.")
    return learned


def batched_prompt(prompt: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add the batch and object dimensions that SAM expects to the prompt of one object."""
    shaped = dict(prompt)
    if "input_points" in prompt:
        shaped["input_points"] = prompt["input_points"][None, None]
    if "input_boxes" in prompt:
        shaped["input_boxes"] = prompt["input_boxes"][None, None]
    if "input_masks" in prompt:
        shaped["input_masks"] = prompt["input_masks"][None]
    return shaped


def predict_masks(
    model: Any,
    encoder: Any,
    pixel_values: torch.Tensor,
    prompts: Sequence[dict[str, torch.Tensor]],
    hq_token_only: bool,
) -> torch.Tensor:
    """
    Predict one mask per image, each with its own kind of prompt. The images are encoded together, without gradients.

    Args:
        model (`SamHQModel`): The model, or its wrapper for distributed training.
        encoder (`SamHQModel`): The unwrapped model.
        pixel_values (`torch.Tensor` of shape `(batch_size, 3, input_size, input_size)`): The images.
        prompts (`Sequence[dict]`): Prompts from [`ObjectTransform`].
        hq_token_only (`bool`): Whether to return HQ-SAM's own masks, which are trained, or their sum with SAM's.

    Returns:
        `torch.Tensor` of shape `(batch_size, mask_size, mask_size)`: Mask logits.
    """
    embeddings, intermediate = encoder.get_image_embeddings(pixel_values)
    masks = []
    for index, prompt in enumerate(prompts):
        one = slice(index, index + 1)
        outputs = model(
            image_embeddings=embeddings[one],
            intermediate_embeddings=[each[one] for each in intermediate],
            multimask_output=False,
            hq_token_only=hq_token_only,
            **{name: value.to(embeddings.device) for name, value in batched_prompt(prompt).items()},
        )
        masks.append(outputs.pred_masks[0, 0, 0])
    return torch.stack(masks)


def mask_losses(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Compute cross-entropy and Dice loss of complete masks at the labels' size (section 4.2: "full GT mask loss";
    section 7).

    Args:
        logits (`torch.Tensor` of shape `(batch_size, mask_size, mask_size)`): Predicted mask logits.
        labels (`torch.Tensor` of shape `(batch_size, input_size, input_size)`): True masks, 0 and 1.

    Returns:
        `dict[str, torch.Tensor]`: `loss_mask` and `loss_dice`, means over the objects.
    """
    logits = F.interpolate(logits[:, None].float(), labels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    probabilities, labels = logits.sigmoid().flatten(1), labels.float()
    overlap = (probabilities * labels.flatten(1)).sum(dim=1)
    areas = probabilities.sum(dim=1) + labels.flatten(1).sum(dim=1)
    return {
        "loss_mask": F.binary_cross_entropy_with_logits(logits, labels),
        "loss_dice": (1 - (2 * overlap + 1) / (areas + 1)).mean(),
    }


class HQSamTrainer(EpochTrainer):
    """
    `transformers.Trainer` for HQ-SAM. SAM's own parameters stay bit-identical.

    Args:
        model (`SamHQModel`): The model, such as a SAM whose weights were loaded into a `SamHQModel`.
        args ([`HQSamTrainingArguments`]): The training arguments.
        train_dataset ([`ObjectSet`]): The objects.
        processor (`SamHQProcessor`): The model's processor, which is saved with it.
        kwargs: Further arguments of `transformers.Trainer`.
    """

    args: HQSamTrainingArguments

    def __init__(
        self, model: Any, args: HQSamTrainingArguments, train_dataset: ObjectSet, processor: Any, **kwargs: Any
    ):
        freeze_sam(model)
        # Not passed to `Trainer`, which expects every processor to have a tokenizer.
        self.processor = processor
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False
        super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=collate_objects, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its processor."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.processor.save_pretrained(output_dir or str(self.args.output_dir))

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Create a schedule with a constant learning rate that drops once."""
        if self.lr_scheduler is None:
            drop = self.args.drop_after * num_training_steps
            chosen: Any = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = LambdaLR(chosen, lambda step: 1.0 if step < drop else self.args.drop_factor)
        return self.lr_scheduler

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute cross-entropy plus Dice loss of HQ-SAM's own masks."""
        encoder = self.accelerator.unwrap_model(model)
        logits = predict_masks(model, encoder, inputs["pixel_values"], inputs["prompts"], hq_token_only=True)
        losses = mask_losses(logits, inputs["labels"])
        loss = losses["loss_mask"] + losses["loss_dice"]
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss
