"""Linear layers through oneDNN: equal results, used only where MKL is slow, and never when gradients are needed."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from espalier.models.surgery import prune
from espalier.scoring import onednn
from espalier.scoring.onednn import fast_linear, vendor
from tests.unit.conftest import random_model

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.fixture(params=[True, False], ids=["MKL is slow", "MKL is fast"])
def mkl_is_slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: request.param)
    return request.param


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shapes of the weights that oneDNN multiplies with."""
    found: list[torch.Size] = []
    multiply = torch.ops.mkldnn._linear_pointwise

    def counted(x: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
        found.append(weight.shape)
        return multiply(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return found


@needs_onednn
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_a_model_computes_the_same_logits(architecture: str, mkl_is_slow: bool, calls: list[torch.Size]) -> None:
    model = random_model(architecture, 50)
    prune(model, [[], [1]], [[3, 7, 11, 30], []])  # a layer without attention, one without MLP
    tokens = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        expected = model(tokens).logits
        with fast_linear(model):
            found = model(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    # Three matrices of the MLP of layer 0, four of the attention of layer 1, and the head.
    assert len(calls) == (8 if mkl_is_slow else 0)


@needs_onednn
@pytest.mark.usefixtures("mkl_is_slow")
def test_gradients_do_not_use_onednn(calls: list[torch.Size]) -> None:
    model = random_model("llama", 50)
    gradients = []
    for context in (torch.enable_grad(), fast_linear(model)):
        model.zero_grad()
        with context:
            model(torch.arange(12)[None]).logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(map(torch.equal, *gradients))
    assert calls == []


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


PRODUCTS = {
    "matrix": (draw(4, 5), draw(3, 5), None),
    "bias": (draw(2, 4, 5), draw(3, 5), draw(3)),
    "one row": (draw(5), draw(3, 5), draw(3)),
    "input with strides": (draw(5, 8).T[::2], draw(3, 5), None),
    "input repeated": (draw(1, 5).expand(4, 5), draw(3, 5), None),
}
LEFT_ALONE = {
    "no rows": (draw(0, 5), draw(3, 5), None),
    "no outputs": (draw(2, 5), draw(0, 5), None),
    "no inputs": (draw(2, 0), draw(3, 0), draw(3)),
    "weight with strides": (draw(4, 5), draw(5, 3).T, None),
    "bias with strides": (draw(4, 5), draw(3, 5), draw(6)[::2]),
    "bias repeated": (draw(4, 5), draw(3, 5), draw(1).expand(3)),
    "double": (draw(4, 5).double(), draw(3, 5).double(), None),
}


@needs_onednn
@pytest.mark.parametrize("case", [*PRODUCTS, *LEFT_ALONE])
def test_every_product_equals_that_of_pytorch(
    case: str, calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: True)
    x, weight, bias = (PRODUCTS | LEFT_ALONE)[case]
    expected = functional.linear(x, weight, bias)
    with torch.inference_mode(), fast_linear(random_model("llama", 50)):
        torch.testing.assert_close(functional.linear(x, weight, bias), expected)
        torch.testing.assert_close(functional.linear(input=x, weight=weight, bias=bias), expected)
    assert len(calls) == (2 if case in PRODUCTS else 0)


@needs_onednn
def test_it_can_be_switched_off_and_serves_float32_on_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: True)
    model = random_model("llama", 50)
    assert isinstance(fast_linear(model), onednn._Linear)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not isinstance(fast_linear(model), onednn._Linear)
    assert not isinstance(fast_linear(model.bfloat16()), onednn._Linear)
    assert not isinstance(fast_linear(model.float().to("meta")), onednn._Linear)


def test_the_vendor_is_read(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert vendor(info) is None
    info.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: Any\n")
    assert vendor(info) == "AuthenticAMD"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # as on Arm
    assert vendor(info) is None
