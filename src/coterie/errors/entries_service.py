"""Failures of this server and of the providers behind it, as data."""

from __future__ import annotations

from coterie.errors.entry import Retry
from coterie.errors.entry_kinds import service, upstream

SERVICE = (
    service(
        "internal_error",
        "The server had an error while processing your request. Sorry about that!",
        elsewhere=False,
        cause="A bug in the server.",
        remedy="Look for the request's id in the server's log; it stands beside the traceback.",
    ),
    service(
        "engine_failed",
        "The engine that was generating this answer stopped unexpectedly.",
        cause="The engine's process crashed, was killed, or reported an error of its own.",
        remedy="Send the request again: the engine is started anew. The server's log has its last words.",
    ),
    service(
        "model_load_failed",
        "The model `{model}` could not be loaded.",
        retry=Retry.NEVER,
        cause="The model's file is missing or damaged, or there is not enough memory for it.",
        remedy="Run 'coterie doctor' on the server.",
    ),
    service(
        "engine_timeout",
        "The engine did not answer within {limit_s} seconds.",
        status=504,
        cause="Loading the model, the first token or the next token took longer than its limit.",
        remedy="Send a shorter prompt, or raise the limits under 'engine' on the server.",
    ),
    service(
        "server_is_overloaded",
        "The server is currently overloaded with other requests.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        cause="Every slot of the model is busy and its waiting queue is full, or the wait was too long.",
        remedy="Send the request again after 'retry-after', or serve the model with more slots.",
    ),
    service(
        "server_shutting_down",
        "The server is shutting down.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        elsewhere=False,
        cause="The server was told to stop, and the answer was not complete within 'server.shutdown_grace_s'.",
        remedy="Send the request again once the server is back.",
    ),
    service(
        "not_ready",
        "The server is not ready to serve requests.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        elsewhere=False,
        cause="A model that is loaded at start is still being loaded, or the load of a model failed a moment ago.",
        remedy="Ask again a little later; if it lasts, run 'coterie doctor' on the server.",
    ),
)

UPSTREAM = (
    upstream(
        "rate_limit_exceeded",
        "Rate limit reached for requests to this model.",
        status=429,
        type_="rate_limit_error",
        retry=Retry.AFTER,
        responses_code="rate_limit_exceeded",
        cause="Every provider of the model that could be asked limits how often, and the limit is reached.",
        remedy="Send the request again after 'retry-after'; add a provider, or ask the provider for a higher limit.",
    ),
    upstream(
        "upstream_auth_failed",
        "The provider of this model refused this server's credentials.",
        retry=Retry.NEVER,
        cause="A provider answered 401 or 403: the key that is configured for it is missing, wrong or not allowed.",
        remedy="Correct the provider's 'api_key_env' or 'api_key' on the server. The caller's key is not concerned.",
    ),
    upstream(
        "upstream_model_unavailable",
        "The provider of this model does not have it at present.",
        retry=Retry.NEVER,
        cause="A provider does not know the model that the configuration sends to it.",
        remedy="Correct the provider's 'models' on the server, or load the model there.",
    ),
    upstream(
        "upstream_quota_exhausted",
        "The account of this server at the provider of this model is exhausted.",
        status=503,
        retry=Retry.NEVER,
        cause="A provider answered that the account which its key belongs to has no credit or quota left.",
        remedy="Top the account up, or add another provider of the model.",
    ),
    upstream(
        "upstream_error",
        "The provider of this model had an error while processing the request.",
        cause="A provider answered with an error of its own (a status of 500 or more, or one that makes no sense).",
        remedy="Send the request again; the server's log says what the provider answered.",
    ),
    upstream(
        "upstream_unreachable",
        "The provider of this model could not be reached.",
        cause="The connection to a provider was refused or broken before it answered, its name does not resolve, or "
        "its certificate is not valid.",
        remedy="Send the request again; 'coterie providers' shows which one is down.",
    ),
    upstream(
        "upstream_connect_timeout",
        "The provider of this model could not be connected to in time.",
        status=504,
        cause="A provider did not take the connection within its 'connect_timeout_s'.",
        remedy="Send the request again; 'coterie providers' shows which one is down.",
    ),
    upstream(
        "upstream_timeout",
        "The provider of this model did not answer in time.{hint}",
        status=504,
        cause="A provider's 'first_token_timeout_s' or 'idle_timeout_s' passed: it went silent before the first token, "
        "or between two.",
        remedy="Send the request again, or raise the provider's deadlines on the server.",
    ),
    upstream(
        "vector_store_timeout",
        "The provider of this model could not search its files in time.",
        status=504,
        responses_code="vector_store_timeout",
        cause="A provider's own search took too long.",
        remedy="Send the request again.",
    ),
    upstream(
        "upstream_total_timeout",
        "The provider of this model did not finish its answer within {limit_s} seconds.",
        status=504,
        cause="The whole answer took longer than the provider's 'total_timeout_s'.",
        remedy="Ask for a shorter answer ('max_completion_tokens'), or raise 'total_timeout_s' on the server.",
    ),
    upstream(
        "upstream_empty_response",
        "The provider of this model ended its answer without saying anything.",
        cause="A provider's stream ended at once, without an error, a token or a finish reason.",
        remedy="Send the request again; the server's log says which provider it was.",
    ),
    upstream(
        "upstream_stream_interrupted",
        "The answer broke off before it was complete.",
        cause="A provider ended its stream without saying that the answer was finished.",
        remedy="Send the request again.",
    ),
    upstream(
        "upstream_protocol_error",
        "The provider of this model sent something that is not part of the protocol.",
        cause="A provider's stream broke the rules of chat.completion.chunk.",
        remedy="Send the request again; the server's log says what was received.",
    ),
)
