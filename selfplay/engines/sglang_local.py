"""`sglang.Engine` inside this process, behind the same schedule as a server. Imports sglang when constructed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from selfplay.engines.retry import Failure
from selfplay.errors import EngineError


class LocalTransport:
    """Carries `/generate` payloads to the tokenizer manager of an engine in this process.

    Args:
        model: Local folder or Hugging Face id.
        options: What `sglang.Engine` takes, e.g. `dtype="float32"`.

    Raises:
        EngineError: No sglang here, or it could not load the model.
    """

    def __init__(self, model: str, **options: Any) -> None:
        try:
            import sglang
            from sglang.srt.managers.io_struct import GenerateReqInput
        except ImportError as error:
            raise EngineError(
                f"sglang cannot be imported here ({error}); run selfplay in SGLang's environment, or use --launch"
            ) from None
        self._request = GenerateReqInput
        try:
            self._engine = sglang.Engine(model_path=model, **options)
        except Exception as error:
            raise EngineError(f"sglang.Engine could not start with {model}: {error}") from None
        self._options = {"model_path": model, **options}

    async def generate(self, payload: dict[str, Any], affinity: str) -> Any:
        generator = self._engine.tokenizer_manager.generate_request(self._request(**payload), None)
        try:
            # Through JSON, so that it reads exactly as a server's answer does: in process, rows are tuples.
            return json.loads(json.dumps(await generator.__anext__(), default=str))
        except ValueError as error:
            # What the server answers 400 to: the request itself is refused.
            raise Failure(str(error), retry=False, status=400) from None
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {error}", retry=False) from None
        finally:
            with contextlib.suppress(Exception):
                await generator.aclose()

    async def everywhere(self, payload: dict[str, Any]) -> list[Any]:
        return [await self.generate(payload, "")]

    async def info(self) -> list[dict[str, Any]]:
        import sglang

        args = self._engine.server_args
        known = {key: value for key, value in vars(args).items() if isinstance(value, str | int | float | bool)}
        return [{"url": "in process", "version": sglang.__version__, **known}]

    async def aclose(self) -> None:
        self._engine.shutdown()
