"""What providers' errors are known by, as data: names first, sentences where there is nothing else.

A *stem* is looked for in the names of an error (codes, types, reasons, classes), reduced to lower-case letters and
digits: ``ratelimit`` is in ``RateLimitError``, ``rate_limit_exceeded`` and ``RATE_LIMIT_EXCEEDED``. So a name that was
never seen is understood by its parts. A :class:`Phrase` is looked for in the sentences, and says whose words it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that tell a failure, and who says them; ``code`` and ``param`` are what they mean, for some tables."""

    pattern: re.Pattern[str]
    source: str
    code: str = ""
    param: str = ""


def compiled(*rows: tuple[str, ...]) -> tuple[Phrase, ...]:
    """The phrases of ``rows``: pattern, source, and ``code`` and ``param`` where the table has them."""
    return tuple(Phrase(re.compile(f"(?i){pattern}"), *rest) for pattern, *rest in rows)


def first_phrase(phrases: Iterable[Phrase], text: str) -> Phrase | None:
    """The first of ``phrases`` that ``text`` has."""
    return next((phrase for phrase in phrases if phrase.pattern.search(text)), None)


def has_stem(ids: Iterable[str], stems: Iterable[str]) -> bool:
    """Whether one of the reduced names ``ids`` has one of ``stems`` in it."""
    return any(stem in name for name in ids for stem in stems)


CONTENT_STEMS: Final = (
    "contentfilter", "contentpolicy", "contentmoderation", "responsibleai", "moderationblocked", "datainspection",
    "policyviolation", "cyberpolicy", "biopolicy", "guardrail", "safetyviolation", "blockedbysafety",
    "prohibitedcontent",
)  # fmt: skip
CONTENT_IDS: Final = frozenset({"1301"})
"""Zhipu's number."""
CONTENT_PHRASES: Final = compiled(
    (r"content management policy", "Azure OpenAI: content_filter"),
    (r"rejected as a result of (?:our|the) safety system", "OpenAI: content_policy_violation"),
    (r"requires moderation|input was flagged|was flagged (?:by|for|as)", "OpenRouter: 403 with flagged_input"),
    (r"violat\w{1,5} (?:our|the|\w+'s|your) ?[\w ]{0,30}polic", "OpenAI and others: usage policies"),
    (
        r"blocked (?:by|due to) [\w ]{0,30}(?:safety|content|moderation|polic|guardrail)",
        "Google: SAFETY; gateways' filters",
    ),
    (r"inappropriate content", "DashScope: DataInspectionFailed"),
)
CONTENT_OF_IMAGE: Final = re.compile(
    r"(?i)\b(?:input|your|the) image[\w ]{0,40}(?:safety|content policy|not allowed|flagged)"
)

QUOTA_STEMS: Final = (
    "insufficientquota", "insufficientbalance", "insufficientcredit", "insufficientfund", "creditbalance",
    "creditsexhausted", "outofcredit", "exceededcurrentquota", "billing", "spendlimit", "usagelimit",
    "usagenotincluded", "paymentrequired", "arrearage", "balanceexhausted", "budgetexceeded",
)  # fmt: skip
QUOTA_WEAK_STEMS: Final = ("quotaexceeded", "quotaexhausted", "exceededquota")
"""Said of money by some and of a rate by others, who then say how long to wait."""
QUOTA_PHRASES: Final = compiled(
    (r"exceeded your current quota", "OpenAI: insufficient_quota (Google says it of rates, with a delay)"),
    (r"insufficient (?:account )?(?:balance|credit|fund|quota)", "DeepSeek, Moonshot"),
    (r"credit balance is too low", "Anthropic: a 400"),
    (
        r"(?:requires more|out of|not enough|no remaining|run out of|exhausted your) (?:\w+ )?credits?",
        "OpenRouter: 402",
    ),
    (r"exceeded your monthly included credits|key limit exceeded", "Hugging Face; OpenRouter"),
    (
        r"account [\w ,.'-]{0,60}(?:overdue|in arrears|suspended due to)|please (?:recharge|top up)",
        "Moonshot, DashScope",
    ),
    (
        r"payment required|billing (?:hard limit|not active|details|issue)|check your (?:plan|billing)",
        "OpenAI: billing",
    ),
    (r"余额不足|欠费", "Zhipu: the account is empty"),
)

