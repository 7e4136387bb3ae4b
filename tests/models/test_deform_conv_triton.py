import importlib.util
import os
import sys

import numpy as np
import pytest
import torch
from support.deformable import random_inputs, reference
from support.golden import DATA, golden_pixel_values, golden_state_dict
from support.tiny import tiny_model

from transformers_massformer import MaSSFormerForSemanticSegmentation
from transformers_massformer.conversion import convert_massformer_checkpoint
from transformers_massformer.models import deform_conv, deform_conv_triton, modeling_massformer


triton = pytest.importorskip("triton")
interpreter = pytest.importorskip("triton.runtime.interpreter")

NAMES = ("output", "hidden_states", "offsets", "modulation", "weight")


def load_engine(name):
    """Load a second copy of the module, like remote code does."""
    spec = importlib.util.spec_from_file_location(name, deform_conv_triton.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreted_engine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield load_engine("interpreted.deform_conv_triton")


def dot_of_any_float(builder, a, b, total, *_):
    """Multiply bfloat16 correctly; Triton's interpreter stores it as integers and multiplies these."""
    a, b = (
        (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype == triton.language.bfloat16 else x.data
        for x in (a, b)
    )
    product = np.matmul(a, b, dtype=total.data.dtype)
    return interpreter.TensorHandle(product + total.data, total.dtype.scalar)


@pytest.fixture
def engine(interpreted_engine, monkeypatch):
    """Run the kernels on the CPU with Triton's interpreter."""
    # Triton's own functions are compiled if it was imported before the variable was set.
    for module in (triton.language, triton.language.standard):
        for name, function in vars(module).copy().items():
            if isinstance(function, triton.JITFunction):
                monkeypatch.setattr(module, name, interpreter.InterpretedFunction(function.fn))
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot_of_any_float)
    # Otherwise each call replaces the complete language again, which takes most of the time and is never undone.
    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", lambda x, *args, **kw: x.rewrite()(*args, **kw))
    replaced = interpreter._patch_lang(triton.language.sum.fn)
    yield interpreted_engine
    replaced.restore()


def output_and_gradients(function, inputs, upstream):
    leaves = [x.detach().requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output, *torch.autograd.grad(output, leaves, upstream)]


def assert_all_close(actual, expected, **tolerance):
    for name, a, b in zip(NAMES, actual, expected, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize(
    ("shape", "side", "spread"),
    [
        ((2, 3, 4, 5, 7), 3, 2.0),
        ((1, 3, 4, 4, 7), 3, 0.0),
        ((1, 67, 20, 3, 17), 3, 2.0),
        ((1, 35, 33, 5, 3), 1, 0.5),
        ((1, 2, 1, 3, 19), 5, 5.0),
        ((1, 2, 3, 1, 1), 7, 2.0),
        ((1, 16, 130, 2, 3), 3, 2.0),
    ],
)
def test_equals_torchvision(engine, shape, side, spread):
    inputs = random_inputs(*shape, side, spread)
    upstream = torch.randn(shape[0], *shape[2:], dtype=torch.float64)
    actual = output_and_gradients(engine.triton_deform_conv2d, inputs, upstream)
    assert_all_close(actual, output_and_gradients(reference, inputs, upstream))
    assert actual[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
def test_types(engine, dtype, tolerance):
    hidden_states, offsets, modulation, weight = random_inputs(1, 20, 8, 4, 6, 3, dtype=torch.float32)
    inputs = [hidden_states.to(dtype), offsets, modulation.to(dtype), weight.to(dtype)]
    upstream = torch.randn(1, 8, 4, 6).to(dtype)
    actual = output_and_gradients(engine.triton_deform_conv2d, inputs, upstream)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = output_and_gradients(reference, [x.double() for x in inputs], upstream.double())
    assert_all_close([x.double() for x in actual], expected, atol=4 * tolerance, rtol=tolerance)


def test_weight_of_another_type_is_rounded(engine):
    hidden_states, offsets, modulation, weight = random_inputs(1, 4, 3, 4, 5, 3, dtype=torch.float32)
    hidden_states = hidden_states.half()
    weight.requires_grad_()
    output = engine.triton_deform_conv2d(hidden_states, offsets, modulation, weight)
    rounded = engine.triton_deform_conv2d(hidden_states, offsets, modulation, weight.half())
    torch.testing.assert_close(output, rounded, atol=0, rtol=0)
    (gradient,) = torch.autograd.grad(output.float().sum(), weight)
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 6), (8, 9)])
def test_bands_of_rows(engine, first, last):
    hidden_states, offsets, modulation, weight = random_inputs(2, 5, 4, 9, 6, 3)
    upstream = torch.randn(2, 4, last - first, 6, dtype=torch.float64)
    band = (hidden_states, offsets[:, :, first:last], modulation[:, :, first:last], weight)
    actual = output_and_gradients(lambda *x: engine.triton_deform_conv2d(*x, first_row=first), band, upstream)

    def rows_of_the_whole(*inputs):
        return reference(*inputs)[:, :, first:last]

    expected = output_and_gradients(rows_of_the_whole, (hidden_states, offsets, modulation, weight), upstream)
    expected[2:4] = [x[:, :, first:last] for x in expected[2:4]]
    assert_all_close(actual, expected)


