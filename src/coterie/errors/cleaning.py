"""A stranger's text made fit to be shown. Pure.

What it promises of :func:`clean`:

* The result is one line of at most :data:`MAX_CLEAN` characters, and the same when it is cleaned again.
* Keys, tokens, ids of accounts, URLs, hosts, addresses, file paths, e-mail addresses, class names and long blobs are
  gone; of HTML and tracebacks nothing is left at all. A text that says nothing without them is empty.
* Work is linear in the first :data:`_READ` characters: a pattern that takes a run of unlimited length starts nowhere
  but at the run's beginning (the look-behind says so), and inside of a run there is one way to match.

It errs on the side of masking: a provider's sentence that loses a harmless word is still of use.
"""

from __future__ import annotations

import re
from typing import Final

MAX_CLEAN: Final = 500
MAX_DETAIL: Final = 1000
MASK: Final = "[redacted]"

_READ: Final = 2000
_ROUNDS: Final = 6


def _compiled(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), put) for pattern, put in pairs)


_SECRETS: Final = _compiled(
    # A web token, and what a header says.
    (r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}", MASK),
    (r"(?i)\b(?:bearer|authorization|x-api-key|set-cookie|cookie)\b['\"]?\s*[:=]?\s*['\"]?(?:(?:bearer|basic)\s+)?"
     r"[^\s'\",;)}\]]+", MASK),
    (r"(?i)\bbasic\s+(?=\S*[\d=])\S{6,}", MASK),
    # Keys by the marks that vendors put in front of them.
    (r"(?i)(?<![a-z0-9])(?:sk|pk|rk|gsk|xai|hf|r8|pplx|nvapi|tgp|fw|csk|glpat|ghp|gho|ghs|github_pat|xox[abp]|dapi)"
     r"[-_][^\s'\",;)}\]]*", MASK),
    (r"(?:AIza|AKIA|ASIA|ya29\.)[^\s'\",;)}\]]*", MASK),
    # Keys by what stands before them.
    (r"(?i)(?:api[-_ ]?key|access[-_ ]?key|secret(?:[-_ ]?key)?|access[-_ ]?token|auth[-_ ]?token|password|passwd|pwd|"
     r"credentials?)['\"]?\s*(?:provided|is|was)?\s*[:=]\s*['\"]?[^\s'\",;)}\]]+", MASK),
    (r"(?i)(?:api[-_ ]?key|secret|password)\s+(?:provided\s+)?['\"`(]?(?!(?:not|is|was|has|in|for|and|or|to|of|on|at|"
     r"by|you|your|with|from|as|are|that|this|the|a|provided|required|invalid|missing|expired|must|does|may|cannot|can|could|"
     r"should|will|header|found|valid|wrong|incorrect|first)\b)[^\s'\",;)}\]]{4,}", MASK),
    (r"(?i)\btoken\s+['\"`(]?(?=[a-z_+/=.-]*\d)(?=[\d_+/=.-]*[a-z])[\w+/=.-]{6,}", MASK),
    (r"-----BEGIN [A-Z ]{0,40}-----.*", MASK),
    (r"\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-[\w-]{1,20})\s+[\w+/=.]+", MASK),
    (r"(?i)\b(?:key|token|sig|signature)\s*=\s*['\"]?[^\s'\",;)}\]&]+", MASK),
    (r"(?i)\btoken\s*:\s*['\"]?(?!\d{1,9}\b)[^\s'\",;)}\]]+", MASK),
)  # fmt: skip

