-- How much there is to read, known before it is read; and which servers are alive. Times are Unix seconds.

-- The bytes of a Response object and of its input. A table of its own: a value that stands behind long ones is slow to get at.
CREATE TABLE response_sizes (
    response_id TEXT PRIMARY KEY REFERENCES responses (id) ON DELETE CASCADE,
    object_size BIGINT NOT NULL,
    input_size BIGINT NOT NULL
);

INSERT INTO response_sizes (response_id, object_size, input_size)
SELECT id, LENGTH(response), LENGTH(input) FROM responses;

ALTER TABLE conversation_items ADD COLUMN size BIGINT NOT NULL DEFAULT 0;

UPDATE conversation_items SET size = LENGTH(item);

-- It holds the sizes, so that they are counted without a look at the items.
CREATE INDEX conversation_item_sizes ON conversation_items (conversation_id, position, size);

DROP INDEX conversation_items_in_order;

CREATE TABLE instances (
    name TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL
);