def test_a_window_that_holds_all_rows_read_is_enough(engine):
    hidden_states, offsets, modulation, weight = random_inputs(1, 3, 2, 12, 6, 3)
    offsets = offsets.clamp(-1.9, 1.9)
    expected = reference(hidden_states, offsets, modulation, weight)[:, :, 5:7]
    window, rows = hidden_states[:, :, 2:10], slice(5, 7)
    actual = engine.triton_deform_conv2d(window, offsets[:, :, rows], modulation[:, :, rows], weight, first_row=3)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (float("nan"), torch.float32),
        (float("nan"), torch.float64),
        (float("inf"), torch.float32),
        (-1e30, torch.float32),
        (3e9, torch.float64),
    ],
)
def test_positions_far_away_or_no_numbers_read_nothing(engine, value, dtype):
    hidden_states, offsets, modulation, weight = random_inputs(1, 3, 2, 4, 5, 3, dtype=dtype)
    lost = torch.zeros_like(modulation, dtype=torch.bool)
    lost[0, 2, 2, 3] = lost[0, 4, 0, 0] = True
    broken = offsets.clone()
    broken[0, 4, 2, 3] = broken[0, 9, 0, 0] = value
    upstream = torch.randn(1, 2, 4, 5, dtype=dtype)
    inputs = (hidden_states, broken, modulation, weight)
    actual = output_and_gradients(engine.triton_deform_conv2d, inputs, upstream)

    inputs = (hidden_states, offsets, modulation.masked_fill(lost, 0), weight)
    expected = output_and_gradients(reference, inputs, upstream)
    expected[2] = expected[2].masked_fill(lost.repeat_interleave(2, dim=1), 0)
    expected[3] = expected[3].masked_fill(lost, 0)
    assert_all_close(actual, expected)


@pytest.mark.parametrize(
    "shape", [(0, 3, 4, 5, 6), (1, 0, 4, 5, 6), (1, 3, 0, 5, 6), (1, 3, 4, 0, 6), (1, 3, 4, 5, 0)]
)
def test_nothing_to_compute(engine, shape):
    batch_size, in_channels, out_channels, height, width = shape
    inputs = [
        torch.randn(batch_size, in_channels, height, width),
        torch.randn(batch_size, 18, height, width),
        torch.randn(batch_size, 9, height, width),
        torch.randn(out_channels, in_channels, 3, 3),
    ]
    upstream = torch.randn(batch_size, out_channels, height, width)
    output, *gradients = output_and_gradients(engine.triton_deform_conv2d, inputs, upstream)
    assert output.shape == upstream.shape
    assert not output.any()
    for gradient, x in zip(gradients, inputs, strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced"])
def test_memory_formats_and_views(engine, layout):
    inputs = random_inputs(2, 4, 3, 4, 7, 3)
    upstream = torch.ones((), dtype=torch.float64).expand(2, 3, 4, 7)
    expected = output_and_gradients(reference, inputs, upstream)
    *strided, weight = inputs
    if layout == "channels_last":
        strided = [x.to(memory_format=torch.channels_last) for x in strided]
    elif layout == "transposed":
        strided = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in strided]
    else:
        together = torch.cat(inputs[1:3], dim=1)
        strided = [torch.cat((inputs[0], inputs[0]), dim=1)[:, 4:], together[:, :18], together[:, 18:]]
    assert_all_close(output_and_gradients(engine.triton_deform_conv2d, (*strided, weight), upstream), expected)


@pytest.mark.parametrize("needed", range(4))
def test_a_gradient_alone(engine, needed):
    inputs = random_inputs(1, 3, 2, 4, 5, 3)
    upstream = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    expected = output_and_gradients(reference, inputs, upstream)[1 + needed]
    inputs[needed].requires_grad_()
    output = engine.triton_deform_conv2d(*inputs)
    (actual,) = torch.autograd.grad(output, inputs[needed], upstream)
    torch.testing.assert_close(actual, expected)