_CODE_FILES: Final = (
    "py|pyc|pyx|so|dll|cpp|cc|cu|cuh|hpp|rs|go|js|ts|mjs|java|kt|rb|php|gguf|ggml|safetensors|bin|pt|pth|onnx|log|sock|"
    "pem|crt|yaml|yml|toml|ini|env|conf|cfg|sh|db|sqlite"
)
_DOMAINS: Final = (
    "com|net|org|edu|gov|io|ai|dev|app|cloud|local|internal|intranet|lan|corp|home|svc|cluster|localdomain|invalid|test|"
    "example|co|me|us|uk|eu|de|fr|nl|ch|at|it|es|se|pl|cn|jp|kr|in|au|ca|br|ru|sg|hk|tw|info|biz|tech|xyz|run|host|sh|"
    "gg|tv|ms|azure|aws|site|online|live|pro|world|network|systems|services|works|zone|ts"
)
_OWNERS: Final = "organi[sz]ation|project|account|user|tenant|subscription|workspace|request"
_INSIDE: Final = (
    "internal|intranet|private|prod|production|staging|stg|corp|svc|cluster|k8s|db|redis|postgres|mysql|cache|gpu|srv|"
    "lan|node|pod|worker"
)
"""Parts of names that are given to machines behind a door."""
_MACHINES: Final = rf"{_INSIDE}|llm|vllm|inference|host|server|backend|gateway|gw|proxy|rack|dc|zone"
_PRIVATE: Final = _compiled(
    # Where something is.
    (r"(?i)\barn:[\w-]{0,20}:[^\s'\",;)}\]]+", MASK),
    (r"(?i)\bip(?:-\d{1,3}){4}[\w.-]*", MASK),
    (r"(?i)\bdata:[\w/+.;=-]{0,80},[^\s'\"]*", MASK),
    (r"(?i)\b[a-z][a-z0-9+.-]{1,20}:/{2,3}[^\s]*", MASK),
    (r"(?i)\bwww\.[^\s]+", MASK),
    (r"(?<![^\s@'\"<>()])[^\s@'\"<>()]+@[^\s@'\"<>(),;]+", MASK),
    (r"(?<![\w])[A-Za-z]:[\\/][^\s'\"<>|]*(?:\s[^\s'\"<>|\\]{0,60}\\[^\s'\"<>|]*){0,8}", MASK),
    (r"\\\\[\w.$-]+[^\s'\"<>|]*", MASK),
    (r"(?<![\w\]>./])(?:~|\.{1,2})?/[\w.@+~%-][^\s'\",;)}\]<>]*", MASK),
    (rf"(?i)(?<![\w./\\+@-])[\w./\\+@-]+\.(?:{_CODE_FILES})\b(?::\d{{1,6}}){{0,2}}", MASK),
    (r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w])", MASK),
    (r"(?<![\w:])\[?(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:%\w{1,16})?\]?(?::\d{1,5})?(?![\w:])", MASK),
    (r"(?i)\b(?:host|hostname|server|node|pod|address|addr|peer|upstream)['\"]?\s*[=:]\s*\(?"
     r"['\"]?[^\s'\",;)}\]]+", MASK),
    (r"(?i)\b(?:host|hostname|node|pod)\s+['\"`]?(?=[^\s]*[\d.:-])[^\s'\",;)}\]]+", MASK),
    (rf"(?i)(?<![\w.-])\.*(?:[\w-]+\.)+(?:{_DOMAINS})(?::\d{{1,5}})?\b(?![\[.]\w)", MASK),
    (rf"(?i)(?<![\w.-])(?=(?:[\w-]+\.)*(?:{_INSIDE})(?:-?\d{{1,6}})?(?:\.|(?![\w-])))[\w-]+(?:\.[\w-]+)+",
     MASK),
    (rf"(?i)(?<![\w.-])(?=[a-z-]*\d)(?=(?:[a-z0-9]+-)*(?:{_MACHINES})\d{{0,6}}(?![a-z0-9_.]))[a-z0-9]+(?:-[a-z0-9]+)+"
     r"(?:\.[\w-]+)*(?::\d{1,5})?(?!\w)", MASK),
    (r"(?i)(?<![\w.-])(?:(?=[\d_.-]*[a-z])[\w.-]+:\d{2,5}|localhost(?::[^\s'\",;)}\]]+)?)\b(?!\.\d)", MASK),
    # What it is made of.
    (r"<[^<>]{0,200}(?:object|0x|class|function|module|frozen)[^<>]{0,200}>", MASK),
    (r"\b0x[0-9a-fA-F]{4,}\w*", MASK),
    (r"\[type=[^\[\]]{0,400}\]?", ""),
    (r"\b(?:[a-z_]\w{0,40}\.){0,6}[A-Z]\w{0,60}(?:Error|Exception|Exit|Interrupt)\((?:[^()]|\([^()]*\)){0,400}\)?", ""),
    (r"\b(?:[a-z_]\w{0,40}\.){0,6}[A-Z]\w{1,60}(?:Error|Exception)\b:?(?:\s?-)?", ""),
    (r"(?i)\b(?:litellm|vllm|sglang|torch|transformers|pydantic(?:_core)?|fastapi|starlette|uvicorn|httpx|httpcore|"
     r"aiohttp|urllib3|requests|asyncio|concurrent|ray|grpc|numpy|jinja2|huggingface_hub)\.[\w.]+", ""),
    # Who somebody is.
    (r"(?i)(?<![a-z0-9])(?:org|proj|req|acct|cus|wrkspc|chatcmpl|cmpl|gen)[-_][\w-]+", MASK),
    (r"(?<![A-Za-z0-9])(?i:user|project|account|request|tenant|team|sess|session|trace|dep|run|thread|asst)[-_]"
     r"(?=[\w-]*[\dA-Z])[\w-]{4,}", MASK),
    (rf"(?i)\b(?:{_OWNERS}|trace|correlation|session)(?:[-_ ]?id)?\s{{0,2}}['\"`]?\s{{0,2}}[:=#]\s{{0,2}}['\"`]?"
     rf"(?!(?:{_OWNERS})\b)[^\s'\"`,;)}}\]]+", MASK),
    (rf"\b(?i:{_OWNERS})(?i:[-_ ]?ids?)?\s{{1,2}}(?!(?i:{_OWNERS})\b)"
     r"(?:['\"`][^\s'\"`]{1,100}['\"`]|(?=[\w.-]*[\dA-Z])[^\s'\"`,;(){}\[\]]{3,})", MASK),
    # What is too long to be a word.
    (r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{8,40}\b", MASK),
    (r"(?i)\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{16,}\b", MASK),
    (r"(?<![\w+/=])(?=[A-Za-z+/=_]*\d)(?=[\d+/=_]*[A-Za-z])[A-Za-z0-9+/=_]{20,}", MASK),
    (r"[A-Za-z0-9+/=_-]{40,}", MASK),
)  # fmt: skip

