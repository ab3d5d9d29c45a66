"""The real SGLang on a plain CPU: `install.sh VENV` makes its environment, `LAUNCH` holds what its server needs.

One bound thread, no overlap scheduling and an idle loop that sleeps: with two threads and SGLang's defaults a
2-core machine spends its time waiting for itself.
"""

ENV = {
    "SGLANG_PLATFORM": "cpu_native",
    "SGLANG_CPU_OMP_THREADS_BIND": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_OFFLINE": "1",
}

OPTIONS = {
    "dtype": "float32",
    "device": "cpu",
    "max_total_tokens": 65536,
    "max_running_requests": 128,
    "skip_server_warmup": True,
    "disable_overlap_schedule": True,
    "sleep_on_idle": True,
}
"""As `sglang.Engine` takes them."""

ARGUMENTS = [
    part
    for name, value in OPTIONS.items()
    for part in ([f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)])
]
"""The same for `sglang.launch_server`."""
