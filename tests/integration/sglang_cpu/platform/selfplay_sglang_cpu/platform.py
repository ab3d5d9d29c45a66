"""The platform itself. The base class's defaults already say: no Triton, no graphs, no kernels."""

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


class CpuNativePlatform(CpuDeviceMixin, SRTPlatform):
    """Dispatches to the `native` PyTorch kernels."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_dispatch_key_name(self) -> str:
        return "native"

    def get_device(self, device_id: int = 0) -> str:
        # A str and no torch.device: SGLang's server_args calls .split(":") on it.
        return "cpu"

    def is_pin_memory_available(self, device: object = None) -> bool:
        return False