TOO_LARGE_FOR_RATE: Final = compiled(
    (r"request too large[^\n]{0,300}(?:tokens per|\b[TR]P[MD]\b)", "OpenAI 429 and Groq 413: larger than the bucket"),
)
RATE_NUMBERS: Final = re.compile(r"(?i)\blimit:? ?(\d{1,12}),[^\n]{0,80}?\brequested:? ?(\d{1,12})")
"""OpenAI, Groq: ``Limit 8000, Requested 8637``."""

OVERLOAD_STEMS: Final = (
    "overload", "maxpending", "unavailableerror", "serviceunavailable", "slowdown", "capacity", "queuefull",
    "serverbusy", "enginebusy", "modelnotready", "modelloading", "loadingmodel",
)  # fmt: skip
OVERLOAD_IDS: Final = frozenset({"unavailable", "3505", "3800", "3810", "42903"})
"""Whole names: Google's ``UNAVAILABLE``, Mistral's and FastChat's numbers."""
OVERLOAD_STATUSES: Final = frozenset({503, 529})
OVERLOAD_PHRASES: Final = compiled(
    (r"\boverloaded\b|over capacity|at (?:full )?capacity|capacity exceeded", "Anthropic, TGI, Mistral"),
    (r"queue is full|queue full|too many pending|maximum pending requests", "SGLang, Ollama"),
    (r"(?:engine|server|model|service) is (?:currently |too |temporarily )?(?:busy|unavailable)", "vLLM, Zhipu"),
    (r"server busy|service unavailable|temporarily unavailable", "Ollama, Mistral"),
    (r"loading model|model is (?:currently |still )?(?:being )?load", "llama.cpp, Hugging Face: the model is loading"),
    (r"token backlog|no slot available|no (?:healthy|available) (?:upstream|worker|replica|server)", "vLLM, Envoy"),
)

RATE_STEMS: Final = ("ratelimit", "throttl", "toomanyrequests", "resourceexhausted", "concurrencylimit")
RATE_IDS: Final = frozenset({"42901"})
"""FastChat's number."""
RATE_PHRASES: Final = compiled(
    (
        r"rate[- ]?limit(?:ed|s|ing)?\b(?: was| is| has been)?[\w ]{0,30}(?:reach|exceed|hit|\bfor\b)",
        "OpenAI, Groq, Kong",
    ),
    (r"exceed[\w' ]{0,40}(?:rate limit|requests? (?:limit|per)|calls? per)", "Anthropic, Azure"),
    (r"too many (?:concurrent )?requests|^throttling error|request was throttled", "RFC 9110's phrase; Bedrock"),
    (r"(?:tokens|requests) per (?:minute|min|day|hour|second)\b", "OpenAI: TPM, RPM"),
)

AUTH_STEMS: Final = (
    "authentication", "unauthorized", "unauthenticated", "invalidapikey", "apikeyinvalid", "invalidauth",
    "incorrectapikey", "permissiondenied", "permissionerror", "accessdenied", "forbidden", "unsupportedcountry",
    "ipnotauthorized", "expiredtoken", "invalidtoken", "unrecognizedclient", "invalidsignature", "apikeyexpired",
    "missingapikey",
)  # fmt: skip
AUTH_STATUSES: Final = frozenset({401, 403, 407, 511})
STATUSES_OF_OTHERS: Final = frozenset({401, 402, 403, 404, 405, 407})
"""Statuses that tell of the key, the account, the model or the route, and not of the provider."""
AUTH_PHRASES: Final = compiled(
    (r"\bapi[- ]?key[\w ]{0,20}(?:not valid|invalid|expired|incorrect|missing|required)", "Google: a 400"),
    (r"(?:invalid|incorrect|missing|wrong|no|expired) (?:x-)?api[- ]?key\b", "OpenAI, Anthropic, Mistral"),
    (
        r"(?:missing|invalid) (?:bearer|authentication|authorization|credentials)|^unauthorized\b",
        "OpenRouter, Moonshot",
    ),
    (r"location is not supported|country, region, or territory", "Google, OpenAI: this server's place"),
)