_DROPPED: Final = re.compile(
    r"(?i)<(?:!doctype|/?html|head|/?body|title|script|style|center|hr|h1|h2|div|p|br|pre|span|a)\b[^<>]{0,200}/?>"
    r"|Traceback \(most recent call|\bFile [\"'<][^\n]{0,300}[\"'>], line \d"
    r"|^\s*at [\w.$<>]{2,100}\s?\([^\n]{0,200}:\d+|\n[ \t]{1,40}at [\w.$<>]{2,100}"
    r"|\bgoroutine \d+ \[|stack backtrace:|thread '[^']{0,80}' panicked|\bpanic: "
)
_SPACES: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffd]+")
_INVISIBLE: Final = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_REPEATED: Final = re.compile(r"(?:\[redacted\][\s'\"`().,:;/-]{0,3}){2,}")
_POINTER: Final = re.compile(
    r"(?i)^(?:please )?(?:visit|see|read|refer|go|head|contact|check|manage)\b|\b(?:learn more|documentation|the docs|"
    r"more information|help center)\b"
)
_POINTED: Final = re.compile(
    r"(?i)\bfor (?:further|more) (?:information|details?)[^.\[]{0,60}(?:visit|see|read|refer to|head to|go to):? "
    r"\[redacted\]"
)
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_EMPTY_QUOTES: Final = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}|''|\"\"")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_SAYS_NOTHING: Final = frozenset(
    {
        "bad request", "invalid request", "unprocessable entity", "unprocessable content", "error", "unknown error",
        "an error occurred", "provider returned error", "invalid request error", "request failed", "payload too large",
        "request entity too large", "content too large", "badrequest", "invalid argument", "validation error",
        "invalid input", "failed", "client error", "http error", "error code", "upstream error", "error error code",
    }
)  # fmt: skip
"""Texts, without digits and signs, that are no more than a status in words."""


def clean(text: str) -> str:
    """Return what of ``text`` may be shown to a caller: one line, ``""`` where nothing is left that says anything."""
    text = text[: 2 * _READ].encode("utf-8", "ignore").decode("utf-8")
    if _DROPPED.search(_INVISIBLE.sub("", text)):
        return ""
    text = text[:_READ]
    for _ in range(_ROUNDS):
        cleaned = _clip(_told(_masked(text)))
        if cleaned == text:
            return text
        text = cleaned
    return ""  # Each round masks something more: nothing that anybody wrote by hand.


def mask_secrets(text: str) -> str:
    """Return ``text`` for the operator's log: one line, clipped, without keys; hosts and paths stay."""
    text = _one_line(text[: 2 * MAX_DETAIL].encode("utf-8", "ignore").decode("utf-8"))
    for pattern, put in _SECRETS:
        text = pattern.sub(put, text)
    return text[:MAX_DETAIL]


def _one_line(text: str) -> str:
    return _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()


def _masked(text: str) -> str:
    text = _one_line(text)
    for pattern, put in (*_SECRETS, *_PRIVATE):
        text = pattern.sub(put, text)
    return text


def _told(text: str) -> str:
    """Without sentences that only point to what is masked; empty where no words are left."""
    text = _POINTED.sub("", _REPEATED.sub(f"{MASK} ", _EMPTY_QUOTES.sub("", text)))
    sentences = [
        sentence
        for sentence in _SENTENCE.split(text)
        if not (MASK in sentence and (_POINTER.search(sentence) or not _WORD.search(sentence.replace(MASK, ""))))
    ]
    text = _one_line(" ".join(sentences)).strip(" -:;,")
    words = _WORD.findall(text.replace(MASK, "").lower())
    return "" if len(words) < 2 or " ".join(words) in _SAYS_NOTHING else text


def _clip(text: str) -> str:
    if len(text) <= MAX_CLEAN:
        return text
    head = text[: MAX_CLEAN - 3]
    return f"{head[: max(head.rfind(' '), MAX_CLEAN // 2)].rstrip(' -:;,.[')}..."
