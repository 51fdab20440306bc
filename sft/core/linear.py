"""Linear layers in float32 through oneDNN on processors where the BLAS that torch was built with is half as fast.

MKL does not use AVX-512 on AMD's processors: 200 GFLOP/s where oneDNN reaches 430 (2 cores of Zen 5).
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.core.packing import LINE_MULTIPLE

SMALL_MULTIPLE = 8
"""Up to a line's length, as in sampling, oneDNN takes multiples of this many rows."""
CPUINFO = Path("/proc/cpuinfo")


def prefers_onednn() -> bool:
    """Return True where oneDNN multiplies float32 matrices faster than torch's BLAS does."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and CPUINFO.is_file()
        and "AuthenticAMD" in CPUINFO.read_text()
    )


def use_onednn(model: PreTrainedModel) -> PreTrainedModel:
    """Put a `OneDnnLinear` in the place of every linear layer, with the same weights under the same names."""
    linears = [(name, part) for name, part in model.named_modules() if type(part) is torch.nn.Linear]
    for name, linear in linears:
        model.set_submodule(name, OneDnnLinear.of(linear), strict=True)
    return model


class OneDnnLinear(torch.nn.Linear):
    """A linear layer that computes in oneDNN what comes in float32 and in a number of rows that has a kernel."""

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> "OneDnnLinear":
        """Return a layer that shares the weights of another."""
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return input @ weight.T + bias."""
        rows = input.numel() // self.in_features
        if (
            rows == 0
            or rows % (LINE_MULTIPLE if rows > LINE_MULTIPLE else SMALL_MULTIPLE)
            or input.dtype != torch.float32
            or self.weight.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input)
        output: torch.Tensor = _Linear.apply(input.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        output = output.unflatten(0, input.shape[:-1])
        return output if self.bias is None else output + self.bias


class _Linear(torch.autograd.Function):
    """Letters: M rows, I inputs, O outputs."""

    @staticmethod
    def forward(ctx: Any, input_MI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(input_MI if ctx.needs_input_grad[1] else None, weight_OI)
        output_MO: torch.Tensor = _product(input_MI, weight_OI)
        return output_MO

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        input_MI, weight_OI = ctx.saved_tensors
        (gradient_MO,) = gradients
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _product(gradient_MO, weight_OI.t())
        if ctx.needs_input_grad[1]:
            inputs, outputs = input_MI.t(), gradient_MO.t()
            # the kernel is a third faster when the wider side stands in the columns
            wide = outputs.shape[0] <= inputs.shape[0]
            of_weight = _product(outputs, inputs) if wide else _product(inputs, outputs).t()
        return of_input, of_weight


@torch.library.custom_op("sft::product", mutates_args=())  # opaque to torch.compile, which cannot look into oneDNN
def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left @ right.T."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


@_product.register_fake
def _(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left.new_empty(left.shape[0], right.shape[0])