MODEL_STEMS: Final = (
    "modelnotfound", "modelnotexist", "modelnotavailable", "modelnotloaded", "invalidmodel", "unknownmodel",
    "nosuchmodel", "modeldoesnotexist", "deploymentnotfound", "modeldecommissioned", "modelunavailable",
    "modelnotsupported",
)  # fmt: skip
MODEL_IDS: Final = frozenset({"1500", "40301"})
"""Mistral's and FastChat's numbers."""
MODEL_PHRASES: Final = compiled(
    (r"\b(?:model|deployment)\b[^\n]{0,120}?\b(?:(?:does|do|did) ?n[o']t exist|not exist|(?:was |is |could )?not "
     r"(?:be )?found|is not available|not loaded|decommissioned|(?:is|been) deprecated|is not served)",
     "OpenAI, vLLM, Ollama, llama.cpp's router, DeepSeek"),
    (r"\b(?:unknown|invalid|no such|unrecognized|unsupported) model\b", "Mistral, FastChat"),
    (r"\bmodels/[\w.:@-]{1,100} is not (?:found|supported)", "Google: a 404"),
    (r"no (?:allowed providers|endpoints found|models? loaded)", "OpenRouter, LM Studio"),
)  # fmt: skip
MODEL_WORD: Final = re.compile(r"(?i)\b(?:model|deployment|function)\b")

OVERFLOW_STEMS: Final = (
    "contextlength", "contextwindow", "contextsize", "contextoverflow", "prompttoolong", "inputtoolong",
    "maxprompttokens", "promptistoolong",
)  # fmt: skip
OVERFLOW_IDS: Final = frozenset({"40303", "1261", "tokenslimitreached"})
"""FastChat's and Zhipu's numbers, GitHub Models' name."""
OVERFLOW_PHRASES: Final = compiled(
    (r"maximum context length|max(?:imum)?[ _]model[ _]len", "OpenAI, vLLM, OpenRouter, FastChat, Fireworks, Mistral"),
    (r"(?:prompt|input|inputs|messages|request|conversation) (?:is|are) (?:too|longer|greater)[\w ]{0,20}"
     r"(?:long|context|model)", "Anthropic, Bedrock, SGLang"),
    (r"prompt too long|input too long|too many (?:input |prompt )?tokens", "Ollama, gateways"),
    (r"\(\d+ tokens\) is longer than|tokens?\b[^\n]{0,80}\bcontext (?:length|size|window|limit)", "SGLang, llama.cpp"),
    (r"exceed\w{0,3} (?:the |this |its |your )?(?:\w+'s |available |model |maximum |max ){0,4}context", "llama.cpp"),
    (r"context (?:length|window|size|limit)[\w ]{0,20}exceed|exceeds? context", "MiniMax, Anthropic"),
    (r"(?:longer|greater|larger|more) than the (?:model's )?(?:\w+ )?context", "LM Studio, Ollama"),
    (r"context the overflows|context length of only", "LM Studio"),
    (r"context[_ ]length[_ ]exceeded|context[_ ]window[_ ]exceeded", "wrappers that keep only the code"),
    (r"maximum (?:prompt|input|sequence) length", "xAI"),
    (r"input token count|maximum number of tokens allowed", "Google"),
    (r"exceeded model token limit|token limit exceeded|input tokens exceed", "Moonshot, OpenAI"),
    (r"input length[^\n]{0,60}exceeds? the maximum|exceeds? the maximum (?:allowed )?(?:input )?(?:length|tokens)",
     "SGLang"),
    (r"reduce the length of (?:the |your |either )?(?:messages|input|prompt|one)", "Groq, OpenAI"),
    (r"`?inputs`? tokens \+ `?max_new_tokens`? must be|`inputs` must have less than", "TGI, Together"),
    (r"range of input length should be|prompt exceeds max length", "DashScope, Zhipu"),
    (r"input is too large to process", "llama.cpp (as a 500): larger than the batch"),
    (r"prompt length[^\n]{0,60}exceeds|exceeds the limit of \d+|max_seq_len", "vLLM, Copilot, TensorRT-LLM"),
)  # fmt: skip
OUTPUT_PHRASES: Final = compiled(
    (r"requested \d{1,9} (?:output|completion) tokens[^\n]{0,40}limit", "gateways: max_tokens"),
    (r"max_(?:output_|completion_)?tokens: \d{1,9} > \d{1,9}, which is the maximum", "Anthropic: max_tokens"),
)
"""Said of the answer's length alone, not of what fits together with the prompt."""
OVERFLOW_GUARD: Final = re.compile(
    r"(?i)^(?:throttling error|service unavailable):|rate limit|too many requests|(?:tokens|requests) per |"
    r"current quota"
)
"""Where one of these is said too, it is no overflow."""

