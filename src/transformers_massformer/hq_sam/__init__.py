"""Train and evaluate HQ-SAM, and refine label maps with it (arXiv:2306.01567)."""

from .data import ObjectSet, find_objects
from .evaluation import PROMPTS, evaluate_prompts
from .refinement import Refiner
from .trainer import HQSamTrainer, HQSamTrainingArguments, freeze_sam


__all__ = [
    "PROMPTS",
    "HQSamTrainer",
    "HQSamTrainingArguments",
    "ObjectSet",
    "Refiner",
    "evaluate_prompts",
    "find_objects",
    "freeze_sam",
]
