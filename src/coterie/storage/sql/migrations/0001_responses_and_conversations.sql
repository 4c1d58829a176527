-- Stored responses and conversations. Times are Unix seconds; JSON is text; truth values are 0 and 1.

CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    background INTEGER NOT NULL,
    model TEXT NOT NULL,
    previous_response_id TEXT,
    conversation_id TEXT,
    instance TEXT NOT NULL,
    response TEXT NOT NULL,
    input TEXT NOT NULL,
    -- The bytes of the stream; compressed where events_packed is 1.
    events BYTEA,
    events_packed INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX responses_by_expiry ON responses (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX responses_unfinished ON responses (instance) WHERE status IN ('queued', 'in_progress');

-- In which responses an item stands, among the input (0) or the output (1). The item itself is in the response.
CREATE TABLE response_items (
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    is_output INTEGER NOT NULL,
    PRIMARY KEY (response_id, item_id)
);

CREATE INDEX response_items_by_item ON response_items (item_id);

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    -- The place of the item that comes next; it only grows.
    next_position BIGINT NOT NULL,
    -- The response that is being made in this conversation, and the server that makes it.
    locked_by TEXT,
    lock_instance TEXT
);

CREATE INDEX conversations_locked ON conversations (locked_by) WHERE locked_by IS NOT NULL;

CREATE TABLE conversation_items (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    item_id TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (conversation_id, item_id)
);

CREATE INDEX conversation_items_in_order ON conversation_items (conversation_id, position);

CREATE INDEX conversation_items_by_item ON conversation_items (item_id);
