"""Train and fine-tune models with `transformers.Trainer`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.trainer_utils import EvalPrediction

from ..data.samples import EvaluationSet, Samples
from ..inference.loading import class_names, inference_copy
from ..inference.predictor import ModelPredictor, PredictionOptions
from ..metrics import Counts, CountSettings, count_image, score
from ..models.configuration_massformer import MaSSFormerConfig
from ..models.modeling_semask_swin import SeMaskSwinBackbone
from ..models.semantic_prior import semantic_prior_loss
from .arguments import SEMANTIC_LOSS_WEIGHT, MaSSFormerTrainingArguments
from .checkpoints import whole_or_not_at_all
from .collation import collate_for, label_maps
from .epochs import EpochTrainer
from .parameters import fix_statistics, freeze, parameter_groups, synchronize_statistics


# Feature maps that the decoder layers attend to in turn.
NUM_MEMORIES = 3


def evaluation_set(dataset: Any) -> Any:
    """Wrap data sets of images and label maps for evaluation."""
    if dataset is None or isinstance(dataset, EvaluationSet | str):
        return dataset
    if isinstance(dataset, dict):
        return {name: evaluation_set(each) for name, each in dataset.items()}
    return EvaluationSet(dataset)


def has_unused_parameters(model: Any) -> bool:
    """Return whether some parameters never get a gradient, which data-parallel training must be told."""
    # Each decoder layer attends to one of the maps.
    return not isinstance(model.config, MaSSFormerConfig) or model.config.num_hidden_layers < NUM_MEMORIES


def check_semantic_loss_weight(model: Any, args: MaSSFormerTrainingArguments):
    """Refuse a weight of semantic maps that nothing would read."""
    if args.semantic_loss_weight is None:
        return
    if hasattr(model.config, "semantic_loss_weight"):
        raise ValueError(
            f"semantic_loss_weight {args.semantic_loss_weight} is not read: a {type(model).__name__} has this weight "
            "in its configuration. Set it in model_config."
        )
    if not any(isinstance(module, SeMaskSwinBackbone) for module in model.modules()):
        raise ValueError(
            f"semantic_loss_weight {args.semantic_loss_weight} is not read: the {type(model).__name__} has no "
            "backbone with semantic layers. Leave it out."
        )


class MaSSFormerTrainer(EpochTrainer):
    """
    `transformers.Trainer` for MaSSFormer, with the release's parameter groups and frozen layers, all loss terms in the
    log, evaluation on whole photos, and a data order that does not depend on the number of processes.

    Evaluation segments photos at their own size and gathers counts, never logits. `eval_mean_iou`,
    `eval_mean_boundary_iou`, `eval_mean_bf1` and the scores per class (such as `eval_iou_sky`) equal those of
    `massformer evaluate`: a copy of the model is evaluated, in the type of its weights, also with `bf16` or
    `fp16`. Every model supported by [`ModelPredictor`] can be trained; all of them receive photos at their own size.

    Args:
        model (`PreTrainedModel`): The model; its backbone is frozen as set in the arguments.
        args ([`MaSSFormerTrainingArguments`]): The training arguments.
        train_dataset (`Dataset`, *optional*):
            Data set of `pixel_values` and `labels`. For a [`TrainingSet`], its epochs and order are followed, and an
            incomplete step at the end of an epoch is dropped, because a single image cannot be normalised.
        eval_dataset (`Samples`, *optional*):
            Data set whose items have an `"image"` and a `"label"`, each a PIL image or a file path; or a dict of them.
        processing_class (`BaseImageProcessor`, *optional*): Image processor of the model, required for evaluation.
        count_settings ([`CountSettings`], *optional*): Settings of the scores; by default those of the paper.
        constant_inputs (`dict[str, torch.Tensor]`, *optional*):
            Inputs with batch size 1 that are passed to the model with every image, such as OneFormer's task.
        kwargs: Further arguments of `transformers.Trainer`.

    Raises:
        ValueError: If there are fewer training images than a step needs.
    """

    args: MaSSFormerTrainingArguments
    model: Any

    def __init__(
        self,
        model: Any,
        args: MaSSFormerTrainingArguments | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Samples | Mapping[str, Samples] | None = None,
        processing_class: Any = None,
        count_settings: CountSettings | None = None,
        constant_inputs: Mapping[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ):
        args = args or MaSSFormerTrainingArguments(output_dir="trainer_output")
        check_semantic_loss_weight(model, args)
        freeze(model, args)
        synchronize_statistics(model, args)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = has_unused_parameters(model)
        super().__init__(
            model=model,
            args=args,
            data_collator=kwargs.pop("data_collator", None) or collate_for(model),
            train_dataset=train_dataset,
            eval_dataset=evaluation_set(eval_dataset),
            processing_class=processing_class,
            compute_metrics=self.scores,
            **kwargs,
        )
        ignore_index = getattr(model.config, "ignore_index", 255)
        self.count_settings = count_settings or CountSettings(ignore_index=ignore_index)
        self.labels = class_names(model.config)
        self.constant_inputs = dict(constant_inputs or {})
        self.evaluating_predictor: ModelPredictor | None = None
        self.semantic_maps: tuple[torch.Tensor, ...] | None = None
        if not hasattr(model.config, "semantic_loss_weight"):
            self.watch_semantic_maps()
        self.loss_terms: dict[str, torch.Tensor] = {}
        self.num_loss_terms = 0

    def watch_semantic_maps(self):
        """Keep the semantic maps of a SeMask backbone for the loss, in models that do not use them."""

        def keep(module: torch.nn.Module, arguments: tuple, outputs: Any):
            # Evaluation computes no loss, which would release them.
            self.semantic_maps = outputs.semantic_maps if module.training else None

        for module in self.model.modules():
            if isinstance(module, SeMaskSwinBackbone):
                module.register_forward_hook(keep)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimiser set in the arguments over [`parameter_groups`]."""
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            chosen: Any = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, trained)
            optimizer_class, options = chosen
            options = {name: value for name, value in options.items() if name != "lr"}
            groups = parameter_groups(
                trained,
                self.args.learning_rate,
                self.args.weight_decay,
                self.args.backbone_learning_rate_factor,
                self.args.offset_learning_rate_factor,
            )
            self.optimizer = optimizer_class(groups, lr=self.args.learning_rate, **options)
        return self.optimizer

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """Compute the base class's values, the last of which is the number of steps, and fit the arguments to it."""
        values = super().set_initial_training_values(args, dataloader)
        self.args.fit_to_length(values[-1])
        return values

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss, add that of semantic maps if the model ignores them, and keep all terms for the log."""
        if model.training:
            fix_statistics(model, self.args)
        batch_size = len(inputs["pixel_values"])
        constant = {
            name: value.to(self.args.device).expand(batch_size, *value.shape[1:])
            for name, value in self.constant_inputs.items()
        }
        loss, outputs = super().compute_loss(model, {**inputs, **constant}, True, num_items_in_batch)
        # Some models return a loss with one dimension, as does `nn.DataParallel`.
        loss, terms = loss.mean(), dict(outputs.get("loss_dict") or {})
        if self.semantic_maps is not None:
            ignore_index = self.count_settings.ignore_index
            semantic_loss = semantic_prior_loss(
                self.semantic_maps, label_maps(inputs), 255 if ignore_index is None else ignore_index
            )
            weight = self.args.semantic_loss_weight
            terms["loss_semantic"] = (SEMANTIC_LOSS_WEIGHT if weight is None else weight) * semantic_loss
            loss, self.semantic_maps = loss + terms["loss_semantic"], None
        if model.training:
            self.num_loss_terms += 1
            for name, value in terms.items():
                self.loss_terms[name] = self.loss_terms.get(name, 0) + value.detach().mean()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log all loss terms too, averaged over steps and processes."""
        if "loss" in logs and self.loss_terms:
            means = torch.stack(list(self.loss_terms.values())) / self.num_loss_terms
            means = self.accelerator.reduce(means, "mean")
            logs |= dict(zip(self.loss_terms, means.tolist(), strict=True))
            self.loss_terms, self.num_loss_terms = {}, 0
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate on data sets of images and label maps; see the base class."""
        return super().evaluate(evaluation_set(eval_dataset), ignore_keys, metric_key_prefix)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return the base class's estimate, or 0 for models with several main inputs, which it does not support."""
        return super().floating_point_ops(inputs) if isinstance(self.model.main_input_name, str) else 0

    def predictor(self) -> ModelPredictor:
        """Return a predictor with the current weights."""
        if self.processing_class is None:
            raise ValueError("Evaluation needs the model's image processor; pass it as `processing_class`.")
        constant_inputs = {name: value.to(self.args.device) for name, value in self.constant_inputs.items()}
        options = PredictionOptions(native_input=True, tile=self.args.eval_tile)
        # As `massformer segment` loads it; the parts of a sharded model cannot be copied.
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        model = self.model if is_sharded else inference_copy(self.model)
        return ModelPredictor(model, self.processing_class, options, constant_inputs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base class's loop with one predictor, made when the model is ready for evaluation."""
        self.evaluating_predictor = None
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.evaluating_predictor = None

    @torch.no_grad()
    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """
        Segment photos and count agreements with their label maps.

        Returns:
            `tuple`: `None` for the loss; the counts, an int64 `torch.Tensor` of shape `(batch_size, 10, num_labels)`;
            and the labelled pixels per class, because the loop computes no metrics without labels.
        """
        if self.evaluating_predictor is None:
            self.evaluating_predictor = self.predictor()
        predictor, counts = self.evaluating_predictor, []
        for image, label, name in zip(inputs["image"], inputs["label"], inputs["name"], strict=True):
            prediction = predictor(image)
            try:
                counts.append(count_image(prediction.long(), label.cpu(), len(self.labels), self.count_settings))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        stacked = Counts.stack(counts)
        return None, stacked.to_tensor().to(self.args.device), stacked.label_area.to(self.args.device)

    def scores(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the scores of all photos from their counts."""
        scores = score(Counts.from_tensor(torch.as_tensor(prediction.predictions)))
        metrics = {name: value for name, value in scores.items() if isinstance(value, float)}
        for name in ("iou", "boundary_iou", "bf1"):
            for label, value in zip(self.labels, scores[f"per_category_{name}"], strict=True):
                metrics[f"{name}_{label}"] = value
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint; on a failure, remove it and keep the earlier ones."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        with whole_or_not_at_all(folder, f"The checkpoint of step {self.state.global_step}"):
            super()._save_checkpoint(model, trial)