def test_maps_of_more_than_2_to_the_31_values(engine, monkeypatch):
    # The interpreter writes every argument back, which would allocate memory pages that are otherwise untouched.
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
    height, width, channels = 2**24, 17, 8
    positions = torch.from_numpy(np.zeros((1, height, width, channels), dtype=np.float16))
    positions[:, -8:] = torch.randn(8, width, channels).half()
    _, offsets, modulation, weight = random_inputs(1, channels, 3, 4, width, 3, dtype=torch.float32)
    map_end = positions[:, -8:].permute(0, 3, 1, 2)
    upstream = torch.randn(1, 3, 4, width).half()
    actual, expected = [], []
    for results, hidden_states, first_row in (
        (actual, positions.permute(0, 3, 1, 2), height - 4),
        (expected, map_end, 4),
    ):
        # With this many rows, float32 only holds integer positions.
        leaves = [x.clone().requires_grad_() for x in (offsets.clamp(-2, 2).round(), modulation, weight)]
        output = engine.triton_deform_conv2d(hidden_states, *leaves, first_row)
        results.extend((output, *torch.autograd.grad(output, leaves, upstream)))
    assert positions.numel() > 2**31
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_operator_is_well_formed(engine):
    inputs = [x.requires_grad_() for x in random_inputs(1, 3, 2, 4, 5, 3)]
    torch.library.opcheck(engine.modulated_deform_conv2d, (*inputs, 0))
    upstream = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    inputs = [x.detach() for x in inputs]
    torch.library.opcheck(engine.weight_backward, (upstream, *inputs, 0))
    for needs in ((True, False), (False, True)):
        torch.library.opcheck(engine.sampling_backward, (upstream, *inputs, 0, *needs))


class Convolution(torch.nn.Module):
    def __init__(self, engine, weight):
        super().__init__()
        self.engine = engine
        self.weight = torch.nn.Parameter(weight)

    def forward(self, hidden_states, offsets, modulation):
        return self.engine.triton_deform_conv2d(hidden_states, offsets, modulation, self.weight)


def test_export_with_dynamic_shapes(engine):
    *inputs, weight = random_inputs(2, 3, 4, 5, 6, 3)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Convolution(engine, weight), tuple(inputs), dynamic_shapes=(dynamic,) * 3)
    *inputs, _ = random_inputs(3, 3, 4, 7, 9, 3)
    torch.testing.assert_close(program.module()(*inputs), reference(*inputs, weight))