IMAGE_ALIASES: Final[Mapping[str, str]] = {
    "invalid_base64_image": "invalid_base64",
    "invalid_image_base64": "invalid_base64",
    "sanitizer_server_error": "image_parse_error",
    "unsupported_image": "image_parse_error",
    "unsupported_image_format": "invalid_image_format",
    "invalid_image_type": "invalid_image_format",
    "image_download_failed": "failed_to_download_image",
    "image_download_error": "failed_to_download_image",
    "content_filter": "content_policy_violation",
    "array_below_min_length": "empty_array",
}
"""Other names of codes that the catalogue has."""

IMAGE_PHRASES: Final = compiled(
    (r"invalid base64|incorrect padding|(?:decode|decoding) base64|not (?:a )?valid base64", "llama.cpp, vLLM",
     "invalid_base64"),
    (r"failed to load image|could not process image|cannot identify image|unable to process (?:the )?input image|"
     r"failed to (?:decode|process|parse|open) (?:the )?image|unsupported image\b|image cannot be decoded|"
     r"image could not be decoded", "llama.cpp, Anthropic, vLLM, Google, OpenAI", "image_parse_error"),
    (r"(?:error|failed|failure|unable|could not|cannot|timeout)[\w ]{0,20}(?:download|fetch|retriev)\w{0,4}[^\n]{0,60}"
     r"(?:image|https?:|url)", "OpenAI, vLLM: an image's URL", "failed_to_download_image"),
    (r"image exceeds [\d.]+ ?[km]b|image (?:file )?(?:size|is too big)[^\n]{0,40}bytes", "Anthropic: bytes",
     "image_file_too_large"),
    (r"image dimensions exceed|image[\w ]{0,20}too (?:large|many pixels)", "Anthropic: pixels", "image_too_large"),
    (r"image[\w ]{0,30}too small", "OpenAI, DashScope: pixels", "image_too_small"),
    (r"does not match the provided media type|unsupported (?:mime|media|content)[- ]?type[^\n]{0,60}image",
     "Anthropic, xAI", "unsupported_image_media_type"),
    (r"provided image is not valid|invalid image\b(?! url)", "Google", "invalid_image"),
    (r"invalid image url", "OpenAI", "invalid_image_url"),
)  # fmt: skip

UNSUPPORTED_STEMS: Final = ("unsupportedparam",)
UNSUPPORTED_PHRASES: Final = compiled(
    (r"(?:image|vision|audio|multimodal|video)s?(?: input| content)?s? (?:is|are) not supported|"
     r"(?:not|n't) support (?:\w+ )?(?:image|vision|multimodal|audio)|not a multi-?modal model|"
     r"missing data required for image input|support (?:image|audio) input",
     "llama.cpp (as a 500), vLLM, Ollama, OpenRouter", "unsupported_value", "prompt"),
    (r"(?:not|n't) support (?:tools|tool use|tool call|function call)|support tool use|"
     r"requires --enable-auto-tool-choice|tools? (?:param|choice)[\w ]{0,20} requires --jinja|"
     r"tool_choice (?:param )?requires --jinja", "Ollama, OpenRouter, vLLM, llama.cpp (as a 500)",
     "unsupported_parameter", "tools"),
    (r"(?:not|n't) support (?:thinking|reasoning)\b", "Ollama", "unsupported_parameter", "reasoning_effort"),
)  # fmt: skip

CONFIGURATION_STEMS: Final = ("operationnotsupported", "unsupportedapiversion", "invalidapiversion")
"""Azure: the deployment, or the version in its URL, cannot do this."""

TIMEOUT_STEMS: Final = ("timeout", "deadlineexceeded", "timedout")
TIMEOUT_STATUSES: Final = frozenset({408, 504, 522, 524, 598, 599})
TIMEOUT_PHRASES: Final = compiled(
    (r"\btimed? ?out\b|timeout exceeded|request timeout|deadline exceeded", "OpenRouter, Envoy, gRPC"),
)

INVALID_STATUSES: Final = frozenset({400, 413, 422})
INVALID_STEMS: Final = (
    "invalidrequest", "badrequest", "invalidargument", "invalidparam", "validation", "unprocessable", "invalidvalue",
)  # fmt: skip
FAILED_STEMS: Final = ("servererror", "internalerror", "apierror", "internalservererror", "unknownerror", "generation")
"""The provider's own failure, also where a second name says "invalid request"."""
