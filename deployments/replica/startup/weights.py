"""What is known of a model's weights before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from deployments.demo_models.catalog import PREFIX, known_folder

CONFIG = "config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")


def weight_bytes(source: str, load_format: str = "auto") -> int | None:
    """Bytes of the weights, `None` where they are still to be fetched or built.

    Args:
        source: A Hugging Face id, a local folder or file, or `embedded:NAME`.
        load_format: Of vLLM; `auto` reads files of the folder.

    Raises:
        FileNotFoundError: A local folder is not there or no model; vLLM would look for it on the
            hub, and find out after a minute.
    """
    folder = known_folder(source)
    if folder is None:
        if Path(source).is_file():
            return Path(source).stat().st_size
        if not source.startswith(PREFIX) and _is_path(source):
            raise FileNotFoundError(f"source: {source!r}: no such folder or file on this node")
        return None
    if _is_path(source) and not (folder / CONFIG).is_file() and not any(folder.glob("*.gguf")):
        raise FileNotFoundError(f"source: {source!r}: the folder has no {CONFIG}")
    size = sum(file.stat().st_size for form in WEIGHTS for file in folder.glob(form))
    if load_format == "auto" and _is_path(source) and not size:
        raise FileNotFoundError(f"source: {source!r}: the folder has no weights ({WEIGHTS[0]})")
    return size or None


def _is_path(source: str) -> bool:
    """Whether a source can be nothing but a path: ids of the hub have one slash, inside."""
    return source.startswith(("/", "./", "../", "~"))
