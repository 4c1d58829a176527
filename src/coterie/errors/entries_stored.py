"""Failures around stored responses, conversations and sockets, as data."""

from __future__ import annotations

from coterie.errors.entry import Retry
from coterie.errors.entry_kinds import caller, service

STORED = (
    caller(
        "response_not_found",
        "Response with id '{id}' not found.",
        status=404,
        cause="No stored response has this id: it was never stored ('store: false'), was deleted, has expired, or "
        "belongs to another key.",
        remedy="Check the id; responses are kept for 'responses.retention_days'.",
    ),
    caller(
        "previous_response_not_found",
        "Previous response with id '{id}' not found.",
        status=404,
        param=True,
        cause="The response to go on from, or one that it stands on, was never stored, was deleted, has expired, or "
        "belongs to another key.",
        remedy="Send the conversation so far as 'input'.",
    ),
    caller(
        "previous_response_not_finished",
        "Previous response with id '{id}' is still in progress.",
        param=True,
        cause="The response to go on from is queued or being generated.",
        remedy="Wait until its status is final, then send the request again.",
    ),
    caller(
        "conversation_not_found",
        "Conversation with id '{id}' not found.",
        status=404,
        cause="No conversation has this id: it was never made, was deleted, or belongs to another key.",
        remedy="Check the id, or make a conversation with 'POST /v1/conversations'.",
    ),
    caller(
        "item_not_found",
        "Item with id '{id}' not found.",
        status=404,
        cause="No stored item has this id, or it belongs to something else.",
        remedy="Check the id.",
    ),
    caller(
        "item_reference_not_found",
        "Item with id '{id}' not found.",
        status=404,
        param=True,
        cause="The input refers to an item that is not stored here, or belongs to another key.",
        remedy="Send the item itself.",
    ),
    caller(
        "conversation_locked",
        "Conversation '{id}' is in use by another response. Please try again once it has finished.",
        status=409,
        retry=Retry.BACKOFF,
        cause="Two turns of one conversation at once: each would have missed what the other said.",
        remedy="Send the request again; the SDKs do so by themselves.",
    ),
    caller(
        "response_not_cancellable",
        "Cannot cancel response '{id}': {reason}.",
        cause="Only a response with 'background: true' that is still queued or in progress can be cancelled.",
        remedy="Close the connection of a response that is not in the background; that cancels it.",
    ),
    caller(
        "response_not_streamable",
        "Cannot stream response '{id}': {reason}.",
        cause="The events of a stored response are asked for, and it has none.",
        remedy="Ask for the response without 'stream'.",
    ),
    caller(
        "websocket_message_invalid",
        "Invalid WebSocket message: {reason}.",
        cause="A message on a socket is not an event that a client may send.",
        remedy="Send 'response.create' with the fields of a request, as text.",
    ),
    caller(
        "invalid_stream_id",
        "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain letters, "
        "numbers, underscores, hyphens, and periods.",
        param=True,
        cause="A message on a socket names its lane in a way that no lane can be named.",
        remedy="Correct the 'stream_id', or leave it out.",
    ),
    caller(
        "websocket_connection_limit_reached",
        "Responses websocket connection limit reached ({limit_s} seconds). Create a new websocket connection to "
        "continue.",
        cause="A socket has been open for as long as one may be.",
        remedy="Open another; a response that is stored can be gone on from there.",
    ),
    service(
        "response_timeout",
        "The response did not finish within {limit_s} seconds.",
        status=504,
        elsewhere=False,
        cause="A response in the background took longer than 'responses.background_timeout_s'.",
        remedy="Ask for a shorter answer, or raise the limit on the server.",
    ),
    service(
        "response_interrupted",
        "The server stopped before the response was complete.",
        elsewhere=False,
        cause="The server's process ended, or was killed, while it generated the response.",
        remedy="Send the request again.",
    ),
    service(
        "storage_failed",
        "The server's storage is not available.",
        status=503,
        type_="service_unavailable_error",
        elsewhere=False,
        cause="The database could not be written or read: it is full, locked, or cannot be reached.",
        remedy="Run 'coterie doctor' on the server; its log says what the database answered.",
    ),
)