def test_compiled_as_one_graph(engine):
    torch._dynamo.reset()
    compiled = torch.compile(engine.triton_deform_conv2d, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((1, 3, 2, 4, 5), (2, 3, 2, 6, 7)):
        inputs = random_inputs(*shape, 3)
        upstream = torch.randn(shape[0], shape[2], *shape[3:], dtype=torch.float64)
        expected = output_and_gradients(reference, inputs, upstream)
        assert_all_close(output_and_gradients(compiled, inputs, upstream), expected)


def test_shapes_that_do_not_fit_are_refused(engine):
    hidden_states, offsets, modulation, weight = random_inputs(1, 3, 2, 4, 5, 3)
    with pytest.raises(ValueError, match="3 x 2"):
        engine.triton_deform_conv2d(hidden_states, offsets, modulation, weight[..., :2])
    with pytest.raises(ValueError, match="for 2 channels"):
        engine.triton_deform_conv2d(hidden_states, offsets, modulation, weight[:, :2])
    with pytest.raises(ValueError, match="`offsets`"):
        engine.triton_deform_conv2d(hidden_states, offsets[:, :9], modulation, weight)
    with pytest.raises(ValueError, match="`modulation`"):
        engine.triton_deform_conv2d(hidden_states, offsets, modulation[..., :4], weight)


def test_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    engine = load_engine("without_triton.deform_conv_triton")
    assert not engine.is_triton_available()
    with pytest.raises(ImportError, match="pip install triton"):
        engine.triton_deform_conv2d(*random_inputs(1, 3, 2, 4, 5, 3))


@pytest.fixture
def compiled_engine():
    if not isinstance(deform_conv_triton.forward_kernel, triton.JITFunction):
        pytest.skip("TRITON_INTERPRET is set")
    return deform_conv_triton


def test_compiled_kernels_refuse_the_cpu(compiled_engine):
    assert compiled_engine.is_triton_available()
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        compiled_engine.triton_deform_conv2d(*random_inputs(1, 3, 2, 4, 5, 3))


def compile_ahead(engine, name, capability, dtype, in_channels, index_type="i32"):
    """Compile a kernel for a GPU that may be absent; return its code and resource use."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(engine, name)
    tensors = torch.empty(1, in_channels, 1, 1, dtype=dtype), torch.empty(64, in_channels, 3, 3)
    constants = engine.constants(*tensors, engine.MAX_BLOCK_CHANNELS_IN_BACKWARD if "sampling" in name else None)
    constants |= {"NEEDS_MAP": True, "NEEDS_PLAN": True}
    options = {x: constants.pop(x) for x in ("num_warps", "num_stages", "enable_fp_fusion")}
    types = dict.fromkeys(("offsets_ptr", "modulation_ptr", "grad_offsets_ptr", "grad_modulation_ptr"), "*fp32")
    types |= dict.fromkeys(("partial_ptr", "grad_map_ptr"), "*fp32")
    types |= dict.fromkeys(kernel.arg_names & constants.keys(), "constexpr")
    pointer = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    signature = {x: types.get(x, pointer if x.endswith("_ptr") else index_type) for x in kernel.arg_names}
    source = ASTSource(
        kernel,
        signature,
        {(i,): constants[x] for i, x in enumerate(kernel.arg_names) if x in constants},
        {(i,): [["tt.divisibility", 16]] for i, x in enumerate(kernel.arg_names) if x.endswith("_ptr")},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.skipif(
    not os.path.exists(os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "ptxas")),
    reason="Triton came without ptxas",
)
@pytest.mark.parametrize(
    ("name", "capability", "dtype", "in_channels", "index_type"),
    [
        ("forward_kernel", 90, torch.bfloat16, 67, "i32"),
        ("forward_kernel", 80, torch.float32, 64, "i64"),
        ("sampling_backward_kernel", 90, torch.bfloat16, 64, "i32"),
        ("sampling_backward_kernel", 80, torch.float16, 67, "i32"),
        ("weight_backward_kernel", 90, torch.bfloat16, 67, "i32"),
    ],
)
def test_kernels_compile_for_gpus(
    compiled_engine, tmp_path, monkeypatch, name, capability, dtype, in_channels, index_type
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = compile_ahead(compiled_engine, name, capability, dtype, in_channels, index_type)
    # The most that a program gets without requesting more, so that several share a processor.
    assert compiled.metadata.shared <= 48 * 1024
    # Samples are read in vectors of 16 bytes, even if the channels of a position do not fill them.
    assert "ld.global.v4.b32" in compiled.asm["ptx"]
    if dtype != torch.float32:
        assert ("wgmma" if capability == 90 else "mma.sync") in compiled.asm["ptx"]


@pytest.fixture
def model_engine(engine, monkeypatch):
    """Make the engine available to the model's layers."""
    monkeypatch.setattr(deform_conv, "triton_deform_conv2d", engine.triton_deform_conv2d)
    monkeypatch.setenv("MASSFORMER_DEFORM_CONV_ENGINE", "triton")


@pytest.mark.parametrize("band_values", [1, 10**9])
def test_a_model_on_the_engine(model_engine, monkeypatch, band_values):
    model = tiny_model()
    layers = [x for x in model.modules() if isinstance(x, deform_conv.ModulatedDeformConv2d)]
    assert {x.engine for x in layers} == {"triton"}
    pixel_values = torch.randn(1, 3, 64, 32)
    monkeypatch.setattr(modeling_massformer, "BAND_VALUES", band_values)
    with torch.no_grad():
        actual = model(pixel_values)
        for layer in layers:
            layer.engine = "torchvision"
        expected = model(pixel_values)
    for name in ("class_queries_logits", "masks_queries_logits", "edge_logits"):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(os.environ.get("RUN_SLOW") != "1", reason="interprets kernels for a whole image; RUN_SLOW=1")
def test_golden_parity(model_engine, tmp_path):
    golden = np.load(DATA / "golden_square.npz")
    torch.save(golden_state_dict("r50"), tmp_path / "release.pth")
    convert_massformer_checkpoint(tmp_path / "release.pth", "r50", tmp_path / "converted")
    model = MaSSFormerForSemanticSegmentation.from_pretrained(tmp_path / "converted")
    with torch.no_grad():
        outputs = model(golden_pixel_values(256, 256, [45]))
    np.testing.assert_allclose(outputs.class_queries_logits.numpy(), golden["class_logits_6"], rtol=0, atol=1e-3)
    actual = outputs.masks_queries_logits[:, :, ::4, ::4].numpy()
    np.testing.assert_allclose(actual, golden["mask_logits_6_stride4"], rtol=0, atol=5e-3)
