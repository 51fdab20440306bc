"""LoRA on every linear layer but the output (Hu et al. 2021, arXiv 2106.09685): W acts as W + (alpha / r) B A."""

from peft import LoraConfig
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def lora_config(model: PreTrainedModel, *, r: int, alpha: float, task: str | None = None) -> LoraConfig:
    """Return peft's settings, without dropout; B starts at zero, A is drawn from torch's generator.

    Args:
        model: whose layers are adapted.
        r: rank.
        alpha: scale; the product of the two matrices is multiplied by alpha / r.
        task: peft's name of what the model is for, such as "SEQ_CLS", whose new head then trains whole.
    """
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        fan_in_fan_out=transposed,
        task_type=task,
    )
