import torch

from transformers_massformer.evaluation.profiling import count_operations, profile
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions


def test_operations_are_those_of_the_layers(peers):
    predictor = ModelPredictor.load(peers("upernet"), "cpu")
    small, large = (
        count_operations(predictor.model, {"pixel_values": torch.Size([1, 3, side, side])}) for side in (128, 256)
    )
    assert 3.9 < large / small < 4.01


def test_the_input_size_is_that_of_a_tile(peers):
    predictor = ModelPredictor.load(peers("segformer"), "cpu", options=PredictionOptions(tile=64))
    assert profile(predictor, 200, 100)["input_size"] == [64, 64]
