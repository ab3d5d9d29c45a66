"""SGLang out-of-tree platform: plain PyTorch on a CPU, with no compiled sgl_kernel."""


def activate() -> str | None:
    """SGLang's entry point `sglang.srt.platforms`: the platform class, or None to step aside where CUDA is there."""
    import torch

    return None if torch.cuda.is_available() else "selfplay_sglang_cpu.platform:CpuNativePlatform"
