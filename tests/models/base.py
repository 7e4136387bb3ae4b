"""Tests shared by all model classes."""

import copy

import accelerate
import pytest
import torch
from packaging.version import Version
from support.tiny import block_labels, enable_checkpointing
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


# Guards that older compilers create for the library's decorators fail.
needs_torch_2_8 = pytest.mark.skipif(Version(torch.__version__) < Version("2.8"), reason="needs PyTorch 2.8")


def tensors(value) -> list[torch.Tensor]:
    """List the tensors in nested outputs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [tensor for part in value for tensor in tensors(part)] if value is not None else []


def assert_close(actual: ModelOutput, expected: ModelOutput, tolerance: float = 1e-4):
    assert list(actual) == list(expected)
    for first, second in zip(tensors(actual), tensors(expected), strict=True):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


class ModelTests:
    """
    Tests of any model. Subclasses define `auto_class` and `build`, and override the other attributes if needed:

    * sizes: heights and widths of images,
    * num_hidden_states, num_attentions: numbers returned on request (0 if the model has none),
    * tolerance: accepted difference between attention implementations,
    * half_tolerance: accepted relative difference of half precision.
    """

    auto_class: type
    sizes = ((32, 32), (32, 160), (96, 64))
    has_loss = False
    num_hidden_states = 5
    num_attentions = 4
    tolerance, half_tolerance = 1e-4, 0.05

    def build(self) -> PreTrainedModel:
        """Return a tiny model in eval mode, whose weights all influence its outputs."""
        raise NotImplementedError

    def arguments(self, batch_size: int = 2, height: int = 64, width: int = 96) -> dict[str, torch.Tensor]:
        arguments = {"pixel_values": torch.randn(batch_size, 3, height, width)}
        return arguments | ({"labels": block_labels(batch_size, height, width)} if self.has_loss else {})

    def backward(self, model: PreTrainedModel, arguments: dict[str, torch.Tensor]):
        torch.manual_seed(3)
        outputs = model(**arguments)
        (outputs.loss if self.has_loss else sum(x.square().mean() for x in tensors(outputs))).backward()

    @torch.no_grad()
    def test_save_and_load_is_bit_equal(self, tmp_path):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 96)
        model.save_pretrained(tmp_path)
        for options in ({}, {"device_map": {"": "cpu"}}):
            loaded, info = self.auto_class.from_pretrained(str(tmp_path), output_loading_info=True, **options)
            assert type(loaded) is type(model)
            assert not any(info.values()), info
            for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
                expected, actual = dict(kind(model)), dict(kind(loaded))
                assert expected.keys() == actual.keys()
                assert all(torch.equal(value, actual[name]) for name, value in expected.items())
            # Kernels round by the alignment of the weights.
            assert_close(loaded(pixel_values), model(pixel_values), 1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("where", ["memory", "disk"])
    def test_offloaded_weights_give_the_same_outputs(self, where, tmp_path):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 96)
        expected, offloaded = model(pixel_values), copy.deepcopy(model)
        if where == "memory":
            accelerate.cpu_offload(offloaded, execution_device=torch.device("cpu"))
        else:
            accelerate.disk_offload(offloaded, str(tmp_path), execution_device=torch.device("cpu"))
        assert {parameter.device.type for parameter in offloaded.parameters()} == {"meta"}
        for _ in range(2):
            assert_close(offloaded(pixel_values), expected, 0)

    def test_arguments_that_nothing_reads_are_refused(self):
        model, arguments = self.build(), self.arguments()
        for name in ("label", "pixel_value", "pixel_mask", "output_hidden_state"):
            with pytest.raises(TypeError, match=rf"{type(model).__name__}.forward does not read {name}\."):
                model(**arguments, **{name: arguments["pixel_values"]})

    @torch.no_grad()
    def test_copies_give_the_same_outputs(self):
        # Pickles too, except of the library's backbones, whose hooks are local functions.
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 64)
        model.set_attn_implementation("eager")
        flags = {"output_hidden_states": True, "output_attentions": True}
        expected = model(pixel_values, **flags)
        assert_close(copy.deepcopy(model)(pixel_values, **flags), expected, 1e-6)

    def test_it_is_built_on_the_meta_device(self):
        with torch.device("meta"):
            model = self.build()
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}

    @torch.no_grad()
    def test_images_of_any_size_and_batch(self):
        model = self.build()
        for height, width in self.sizes:
            pixel_values = torch.randn(2, 3, height, width)
            together = model(pixel_values)
            for index in range(2):
                alone = model(pixel_values[index : index + 1])
                for first, second in zip(tensors(together), tensors(alone), strict=True):
                    torch.testing.assert_close(first[index], second[0], rtol=1e-4, atol=1e-4)

    def test_every_parameter_gets_a_gradient_with_and_without_checkpointing(self):
        arguments, runs = self.arguments(), []
        for checkpointing in (False, True):
            torch.manual_seed(1)
            model = self.build().train()
            if checkpointing:
                enable_checkpointing(model)
            self.backward(model, arguments)
            assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
            runs.append([*(parameter.grad for parameter in model.parameters()), *model.buffers()])
        for plain, checkpointed in zip(*runs, strict=True):
            torch.testing.assert_close(plain, checkpointed)

    @torch.no_grad()
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_follows_float32(self, dtype):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 64)
        expected = model(pixel_values)
        actual = model.to(dtype)(pixel_values.to(dtype))
        assert tensors(actual)[0].dtype == dtype
        # The last output does not depend on attention masks, which half precision may flip.
        first, second = tensors(actual)[-1].float(), tensors(expected)[-1]
        assert (first - second).abs().mean() < self.half_tolerance * second.abs().mean()

    @torch.no_grad()
    @pytest.mark.parametrize("by", ["argument", "configuration"])
    def test_hidden_states_and_attentions_on_request(self, by):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 64)
        model.set_attn_implementation("eager")
        plain = model(pixel_values)
        assert plain.get("hidden_states") is None
        assert plain.get("attentions") is None
        flags = {"output_hidden_states": True, "output_attentions": True}
        arguments = flags
        if by == "configuration":
            arguments = {}
            for name, value in flags.items():
                setattr(model.config, name, value)
        outputs = model(pixel_values, **arguments)
        assert len(outputs.get("hidden_states") or ()) == self.num_hidden_states
        assert len(outputs.get("attentions") or ()) == self.num_attentions
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        assert not parameters & {x.untyped_storage().data_ptr() for x in tensors(outputs)}
        for name in flags:
            setattr(model.config, name, False)
        assert_close(model(pixel_values), plain, 0)

    @torch.no_grad()
    def test_tuples_on_request(self):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 64)
        expected = model(pixel_values).to_tuple()
        by_argument = model(pixel_values, return_dict=False)
        model.config.return_dict = False
        for actual in (by_argument, model(pixel_values)):
            assert isinstance(actual, tuple)
            assert all(torch.equal(a, b) for a, b in zip(tensors(actual), tensors(expected), strict=True))

    @torch.no_grad()
    def test_attention_implementations_agree(self):
        model, pixel_values = self.build(), torch.randn(2, 3, 96, 160)
        model.set_attn_implementation("eager")
        expected = model(pixel_values)
        model.set_attn_implementation("sdpa")
        assert_close(model(pixel_values), expected, self.tolerance)


class SegmentationTests(ModelTests):
    """Tests of models that take labels, in addition to those of any model."""

    has_loss = True

    @pytest.mark.parametrize("by", ["num_labels", "id2label"])
    def test_the_number_of_labels_changes_at_loading(self, by, tmp_path):
        self.build().save_pretrained(tmp_path)
        for num_labels in (3, 9):
            labels = {"id2label": {i: f"c{i}" for i in range(num_labels)}} if by == "id2label" else {by: num_labels}
            model = self.auto_class.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **labels).train()
            assert model.config.num_labels == num_labels
            outputs = model(torch.randn(2, 3, 64, 64), labels=block_labels(2, 64, 64, num_labels))
            assert outputs.loss.isfinite()
            assert outputs.logits.shape[1] == num_labels

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    def test_an_adapter_gives_the_same_outputs_when_reloaded(self, tmp_path):
        peft = pytest.importorskip("peft")
        base = self.build()
        model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules=["q_proj", "v_proj"])).train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            self.backward(model, self.arguments())
            optimizer.step()
        model.save_pretrained(tmp_path)
        reloaded = peft.PeftModel.from_pretrained(base, tmp_path).eval()
        pixel_values = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            assert_close(reloaded(pixel_values), model.eval()(pixel_values), 1e-5)


class ExportTests:
    """Tests of `torch.export`, which takes seconds per model."""

    @needs_torch_2_8
    @torch.no_grad()
    def test_export(self):
        model, pixel_values = self.build(), torch.randn(1, 3, 64, 96)
        expected = model(pixel_values)
        actual = torch.export.export(model, (pixel_values,)).module()(pixel_values)
        for first, second in zip(tensors(actual), tensors(expected), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
