"""Whole sentences by which providers blame the request (a 400 or 422) for what is their own, as data.

Such an answer may repeat the caller's words, so a part of it proves nothing. A pattern here is matched against a whole
text of the provider's, and begins with the provider's words or with one word that has no space in it: no caller can
write what stands in front of its own words.
"""

from __future__ import annotations

from typing import Final

from coterie.errors.upstream_patterns import Phrase, compiled

_NAME: Final = r"['`\"]?[\w./:@-]{1,200}['`\"]?"
_REST: Final = r"(?:[ .,;(:][^\n]{0,400})?"
_QUOTA: Final = "upstream_quota_exhausted"
_AUTH: Final = "upstream_auth_failed"
_MODEL: Final = "upstream_model_unavailable"

SENTENCES: Final[tuple[Phrase, ...]] = compiled(
    (rf"Your credit balance is too low{_REST}", "Anthropic: the account", _QUOTA),
    (rf"You have reached your specified API usage limits{_REST}", "Anthropic: the account's own limit", _QUOTA),
    (rf"Budget has been exceeded!{_REST}", "LiteLLM: the key's budget", _QUOTA),
    (rf"(?:Your|This) organi[sz]ation has (?:been )?disabled{_REST}", "Anthropic: the account", _AUTH),
    (r"API key (?:not valid|expired)\. Please (?:pass a valid|renew the) API key\.?", "Google: the key", _AUTH),
    (r"User location is not supported for the API use\.?", "Google: this server's place", _AUTH),
    (r"Model Not Exist\.?", "DeepSeek", _MODEL),
    (rf"(?:The |This |Requested |The requested )?(?:model|deployment):? {_NAME} (?:does not exist|"
     rf"(?:was |is )?not found|"
     rf"is not available|is not loaded|has been (?:deprecated|decommissioned)){_REST}",
     "OpenAI, vLLM, llama.cpp's router", _MODEL),
    (rf"(?:Invalid|Unknown) model:? {_NAME}\.?", "Mistral, FastChat", _MODEL),
    (rf"{_NAME} is not a valid model ID\.?", "OpenRouter", _MODEL),
    (r"The provided model identifier is invalid\.?", "Bedrock", _MODEL),
    (rf"Invocation of model ID {_NAME} with on-demand throughput isn.t supported{_REST}", "Bedrock", _MODEL),
    (rf"Model (?:is|was) unloaded{_REST}|No models? loaded{_REST}", "LM Studio", _MODEL),
    (rf"The model has crashed{_REST}", "LM Studio", _MODEL),
    (rf"(?:The )?(?:requested )?model {_NAME} is (?:currently )?overloaded{_REST}",
     "OpenRouter", "server_is_overloaded"),
    (r"API version not supported\.?", "Azure: the URL", "upstream_error"),
)  # fmt: skip
"""``code`` is what each of them means."""
